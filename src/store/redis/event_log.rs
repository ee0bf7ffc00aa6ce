//! The streams' logs in Redis: a script of `lua/` for each operation.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::Value;

use super::call::Call;
use super::direct::DirectPublish;
use super::lane::Open;
use super::lanes::slot_of_stream;
use super::scripts::{self, Fields};
use super::{NOTES_LIVE, RedisStore, attributes, durable, excluded, trace};
use crate::model::{
    Draft, Durability, Event, EventId, Imported, Inbox, NodeId, Page, Part, Published, Receipt, Route, Standing, Start,
    StreamName,
};
use crate::store::{DueSync, EventLog, OnAnswer, PAGE_BYTES, PAGE_EVENTS, StoreError, millis, random_step};

impl RedisStore {
    fn publish_call(&self, stream: &StreamName, draft: &Draft, direct_publish: Option<&DirectPublish>) -> Call {
        let call = self.publish_call_of(stream, draft, "");
        direct_publish
            .into_iter()
            .fold(call, |call, direct_publish| call.arg(direct_publish.until_ms()).arg(direct_publish.nodes()))
    }

    fn sync_call(&self, stream: &StreamName, route: &Route, head: Option<EventId>) -> Call {
        let keys = self.keys.of(stream);
        let touched = [&keys.events, &keys.nodes, &keys.meta, &keys.collapse, &keys.connections];
        let tag = self.shards.channel_tag(&route.node, || slot_of_stream(stream));
        Call::script(&scripts::SYNC, &touched.map(String::as_str))
            .arg(route.node.as_str())
            .arg(route.registration)
            .arg(millis(route.ttl))
            .arg(head.map_or(String::new(), |head| head.to_string()))
            .arg(random_step())
            .arg(self.position_ms(stream))
            .arg(PAGE_EVENTS)
            .arg(PAGE_BYTES)
            .arg(self.home())
            .arg(tag.map_or(String::new(), |tag| tag.to_string()))
    }

    fn synced(&self, stream: &StreamName, answer: Result<Value, StoreError>) -> Result<Page, StoreError> {
        let page = scripts::page(answer?)?;
        // A device that connects is synced first: already its first event can leave nodes out.
        if let Ok(shard) = self.shards.of(|| slot_of_stream(stream)) {
            shard.clock.set(page.now_ms);
        }
        Ok(page)
    }

    /// The oldest of so many newest entries of a stream's log, if it has any.
    async fn walk_back(&self, stream: &StreamName, count: u32) -> Result<Option<EventId>, StoreError> {
        let keys = self.keys.of(stream);
        let (mut left, mut oldest) = (u64::from(count), None);
        while left > 0 {
            let before = oldest.map_or(String::new(), |id: EventId| id.to_string());
            let call = Call::script(&scripts::WALK, &[&keys.events, &keys.meta]);
            let call = call.arg(before).arg(left).arg(PAGE_BYTES).arg(self.home());
            let mut answer = Fields::of(self.pool.run(call).await?)?;
            let walked = answer.count()?;
            oldest = answer.optional_id()?.or(oldest);
            left = if answer.count()? == 1 { 0 } else { left.saturating_sub(walked) };
        }
        Ok(oldest)
    }

    async fn page(&self, call: Call) -> Result<Page, StoreError> {
        scripts::page(self.pool.run(call).await?)
    }
}

#[async_trait]
impl EventLog for RedisStore {
    async fn publish(&self, stream: &StreamName, draft: &Draft) -> Result<Published, StoreError> {
        let mut attempts = self.shards.attempts();
        loop {
            let open = attempts.shard(|| slot_of_stream(stream))?.lanes().of(stream).open().await?;
            let direct_publish = self.direct.begin(stream, draft, &open.clock, Some(&open.order));
            let answer = open.run(&self.publish_call(stream, draft, direct_publish.as_ref())).await;
            // A call that was redirected is over, and holds up no event behind it.
            let redirect = self.shards.redirect(&answer);
            let published = self.direct.end(direct_publish, stream, draft, answer);
            if redirect.is_none() || !attempts.follow(redirect).await {
                return published;
            }
        }
    }

