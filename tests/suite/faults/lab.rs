//! A region to break: a Redis, nodes with a proxy to it and a proxy before them, producers and clients.
//!
//! ```text
//!   producers, clients -> front (proxy) -> node -> link (proxy) -> redis-server
//!                                          node -> wire (proxy) -> another node, with `linked`
//!                                          node -> another region's redis-server, with `two_regions`
//! ```
//!
//! [`Lab::verdict`] ends every test: producers stop, everything heals, clients read to the end, and the
//! history is judged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use whimbrel::history::record::Loss;
use whimbrel::history::{Record, Summary};
use whimbrel::model::{EventId, StreamName};

use super::listener::{Behaviour, Doors, Listener};
use super::producer::{Findings, Producer, Work};
use super::recorder::Recorder;
use crate::support::client::Transport;
use crate::support::node::Node;
use crate::support::proxy::Proxy;
use crate::support::redis::{RedisServer, raw};
use crate::support::{PATIENCE, Signal, eventually};

/// How a lab is set up.
pub struct Plan {
    pub nodes: usize,
    pub redis: Vec<&'static str>,
    /// Settings of the nodes, over those of [`SETTINGS`].
    pub settings: Vec<(&'static str, &'static str)>,
    pub streams: Vec<&'static str>,
    /// Whether events take links between the nodes.
    pub linked: bool,
    /// Whether there is another region, which nothing happens to: the last node's home, and that of the devices.
    pub two_regions: bool,
    /// Where nodes find their store, if it is not the lab's own Redis.
    pub store_url: Option<String>,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            nodes: 2,
            redis: Vec::new(),
            settings: Vec::new(),
            streams: vec!["topic:news", "device:42"],
            linked: false,
            two_regions: false,
            store_url: None,
        }
    }
}

/// What linked nodes know each other by.
const SECRET: &str = "the-secret-of-a-lab";

/// The lease is short so that losing it takes no test's time. Nodes sync by the minute, so that what a
/// fault broke is mended by whatever noticed the fault, or not within a test's time.
const SETTINGS: &[(&str, &str)] = &[
    ("WHIMBREL_LEASE_SECONDS", "2"),
    ("WHIMBREL_SYNC_SECONDS", "60"),
    ("WHIMBREL_PING_SECONDS", "1"),
    ("WHIMBREL_DRAIN_DELAY_SECONDS", "0"),
    ("WHIMBREL_DRAIN_SECONDS", "1"),
    ("WHIMBREL_RETENTION", "*=100000/86400"),
    // Many clients share a device here, and those of a dead node count for a while.
    ("WHIMBREL_CONNECTIONS_PER_DEVICE", "1000"),
];

/// By the retention above.
const KEPT: usize = 100_000;

/// How long clients may take to read to the end, once everything is healed.
const SETTLING: Duration = PATIENCE;

/// The other region, and the directory.
struct OtherRegion {
    store: RedisServer,
    directory: RedisServer,
}

pub struct Lab {
    name: String,
    pub redis: RedisServer,
    /// From each node to Redis.
    pub links: Vec<Proxy>,
    /// From clients and producers to each node.
    pub fronts: Vec<Proxy>,
    /// From other nodes to each node's links; none unless they are linked.
    pub wires: Vec<Proxy>,
    pub nodes: Vec<Node>,
    starts: Vec<usize>,
    pub doors: Arc<Doors>,
    pub recorder: Arc<Recorder>,
    pub listeners: Vec<Listener>,
    producers: Vec<Producer>,
    hired: usize,
    pub streams: Vec<StreamName>,
    settings: Vec<(&'static str, &'static str)>,
    store_url: Option<String>,
    other_region: Option<OtherRegion>,
    /// Where the store is, when a test has put another in the place of `redis`.
    pub store: SocketAddr,
}

