//! Why a store did not do what it was asked.

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It did not take effect: the store can't be reached, or refused.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// It may or may not have taken effect: the connection broke, or no answer came in time.
    #[error("the store gave no answer: {0}")]
    Unknown(String),
    /// The store has no room for more. It did not take effect.
    #[error("the store is full: {0}")]
    Full(String),
    /// The store can be reached, and refuses what is asked of it: its user may not run a command, or a key is of
    /// another type than it has to be. It did not take effect.
    #[error("the store refuses it: {0}")]
    Refused(String),
    /// The idempotency key was used for another event. Nothing was stored.
    #[error(
        "the idempotency key was used within the last 5 minutes for an event with another body, type, ttl or collapse key"
    )]
    KeyReused,
    /// The stream's home is elsewhere, or not known here. It did not take effect. Only a store over all regions gets to
    /// see it, which tries again at the right place.
    #[error("{0}")]
    Misplaced(Misplaced),
    /// This store can't do that. It did not take effect.
    #[error("{0}")]
    Unsupported(String),
    /// What the store answered makes no sense to this version of the program.
    #[error("the store answered what this version does not understand: {0}")]
    Protocol(String),
}

impl StoreError {
    /// The error for clients: the store's own message is in the node's log, and in
    /// its health.
    pub fn for_client(&self) -> String {
        let text = match self {
            // What a region's errors begin with, see `Region`.
            StoreError::Unavailable(reason) => match reason.strip_prefix("region '").and_then(|r| r.split_once('\'')) {
                Some((region, _)) => return format!("region '{region}' is unavailable"),
                None if reason.starts_with("the directory") => "the directory of regions is unavailable",
                None => "the store is unavailable",
            },
            StoreError::Unknown(_) => "the store gave no answer",
            StoreError::Full(_) => "the store is full",
            StoreError::Refused(_) => "the store refuses it; the node's log has the reason",
            StoreError::Protocol(_) => "the store answered what this version does not understand",
            plain => return plain.to_string(),
        };
        text.to_owned()
    }
}

/// Why a region refuses an operation on a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the comments on the variants say what the fields are")]
pub enum Misplaced {
    /// The stream's home is another region, or this one again as of a newer version (`None`). `unfinished`: the node that
    /// moved it has not done all that a move ends with.
    #[error("the stream's home is {}, as of version {version}", region.as_deref().unwrap_or("here"))]
    Moved { region: Option<String>, version: u32, unfinished: bool },
    /// The stream is on its way here. `stalled`: whoever moves it has not been at it for a while.
    #[error("the stream is being moved here from region '{from}'")]
    Arriving { from: String, version: u32, stalled: bool },
    /// The mover of the stream has not been at it for a while.
    #[error("the stream is being moved to region '{to}'")]
    Leaving { to: String, version: u32 },
    /// Nobody wrote down here that the stream's home is here.
    #[error("this region does not know whether it is the stream's home")]
    Homeless,
}
