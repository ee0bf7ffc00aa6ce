//! A real log goes through the service, over a node that dies half way, and comes out as it went in.

use std::fmt::Write as _;

use crate::support::command::start;
use crate::support::node::Node;
use crate::support::redis::RedisServer;

/// Lines that are enough to be half way through for a while.
const LINES: usize = 5_000;

/// A log of this machine, as far as its last whole line; where there is none of some length, one that is
/// made up.
fn log() -> String {
    let real = ["/var/log/dpkg.log", "/var/log/syslog", "/var/log/messages"].iter().find_map(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        let text: String = text.split_inclusive('\n').take(2 * LINES).filter(|line| line.ends_with('\n')).collect();
        (text.lines().count() >= LINES).then_some(text)
    });
    real.unwrap_or_else(|| {
        (0..LINES).fold(String::new(), |mut text, n| {
            let _ = writeln!(text, "2026-01-01 00:00:00 status installed \"package {n}\"\t\\ é {}", "=".repeat(n % 80));
            text
        })
    })
}

#[tokio::test]
async fn a_log_comes_out_byte_for_byte_although_a_node_is_killed_half_way() {
    let redis = RedisServer::start();
    let settings = [("WHIMBREL_RETENTION", "*=100000/3600")];
    let (publishing, doomed) = (Node::on(&redis, &settings), Node::on(&redis, &settings));
    let text = log();
    let lines = text.lines().count();
    let (limit, urls) = (lines.to_string(), [doomed.url(), publishing.url()]);
    let subscribe = start(&["subscribe", "topic:log", "--url", &urls[0], "--url", &urls[1], "--limit", &limit], &[]);
    doomed.metric_is("connections{transport=\"sse\"}", 1.0).await;

    let mut publish = start(&["publish", "topic:log", "--url", &urls[1]], &[]);
    let half = text.as_bytes().iter().take(text.len() / 2).rposition(|byte| *byte == b'\n').unwrap() + 1;
    publish.write(&text.as_bytes()[..half]).await;
    // Some of it is out, and the rest of this half may be anywhere.
    subscribe.printed(half / 2).await;
    doomed.kill();
    publish.write(&text.as_bytes()[half..]).await;
    let published = publish.end().await;
    assert_eq!(published.code, Some(0), "{published:?}");
    assert!(published.stderr.contains(&format!("published {lines} events")), "{published:?}");

    let subscribed = subscribe.end().await;
    assert_eq!(subscribed.code, Some(0), "{}", subscribed.stderr);
    assert!(subscribed.stdout == text, "{} bytes of {}", subscribed.stdout.len(), text.len());
    assert!(!subscribed.stderr.contains("gap"), "{}", subscribed.stderr);
    assert!(subscribed.stderr.contains("trying again"), "the kill was felt: {}", subscribed.stderr);
}
