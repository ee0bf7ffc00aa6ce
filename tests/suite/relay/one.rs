//! One relay.

use super::*;
use crate::support::{Signal, free_port};

#[tokio::test]
async fn rows_become_events_in_order_with_their_options_once_their_transaction_commits() {
    let ((postgres, mut database), node) = (database().await, Node::start(&[]));
    let _relay = relay(&postgres, &node.url(), &[]).await;
    let mut client = listener(&node, &["topic:orders", "device:42"]).await;
    let transaction = database.transaction().await.unwrap();
    let rows_of_it = "INSERT INTO outbox (stream, type, data, key, ttl, collapse) VALUES
        ('topic:orders', 'placed', '{\"order\" : 1}', 'order-1', NULL, NULL),
        ('device:42', NULL, '\"yours\"', NULL, 3600, 'c'),
        ('topic:orders', 'paid', '{\"order\" : 1}', NULL, NULL, NULL)";
    transaction.batch_execute(rows_of_it).await.unwrap();
    // Nobody sees what is not committed; what is rolled back is never seen.
    transaction.rollback().await.unwrap();
    let transaction = database.transaction().await.unwrap();
    transaction.batch_execute(rows_of_it).await.unwrap();
    transaction.commit().await.unwrap();
    let mut seen = [next(&mut client).await, next(&mut client).await, next(&mut client).await];
    // Between streams there is no order.
    seen.sort();
    let event = |stream: &str, kind: &str, data: &str| (stream.to_owned(), kind.to_owned(), data.to_owned());
    assert_eq!(seen[0], event("device:42", "message", "\"yours\""));
    assert_eq!(
        seen[1..],
        [event("topic:orders", "paid", "{\"order\" : 1}"), event("topic:orders", "placed", "{\"order\" : 1}")]
    );
    assert_eq!(node.history("topic:orders").await.len(), 2);
    rows(&database, 0).await;
    // The key of the row is the event's: the same again is nothing new.
    let repeat =
        node.call("POST", "/v1/topics/orders/events?type=placed", &[("Idempotency-Key", "order-1")], "{\"order\" : 1}");
    assert_eq!(repeat.await.json()["duplicate"], true);
}

#[tokio::test]
async fn json_of_any_column_type_is_published() {
    let ((postgres, database), node) = (database().await, Node::start(&[]));
    let _relay = relay(&postgres, &node.url(), &[]).await;
    let mut client = listener(&node, &["topic:a"]).await;
    for (kind, data) in [("jsonb", "{\"a\": 1}"), ("text", "{\"a\" :\n1}"), ("varchar", "null"), ("json", " [1] ")] {
        rows(&database, 0).await;
        database
            .batch_execute(&format!("ALTER TABLE outbox ALTER data TYPE {kind} USING data::text::{kind}"))
            .await
            .unwrap();
        let insert = format!("INSERT INTO outbox (stream, data) VALUES ('topic:a', $1::text::{kind})");
        database.execute(&insert, &[&data]).await.unwrap();
        let event = client.event().await;
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&event.data), value(data), "{kind}");
    }
}

#[tokio::test]
async fn with_keep_rows_stay_and_are_marked_as_sent() {
    let ((postgres, database), node) = (database().await, Node::start(&[]));
    let _relay = relay(&postgres, &node.url(), &["--keep"]).await;
    let mut client = listener(&node, &["topic:a"]).await;
    insert(&database, "topic:a", 0..5).await;
    assert_eq!(client.data(5).await, ["0", "1", "2", "3", "4"]);
    let sent = async || {
        let sql = "SELECT count(*) FROM outbox WHERE sent_at >= created_at AND error IS NULL";
        (database.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 5).then_some(())
    };
    eventually("all are marked", sent).await;
    insert(&database, "topic:a", 5..6).await;
    assert_eq!(client.data(1).await, ["5"], "what is marked is not published again");
}

