//! Moving a stream: what is done in the region that it leaves, and in the one that it comes to.
//!
//! Each call is one script that looks first whether the move still is where the call takes it to be, so it can be
//! repeated, and done by two at once.

use redis::{FromRedisValue, Value};

use super::RedisStore;
use super::call::Call;
use super::scripts::{self, Fields, nonsense};
use crate::model::StreamName;
use crate::store::{StoreError, millis};

/// The node that moves a stream does something again within this time, or another completes the move.
pub const MOVER_TIME: std::time::Duration = std::time::Duration::from_secs(2);

/// Entries in a page, and bytes of data after which one ends.
const PAGE: (usize, usize) = (128, 128 * 1024);

/// For how long a copy stays that nobody completes. It can be made again from the beginning.
const LEFT_ALONE: std::time::Duration = std::time::Duration::from_secs(3600);

/// A move of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The stream.
    pub stream: StreamName,
    /// The region that is its home.
    pub from: String,
    /// The region that is to be.
    pub to: String,
    /// The version that its new home will have: one more than that of the old one.
    pub version: u32,
}

/// The old home's answer to the beginning of a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// It has begun, or goes on.
    Now,
    /// The stream is sealed: it had come as far as that.
    Sealed,
    /// The move is over.
    Finished,
    /// Another move, to this region, has to be completed first.
    Stalled(String),
    /// It is not known here that the stream's home is here.
    Homeless,
    /// The stream's home is elsewhere, or somebody is at another move.
    Superseded,
}

/// The new home's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// Copied up to this entry; to none, if that is empty.
    Copied(String),
    /// It is the stream's home.
    Open,
    /// The move is over, or was begun by nobody.
    Refused,
}

/// A page of a stream on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cargo {
    /// What was copied before counts no more.
    pub anew: bool,
    /// There is more.
    pub more: bool,
    /// The clock of the old home, in milliseconds since 1970.
    pub now_ms: u64,
    /// Ids, and fields and values in turn.
    pub entries: Vec<(String, Vec<Vec<u8>>)>,
    /// Idempotency keys, what is remembered of them, and for how many milliseconds more.
    pub keys: Vec<(String, Vec<u8>, u64)>,
}

/// What is known of a sealed stream beside its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Baggage {
    /// The newest entry; empty if there is none.
    pub newest: String,
    /// Fields and values of its `meta`, in turn.
    pub marks: Vec<Vec<u8>>,
    /// The same of its collapse keys.
    pub collapse: Vec<Vec<u8>>,
}

impl RedisStore {
    /// Begins to move a stream away, or goes on with it.
    pub async fn move_begin(&self, plan: &Plan) -> Result<Begun, StoreError> {
        let call = Call::script(&scripts::MOVE_BEGIN, &[&self.keys.of(&plan.stream).meta]);
        let call = call.arg(plan.version).arg(&plan.to).arg(millis(MOVER_TIME));
        let answer = text(self.lanes.run(&plan.stream, call).await?)?;
        match (answer.as_str(), answer.split_once(' ')) {
            ("begun", _) => Ok(Begun::Now),
            ("sealed", _) => Ok(Begun::Sealed),
            ("finished", _) => Ok(Begun::Finished),
            ("homeless", _) => Ok(Begun::Homeless),
            ("superseded", _) => Ok(Begun::Superseded),
            (_, Some(("stalled", region))) => Ok(Begun::Stalled(region.to_owned())),
            _ => Err(nonsense("how far a move is")),
        }
    }

    /// Gives up a move before its stream was sealed.
    pub async fn move_cancel(&self, plan: &Plan) -> Result<(), StoreError> {
        let call = Call::script(&scripts::MOVE_CANCEL, &[&self.keys.of(&plan.stream).meta]);
        self.lanes.run(&plan.stream, call.arg(plan.version).arg(&plan.to)).await.map(drop)
    }

    /// Makes room for a stream that is to come.
    pub async fn move_prepare(&self, plan: &Plan) -> Result<Arrival, StoreError> {
        let keys = self.keys.of(&plan.stream);
        let touched = [&keys.events, &keys.meta, &keys.nodes, &keys.collapse, &keys.connections];
        let call = Call::script(&scripts::MOVE_PREPARE, &touched.map(String::as_str))
            .arg(plan.version)
            .arg(&plan.from)
            .arg(millis(MOVER_TIME))
            .arg(millis(LEFT_ALONE));
        arrival(self.lanes.run(&plan.stream, call).await?)
    }

    /// Reads what comes after what was copied; `None` when the move is over.
    pub async fn move_read(&self, plan: &Plan, copied: &str) -> Result<Option<Cargo>, StoreError> {
        let keys = self.keys.of(&plan.stream);
        let call = Call::script(&scripts::MOVE_READ, &[&keys.events, &keys.meta])
            .arg(plan.version)
            .arg(&plan.to)
            .arg(millis(MOVER_TIME))
            .arg(copied)
            .arg(PAGE.0)
            .arg(PAGE.1);
        let mut answer = Fields::of(self.pool.run(call).await?)?;
        if answer.text()? != "read" {
            return Ok(None);
        }
        let (anew, more) = (answer.number()? == 1, answer.number()? == 1);
        let now_ms = answer.numeral()?;
        let entries: Vec<(String, Vec<Vec<u8>>)> = understood(answer.next()?)?;
        let named: Vec<String> = entries
            .iter()
            .filter_map(|(_, words)| words.chunks(2).find(|pair| pair[0] == b"k")?.get(1))
            .filter_map(|key| String::from_utf8(key.clone()).ok())
            .collect();
        let keys = if named.is_empty() { Vec::new() } else { self.move_keys(plan, named).await? };
        Ok(Some(Cargo { anew, more, now_ms, entries, keys }))
    }

