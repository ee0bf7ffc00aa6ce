//! Where a listener wants to begin: the forms of `after` and of `Last-Event-ID`, and what they mean for each stream.

use std::collections::{HashMap, HashSet};

use hyper::HeaderMap;

use super::Problem;
use crate::hub::{AckError, After};
use crate::model::{Cursor, StreamKind, StreamName};

/// What an EventSource sends by itself when it comes back.
pub(super) fn last_event_id(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut given = headers.get_all("last-event-id").iter();
    let Some(value) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(Problem::bad_request("the Last-Event-ID is given more than once"));
    }
    if value.is_empty() {
        return Ok(None);
    }
    value.to_str().map(Some).map_err(|_| Problem::bad_request("the Last-Event-ID is not a cursor"))
}

/// Where to begin in each stream.
pub(super) fn positions(streams: Vec<StreamName>, after: &[&str]) -> Result<Vec<(StreamName, After)>, Problem> {
    let bad = |error: &dyn std::fmt::Display| Problem::bad_request(format!("the position: {error}"));
    let count = streams.len();
    let one_event = |id| {
        format!("'{id}' is the id of one event, but {count} streams are asked for; give the cursor, or STREAM/ID pairs")
    };
    let everywhere = |after: After| streams.iter().map(|stream| (stream.clone(), after)).collect();
    match after {
        [] => Ok(everywhere(After::Now)),
        [only] if !only.contains('/') => match only.parse::<After>() {
            Ok(After::Id(id)) if streams.len() > 1 => Err(bad(&one_event(id))),
            Ok(After::Ack) => acknowledged(streams).map_err(|error| bad(&error)),
            Ok(after) => Ok(everywhere(after)),
            // None of the words, nor an id: a cursor of several streams, or with a stop mark, or nothing at all.
            Err(error) => match only.parse::<Cursor>().map(|cursor| cursor.unmarked().1) {
                Ok(Cursor::Single(id)) if streams.len() > 1 => Err(bad(&one_event(id))),
                Ok(cursor) => Ok(streams
                    .into_iter()
                    .map(|stream| {
                        let after = cursor.position(&stream).map_or(After::Now, After::Id);
                        (stream, after)
                    })
                    .collect()),
                Err(damaged @ crate::model::CursorError::Damaged) => Err(bad(&damaged)),
                Err(_) => Err(bad(&error)),
            },
        },
        several => combined(streams, several),
    }
}

/// Cursors and `STREAM/ID` pairs together: each overrides those before it for the streams that it names.
fn combined(streams: Vec<StreamName>, values: &[&str]) -> Result<Vec<(StreamName, After)>, Problem> {
    let bad = |error: &dyn std::fmt::Display| Problem::bad_request(format!("the position: {error}"));
    let mut known: HashMap<StreamName, After> = HashMap::new();
    let mut paired = HashSet::new();
    for value in values {
        let Some((stream, after)) = value.split_once('/') else {
            let Ok(cursor @ Cursor::Several(_)) = value.parse::<Cursor>().map(|cursor| cursor.unmarked().1) else {
                let detail = format!(
                    "'{value}' is neither STREAM/ID nor the cursor of several streams; only those can be given together"
                );
                return Err(bad(&detail));
            };
            let positions = streams.iter().filter_map(|stream| Some((stream.clone(), cursor.position(stream)?)));
            known.extend(positions.map(|(stream, id)| (stream, After::Id(id))));
            continue;
        };
        let stream: StreamName = stream.parse().map_err(|error| bad(&error))?;
        let after: After = after.parse().map_err(|error| bad(&error))?;
        if after == After::Ack && stream.kind() == StreamKind::Topic {
            return Err(bad(&AckError::Topic(stream)));
        }
        if !paired.insert(stream.clone()) {
            return Err(bad(&format!("'{value}' is given after another for the same stream")));
        }
        known.insert(stream, after);
    }
    let place = |stream: StreamName| {
        let after = known.get(&stream).copied().unwrap_or(After::Now);
        (stream, after)
    };
    Ok(streams.into_iter().map(place).collect())
}

