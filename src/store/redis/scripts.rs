//! The scripts, how they are called, and what their answers say.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use redis::{Cmd, Value};

use crate::log_limit::LogLimit;
use crate::model::{
    Attributes, Event, EventId, EventType, Fork, Inbox, NodeId, Page, Published, Standing, StreamName, TraceParent,
    json,
};
use crate::store::{IngressEntry, IngressPage, Placed, Rejected, StoreError};

/// A script, called by its content hash, so that two versions of the program can share one Redis.
pub(super) struct Script {
    code: String,
    pub(super) hash: String,
}

impl Script {
    fn new(code: String) -> Self {
        let hash = redis::Script::new(&code).get_hash().to_owned();
        Script { code, hash }
    }

    /// A script with the parts that it shares with others: they go behind the first line, which declares how Redis has
    /// to run it.
    fn with(parts: &[&str], code: &str) -> Self {
        let (first, rest) = code.split_once('\n').unwrap_or((code, ""));
        Script::new(format!("{first}\n{}\n{rest}", parts.concat()))
    }

    /// All of its code.
    pub(super) fn code(&self) -> &str {
        &self.code
    }

    /// The command that makes the server know it.
    pub(super) fn load(&self) -> Cmd {
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(&self.code);
        load
    }
}

macro_rules! scripts {
    ($($name:ident = $file:literal, $parts:expr;)*) => {
        $(pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::with($parts, include_str!(concat!("../../../lua/", $file))));)*

        /// All of them, to be loaded when a connection opens.
        pub(super) fn all() -> impl Iterator<Item = &'static Script> {
            [$(&*$name),*].into_iter()
        }
    };
}

/// What scripts of one stream share.
pub(super) const STREAM_PART: &str = include_str!("../../../lua/stream.lua");
/// Of those, what the scripts share that send events to nodes.
pub(super) const CHANNELS_PART: &str = include_str!("../../../lua/channels.lua");
/// And those that read its log.
const PAGES_PART: &str = include_str!("../../../lua/pages.lua");
/// And those that keep a device's connections.
const SLOTS_PART: &str = include_str!("../../../lua/slots.lua");
/// And those that keep a topic's members.
const MEMBERS_PART: &str = include_str!("../../../lua/members.lua");
/// And those that move it.
const MOVE_PART: &str = include_str!("../../../lua/move.lua");

/// What the script of a publish does, as `publish(KEYS, ARGV)`. It needs what the scripts of a stream share, and those
/// that send events.
pub(super) static PUBLISH_PART: LazyLock<String> =
    LazyLock::new(|| function("publish", include_str!("../../../lua/publish.lua")));

/// A script as a function of its keys and arguments. Its first line declares how Redis has to run it.
pub(super) fn function(name: &str, script: &str) -> String {
    let (_first, script) = script.split_once('\n').unwrap_or_default();
    format!("local function {name}(KEYS, ARGV)\n{script}end\n")
}

const STREAM: &[&str] = &[STREAM_PART];
const CHANNELS: &[&str] = &[STREAM_PART, CHANNELS_PART];
const PAGES: &[&str] = &[STREAM_PART, PAGES_PART];
const RELAYING: &[&str] = &[STREAM_PART, PAGES_PART, CHANNELS_PART];
const SLOTS: &[&str] = &[STREAM_PART, SLOTS_PART];
const MEMBERS: &[&str] = &[STREAM_PART, SLOTS_PART, MEMBERS_PART];
const MOVE: &[&str] = &[STREAM_PART, MOVE_PART];
const MOVE_PAGES: &[&str] = &[STREAM_PART, PAGES_PART, MOVE_PART];
const MOVE_SLOTS: &[&str] = &[STREAM_PART, SLOTS_PART, MOVE_PART];

