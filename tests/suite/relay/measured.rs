//! What the relay drains, and how long a row takes, measured:
//! `cargo test --release --test suite -- --ignored --nocapture relay::measured`.

use std::time::Instant;

use super::{database, insert, listener, relay, rows, start_relay};
use crate::support::node::Node;

const STREAMS: i32 = 100;
const EACH: i32 = 500;
const SINGLE: i32 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: cargo test --release --test suite -- --ignored --nocapture relay::measured"]
async fn rows_a_second_and_the_time_of_one() {
    let (postgres, database) = database().await;
    let node = Node::start(&[]);
    for stream in 0..STREAMS {
        insert(&database, &format!("topic:{stream}"), 0..EACH).await;
    }
    let begun = Instant::now();
    let draining = start_relay(&postgres, &node.url(), &[]);
    rows(&database, 0).await;
    let (count, took) = (STREAMS * EACH, begun.elapsed());
    println!("{count} rows in {took:?}, the start included: {:.0} a second", f64::from(count) / took.as_secs_f64());
    drop(draining);

    let _relay = relay(&postgres, &node.url(), &[]).await;
    let mut client = listener(&node, &["topic:single"]).await;
    let mut times = Vec::new();
    for number in 0..SINGLE {
        let begun = Instant::now();
        insert(&database, "topic:single", number..number + 1).await;
        assert_eq!(client.event().await.data, number.to_string());
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let at = |share: usize| times[times.len() * share / 100];
    println!("from INSERT to a client: p50 {:?}, p99 {:?}", at(50), at(99));
}