impl Lab {
    /// A region, with nobody in it yet.
    pub async fn new(name: &str, plan: Plan) -> Self {
        let redis = RedisServer::start_with(&plan.redis);
        let store = redis.address();
        let mut settings: Vec<_> = SETTINGS.to_vec();
        settings.extend(plan.settings);
        let mut lab = Lab {
            name: name.to_owned(),
            links: (0..plan.nodes).map(|_| Proxy::to(store)).collect(),
            fronts: Vec::new(),
            // Where they lead is known once the nodes are there.
            wires: if plan.linked { (0..plan.nodes).map(|_| Proxy::to(store)).collect() } else { Vec::new() },
            nodes: Vec::new(),
            starts: vec![0; plan.nodes],
            doors: Arc::default(),
            recorder: Arc::default(),
            listeners: Vec::new(),
            producers: Vec::new(),
            hired: 0,
            streams: plan.streams.iter().map(|stream| stream.parse().unwrap()).collect(),
            settings,
            store_url: plan.store_url,
            other_region: plan
                .two_regions
                .then(|| OtherRegion { store: RedisServer::start(), directory: RedisServer::start() }),
            store,
            redis,
        };
        for number in 0..plan.nodes {
            let node = lab.launch(number).await;
            let front = Proxy::to(node.address());
            lab.doors.set(number, format!("n{number}.0"), front.address());
            lab.fronts.push(front);
            lab.nodes.push(node);
        }
        lab
    }

    /// A region with clients of each transport on each node, and two producers.
    pub async fn busy(name: &str, plan: Plan) -> Self {
        let mut lab = Lab::new(name, plan).await;
        lab.listen().await;
        lab.produce(Duration::from_millis(10));
        lab.flowing().await;
        lab
    }

    async fn launch(&self, number: usize) -> Node {
        let link = || format!("redis://{}/", self.links[number].address());
        let url = self.store_url.clone().unwrap_or_else(link);
        let mut settings = self.settings.clone();
        let regions = self.other_region.as_ref().map(|other| {
            let home = if number + 1 == self.starts.len() { "us" } else { "eu" };
            (home, format!("eu={url} us={}", other.store.url()), other.directory.url())
        });
        match &regions {
            None => settings.push(("WHIMBREL_REDIS_URL", &url)),
            Some((home, regions, directory)) => settings.extend([
                ("WHIMBREL_REGION", *home),
                ("WHIMBREL_REGIONS", regions),
                ("WHIMBREL_DIRECTORY_URL", directory),
                ("WHIMBREL_REGION_RULES", "device:*=us *=eu"),
            ]),
        }
        let Some(wire) = self.wires.get(number) else {
            return tokio::task::block_in_place(|| Node::start(&settings));
        };
        let advertised = wire.address().to_string();
        let mut linked = vec![
            ("WHIMBREL_LINK_LISTEN", "127.0.0.1:0"),
            ("WHIMBREL_LINK_SECRET", SECRET),
            ("WHIMBREL_LINK_ADVERTISE", advertised.as_str()),
        ];
        // A test's settings beat the lab's.
        linked.append(&mut settings);
        let node = tokio::task::block_in_place(|| Node::start(&linked));
        wire.lead_to(node.link_address());
        node
    }

    /// Kills a node, and has the history say so.
    pub fn kill(&mut self, number: usize) {
        self.nodes[number].kill();
        self.recorder.note(Record::Died { node: self.doors.get(number).0 });
    }

    /// Stops a node in order, and starts another in its place, with other settings from now on.
    pub async fn drain_into(&mut self, number: usize, settings: &[(&'static str, &'static str)]) {
        self.settings.extend(settings);
        self.drain(number).await;
    }

    /// Kills nodes one after another. Each time the others go on, and it is started anew before the next.
    pub async fn kill_in_turn(&mut self, nodes: &[usize]) {
        for node in nodes {
            self.kill(*node);
            self.flowing().await;
            self.restart(*node).await;
            self.flowing().await;
        }
    }

    /// Stops a node in order, and starts another in its place.
    pub async fn drain(&mut self, number: usize) {
        self.nodes[number].signal(Signal::TERM);
        assert!(self.nodes[number].ended().await.success());
        self.recorder.note(Record::Died { node: self.doors.get(number).0 });
        self.restart(number).await;
    }

