//! Publishing connects and disconnects on the lifecycle topic, each once: `queue` is what waits to be
//! published, as a value, and `publisher` the task that publishes it.

mod publisher;
mod queue;

pub(super) use publisher::Session;
pub(super) use queue::LifecycleQueue;
