//! `whimbrel check --acl`: the least that each kind of client of Redis has to be allowed.
//!
//! Redis checks the commands inside scripts as well, so these are the commands of `lua/` and those that nodes send
//! themselves. A test runs nodes and producers under exactly these rules.

/// Commands of every client: saying who it is, and that it is there.
const CONNECTION: &str = "+hello +auth +ping +select +client|setinfo +client|setname";

/// What nodes send themselves.
const NODE: &str = "+role +info +config|get +echo +evalsha +script|load +subscribe +unsubscribe +xread +pexpire +srem \
                    +srandmember +hdel +wait +waitaof +function|list +function|load +watch +unwatch +multi +exec";

/// What scripts of nodes do.
const SCRIPTS: &str = "+time +get +set +del +unlink +exists +persist +pexpireat +pttl +rename +publish +hget +hset +hsetnx \
                       +hmget +hgetall +hkeys +hlen +hexists +hrandfield +sadd +zadd +zrem +zscore +zcount \
                       +zrange +zrangebyscore +xadd +xdel +xlen +xrange +xrevrange +xsetid +xinfo|stream";

/// What the functions for producers do.
const FUNCTIONS: &str = "+fcall +time +get +set +persist +pexpire +pexpireat +hget +hset +hgetall +hdel +hlen +publish \
                         +xadd +zadd +zrem +zscore";

/// A user of Redis.
struct User {
    name: &'static str,
    what: &'static str,
    keys: &'static [&'static str],
    channels: &'static [&'static str],
    commands: &'static [&'static str],
}

const USERS: [User; 3] = [
    User {
        name: "node",
        what: "nodes (whimbrel serve, whimbrel check)",
        keys: &["~{prefix}:*"],
        channels: &["&{prefix}:node:*"],
        commands: &[CONNECTION, NODE, SCRIPTS],
    },
    User {
        name: "ingress",
        what: "producers that XADD to the ingress stream",
        keys: &["%W~{prefix}:ingress"],
        channels: &[],
        commands: &[CONNECTION, "+xadd"],
    },
    User {
        name: "fcall",
        what: "producers that FCALL whimbrel_publish and the leases of producers",
        keys: &["~{prefix}:{{device:*", "~{prefix}:{{topic:*", "~{prefix}:{{producers}}:*"],
        channels: &["&{prefix}:node:*"],
        commands: &[CONNECTION, FUNCTIONS],
    },
];

/// The commands that make these users, with a line about each.
pub fn rules(prefix: &str) -> String {
    let user = |User { name, what, keys, channels, commands }: &User| {
        let filled = |patterns: &[&str]| {
            let pattern = |text: &&str| text.replace("{prefix}", prefix).replace("{{", "{").replace("}}", "}");
            patterns.iter().map(pattern).collect::<Vec<_>>().join(" ")
        };
        let commands = commands.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
        let (keys, channels) = (filled(keys), filled(channels));
        let limits = [keys, channels].into_iter().filter(|limit| !limit.is_empty()).collect::<Vec<_>>().join(" ");
        format!("# {what}\nACL SETUSER {prefix}-{name} reset on >PASSWORD {limits} -@all {commands}\n")
    };
    USERS.iter().map(user).collect::<Vec<_>>().join("\n")
}