    /// Starts a node anew behind the door of the one before, which has ended.
    pub async fn restart(&mut self, number: usize) {
        let node = self.launch(number).await;
        self.starts[number] += 1;
        self.fronts[number].lead_to(node.address());
        self.doors.set(number, format!("n{number}.{}", self.starts[number]), self.fronts[number].address());
        self.nodes[number] = node;
    }

    /// Clients as they come: each transport, one stream and all of them, staying and roaming.
    pub async fn listen(&mut self) {
        for door in 0..self.nodes.len() {
            for transport in [Transport::Sse, Transport::WebSocket] {
                let stays = self.behaviour(transport, door);
                let roams = Behaviour { roams: Some(Duration::from_millis(700)), ..stays.clone() };
                let single = Behaviour { streams: vec![self.streams[0].clone()], ..stays.clone() };
                for behaviour in [stays, roams, single] {
                    self.add(behaviour);
                }
            }
        }
        self.all_placed().await;
    }

    /// What an ordinary client does: it stays as long as something arrives.
    pub fn behaviour(&self, transport: Transport, door: usize) -> Behaviour {
        Behaviour {
            transport,
            streams: self.streams.clone(),
            patience: Some(Duration::from_secs(4)),
            roams: None,
            returns: Duration::from_millis(200),
            door,
        }
    }

    pub fn add(&mut self, behaviour: Behaviour) {
        let name = format!("c{}", self.listeners.len());
        self.listeners.push(Listener::start(name, behaviour, self.doors.clone(), self.recorder.clone()));
    }

    pub async fn all_placed(&self) {
        eventually("all clients were let in", async || {
            self.listeners.iter().all(|client| client.whims.sessions.load(Ordering::Relaxed) > 0).then_some(())
        })
        .await;
    }

    /// Two producers, each on a node of its own if there are two.
    pub fn produce(&mut self, pace: Duration) {
        for door in 0..2 {
            let streams = self.streams.clone();
            self.produce_as(Work { streams, pace, padding: 20, door, patience: Duration::from_secs(12) });
        }
    }

    pub fn produce_as(&mut self, work: Work) {
        let name = format!("p{}", self.hired);
        self.hired += 1;
        self.producers.push(Producer::start(name, work, self.doors.clone(), self.recorder.clone()));
    }

    /// Waits until events come through, as a sign that all is well or well again.
    pub async fn flowing(&self) {
        self.receive(30 * self.listeners.len().min(10)).await;
    }

    /// Waits until both nodes on which producers are send events to another over a link.
    pub async fn all_linked(&self) {
        for node in &self.nodes[..2] {
            let before = node.metric("link_hits_total").await;
            eventually("events go over a link", async || (node.metric("link_hits_total").await > before).then_some(()))
                .await;
        }
    }

    /// A figure, summed over all nodes.
    pub async fn sum(&self, metric: &str) -> f64 {
        let mut sum = 0.0;
        for node in &self.nodes {
            sum += node.metric(metric).await;
        }
        sum
    }

    /// Waits until clients have received so many more events.
    pub async fn receive(&self, more: usize) {
        let wanted = self.recorder.events() + more;
        eventually("events arrive", async || (self.recorder.events() >= wanted).then_some(())).await;
    }

    /// Waits until so many more publishes were acknowledged.
    pub async fn published(&self, more: usize) {
        let wanted = self.findings().ok + more;
        eventually("publishes are acknowledged", async || (self.findings().ok >= wanted).then_some(())).await;
    }

    /// What all producers found so far.
    pub fn findings(&self) -> Findings {
        join(self.producers.iter().map(Producer::findings))
    }

    /// The store loses something while `lose` runs, and not any more afterwards.
    pub async fn losing<T>(&mut self, kind: Loss, lose: impl AsyncFnOnce(&mut Self) -> T) -> T {
        self.recorder.note(Record::Loss { kind });
        let done = lose(self).await;
        self.recorder.note(Record::LossOver);
        done
    }

    pub async fn stop_producers(&mut self) -> Findings {
        let mut findings = Vec::new();
        for producer in self.producers.drain(..) {
            findings.push(producer.stop().await);
        }
        join(findings)
    }

