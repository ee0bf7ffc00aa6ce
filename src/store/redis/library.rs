//! The function library: what lets a producer publish with one FCALL, and get the event's id, and hold a lease.
//!
//! It is generated from the scripts of nodes, the checks of `lua/library.lua`, and the settings that a node
//! would apply. Its functions are described by the version of the program and a digest of all that, which is how
//! nodes of several versions see whose library is there: an older one is replaced, a newer one stays.

use std::collections::HashMap;
use std::fmt::Write as _;

use futures_util::future::join_all;
use redis::{FromRedisValue as _, Value};

use super::RedisStore;
use super::call::Call;
use super::errors::{refused, unanswered};
use super::scripts::{self, function};
use super::shards::{SLOTS, Shard};
use crate::model::{LeaseTime, MAX_NESTING, Ttl};
use crate::store::producers::MOST_LEASES;
use crate::store::{ONCE_TIME, Retention, StoreError, millis};

/// How often another node may load a library between our look at it and our own loading.
const TRIES: usize = 5;

/// A library, ready to be loaded.
struct Library {
    name: String,
    code: String,
    description: String,
}

/// What a library is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Edition {
    version: (u64, u64, u64),
    digest: String,
}

impl Edition {
    /// Reads a description. One that nobody here wrote is older than all.
    fn read(description: &str) -> Self {
        let mut words = description.split(' ').skip(1);
        let mut numbers = words.next().unwrap_or_default().split('.').map(|part| part.parse().unwrap_or(0));
        let mut number = || numbers.next().unwrap_or(0);
        let version = (number(), number(), number());
        Edition { version, digest: words.next().unwrap_or_default().to_owned() }
    }

    /// Whether this one has to make room for `ours`.
    fn yields_to(&self, ours: &Edition, starting: bool) -> bool {
        // Of two nodes of one version with other settings, the one that started last has the newer ones.
        self.version < ours.version || (starting && self.version == ours.version && self.digest != ours.digest)
    }
}

/// Loads the library on each server unless it is there in this version or a newer one. True when it was loaded.
pub(super) async fn offer(store: &RedisStore, event_bytes: usize, starting: bool) -> Result<bool, StoreError> {
    let library = Library::of(store, event_bytes);
    let map = store.shards.now();
    let offers = (0..map.shards.len()).map(|place| {
        // The key that shows who loaded it has to be on the same server.
        let key = match store.shards.is_cluster() {
            true => (0..SLOTS).map(|tag| store.keys.library_at(tag)).find(|key| map.has(place, key)),
            false => Some(store.keys.library()),
        };
        offer_at(&map.shards[place], key, &library, starting)
    });
    join_all(offers).await.into_iter().try_fold(false, |loaded, offered| Ok(loaded | offered?))
}

async fn offer_at(shard: &Shard, key: Option<String>, library: &Library, starting: bool) -> Result<bool, StoreError> {
    let Some(key) = key else { return Ok(false) };
    let ours = Edition::read(&library.description);
    let yields = |known: Option<Edition>| known.is_none_or(|known| known.yields_to(&ours, starting));
    let listed = shard.pool.run(&Call::command("FUNCTION", "LIST").arg("LIBRARYNAME").arg(&library.name)).await?;
    if !yields(edition(listed, &library.name)) {
        return Ok(false);
    }
    // A connection of our own: what it watches is its own affair.
    let mut connection = shard.server.open(|_| {}).await?.io();
    for _ in 0..TRIES {
        // The loader writes the key in the same step, so no node replaces what it has not looked at.
        let mut look = redis::pipe();
        look.cmd("WATCH").arg(&key).cmd("FUNCTION").arg("LIST").arg("LIBRARYNAME").arg(&library.name);
        let mut looked = connection.send_packed_commands(&look, 0, 2).await.map_err(|error| unanswered(&error))?;
        let listed = match looked.pop().unwrap_or(Value::Nil) {
            Value::ServerError(error) => return Err(refused(&error)),
            listed => listed,
        };
        if !yields(edition(listed, &library.name)) {
            return Ok(false);
        }
        let mut load = redis::pipe();
        load.cmd("MULTI").cmd("SET").arg(&key).arg(&library.description);
        load.cmd("FUNCTION").arg("LOAD").arg("REPLACE").arg(&library.code).cmd("EXEC");
        let answers = connection.send_packed_commands(&load, 0, 4).await.map_err(|error| unanswered(&error))?;
        // A command that is refused when it is queued returns the reason; EXEC then only reports that there was one.
        if let Some(Value::ServerError(error)) = answers.iter().find(|answer| matches!(answer, Value::ServerError(_))) {
            return Err(refused(error));
        }
        match answers.last() {
            Some(Value::Array(done)) => match done.last() {
                Some(Value::ServerError(error)) => return Err(refused(error)),
                _ => return Ok(true),
            },
            // Another node was there meanwhile.
            _ => continue,
        }
    }
    Ok(false)
}

