//! The dashboard's queries, asked of a real Prometheus that scrapes real nodes.

use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::read;
use crate::support::client::{Transport, Wanted};
use crate::support::http::Http;
use crate::support::node::Node;
use crate::support::producers::redis_cli;
use crate::support::receiver::{Manner, Receiver, SECRET};
use crate::support::redis::RedisServer;
use crate::support::{PATIENCE, eventually, free_port};

/// A Prometheus that scrapes nodes every second, with the alerts of `deploy/`; killed when dropped.
struct Prometheus {
    port: u16,
    _process: Child,
    _dir: TempDir,
}

impl Prometheus {
    fn scraping(nodes: &[Node]) -> Self {
        let (dir, port) = (TempDir::new().unwrap(), free_port());
        let targets: Vec<String> = nodes.iter().map(|node| node.address().to_string()).collect();
        let alerts = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/alerts.yml");
        // JSON is YAML.
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [alerts],
            "scrape_configs": [{"job_name": "whimbrel", "static_configs": [{"targets": targets}]}],
        });
        let file = dir.path().join("prometheus.yml");
        std::fs::write(&file, config.to_string()).unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let process = process.unwrap_or_else(|error| panic!("scripts/check-deploy installs prometheus: {error}"));
        Prometheus { port, _process: process, _dir: dir }
    }

    /// The series that a query finds, or the error.
    async fn ask(&self, query: &str) -> Result<Vec<Value>, String> {
        let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let mut http = Http::connect(([127, 0, 0, 1], self.port).into()).await;
        let headers = [("Connection", "close")];
        let answer = http.call("GET", &format!("/api/v1/query?query={query}"), &headers, b"").await.json();
        match answer["data"]["result"].as_array() {
            Some(series) => Ok(series.clone()),
            None => Err(answer.to_string()),
        }
    }
}

/// A panel's title, and a query as Grafana would send it.
fn queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/whimbrel.json")).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let query = query.replace("$job", ".+").replace("$instance", ".+").replace("$__rate_interval", "10s");
            queries.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    let starts = &dashboard["annotations"]["list"][0];
    assert!(starts["expr"].as_str().unwrap().contains("process_start_time_seconds"));
    queries
}

/// Does something of everything that figures count.
async fn use_everything(redis: &RedisServer, nodes: &[Node]) {
    let [one, other] = nodes else { panic!("two nodes") };
    let mut sse = Wanted::new(Transport::Sse, &["topic:news"]).connect(one).await;
    let mut websocket = Wanted::new(Transport::WebSocket, &["device:42"]).connect(other).await;
    drop(Wanted::new(Transport::Sse, &["topic:news"]).connect(one).await);
    one.publish("topic:news", "1").await;
    one.publish("device:42", "2").await;
    sse.data(1).await;
    websocket.data(1).await;
    redis_cli(redis, &["XADD", "whimbrel:ingress", "*", "topic", "news", "data", "3"]).await;
    one.call("POST", "/v1/topics/news/events", &[], "no JSON").await.problem(400);
    one.call("GET", "/v1/nodes", &[("Origin", "https://elsewhere.example")], "").await.problem(403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Prometheus: scripts/check-deploy installs it and runs this"]
async fn every_panel_shows_something_of_real_nodes_and_no_alert_is_raised() {
    let (redis, receiver) = (RedisServer::start(), Receiver::start(Manner::Take).await);
    let settings = [
        ("WHIMBREL_LINK_LISTEN", "127.0.0.1:0"),
        ("WHIMBREL_LINK_SECRET", "a-secret-that-all-nodes-have"),
        ("WHIMBREL_WEBHOOK_URL", &receiver.url()),
        ("WHIMBREL_WEBHOOK_SECRET", SECRET),
    ];
    let nodes = [Node::on(&redis, &settings), Node::on(&redis, &settings)];
    let prometheus = Prometheus::scraping(&nodes);
    let deadline = std::time::Instant::now() + 2 * PATIENCE;
    let reached = async || (tokio::net::TcpStream::connect(("127.0.0.1", prometheus.port)).await).ok();
    eventually("Prometheus answers", reached).await;
    loop {
        use_everything(&redis, &nodes).await;
        let mut empty = Vec::new();
        for (panel, query) in queries() {
            match prometheus.ask(&query).await {
                Ok(series) if !series.is_empty() => {}
                Ok(_) => empty.push(format!("{panel}: {query}")),
                Err(error) => panic!("{panel}: {query}: {error}"),
            }
        }
        if empty.is_empty() {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "empty: {empty:#?}");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    let raised = prometheus.ask("ALERTS{alertstate=\"firing\"}").await.unwrap();
    assert!(raised.is_empty(), "{raised:?}");
}
