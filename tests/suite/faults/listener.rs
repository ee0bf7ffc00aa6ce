//! Clients that listen, and come back wherever they can, as devices do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use whimbrel::history::{Place, Record};
use whimbrel::model::StreamName;

use super::recorder::Recorder;
use super::wire::{Incoming, Wire};
use crate::support::client::Transport;

/// Longest time to connect and to be greeted.
const GREETING: Duration = Duration::from_secs(8);

/// Where nodes are now, and what they are called in the history.
#[derive(Default)]
pub struct Doors(RwLock<Vec<(String, SocketAddr)>>);

impl Doors {
    /// The node behind a door is this one now.
    pub fn set(&self, number: usize, name: String, address: SocketAddr) {
        let mut doors = self.0.write();
        if number < doors.len() {
            doors[number] = (name, address);
        } else {
            doors.push((name, address));
        }
    }

    /// A door, by any number.
    pub fn get(&self, number: usize) -> (String, SocketAddr) {
        let doors = self.0.read();
        doors[number % doors.len()].clone()
    }
}

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct Behaviour {
    pub transport: Transport,
    pub streams: Vec<StreamName>,
    /// Gives a connection up that brings nothing, not even a ping, for so long.
    pub patience: Option<Duration>,
    /// Leaves and comes back elsewhere about so often.
    pub roams: Option<Duration>,
    /// The longest wait before it comes back.
    pub returns: Duration,
    /// The door that it tries first.
    pub door: usize,
}

/// Orders for a client while it runs.
#[derive(Default)]
pub struct Whims {
    /// Do not leave any more.
    pub settled: AtomicBool,
    /// Do not read.
    pub deaf: AtomicBool,
    /// Times that it was let in and placed.
    pub sessions: AtomicUsize,
}

/// A client; it is gone when this is dropped.
pub struct Listener {
    pub name: String,
    pub behaviour: Behaviour,
    pub whims: Arc<Whims>,
    task: AbortHandle,
}

impl Listener {
    pub fn start(name: String, behaviour: Behaviour, doors: Arc<Doors>, recorder: Arc<Recorder>) -> Self {
        let whims = Arc::new(Whims::default());
        let client = Client {
            name: name.clone(),
            door: behaviour.door,
            behaviour: behaviour.clone(),
            whims: whims.clone(),
            doors,
            recorder,
            cursor: None,
        };
        Listener { name, behaviour, whims, task: tokio::spawn(client.run()).abort_handle() }
    }

    /// Whether it crashed, which only a message of no sense makes it do.
    pub fn is_gone(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Client {
    name: String,
    behaviour: Behaviour,
    whims: Arc<Whims>,
    doors: Arc<Doors>,
    recorder: Arc<Recorder>,
    cursor: Option<Place>,
    door: usize,
}

impl Client {
    async fn run(mut self) {
        loop {
            let (node, address) = self.doors.get(self.door);
            let connecting =
                Wire::connect(address, self.behaviour.transport, &self.behaviour.streams, self.cursor.as_ref());
            if let Ok(Ok(wire)) = timeout(GREETING, connecting).await {
                self.listen(wire, node).await;
                self.recorder.left(&self.name);
            }
            self.door += 1;
            let longest = self.behaviour.returns;
            tokio::time::sleep(longest.mul_f64(rand::random_range(0.1..1.0))).await;
        }
    }

    /// From the greeting to the end of the connection.
    async fn listen(&mut self, mut wire: Wire, node: String) {
        // A node that turns the client away sends a close in place of a position.
        let Ok(Ok(Incoming::Position(at))) = timeout(GREETING, wire.next()).await else { return };
        let session = self.recorder.session();
        let (client, streams) = (self.name.clone(), self.behaviour.streams.clone());
        self.recorder.note(Record::Session { session, client, node: Some(node), streams, after: self.cursor.clone() });
        self.position(session, at);
        self.whims.sessions.fetch_add(1, Ordering::Relaxed);
        let leaves = self.behaviour.roams.map(|time| Instant::now() + time.mul_f64(rand::random_range(0.5..1.5)));
        loop {
            if self.whims.deaf.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            let silent = Instant::now() + self.behaviour.patience.unwrap_or(Duration::from_secs(3600));
            let next = wire.next();
            tokio::pin!(next);
            let message = loop {
                let is_settled = || self.whims.settled.load(Ordering::Relaxed);
                let leaves = leaves.filter(|_| !is_settled());
                tokio::select! {
                    message = &mut next => break message.ok(),
                    // A frame that was begun is lost if the client leaves, and comes again in the next session. Who
                    // stays, as all is settled meanwhile, reads on in it.
                    () = tokio::time::sleep_until(leaves.unwrap_or(silent)) => {
                        if leaves.is_none() || !is_settled() {
                            break None;
                        }
                    }
                    () = tokio::time::sleep_until(silent) => break None,
                }
            };
            let Some(message) = message else { break };
            match message {
                Incoming::Event { stream, id, payload, cursor } => {
                    match (&mut self.cursor, &cursor) {
                        (at, Some(cursor)) => *at = Some(Place::Cursor(cursor.clone())),
                        (Some(Place::Positions(at)), None) => _ = at.insert(stream.clone(), id),
                        (at, None) => *at = Some(Place::Positions(BTreeMap::from([(stream.clone(), id)]))),
                    }
                    self.recorder.note(Record::Event { session, stream: stream.clone(), id, payload, cursor });
                    self.recorder.stands(&self.name, &stream, id);
                }
                Incoming::Gap { stream, after, next, reason } => {
                    self.recorder.note(Record::Gap { session, stream, after, next, reason });
                }
                Incoming::Position(at) => self.position(session, at),
                Incoming::Close(reason) => {
                    self.recorder.note(Record::Close { session, reason });
                    break;
                }
                Incoming::Ping => {}
            }
        }
        self.recorder.note(Record::End { session });
    }

    fn position(&mut self, session: u64, at: Place) {
        for stream in &self.behaviour.streams {
            if let Some(id) = at.position(stream) {
                self.recorder.stands(&self.name, stream, id);
            }
        }
        match (&mut self.cursor, &at) {
            (Some(Place::Positions(known)), Place::Positions(positions)) => known.extend(positions.clone()),
            (cursor, _) => *cursor = Some(at.clone()),
        }
        self.recorder.note(Record::Position { session, at });
    }
}
