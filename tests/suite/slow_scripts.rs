//! No script of a node holds Redis for long, however much there is: what is large is done in parts.

use std::collections::HashMap;
use std::time::Duration;

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use uuid::Uuid;
use whimbrel::model::{Draft, EventId, NodeId, Start, StreamName};
use whimbrel::store::redis::{Arrival, Plan, RedisStore};
use whimbrel::store::{EventLog as _, Ingress as _, Lifecycle as _, Rejection, RetentionRules};

use crate::conformance::{connect, draft, stream};
use crate::support::redis::{RedisServer, config};

/// How long a script may take, in microseconds. Parts are made to take 2 ms; a slow machine gets five times as much,
/// and what is not done in parts takes many times more.
const MOST: u64 = 10_000;

/// Of many short scripts, a few may take longer for no fault of theirs: memory that the system has to find, a host that
/// gives its processors to others. One that takes long by itself takes long each time.
const INTERRUPTED: f64 = 0.05;

async fn scripts_run(raw: &mut MultiplexedConnection) -> u64 {
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(raw).await.unwrap();
    let line = stats.lines().find(|line| line.starts_with("cmdstat_evalsha:")).expect("scripts were run");
    line.split("calls=").nth(1).unwrap().split(',').next().unwrap().parse().unwrap()
}

/// Runs what is to be measured, and fails if its scripts are slow. The log of slow commands goes by the clock on the
/// wall; what the server waited for a processor meanwhile is not the scripts' fault.
async fn is_quick(server: &RedisServer, what: &str, work: impl Future<Output = ()>) {
    let mut raw = server.raw().await;
    let before = scripts_run(&mut raw).await;
    let () = redis::cmd("SLOWLOG").arg("RESET").query_async(&mut raw).await.unwrap();
    let waited = server.waited_for_processor();
    work.await;
    let waited = (server.waited_for_processor() - waited).as_micros() as u64;
    let slow: Vec<(u64, u64, u64, Vec<String>, String, String)> =
        redis::cmd("SLOWLOG").arg("GET").arg(1000).query_async(&mut raw).await.unwrap();
    let mut slow: Vec<u64> =
        slow.into_iter().filter(|(.., words, _, _)| words[0] == "EVALSHA").map(|(_, _, micros, ..)| micros).collect();
    slow.sort_unstable();
    let run = scripts_run(&mut raw).await - before;
    assert!(run > 0, "{what}");
    let few = slow.len() as f64 <= run as f64 * INTERRUPTED;
    let excused = slow.iter().sum::<u64>() <= waited + slow.len() as u64 * MOST;
    assert!(
        few || excused,
        "{what}: of {run} scripts these took long, in µs: {slow:?}; {waited} µs without a processor"
    );
}

async fn large_log(store: &RedisStore, name: &str, count: usize, bytes: usize) -> StreamName {
    let stream = stream(name);
    let draft = draft(format!("\"{}\"", "x".repeat(bytes)));
    fill(store, (0..count).map(|_| (stream.clone(), draft.clone())).collect()).await;
    stream
}

async fn fill(store: &RedisStore, batch: Vec<(StreamName, Draft)>) {
    for answer in store.publish_all(&batch).await {
        answer.unwrap();
    }
}

fn server() -> RedisServer {
    RedisServer::start_with(&["--slowlog-log-slower-than", &MOST.to_string(), "--slowlog-max-len", "1000"])
}

#[tokio::test]
async fn no_script_holds_the_store_for_long_at_any_size() {
    let server = server();
    let rules: RetentionRules = "*=100000/3600".parse().unwrap();
    let store = connect(&server, rules).await;
    let mut raw = server.raw().await;

    let (large, many) =
        (large_log(&store, "topic:large", 1000, 60_000).await, large_log(&store, "device:many", 10_000, 10).await);
    is_quick(&server, "the newest events of a log of large ones", async {
        let page = store.read(&large, Start::Last(1000), 128).await.unwrap();
        assert_eq!(Some(page.events[0].id), page.first);
    })
    .await;
    is_quick(&server, "an inbox", async {
        for _ in 0..20 {
            assert_eq!(store.inbox(&many).await.unwrap().pending, 10_000);
        }
    })
    .await;
    is_quick(&server, "erasing", async { store.erase(&large).await.unwrap() }).await;

    let node = NodeId::random();
    let open = format!("whimbrel:{{topic:whimbrel:lifecycle}}:open:{node}");
    for _ in 0..100 {
        let some: Vec<(String, &str)> = (0..1000).map(|_| (Uuid::new_v4().to_string(), "sse device:1")).collect();
        let () = raw.hset_multiple(&open, &some).await.unwrap();
    }
    is_quick(&server, "all connections that a node has open", async {
        let found: HashMap<_, _> =
            store.open(&node).await.unwrap().into_iter().map(|found| (found.connection, ())).collect();
        assert_eq!(found.len(), 100_000);
    })
    .await;

    for part in 0..20 {
        let mut add = redis::pipe();
        for number in 1..=1000 {
            let id = format!("{}-1", part * 1000 + number);
            add.cmd("XADD").arg("whimbrel:ingress").arg(id).arg(&["topic", "a", "data", "1"]).ignore();
        }
        let () = add.query_async(&mut raw).await.unwrap();
    }
    is_quick(&server, "a backlog that gets new ids", async {
        assert!(store.lift(Some(EventId::new(5_000_000, 1)), &[]).await.unwrap());
        assert!(!store.lift(Some(EventId::new(5_000_000, 1)), &[]).await.unwrap());
    })
    .await;
    let after = store.entries(EventId::new(5_000_000, 1), 100).await.unwrap();
    assert_eq!((after.waiting, after.lifting), (20_000, false));

    let fields = vec![("x".repeat(1000).into(), "y".repeat(1000).into()); 16];
    let rejection =
        |number| Rejection { id: EventId::new(number, 1), reason: "no event".into(), fields: fields.clone() };
    let rejections: Vec<_> = (0..2000).map(rejection).collect();
    for what in ["entries that can't be events", "the same entries"] {
        is_quick(&server, what, async { store.reject(&rejections).await.unwrap() }).await;
        assert_eq!(raw.xlen::<_, u64>("whimbrel:ingress:rejected").await.unwrap(), 2000, "each once");
    }
}

