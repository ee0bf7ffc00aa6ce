//! `whimbrel bench`, as people use it: small loads against real nodes.

use std::net::TcpListener;

use serde_json::Value;

use crate::support::Signal;
use crate::support::command::{Outcome, run, start};
use crate::support::node::Node;
use crate::support::redis::RedisServer;

async fn bench(node: &Node, arguments: &str) -> Outcome {
    let url = node.url();
    let arguments: Vec<&str> = ["bench", "--url", &url].into_iter().chain(arguments.split_whitespace()).collect();
    run(&arguments, &[], b"").await
}

#[track_caller]
fn report(outcome: &Outcome) -> Value {
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    serde_json::from_str(&outcome.stdout).unwrap()
}

#[track_caller]
fn number(report: &Value, path: &str) -> f64 {
    report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path} in {report}"))
}

#[tokio::test]
async fn a_bench_counts_every_delivery_of_every_pattern_and_transport() {
    let redis = RedisServer::start();
    let (embedded, shared) = (Node::start(&[]), Node::on(&redis, &[]));
    for (node, transport) in [(&embedded, "sse"), (&shared, "websocket")] {
        for (pattern, deliveries) in [("topic", 20.0 * 30.0), ("devices", 20.0)] {
            let arguments = format!(
                "--json --connections 30 --transport {transport} --pattern {pattern} --rate 20 --seconds 1 --pid {}",
                node.pid()
            );
            let report = report(&bench(node, &arguments).await);
            assert_eq!(number(&report, "/publishing/published"), 20.0, "{report}");
            assert_eq!(number(&report, "/publishing/expected"), deliveries, "{report}");
            assert_eq!(number(&report, "/publishing/received"), deliveries, "{report}");
            assert!(number(&report, "/publishing/latency/p99") > 0.0, "{report}");
            assert!(number(&report, "/publishing/server/cpu_us_per_publish").is_finite(), "{report}");
            assert!(number(&report, "/server/mib_connected") > 1.0, "{report}");
        }
    }
}

#[tokio::test]
async fn a_bench_publishes_batches_as_fast_as_they_are_answered() {
    let node = Node::start(&[]);
    let report = report(&bench(&node, "--json --connections 0 --rate max --batch 100 --seconds 1").await);
    assert!(number(&report, "/publishing/published") >= 100.0, "{report}");
    assert_eq!(number(&report, "/publishing/publish_errors"), 0.0, "{report}");
}

#[tokio::test]
async fn a_bench_spreads_over_nodes_and_processes_and_reports_storm_idle_and_churn() {
    let redis = RedisServer::start();
    let (first, second) = (Node::on(&redis, &[]), Node::on(&redis, &[]));
    for (transport, pattern, expected) in [("sse", "topic", 2.0 * 41.0), ("websocket", "devices", 2.0)] {
        let arguments = format!(
            "--json --connections 41 --processes 2 --url {} --transport {transport} --pattern {pattern} --rate 2 \
             --seconds 1 --idle 1 --storm 7 --churn 2 --churn-rate 20 --pid {},{}",
            second.url(),
            first.pid(),
            second.pid()
        );
        let report = report(&bench(&first, &arguments).await);
        assert_eq!(number(&report, "/publishing/received"), expected, "{report}");
        assert_eq!(number(&report, "/storm/events_behind"), 7.0, "{report}");
        assert!(number(&report, "/storm/seconds") > 0.0, "{report}");
        assert!(number(&report, "/storm/caught_up/max") > 0.0, "{report}");
        assert!(number(&report, "/idle/server_cpu_percent").is_finite(), "{report}");
        assert_eq!(number(&report, "/churn/failed"), 0.0, "{report}");
        assert_eq!(number(&report, "/connections_lost"), 0.0, "{report}");
    }
    for node in [&first, &second] {
        assert!(node.metric("deliveries_total").await > 0.0, "a node had no listeners");
    }
}

#[tokio::test]
async fn a_server_that_stalls_shows_in_the_latency() {
    let node = Node::start(&[]);
    let url = node.url();
    let arguments = ["bench", "--json", "--url", &url, "--connections", "5", "--rate", "100", "--seconds", "3"];
    let bench = start(&arguments, &[]);
    crate::support::eventually("the first deliveries", async || {
        (node.metric("deliveries_total").await >= 100.0).then_some(())
    })
    .await;
    node.signal(Signal::STOP);
    // Not a wait for something: this is the stall.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    node.signal(Signal::CONT);
    let report = report(&bench.end().await);
    assert_eq!(number(&report, "/publishing/received"), 1500.0, "{report}");
    // A hundred events of three hundred were due during the stall, not only those under way when it began.
    assert!(number(&report, "/publishing/latency/max") >= 900.0, "{report}");
    assert!(number(&report, "/publishing/latency/p90") >= 400.0, "{report}");
}

#[tokio::test]
async fn a_bench_that_can_not_work_reports_why_in_one_line() {
    let node = Node::start(&[]);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (arguments, code, named) in [
        ("--connections 10000000", 2, "--processes"),
        ("--url ftp://127.0.0.1", 2, "--url"),
        ("--dialect socket-io", 2, "--transport websocket"),
        ("--dialect nchan --batch 2", 2, "--batch"),
        ("--dialect nchan --transport websocket --storm", 2, "--storm"),
        ("--connections 0 --rate find", 2, "--connections"),
        ("--pid 4294967295", 1, "4294967295"),
        ("--dialect nchan --connections 2", 1, "404"),
    ] {
        let outcome = bench(&node, arguments).await;
        assert_eq!(outcome.code, Some(code), "{arguments}: {outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{arguments}: {outcome:?}");
        assert!(outcome.stderr.contains(named), "{arguments}: {outcome:?}");
    }
    let outcome = run(&["bench", "--url", &format!("http://{nobody}"), "--connections", "2"], &[], b"").await;
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("listener"), "{outcome:?}");
    let outcome = run(&["bench", "--rate", "none"], &[], b"").await;
    assert!(outcome.code == Some(2) && outcome.stderr.contains("'max' or 'find'"), "{outcome:?}");
}

#[tokio::test]
async fn no_process_of_a_bench_outlives_it() {
    let node = Node::start(&[]);
    let url = node.url();
    let bench = start(&["bench", "--url", &url, "--connections", "20", "--processes", "3", "--seconds", "600"], &[]);
    node.metric_is("connections{transport=\"sse\"}", 20.0).await;
    bench.signal(Signal::KILL);
    bench.end().await;
    node.metric_is("connections{transport=\"sse\"}", 0.0).await;
}
