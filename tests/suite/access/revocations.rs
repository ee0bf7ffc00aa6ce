//! Revocations beyond one store: in other regions, and after a failover.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;
use crate::regions::Regions;
use crate::support::client::{Client, Said, Transport, Wanted};
use crate::support::eventually;
use crate::support::proxy::Cut;
use crate::support::sentinel::Group;
use crate::support::token::{now, token};

fn of_device_42() -> String {
    token(json!({"sub": "42", "iat": now() - 10}))
}

async fn revoke(node: &Node, body: Value) -> String {
    let answer = ask_as(node, Some(ADMIN), "POST", "/v1/revocations", &body.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["id"].as_str().unwrap().to_owned()
}

async fn is_refused(node: &Node, token: &str) -> bool {
    match ask_as(node, Some(token), "GET", "/v1/whoami", "").await.status {
        401 => true,
        status => {
            assert_eq!(status, 200);
            false
        }
    }
}

async fn ends_as_revoked(client: &mut Client) {
    let said = client.next().await;
    assert!(matches!(&said, Said::Close { reason, .. } if reason == "revoked"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_holds_in_every_region_also_in_one_that_was_cut_off() {
    let (regions, keys) = (Regions::start(), keys_file());
    let settings = closed(&keys);
    let [eu, us] = regions.nodes(&borrowed(&settings));
    let token = of_device_42();
    let mut clients = Vec::new();
    for transport in [Transport::Sse, Transport::WebSocket] {
        clients.push(Wanted::new(transport, &["device:42"]).bearer(&token).connect(&us).await);
    }
    let (id, begun) = (revoke(&eu, json!({"device": "42"})).await, Instant::now());
    for client in &mut clients {
        ends_as_revoked(client).await;
    }
    // 2 s are promised; the rest is for a busy machine.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(is_refused(&us, &token).await && is_refused(&eu, &token).await);
    assert!(is_refused(&regions.node("us", &borrowed(&settings)), &token).await, "a node that starts later");
    // Taken back in the other region, it is over in both.
    assert_eq!(ask_as(&us, Some(ADMIN), "DELETE", &format!("/v1/revocations/{id}"), "").await.status, 204);
    eventually("the lifting in the other region", async || (!is_refused(&eu, &token).await).then_some(())).await;

    regions.links[1].refuse(true);
    regions.links[1].cut(Cut::Reset);
    let other = crate::support::token::token(json!({"sub": "7", "jti": "t-7", "iat": now() - 10}));
    revoke(&eu, json!({"token": "t-7"})).await;
    regions.links[1].heal();
    eventually("the region that was cut off to have it", async || is_refused(&us, &other).await.then_some(())).await;
    assert!(is_refused(&regions.node("us", &borrowed(&settings)), &other).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_holds_after_a_failover_that_lost_it() {
    let (mut group, keys) = (Group::start(&[]).await, keys_file());
    let url = group.url();
    let settings = [closed(&keys), vec![("WHIMBREL_REDIS_URL", url)]].concat();
    let start = || tokio::task::block_in_place(|| Node::start(&borrowed(&settings)));
    let (node, token) = (start(), of_device_42());
    let before = revoke(&node, json!({"token": "someone"})).await;
    group.all_replicate().await;
    // The replicas hear nothing more of this master.
    for server in &group.servers[1..] {
        let mut raw = server.raw().await;
        redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).exec_async(&mut raw).await.unwrap();
    }
    let lost = revoke(&node, json!({"device": "42"})).await;
    group.servers[0].kill();
    for server in &group.servers[1..] {
        let kept: Vec<String> = server.try_ask(&["HVALS", "whimbrel:revocations"]).await.unwrap();
        assert!(!kept.iter().any(|entry| entry.contains(&lost)), "{kept:?}");
    }
    group.master_after(0).await;
    assert!(is_refused(&node, &token).await, "the node has seen it, whatever the store has");
    eventually("a node that starts after the failover", async || is_refused(&start(), &token).await.then_some(()))
        .await;
    let listed = ask_as(&node, Some(ADMIN), "GET", "/v1/revocations", "").await.json();
    assert!(listed["revocations"].as_array().unwrap().iter().any(|entry| entry["id"] == before.as_str()), "{listed}");
}
