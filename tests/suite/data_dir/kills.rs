//! SIGKILL at any moment, under load: what was acknowledged is there, once and in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::RngExt as _;
use tokio::task::JoinSet;

use super::Data;
use crate::support::client::{Said, Transport, Wanted};
use crate::support::node::{Node, events_path};
use crate::support::{PATIENCE, eventually};

const STREAMS: usize = 4;

/// What a producer of one stream knows: the ids that it was given, in order, and how far it got.
struct Producer {
    stream: String,
    acknowledged: Vec<String>,
}

impl Producer {
    fn new(number: usize) -> Self {
        Producer { stream: format!("topic:{number}"), acknowledged: Vec::new() }
    }

    /// Publishes until the node is gone. What got no answer is published first the next time, with the same key.
    async fn publish(mut self, url: String, count: Arc<AtomicUsize>) -> Self {
        let http = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
        loop {
            let number = self.acknowledged.len();
            let request = http.post(format!("{url}{}", events_path(&self.stream)));
            let answer = request.header("Idempotency-Key", format!("k{number}")).body(number.to_string()).send().await;
            let Ok(answer) = answer else { return self };
            assert!(answer.status().is_success(), "{}", answer.status());
            let Ok(answer) = answer.json::<serde_json::Value>().await else { return self };
            self.acknowledged.push(answer["id"].as_str().unwrap().to_owned());
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Reads on from where it was until the node is gone.
async fn follow(node: &Node, producers: &[Producer], seen: &mut [Vec<String>]) {
    let streams: Vec<&str> = producers.iter().map(|producer| producer.stream.as_str()).collect();
    let positions = seen.iter().zip(&streams).map(|(seen, stream)| {
        let position = seen.last().map_or("0-0", String::as_str);
        format!("{stream}/{position}")
    });
    let wanted = positions.fold(Wanted::new(Transport::Sse, &streams), |wanted, after| wanted.after(&after));
    let mut client = wanted.connect(node).await;
    for stream in 0..producers.len() {
        while seen[stream].len() < producers[stream].acknowledged.len() {
            let event = client.event().await;
            let at = streams.iter().position(|stream| *stream == event.stream).unwrap();
            assert_eq!(event.data, seen[at].len().to_string(), "{} is not what comes next", event.id);
            seen[at].push(event.id);
        }
    }
}

async fn killed_again_and_again(times: usize) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let data = Data::new();
    let mut producers: Vec<_> = (0..STREAMS).map(Producer::new).collect();
    let mut seen = vec![Vec::new(); STREAMS];
    for round in 0..times {
        // The end of the process takes nothing from what was written, be it on disk or not.
        let fsync = if round % 3 == 2 { "everysec" } else { "always" };
        let node = data.node(&[("WHIMBREL_FSYNC", fsync), ("WHIMBREL_RETENTION", "*=1000000/3600")]);
        follow(&node, &producers, &mut seen).await;
        let count = Arc::new(AtomicUsize::new(0));
        let mut publishing = JoinSet::new();
        for producer in producers.drain(..) {
            publishing.spawn(producer.publish(node.url(), count.clone()));
        }
        let enough = rand::rng().random_range(1..40);
        eventually("some publishes", async || (count.load(Ordering::Relaxed) >= enough).then_some(())).await;
        node.kill();
        producers = publishing.join_all().await;
        producers.sort_by(|a, b| a.stream.cmp(&b.stream));
    }
    let node = data.node(&[]);
    follow(&node, &producers, &mut seen).await;
    for (producer, seen) in producers.iter().zip(&seen) {
        // What got no answer may be there as well.
        assert_eq!(seen[..producer.acknowledged.len()], producer.acknowledged[..]);
    }
}

#[tokio::test]
async fn a_node_killed_under_load_loses_nothing_that_it_acknowledged() {
    killed_again_and_again(10).await;
}

#[tokio::test]
#[ignore = "some seconds of a release build: cargo test --release --test suite -- --ignored killed_200_times"]
async fn a_node_killed_200_times_loses_nothing_that_it_acknowledged() {
    killed_again_and_again(200).await;
}

async fn a_listener_resumes(transport: Transport) {
    let data = Data::new();
    let wanted = || Wanted::new(transport, &["topic:news", "topic:quiet"]);
    let mut cursor = None;
    for round in 0..3 {
        let node = data.node(&[]);
        let mut client = match &cursor {
            None => wanted().connect(&node).await,
            Some(cursor) => {
                node.publish("topic:news", "\"meanwhile\"").await;
                let mut client = wanted().from(cursor).connect(&node).await;
                assert_eq!(client.data(1).await, ["\"meanwhile\""]);
                client
            }
        };
        node.publish("topic:news", &round.to_string()).await;
        assert_eq!(client.data(1).await, [round.to_string()]);
        node.kill();
        while !matches!(client.next().await, Said::Broken) {}
        cursor = Some(client.cursor());
    }
    // Nobody ever published there, and still the place where the listener stood is known.
    let node = data.node(&[]);
    let mut client = wanted().from(&cursor.unwrap()).connect(&node).await;
    node.publish("topic:quiet", "\"at last\"").await;
    assert_eq!(client.data(1).await, ["\"at last\""]);
}

#[tokio::test]
async fn an_sse_listener_resumes_over_kills_without_loss_or_repeat() {
    a_listener_resumes(Transport::Sse).await;
}

#[tokio::test]
async fn a_websocket_resumes_over_kills_without_loss_or_repeat() {
    a_listener_resumes(Transport::WebSocket).await;
}
