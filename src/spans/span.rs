//! A span, as it waits to be exported.

use std::time::SystemTime;

/// What one step of a publish's way took.
#[derive(Debug)]
pub struct Span {
    /// The trace.
    pub trace: [u8; 16],
    /// Its own id.
    pub id: [u8; 8],
    /// The span that it is a part of.
    pub parent: Option<[u8; 8]>,
    /// The step.
    pub name: &'static str,
    /// Its side of an exchange.
    pub kind: Kind,
    /// From when on.
    pub begun: SystemTime,
    /// Until when.
    pub ended: SystemTime,
    /// What is said of it: never a name of a device or topic, a type, a key or data.
    pub attributes: Vec<(&'static str, Value)>,
    /// The problem's name, where it failed.
    pub error: Option<&'static str>,
}

/// The side of an exchange that a span is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It hands an event to others.
    Producer,
    /// It asks another system.
    Client,
    /// It takes an event from others.
    Consumer,
    /// It is work of this node alone.
    Internal,
}

/// What an attribute says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// One of a few words.
    Word(&'static str),
    /// A text.
    Text(String),
    /// A count.
    Count(usize),
    /// Yes or no.
    Flag(bool),
}

/// The id of a new span or trace: random, and not zero, which would be none.
pub fn random_id<const N: usize>() -> [u8; N] {
    loop {
        let id = std::array::from_fn(|_| rand::random());
        if id != [0; N] {
            return id;
        }
    }
}
