//! One test, over each transport and each store.

use std::sync::Arc;

use super::client::{Transport, Wanted};
use super::http::{Answer, Http};
use super::node::Node;
use super::redis::RedisServer;
use super::websocket::Frames;

/// What a promise is checked on: a transport, and a store with its nodes.
pub struct World {
    pub transport: Transport,
    pub redis: Option<RedisServer>,
}

impl World {
    pub fn on_redis(transport: Transport) -> Self {
        World { transport, redis: Some(RedisServer::start()) }
    }

    pub fn embedded(transport: Transport) -> Self {
        World { transport, redis: None }
    }

    /// So many nodes. On the embedded store it is one node, so many times: what holds between two nodes
    /// has to hold for one.
    pub fn nodes<const COUNT: usize>(&self, settings: &[(&str, &str)]) -> [Arc<Node>; COUNT] {
        match &self.redis {
            Some(redis) => std::array::from_fn(|_| Arc::new(Node::on(redis, settings))),
            None => {
                let node = Arc::new(Node::start(settings));
                std::array::from_fn(|_| node.clone())
            }
        }
    }

    /// One node.
    pub fn node(&self, settings: &[(&str, &str)]) -> Arc<Node> {
        let [node] = self.nodes(settings);
        node
    }

    /// The head of the answer to a listener's request with these headers, and the connection that it came over.
    pub async fn ask(&self, node: &Node, headers: &[(&str, &str)]) -> (Answer, Http) {
        let mut http = Http::connect(node.address()).await;
        match self.transport {
            Transport::Sse => http.request("GET", "/v1/sse?topic=news", headers, b"").await,
            Transport::WebSocket => Frames::ask(&mut http, "/v1/ws?topic=news", headers).await,
        }
        let head = http.head().await;
        (head, http)
    }

    /// A client that wants these streams.
    pub fn wanted(&self, streams: &[&str]) -> Wanted {
        Wanted::new(self.transport, streams)
    }
}

/// Makes of each promise, an `async fn(World)`, a module with one test for each transport and, unless it
/// needs Redis, for each store.
macro_rules! promises {
    (everywhere: $($everywhere:ident),* $(,)?; on_redis: $($on_redis:ident),* $(,)?) => {
        $(mod $everywhere {
            use super::*;

            promises!(@test $everywhere sse_embedded $crate::support::world::World::embedded($crate::support::client::Transport::Sse));
            promises!(@test $everywhere websocket_embedded $crate::support::world::World::embedded($crate::support::client::Transport::WebSocket));
            promises!(@test $everywhere sse_on_redis $crate::support::world::World::on_redis($crate::support::client::Transport::Sse));
            promises!(@test $everywhere websocket_on_redis $crate::support::world::World::on_redis($crate::support::client::Transport::WebSocket));
        })*
        $(mod $on_redis {
            use super::*;

            promises!(@test $on_redis sse $crate::support::world::World::on_redis($crate::support::client::Transport::Sse));
            promises!(@test $on_redis websocket $crate::support::world::World::on_redis($crate::support::client::Transport::WebSocket));
        })*
    };
    (@test $promise:ident $name:ident $world:expr) => {
        #[tokio::test]
        async fn $name() {
            $promise($world).await;
        }
    };
}
pub(crate) use promises;
