//! A census: each node is asked for its load and for its followers of a topic.
//!
//! The followers of a topic are stored nowhere: that would cost the store a write for each stream of each
//! connection. A node sends its question to the channel of each node that has a lease, and they answer on the
//! asker's. A node that does not answer in time is named: its figures are missing. A dead one is, until its
//! lease ends, and counts for nothing.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::questions::{Waiting, message, read};
use super::{ControlChannel, Renewed};
use crate::access::Grant;
use crate::dispatch::Registry;
use crate::model::{NodeId, StreamName};
use crate::store::{Control, NodeInfo, Store, StoreError};

/// The control message that asks: `!who QUESTION`, in JSON.
const WHO: &str = "who";

/// The one that answers: `!here ANSWER`, in JSON.
const HERE: &str = "here";

/// Longest wait for the nodes' answers.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Questions of this node under way at once; the next wait in order.
const MAX_ASKING: usize = 32;

/// Questions of other nodes under way at once; the next get no answer.
const MAX_ANSWERING: usize = 256;

/// Most followers in one answer.
pub const MAX_FOLLOWERS: usize = 1000;

/// All connections of a node, whatever they follow.
pub trait ConnectionIndex: Send + Sync + 'static {
    /// Gives the connection with this public id another grant.
    fn renew(&self, connection: Uuid, grant: Arc<Grant>, registry: &Registry) -> Renewed;

    /// How many there are.
    fn count(&self) -> usize;

    /// Those that follow a topic.
    fn followers(&self, wanted: &Wanted) -> Followers;
}

/// Which followers of a topic are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The topic.
    pub topic: StreamName,
    /// Only those with an id above this one.
    pub after: Option<Uuid>,
    /// At most so many, those with the lowest ids.
    pub limit: usize,
}

/// A connection that follows a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follower {
    /// The connection.
    pub id: Uuid,
    /// How it is connected.
    pub transport: String,
    /// The device that it is connected as.
    pub device: Option<String>,
}

/// A node's connections that follow a topic.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Followers {
    /// All of them.
    pub count: u64,
    /// Those that were wanted, by id.
    pub some: Vec<Follower>,
}

/// A node's report about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its id.
    pub node: String,
    /// The region that it calls home.
    pub region: String,
    /// Where its HTTP listener is reached.
    pub address: String,
    /// The program's version.
    pub version: String,
    /// Connections that are open or being set up.
    pub connections: usize,
    /// Streams that it follows for them.
    pub streams: usize,
    /// Its followers of the topic, if one was asked for.
    pub followers: Option<Followers>,
}

/// The reports of all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reports {
    /// Of the nodes that answered, by their ids.
    pub reports: Vec<Report>,
    /// Nodes that have a lease and did not answer.
    pub silent: Vec<NodeId>,
}

#[derive(Serialize, Deserialize)]
struct ReportRequest {
    request: Uuid,
    from: String,
    topic: Option<String>,
    after: Option<Uuid>,
    limit: usize,
}

#[derive(Serialize, Deserialize)]
struct ReportReply {
    request: Uuid,
    report: Report,
}

/// Asks, and answers.
pub struct Census {
    store: Arc<dyn Store>,
    registry: Arc<Registry>,
    info: NodeInfo,
    index: Arc<dyn ConnectionIndex>,
    waiting: Waiting<Report>,
    asking: Semaphore,
    answering: Arc<Semaphore>,
    /// One look through all connections at a time.
    looking: Semaphore,
}

impl Census {
    pub(super) fn new(
        store: Arc<dyn Store>,
        registry: Arc<Registry>,
        info: NodeInfo,
        index: Arc<dyn ConnectionIndex>,
    ) -> Arc<Self> {
        Arc::new(Census {
            store,
            registry,
            info,
            index,
            waiting: Waiting::default(),
            asking: Semaphore::new(MAX_ASKING),
            answering: Arc::new(Semaphore::new(MAX_ANSWERING)),
            looking: Semaphore::new(1),
        })
    }

    /// What this node registers about itself.
    pub fn info(&self) -> &NodeInfo {
        &self.info
    }