scripts! {
    PUBLISH = "publish.lua", CHANNELS;
    PUBLISH_EPHEMERAL = "publish_ephemeral.lua", CHANNELS;
    SYNC = "sync.lua", PAGES;
    RECOVER = "recover.lua", PAGES;
    DETACH = "detach.lua", SLOTS;
    RELAY = "relay.lua", RELAYING;
    READ = "read.lua", PAGES;
    READ_BEFORE = "read_before.lua", PAGES;
    WALK = "walk.lua", PAGES;
    POSITION = "position.lua", STREAM;
    ACKNOWLEDGE = "acknowledge.lua", STREAM;
    INBOX = "inbox.lua", PAGES;
    ERASE = "erase.lua", STREAM;
    IMPORT = "import.lua", STREAM;
    INGRESS_READ = "ingress_read.lua", PAGES;
    INGRESS_LIFT = "ingress_lift.lua", PAGES;
    REJECT = "reject.lua", &[];
    REGISTER = "register.lua", &[];
    REVOCATIONS = "revocations.lua", &[];
    REVOCATIONS_PUT = "revocations_put.lua", &[];
    RENEW = "renew.lua", &[];
    PROBE = "probe.lua", &[];
    BEAT = "beat.lua", &[];
    ASSERT_NODE = "assert_node.lua", &[];
    NODES = "nodes.lua", &[];
    CLAIM = "claim.lua", &[];
    UNCLAIM = "unclaim.lua", &[];
    CHECKPOINT = "checkpoint.lua", &[];
    NOTE = "note.lua", &[];
    CLAIM_SLOT = "claim_slot.lua", SLOTS;
    KICK = "kick.lua", SLOTS;
    DEVICE = "device.lua", SLOTS;
    MEMBERS_SET = "members_set.lua", MEMBERS;
    MEMBERS_DROP = "members_drop.lua", MEMBERS;
    MEMBERS_LIST = "members_list.lua", MEMBERS;
    LINK_ADDRESS = "link_address.lua", &[];
    SEND_HISTORY = "send_history.lua", STREAM;
    CONNECTED_THROUGH = "connected_through.lua", STREAM;
    HOME_CLAIM = "home_claim.lua", STREAM;
    HOME_END = "home_end.lua", &[];
    CEDE = "cede.lua", MOVE_SLOTS;
    MERGE = "merge.lua", MOVE_PAGES;
    MOVE_BEGIN = "move_begin.lua", MOVE;
    MOVE_CANCEL = "move_cancel.lua", MOVE;
    MOVE_PREPARE = "move_prepare.lua", MOVE;
    MOVE_READ = "move_read.lua", MOVE_PAGES;
    MOVE_KEYS = "move_keys.lua", MOVE;
    MOVE_IMPORT = "move_import.lua", MOVE;
    MOVE_SEAL = "move_seal.lua", MOVE_SLOTS;
    MOVE_MARKS = "move_marks.lua", MOVE;
    MOVE_OPEN = "move_open.lua", MOVE;
    MOVE_CLEAR = "move_clear.lua", MOVE;
    DIRECTORY_MOVE = "directory_move.lua", &[];
    DIRECTORY_HAS = "directory_has.lua", &[];
    DIRECTORY_ASSIGN = "directory_assign.lua", &[];
    DIRECTORY_BUCKET = "directory_bucket.lua", &[];
    DIRECTORY_CHANGES = "directory_changes.lua", &[];
    DIRECTORY_END = "directory_end.lua", &[];
    DIRECTORY_POSITION = "directory_position.lua", &[];
    IDENTITY = "identity.lua", &[];
    LIFECYCLE = "lifecycle.lua", &[STREAM_PART, CHANNELS_PART, &PUBLISH_PART];
    BEGIN_SESSION = "begin_session.lua", STREAM;
    LEFT_OPEN = "left_open.lua", STREAM;
    OPEN_CONNECTIONS = "open_connections.lua", STREAM;
    SESSIONS = "sessions.lua", STREAM;
    LEASE_TAKE = "lease_take.lua", STREAM;
    LEASE_RENEW = "lease_renew.lua", STREAM;
    LEASE_END = "lease_end.lua", STREAM;
    LEASES_LAPSED = "leases_lapsed.lua", STREAM;
    LEASES = "leases.lua", STREAM;
}