/// Streams whose home is the store: one of large events, and one of many small ones with all that a move takes along.
async fn at_home(store: &RedisStore, raw: &mut MultiplexedConnection) -> [StreamName; 2] {
    let [large, many] = [stream("topic:large"), stream("device:many")];
    for stream in [&large, &many] {
        store.claim(stream, 1).await.unwrap();
    }
    let home = store.as_of(1);
    large_log(&home, large.as_str(), 300, 60_000).await;
    let small = (0..5000).map(|number| {
        let (key, collapse) = (Some(format!("key-{number}")), Some(format!("group-{number}")));
        (many.clone(), Draft { key, collapse, ..draft("1") })
    });
    fill(&home, small.collect()).await;
    // Many more nodes and connections than one stream is likely to have.
    let later = 100_000_000_000_000_u64;
    for (field, value) in [("nodes", format!("{later} 1")), ("connections", format!("1 {later} {later} node sse"))] {
        let held: Vec<_> = (0..500).map(|number| (format!("{field}-{number}"), value.clone())).collect();
        let () = raw.hset_multiple(format!("whimbrel:{{{many}}}:{field}"), &held).await.unwrap();
    }
    [large, many]
}

#[tokio::test]
async fn no_script_of_a_move_holds_either_store_for_long() {
    let server = server();
    let mut raw = server.raw().await;
    let rules: RetentionRules = "*=100000/3600".parse().unwrap();
    let from = connect(&server, rules.clone()).await;
    let to = RedisStore::connect(&config(&server.url()), "elsewhere", rules, Duration::from_secs(3600)).await.unwrap();
    for stream in at_home(&from, &mut raw).await {
        let plan = Plan { stream: stream.clone(), from: "eu".into(), to: "us".into(), version: 2 };
        is_quick(&server, &format!("a move of {stream}"), async {
            from.move_begin(&plan).await.unwrap();
            to.move_prepare(&plan).await.unwrap();
            let mut copied = String::new();
            loop {
                let cargo = from.move_read(&plan, &copied).await.unwrap().unwrap();
                if let Arrival::Copied(upto) = to.move_import(&plan, &copied, &cargo).await.unwrap() {
                    copied = upto;
                }
                if !cargo.more {
                    break;
                }
            }
            assert!(from.move_seal(&plan).await.unwrap());
            let baggage = from.move_marks(&plan).await.unwrap().unwrap();
            assert_eq!(to.move_open(&plan, &baggage).await.unwrap(), Arrival::Open);
            from.move_clear(&plan).await.unwrap();
        })
        .await;
        let page = to.as_of(2).read(&stream, Start::Earliest, 1).await.unwrap();
        assert_eq!(page.events.len(), 1, "{stream} has arrived");
    }
}

#[tokio::test]
async fn no_script_that_puts_two_homes_together_holds_the_store_for_long() {
    let server = server();
    let store = connect(&server, "*=100000/3600".parse().unwrap()).await;
    for (stream, wanted) in at_home(&store, &mut server.raw().await).await.into_iter().zip([300, 5000]) {
        is_quick(&server, &format!("giving {stream} up"), async {
            assert!(store.cede(&stream, 1, "us").await.unwrap());
            let (mut upto, mut found) = (String::new(), 0);
            while let Some(stranded) = store.stranded(&stream, 1, ("eu", "us"), &upto).await.unwrap() {
                found += stranded.events.len();
                upto = stranded.upto;
            }
            assert_eq!(found, wanted, "{stream}");
        })
        .await;
    }
}
