//! What waits to be written to one connection.
//!
//! Frames wait in `waiting`, shared with all connections that get the same event. Shortly before they are
//! written they are staged: only then is it certain which frames precede them, so only then can the
//! cursor of a connection with several streams be composed.

use std::io::IoSlice;

use bytes::Bytes;

use super::Framing;
use super::frame::{Frame, NEVER};
use super::queue::Queue;
use crate::dispatch::Slot;
use crate::model::{Cursor, EventId, StreamName};

/// Most frames that go out in one vectored write. Linux takes up to 1024 slices; what is gained beyond
/// some dozens is nothing against the size of the socket's buffer.
const STAGED: usize = 64;

/// After so many events that the client's filter left out, it is sent the cursor, so that a resume need not
/// read over them again.
const SILENT_RUN: u32 = 500;

/// A stream that a connection follows.
#[derive(Debug, Clone)]
pub struct Following {
    pub slot: Slot,
    pub stream: StreamName,
    /// The id of the newest frame that was staged.
    pub position: EventId,
    /// The position moved without a frame since the client last received it.
    silent: bool,
}

impl Following {
    /// A stream that is followed from right after `position`.
    pub fn new(slot: Slot, stream: StreamName, position: EventId) -> Self {
        Following { slot, stream, position, silent: false }
    }
}

/// The bounded queue of one connection.
#[derive(Debug)]
pub struct Outbox {
    following: Vec<Following>,
    waiting: Queue<Frame>,
    staged: Queue<Bytes>,
    /// Bytes of the first staged frame that are written already.
    written: usize,
    /// Bytes that wait, staged ones included.
    bytes: usize,
    limit: usize,
    framing: Framing,
    /// The largest frame that was refused since there was room.
    refused: u32,
    /// Bytes that wait, as far as they were counted.
    counted: u32,
    /// Silent frames staged since a cursor was last written.
    silent: u32,
}

impl Outbox {
    /// An empty outbox that takes frames until `limit` bytes wait.
    pub fn new(limit: usize, following: Vec<Following>, framing: Framing) -> Self {
        Outbox {
            following,
            waiting: Queue::new(),
            staged: Queue::new(),
            written: 0,
            bytes: 0,
            limit,
            framing,
            refused: 0,
            counted: 0,
            silent: 0,
        }
    }

    /// Whether [`Outbox::offer`] would take this frame.
    pub fn has_room_for(&self, frame: &Frame) -> bool {
        self.bytes == 0 || self.bytes + frame.len() <= self.limit
    }

    /// Takes a frame if there is room. An empty outbox takes one frame of any size, or an event larger
    /// than the limit could never be delivered.
    pub fn offer(&mut self, frame: Frame) -> bool {
        if !self.has_room_for(&frame) {
            self.refused = self.refused.max(saturated(frame.len()));
            return false;
        }
        self.push(frame);
        true
    }

    /// Takes a frame in any case: notices that must not be lost, and are few.
    pub fn push(&mut self, frame: Frame) {
        self.bytes += frame.len();
        if let Frame::Silent { slot, id } = frame {
            // One for each stream at most stands at the end of the queue, however many are left out.
            let run = self.waiting.newest_first().map_while(|waiting| match waiting {
                Frame::Silent { slot, id } => Some((*slot, id)),
                _ => None,
            });
            if let Some((_, last)) = run.into_iter().find(|(known, _)| *known == slot) {
                *last = id;
                self.silent += 1;
                return;
            }
        }
        self.waiting.push(frame);
    }

