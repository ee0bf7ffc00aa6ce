//! Renewing a connection's grant from whichever node is asked: the one that has the connection does it.
//!
//! Nodes pass the grant on, not the token: the node that was asked has judged it, and what is secret does not go
//! through the store.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::questions::{Waiting, message, read};
use super::{ConnectionIndex, ControlChannel};
use crate::access::Grant;
use crate::dispatch::Registry;
use crate::model::NodeId;
use crate::store::{Control, Store, StoreError};

/// The control message that asks every node: `!renew QUESTION`, in JSON.
const RENEW: &str = "renew";

/// The one that answers: `!renewed ANSWER`, in JSON.
const RENEWED: &str = "renewed";

/// Every node answers within this time, or counts as one that does not have the connection.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Answers that may wait to be read; nodes answer one question once.
const MOST_ANSWERS: usize = 1024;

/// Most renewals of connections of other nodes under way at once.
const MOST_WAITING: usize = 10_000;

/// Why a connection goes on with the grant that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum RenewError {
    /// The new grant is somebody else's.
    #[error("the token is another device's than the connection")]
    OtherDevice,
    /// There is no such connection.
    #[error("there is no such connection, or it needs no renewal")]
    Missing,
}

/// Until when the new grant holds, in milliseconds since 1970; or why it was not taken.
pub type Renewed = Result<Option<u64>, RenewError>;

#[derive(Serialize, Deserialize)]
struct RenewRequest {
    request: Uuid,
    /// The node that asks, and its region.
    from: String,
    region: String,
    connection: Uuid,
    grant: Grant,
}

#[derive(Serialize, Deserialize)]
struct RenewReply {
    request: Uuid,
    outcome: Renewed,
}

/// Asks, and answers.
pub struct Renewals {
    store: Arc<dyn Store>,
    registry: Arc<Registry>,
    region: String,
    index: Arc<dyn ConnectionIndex>,
    waiting: Waiting<Renewed>,
}

impl Renewals {
    pub(super) fn new(
        store: Arc<dyn Store>,
        registry: Arc<Registry>,
        region: String,
        index: Arc<dyn ConnectionIndex>,
    ) -> Self {
        Renewals { store, registry, region, index, waiting: Waiting::default() }
    }

    /// Gives a connection another grant, on whichever node it is.
    pub async fn renew(&self, connection: Uuid, grant: &Arc<Grant>) -> Result<Renewed, StoreError> {
        match self.index.renew(connection, grant.clone(), &self.registry) {
            Err(RenewError::Missing) => self.ask(connection, grant).await,
            renewed => Ok(renewed),
        }
    }

    async fn ask(&self, connection: Uuid, grant: &Grant) -> Result<Renewed, StoreError> {
        let own = self.registry.node();
        let too_many = || StoreError::Unavailable("too many renewals are under way".into());
        let mut request = self.waiting.begin(MOST_ANSWERS, MOST_WAITING).ok_or_else(too_many)?;
        let (from, region) = (own.as_str().to_owned(), self.region.clone());
        let question = RenewRequest { request: request.id, from, region, connection, grant: grant.clone() };
        let control = message(RENEW, &question);
        let stores: Vec<Arc<dyn Store>> = match self.store.regions() {
            Some(regions) => regions.reachable().await,
            None => vec![self.store.clone()],
        };
        let mut silent = 0;
        for store in stores {
            for node in store.coordination().nodes().await?.into_iter().filter(|node| !node.lapsed && node.node != *own)
            {
                store.coordination().signal(&node.node, &control).await?;
                silent += 1;
            }
        }
        let answered = async {
            while silent > 0 {
                match request.answers.recv().await {
                    Some(Err(RenewError::Missing)) => silent -= 1,
                    Some(outcome) => return outcome,
                    None => break,
                }
            }
            Err(RenewError::Missing)
        };
        Ok(tokio::time::timeout(ANSWER_TIME, answered).await.unwrap_or(Err(RenewError::Missing)))
    }

    /// A control message came in. False when it is neither a question nor an answer.
    pub(super) fn on_control(self: &Arc<Self>, control: &Control, channel: &ControlChannel) -> bool {
        match control.word.as_str() {
            RENEW => {
                if let Some(RenewRequest { request, from, region, connection, grant }) = read(control) {
                    let outcome = self.index.renew(connection, Arc::new(grant), &self.registry);
                    let (renewals, store) = (self.clone(), channel.store.clone());
                    let answer = RenewReply { request, outcome };
                    tokio::spawn(async move { renewals.answer(store, &region, from.into(), &answer).await });
                }
            }
            RENEWED => {
                let Some(RenewReply { request, outcome }) = read(control) else { return true };
                self.waiting.answered(request, outcome);
            }
            _ => return false,
        }
        true
    }

    async fn answer(&self, store: Arc<dyn Store>, region: &str, asker: NodeId, answer: &RenewReply) {
        let store = match self.store.regions() {
            Some(regions) => regions.store_named(region).await,
            None => Ok(store),
        };
        let answered = async { store?.coordination().signal(&asker, &message(RENEWED, answer)).await };
        if let Err(error) = answered.await {
            tracing::debug!(%error, "a renewal is not answered");
        }
    }
}