/// The answer of a publish that left nodes out.
pub(super) struct LeftOut {
    /// The id of the event before.
    pub(super) prev: EventId,
    /// The store's clock, in milliseconds since 1970.
    pub(super) now_ms: u64,
    /// Nodes that the caller has to reach.
    pub(super) by_caller: Vec<NodeId>,
    /// Nodes that it was sent to over their channels.
    pub(super) by_channel: Vec<NodeId>,
}

/// What a publish answered, and the rest if it was asked to leave nodes out and the event is new.
pub(super) fn published(stream: &StreamName, answer: Value) -> Result<(Published, Option<LeftOut>), StoreError> {
    let mut fields = Fields::of(answer)?;
    let (id, nodes, outcome) = (fields.id()?, fields.number()?, fields.number()?);
    if outcome == 2 {
        return Err(StoreError::KeyReused);
    }
    let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    let published = Published { id, stream: stream.clone(), nodes, duplicate: outcome == 1 };
    if published.duplicate {
        return Ok((published, None));
    }
    let prev = fields.id()?;
    if fields.is_empty() {
        return Ok((published, None));
    }
    let left_out = LeftOut { prev, now_ms: fields.numeral()?, by_caller: fields.nodes()?, by_channel: fields.nodes()? };
    Ok((published, Some(left_out)))
}

/// A number that is the whole answer.
pub(super) fn count(answer: Value) -> Result<u32, StoreError> {
    match answer {
        Value::Int(count) => Ok(u32::try_from(count).unwrap_or(u32::MAX)),
        _ => Err(nonsense("a number")),
    }
}

/// An id that is the whole answer, if there is one.
pub(super) fn position(answer: Value) -> Result<Option<EventId>, StoreError> {
    optional_id(&text(answer)?)
}

/// Nodes, and what counts for each.
pub(super) fn send_history(answer: Value) -> Result<Vec<(NodeId, f64)>, StoreError> {
    let mut fields = Fields::of(answer)?;
    let mut send_history = Vec::new();
    while !fields.is_empty() {
        let (node, amount) = (fields.text()?, fields.text()?);
        send_history.push((NodeId::from(node), amount.parse().map_err(|_| nonsense("an amount"))?));
    }
    Ok(send_history)
}

/// How far a stream's events got.
pub(super) fn standing(answer: Value) -> Result<Standing, StoreError> {
    Fields::of(answer)?.standing()
}

/// What was found of an inbox, and the id to count on from.
pub(super) fn inbox(answer: Value) -> Result<(Inbox, Option<EventId>), StoreError> {
    let mut fields = Fields::of(answer)?;
    let standing = fields.standing()?;
    let pending = fields.count()?;
    Ok((Inbox { standing, pending }, fields.optional_id()?))
}

/// What a publish of an ingress entry answered.
pub(super) fn placed(answer: Value) -> Result<Placed, StoreError> {
    let mut fields = Fields::of(answer)?;
    let id = fields.optional_id()?;
    let _nodes = fields.number()?;
    match (fields.number()?, id) {
        (0 | 1, _) => Ok(Placed::Now),
        (2, _) => Err(StoreError::KeyReused),
        (4, Some(mark)) => Ok(Placed::Before(mark)),
        (5, _) => Ok(Placed::NotInTurn),
        _ => Err(nonsense("an outcome of a publish")),
    }
}

/// A page of an ingress stream.
pub(super) fn ingress_page(answer: Value) -> Result<IngressPage, StoreError> {
    let mut fields = Fields::of(answer)?;
    let last = fields.id()?;
    let waiting = fields.number()?.unsigned_abs();
    let oldest = fields.optional_id()?;
    let now_ms = fields.text()?.parse().map_err(|_| nonsense("a time"))?;
    let entries = Fields::of(fields.next()?)?.0.map(ingress_entry).collect::<Result<_, _>>()?;
    let lifting = fields.number()? == 1;
    Ok(IngressPage { last, waiting, oldest, now_ms, entries, lifting })
}

