//! A listener for operators: what is there only, and what is everywhere.

use crate::support::client::{Transport, Wanted};
use crate::support::http::{Answer, Http};
use crate::support::node::Node;
use crate::support::{Signal, command, eventually};

async fn at_admin(node: &Node, method: &str, path: &str, body: &str) -> Answer {
    Http::connect(node.admin_address()).await.call(method, path, &[], body.as_bytes()).await
}

#[tokio::test]
async fn the_page_the_figures_and_what_operators_do_are_at_their_listener_only() {
    let node = Node::start(&[("WHIMBREL_ADMIN_LISTEN", "127.0.0.1:0")]);
    node.publish("topic:news", "1").await;
    let mut client = Wanted::new(Transport::Sse, &["device:42"]).connect(&node).await;
    for path in ["/metrics", "/", "/console/app.js", "/console/base.css"] {
        assert_eq!(node.get(path).await.problem(404).0, "not-found", "{path}");
        assert_eq!(at_admin(&node, "GET", path, "").await.status, 200, "{path}");
    }
    for (method, path) in [("DELETE", "/v1/topics/news"), ("DELETE", "/v1/devices/42/connections")] {
        let refused = node.call(method, path, &[], "").await.problem(403);
        assert!(refused.1.contains("WHIMBREL_ADMIN_LISTEN"), "{refused:?}");
    }
    assert_eq!(node.history("topic:news").await, ["1"]);
    node.publish("device:42", "1").await;
    assert_eq!(client.data(1).await, ["1"]);
    assert_eq!(at_admin(&node, "DELETE", "/v1/topics/news", "").await.status, 204);
    assert!(node.history("topic:news").await.is_empty());
    // Descriptions and probes are at both, and so is the rest.
    for path in ["/health/live", "/health/ready", "/openapi.json", "/asyncapi.json", "/v1/nodes"] {
        assert_eq!(node.get(path).await.status, 200, "{path}");
        assert_eq!(at_admin(&node, "GET", path, "").await.status, 200, "{path}");
    }
    assert_eq!(at_admin(&node, "POST", "/v1/devices/42/events", "2").await.status, 201);
    assert_eq!(client.data(1).await, ["2"]);
}

#[tokio::test]
async fn no_other_site_can_embed_the_page_or_run_code_in_it() {
    let node = Node::start(&[]);
    let page = node.get("/").await;
    let policy = page.header("content-security-policy").unwrap();
    for rule in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("x-frame-options", "DENY"),
    ] {
        assert_eq!(page.header(name), Some(value), "{name}");
    }
}

#[tokio::test]
async fn a_listener_for_operators_that_others_reach_has_to_be_asked_for() {
    let outcome = command::run(&["serve", "--listen", "127.0.0.1:0", "--admin-listen", "0.0.0.0:0"], &[], b"").await;
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert!(outcome.stderr.contains("WHIMBREL_ADMIN_LISTEN (--admin-listen)"), "{outcome:?}");
}

#[tokio::test]
async fn operators_see_the_figures_until_the_last_client_is_let_go() {
    let node = Node::start(&[
        ("WHIMBREL_ADMIN_LISTEN", "127.0.0.1:0"),
        ("WHIMBREL_DRAIN_DELAY_SECONDS", "0"),
        ("WHIMBREL_DRAIN_SECONDS", "3600"),
    ]);
    // The second of two is let go half an hour later.
    let _clients = [
        Wanted::new(Transport::Sse, &["topic:news"]).connect(&node).await,
        Wanted::new(Transport::Sse, &["topic:news"]).connect(&node).await,
    ];
    node.signal(Signal::TERM);
    eventually("the listener for everybody is closed", async || {
        tokio::net::TcpStream::connect(node.address()).await.is_err().then_some(())
    })
    .await;
    for _ in 0..3 {
        let figures = at_admin(&node, "GET", "/metrics", "").await;
        assert_eq!(figures.status, 200);
        assert!(figures.text().contains("\nwhimbrel_connections"), "{}", figures.text());
    }
    assert_eq!(at_admin(&node, "GET", "/health/ready", "").await.status, 503);
    node.signal(Signal::TERM);
    node.ended().await;
}
