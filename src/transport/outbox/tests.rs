//! What the outbox takes, what it gives to be written, and what it refuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use super::*;
use crate::model::Observer;
use crate::transport::frame::WriteMark;
use crate::transport::framing::chunk;

fn following(names: &[&str]) -> Vec<Following> {
    let stream = |name: &&str| name.parse().unwrap();
    (0..).zip(names).map(|(slot, name)| Following::new(slot, stream(name), EventId::new(1, 0))).collect()
}

fn event(slot: Slot, ms: u64, body: &'static str) -> Frame {
    Frame::Event { slot, id: EventId::new(ms, 0), expires_ms: NEVER, body: body.into() }
}

/// Writes everything, `step` bytes at a time.
fn write_all(outbox: &mut Outbox, step: usize) -> String {
    let mut written = Vec::new();
    loop {
        outbox.stage(|| 0);
        let mut slices = [IoSlice::new(&[]); 8];
        let count = outbox.slices(&mut slices);
        if count == 0 {
            return String::from_utf8(written).unwrap();
        }
        let all: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
        let taken = all.len().min(step);
        written.extend_from_slice(&all[..taken]);
        outbox.advance(taken);
    }
}

#[test]
fn an_empty_outbox_takes_one_frame_of_any_size_and_then_no_more() {
    let mut outbox = Outbox::new(4, following(&["topic:a"]), Framing::Plain);
    assert!(outbox.offer(event(0, 2, "longer than the limit")));
    assert!(!outbox.offer(event(0, 3, "x")));
    assert!(!outbox.has_room());
    write_all(&mut outbox, 5);
    assert!(outbox.has_room() && outbox.is_empty());
    assert!(outbox.offer(event(0, 3, "x")));
}

#[test]
fn there_is_room_only_when_what_was_refused_fits() {
    let mut outbox = Outbox::new(10, following(&["topic:a"]), Framing::Plain);
    assert!(outbox.offer(event(0, 2, "abc")));
    assert!(outbox.has_room());
    assert!(!outbox.offer(event(0, 3, "12345678")));
    assert!(!outbox.has_room() && !outbox.take_room(), "little waits, but the refused one would not fit");
    outbox.stage(|| 0);
    outbox.advance(1);
    assert!(outbox.take_room());
    assert!(outbox.offer(event(0, 3, "12345678")));
    assert!(!outbox.offer(event(0, 4, "far more than the limit")) && !outbox.has_room());
    write_all(&mut outbox, 3);
    assert!(outbox.take_room(), "an empty outbox takes one frame of any size");
}

