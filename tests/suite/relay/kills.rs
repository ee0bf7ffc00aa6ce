//! Whatever is killed meanwhile: nothing is lost, nothing comes twice, and each stream stays in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::support::postgres::try_client;
use crate::support::redis::RedisServer;
use crate::support::{Signal, free_port, in_time};

/// Streams of the application, and events of each.
const STREAMS: usize = 8;
const EACH: i32 = 150;

/// Writes the numbers of one stream as an application does: each in a transaction with a change of its own, which says
/// after an interruption whether the transaction committed.
async fn write(dsn: String, stream: String, written: Arc<AtomicUsize>) {
    let mut database = None;
    loop {
        let Some(client) = &mut database else {
            // It may be away; the test itself bounds for how long.
            tokio::time::sleep(Duration::from_millis(10)).await;
            database = try_client(&dsn).await.ok();
            continue;
        };
        match write_next(client, &stream).await {
            Ok(Some(_)) => _ = written.fetch_add(1, Ordering::Relaxed),
            Ok(None) => return,
            Err(_) => database = None,
        }
    }
}

async fn write_next(client: &mut Database, stream: &str) -> Result<Option<i32>, tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    let take = "UPDATE counters SET next = next + 1 WHERE stream = $1 AND next < $2 RETURNING next - 1";
    let Some(number) = transaction.query_opt(take, &[&stream, &EACH]).await? else { return Ok(None) };
    let number: i32 = number.get(0);
    transaction.execute("INSERT INTO outbox (stream, data) VALUES ($1, to_json($2::int))", &[&stream, &number]).await?;
    transaction.commit().await?;
    Ok(Some(number))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_the_database_and_a_node_are_killed_and_each_event_comes_once_and_in_order() {
    let ((mut postgres, database), redis) = (database().await, RedisServer::start());
    let steady = Node::on(&redis, &[]);
    let listen = format!("127.0.0.1:{}", free_port());
    let doomed = || Node::on(&redis, &[("WHIMBREL_LISTEN", &listen)]);
    let mut node = doomed();
    let streams: Vec<_> = (0..STREAMS).map(|n| format!("topic:{n}")).collect();
    database
        .batch_execute("CREATE TABLE counters (stream text PRIMARY KEY, next integer NOT NULL DEFAULT 0)")
        .await
        .unwrap();
    for stream in &streams {
        database.execute("INSERT INTO counters (stream) VALUES ($1)", &[stream]).await.unwrap();
    }
    let names: Vec<_> = streams.iter().map(String::as_str).collect();
    let mut client = listener(&steady, &names).await;
    let written = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> =
        streams.iter().map(|stream| tokio::spawn(write(postgres.dsn(), stream.clone(), written.clone()))).collect();
    let urls = [format!("http://{listen}"), format!("http://{listen}"), steady.url()];
    let mut relays = Vec::new();
    for url in &urls {
        relays.push(relay(&postgres, url, &[]).await);
    }
    let parts = 7;
    for part in 1..parts {
        let some = STREAMS * EACH as usize * part / parts;
        eventually("the application goes on", async || (written.load(Ordering::Relaxed) >= some).then_some(())).await;
        match part % 3 {
            1 => {
                relays[part % 2].signal(Signal::KILL);
                relays[part % 2] = start_relay(&postgres, &urls[part % 2], &[]);
            }
            2 => {
                postgres.kill();
                postgres.revive();
            }
            _ => {
                node.kill();
                drop(node);
                node = doomed();
            }
        }
    }
    for writer in writers {
        in_time("the application to be done", writer).await.unwrap();
    }
    read_all(&mut client, &streams, EACH).await;
    let database = postgres.client().await;
    rows(&database, 0).await;
    for stream in &streams {
        let expected: Vec<_> = (0..EACH).map(|n| n.to_string()).collect();
        assert_eq!(steady.history(stream).await, expected, "{stream}");
    }
    for relay in relays {
        relay.signal(Signal::TERM);
        assert_eq!(relay.end().await.code, Some(0));
    }
}

/// Lets no row be deleted until this connection ends or unlocks 1: so it is certain that rows are published and not settled.
async fn hold_deletions(database: &Database) {
    let hold = "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_advisory_xact_lock(1); RETURN OLD; END $$;
        CREATE TRIGGER wait BEFORE DELETE ON outbox FOR EACH ROW EXECUTE FUNCTION wait();
        SELECT pg_advisory_lock(1)";
    database.batch_execute(hold).await.unwrap();
}

#[tokio::test]
async fn what_was_published_when_the_database_died_is_not_published_again_however_long_it_is_away() {
    let ((mut postgres, database), redis) = (database().await, RedisServer::start());
    let node = Node::on(&redis, &[]);
    hold_deletions(&database).await;
    let relay = relay(&postgres, &node.url(), &[]).await;
    let mut client = listener(&node, &["topic:a"]).await;
    insert(&database, "topic:a", 0..2).await;
    assert_eq!(client.data(2).await, ["0", "1"]);
    postgres.kill();
    relay.said("trying again").await;
    // The five minutes are over in which a repeat would be recognised.
    let forgotten: Vec<String> = redis::cmd("KEYS").arg("*:once:*").query_async(&mut redis.raw().await).await.unwrap();
    assert_eq!(forgotten.len(), 2);
    let () = redis::cmd("DEL").arg(forgotten).query_async(&mut redis.raw().await).await.unwrap();
    postgres.revive();
    let database = postgres.client().await;
    rows(&database, 0).await;
    insert(&database, "topic:a", 2..3).await;
    assert_eq!(client.data(1).await, ["2"]);
    assert_eq!(node.history("topic:a").await, ["0", "1", "2"]);
}

#[tokio::test]
async fn a_relay_that_hangs_with_rows_in_its_hands_gives_them_up() {
    let ((postgres, database), node) = (database().await, Node::start(&[]));
    hold_deletions(&database).await;
    let hanging = relay(&postgres, &node.url(), &[]).await;
    let mut client = listener(&node, &["topic:a"]).await;
    insert(&database, "topic:a", 0..1).await;
    assert_eq!(client.data(1).await, ["0"]);
    hanging.signal(Signal::STOP);
    // As its own minute in the database would, once it is over.
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'whimbrel relay'";
    assert_eq!(database.query_one(end, &[]).await.unwrap().get::<_, i64>(0), 1);
    let _other = relay(&postgres, &node.url(), &[]).await;
    database.batch_execute("SELECT pg_advisory_unlock(1)").await.unwrap();
    rows(&database, 0).await;
    hanging.signal(Signal::CONT);
    hanging.said("trying again").await;
    insert(&database, "topic:a", 1..2).await;
    assert_eq!(client.data(1).await, ["1"]);
    assert_eq!(node.history("topic:a").await, ["0", "1"]);
}