    /// Asks every node that has a lease.
    pub async fn ask(&self, wanted: Option<&Wanted>) -> Result<Reports, StoreError> {
        let _turn = self.asking.acquire().await;
        let topic = wanted.map(|wanted| &wanted.topic);
        let channel = ControlChannel::of(topic, &self.store, &self.registry).await?;
        let (store, own) = (&channel.store, &channel.node);
        let alive = store.coordination().nodes().await?.into_iter().filter(|node| !node.lapsed).map(|node| node.node);
        let mut silent: Vec<NodeId> = alive.filter(|node| *node != **own).collect();
        let mut request = self.waiting.begin(silent.len(), MAX_ASKING).expect("there is a permit for each");
        let question = ReportRequest {
            request: request.id,
            from: own.as_str().to_owned(),
            topic: topic.map(|topic| topic.as_str().to_owned()),
            after: wanted.and_then(|wanted| wanted.after),
            limit: wanted.map_or(0, |wanted| wanted.limit),
        };
        let control = message(WHO, &question);
        let asked =
            futures_util::future::join_all(silent.iter().map(|node| store.coordination().signal(node, &control)));
        asked.await.into_iter().collect::<Result<(), _>>()?;
        let mut reports = vec![self.report(wanted, own).await];
        let collect = async {
            while !silent.is_empty() {
                let Some(report) = request.answers.recv().await else { break };
                if let Some(at) = silent.iter().position(|node| node.as_str() == report.node) {
                    silent.swap_remove(at);
                    reports.push(report);
                }
            }
        };
        // A node that has not answered by then counts as silent.
        let _ = tokio::time::timeout(ANSWER_TIME, collect).await;
        reports.sort_by(|a, b| a.node.cmp(&b.node));
        silent.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        Ok(Reports { reports, silent })
    }

    /// A control message came in. False when it is neither a question nor an answer.
    pub(super) fn on_control(self: &Arc<Self>, control: &Control, channel: ControlChannel) -> bool {
        match control.word.as_str() {
            WHO => {
                if let Some(question) = read::<ReportRequest>(control) {
                    self.answer(question, channel);
                }
            }
            HERE => {
                let Some(ReportReply { request, report }) = read(control) else { return true };
                self.waiting.answered(request, report);
            }
            _ => return false,
        }
        true
    }

    fn answer(self: &Arc<Self>, question: ReportRequest, channel: ControlChannel) {
        let Ok(turn) = self.answering.clone().try_acquire_owned() else { return };
        let census = self.clone();
        tokio::spawn(async move {
            let topic = question.topic.as_deref().and_then(|topic| topic.parse().ok());
            let limit = question.limit.min(MAX_FOLLOWERS + 1);
            let wanted = topic.map(|topic| Wanted { topic, after: question.after, limit });
            let answer =
                ReportReply { request: question.request, report: census.report(wanted.as_ref(), &channel.node).await };
            let asker = NodeId::from(question.from);
            if let Err(error) = channel.store.coordination().signal(&asker, &message(HERE, &answer)).await {
                tracing::debug!(%asker, %error, "a question of another node is not answered");
            }
            drop(turn);
        });
    }

    /// What this node has to say, under the name that it has where it is asked.
    async fn report(&self, wanted: Option<&Wanted>, own: &NodeId) -> Report {
        let followers = match wanted {
            Some(wanted) => Some(self.followers(wanted.clone()).await),
            None => None,
        };
        Report {
            node: own.as_str().to_owned(),
            region: self.info.region.clone(),
            address: self.info.address.clone(),
            version: self.info.version.clone(),
            connections: self.index.count(),
            streams: self.registry.streams(),
            followers,
        }
    }

    async fn followers(&self, wanted: Wanted) -> Followers {
        if !self.registry.has(&wanted.topic) {
            return Followers::default();
        }
        let _turn = self.looking.acquire().await;
        let index = self.index.clone();
        // A node with very many connections takes milliseconds to look through them.
        tokio::task::spawn_blocking(move || index.followers(&wanted)).await.unwrap_or_default()
    }
}