    async fn publish_all(&self, batch: &[(StreamName, Draft)]) -> Vec<Result<Published, StoreError>> {
        // Each event leaves nodes out from when it is sent, and goes to them when it is answered. Were it at the
        // end of a large batch, the first events could have left the log by then.
        let items: Vec<_> = batch.iter().map(|(stream, draft)| (stream, draft, Mutex::default())).collect();
        let call = |open: &Open, (stream, draft, place): &(&StreamName, &Draft, Mutex<Option<DirectPublish>>)| {
            let direct_publish = self.direct.begin(stream, draft, &open.clock, Some(&open.order));
            let call = self.publish_call(stream, draft, direct_publish.as_ref());
            *place.lock() = direct_publish;
            call
        };
        let settle = |(stream, draft, place): &(&StreamName, &Draft, Mutex<Option<DirectPublish>>), answer| {
            self.direct.end(place.lock().take(), stream, draft, answer)
        };
        let withdrawn = |item: &(&StreamName, &Draft, Mutex<Option<DirectPublish>>)| {
            let place = item.2.lock().take();
            place.into_iter().for_each(DirectPublish::withdraw);
        };
        self.lanes.settle_by_stream(&items, |(stream, _, _)| *stream, call, withdrawn, settle).await
    }

    async fn publish_durably(
        &self,
        stream: &StreamName,
        draft: &Draft,
        durability: Durability,
    ) -> Result<Receipt, StoreError> {
        let touch = Call::command("PEXPIRE", &self.keys.of(stream).meta).arg(self.position_ms(stream));
        let mut attempts = self.shards.attempts();
        loop {
            let shard = attempts.shard(|| slot_of_stream(stream))?;
            let wait = durable::wait_for(&shard.durable, durability).await?;
            let mut session = shard.durable.session().await?;
            let direct_publish = self.direct.begin(stream, draft, &shard.clock, None);
            let publish = self.publish_call(stream, draft, direct_publish.as_ref());
            let answer = session.run(&publish).await;
            let redirect = self.shards.redirect(&answer);
            let published = self.direct.end(direct_publish, stream, draft, answer);
            if redirect.is_none() || !attempts.follow(redirect).await {
                return durable::wait(&mut session, published?, touch, wait, durability).await;
            }
        }
    }

    async fn publish_ephemeral(&self, stream: &StreamName, draft: &Draft) -> Result<u32, StoreError> {
        let keys = self.keys.of(stream);
        let call = Call::script(&scripts::PUBLISH_EPHEMERAL, &[&keys.nodes, &keys.meta])
            .arg(stream.as_str())
            .arg(&draft.data[..])
            .arg(draft.kind.as_str())
            .arg(self.keys.channels())
            .arg(self.home())
            .arg(excluded(draft))
            .arg(trace(draft))
            .arg(attributes(draft));
        scripts::count(self.lanes.run(stream, call).await?)
    }

    async fn sync(&self, stream: &StreamName, route: &Route, head: Option<EventId>) -> Result<Page, StoreError> {
        let sync = self.sync_call(stream, route, head);
        if route.noted {
            return self.synced(stream, self.lanes.run(stream, sync).await);
        }
        // Written down before the route exists, so that the node that cleans up after this one finds it.
        let touched = [&self.keys.streams(&route.node), &self.keys.lease(&route.node)];
        let note = Call::script(&scripts::NOTE, &touched.map(String::as_str));
        let note = note.arg(stream.as_str()).arg(millis(NOTES_LIVE));
        self.synced(stream, self.lanes.run_both(stream, note, sync).await)
    }

