//! Several regions: a redis-server each, and nodes that call one of them home.

mod apart;
mod conflicts;
mod ending;
mod follow;
mod homes;
mod movers;
mod moves;
mod outage;
mod producers;

use redis::AsyncCommands as _;
use serde_json::Value;

use crate::support::node::Node;
use crate::support::proxy::Proxy;
use crate::support::redis::{RedisServer, raw};
use crate::support::{eventually, http::Answer};

/// Regions `eu` and `us`, with a directory on a server of its own, all behind proxies.
pub struct Regions {
    pub servers: [RedisServer; 2],
    pub directory: RedisServer,
    /// To eu, to us.
    pub links: [Proxy; 2],
    pub directory_link: Proxy,
}

const NAMES: [&str; 2] = ["eu", "us"];

impl Regions {
    pub fn start() -> Self {
        Self::with_servers([RedisServer::start(), RedisServer::start()])
    }

    pub fn with_servers(servers: [RedisServer; 2]) -> Self {
        let directory = RedisServer::start();
        let links = servers.each_ref().map(|server| Proxy::to(server.address()));
        let directory_link = Proxy::to(directory.address());
        Regions { servers, directory, links, directory_link }
    }

    /// What `WHIMBREL_REGIONS` and `WHIMBREL_DIRECTORY_URL` are.
    pub fn urls(&self) -> (String, String) {
        let [eu, us] = self.links.each_ref().map(Proxy::address);
        (format!("eu=redis://{eu}/ us=redis://{us}/"), format!("redis://{}/", self.directory_link.address()))
    }

    /// A node that calls the region home.
    pub fn node(&self, region: &str, settings: &[(&str, &str)]) -> Node {
        let (regions, directory) = self.urls();
        let mut all = vec![
            ("WHIMBREL_REGION", region),
            ("WHIMBREL_REGIONS", &regions),
            ("WHIMBREL_DIRECTORY_URL", &directory),
            ("WHIMBREL_LEASE_SECONDS", "2"),
        ];
        all.extend_from_slice(settings);
        tokio::task::block_in_place(|| Node::start(&all))
    }

    /// A node in each.
    pub fn nodes(&self, settings: &[(&str, &str)]) -> [Node; 2] {
        NAMES.map(|name| self.node(name, settings))
    }

    /// The keys that a region has of a stream.
    pub async fn keys(&self, region: usize, stream: &str) -> Vec<String> {
        let mut keys: Vec<String> =
            self.servers[region].raw().await.keys(format!("whimbrel:{{{stream}}}:*")).await.unwrap();
        keys.sort();
        keys
    }

    /// The directory's entry of a stream.
    pub async fn home(&self, stream: &str) -> Option<String> {
        let mut directory = raw(&self.directory.url()).await;
        let buckets: Vec<String> = directory.keys("whimbrel:directory:*").await.unwrap();
        for bucket in buckets {
            if let Some(home) = directory.hget(&bucket, stream).await.unwrap() {
                return Some(home);
            }
        }
        None
    }
}

/// The entry of a region in a node's list.
pub async fn seen(node: &Node, region: &str) -> Value {
    let body = node.get_json("/v1/regions").await;
    let regions = body["regions"].as_array().unwrap();
    regions.iter().find(|entry| entry["name"] == region).unwrap_or_else(|| panic!("{body}")).clone()
}

/// Waits until the node's copy of the directory has so many streams.
pub async fn knows(node: &Node, streams: u64) {
    eventually("the replica has the streams", async || {
        let body = node.get_json("/v1/regions").await;
        (body["directory"]["streams"] == streams).then_some(())
    })
    .await;
}

/// Moves a stream, by the path of its requests; returns when it has arrived.
pub async fn move_to(node: &Node, path: &str, region: &str) {
    let body = format!(r#"{{"region":"{region}"}}"#);
    let answer = node.call("PUT", &format!("/v1/{path}/region"), &[], body).await;
    assert_eq!((answer.status, &answer.json()["region"]), (200, &Value::from(region)), "{}", answer.text());
}

pub async fn publish(node: &Node, stream: &str, data: &str) -> Answer {
    node.call("POST", &crate::support::node::events_path(stream), &[], data).await
}
