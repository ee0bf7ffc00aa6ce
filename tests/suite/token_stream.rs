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
    let node = Node::on(&redis, &[("WHIMBREL_INGRESS", "true")]);
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
}