    async fn sync_each(&self, due: &[DueSync], answered: &OnAnswer<'_>) {
        // Those that are not noted are being attached, or their last sync failed.
        let (noted, others): (Vec<_>, Vec<_>) = due.iter().enumerate().partition(|(_, (_, route, _))| route.noted);
        let together = self.lanes.settle_by_stream(
            &noted,
            |(_, (stream, ..))| stream,
            |_, (_, (stream, route, head))| self.sync_call(stream, route, *head),
            |_| {},
            |(place, (stream, ..)), answer| answered(*place, self.synced(stream, answer)),
        );
        let alone = others.into_iter().map(async |(place, (stream, route, head))| {
            answered(place, self.sync(stream, route, *head).await);
        });
        tokio::join!(together, join_all(alone));
    }

    async fn recover(
        &self,
        stream: &StreamName,
        head: EventId,
        epoch: EventId,
        seen: &[EventId],
    ) -> Result<Page, StoreError> {
        let keys = self.keys.of(stream);
        let call = Call::script(&scripts::RECOVER, &[&keys.events, &keys.meta, &keys.collapse])
            .arg(head.to_string())
            .arg(epoch.to_string())
            .arg(random_step())
            .arg(self.position_ms(stream))
            .arg(PAGE_EVENTS)
            .arg(PAGE_BYTES)
            .arg(self.home());
        let call = seen.iter().fold(call, |call, id| call.arg(id.to_string()));
        scripts::page(self.lanes.run(stream, call).await?)
    }

    async fn detach(&self, stream: &StreamName, node: &NodeId, registration: Option<u64>) -> Result<(), StoreError> {
        let keys = self.keys.of(stream);
        let detach = Call::script(&scripts::DETACH, &[&keys.nodes, &keys.meta, &keys.connections])
            .arg(node.as_str())
            .arg(registration.map_or(String::new(), |registration| registration.to_string()));
        // Only when the route is gone: a stream with a route that its node's set does not name would be
        // forgotten by the clean-up.
        if self.lanes.run(stream, detach).await? == Value::Int(1) {
            let forget = Call::command("SREM", &self.keys.streams(node)).arg(stream.as_str());
            self.lanes.run(stream, forget).await?;
        }
        Ok(())
    }

    async fn read(&self, stream: &StreamName, start: Start, limit: usize) -> Result<Page, StoreError> {
        let keys = self.keys.of(stream);
        let (kind, amount) = match start {
            Start::After(id) => ("after", id.to_string()),
            Start::Earliest => ("earliest", String::new()),
            Start::Since(ms) => ("since", ms.to_string()),
            Start::Last(count) => match self.walk_back(stream, count).await? {
                Some(oldest) => ("from", oldest.to_string()),
                None => ("last", String::new()),
            },
        };
        let call = Call::script(&scripts::READ, &[&keys.events, &keys.meta, &keys.collapse])
            .arg(kind)
            .arg(amount)
            .arg(limit)
            .arg(PAGE_BYTES)
            .arg(self.home());
        self.page(call).await
    }

    async fn read_before(&self, stream: &StreamName, before: EventId, limit: usize) -> Result<Page, StoreError> {
        let keys = self.keys.of(stream);
        let call = Call::script(&scripts::READ_BEFORE, &[&keys.events, &keys.meta, &keys.collapse])
            .arg(before.to_string())
            .arg(limit)
            .arg(PAGE_BYTES)
            .arg(self.home());
        let mut page = self.page(call).await?;
        page.events.reverse();
        page.superseded.reverse();
        Ok(page)
    }

    async fn position(&self, stream: &StreamName) -> Result<Option<EventId>, StoreError> {
        let call = Call::script(&scripts::POSITION, &[&self.keys.of(stream).meta]).arg(self.home());
        scripts::position(self.lanes.run(stream, call).await?)
    }

    async fn acknowledge(&self, stream: &StreamName, id: Option<EventId>) -> Result<Standing, StoreError> {
        let keys = self.keys.of(stream);
        let call = Call::script(&scripts::ACKNOWLEDGE, &[&keys.events, &keys.meta, &keys.nodes])
            .arg(id.map_or(String::new(), |id| id.to_string()))
            .arg(self.home());
        scripts::standing(self.lanes.run(stream, call).await?)
    }

