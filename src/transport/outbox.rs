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
mod tests;
