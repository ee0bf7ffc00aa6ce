//! What goes out next: from a page of the stream to one request, as values.

use bytes::Bytes;
use ring::digest;

use super::Format;
use crate::dispatch::Delivery;
use crate::dispatch::chain::Chain;
use crate::model::{Event, EventId, Page};

/// Most events of a batch.
pub const MAX_EVENTS: usize = 100;

/// A batch takes no more events once their data has so many bytes. Its first event may be of any size.
const MAX_BYTES: usize = 64 * 1024;

/// What comes after a place in the stream.
#[derive(Debug)]
pub enum Next {
    /// Nothing yet.
    Nothing,
    /// Only events whose time is up: delivery goes on behind them.
    Passed(Chain),
    /// What is to be sent.
    Batch(Batch),
}

/// One request.
#[derive(Debug)]
pub struct Batch {
    /// Identifies the body: the same for every node and every attempt.
    pub id: String,
    /// JSON.
    pub body: Bytes,
    /// How many events it has.
    pub events: usize,
    /// Whether it reports a gap.
    pub gap: bool,
    /// When the oldest of its events was stored, on the store's clock.
    pub oldest_ms: Option<u64>,
    /// Where the stream goes on after it.
    pub after: Chain,
}

/// What comes after `place`, by a page that was read there. A batch ends at `until`, if that is given: so far it
/// went when it was sent before.
pub fn next(place: Chain, page: &Page, until: Option<EventId>, format: Format) -> Next {
    let mut after = place;
    let steps = after.read(page);
    let (mut events, mut gap, mut bytes): (Vec<&Event>, _, _) = (Vec::new(), None, 0);
    let most = if format.is_single() { 1 } else { MAX_EVENTS };
    for step in &steps {
        let full = match &step.delivery {
            // A gap stands in front of the events that come after it.
            Delivery::Gap(found) => match events.is_empty() && gap.is_none() {
                true => {
                    gap = Some(found);
                    false
                }
                false => true,
            },
            Delivery::Event(event) => {
                let beyond = until.is_some_and(|until| event.id > until);
                let gap_is_all = format.is_single() && gap.is_some();
                let full = gap_is_all || events.len() == most || (!events.is_empty() && bytes >= MAX_BYTES);
                if !beyond && !full && !event.is_expired(page.now_ms) {
                    bytes += event.data.len();
                    events.push(event);
                }
                beyond || full
            }
            Delivery::Passed(_) | Delivery::Position(_) | Delivery::Ephemeral(_) => false,
        };
        if full {
            after = step.resume;
            break;
        }
    }
    if events.is_empty() && gap.is_none() {
        return if after == place { Next::Nothing } else { Next::Passed(after) };
    }
    let body = format.body(&events, gap);
    Next::Batch(Batch {
        id: id_of(&body),
        body: body.into(),
        events: events.len(),
        gap: gap.is_some(),
        oldest_ms: events.first().map(|event| event.id.ms),
        after,
    })
}