    async fn inbox(&self, stream: &StreamName) -> Result<Inbox, StoreError> {
        let keys = self.keys.of(stream);
        let (mut pending, mut from) = (0, String::new());
        // A page at a time, so that a large inbox does not hold up the store.
        loop {
            let call = Call::script(&scripts::INBOX, &[&keys.events, &keys.meta, &keys.collapse, &keys.nodes])
                .arg(&from)
                .arg(PAGE_EVENTS)
                .arg(PAGE_BYTES)
                .arg(self.home());
            let (inbox, next) = scripts::inbox(self.pool.run(call).await?)?;
            pending += inbox.pending;
            match next {
                Some(next) => from = next.to_string(),
                None => return Ok(Inbox { pending, ..inbox }),
            }
        }
    }

    async fn erase(&self, stream: &StreamName) -> Result<(), StoreError> {
        let keys = self.keys.of(stream);
        let call = Call::script(
            &scripts::ERASE,
            &[
                &keys.events,
                &keys.nodes,
                &keys.meta,
                &keys.collapse,
                &self.keys.send_history(stream),
                &keys.connections,
            ],
        )
        .arg(stream.as_str())
        .arg(random_step())
        .arg(self.position_ms(stream))
        .arg(self.keys.channels())
        .arg(self.home());
        self.lanes.run(stream, call).await.map(drop)
    }

    async fn import(&self, stream: &StreamName, part: &Part) -> Result<Imported, StoreError> {
        let (keys, retention) = (self.keys.of(stream), self.rules.of(stream));
        let text = |id: Option<EventId>| id.map_or(String::new(), |id| id.to_string());
        let call = Call::script(&scripts::IMPORT, &[&keys.events, &keys.meta, &keys.collapse])
            .arg(text(part.after))
            .arg(part.epoch.to_string())
            .arg(part.last.to_string())
            .arg(text(part.acked))
            .arg(text(part.erased))
            .arg(retention.events)
            .arg(millis(retention.time))
            .arg(self.position_ms(stream))
            .arg(self.home());
        let call = part.events.iter().fold(call, with_entry);
        match scripts::text(self.lanes.run(stream, call).await?)?.as_str() {
            "taken" => Ok(Imported::Taken),
            "known" => Ok(Imported::Known),
            last => last.parse().map(Imported::InUse).map_err(|_| scripts::nonsense("what became of a part")),
        }
    }

    async fn relay(&self, node: &NodeId, stream: &StreamName, id: EventId) -> Result<(), StoreError> {
        let keys = self.keys.of(stream);
        let call = Call::script(&scripts::RELAY, &[&keys.events, &keys.nodes])
            .arg(stream.as_str())
            .arg(id.to_string())
            .arg(node.as_str())
            .arg(self.keys.channels());
        self.lanes.run(stream, call).await.map(drop)
    }
}

/// Adds an event to a call, as it stands in the log: its id, the number of words, and the words.
fn with_entry(call: Call, event: &Event) -> Call {
    let mut words: Vec<(&str, Bytes)> = vec![("d", event.data.clone()), ("p", event.prev.to_string().into())];
    if !event.kind.is_message() {
        words.push(("t", event.kind.as_str().to_owned().into()));
    }
    words.extend(event.expires_ms.map(|ms| ("x", ms.max(1).to_string().into())));
    words.extend(event.collapse.as_deref().map(|key| ("c", key.to_owned().into())));
    words.extend(event.exclude.map(|connection| ("e", connection.to_string().into())));
    words.extend(event.trace().map(|trace| ("w", trace.to_string().into())));
    words.extend(event.attributes.as_ref().map(|attributes| ("a", attributes.as_str().to_owned().into())));
    let call = call.arg(event.id.to_string()).arg(2 * words.len());
    words.into_iter().fold(call, |call, (name, value)| call.arg(name).arg(&value[..]))
}