fn ingress_entry(entry: Value) -> Result<IngressEntry, StoreError> {
    let mut entry = Fields::of(entry)?;
    let id = entry.id()?;
    let size = entry.number()?.unsigned_abs();
    Ok(IngressEntry { id, bytes: size, fields: pairs(entry.next()?)? })
}

/// Entries that were rejected: the fields that say so come last.
pub(super) fn rejected(answer: Value) -> Result<Vec<Rejected>, StoreError> {
    Fields::of(answer)?.0.map(rejected_entry).collect()
}

fn rejected_entry(entry: Value) -> Result<Rejected, StoreError> {
    let mut entry = Fields::of(entry)?;
    let id = entry.id()?;
    let mut fields = pairs(entry.next()?)?;
    let mut last = |name: &str| {
        let text = |value: &Bytes| String::from_utf8_lossy(value).into_owned();
        let is_last = fields.last().is_some_and(|(known, _)| known == name);
        // What others wrote there may lack them.
        if is_last { fields.pop().map(|(_, value)| text(&value)).unwrap_or_default() } else { String::new() }
    };
    let (reason, of) = (last("reason"), last("entry"));
    Ok(Rejected { id, entry: of, reason, fields })
}

/// Names and values that take turns.
fn pairs(words: Value) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
    let mut words = Fields::of(words)?;
    let mut pairs = Vec::with_capacity(words.0.len() / 2);
    while let Some(name) = words.0.next() {
        pairs.push((bytes(name)?, bytes(words.next()?)?));
    }
    Ok(pairs)
}

/// What every reading script answers, see `answer` in `pages.lua`.
pub(super) fn page(answer: Value) -> Result<Page, StoreError> {
    let mut fields = Fields::of(answer)?;
    let line = fields.text()?;
    let mut words = line.splitn(13, ' ');
    let mut word = || words.next().ok_or_else(|| nonsense("more words"));
    let (from, last, epoch) = (id(word()?)?, id(word()?)?, id(word()?)?);
    let now_ms = word()?.parse().map_err(|_| nonsense("a numeral"))?;
    let more = word()? == "more";
    let (first, erased) = (optional_id(word()?)?, optional_id(word()?)?);
    let mut fork = [None; 5];
    for id in &mut fork {
        *id = optional_id(word()?)?;
    }
    let fork = match fork {
        [Some(ancestor), Some(head), Some(before), Some(mark), Some(next)] => {
            Some(Fork { ancestor, head, before, mark, next })
        }
        _ => None,
    };
    // Two words.
    let marks = word()?.parse().unwrap_or_default();
    let (mut events, mut superseded) = (Vec::new(), Vec::new());
    for entry in Fields::of(fields.next()?)?.0 {
        let (event, is_superseded) = event(entry)?;
        superseded.extend(is_superseded.then_some(event.id));
        events.push(Arc::new(event));
    }
    Ok(Page { from, events, superseded, more, last, first, erased, epoch, fork, marks, now_ms })
}

/// Entries that are no events.
static UNREADABLE: LogLimit = LogLimit::new();

