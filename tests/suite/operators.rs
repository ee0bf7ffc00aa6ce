//! What operators look at beside nodes and streams: producers' leases, and what the ingress stream refused.

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::node::Node;
use crate::support::producers::redis_cli;
use crate::support::redis::RedisServer;

async fn list(node: &Node, path: &str) -> Value {
    let answer = node.get(path).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn leases_are_listed_on(node: &Node) {
    assert_eq!(list(node, "/v1/leases").await, json!({"leases": [], "total": 0}));
    for (topic, seconds) in [("late", 300), ("early", 100), ("middle", 200)] {
        let body = json!({ "seconds": seconds }).to_string();
        assert_eq!(node.call("PUT", &format!("/v1/topics/{topic}/lease"), &[], body).await.status, 201);
    }
    let known = list(node, "/v1/leases?limit=2").await;
    assert_eq!(known["total"], json!(3));
    let named: Vec<_> = known["leases"].as_array().unwrap().iter().map(|lease| lease["stream"].clone()).collect();
    assert_eq!(named, ["topic:early", "topic:middle"]);
    let first = known["leases"][0].as_object().unwrap();
    assert_eq!((&first["seconds"], &first["lapsed"]), (&json!(100), &json!(false)));
    assert!(first["renewed"].as_str() < first["lapses"].as_str(), "{first:?}");
    assert!(!first.contains_key("lease"));
}

#[tokio::test]
async fn leases_are_listed_by_when_they_lapse_without_their_ids() {
    leases_are_listed_on(&Node::start(&[])).await;
    leases_are_listed_on(&Node::on(&RedisServer::start(), &[])).await;
}

#[tokio::test]
async fn who_asks_for_too_much_is_refused() {
    let node = Node::start(&[]);
    for path in ["/v1/leases", "/v1/ingress/rejected"] {
        let (slug, detail) = node.get(&format!("{path}?limit=1001")).await.problem(400);
        assert_eq!(slug, "bad-request");
        assert!(detail.contains("1 to 1000"), "{detail}");
    }
    assert_eq!(list(&node, "/v1/ingress/rejected").await, json!({"rejected": [], "next": null}));
    assert_eq!(list(&node, "/v1/ingress/rejected?before=0-0").await, json!({"rejected": [], "next": null}));
}

#[tokio::test]
async fn rejected_entries_are_listed_newest_first_page_by_page() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[("WHIMBREL_INGRESS", "true")]);
    for number in 0..3 {
        let name = format!("topic{number}");
        redis_cli(&redis, &["XADD", "whimbrel:ingress", "*", &name, "news", "data", "1"]).await;
    }
    let all = async || {
        let known = list(&node, "/v1/ingress/rejected").await;
        (known["rejected"].as_array().unwrap().len() == 3).then_some(known)
    };
    let known = eventually("three rejected entries", all).await;
    assert_eq!(known["next"], json!(null));
    let newest = &known["rejected"][0];
    assert!(newest["reason"].as_str().unwrap().contains("'topic2' is not known"), "{newest}");
    assert_eq!(newest["fields"], json!([{"name": "topic2", "value": "news"}, {"name": "data", "value": "1"}]));
    assert!(newest["entry"].as_str().unwrap().contains('-'), "{newest}");
    let page = list(&node, "/v1/ingress/rejected?limit=2").await;
    assert_eq!(page["rejected"].as_array().unwrap()[..], known["rejected"].as_array().unwrap()[..2]);
    let rest = list(&node, &format!("/v1/ingress/rejected?limit=2&before={}", page["next"].as_str().unwrap())).await;
    assert_eq!(rest["rejected"].as_array().unwrap()[..], known["rejected"].as_array().unwrap()[2..]);
    assert_eq!(rest["next"], json!(null));
}
