//! Events that go from this node straight to others, past the store's channels: `publish` is a publish that leaves
//! such nodes out, `reorder` hands their events on in the order in which the publishes began.

mod publish;
mod reorder;

pub(super) use publish::{Clock, DirectPublish, DirectPublishing, SendOrder};
