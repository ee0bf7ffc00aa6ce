//! What a restart finds.

use std::collections::HashMap;

use uuid::Uuid;

use super::*;
use crate::model::{Draft, EventId, EventType, LeaseId, LeaseTime, Start, TraceParent};
use crate::store::lifecycle::{Before, Change, ConnectionRef, Lifecycle as _, LifecycleKind};
use crate::store::producers::{Producers as _, Taking};
use crate::store::revocations::{Revocation, Revocations as _, Subject};
use crate::store::{Checkpoint, EventLog as _, Leaders as _};

const HOUR: Duration = Duration::from_secs(3600);

struct Rig {
    directory: tempfile::TempDir,
    rules: RetentionRules,
}

impl Rig {
    fn new(rules: &str) -> Self {
        Rig { directory: tempfile::TempDir::new().unwrap(), rules: rules.parse().unwrap() }
    }

    fn open(&self) -> MemoryStore {
        MemoryStore::open(self.rules.clone(), HOUR, 1 << 30, self.directory.path(), Fsync::EverySecond).unwrap().0
    }
}

fn stream(name: &str) -> StreamName {
    name.parse().unwrap()
}

fn draft(data: impl Into<Vec<u8>>) -> Draft {
    Draft::new(EventType::MESSAGE, data.into())
}

/// All that is recorded, as a replay of it would say.
fn known(store: &MemoryStore) -> HashMap<String, Vec<String>> {
    let state = store.state.lock();
    let mut known = HashMap::new();
    for (stream, log) in &state.streams {
        let mut records: Vec<_> = log.records(stream.as_str()).map(|record| format!("{record:?}")).collect();
        records.sort();
        known.insert(stream.to_string(), records);
    }
    let others = state.sessions.records().chain(state.producers.records());
    let mut others: Vec<_> = others.map(|record| format!("{record:?}")).collect();
    others.sort();
    known.insert("others".to_owned(), others);
    known
}

/// Does some of everything.
async fn use_all(store: &MemoryStore) {
    let name = stream("device:1");
    let mut ids = Vec::new();
    for number in 0..20_u8 {
        let key = (number % 3 == 0).then(|| format!("k{number}"));
        let collapse = (number % 4 == 0).then(|| "c".to_owned());
        let exclude = (number % 5 == 0).then(Uuid::new_v4);
        let ttl = (number % 2 == 0).then_some(HOUR);
        let kind = if number == 7 { "order.paid".parse().unwrap() } else { EventType::MESSAGE };
        let trace = (number % 6 == 1).then(|| TraceParent::new([number; 16], [1; 8], true));
        let draft = Draft { key, collapse, exclude, ttl, kind, trace, ..draft(number.to_string()) };
        ids.push(store.publish(&name, &draft).await.unwrap().id);
    }
    store.acknowledge(&name, Some(ids[15])).await.unwrap();
    store.publish(&stream("topic:erased"), &draft("1")).await.unwrap();
    store.erase(&stream("topic:erased")).await.unwrap();
    // A head that nobody knows: the stream forks.
    store.recover(&name, EventId::new(u64::from(u32::MAX) << 20, 1), EventId::ZERO, &ids).await.unwrap();
    let node = NodeId::from("n1".to_owned());
    store.begin_session(&node, "", None).await.unwrap();
    let open = |device: &str| ConnectionRef {
        connection: Uuid::new_v4(),
        device: stream(device),
        transport: "sse".into(),
        info: None,
    };
    let change = |subject: ConnectionRef, kind| Change { subject, kind, data: "{}".into() };
    let gone = open("device:2");
    let changes = [
        change(open("device:1"), LifecycleKind::Connected),
        change(gone.clone(), LifecycleKind::Connected),
        change(gone, LifecycleKind::Disconnected("closed")),
    ];
    store.publish_changes(&node, 1, &changes).await.unwrap();
    let moved = NodeId::from("n2".to_owned());
    assert_eq!(store.begin_session(&moved, "", Some(&node)).await.unwrap().before, Before::Held(1));
    let lease = LeaseTime::from_seconds(60).unwrap();
    let taken = store.take_lease(&name, LeaseId::random(), lease, Some("k")).await.unwrap();
    assert_eq!(taken, Taking::Taken);
    let checkpoint = Checkpoint { position: ids[3], sent: Some(ids[4]) };
    assert!(store.advance(&name, &node, None, checkpoint).await.unwrap());
}

