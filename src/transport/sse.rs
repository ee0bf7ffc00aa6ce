//! Server-Sent Events: how events and notices are written.
//!
//! What connections share is a chunk, see [`Framing`]; what is one connection's own is a block, or a line of one.

use std::fmt::Write as _;

use bytes::Bytes;
use hyper::header::{self, HeaderName};
use uuid::Uuid;

use super::CloseReason;
use super::framing::{Framing, chunk};
use crate::cloudevents;
use crate::model::{Cursor, Encoding, Event, Gap, MemberNotice, StreamName, TraceParent};

/// A comment line, as a chunk. It has no empty line after it: some clients would make an empty event of that.
pub static PING: Bytes = Bytes::from_static(b"2\r\n:\n\r\n");

/// The ping as an event, as a chunk, for clients that can't see comments.
pub static HEARTBEAT: Bytes = Bytes::from_static(b"1f\r\nevent: whimbrel:ping\ndata: {}\n\n\r\n");

/// A position notice without its id line, as a chunk.
pub static POSITION: Bytes = Bytes::from_static(b"23\r\nevent: whimbrel:position\ndata: {}\n\n\r\n");

/// The notice that notices of members may have been missed.
pub const MISSED_MEMBERS: &str = "event: whimbrel:members\ndata: {\"reason\":\"missed\"}\n\n";

/// The first block: when and where to resume, the public id of the connection, and whether the oldest events of a
/// stream were asked for and are gone. In one piece, as some clients make an event of a block without data.
pub fn welcome(retry_ms: u64, cursor: &Cursor, connection: Uuid, complete: bool) -> String {
    let complete = if complete { "" } else { ",\"complete\":false" };
    let data = format!("{{\"connection\":\"{connection}\"{complete}}}");
    format!("retry: {retry_ms}\nid: {cursor}\nevent: whimbrel:position\ndata: {data}\n\n")
}

/// A position notice.
pub fn position(cursor: &Cursor) -> String {
    format!("id: {cursor}\nevent: whimbrel:position\ndata: {{}}\n\n")
}

/// The notice that the token ends.
pub const EXPIRING: &[u8] = b"event: whimbrel:expiring\ndata: {}\n\n";

/// The headers of every answer that is an event stream. A proxy that compressed it would hold events back.
pub const HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
    (header::CACHE_CONTROL, "no-store, no-transform"),
    (HeaderName::from_static("x-accel-buffering"), "no"),
    (header::VARY, "Accept"),
];

/// The answer's head. The connection is a listener's from here on, so it carries no other request.
pub fn head(framing: Framing, extra_headers: &str) -> String {
    let headers = HEADERS.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
    let framing = match framing {
        Framing::Chunked => "transfer-encoding: chunked\r\n",
        Framing::Plain => "",
    };
    format!("HTTP/1.1 200 OK\r\n{headers}{framing}connection: close\r\n{extra_headers}\r\n")
}

/// An event in one of the SSE encodings, as a chunk. Where its trace is named, envelopes have a member for it. Without
/// one it is a field that EventSource passes over, so that the data stays as published.
pub fn event(stream: &StreamName, event: &Event, trace: Option<TraceParent>, encoding: Encoding) -> Bytes {
    let mut block = Vec::with_capacity(event.data.len() + 160);
    if !encoding.is_shared() && !event.is_ephemeral() {
        block.extend_from_slice(format!("id: {}\n", event.id).as_bytes());
    }
    if !event.kind.is_message() {
        block.extend_from_slice(format!("event: {}\n", event.kind).as_bytes());
    }
    match encoding {
        Encoding::Sse => {
            if let Some(trace) = trace {
                block.extend_from_slice(format!("traceparent: {trace}\n").as_bytes());
            }
            block.extend_from_slice(b"data: ");
            put_lines(&mut block, &event.data);
        }
        Encoding::SseCloudEvent | Encoding::SseSharedCloudEvent => {
            block.extend_from_slice(b"data: ");
            put_lines(&mut block, &cloudevents::event(stream, event));
        }
        _ => put_envelope(&mut block, stream, event, trace),
    }
    block.extend_from_slice(b"\n\n");
    chunk(&block)
}