/// A digest of the body. No two batches have the same one, as no two events have the same id; and whoever makes
/// the same batch again gives it the same name.
fn id_of(body: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, body);
    let hex: String = digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("whimbrel_{hex}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::EventType;

    fn id(n: u64) -> EventId {
        EventId::new(n, 1)
    }

    /// Events `range`, each of so many bytes, read after `from`.
    fn page(from: u64, range: std::ops::Range<u64>, bytes: usize) -> Page {
        let data = format!("\"{}\"", "x".repeat(bytes));
        let event =
            |n| Arc::new(Event::new(id(n), id(n - 1), "connected".parse::<EventType>().unwrap(), data.clone().into()));
        Page {
            from: id(from),
            last: id(range.end - 1),
            first: Some(id(range.start)),
            events: range.map(event).collect(),
            superseded: Vec::new(),
            more: false,
            erased: None,
            epoch: id(1),
            fork: None,
            marks: Default::default(),
            now_ms: 1000,
        }
    }

    fn batch(place: Chain, page: &Page, until: Option<EventId>) -> Batch {
        match next(place, page, until, Format::Whimbrel) {
            Next::Batch(batch) => batch,
            other => panic!("{other:?}"),
        }
    }

    fn body(batch: &Batch) -> serde_json::Value {
        serde_json::from_slice(&batch.body).unwrap()
    }

    #[test]
    fn a_batch_holds_events_as_the_api_shows_them() {
        let batch = batch(Chain::at(id(4)), &page(4, 5..6, 1), None);
        let expected = "{\"events\":[{\"id\":\"5-1\",\"type\":\"connected\",\"time\":\"1970-01-01T00:00:00.005Z\",\
                        \"data\":\"x\"}],\"gap\":null}";
        assert_eq!((&batch.body[..], batch.after.position()), (expected.as_bytes(), id(5)));
    }

    #[test]
    fn a_batch_is_full_at_so_many_events_or_bytes_and_the_next_goes_on_there() {
        let full = batch(Chain::at(id(4)), &page(4, 5..205, 1), None);
        assert_eq!((full.events, full.after.position()), (MAX_EVENTS, id(104)));
        let rest = batch(full.after, &page(104, 105..205, 1), None);
        assert_eq!((rest.events, rest.after.position()), (MAX_EVENTS, id(204)));
        let large = batch(Chain::at(id(4)), &page(4, 5..15, MAX_BYTES / 2), None);
        assert_eq!((large.events, large.after.position()), (2, id(6)));
        let huge = batch(Chain::at(id(4)), &page(4, 5..7, 2 * MAX_BYTES), None);
        assert_eq!(huge.events, 1);
    }

    #[test]
    fn what_is_sent_again_has_the_same_id_although_more_is_there_by_now() {
        let sent = batch(Chain::at(id(4)), &page(4, 5..8, 1), None);
        let again = batch(Chain::at(id(4)), &page(4, 5..50, 1), Some(sent.after.position()));
        assert_eq!((&again.id, &again.body, again.after), (&sent.id, &sent.body, sent.after));
        let next = batch(again.after, &page(7, 8..50, 1), None);
        assert!(next.id != sent.id && next.events == 42);
    }

    #[test]
    fn what_was_trimmed_before_it_was_sent_is_a_gap_in_front_of_what_is_left() {
        let batch = batch(Chain::at(id(4)), &page(4, 20..22, 1), None);
        let gap = serde_json::json!({"after": "4-1", "next": "20-1", "reason": "trimmed"});
        assert_eq!((&body(&batch)["gap"], batch.events, batch.gap), (&gap, 2, true));
        // So it is where all of what had been sent before is gone.
        let gone = super::tests::batch(Chain::at(id(4)), &page(4, 20..22, 1), Some(id(7)));
        assert_eq!((&body(&gone)["gap"], gone.events, gone.after.position()), (&gap, 0, id(19)));
        assert_eq!(super::tests::batch(gone.after, &page(19, 20..22, 1), None).events, 2);
    }

    #[test]
    fn a_log_that_is_gone_altogether_is_a_gap_without_events() {
        let mut gone = page(4, 5..10, 1);
        (gone.events, gone.first) = (Vec::new(), None);
        let batch = batch(Chain::at(id(4)), &gone, None);
        let gap = serde_json::json!({"after": "4-1", "next": "9-1", "reason": "expired"});
        assert_eq!(body(&batch), serde_json::json!({"events": [], "gap": gap}));
        assert_eq!(batch.after.position(), id(9));
        assert!(matches!(next(batch.after, &gone, None, Format::Whimbrel), Next::Nothing));
    }

    #[test]
    fn a_gap_in_the_middle_of_a_page_begins_another_batch() {
        let mut page = page(4, 5..10, 1);
        page.events.remove(2);
        let first = batch(Chain::at(id(4)), &page, None);
        assert_eq!((first.events, first.gap, first.after.position()), (2, false, id(6)));
        page.events.drain(..2);
        page.from = id(6);
        let second = batch(first.after, &page, None);
        assert_eq!((second.events, second.gap), (2, true));
    }

    #[test]
    fn a_single_cloudevent_is_an_event_or_a_gap_and_the_next_goes_on_behind_it() {
        let mut place = Chain::at(id(4));
        for (from, first, kind) in [(4, 20, "whimbrel:gap"), (19, 20, "connected"), (20, 21, "connected")] {
            let Next::Batch(batch) = next(place, &page(from, first..22, 1), None, Format::CloudEvent) else {
                panic!("nothing after {from}")
            };
            assert_eq!(body(&batch)["type"], kind);
            place = batch.after;
        }
        assert_eq!(place.position(), id(21));
        let Next::Batch(all) = next(Chain::at(id(4)), &page(4, 20..22, 1), None, Format::CloudEvents) else {
            panic!("nothing")
        };
        let all = body(&all);
        assert_eq!((all.as_array().unwrap().len(), &all[0]["type"]), (3, &"whimbrel:gap".into()));
    }

    #[test]
    fn an_event_whose_time_is_up_is_passed_over() {
        let mut page = page(4, 5..7, 1);
        for event in &mut page.events {
            Arc::make_mut(event).expires_ms = Some(999);
        }
        assert!(
            matches!(next(Chain::at(id(4)), &page, None, Format::Whimbrel), Next::Passed(after) if after.position() == id(6))
        );
    }

    #[test]
    fn data_that_is_not_json_holds_up_nothing() {
        let mut page = page(4, 5..7, 1);
        Arc::make_mut(&mut page.events[0]).data = "{".into();
        let events = body(&batch(Chain::at(id(4)), &page, None))["events"].clone();
        assert_eq!((&events[0]["data"], &events[1]["data"]), (&serde_json::Value::Null, &"x".into()));
    }
}