#[tokio::test]
async fn all_that_is_recorded_is_there_after_a_restart() {
    let rig = Rig::new("*=10/3600");
    let store = rig.open();
    use_all(&store).await;
    let before = known(&store);
    drop(store);
    assert_eq!(known(&rig.open()), before);
}

#[tokio::test]
async fn all_is_there_after_compactions_too_and_files_went() {
    let rig = Rig::new("topic:busy=3/3600 *=10/3600");
    let store = rig.open();
    use_all(&store).await;
    let before = known(&store);
    let first = rig.directory.path().join("00000001.journal");
    let big = draft(format!("\"{}\"", "x".repeat(1 << 20)));
    for _ in 0..100 {
        store.publish(&stream("topic:busy"), &big).await.unwrap();
        if !first.exists() {
            break;
        }
    }
    assert!(!first.exists());
    drop(store);
    let mut after = known(&rig.open());
    assert_eq!(after.remove("topic:busy").map(|records| records.len()), Some(1 + 3 + 1));
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_store_whose_journal_ends_anywhere_is_as_it_was_then() {
    let rig = Rig::new("*=1000/3600");
    let store = rig.open();
    for number in 0..20 {
        store.publish(&stream("topic:a"), &draft(number.to_string())).await.unwrap();
    }
    drop(store);
    let path = rig.directory.path().join("00000001.journal");
    let whole = std::fs::read(&path).unwrap();
    let mut seen = 0;
    for end in (16..whole.len()).step_by(7) {
        std::fs::write(&path, &whole[..end]).unwrap();
        let store = rig.open();
        let page = store.read(&stream("topic:a"), Start::Earliest, 100).await.unwrap();
        let data: Vec<_> = page.events.iter().map(|event| String::from_utf8_lossy(&event.data).into_owned()).collect();
        assert!(data.len() >= seen && data == (0..data.len()).map(|n| n.to_string()).collect::<Vec<_>>());
        seen = data.len();
    }
    assert!(seen >= 18);
}

#[tokio::test]
async fn files_of_the_first_format_are_gone_on_with_and_keep_traces_from_then_on() {
    let rig = Rig::new("*=10/3600");
    let (name, path) = (stream("topic:a"), rig.directory.path().join("00000001.journal"));
    let store = rig.open();
    store.publish(&name, &draft("1")).await.unwrap();
    drop(store);
    let version = || std::fs::read(&path).unwrap()[8];
    let mut file = std::fs::read(&path).unwrap();
    assert_eq!(std::mem::replace(&mut file[8], 1), 2);
    std::fs::write(&path, file).unwrap();
    let store = rig.open();
    // A version that reads only the first format must not take the file for one of its own.
    assert_eq!(version(), 2);
    let trace = Some(TraceParent::new([7; 16], [1; 8], true));
    store.publish(&name, &Draft { trace, ..draft("2") }).await.unwrap();
    drop(store);
    let page = rig.open().read(&name, Start::Earliest, 10).await.unwrap();
    assert_eq!(page.events.iter().map(|event| event.trace()).collect::<Vec<_>>(), [None, trace]);
}

#[tokio::test]
async fn a_revocation_that_was_lifted_stays_lifted() {
    let rig = Rig::new("*=10/3600");
    let revocation = Revocation {
        id: Uuid::new_v4(),
        subject: Subject::Device("42".into()),
        before_ms: 1,
        created_ms: 1,
        expires_ms: now_ms() + 3_600_000,
        lifted: false,
    };
    let lifted = Revocation { lifted: true, ..revocation.clone() };
    let store = rig.open();
    for entry in [&revocation, &lifted] {
        assert!(store.put_revocations(std::slice::from_ref(entry)).await.unwrap());
    }
    drop(store);
    let list = rig.open().list_revocations(None).await.unwrap().unwrap();
    assert_eq!(list.entries, [lifted]);
}
