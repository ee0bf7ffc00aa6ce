//! `whimbrel check --acl`: the least rights that each kind of client needs in Redis.
//!
//! Redis checks the commands inside scripts as well, so the rules list what `lua/` calls, read from the scripts
//! themselves, and what nodes send on their own.

use std::collections::BTreeSet;

use super::{library, scripts};

/// Commands of every connection.
const CONNECTION: &str = "hello auth ping";

/// Commands that nodes send themselves.
const NODE: &str = "select role info config|get echo evalsha script|load subscribe ssubscribe xread xdel pexpire del srem zrem \
                    srandmember hdel wait function|list function|load watch unwatch multi exec set";

/// A user of Redis.
struct User {
    name: &'static str,
    purpose: &'static str,
    /// Key patterns with their flags, behind the prefix.
    keys: &'static [(&'static str, &'static str)],
    /// Whether it publishes to the channels of nodes.
    publishes: bool,
    commands: BTreeSet<String>,
}

/// What Redis 7.0 does not know, and refuses in a rule.
const SINCE_7_2: &str = "waitaof";

/// What nodes, and clients that find a key's server by themselves, send in a Cluster.
const CLUSTER: &str = "cluster|slots cluster|nodes cluster|shards asking";

/// What nodes ask of Sentinels that have users of their own.
const SENTINEL: &str = "sentinel|get-master-addr-by-name sentinel|master subscribe";

fn users() -> [User; 3] {
    let connection = words(CONNECTION);
    let of_scripts = scripts::all().flat_map(|script| called(script.code())).collect();
    let of_functions = called(&library::body("")).collect();
    [
        User {
            name: "node",
            purpose: "nodes (whimbrel serve, whimbrel check)",
            keys: &[("~", ":*")],
            publishes: true,
            commands: &(&connection | &words(NODE)) | &of_scripts,
        },
        User {
            name: "ingress",
            purpose: "producers that XADD to the ingress stream",
            keys: &[("%W~", ":ingress")],
            publishes: false,
            commands: &connection | &words("select xadd"),
        },
        User {
            name: "fcall",
            purpose: "producers that FCALL the functions for publishing and for leases",
            keys: &[("~", ":{device:*"), ("~", ":{topic:*"), ("~", ":{producers}:*")],
            publishes: true,
            commands: &(&connection | &words("select fcall")) | &of_functions,
        },
    ]
}

/// The commands that a script calls, as an ACL has them.
fn called(code: &str) -> impl Iterator<Item = String> {
    code.split("call('").skip(1).map(|rest| {
        let mut words = rest.split('\'');
        let command = words.next().unwrap_or_default().to_lowercase();
        // Of XINFO, each subcommand has a rule of its own.
        match (command.as_str(), words.nth(1)) {
            ("xinfo", Some(subcommand)) => format!("xinfo|{}", subcommand.to_lowercase()),
            _ => command,
        }
    })
}

/// `ACL SETUSER` for each user, below a comment with its purpose; `sentinels` adds the user at Sentinels, and `cluster` what
/// a Cluster's servers are asked for.
pub fn rules(prefix: &str, sentinels: bool, cluster: bool) -> String {
    let more = if cluster { words(CLUSTER) } else { BTreeSet::new() };
    let setuser = |User { name, purpose, keys, publishes, commands }: &User| {
        let keys = keys.iter().map(|(flags, pattern)| format!("{flags}{prefix}{pattern}"));
        let limits = keys.chain(publishes.then(|| format!("&{prefix}:node:*")));
        line(prefix, name, purpose, limits, &(commands | &more))
    };
    let sentinel = sentinels.then(|| {
        let purpose = "nodes, to be run on each Sentinel";
        line(prefix, "sentinel", purpose, ["&+switch-master".to_owned()], &(&words(CONNECTION) | &words(SENTINEL)))
    });
    let newer = format!(
        "# nodes, with Redis 7.2 or newer or Valkey, for durable=disk\nACL SETUSER {prefix}-node +{SINCE_7_2}\n"
    );
    users().iter().map(setuser).chain([newer]).chain(sentinel).collect::<Vec<_>>().join("\n")
}

fn line(
    prefix: &str,
    name: &str,
    purpose: &str,
    limits: impl IntoIterator<Item = String>,
    commands: &BTreeSet<String>,
) -> String {
    let mut rules = vec![format!("ACL SETUSER {prefix}-{name} reset on >PASSWORD")];
    rules.extend(limits);
    rules.push("-@all".to_owned());
    rules.extend(commands.iter().map(|command| format!("+{command}")));
    format!("# {purpose}\n{}\n", rules.join(" "))
}

fn words(text: &str) -> BTreeSet<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_of_a_script_are_read_from_its_code() {
        let code = "redis.call('HGET', KEYS[1], 'xadd')\nlocal ok = redis.pcall('PUBLISH', a, 'b')\n\
                    redis.call('XINFO', 'STREAM', events)";
        assert_eq!(called(code).collect::<Vec<_>>(), ["hget", "publish", "xinfo|stream"]);
    }

    #[test]
    fn each_user_has_its_keys_and_nothing_else() {
        assert_eq!(rules("birds", true, false).matches("ACL SETUSER").count(), 5);
        assert!(
            rules("birds", false, true)
                .lines()
                .filter(|line| line.contains(" reset "))
                .all(|line| line.contains("+cluster|slots"))
        );
        let rules = rules("birds", false, false);
        let lines: Vec<_> = rules.lines().filter(|line| line.starts_with("ACL")).collect();
        assert!(lines[0].starts_with("ACL SETUSER birds-node reset on >PASSWORD ~birds:* &birds:node:* -@all +auth "));
        assert_eq!(
            lines[1],
            "ACL SETUSER birds-ingress reset on >PASSWORD %W~birds:ingress -@all +auth +hello +ping +select +xadd"
        );
        let keys = "~birds:{device:* ~birds:{topic:* ~birds:{producers}:* &birds:node:* -@all ";
        assert!(!rules.contains("cluster"));
        assert!(lines[2].contains(keys) && lines[2].contains(" +fcall ") && !lines[2].contains("+eval"));
    }
}
