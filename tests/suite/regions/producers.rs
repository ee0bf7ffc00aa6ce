//! Producers that write into a region's Redis.

use redis::RedisError;

use crate::regions::{Regions, knows};
use crate::support::client::{Transport, Wanted};
use crate::support::eventually;
use crate::support::redis::RedisServer;

async fn call_function(server: &RedisServer, stream: &str) -> Result<String, RedisError> {
    let keys = ["events", "nodes", "meta", "collapse", "once:-"].map(|key| format!("whimbrel:{{{stream}}}:{key}"));
    let mut call = redis::cmd("FCALL");
    call.arg("whimbrel_publish").arg(5).arg(&keys).arg("1");
    call.query_async(&mut server.raw().await).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_of_a_regions_ingress_reach_streams_of_every_region_once_and_in_order() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[("WHIMBREL_REGION_RULES", "topic:us*=us topic:eu*=eu")]);
    let mut listening = Vec::new();
    for stream in ["topic:us-news", "topic:eu-news"] {
        listening.push((stream, Wanted::new(Transport::Sse, &[stream]).connect(&us).await));
    }
    let mut ingress = regions.servers[0].raw().await;
    for n in 0..200 {
        for (stream, _) in &listening {
            let name = stream.strip_prefix("topic:").unwrap();
            let mut add = redis::cmd("XADD");
            add.arg("whimbrel:ingress").arg("*").arg("topic").arg(name).arg("data").arg(n);
            add.exec_async(&mut ingress).await.unwrap();
        }
    }
    for (_, listener) in &mut listening {
        for n in 0..200 {
            assert_eq!(listener.event().await.data, n.to_string());
        }
    }
    assert!(regions.keys(0, "topic:us-news").await.is_empty() && regions.keys(1, "topic:eu-news").await.is_empty());
    eu.metric_is("ingress_published_total", 400.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_function_publishes_where_the_home_is_and_is_refused_elsewhere() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[]);
    eu.publish("device:1", "0").await;
    knows(&us, 1).await;
    let mut listening = Wanted::new(Transport::Sse, &["device:1"]).connect(&us).await;
    let id =
        eventually("the function is loaded", async || call_function(&regions.servers[0], "device:1").await.ok()).await;
    assert_eq!(listening.event().await.id, id);
    for stream in ["device:1", "device:nobody-touched"] {
        let refusal = eventually("the function is loaded there too", async || {
            let refusal = call_function(&regions.servers[1], stream).await.unwrap_err().to_string();
            (!refusal.contains("Function not found")).then_some(refusal)
        })
        .await;
        assert!(refusal.contains("HOMELESS") && refusal.contains("no home in this region"), "{refusal}");
        assert!(regions.keys(1, stream).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_one_for_all_regions_and_its_lapse_is_published_once() {
    let regions = Regions::start();
    let [eu, us] = regions.nodes(&[("WHIMBREL_REGION_RULES", "topic:us*=us topic:eu*=eu")]);
    for (stream, path) in [("topic:us-news", "/v1/topics/us-news/lease"), ("topic:eu-news", "/v1/topics/eu-news/lease")]
    {
        let mut listening = Wanted::new(Transport::Sse, &[stream]).connect(&us).await;
        let taken = eu.call("PUT", path, &[], r#"{"seconds":60}"#).await.json();
        assert_eq!(us.call("PUT", path, &[], r#"{"seconds":60}"#).await.problem(409).0, "lease-held");
        let renewal = serde_json::json!({"seconds": 1, "lease": taken["lease"]}).to_string();
        assert_eq!(us.call("PUT", path, &[], &renewal).await.status, 200);
        assert_eq!(listening.event().await.kind, "whimbrel:abandoned");
        assert_eq!(eu.call("PUT", path, &[], &renewal).await.problem(409).0, "lease-lost");
        assert_eq!(us.history(stream).await.len(), 1);
    }
}
