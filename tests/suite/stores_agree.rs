//! Both stores, asked the same in the same order, answer the same: over made-up runs of operations, with ids
//! compared by the order in which they came up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use whimbrel::model::{Draft, EventId, NodeId, Page, Route, Standing, Start, StreamName};
use whimbrel::store::memory::MemoryStore;
use whimbrel::store::{EventLog, RetentionRules};

use crate::conformance::{connect, draft};
use crate::support::redis::RedisServer;

const HOUR: Duration = Duration::from_secs(3600);

/// One operation. A `usize` that stands for an id picks one of those known so far.
#[derive(Debug, Clone)]
enum Operation {
    Publish {
        collapse: Option<u8>,
        key: Option<u8>,
        other_body: bool,
    },
    Acknowledge(usize),
    /// Of an id that no event has.
    AcknowledgeAhead,
    Inbox,
    Read {
        after: Option<usize>,
        limit: usize,
    },
    ReadLast {
        count: u32,
        limit: usize,
    },
    ReadBefore {
        id: usize,
        limit: usize,
    },
    Sync {
        node: usize,
        head: Option<usize>,
    },
    Detach {
        node: usize,
        registration: Option<u64>,
    },
    Erase,
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    let (id, limit, node) = (0..64usize, 1..6usize, 0..3usize);
    let some = |most| prop::option::weighted(0.4, 0..most);
    prop_oneof![
        8 => (some(3u8), prop::option::weighted(0.2, 0..3u8), any::<bool>())
            .prop_map(|(collapse, key, other_body)| Publish { collapse, key, other_body }),
        2 => id.clone().prop_map(Acknowledge),
        1 => Just(AcknowledgeAhead),
        3 => Just(Inbox),
        4 => (prop::option::of(id.clone()), limit.clone()).prop_map(|(after, limit)| Read { after, limit }),
        1 => (0..5u32, limit.clone()).prop_map(|(count, limit)| ReadLast { count, limit }),
        2 => (id.clone(), limit).prop_map(|(id, limit)| ReadBefore { id, limit }),
        2 => (node.clone(), prop::option::of(id)).prop_map(|(node, head)| Sync { node, head }),
        1 => (node, prop::option::of(0..2u64)).prop_map(|(node, registration)| Detach { node, registration }),
        1 => Just(Erase),
    ]
}

/// A store, and the ids of the stream in the order in which it showed them: the birth, then the events.
struct Told<'a> {
    store: &'a dyn EventLog,
    stream: StreamName,
    nodes: Vec<NodeId>,
    ids: Vec<EventId>,
}

impl<'a> Told<'a> {
    async fn new(store: &'a dyn EventLog, stream: &StreamName) -> Self {
        let nodes: Vec<_> = (0..3).map(|_| NodeId::random()).collect();
        // It begins with its first subscriber.
        let route = Route { node: nodes[0].clone(), registration: 1, ttl: HOUR, noted: false };
        let epoch = store.sync(stream, &route, None).await.unwrap().epoch;
        Told { store, stream: stream.clone(), nodes, ids: vec![epoch] }
    }

    fn id(&self, which: usize) -> EventId {
        self.ids[which % self.ids.len()]
    }

    /// Which of the ids it is.
    fn number(&self, id: EventId) -> usize {
        self.ids.iter().position(|known| *known == id).unwrap_or_else(|| panic!("{id} is nobody's"))
    }

    /// Carries out an operation, and returns the answer without the store's own ids and clock.
    async fn act(&mut self, operation: &Operation) -> String {
        let (store, stream) = (self.store, self.stream.clone());
        match *operation {
            Operation::Publish { collapse, key, other_body } => {
                let body = if other_body { "\"other\"" } else { "1" };
                let draft = Draft {
                    collapse: collapse.map(|key| key.to_string()),
                    key: key.map(|key| key.to_string()),
                    ..draft(body)
                };
                match store.publish(&stream, &draft).await {
                    Ok(published) => {
                        if !published.duplicate {
                            self.ids.push(published.id);
                        }
                        format!("{} {} {}", self.number(published.id), published.nodes, published.duplicate)
                    }
                    Err(error) => error.to_string(),
                }
            }
            Operation::Acknowledge(id) => {
                let standing = store.acknowledge(&stream, Some(self.id(id))).await.unwrap();
                self.standing(standing)
            }
            Operation::AcknowledgeAhead => {
                let standing = store.acknowledge(&stream, Some(EventId::new(u64::MAX, 1))).await.unwrap();
                self.standing(standing)
            }
            Operation::Inbox => {
                let inbox = store.inbox(&stream).await.unwrap();
                format!("{} {}", self.standing(inbox.standing), inbox.pending)
            }
            Operation::Read { after, limit } => {
                let start = after.map_or(Start::Earliest, |id| Start::After(self.id(id)));
                let page = store.read(&stream, start, limit).await.unwrap();
                self.page(&page)
            }
            Operation::ReadLast { count, limit } => {
                let page = store.read(&stream, Start::Last(count), limit).await.unwrap();
                self.page(&page)
            }
            Operation::ReadBefore { id, limit } => {
                let page = store.read_before(&stream, self.id(id), limit).await.unwrap();
                self.page(&page)
            }
            Operation::Sync { node, head } => {
                let route = Route { node: self.nodes[node].clone(), registration: 1, ttl: HOUR, noted: false };
                let page = store.sync(&stream, &route, head.map(|id| self.id(id))).await.unwrap();
                self.page(&page)
            }
            Operation::Detach { node, registration } => {
                store.detach(&stream, &self.nodes[node], registration).await.unwrap();
                String::new()
            }
            Operation::Erase => {
                store.erase(&stream).await.unwrap();
                String::new()
            }
        }
    }

    fn standing(&self, Standing { last, epoch, told, acked }: Standing) -> String {
        let number = |id: Option<EventId>| id.map(|id| self.number(id));
        format!("{} {} {:?} {:?}", self.number(last), self.number(epoch), number(told), number(acked))
    }

    fn page(&self, page: &Page) -> String {
        let number = |id: &EventId| self.number(*id);
        let events: Vec<_> = page
            .events
            .iter()
            .map(|event| (number(&event.id), number(&event.prev), event.data.clone(), event.collapse.clone()))
            .collect();
        let superseded: Vec<_> = page.superseded.iter().map(number).collect();
        let ends = [Some(page.from), Some(page.last), Some(page.epoch), page.first, page.erased];
        let ends = ends.map(|id| id.as_ref().map(number));
        format!("{events:?} {superseded:?} {ends:?} {} {:?}", page.more, page.fork)
    }
}

#[test]
fn both_stores_answer_the_same() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = RedisServer::start();
    let rules: RetentionRules = "*=1000/3600".parse().unwrap();
    let redis = runtime.block_on(connect(&server, rules.clone()));
    let memory = MemoryStore::new(rules, HOUR, 64 << 20);
    let runs = AtomicU64::new(0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let checked = runner.run(&prop::collection::vec(operation(), 1..80), |operations| {
        let stream = format!("device:{}", runs.fetch_add(1, Ordering::Relaxed)).parse().unwrap();
        runtime.block_on(async {
            let mut stores = [Told::new(&memory, &stream).await, Told::new(&redis, &stream).await];
            for operation in &operations {
                let [first, second] = &mut stores;
                let answers = (first.act(operation).await, second.act(operation).await);
                prop_assert_eq!(&answers.0, &answers.1, "{:?}", operation);
            }
            Ok(())
        })
    });
    if let Err(error) = checked {
        panic!("{error}");
    }
}
