//! The example of a text that is pushed while it is written, run as it stands in `examples/token-stream`.

use std::sync::Arc;

use crate::support::client::{Transport, Wanted};
use crate::support::eventually;
use crate::support::node::Node;
use crate::support::producers::{Script, python};
use crate::support::proxy::{Connection, Cut, Proxy};
use crate::support::redis::RedisServer;

const TOPIC: &str = "answer:1";

fn reader(url: &str) -> Script {
    python("examples/token-stream/reader.py", &[url, TOPIC])
}

/// A node that has given Redis what the producer needs.
async fn node(redis: &RedisServer) -> Node {
    let node = Node::on(redis, &[("WHIMBREL_INGRESS", "true")]);
    let loaded = async || node.log().contains("loaded the function library").then_some(());
    eventually("the functions", loaded).await;
    node
}

/// The reader's connection, once it is another one than before.
async fn connection(proxy: &Proxy, before: Option<&Arc<Connection>>) -> Arc<Connection> {
    let other = async || {
        let mut open = proxy.connections("GET /v1/sse").into_iter();
        open.find(|connection| before.is_none_or(|before| !Arc::ptr_eq(connection, before)))
    };
    eventually("a connection of the reader", other).await
}

/// A part of a text, which is pushed as 280 events, with what JSON and SSE treat in a special way.
fn part(number: usize) -> String {
    (0..40).map(|line| format!("Part {number}: \"{line}\" — naïve\\🐦\n\n")).collect()
}

#[tokio::test]
async fn a_reader_that_is_cut_twice_and_one_that_comes_late_print_the_text_that_was_written() {
    let redis = RedisServer::start();
    let node = node(&redis).await;
    let proxy = Proxy::to(node.address());
    let mut witness = Wanted::new(Transport::Sse, &["topic:answer:1"]).connect(&node).await;
    let cut = reader(&format!("http://{}", proxy.address()));
    let mut open = connection(&proxy, None).await;
    let mut producer = python("examples/token-stream/producer.py", &[&redis.url(), TOPIC]);
    for (number, (how, events)) in [(Cut::Reset, 140), (Cut::Fin, 280)].into_iter().enumerate() {
        producer.feed(&part(number)).await;
        // In the middle of the part.
        for _ in 0..events {
            witness.event().await;
        }
        open.cut(how);
        open = connection(&proxy, Some(&open)).await;
    }
    producer.feed(&part(2)).await;
    producer.end().await;
    let text = [part(0), part(1), part(2)].concat();
    assert_eq!(cut.end().await, text);
    assert_eq!(reader(&node.url()).end().await, text);
    // Whoever wants to know of the end alone does not have to read the text.
    let mut choosy =
        Wanted::new(Transport::Sse, &["topic:answer:1"]).with("types", "end").after("earliest").connect(&node).await;
    let end = choosy.event().await;
    assert_eq!((&*end.kind, &*end.data), ("end", "{\"tokens\": 840}"));
}

#[tokio::test]
async fn readers_of_a_text_whose_producer_is_killed_get_an_event_that_it_breaks_off() {
    let redis = RedisServer::start();
    let node = node(&redis).await;
    let mut witness = Wanted::new(Transport::Sse, &["topic:answer:1"]).connect(&node).await;
    let early = reader(&node.url());
    let mut producer = python("examples/token-stream/producer.py", &[&redis.url(), TOPIC]);
    producer.feed(&part(0)).await;
    for _ in 0..280 {
        witness.event().await;
    }
    producer.kill().await;
    let breaks_off = async |reader: Script| {
        let (text, reported) = reader.failed().await;
        assert_eq!(text, part(0));
        assert!(reported.contains("breaks off here"), "{reported}");
    };
    breaks_off(early).await;
    breaks_off(reader(&node.url())).await;
}

#[tokio::test]
async fn a_reader_that_comes_too_late_for_the_beginning_reports_it() {
    let node = Node::start(&[("WHIMBREL_RETENTION", "*=10/3600")]);
    node.publish_all("topic:answer:1", 0..300).await;
    let (text, reported) = reader(&node.url()).failed().await;
    assert_eq!(text, "", "not a word from the middle");
    assert!(reported.contains("no longer kept"), "{reported}");
}
