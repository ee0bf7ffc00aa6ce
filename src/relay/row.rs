//! What makes an event of a row.

use serde_json::value::RawValue;

use crate::client::{Entry, Options};
use crate::model::{EventType, StreamName, Ttl, json};

/// Most bytes of a row's data that are read: no batch can be larger.
pub const MAX_DATA_BYTES: i64 = 16 * 1024 * 1024;

/// Which row it is. An id may be given a second time, when a backup is restored or a replica without the newest rows
/// takes over; an id with its time of creation is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Its id.
    pub id: i64,
    /// When it was created, in microseconds since 1970.
    pub created_us: i64,
}

/// A row as it stands in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which one.
    pub mark: Mark,
    pub stream: String,
    pub kind: Option<String>,
    /// `None` where it is larger than [`MAX_DATA_BYTES`].
    pub data: Option<String>,
    pub key: Option<String>,
    pub ttl: Option<String>,
    pub collapse: Option<String>,
}

impl Row {
    /// The event of this row, or why there can be none. `outbox` is the fingerprint of the table, for the keys of rows
    /// that bring none.
    pub fn entry(&self, outbox: u64) -> Result<Entry, String> {
        let stream: StreamName = self.stream.parse().map_err(in_words)?;
        let kind: Option<EventType> = self.kind.as_deref().map(str::parse).transpose().map_err(in_words)?;
        let ttl: Option<Ttl> = self.ttl.as_deref().map(str::parse).transpose().map_err(in_words)?;
        let large = || format!("the data is larger than {MAX_DATA_BYTES} bytes");
        let data = self.data.as_deref().ok_or_else(large)?;
        json::check(data.as_bytes()).map_err(|error| format!("the data {error}"))?;
        let data: &RawValue = serde_json::from_str(data).map_err(|error| format!("the data is not JSON: {error}"))?;
        let options = Options { kind, ttl, collapse: self.collapse.clone(), durable: None };
        let Mark { id, created_us } = self.mark;
        let made = || format!("relay-{outbox:016x}-{id}-{created_us}");
        let key = self.key.clone().unwrap_or_else(made);
        Ok(Entry::new(&stream, data, &options, &key))
    }
}

fn in_words(error: impl ToString) -> String {
    error.to_string()
}

/// Of the rows that were chosen, in order of id, those that may be published: a row that could not be locked, as somebody
/// else has it, holds back the later ones of its stream.
pub fn in_order(chosen: &[(i64, String)], mut locked: Vec<Row>) -> Vec<Row> {
    locked.sort_unstable_by_key(|row| row.mark.id);
    let mut blocked = std::collections::HashSet::new();
    let mut rows = Vec::with_capacity(locked.len());
    let mut locked = locked.into_iter().peekable();
    for (id, stream) in chosen {
        match locked.next_if(|row| row.mark.id == *id) {
            // Its stream is the one that was chosen, unless somebody changed it in between.
            Some(row) if row.stream == *stream && !blocked.contains(stream) => rows.push(row),
            _ => _ = blocked.insert(stream),
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: i64, stream: &str) -> Row {
        Row {
            mark: Mark { id, created_us: 7 },
            stream: stream.into(),
            kind: None,
            data: Some(" {\"a\" : 1}\n".into()),
            key: None,
            ttl: None,
            collapse: None,
        }
    }

    #[test]
    fn a_row_is_an_event_with_its_options_and_a_key_of_its_own() {
        let sound = row(5, "device:42");
        let entry = format!("{:?}", sound.entry(0xab).unwrap()).replace('\\', "");
        assert!(entry.contains(r#""device":"42","key":"relay-00000000000000ab-5-7","data":{"a" : 1}"#), "{entry}");
        let full = Row {
            kind: Some("paid".into()),
            ttl: Some("60".into()),
            collapse: Some("c".into()),
            key: Some("order-7".into()),
            ..row(5, "topic:orders")
        };
        let entry = format!("{:?}", full.entry(0).unwrap()).replace('\\', "");
        assert!(entry.contains(r#""type":"paid","ttl":60,"collapse":"c","key":"order-7""#), "{entry}");
    }

    #[test]
    fn what_can_be_no_event_says_why() {
        for (bad, why) in [
            (row(1, "orders"), "device:NAME or topic:NAME"),
            (row(1, "topic:a b"), "allowed are"),
            (Row { kind: Some("open".into()), ..row(1, "topic:a") }, "event type"),
            (Row { ttl: Some("0".into()), ..row(1, "topic:a") }, "ttl"),
            (Row { data: Some("{oops".into()), ..row(1, "topic:a") }, "the data is not JSON"),
            (Row { data: Some("[".repeat(61) + &"]".repeat(61)), ..row(1, "topic:a") }, "nested deeper"),
            (Row { data: None, ..row(1, "topic:a") }, "larger than"),
        ] {
            let refusal = bad.entry(0).unwrap_err();
            assert!(refusal.contains(why), "{refusal}");
        }
    }

    #[test]
    fn a_row_that_somebody_else_has_holds_back_its_stream_and_no_other() {
        let chosen: Vec<_> = [(1, "a"), (2, "b"), (3, "a"), (4, "b"), (5, "c")].map(|(id, s)| (id, s.into())).into();
        let locked = vec![row(5, "c"), row(2, "b"), row(3, "a"), row(4, "b")];
        let ids: Vec<_> = in_order(&chosen, locked).iter().map(|row| row.mark.id).collect();
        assert_eq!(ids, [2, 4, 5]);
    }
}
