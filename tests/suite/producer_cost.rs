//! What one producer of small tokens gets by each way in, measured in one run:
//! `cargo test --release --test suite -- --ignored --nocapture producer_cost`.

use std::time::Instant;

use redis::aio::MultiplexedConnection;

use crate::support::client::{Transport, Wanted};
use crate::support::http::Http;
use crate::support::node::Node;
use crate::support::redis::RedisServer;

/// Tokens that are sent one after another, each when the one before was answered.
const ONE_BY_ONE: usize = 10_000;
/// Tokens that are sent so many at a time.
const TOGETHER: usize = 100_000;
const BATCH: usize = 100;
const TOKEN: &str = "\" token\"";
/// All is kept, so that a listener that is behind loses nothing.
const KEEP_ALL: &[(&str, &str)] = &[("WHIMBREL_RETENTION", "*=200000/3600")];

#[derive(Debug, Clone, Copy)]
enum Way {
    Post,
    Xadd,
    Fcall,
}

/// A producer on connections of its own.
struct Producer {
    http: Http,
    redis: MultiplexedConnection,
    topic: String,
}

impl Producer {
    async fn send(&mut self, way: Way, tokens: usize) {
        match way {
            Way::Post if tokens == 1 => {
                let path = format!("/v1/topics/{}/events?type=token", self.topic);
                assert_eq!(self.http.call("POST", &path, &[], TOKEN.as_bytes()).await.status, 201);
            }
            Way::Post => {
                let line = format!("{{\"topic\":\"{}\",\"type\":\"token\",\"data\":{TOKEN}}}\n", self.topic);
                let body = line.repeat(tokens);
                let headers = [("Content-Type", "application/x-ndjson")];
                let answer = self.http.call("POST", "/v1/events", &headers, body.as_bytes()).await;
                assert_eq!((answer.status, answer.text().matches("\"id\"").count()), (200, tokens));
            }
            Way::Xadd | Way::Fcall => {
                let mut pipe = redis::pipe();
                for _ in 0..tokens {
                    match way {
                        Way::Xadd => pipe.cmd("XADD").arg("whimbrel:ingress").arg("*").arg("topic").arg(&self.topic),
                        _ => {
                            let keys = ["events", "nodes", "meta", "collapse", "once:-"];
                            let base = format!("whimbrel:{{topic:{}}}", self.topic);
                            pipe.cmd("FCALL")
                                .arg("whimbrel_publish")
                                .arg(5)
                                .arg(&keys.map(|key| format!("{base}:{key}")))
                        }
                    };
                    match way {
                        Way::Xadd => pipe.arg("data").arg(TOKEN).arg("type").arg("token"),
                        _ => pipe.arg(TOKEN).arg("type").arg("token"),
                    };
                }
                pipe.exec_async(&mut self.redis).await.unwrap();
            }
        }
    }
}

/// Tokens a second, by what the producer was answered and by what a listener got.
async fn measure(redis: &RedisServer, node: &Node, way: Way, batch: usize) -> (f64, f64) {
    let topic = format!("{way:?}-{batch}");
    let total = if batch == 1 { ONE_BY_ONE } else { TOGETHER };
    let mut listener = Wanted::new(Transport::Sse, &[&format!("topic:{topic}")]).connect(node).await;
    let mut producer = Producer { http: Http::connect(node.address()).await, redis: redis.raw().await, topic };
    let begun = Instant::now();
    let listening = tokio::spawn(async move {
        for _ in 0..total {
            assert_eq!(listener.event().await.data, TOKEN);
        }
        begun.elapsed().as_secs_f64()
    });
    for _ in 0..total / batch {
        producer.send(way, batch).await;
    }
    let answered = begun.elapsed().as_secs_f64();
    let received = listening.await.unwrap();
    (total as f64 / answered, total as f64 / received)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for docs/redis-producers.md"]
async fn tokens_a_second_of_one_producer_by_each_way_in() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, KEEP_ALL);
    crate::support::eventually("the functions", async || {
        node.log().contains("loaded the function library").then_some(())
    })
    .await;
    println!(
        "| way in | answered, tokens a second | delivered, tokens a second | times single POSTs |\n|---|---|---|---|"
    );
    let mut first = None;
    for (way, batch, name) in [
        (Way::Post, 1, "POST …/events, one after another on one connection"),
        (Way::Post, BATCH, "POST /v1/events, 100 in each"),
        (Way::Xadd, 1, "XADD, one after another"),
        (Way::Xadd, BATCH, "XADD, 100 in a pipeline"),
        (Way::Fcall, 1, "FCALL, one after another"),
        (Way::Fcall, BATCH, "FCALL, 100 in a pipeline"),
    ] {
        let (answered, received) = measure(&redis, &node, way, batch).await;
        let single = *first.get_or_insert(received);
        println!("| {name} | {answered:.0} | {received:.0} | {:.1} |", received / single);
    }
}
