//! A replica that can be kept from its master's last writes, and take its place.

use super::lab::Lab;
use crate::support::eventually;
use crate::support::proxy::{Cut, Proxy};
use crate::support::redis::RedisServer;

/// A replica of the lab's Redis, behind a proxy that can cut it off.
pub struct Replica {
    pub server: RedisServer,
    link: Proxy,
}

impl Replica {
    pub async fn of(lab: &Lab, server: RedisServer) -> Self {
        let link = Proxy::to(lab.redis.address());
        let replica = Replica { server, link };
        let port = replica.link.address().port().to_string();
        replica.ask(&["REPLICAOF", "127.0.0.1", &port]).await;
        eventually("the replica is in step", async || {
            let info = replica.info().await;
            (info.contains("master_link_status:up") && !info.contains("master_sync_in_progress:1")).then_some(())
        })
        .await;
        replica
    }

    async fn ask(&self, command: &[&str]) {
        let mut raw = self.server.raw().await;
        redis::cmd(command[0]).arg(&command[1..]).exec_async(&mut raw).await.unwrap();
    }

    pub async fn info(&self) -> String {
        redis::cmd("INFO").arg("replication").query_async(&mut self.server.raw().await).await.unwrap()
    }

    /// From here on it misses what is written.
    pub async fn fall_behind(&self) {
        self.link.refuse(true);
        self.link.cut(Cut::Reset);
        eventually("the replica is alone", async || {
            self.info().await.contains("master_link_status:down").then_some(())
        })
        .await;
    }

    /// It is the master now, for every new connection.
    pub async fn take_over(&self, lab: &mut Lab) {
        self.ask(&["REPLICAOF", "NO", "ONE"]).await;
        lab.store = self.server.address();
        for link in &lab.links {
            link.lead_to(lab.store);
        }
    }
}
