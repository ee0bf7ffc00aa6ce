//! The least that Redis can spend on an event: a bare PUBLISH with one subscriber, to measure Whimbrel's
//! whole publish script against.
//!
//! Messages come due at a steady rate, as `whimbrel bench` publishes, and go out over as many multiplexed
//! connections as a node has, so that they are pipelined alike. Prints how many were published. Run it as
//! `cargo run --release --example bare_publish -- REDIS_URL RATE SECONDS BYTES`.
#![expect(clippy::disallowed_methods, reason = "a thread of its own says when messages are due; the rate bounds them")]

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use redis::AsyncCommands as _;
use tokio::sync::mpsc;

/// Connections that a node publishes over.
const CONNECTIONS: usize = 4;

const CHANNEL: &str = "whimbrel:node:00000000000000000000000000000000";

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, rate, seconds, bytes] = &arguments[..] else {
        return Err("arguments: REDIS_URL RATE SECONDS BYTES".into());
    };
    let (rate, seconds): (f64, f64) = (rate.parse()?, seconds.parse()?);
    let message = "x".repeat(bytes.parse()?);
    let client = redis::Client::open(url.as_str())?;
    let mut subscriber = client.get_async_pubsub().await?;
    subscriber.subscribe(CHANNEL).await?;
    tokio::spawn(async move { subscriber.on_message().for_each(async |_| ()).await });
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(client.get_multiplexed_async_connection().await?);
    }

    let (sender, mut due) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let begin = Instant::now();
        for number in 0..(rate * seconds) as usize {
            let wait = Duration::from_secs_f64(number as f64 / rate).saturating_sub(begin.elapsed());
            if !wait.is_zero() {
                std::thread::sleep(wait);
            }
            if sender.send(number).is_err() {
                return;
            }
        }
    });
    let mut publishing = tokio::task::JoinSet::new();
    while let Some(number) = due.recv().await {
        let (mut connection, message) = (connections[number % CONNECTIONS].clone(), message.clone());
        publishing.spawn(async move { connection.publish::<_, _, u64>(CHANNEL, message).await });
        while publishing.try_join_next().is_some() {}
    }
    publishing.join_all().await;
    println!("{}", (rate * seconds) as usize);
    Ok(())
}