#[test]
fn an_event_is_recorded_as_written_once_its_last_byte_is_and_not_if_it_expired() {
    #[derive(Default)]
    struct Written(AtomicUsize);

    impl Observer for Written {
        fn dispatching(&self) {}

        fn admits_write(&self) -> bool {
            true
        }

        fn dispatched(&self, _: usize) {}

        fn written(&self, _: &'static str, _: SystemTime) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    let written = Arc::<Written>::default();
    let mut outbox = Outbox::new(1000, following(&["topic:a"]), Framing::Plain);
    for (ms, expires_ms) in [(2, NEVER), (3, 5), (4, NEVER)] {
        outbox.push(Frame::Event { slot: 0, id: EventId::new(ms, 0), expires_ms, body: "four".into() });
        let mark = WriteMark { observer: written.clone(), transport: "sse", begun: SystemTime::now(), expires_ms };
        outbox.push(Frame::Mark(Box::new(mark)));
    }
    let now = |outbox: &mut Outbox, bytes: usize| {
        outbox.advance(bytes);
        outbox.stage(|| 9);
        written.0.load(Ordering::Relaxed)
    };
    assert_eq!((now(&mut outbox, 0), now(&mut outbox, 3), now(&mut outbox, 1)), (0, 0, 1));
    assert_eq!(outbox.only_slice(), Some(&b"four"[..]), "that of the third, as the second expired");
    assert_eq!(now(&mut outbox, 4), 2);
    assert!(outbox.is_empty());
}

#[test]
fn partial_writes_lose_and_repeat_nothing() {
    for step in 1..12 {
        let mut outbox = Outbox::new(1000, following(&["topic:a"]), Framing::Plain);
        for (ms, body) in [(2, "first."), (3, "second."), (4, "third.")] {
            outbox.offer(event(0, ms, body));
        }
        assert_eq!(write_all(&mut outbox, step), "first.second.third.");
        assert_eq!(outbox.bytes, 0);
    }
}

#[test]
fn a_cursor_of_several_streams_names_only_what_goes_out_before_it() {
    let mut outbox = Outbox::new(1000, following(&["topic:a", "topic:b"]), Framing::Plain);
    for (slot, ms) in [(0, 5), (1, 7), (0, 9)] {
        outbox.offer(Frame::WithCursor { slot, id: EventId::new(ms, 0), expires_ms: NEVER, body: chunk(b"body\n") });
    }
    let written = write_all(&mut outbox, 7);
    let cursors: Vec<Cursor> =
        written.lines().filter_map(|line| line.strip_prefix("id: ")).map(|text| text.parse().unwrap()).collect();
    let (a, b) = ("topic:a".parse().unwrap(), "topic:b".parse().unwrap());
    let positions: Vec<_> = cursors.iter().map(|c| (c.position(&a).unwrap().ms, c.position(&b).unwrap().ms)).collect();
    assert_eq!(positions, [(5, 1), (5, 7), (9, 7)]);
}

#[test]
fn a_stop_mark_stands_at_what_went_out_before_it() {
    let mut outbox = Outbox::new(1000, following(&["topic:a"]), Framing::Plain);
    outbox.offer(event(0, 5, "five\n"));
    outbox.push(Frame::Stop(chunk(b"event: whimbrel:close\n")));
    assert_eq!(write_all(&mut outbox, 7), "five\nid: 5-0.stop\nevent: whimbrel:close\n");
}

#[test]
fn a_long_run_of_filtered_events_takes_no_room_and_moves_the_cursor() {
    let mut outbox = Outbox::new(1000, following(&["topic:a"]), Framing::Plain);
    for ms in 2..10_000 {
        assert!(outbox.offer(Frame::Silent { slot: 0, id: EventId::new(ms, 0) }));
    }
    assert!(outbox.waiting.len() <= 1);
    assert!(outbox.stage(|| 0), "the cursor is to be sent");
    assert_eq!(outbox.cursor(), Cursor::Single(EventId::new(9_999, 0)));
    assert!(outbox.is_empty());
}

#[test]
fn a_frame_that_expires_while_it_waits_moves_the_position_alone() {
    let mut outbox = Outbox::new(1000, following(&["topic:a"]), Framing::Plain);
    outbox.offer(event(0, 2, "first."));
    outbox.offer(Frame::Event { slot: 0, id: EventId::new(3, 0), expires_ms: 50, body: "late.".into() });
    outbox.offer(Frame::Event { slot: 0, id: EventId::new(4, 0), expires_ms: 51, body: "in time.".into() });
    outbox.offer(Frame::Event { slot: 0, id: EventId::new(5, 0), expires_ms: 50, body: "late too.".into() });
    outbox.stage(|| 50);
    assert_eq!(write_all(&mut outbox, 100), "first.in time.");
    assert_eq!(outbox.bytes, 0);
    assert_eq!(outbox.cursor(), Cursor::Single(EventId::new(5, 0)));
    assert_eq!(outbox.take_silent(), [("topic:a".parse().unwrap(), EventId::new(5, 0))]);
    assert_eq!(outbox.take_silent(), []);
}

#[test]
fn a_frame_tells_its_own_streams_position_and_no_others() {
    let mut outbox = Outbox::new(1000, following(&["topic:a", "topic:b"]), Framing::Plain);
    for slot in [0, 1] {
        outbox.offer(Frame::Silent { slot, id: EventId::new(2, 0) });
    }
    outbox.offer(event(0, 3, "a"));
    write_all(&mut outbox, 10);
    assert_eq!(outbox.take_silent(), [("topic:b".parse().unwrap(), EventId::new(2, 0))]);
    outbox.offer(Frame::Silent { slot: 1, id: EventId::new(4, 0) });
    outbox.offer(Frame::WithCursor { slot: 0, id: EventId::new(5, 0), expires_ms: NEVER, body: chunk(b"a") });
    write_all(&mut outbox, 10);
    assert_eq!(outbox.take_silent(), [], "the cursor had both");
}

#[test]
fn filtered_events_of_streams_in_turn_take_no_room_either() {
    let mut outbox = Outbox::new(1000, following(&["topic:a", "topic:b"]), Framing::Plain);
    outbox.offer(event(0, 2, "a client that takes nothing"));
    for ms in 3..10_000 {
        outbox.offer(Frame::Silent { slot: (ms % 2) as Slot, id: EventId::new(ms, 0) });
    }
    assert_eq!(outbox.waiting.len(), 3);
}

#[test]
fn what_waits_of_a_stream_that_was_left_is_still_written() {
    let mut outbox = Outbox::new(1000, following(&["topic:a", "topic:b"]), Framing::Plain);
    outbox.offer(event(1, 2, "b"));
    assert!(outbox.unfollow(1).is_some());
    assert!(!outbox.follows(1) && outbox.follows(0));
    assert_eq!(write_all(&mut outbox, 10), "b");
}