    async fn move_keys(&self, plan: &Plan, named: Vec<String>) -> Result<Vec<(String, Vec<u8>, u64)>, StoreError> {
        let keys = self.keys.of(&plan.stream);
        let once: Vec<String> = named.iter().map(|key| keys.once(key)).collect();
        let once: Vec<&str> = once.iter().map(String::as_str).collect();
        let mut answer = Fields::of(self.pool.run(Call::script(&scripts::MOVE_KEYS, &once)).await?)?;
        let mut held = Vec::with_capacity(named.len());
        for key in named {
            let (known, ms) = (understood::<Vec<u8>>(answer.next()?)?, answer.numeral()?);
            if !known.is_empty() {
                held.push((key, known, ms));
            }
        }
        Ok(held)
    }

    /// Adds a page behind what was copied.
    pub async fn move_import(&self, plan: &Plan, copied: &str, cargo: &Cargo) -> Result<Arrival, StoreError> {
        let keys = self.keys.of(&plan.stream);
        let once: Vec<String> = cargo.keys.iter().map(|(key, ..)| keys.once(key)).collect();
        let touched: Vec<&str> = [&keys.events, &keys.meta].into_iter().chain(&once).map(String::as_str).collect();
        let mut call = Call::script(&scripts::MOVE_IMPORT, &touched)
            .arg(plan.version)
            .arg(&plan.from)
            .arg(millis(MOVER_TIME))
            .arg(millis(self.rules.of(&plan.stream).time))
            .arg(copied)
            .arg(u8::from(cargo.anew))
            .arg(cargo.now_ms);
        for (_, known, ms) in &cargo.keys {
            call = call.arg(&known[..]).arg(*ms);
        }
        for (id, words) in &cargo.entries {
            call = call.arg(id).arg(words.len());
            call = words.iter().fold(call, |call, word| call.arg(&word[..]));
        }
        arrival(self.pool.run(call).await?)
    }

    /// Seals the stream where it leaves, and notifies the nodes that follow it. False when the move is over.
    pub async fn move_seal(&self, plan: &Plan) -> Result<bool, StoreError> {
        let keys = self.keys.of(&plan.stream);
        let call = Call::script(&scripts::MOVE_SEAL, &[&keys.nodes, &keys.meta])
            .arg(plan.version)
            .arg(&plan.to)
            .arg(plan.stream.as_str())
            .arg(self.keys.channels());
        Ok(text(self.lanes.run(&plan.stream, call).await?)? == "sealed")
    }

    /// What goes with a sealed stream; `None` when the move is over.
    pub async fn move_marks(&self, plan: &Plan) -> Result<Option<Baggage>, StoreError> {
        let keys = self.keys.of(&plan.stream);
        let call = Call::script(&scripts::MOVE_MARKS, &[&keys.events, &keys.meta, &keys.collapse]);
        let answer = self.lanes.run(&plan.stream, call.arg(plan.version).arg(&plan.to)).await?;
        let mut answer = Fields::of(answer)?;
        if answer.text()? != "marks" {
            return Ok(None);
        }
        let newest = answer.text()?;
        let (marks, collapse) = (understood(answer.next()?)?, understood(answer.next()?)?);
        Ok(Some(Baggage { newest, marks, collapse }))
    }

    /// Opens the stream where it came to.
    pub async fn move_open(&self, plan: &Plan, baggage: &Baggage) -> Result<Arrival, StoreError> {
        let keys = self.keys.of(&plan.stream);
        let call = Call::script(&scripts::MOVE_OPEN, &[&keys.events, &keys.meta, &keys.collapse])
            .arg(plan.version)
            .arg(&plan.from)
            .arg(millis(self.rules.of(&plan.stream).time))
            .arg(self.position_ms(&plan.stream))
            .arg(&baggage.newest)
            .arg(baggage.marks.len());
        let words = baggage.marks.iter().chain(&baggage.collapse);
        arrival(self.lanes.run(&plan.stream, words.fold(call, |call, word| call.arg(&word[..]))).await?)
    }

    /// Throws away what the stream left behind.
    pub async fn move_clear(&self, plan: &Plan) -> Result<(), StoreError> {
        let keys = self.keys.of(&plan.stream);
        let [members, roster] = self.keys.members(&plan.stream);
        let touched = [&keys.meta, &keys.events, &keys.nodes, &keys.collapse, &keys.connections, &members, &roster];
        let call = Call::script(&scripts::MOVE_CLEAR, &touched.map(String::as_str))
            .arg(plan.version)
            .arg(&plan.to)
            .arg(self.position_ms(&plan.stream));
        self.lanes.run(&plan.stream, call).await.map(drop)
    }
}

fn arrival(answer: Value) -> Result<Arrival, StoreError> {
    let mut answer = Fields::of(answer)?;
    let (outcome, copied) = (answer.text()?, answer.text()?);
    match outcome.as_str() {
        "ready" | "behind" => Ok(Arrival::Copied(copied)),
        "open" => Ok(Arrival::Open),
        "refused" | "superseded" => Ok(Arrival::Refused),
        _ => Err(nonsense("how far a move is")),
    }
}

fn text(answer: Value) -> Result<String, StoreError> {
    understood(answer)
}

fn understood<T: FromRedisValue>(answer: Value) -> Result<T, StoreError> {
    T::from_redis_value(answer).map_err(|error| StoreError::Protocol(error.to_string()))
}