fn put_envelope(block: &mut Vec<u8>, stream: &StreamName, event: &Event, trace: Option<TraceParent>) {
    // Stream names, types and traces hold nothing that JSON would escape.
    let head = if event.is_ephemeral() {
        format!(r#"data: {{"stream":"{stream}","type":"{}","#, event.kind)
    } else {
        let (id, kind, time) = (event.id, &event.kind, event.time());
        format!(r#"data: {{"stream":"{stream}","id":"{id}","type":"{kind}","time":"{time}","#)
    };
    block.extend_from_slice(head.as_bytes());
    if let Some(trace) = trace {
        block.extend_from_slice(format!(r#""traceparent":"{trace}","#).as_bytes());
    }
    block.extend_from_slice(br#""data":"#);
    put_lines(block, &event.data);
    block.push(b'}');
}

/// JSON may hold line ends in its white space, nowhere else. Each begins a new `data:` line; a CR counts
/// as a line end in SSE and becomes LF.
fn put_lines(block: &mut Vec<u8>, data: &[u8]) {
    for (count, line) in data.split(|byte| matches!(byte, b'\n' | b'\r')).enumerate() {
        if count > 0 {
            block.extend_from_slice(b"\ndata: ");
        }
        block.extend_from_slice(line);
    }
}

/// A gap notice. It has no id line: the cursor moves with what comes after it.
pub fn gap(stream: &StreamName, gap: &Gap) -> String {
    format!("event: whimbrel:gap\ndata: {}\n\n", gap.to_json(stream, None))
}

/// A device joined a topic, or left it, as a chunk. It has no id line, as it moves no position.
pub fn member(notice: &MemberNotice) -> Bytes {
    chunk(format!("event: whimbrel:{}\ndata: {}\n\n", notice.kind(), notice.to_json(None)).as_bytes())
}

/// The notice that the server ends the stream, and when to come back.
pub fn close(reason: CloseReason, retry_ms: u64) -> String {
    let mut block = format!("retry: {retry_ms}\n");
    let _ =
        write!(block, "event: whimbrel:close\ndata: {{\"reason\":\"{}\",\"retry\":{retry_ms}}}\n\n", reason.as_str());
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EventId, EventType};

    fn inside(chunk: Bytes) -> String {
        String::from_utf8(Framing::Plain.shared(chunk).into()).unwrap()
    }

    #[test]
    fn fixed_frames_are_whole_chunks() {
        for fixed in [&PING, &HEARTBEAT, &POSITION] {
            assert_eq!(*fixed, chunk(inside(fixed.clone()).as_bytes()));
        }
    }

    fn encoded(kind: &str, data: &'static str, encoding: Encoding) -> String {
        let made = Event::new(
            EventId::new(1_763_795_000_000, 2731),
            EventId::ZERO,
            kind.parse::<EventType>().unwrap(),
            data.into(),
        );
        inside(event(&"topic:news".parse().unwrap(), &made, None, encoding))
    }

    #[test]
    fn a_trace_is_a_member_of_an_envelope_and_otherwise_a_field_of_its_own() {
        let traced = |encoding| {
            let id = EventId::new(1_763_795_000_000, 2731);
            let made = Event::new(id, EventId::ZERO, "price".parse().unwrap(), "5".into());
            let trace = TraceParent::new([10; 16], [11; 8], true);
            inside(event(&"topic:news".parse().unwrap(), &made, Some(trace), encoding))
        };
        let trace = "00-0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a-0b0b0b0b0b0b0b0b-01";
        assert_eq!(
            traced(Encoding::Sse),
            format!("id: 1763795000000-2731\nevent: price\ntraceparent: {trace}\ndata: 5\n\n")
        );
        let head = r#"{"stream":"topic:news","id":"1763795000000-2731","type":"price","#;
        let envelope = format!(r#"{head}"time":"2025-11-22T07:03:20.000Z","traceparent":"{trace}","data":5}}"#);
        assert_eq!(traced(Encoding::SseShared), format!("event: price\ndata: {envelope}\n\n"));
    }

    #[test]
    fn a_single_streams_event_is_its_data_with_the_id_as_cursor() {
        assert_eq!(encoded("message", r#"{"a":1}"#, Encoding::Sse), "id: 1763795000000-2731\ndata: {\"a\":1}\n\n");
        assert_eq!(encoded("price", "5", Encoding::Sse), "id: 1763795000000-2731\nevent: price\ndata: 5\n\n");
    }

    #[test]
    fn line_ends_in_white_space_become_data_lines() {
        assert_eq!(
            encoded("message", "{\n\"a\":\r1}", Encoding::Sse),
            "id: 1763795000000-2731\ndata: {\ndata: \"a\":\ndata: 1}\n\n"
        );
    }

    #[test]
    fn an_event_that_is_not_stored_has_no_id_and_no_time() {
        let made = Event::ephemeral("typing".parse::<EventType>().unwrap(), "5".into());
        let encoded = |encoding| inside(event(&"topic:a".parse().unwrap(), &made, None, encoding));
        assert_eq!(encoded(Encoding::Sse), "event: typing\ndata: 5\n\n");
        for encoding in [Encoding::SseEnvelope, Encoding::SseShared] {
            let expected = "event: typing\ndata: {\"stream\":\"topic:a\",\"type\":\"typing\",\"data\":5}\n\n";
            assert_eq!(encoded(encoding), expected);
        }
    }

    #[test]
    fn a_cloudevent_takes_the_place_of_the_data() {
        for (encoding, head) in [
            (Encoding::SseCloudEvent, "id: 1763795000000-2731\nevent: price\n"),
            (Encoding::SseSharedCloudEvent, "event: price\n"),
        ] {
            let block = encoded("price", "{\n\"a\":1}", encoding);
            let lines = block.strip_prefix(head).unwrap().trim_end().replace("data: ", "");
            let value: serde_json::Value = serde_json::from_str(&lines).unwrap();
            assert_eq!((&value["specversion"], &value["data"]["a"]), (&"1.0".into(), &1.into()), "{block}");
        }
    }

    #[test]
    fn an_envelope_names_stream_id_type_and_time() {
        let block = encoded("price", "5", Encoding::SseShared);
        let data = block.strip_prefix("event: price\ndata: ").unwrap().trim_end();
        let value: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"stream": "topic:news", "id": "1763795000000-2731", "type": "price",
                "time": "2025-11-22T07:03:20.000Z", "data": 5})
        );
    }
}
