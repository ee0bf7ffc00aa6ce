//! What is in `deploy/` agrees with the program.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::client::{Transport, Wanted};
use crate::support::node::Node;
use crate::support::producers::python;

mod dashboard;
mod proxies;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The names of figures that stand in a text.
fn figures(text: &str) -> BTreeSet<&str> {
    let names = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    names.filter(|name| name.starts_with("whimbrel_") || name.starts_with("process_")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_for_deployment_are_well_formed_and_agree_with_each_other() {
    python("tests/tools/deploy.py", &[]).end().await;
}

#[tokio::test]
async fn a_node_has_every_figure_that_alerts_and_the_dashboard_ask_for() {
    let node = Node::start(&[]);
    // Labels that only come with what they count.
    let mut client = Wanted::new(Transport::Sse, &["topic:news"]).connect(&node).await;
    node.publish("topic:news", "1").await;
    client.data(1).await;
    drop(client);
    node.metric_is("connections_closed_total{reason=\"client\"}", 1.0).await;
    node.call("GET", "/v1/nodes", &[("Origin", "https://elsewhere.example")], "").await.problem(403);
    let answer = node.get("/metrics").await;
    let there = figures(answer.text());
    for file in [
        "deploy/prometheus/alerts.yml",
        "deploy/grafana/whimbrel.json",
        "deploy/helm/whimbrel/templates/autoscaling.yaml",
        "docs/kubernetes.md",
        "docs/troubleshooting.md",
    ] {
        let text = read(file);
        let missing: Vec<_> = figures(&text).difference(&there).copied().collect();
        assert!(missing.is_empty(), "{file} names figures that no node has: {missing:?}");
    }
}