    /// The store's own answer, without any node between.
    pub async fn ask_store<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        self.ask_at(self.store, command).await
    }

    /// The same of the store in which a stream is.
    async fn ask_about<T: redis::FromRedisValue>(&self, stream: &StreamName, command: &[&str]) -> T {
        let other = self.other_region.as_ref().filter(|_| stream.device().is_some());
        self.ask_at(other.map_or(self.store, |other| other.store.address()), command).await
    }

    async fn ask_at<T: redis::FromRedisValue>(&self, store: SocketAddr, command: &[&str]) -> T {
        let mut place = store.to_string();
        loop {
            let mut connection = raw(&format!("redis://{place}/")).await;
            match redis::cmd(command[0]).arg(&command[1..]).query_async(&mut connection).await {
                Ok(answer) => return answer,
                // A server of a Cluster knows which one has it.
                Err(error) => place = error.redirect_node().unwrap_or_else(|| panic!("{error}")).0.to_owned(),
            }
        }
    }

    async fn log(&self, stream: &StreamName) -> Vec<EventId> {
        type Entry = (String, Vec<(String, String)>);
        let key = format!("whimbrel:{{{stream}}}:events");
        let entries: Vec<Entry> = self.ask_about(stream, &["XRANGE", &key, "-", "+"]).await;
        entries.into_iter().map(|(id, _)| id.parse().unwrap()).collect()
    }

    async fn last(&self, stream: &StreamName) -> EventId {
        let last: String = self.ask_about(stream, &["HGET", &format!("whimbrel:{{{stream}}}:meta"), "last"]).await;
        last.parse().unwrap()
    }

    async fn all_at_end(&self) -> bool {
        for stream in &self.streams {
            let last = self.last(stream).await;
            let mut followers = self.listeners.iter().filter(|client| client.behaviour.streams.contains(stream));
            if !followers.all(|client| self.recorder.standing(&client.name, stream) == Some(last)) {
                return false;
            }
        }
        true
    }

    /// Stops the producers, waits until every client has read to the end, and judges the history.
    #[track_caller]
    pub fn verdict(mut self) -> impl Future<Output = (Summary, Findings)> {
        let caller = std::panic::Location::caller();
        async move {
            let findings = self.stop_producers().await;
            for proxy in self.links.iter().chain(&self.fronts).chain(&self.wires) {
                proxy.heal();
            }
            for client in &self.listeners {
                client.whims.settled.store(true, Ordering::Relaxed);
                client.whims.deaf.store(false, Ordering::Relaxed);
            }
            let begun = Instant::now();
            // Whoever does not get there is for the judge to see.
            while !self.all_at_end().await && begun.elapsed() < SETTLING {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(!self.listeners.iter().any(Listener::is_gone), "a client got a message that makes no sense");
            for stream in &self.streams {
                let ids = self.log(stream).await;
                self.recorder.note(Record::Log { stream: stream.clone(), ids, retention: Some(KEPT) });
            }
            self.recorder.note(Record::Quiet);
            let verdict = self.recorder.judge();
            println!("{}: {}; quiet after {:?}", self.name, verdict.summary, begun.elapsed());
            if !verdict.violations.is_empty() {
                let file = self.recorder.save(&self.name);
                let shown: Vec<_> = verdict.violations.iter().take(20).map(ToString::to_string).collect();
                let count = verdict.violations.len();
                panic!("{count} violations (history in {}, {caller}):\n{}", file.display(), shown.join("\n"));
            }
            // A history in which nobody was there to miss anything would prove nothing.
            assert_eq!(verdict.summary.read_to_end, self.listeners.len(), "all clients are there in the end");
            assert!(verdict.summary.events > 0 && verdict.summary.publishes[0] > 0);
            (verdict.summary, findings)
        }
    }
}

fn join(all: impl IntoIterator<Item = Findings>) -> Findings {
    all.into_iter().fold(Findings::default(), |mut sum, one| {
        sum.ok += one.ok;
        sum.failed += one.failed;
        sum.unknown += one.unknown;
        sum.slowest = sum.slowest.max(one.slowest);
        sum.statuses.extend(one.statuses);
        sum
    })
}
