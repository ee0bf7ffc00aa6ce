//! No script of a node holds Redis for more than 2 ms, however much there is: what is large is done in parts.

use std::collections::HashMap;

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use uuid::Uuid;
use whimbrel::model::{EventId, Start, StreamName};
use whimbrel::store::redis::RedisStore;
use whimbrel::store::{EventLog as _, Ingress as _, Lifecycle as _, NodeId, Rejection, RetentionRules};

use crate::conformance::{connect, draft, stream};
use crate::support::redis::RedisServer;

/// How long a script may take, in microseconds.
const MOST: u64 = 2000;

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
    let batch: Vec<_> = (0..count).map(|_| (stream.clone(), draft.clone())).collect();
    for answer in store.publish_all(&batch).await {
        answer.unwrap();
    }
    stream
}

#[tokio::test]
async fn no_script_holds_the_store_for_long_at_any_size() {
    let server =
        RedisServer::start_with(&["--slowlog-log-slower-than", &MOST.to_string(), "--slowlog-max-len", "1000"]);
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