/// Devices at what they acknowledged, and topics, of which nothing is, at now.
fn acknowledged(streams: Vec<StreamName>) -> Result<Vec<(StreamName, After)>, AckError> {
    let is_device = |stream: &StreamName| stream.kind() == StreamKind::Device;
    match streams.first() {
        Some(topic) if !streams.iter().any(is_device) => Err(AckError::Topic(topic.clone())),
        _ => Ok(streams
            .into_iter()
            .map(|stream| {
                let after = if is_device(&stream) { After::Ack } else { After::Now };
                (stream, after)
            })
            .collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EventId;

    fn streams(names: &[&str]) -> Vec<StreamName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn afters(names: &[&str], after: &[&str]) -> Result<Vec<After>, String> {
        positions(streams(names), after)
            .map(|found| found.into_iter().map(|(_, after)| after).collect())
            .map_err(|problem| problem.to_string())
    }

    #[test]
    fn a_bare_event_id_with_several_streams_is_refused() {
        assert_eq!(afters(&["topic:a"], &["5-1"]), Ok(vec![After::Id(EventId::new(5, 1))]));
        assert!(afters(&["topic:a", "topic:b"], &["5-1"]).unwrap_err().contains("one event"));
        assert!(afters(&["topic:a", "topic:b"], &["5-1.stop"]).unwrap_err().contains("one event"));
    }

    #[test]
    fn a_cursor_places_the_streams_it_knows_and_the_others_at_now() {
        let known = streams(&["topic:a", "topic:gone"]);
        let cursor = Cursor::several(known.iter().map(|stream| (stream, EventId::new(7, 2)))).to_string();
        assert_eq!(afters(&["topic:a", "topic:b"], &[&cursor]), Ok(vec![After::Id(EventId::new(7, 2)), After::Now]));
        let cut = &cursor[..cursor.len() - 2];
        assert!(afters(&["topic:a"], &[cut]).unwrap_err().contains("damaged"));
    }

    #[test]
    fn a_stop_mark_does_not_matter_to_who_comes_back_on_purpose() {
        assert_eq!(afters(&["topic:a"], &["5-1.stop"]), Ok(vec![After::Id(EventId::new(5, 1))]));
        let known = streams(&["topic:a", "topic:b"]);
        let cursor = Cursor::several(known.iter().map(|stream| (stream, EventId::new(7, 2)))).stopped().to_string();
        assert_eq!(afters(&["topic:a", "topic:b"], &[&cursor]), Ok(vec![After::Id(EventId::new(7, 2)); 2]));
        assert!(afters(&["topic:a"], &["now.stop"]).is_err());
    }

    #[test]
    fn pairs_place_each_stream_on_its_own() {
        assert_eq!(
            afters(&["topic:a", "topic:b", "topic:c"], &["topic:b/5-1", "topic:a/earliest"]),
            Ok(vec![After::Earliest, After::Id(EventId::new(5, 1)), After::Now])
        );
        assert!(afters(&["topic:a"], &["topic:a/5-1", "now"]).is_err());
        assert!(afters(&["topic:a"], &["news/5-1"]).is_err());
    }

    #[test]
    fn of_cursors_and_pairs_together_the_later_ones_override_the_earlier() {
        let id = |seq| After::Id(EventId::new(7, seq));
        let cursor = |names: &[&str], seq| {
            let known = streams(names);
            Cursor::several(known.iter().map(|stream| (stream, EventId::new(7, seq)))).to_string()
        };
        let asked = ["topic:a", "topic:b", "topic:c", "topic:d"];
        let (old, new) = (cursor(&["topic:a", "topic:b", "topic:gone"], 1), cursor(&["topic:b"], 2));
        assert_eq!(afters(&asked, &[&old, "topic:c/last:5", &new]), Ok(vec![id(1), id(2), After::Last(5), After::Now]));
        assert_eq!(afters(&asked[..1], &["topic:a/earliest", &old]), Ok(vec![id(1)]));
        assert_eq!(afters(&asked[..1], &[&old, "topic:a/earliest"]), Ok(vec![After::Earliest]));
        assert!(afters(&asked, &[&old, "7-1"]).unwrap_err().contains("neither"));
        assert!(afters(&asked, &["topic:a/7-1", "topic:a/7-2"]).unwrap_err().contains("same stream"));
    }

    #[test]
    fn words_hold_for_every_stream() {
        assert_eq!(afters(&["topic:a", "topic:b"], &["last:3"]), Ok(vec![After::Last(3); 2]));
        assert_eq!(afters(&["device:a", "topic:b"], &["ack"]), Ok(vec![After::Ack, After::Now]));
        assert_eq!(afters(&[], &["ack"]), Ok(vec![]));
        assert!(afters(&["topic:a"], &["ack"]).unwrap_err().contains("topic:a"));
        assert!(afters(&["topic:a", "device:b"], &["topic:a/ack"]).unwrap_err().contains("topic:a"));
        assert!(afters(&["topic:a"], &["yesterday"]).unwrap_err().contains("earliest"));
    }
}