/// The edition of a library among those that FUNCTION LIST returned.
fn edition(listed: Value, name: &str) -> Option<Edition> {
    let libraries = Vec::<HashMap<String, Value>>::from_redis_value(listed).ok()?;
    // The name that was asked for is a pattern.
    let is_ours = |library: &HashMap<String, Value>| {
        library
            .get("library_name")
            .is_some_and(|given| String::from_redis_value_ref(given).is_ok_and(|given| given == name))
    };
    let library = libraries.into_iter().find(is_ours)?;
    let functions =
        library.get("functions").and_then(|listed| Vec::<HashMap<String, Value>>::from_redis_value_ref(listed).ok());
    let description = functions.into_iter().flatten().next().and_then(|mut function| function.remove("description"));
    let description = description.and_then(|text| String::from_redis_value(text).ok()).unwrap_or_default();
    Some(Edition::read(&description))
}

impl Library {
    fn of(store: &RedisStore, event_bytes: usize) -> Self {
        let prefix = store.keys.prefix();
        let name = name(prefix);
        let mut settings = String::from("local SETTINGS = {\n");
        let mut set = |field: &str, value: String| {
            let _ = writeln!(settings, "  {field} = {value},");
        };
        set("prefix", quoted(prefix));
        set("name", quoted(&format!("{name}_publish")));
        set("lease", quoted(&format!("{name}_lease")));
        set("longest_lease", LeaseTime::LONGEST.time().as_secs().to_string());
        set("most_leases", MOST_LEASES.to_string());
        set("channels", quoted(store.keys.channels()));
        // Where there are several regions, producers may publish to streams whose home is this one.
        set("home", quoted(if store.region.is_some() { "*" } else { "" }));
        set("event_bytes", event_bytes.to_string());
        set("max_nesting", MAX_NESTING.to_string());
        set("once_ms", millis(ONCE_TIME).to_string());
        set("longest_ttl", Ttl::LONGEST.time().as_secs().to_string());
        let rules = store.rules.iter().map(|(pattern, retention): (&str, Retention)| {
            let parts: Vec<String> = pattern.split('*').map(quoted).collect();
            format!(
                "    {{ parts = {{ {} }}, events = '{}', ms = '{}', position_ms = '{}' }},\n",
                parts.join(", "),
                retention.events,
                millis(retention.time),
                store.position_ms_of(retention)
            )
        });
        set("retention", format!("{{\n{}  }}", rules.collect::<String>()));
        let body = body(&settings);
        let digest = redis::Script::new(&body).get_hash()[..12].to_owned();
        let description = format!("whimbrel {} {digest}", env!("CARGO_PKG_VERSION"));
        let code = format!("#!lua name={name}\n{body}").replace("@DESCRIPTION@", &description);
        Library { name, code, description }
    }
}

/// All of the library behind its first line, with a place for its description.
pub(super) fn body(settings: &str) -> String {
    [
        scripts::STREAM_PART,
        scripts::CHANNELS_PART,
        scripts::PUBLISH_PART.as_str(),
        &function("lease_take", include_str!("../../../lua/lease_take.lua")),
        &function("lease_renew", include_str!("../../../lua/lease_renew.lua")),
        &function("lease_end", include_str!("../../../lua/lease_end.lua")),
        settings,
        "  description = '@DESCRIPTION@',\n}\n",
        include_str!("../../../lua/json.lua"),
        include_str!("../../../lua/library.lua"),
    ]
    .concat()
}

/// What a prefix's library is called, and its function begins with. A name may hold only letters, digits and
/// `_`, and Redis takes functions for the same that differ in case alone, so prefixes of other characters get a
/// digest.
fn name(prefix: &str) -> String {
    if prefix.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
        return prefix.to_owned();
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let digest = redis::Script::new(prefix).get_hash()[..8].to_owned();
    format!("{}_{digest}", prefix.chars().map(plain).collect::<String>())
}

/// A text as Lua has it.
fn quoted(text: &str) -> String {
    let mut literal = String::from("'");
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b" -._~:@|={}/".contains(&byte) {
            literal.push(byte as char);
        } else {
            let _ = write!(literal, "\\{byte:03}");
        }
    }
    literal.push('\'');
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_prefix_has_a_library_of_its_own() {
        assert_eq!(name("whimbrel"), "whimbrel");
        assert_eq!(name("acme_2"), "acme_2");
        let names: Vec<String> = ["a.b", "a:b", "a-b", "A_b", "a_b"].iter().map(|prefix| name(prefix)).collect();
        for (at, name) in names.iter().enumerate() {
            assert!(name.starts_with("a_b") && !names[..at].contains(name), "{names:?}");
            assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{name}");
        }
    }

    #[test]
    fn an_older_library_yields_and_a_newer_one_does_not() {
        let ours = Edition::read("whimbrel 0.10.0 aaaa");
        for (theirs, running, starting) in [
            ("whimbrel 0.9.7 bbbb", true, true),
            ("somebody else's", true, true),
            ("", true, true),
            ("whimbrel 0.10.0 aaaa", false, false),
            ("whimbrel 0.10.0 bbbb", false, true),
            ("whimbrel 0.10.1 bbbb", false, false),
            ("whimbrel 1.0.0 aaaa", false, false),
        ] {
            let theirs_is = Edition::read(theirs);
            assert_eq!(theirs_is.yields_to(&ours, false), running, "{theirs}");
            assert_eq!(theirs_is.yields_to(&ours, true), starting, "{theirs}");
        }
    }

    #[test]
    fn a_text_stays_itself_as_a_literal() {
        assert_eq!(quoted("a'b\\\n"), r"'a\039b\092\010'");
    }
}