#[tokio::test]
async fn a_row_that_can_be_no_event_is_marked_with_the_reason_and_its_stream_goes_on() {
    let ((postgres, database), node) = (database().await, Node::start(&[]));
    let mut client = listener(&node, &["topic:a"]).await;
    insert(&database, "topic:a", 0..1).await;
    database
        .batch_execute(
            "INSERT INTO outbox (stream, type, data, key, ttl) VALUES
             ('topic:a', 'open', '1', NULL, NULL), ('orders', NULL, '1', NULL, NULL), ('topic:a', NULL, '1', NULL, 0),
             ('topic:a', NULL, ('\"' || repeat('x', 70000) || '\"')::json, NULL, NULL), ('topic:a', NULL, '1', 'a b', NULL),
             ('topic:a', NULL, (repeat('[', 61) || repeat(']', 61))::json, NULL, NULL)",
        )
        .await
        .unwrap();
    insert(&database, "topic:a", 1..2).await;
    let relay = relay(&postgres, &node.url(), &[]).await;
    assert_eq!(client.data(2).await, ["0", "1"]);
    rows(&database, 6).await;
    let marked = async || {
        let rows = database.query("SELECT error FROM outbox ORDER BY id", &[]).await.unwrap();
        rows.iter().map(|row| row.get::<_, Option<String>>(0)).collect::<Option<Vec<_>>>()
    };
    let reasons = eventually("all are marked", marked).await;
    let why =
        ["event type", "device:NAME or topic:NAME", "ttl", "allowed are 65536", "idempotency key", "nested deeper"];
    for (reason, why) in reasons.iter().zip(why) {
        assert!(reason.contains(why), "{reasons:?}");
    }
    relay.said("can't be published").await;
    // A time that is none is no reason to stop at.
    database
        .batch_execute("INSERT INTO outbox (stream, data, created_at) VALUES ('nonsense', '1', 'infinity')")
        .await
        .unwrap();
    // Put right, a row is tried again.
    database
        .batch_execute("UPDATE outbox SET type = NULL, error = NULL, data = '2' WHERE type = 'open'")
        .await
        .unwrap();
    assert_eq!(client.data(1).await, ["2"]);
    let marked = "SELECT count(*) FROM outbox WHERE error IS NOT NULL";
    let all = async || (database.query_one(marked, &[]).await.unwrap().get::<_, i64>(0) == 6).then_some(());
    eventually("the last is marked too", all).await;
}

#[tokio::test]
async fn new_rows_are_announced_and_those_that_are_not_are_found_by_polling() {
    let ((postgres, database), node) = (database().await, Node::start(&[]));
    let mut client = listener(&node, &["topic:a"]).await;
    let resting = relay(&postgres, &node.url(), &["--poll-seconds", "3600"]).await;
    for n in 0..3 {
        insert(&database, "topic:a", n..n + 1).await;
        assert_eq!(client.data(1).await, [n.to_string()], "an hour before the next poll");
    }
    resting.signal(Signal::TERM);
    assert_eq!(resting.end().await.code, Some(0));
    database.batch_execute("ALTER TABLE outbox DISABLE TRIGGER USER").await.unwrap();
    let _polling = relay(&postgres, &node.url(), &[]).await;
    insert(&database, "topic:a", 3..4).await;
    assert_eq!(client.data(1).await, ["3"]);
}

#[tokio::test]
async fn a_backlog_of_several_batches_and_of_large_rows_comes_in_order() {
    let ((postgres, database), node) = (database().await, Node::start(&[("WHIMBREL_RETENTION", "*=100000/3600")]));
    let streams: Vec<_> = (0..6).map(|n| format!("topic:{n}")).collect();
    for stream in &streams {
        insert(&database, stream, 0..400).await;
    }
    let large = "INSERT INTO outbox (stream, data) SELECT 'topic:large', to_json(n || repeat('x', 60000)) FROM generate_series(0, 19) AS n";
    database.batch_execute(large).await.unwrap();
    let _relay = relay(&postgres, &node.url(), &[]).await;
    let names: Vec<_> = streams.iter().map(String::as_str).collect();
    read_all(&mut listener(&node, &names).await, &streams, 400).await;
    for (n, data) in listener(&node, &["topic:large"]).await.data(20).await.iter().enumerate() {
        assert!(data.starts_with(&format!("\"{n}x")), "{n}");
    }
    rows(&database, 0).await;
}

#[tokio::test]
async fn a_row_that_another_transaction_has_holds_back_its_stream_and_no_other() {
    let ((postgres, database), node) = (database().await, Node::start(&[]));
    insert(&database, "topic:a", 0..3).await;
    insert(&database, "topic:b", 0..3).await;
    let other = postgres.client().await;
    other.batch_execute("BEGIN; SELECT FROM outbox WHERE id = 1 FOR UPDATE").await.unwrap();
    let _relay = relay(&postgres, &node.url(), &[]).await;
    assert_eq!(listener(&node, &["topic:b"]).await.data(3).await, ["0", "1", "2"]);
    rows(&database, 3).await;
    assert!(node.history("topic:a").await.is_empty());
    other.batch_execute("COMMIT").await.unwrap();
    assert_eq!(listener(&node, &["topic:a"]).await.data(3).await, ["0", "1", "2"]);
}

#[tokio::test]
async fn rows_wait_for_a_server_that_is_away_and_a_stop_ends_the_waiting() {
    let (postgres, database) = database().await;
    insert(&database, "topic:a", 0..3).await;
    let listen = format!("127.0.0.1:{}", free_port());
    let url = format!("http://{listen}");
    let idle = relay(&postgres, &url, &[]).await;
    idle.said("can't be reached").await;
    idle.signal(Signal::TERM);
    let ended = idle.end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    rows(&database, 3).await;
    let waiting = relay(&postgres, &url, &[]).await;
    waiting.said("trying again").await;
    let node = Node::start(&[("WHIMBREL_LISTEN", &listen)]);
    assert_eq!(listener(&node, &["topic:a"]).await.data(3).await, ["0", "1", "2"]);
    rows(&database, 0).await;
}