    /// Whether nothing waits to be written.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0 && self.waiting.is_empty()
    }

    /// Whether temporary dispatchers that were refused had better try again. What was refused fits then:
    /// otherwise they would try in a circle, and keep the connection's own task from running.
    pub fn has_room(&self) -> bool {
        self.bytes == 0 || (self.bytes <= self.limit / 2 && self.bytes + self.refused as usize <= self.limit)
    }

    /// The same, for the caller that notifies them: what is refused from now on counts anew.
    pub fn take_room(&mut self) -> bool {
        let room = self.has_room();
        if room {
            self.refused = 0;
        }
        room
    }

    /// By how many bytes more or less waits than when this was asked last.
    pub fn take_change(&mut self) -> i64 {
        let now = saturated(self.bytes);
        i64::from(now) - i64::from(std::mem::replace(&mut self.counted, now))
    }

    /// The sum of all changes.
    pub fn counted(&self) -> i64 {
        i64::from(self.counted)
    }

    /// Whether so much waits that the client's own requests had better wait too.
    pub fn is_full(&self) -> bool {
        self.bytes > self.limit
    }

    /// The streams and their positions.
    pub fn following(&self) -> &[Following] {
        &self.following
    }

    /// Follows one more stream.
    pub fn follow(&mut self, following: Following) {
        self.following.push(following);
    }

    /// Stops following `slot`. What waits of it is still written.
    pub fn unfollow(&mut self, slot: Slot) -> Option<Following> {
        let at = self.following.iter().position(|following| following.slot == slot)?;
        Some(self.following.swap_remove(at))
    }

    /// Whether `slot` is followed.
    pub fn follows(&self, slot: Slot) -> bool {
        self.following.iter().any(|following| following.slot == slot)
    }

    /// The streams whose positions the client does not know, because it was not given the events that moved
    /// them. The caller sends them.
    pub fn take_silent(&mut self) -> Vec<(StreamName, EventId)> {
        if std::mem::take(&mut self.silent) == 0 {
            return Vec::new();
        }
        let silent = |following: &mut Following| {
            std::mem::take(&mut following.silent).then(|| (following.stream.clone(), following.position))
        };
        self.following.iter_mut().filter_map(silent).collect()
    }

    /// The connection's cursor: positions of what was staged.
    pub fn cursor(&self) -> Cursor {
        Cursor::of(self.following.iter().map(|following| (&following.stream, following.position)))
    }

    /// Stages what fits into one write, apart from what has expired by `now_ms`. Returns true when the client's
    /// positions had better be sent.
    pub fn stage(&mut self, now_ms: impl Fn() -> u64) -> bool {
        while self.staged.len() < STAGED
            && let Some(frame) = self.waiting.pop()
        {
            match self.unless_expired(frame, &now_ms) {
                Frame::Bare(body) => self.staged.push(body),
                Frame::Event { slot, id, body, .. } => {
                    self.moved(slot, id, false);
                    if self.silent > 0 && !self.following.iter().any(|following| following.silent) {
                        self.silent = 0;
                    }
                    self.staged.push(body);
                }
                Frame::WithCursor { slot, id, body, .. } => {
                    self.moved(slot, id, false);
                    if self.silent > 0 {
                        // The cursor has the positions of all streams.
                        self.following.iter_mut().for_each(|following| following.silent = false);
                        self.silent = 0;
                    }
                    self.stage_with_line(format!("id: {}\n", self.cursor()), body);
                }
                Frame::Stop(body) => self.stage_with_line(format!("id: {}\n", self.cursor().stopped()), body),
                Frame::Silent { slot, id } => {
                    self.moved(slot, id, true);
                    self.silent += 1;
                }
                Frame::Mark(mark) if self.staged.is_empty() => {
                    if mark.expires_ms == NEVER || mark.expires_ms > now_ms() {
                        mark.observer.written(mark.transport, mark.begun);
                    }
                }
                // Not before all in front of it is written.
                mark @ Frame::Mark(_) => {
                    self.waiting.put_back(mark);
                    break;
                }
            }
        }
        self.waiting.is_empty() && self.silent >= SILENT_RUN
    }

    fn stage_with_line(&mut self, line: String, body: Bytes) {
        self.bytes -= body.len();
        for piece in self.framing.with_line(line, body) {
            self.bytes += piece.len();
            self.staged.push(piece);
        }
    }

    /// The frame, or what is left of one that waited for too long.
    fn unless_expired(&mut self, frame: Frame, now_ms: impl Fn() -> u64) -> Frame {
        match frame {
            Frame::Event { slot, id, expires_ms, body } | Frame::WithCursor { slot, id, expires_ms, body }
                if expires_ms != NEVER && expires_ms <= now_ms() =>
            {
                self.bytes -= body.len();
                Frame::Silent { slot, id }
            }
            frame => frame,
        }
    }

    fn moved(&mut self, slot: Slot, id: EventId, silent: bool) {
        if let Some(following) = self.following.iter_mut().find(|following| following.slot == slot) {
            following.position = id;
            following.silent = silent;
        }
    }

    /// What is staged if it is one piece: an ordinary write then does, which is cheaper.
    pub fn only_slice(&self) -> Option<&[u8]> {
        let first = self.staged.front()?;
        (self.staged.len() == 1).then(|| &first[self.written..])
    }

    /// What is staged, for a vectored write.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(self.staged.iter()) {
            *slice = IoSlice::new(if count == 0 { &bytes[self.written..] } else { bytes });
            count += 1;
        }
        count
    }

    /// So many bytes of what was staged are written. Returns how many frames that completes.
    pub fn advance(&mut self, mut count: usize) -> usize {
        self.bytes -= count;
        let mut frames = 0;
        while let Some(first) = self.staged.front() {
            let rest = first.len() - self.written;
            if count < rest {
                self.written += count;
                break;
            }
            count -= rest;
            self.written = 0;
            self.staged.pop();
            frames += 1;
        }
        frames
    }
}

/// As bytes are remembered: each connection has some of these.
fn saturated(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
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
            outbox.offer(Frame::WithCursor {
                slot,
                id: EventId::new(ms, 0),
                expires_ms: NEVER,
                body: chunk(b"body\n"),
            });
        }
        let written = write_all(&mut outbox, 7);
        let cursors: Vec<Cursor> =
            written.lines().filter_map(|line| line.strip_prefix("id: ")).map(|text| text.parse().unwrap()).collect();
        let (a, b) = ("topic:a".parse().unwrap(), "topic:b".parse().unwrap());
        let positions: Vec<_> =
            cursors.iter().map(|c| (c.position(&a).unwrap().ms, c.position(&b).unwrap().ms)).collect();
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
}
