//! A simulated connection: at a real dispatcher's live end, or fed by a real temporary dispatcher.

use std::sync::Arc;

use super::super::catch_up::CatchUp;
use super::super::chain::Chain;
use super::super::dispatcher::Dispatcher;
use super::super::fixtures::Outbox;
use super::actions::From;
use crate::model::Page;

pub struct Connection {
    pub node: usize,
    pub outbox: Arc<Outbox>,
    pub feed: Feed,
}

pub enum Feed {
    /// Waits for the node to attach.
    Attaching(From),
    CatchingUp(Box<CatchingUp>),
    Live,
}

pub struct CatchingUp {
    pub dispatcher: Arc<Dispatcher>,
    pub value: CatchUp,
    /// A sync that it wants is under way.
    pub syncing: bool,
    /// A page that was read for it.
    pub page: Option<Arc<Page>>,
}

impl Feed {
    pub fn catching_up(dispatcher: Arc<Dispatcher>, chain: Chain) -> Self {
        Feed::CatchingUp(Box::new(CatchingUp { dispatcher, value: CatchUp::new(chain), syncing: false, page: None }))
    }
}
