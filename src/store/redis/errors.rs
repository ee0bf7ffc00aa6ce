//! What Redis's and the client's errors mean to the callers of a store.

use redis::{ErrorKind, RedisError, ServerError};

use crate::store::{Misplaced, StoreError};

/// Why the store can't be used from the start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The address makes no sense.
    #[error("not a usable Redis address: {0}")]
    Address(String),
    /// It did not answer.
    #[error(transparent)]
    Unreachable(StoreError),
    /// Scripts need what older servers don't have.
    #[error("the server is Redis {0}, but 7.0 is the oldest that works")]
    Version(String),
    /// It is one server of several, and the URL is not that of a Cluster.
    #[error("the server belongs to a Redis Cluster, whose URL is redis+cluster://HOST:PORT")]
    InCluster,
    /// It would throw away history, routes and positions when its memory is full.
    #[error("the server's maxmemory-policy is '{0}', but it has to be 'noeviction'")]
    Eviction(String),
}

/// How a server reports within a script that its user may not run a command, or publish to a channel.
const NOT_PERMITTED: &str = "The user executing the script can't";

/// The server refused. The codes in the list are given before a script or command begins; with any other
/// nothing is known of what it did.
pub(super) fn refused(error: &ServerError) -> StoreError {
    let code = error.code();
    let text = format!("{code} {}", plain(error.details().unwrap_or_default()));
    if let Some(reason) = misplaced(code, error.details().unwrap_or_default()) {
        return StoreError::Misplaced(reason);
    }
    match code {
        "OOM" => StoreError::Full(text),
        "READONLY" => StoreError::Unavailable(format!("reached, but read-only: {text}")),
        "LOADING" | "MASTERDOWN" | "NOREPLICAS" | "CLUSTERDOWN" | "BUSY" | "MISCONF" | "TRYAGAIN" | "MOVED" | "ASK"
        | "NOAUTH" | "WRONGPASS" | "NOSCRIPT" => StoreError::Unavailable(text),
        // The scripts check what can be refused before they write, see `lua/publish.lua`.
        "NOPERM" | "WRONGTYPE" => StoreError::Refused(text),
        _ if text.contains(NOT_PERMITTED) => StoreError::Refused(text),
        _ => StoreError::Protocol(text),
    }
}

/// The server's message, without the place in the script.
fn plain(details: &str) -> &str {
    details.split_once(" script: ").map_or(details, |(message, _)| message)
}

/// What the scripts say of a stream whose home is not here, see `check_home` in `lua/stream.lua`.
fn misplaced(code: &str, details: &str) -> Option<Misplaced> {
    let mut words = details.split(' ');
    match code {
        "HOMELESS" => Some(Misplaced::Homeless),
        "ELSEWHERE" => {
            let version = words.next()?.parse().ok()?;
            let region = words.next().filter(|region| *region != "-").map(str::to_owned);
            Some(Misplaced::Moved { region, version, unfinished: words.next() == Some("unfinished") })
        }
        "ARRIVING" => {
            let (version, from) = (words.next()?.parse().ok()?, words.next()?.to_owned());
            Some(Misplaced::Arriving { from, version, stalled: words.next() == Some("stalled") })
        }
        "LEAVING" => Some(Misplaced::Leaving { version: words.next()?.parse().ok()?, to: words.next()?.to_owned() }),
        _ => None,
    }
}

/// Whether the server is no longer the master: another may stand behind the address by now.
pub(super) fn is_demoted(error: &ServerError) -> bool {
    error.code() == "READONLY"
}

/// The connection broke, or no answer came in time. The client can't know what had left the socket, so
/// the command may have taken effect.
pub(super) fn unanswered(error: &RedisError) -> StoreError {
    StoreError::Unknown(if error.is_timeout() { "no answer in time".to_owned() } else { error.to_string() })
}

/// No connection came about, so no command was sent.
pub(super) fn not_reached(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("not reached: {error}"))
}

/// The same, by the client's own error: the server may have refused the login.
pub(super) fn not_connected(error: RedisError) -> StoreError {
    let refused = error.code().is_some() || error.kind() == ErrorKind::AuthenticationFailed;
    match refused {
        true => StoreError::Unavailable(format!("reached, but refused: {error}")),
        false => not_reached(error),
    }
}

/// The server that was reached is a replica, and only a master takes writes.
pub(super) fn replica(address: &str) -> StoreError {
    StoreError::Unavailable(format!("reached, but read-only: {address} is a replica"))
}
