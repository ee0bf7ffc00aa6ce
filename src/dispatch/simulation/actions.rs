//! What can happen in a simulated world.

/// What may differ between worlds.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Events that the log keeps.
    pub keep: u64,
    /// Events in a page.
    pub page: usize,
    /// Deliveries that an outbox takes.
    pub outbox: usize,
    /// Bytes for the ring of a node.
    pub ring: usize,
}

/// What becomes of a request to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Done,
    /// It never gets there.
    Refused,
    /// It takes effect, the answer is lost.
    Unanswered,
}

/// With what a client connects.
#[derive(Debug, Clone, Copy)]
pub enum From {
    Cursor,
    /// A cursor so many deliveries old.
    Old(usize),
    Now,
    Earliest,
}

#[derive(Debug, Clone)]
pub enum Action {
    Publish {
        step: u64,
        /// After so many milliseconds it expires.
        ttl: Option<u64>,
        /// Its collapse key.
        key: Option<u8>,
    },
    Tick {
        ms: u64,
    },
    /// A replica is as far as the master is now.
    Replicate,
    /// The replica becomes the master; its clock is so much behind.
    Failover {
        behind: u64,
    },
    Flush,
    Erase,
    Deliver {
        node: usize,
        which: usize,
        again: bool,
    },
    Drop {
        node: usize,
        which: usize,
    },
    /// A task of a node takes its next step.
    Work {
        node: usize,
        which: usize,
        fate: Fate,
    },
    /// A node's channel was interrupted.
    Mark {
        node: usize,
    },
    ForgetRing {
        node: usize,
    },
    Detach {
        node: usize,
    },
    Kill {
        node: usize,
    },
    Connect {
        client: usize,
        node: usize,
        from: From,
    },
    Disconnect {
        client: usize,
    },
    /// A client's temporary dispatcher takes its next step.
    Feed {
        client: usize,
        fate: Fate,
        shared: bool,
    },
    /// A client takes what is in its outbox.
    Take {
        client: usize,
        count: usize,
    },
}
