//! The streams' logs, with the routes that say which nodes follow them.

use async_trait::async_trait;
use futures_util::future::join_all;

use super::StoreError;
use crate::model::{
    Draft, Durability, EventId, Imported, Inbox, NodeId, Page, Part, Published, Receipt, Route, Standing, Start,
    StreamName,
};

/// A stream to be synced: its route, and the head if there is one.
pub type DueSync = (StreamName, Route, Option<EventId>);

/// Called with the outcome of each of several syncs, and its index among them.
pub type OnAnswer<'a> = dyn Fn(usize, Result<Page, StoreError>) + Send + Sync + 'a;

/// The logs of all streams, and the routes to the nodes that follow them.
///
/// All operations of one stream take effect in the order in which they were called.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Stores an event and sends it to every node that has a route.
    async fn publish(&self, stream: &StreamName, draft: &Draft) -> Result<Published, StoreError>;

    /// Publishes many at once, in order, each for itself. The answers are in the same order.
    async fn publish_all(&self, batch: &[(StreamName, Draft)]) -> Vec<Result<Published, StoreError>>;

    /// Publishes, and waits until the event is as durable as asked, for a while. An error means what it
    /// means for a publish; falling short is no error, as the event is stored.
    async fn publish_durably(
        &self,
        stream: &StreamName,
        draft: &Draft,
        durability: Durability,
    ) -> Result<Receipt, StoreError>;

    /// Sends an event to every node that has a route, at most once, and stores nothing. Gives the number of
    /// nodes that it was sent to.
    async fn publish_ephemeral(&self, stream: &StreamName, draft: &Draft) -> Result<u32, StoreError>;

    /// Asserts the route, then reads what is newer than `head`, in one step: attach (no head yet),
    /// resume, reconnect and repair are all this operation.
    ///
    /// Without a head the page has no events, and `last` is where the stream stands now. On a stream that
    /// is touched for the first time, that is the id it begins with.
    async fn sync(&self, stream: &StreamName, route: &Route, head: Option<EventId>) -> Result<Page, StoreError>;

    /// Syncs many streams at once, each for itself: `answered` is given the place of each among `due`, with its
    /// answer, as soon as that is there. Those of one stream that goes without an answer hold up no other's.
    async fn sync_each(&self, due: &[DueSync], answered: &OnAnswer<'_>) {
        let one = async |(place, (stream, route, head)): (usize, &DueSync)| {
            answered(place, self.sync(stream, route, *head).await);
        };
        join_all(due.iter().enumerate().map(one)).await;
    }

    /// Finds out what became of a history that was seen up to `head` and no longer continues from there.
    ///
    /// `seen` are ids known to have been events of it, newest first, and `epoch` is the stream's epoch id
    /// when it was followed. If the log still has `head`, or lost only what is older than all it keeps,
    /// this is a plain read after `head`. Otherwise history was lost that had been shown: the newest of
    /// `seen` that the log still has becomes the [`Fork`](crate::model::Fork)'s ancestor (when nothing of
    /// `seen` is left, the newest event below `head`), the stream is raised above both `last` and `head`
    /// by `step`, and the page is read from the ancestor on. A second report, of the same fork or of one
    /// before the mark, raises nothing: a reader that missed that tail meets the mark. After a flush the page is read
    /// from the new birth, and there is no mark, as every chain breaks at a birth. In any case no new id
    /// falls below a head that was reported.
    async fn recover(
        &self,
        stream: &StreamName,
        head: EventId,
        epoch: EventId,
        seen: &[EventId],
    ) -> Result<Page, StoreError>;

    /// Removes the route if it is still the one of this registration, or whatever registration the node
    /// has when `registration` is `None`.
    async fn detach(&self, stream: &StreamName, node: &NodeId, registration: Option<u64>) -> Result<(), StoreError>;

    /// Reads a page of at most `limit` events, without any route.
    ///
    /// When the log no longer has the id that `Start::After` names and the id lies on the lost side of
    /// the stream's fork (above its ancestor, not above its head), reading begins at the ancestor.
    async fn read(&self, stream: &StreamName, start: Start, limit: usize) -> Result<Page, StoreError>;

    /// Reads the newest events before an id, at most `limit`, oldest first. `more`: older ones
    /// are kept.
    async fn read_before(&self, stream: &StreamName, before: EventId, limit: usize) -> Result<Page, StoreError>;

    /// The newest id ever shown of a stream; `None` when nobody used it. Nothing is written.
    async fn position(&self, stream: &StreamName) -> Result<Option<EventId>, StoreError>;

    /// Moves the acknowledged position forward to `id`, and returns where it is then. An older id moves nothing, and
    /// neither does one above `last`: what this history will have up to there was not seen. Without an id it
    /// only returns where the position is.
    async fn acknowledge(&self, stream: &StreamName, id: Option<EventId>) -> Result<Standing, StoreError>;

    /// Counts what waits for the device.
    async fn inbox(&self, stream: &StreamName) -> Result<Inbox, StoreError>;

    /// Erases the events and what is known of collapse keys, and notifies every node that has a route, so that
    /// it syncs. The positions stay, `last` so that ids go on above all that was shown, and what was
    /// acknowledged: a client that had not seen all gets a gap, one that had does not.
    async fn erase(&self, stream: &StreamName) -> Result<(), StoreError>;

    /// Takes over a part of a stream from another store: where the stream was never used, or right behind the part
    /// before. Nodes that follow the stream by then find it with their next sync.
    async fn import(&self, stream: &StreamName, part: &Part) -> Result<Imported, StoreError>;

    /// Sends one node, over its channel, an event that is stored already, if the node has a route.
    async fn relay(&self, node: &NodeId, stream: &StreamName, id: EventId) -> Result<(), StoreError>;
}
