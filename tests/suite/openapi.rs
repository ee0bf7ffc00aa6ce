//! The description of the API against the real thing.

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::node::Node as RedisNode;
use super::support::redis::RedisServer;
use super::support::{PATIENCE, in_time, installed};
use super::tour::Node;

/// The methods that a path could take.
const METHODS: [&str; 6] = ["get", "post", "put", "patch", "delete", "options"];

/// The id of no connection.
const NOBODYS: &str = "00000000-0000-4000-8000-000000000000";

/// CloudEvents that any address takes.
const BATCH: &str = "application/cloudevents-batch+json";
const CLOUD_EVENTS: &str =
    r#"[{"specversion":"1.0","id":"1","source":"/a","type":"com.example.a","whimbrelstream":"topic:news"}]"#;

struct Api {
    node: Node,
    client: Client,
    document: Value,
    /// An event of `device:42`, one of `topic:news`, and a revocation.
    ids: [String; 3],
}

impl Api {
    async fn start() -> Self {
        let node = Node::start();
        // An error would only mean that another test was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().timeout(PATIENCE).build().unwrap();
        let document = client.get(format!("{}/openapi.json", node.url)).send().await.unwrap();
        assert_eq!(document.headers()["content-type"], "application/json");
        let document = document.json().await.unwrap();
        let mut api = Api { node, client, document, ids: Default::default() };
        let revoked: Value = api.post("/v1/revocations", r#"{"device":"nobody"}"#).await.json().await.unwrap();
        api.ids[2] = revoked["id"].as_str().unwrap().to_owned();
        for (at, stream) in ["devices/42", "topics/news"].iter().enumerate() {
            let published: Value = api.post(&format!("/v1/{stream}/events"), "1").await.json().await.unwrap();
            api.ids[at] = published["id"].as_str().unwrap().to_owned();
        }
        api
    }

    /// Every documented path.
    fn paths(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.document["paths"].as_object().unwrap().iter().map(|(path, item)| (path.as_str(), item))
    }

    /// The path with values for its parameters.
    fn filled(&self, path: &str) -> String {
        let [device, topic, revocation] = &self.ids;
        let id = if path.contains("{device}") { device } else { topic };
        let id = if path.starts_with("/v1/revocations") { revocation } else { id };
        let filled = path.replace("{device}", "42").replace("{topic}", "news").replace("{id}", id);
        filled.replace("{connection}", NOBODYS).replace("{file}", "app.js")
    }

    fn request(&self, method: &str, path: &str) -> RequestBuilder {
        self.client.request(method.to_uppercase().parse::<Method>().unwrap(), format!("{}{path}", self.node.url))
    }

    async fn post(&self, path: &str, body: &str) -> Response {
        in_time(path, self.request("post", path).body(body.to_owned()).send()).await.unwrap()
    }

    /// Takes a lease, or asks once more for the one that was taken.
    fn lease(&self, path: &str) -> RequestBuilder {
        self.request("put", &self.filled(path)).header("idempotency-key", "once").body(r#"{"seconds":60}"#)
    }

    /// A request that should succeed.
    async fn sound(&self, method: &str, path: &str) -> Response {
        let request = match (method, path) {
            ("get", "/v1/sse") => self.request(method, "/v1/sse?topic=news"),
            ("get", "/v1/ws") => self
                .request(method, path)
                .header("Connection", "Upgrade")
                .header("Upgrade", "websocket")
                .header("Sec-WebSocket-Version", "13")
                .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("post", "/v1/sse") => self.request(method, path).body(r#"{"streams":["topic:news"]}"#),
            ("get", "/v1/cursor") => self.request(method, "/v1/cursor?topic=news"),
            ("post", "/v1/revocations") => self.request(method, path).body(r#"{"device":"nobody"}"#),
            ("post", "/v1/events") => self.request(method, path).body(r#"[{"topic":"news","data":1}]"#),
            ("post", "/v1/devices/{device}/ack") => {
                self.request(method, &self.filled(path)).body(format!(r#"{{"id":"{}"}}"#, self.ids[0]))
            }
            ("put", path) if path.ends_with("/lease") => self.lease(path),
            ("delete", path) if path.ends_with("/lease") => {
                let taken: Value = in_time(path, self.lease(path).send()).await.unwrap().json().await.unwrap();
                let lease = taken["lease"].as_str().unwrap();
                self.request(method, &format!("{}?lease={lease}", self.filled(path)))
            }
            ("put", _) => self.request(method, &self.filled(path)).body(r#"{"region":"local"}"#),
            ("post", path) if path.ends_with("/log") => {
                let part = in_time(path, self.request("get", &self.filled(path)).send()).await.unwrap().text().await;
                self.request(method, &self.filled(path)).body(part.unwrap())
            }
            ("post", path) if path.ends_with("/cloudevents") => {
                self.request(method, &self.filled(path)).header("content-type", BATCH).body(CLOUD_EVENTS)
            }
            ("post", _) => self.request(method, &self.filled(path)).body("1"),
            // The others still need theirs.
            ("delete", "/v1/devices/{device}" | "/v1/topics/{topic}") => {
                self.request(method, &path.replace("{device}", "gone").replace("{topic}", "gone"))
            }
            _ => self.request(method, &self.filled(path)),
        };
        in_time(path, request.send()).await.unwrap()
    }

    /// The document's entry of this answer; panics if it has none.
    fn described(&self, operation: &Value, answer: &Response) -> Value {
        let status = answer.status().as_str().to_owned();
        let described = self.followed(&operation["responses"][&status]);
        assert!(described.is_object(), "{} answers {status}, which is not described", answer.url());
        for name in described["headers"].as_object().into_iter().flat_map(|headers| headers.keys()) {
            assert!(answer.headers().contains_key(name), "{} answers without {name}", answer.url());
        }
        if let Some(contents) = described["content"].as_object() {
            let kind = answer.headers()["content-type"].to_str().unwrap();
            let kind = kind.split(';').next().unwrap();
            assert!(contents.contains_key(kind), "{} answers with {kind}", answer.url());
        }
        described
    }

    fn followed(&self, value: &Value) -> Value {
        match value["$ref"].as_str() {
            Some(reference) => self.document.pointer(reference.trim_start_matches('#')).unwrap().clone(),
            None => value.clone(),
        }
    }
}

#[tokio::test]
async fn every_documented_operation_is_answered_as_described() {
    let api = Api::start().await;
    for (path, item) in api.paths() {
        for method in METHODS.iter().filter(|method| item[**method].is_object()) {
            let answer = api.sound(method, path).await;
            // Where access is open no connection needs renewal.
            let is_sound = answer.status().as_u16() < 300 || (path.ends_with("/renew") && answer.status() == 404);
            assert!(is_sound, "{method} {path}: {}", answer.status());
            api.described(&item[*method], &answer);
        }
    }
}

#[tokio::test]
async fn an_unknown_parameter_is_refused_wherever_that_is_described() {
    let api = Api::start().await;
    for (path, item) in api.paths() {
        // That of a WebSocket comes after the handshake is judged, and history has its own.
        if !item["get"].is_object() || path == "/v1/ws" {
            continue;
        }
        let answer = in_time(path, api.request("get", &format!("{}?nobody=1", api.filled(path))).send()).await.unwrap();
        let refused = item["get"]["responses"]["400"].is_object();
        assert_eq!(answer.status(), if refused { 400 } else { 200 }, "{path}");
    }
}

#[tokio::test]
async fn every_other_method_and_path_is_refused() {
    let api = Api::start().await;
    for (path, item) in api.paths() {
        for method in METHODS.iter().filter(|method| !item[**method].is_object()) {
            let answer = api.sound(method, path).await;
            assert_eq!(answer.status(), 405, "{method} {path}");
            let allowed = answer.headers()["allow"].to_str().unwrap().to_lowercase();
            let mut allowed: Vec<&str> = allowed.split(", ").filter(|method| *method != "head").collect();
            let mut described: Vec<&str> = METHODS.iter().copied().filter(|method| item[*method].is_object()).collect();
            allowed.sort_unstable();
            described.sort_unstable();
            assert_eq!(allowed, described, "{path}");
        }
    }
    for path in ["/v1", "/v1/streams", "/v1/topics", "/openapi", "//", "/health", "/page.html"] {
        let answer = in_time(path, api.request("get", path).send()).await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
    }
}

#[tokio::test]
async fn what_is_refused_is_refused_with_a_described_problem() {
    let api = Api::start().await;
    let publish = "/v1/devices/{device}/events";
    let large = "1".repeat(70_000);
    let unheld = json!({"seconds": 5, "lease": "0".repeat(32)}).to_string();
    let cases = [
        ("post", publish, "?ttl=0", "", "1", "bad-request"),
        ("post", publish, "?collapse=a%20b", "", "1", "invalid-collapse"),
        ("post", publish, "?ephemeral=1&ttl=5", "", "1", "invalid-ephemeral"),
        ("post", publish, "?type=a%20b", "", "1", "bad-request"),
        ("post", publish, "", "", "{", "invalid-json"),
        ("post", publish, "", "", &large, "too-large"),
        ("post", publish, "", "content-type: multipart/form-data", "1", "unsupported-media-type"),
        ("post", publish, "", "idempotency-key: \"\"", "1", "invalid-key"),
        ("post", publish, "", "origin: https://example.org", "1", "forbidden"),
        ("post", "/v1/topics/whimbrel:lifecycle/events", "", "", "1", "reserved"),
        ("get", publish, "?limit=0", "", "", "bad-request"),
        ("get", publish, "?after=yesterday", "accept: text/event-stream", "", "bad-request"),
        ("post", "/v1/devices/{device}/ack", "", "", "{}", "bad-request"),
        ("post", "/v1/devices/{device}/ack", "", "", r#"{"id":"99999999999999-1"}"#, "not-published"),
        ("put", "/v1/topics/{topic}/region", "", "", r#"{"region":"elsewhere"}"#, "unknown-region"),
        ("delete", "/v1/topics/{topic}", "?all=1", "", "", "bad-request"),
        ("put", "/v1/topics/{topic}/lease", "", "", r#"{"seconds":0}"#, "bad-request"),
        ("put", "/v1/topics/{topic}/lease", "", "idempotency-key: \"\"", r#"{"seconds":5}"#, "invalid-key"),
        ("put", "/v1/topics/{topic}/lease", "", "", &unheld, "lease-lost"),
        ("delete", "/v1/topics/{topic}/lease", "", "", "", "bad-request"),
        ("get", "/v1/devices/{device}/events/{id}", "?wait=61", "", "", "bad-request"),
        ("get", "/v1/sse", "", "", "", "bad-request"),
        ("get", "/v1/sse", "?device=a%20b", "", "", "invalid-name"),
        ("post", "/v1/sse", "", "", r#"{"streams":["topic:a b"]}"#, "invalid-name"),
        ("post", "/v1/sse", "", "content-type: multipart/form-data", "{}", "unsupported-media-type"),
        ("post", "/v1/sse", "", "", &large, "too-large"),
        ("get", "/v1/cursor", "", "", "", "bad-request"),
        ("post", publish, "?exclude=me", "", "1", "bad-request"),
        ("get", "/v1/regions", "?all=1", "", "", "bad-request"),
        ("get", "/v1/ws", "", "", "", "bad-request"),
        ("post", "/v1/events", "", "", "{}", "bad-request"),
        ("post", "/v1/events", "", "content-type: text/plain", "[]", "unsupported-media-type"),
        ("get", "/health/live", "", "host: example.org", "", "forbidden"),
    ];
    for (method, path, query, header, body, slug) in cases {
        let mut request = api.request(method, &format!("{}{query}", api.filled(path))).body(body.to_owned());
        if let Some((name, value)) = header.split_once(": ") {
            request = request.header(name, value);
        }
        let answer = in_time(path, request.send()).await.unwrap();
        let template = path.replace("whimbrel:lifecycle", "{topic}");
        let described = api.described(&api.document["paths"][template.as_str()][method], &answer);
        let problem: Value = answer.json().await.unwrap();
        let kind = format!("urn:whimbrel:problem:{slug}");
        assert_eq!(problem["type"], kind.as_str(), "{method} {path}{query} {header}");
        let known = &described["content"]["application/problem+json"]["schema"]["allOf"][1]["properties"]["type"];
        assert!(known["enum"].as_array().unwrap().contains(&json!(kind)), "{kind} is not described for {path}");
    }
}

/// On the Redis that can do all that is described but replicas.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemathesis_finds_no_difference_between_the_description_and_the_node() {
    let redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let node = RedisNode::on(&redis, &[]);
    let folder = TempDir::new().unwrap();
    // A seed of its own in every run finds more; the report shows it.
    let output = tokio::process::Command::new(installed("python/bin/schemathesis"))
        .args(["--config-file", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/schemathesis.toml")])
        .arg("run")
        .arg(format!("http://{}/openapi.json", node.address()))
        .args(["--max-examples", "20", "--no-color"])
        // It keeps what it found in the folder it runs in.
        .current_dir(folder.path())
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reference_page_is_what_the_description_says() {
    crate::support::producers::python("scripts/api-reference", &["--check"]).end().await;
}
