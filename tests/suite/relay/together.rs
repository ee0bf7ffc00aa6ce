//! Several relays of one table, and what a relay shows of itself.

use super::*;
use crate::support::Signal;
use crate::support::free_port;
use crate::support::http::Http;

/// A figure of the relay that shows its figures at this port.
async fn figure(port: u16, name: &str) -> f64 {
    let answer = Http::connect(([127, 0, 0, 1], port).into()).await.call("GET", "/metrics", &[], b"").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let line = answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} in {}", answer.text())).parse().unwrap()
}

#[tokio::test]
async fn several_relays_share_the_work_and_each_stream_stays_in_order() {
    let ((postgres, database), node) = (database().await, Node::start(&[("WHIMBREL_RETENTION", "*=100000/3600")]));
    let streams: Vec<_> = (0..40).map(|n| format!("topic:{n}")).collect();
    let mut relays = Vec::new();
    for _ in 0..3 {
        let port = free_port();
        relays.push((relay(&postgres, &node.url(), &["--metrics-listen", &format!("127.0.0.1:{port}")]).await, port));
    }
    let mut each = 0;
    let all_had_some = async || {
        for (_, port) in &relays {
            if figure(*port, "whimbrel_relay_published_total").await == 0.0 {
                return false;
            }
        }
        true
    };
    while each == 0 || !all_had_some().await {
        let insert = "INSERT INTO outbox (stream, data) SELECT 'topic:' || s, to_json(n)
            FROM generate_series($1::int, $1 + 19) AS n, generate_series(0, 39) AS s";
        database.execute(insert, &[&each]).await.unwrap();
        each += 20;
        rows(&database, 0).await;
    }
    let names: Vec<_> = streams.iter().map(String::as_str).collect();
    read_all(&mut listener(&node, &names).await, &streams, each).await;
    assert_eq!(node.metric("published_total").await, f64::from(each * 40), "nothing was published twice");
    for (relay, _) in relays {
        relay.signal(Signal::TERM);
        assert_eq!(relay.end().await.code, Some(0));
    }
}

#[tokio::test]
async fn a_stream_that_the_server_does_not_take_holds_back_no_other() {
    let (postgres, database) = database().await;
    let folder = tempfile::TempDir::new().unwrap();
    let keys = folder.path().join("keys.json");
    let write = |streams: &str| {
        let key = format!(
            r#"[{{"name":"shop","key":"s3cret-key-of-the-shop","scopes":["publish","read"],"streams":{streams}}}]"#
        );
        std::fs::write(&keys, key).unwrap();
    };
    write(r#"["topic:a"]"#);
    let node = Node::start(&[("WHIMBREL_API_KEYS_FILE", keys.to_str().unwrap())]);
    insert(&database, "topic:b", 0..2).await;
    insert(&database, "topic:a", 0..2).await;
    let (port, url) = (free_port(), node.url());
    let metrics = format!("127.0.0.1:{port}");
    let arguments = ["relay", "postgres", "--url", &url, "--dsn", &postgres.dsn(), "--metrics-listen", &metrics];
    let relay = start(&arguments, &[("WHIMBREL_TOKEN", "s3cret-key-of-the-shop")]);
    relay.said("the server does not take the stream's rows for now").await;
    let mut client = Wanted::new(Transport::WebSocket, &["topic:a"]).after("earliest").bearer("s3cret-key-of-the-shop");
    assert_eq!(client.clone().connect(&node).await.data(2).await, ["0", "1"]);
    rows(&database, 2).await;
    eventually("one is held", async || (figure(port, "whimbrel_relay_held").await == 1.0).then_some(())).await;
    eventually("its lag grows", async || (figure(port, "whimbrel_relay_lag_seconds").await > 1.0).then_some(())).await;
    // The operator puts it right.
    write(r#"["topic:*"]"#);
    rows(&database, 0).await;
    client = Wanted::new(Transport::WebSocket, &["topic:b"]).after("earliest").bearer("s3cret-key-of-the-shop");
    assert_eq!(client.connect(&node).await.data(2).await, ["0", "1"]);
    eventually("none is held", async || (figure(port, "whimbrel_relay_held").await == 0.0).then_some(())).await;
    assert!(figure(port, "whimbrel_relay_retries_total{reason=\"stream\"}").await >= 1.0);
    assert!(!relay_words(relay).await.contains("s3cret"));
}

async fn relay_words(relay: Running) -> String {
    relay.signal(Signal::TERM);
    let ended = relay.end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.stderr
}

#[tokio::test]
async fn a_relay_shows_what_became_of_rows_and_whether_the_database_is_there() {
    let ((mut postgres, database), node) = (database().await, Node::start(&[]));
    let port = free_port();
    let relay = relay(&postgres, &node.url(), &["--metrics-listen", &format!("127.0.0.1:{port}")]).await;
    insert(&database, "topic:a", 0..3).await;
    insert(&database, "nonsense", 0..2).await;
    rows(&database, 2).await;
    for (name, wanted) in [("published_total", 3.0), ("rejected_total", 2.0), ("connected", 1.0), ("lag_seconds", 0.0)]
    {
        let name = format!("whimbrel_relay_{name}");
        eventually(&name, async || (figure(port, &name).await == wanted).then_some(())).await;
    }
    postgres.kill();
    eventually("it is away", async || (figure(port, "whimbrel_relay_connected").await == 0.0).then_some(())).await;
    assert!(figure(port, "whimbrel_relay_retries_total{reason=\"database\"}").await >= 1.0);
    let mut http = Http::connect(([127, 0, 0, 1], port).into()).await;
    assert_eq!(http.call("GET", "/", &[], b"").await.status, 404);
    let words = relay_words(relay).await;
    assert!(words.contains("trying again") && words.contains("published=3 rejected=2"), "{words}");
}