/// An entry of a log, and whether a newer one supersedes it. Producers with access to Redis may have put in
/// what the program would refuse; such an entry is delivered as well as can be, or passed over where its data is not
/// what a listener could read: an error here would stop its stream for good.
fn event(entry: Value) -> Result<(Event, bool), StoreError> {
    let mut entry = Fields::of(entry)?;
    let mut event = Event::new(entry.id()?, EventId::ZERO, EventType::MESSAGE, Bytes::from_static(b"null"));
    let mut superseded = false;
    let mut fields = Fields::of(entry.next()?)?;
    let mut readable = false;
    while let Some(name) = fields.0.next() {
        let value = fields.next()?;
        match name {
            Value::BulkString(name) if name == b"d" => {
                event.data = bytes(value)?;
                readable = json::check(&event.data).is_ok();
            }
            Value::BulkString(name) if name == b"p" => event.prev = lossy(value)?.parse().unwrap_or_default(),
            Value::BulkString(name) if name == b"t" => event.kind = EventType::of_store(&lossy(value)?),
            Value::BulkString(name) if name == b"x" => event.expires_ms = lossy(value)?.parse().ok(),
            Value::BulkString(name) if name == b"c" => event.collapse = Some(lossy(value)?.into()),
            Value::BulkString(name) if name == b"e" => event.exclude = lossy(value)?.parse().ok(),
            Value::BulkString(name) if name == b"w" => event.set_trace(TraceParent::read(&bytes(value)?)),
            Value::BulkString(name) if name == b"a" => event.attributes = Attributes::of_store(&lossy(value)?),
            Value::BulkString(name) if name == b"s" => superseded = true,
            _ => {}
        }
    }
    // One that has expired comes without its data. Any other without data that can be read is passed over like it.
    if !readable && event.expires_ms != Some(0) {
        event.data = Bytes::from_static(b"null");
        event.expires_ms = Some(0);
        if let Some(left_out) = UNREADABLE.admit() {
            tracing::warn!(id = %event.id, left_out, "an entry of a stream in the store is no event: it is passed over");
        }
    }
    Ok((event, superseded))
}

/// The elements of an array answer, taken one after another.
pub(super) struct Fields(std::vec::IntoIter<Value>);

impl Fields {
    pub(super) fn of(answer: Value) -> Result<Self, StoreError> {
        match answer {
            Value::Array(fields) => Ok(Fields(fields.into_iter())),
            _ => Err(nonsense("an array")),
        }
    }

    pub(super) fn next(&mut self) -> Result<Value, StoreError> {
        self.0.next().ok_or_else(|| nonsense("more fields"))
    }

    /// All that were not taken yet.
    pub(super) fn rest(self) -> impl Iterator<Item = Value> {
        self.0
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        text(self.next()?)
    }

    pub(super) fn number(&mut self) -> Result<i64, StoreError> {
        match self.next()? {
            Value::Int(number) => Ok(number),
            _ => Err(nonsense("a number")),
        }
    }

    /// A number that Lua wrote as text, for want of 64 bits.
    pub(super) fn numeral(&mut self) -> Result<u64, StoreError> {
        self.text()?.parse().map_err(|_| nonsense("a numeral"))
    }

    /// A number that is never negative.
    pub(super) fn count(&mut self) -> Result<u64, StoreError> {
        u64::try_from(self.number()?).map_err(|_| nonsense("a count"))
    }

    fn nodes(&mut self) -> Result<Vec<NodeId>, StoreError> {
        Fields::of(self.next()?)?.0.map(|node| text(node).map(NodeId::from)).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    pub(super) fn id(&mut self) -> Result<EventId, StoreError> {
        id(&self.text()?)
    }

    fn standing(&mut self) -> Result<Standing, StoreError> {
        Ok(Standing { last: self.id()?, epoch: self.id()?, told: self.optional_id()?, acked: self.optional_id()? })
    }

    pub(super) fn optional_id(&mut self) -> Result<Option<EventId>, StoreError> {
        optional_id(&self.text()?)
    }
}

fn id(text: &str) -> Result<EventId, StoreError> {
    text.parse().map_err(|_| nonsense("an id"))
}

fn optional_id(text: &str) -> Result<Option<EventId>, StoreError> {
    if text.is_empty() { Ok(None) } else { id(text).map(Some) }
}

fn bytes(value: Value) -> Result<Bytes, StoreError> {
    match value {
        Value::BulkString(bytes) => Ok(bytes.into()),
        _ => Err(nonsense("bytes")),
    }
}

pub(super) fn text(value: Value) -> Result<String, StoreError> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|_| nonsense("text")),
        _ => Err(nonsense("text")),
    }
}

/// A text of which what is not UTF-8 is replaced.
fn lossy(value: Value) -> Result<String, StoreError> {
    Ok(String::from_utf8_lossy(&bytes(value)?).into_owned())
}

pub(super) fn nonsense(expected: &str) -> StoreError {
    StoreError::Protocol(format!("expected {expected}"))
}
