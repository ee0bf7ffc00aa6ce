//! A stream that two regions have as their home: what the one that gives it up has to be added to the other.

use std::time::Duration;

use redis::Value;

use super::RedisStore;
use super::call::Call;
use super::scripts::{self, Fields};
use crate::model::{Attributes, Draft, EventType, StreamName, TraceParent};
use crate::store::StoreError;

/// Entries in a page, and bytes of data after which one ends.
const PAGE: (usize, usize) = (64, 64 * 1024);

/// For how long it is remembered that an event without an idempotency key of its own was added.
const REMEMBERED: Duration = Duration::from_secs(86_400);

/// Fields of an entry, with their values.
type Words = Vec<(String, Vec<u8>)>;

/// A page of what is to be added: events, and the entry up to which they are all that there is. Some entries are none:
/// what expired, and what is no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranded {
    /// To be published in this order.
    pub events: Vec<Draft>,
    /// The last entry.
    pub upto: String,
}

impl RedisStore {
    /// Gives up a stream that `to` has as its home too, as of the same `version`. False if it is not here.
    pub async fn cede(&self, stream: &StreamName, version: u32, to: &str) -> Result<bool, StoreError> {
        let keys = self.keys.of(stream);
        let call = Call::script(&scripts::CEDE, &[&keys.nodes, &keys.meta])
            .arg(version)
            .arg(to)
            .arg(stream.as_str())
            .arg(self.keys.channels());
        Ok(scripts::count(self.lanes.run(stream, call).await?)? == 1)
    }

    /// The next page of what it has to be added to its home `to`, where all up to `upto` is by now; `None` when
    /// nothing is left. `from` is what this region is called.
    pub async fn stranded(
        &self,
        stream: &StreamName,
        version: u32,
        (from, to): (&str, &str),
        upto: &str,
    ) -> Result<Option<Stranded>, StoreError> {
        let keys = self.keys.of(stream);
        let [members, roster] = self.keys.members(stream);
        let touched = [&keys.meta, &keys.events, &keys.nodes, &keys.collapse, &keys.connections, &members, &roster];
        let call = Call::script(&scripts::MERGE, &touched.map(String::as_str))
            .arg(version)
            .arg(to)
            .arg(upto)
            .arg(PAGE.0)
            .arg(PAGE.1)
            .arg(self.position_ms(stream));
        let mut answer = Fields::of(self.lanes.run(stream, call).await?)?;
        let Ok(now) = answer.next() else { return Ok(None) };
        let now_ms = understood::<String>(now)?.parse().map_err(|_| scripts::nonsense("a time"))?;
        let entries: Vec<(String, Words)> = understood(answer.next()?)?;
        let upto = entries.last().map(|(id, _)| id.clone()).unwrap_or_default();
        let events = entries.into_iter().filter_map(|(id, fields)| event(&id, fields, from, now_ms)).collect();
        Ok(Some(Stranded { events, upto }))
    }
}

/// The event as it is published once more: under the key that it had, so that its producer may repeat it, or under one
/// that is made of where it was, so that it is added once.
fn event(id: &str, fields: Words, from: &str, now_ms: u64) -> Option<Draft> {
    let (mut draft, mut has_data) = (Draft::new(EventType::MESSAGE, ""), false);
    for (name, value) in fields {
        let text = || String::from_utf8(value.clone()).ok();
        match name.as_str() {
            "d" => (draft.data, has_data) = (value.into(), true),
            "t" => draft.kind = text()?.parse().ok()?,
            "k" => draft.key = text(),
            "c" => draft.collapse = text(),
            "e" => draft.exclude = text()?.parse().ok(),
            "w" => draft.trace = TraceParent::read(&value),
            "a" => draft.attributes = Attributes::of_store(&text()?),
            "x" => {
                let left_ms = text()?.parse::<u64>().ok()?.checked_sub(now_ms).filter(|ms| *ms > 0)?;
                draft.ttl = Some(Duration::from_millis(left_ms));
            }
            _ => {}
        }
    }
    if draft.key.is_none() {
        draft.key = Some(format!("whimbrel:{from}:{id}"));
        draft.key_time = Some(REMEMBERED);
    }
    has_data.then_some(draft)
}

fn understood<T: redis::FromRedisValue>(answer: Value) -> Result<T, StoreError> {
    T::from_redis_value(answer).map_err(|error| StoreError::Protocol(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&str, &str)]) -> Option<Draft> {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        event("5-1", fields.collect(), "eu", 1000)
    }

    #[test]
    fn an_event_is_added_once_with_all_that_its_producer_said_of_it() {
        let draft =
            read(&[("d", "1"), ("p", "4-1"), ("t", "a"), ("c", "b"), ("x", "3000"), ("k", "order-1"), ("a", "{}")])
                .unwrap();
        let mut wanted = Draft::new("a".parse().unwrap(), "1");
        (wanted.key, wanted.collapse) = (Some("order-1".into()), Some("b".into()));
        (wanted.ttl, wanted.attributes) = (Some(Duration::from_secs(2)), Attributes::of_store("{}"));
        assert_eq!(draft, wanted);
        assert_eq!(read(&[("d", "1")]).unwrap().key.as_deref(), Some("whimbrel:eu:5-1"));
    }

    #[test]
    fn what_expired_and_what_is_no_event_is_passed_over() {
        assert_eq!(read(&[("d", "1"), ("x", "1000")]), None);
        assert_eq!(read(&[("p", "4-1")]), None);
        assert_eq!(read(&[("d", "1"), ("t", "\u{7}")]), None);
    }
}
