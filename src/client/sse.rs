//! Reading Server-Sent Events: bytes in, frames out, as the HTML standard has it.
//!
//! Ours, because the crate for it loses a `retry:` that stands in a block without data, which is how a
//! server in distress names a time to come back; it also has no bound on the length of a line and panics at
//! a byte order mark.

use std::collections::VecDeque;
use std::time::Duration;

/// The largest event that a server may be configured to take is 64 MiB; its envelope comes on top.
const MAX_FRAME_BYTES: usize = 65 * 1024 * 1024;

/// One dispatched event of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The `event:` field, empty when there was none.
    pub event: String,
    /// The `data:` lines, joined by line feeds.
    pub data: String,
    /// The last event id as of this frame: that of the newest `id:` field, in whichever frame it stood.
    /// `None` as long as there was none.
    pub id: Option<String>,
}

/// More came without an end of the frame than any event can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {MAX_FRAME_BYTES} bytes")]
pub struct TooLong;

/// Takes bytes as they come from the socket, however they are cut.
#[derive(Debug, Default)]
pub struct Decoder {
    line: Vec<u8>,
    /// The last byte was a CR: an LF right after it belongs to the same line end.
    after_cr: bool,
    /// The first line was seen; only before it may a byte order mark stand.
    begun: bool,
    event: String,
    data: String,
    id: Option<String>,
    retry: Option<Duration>,
    frames: VecDeque<Frame>,
}

impl Decoder {
    /// Reads on. The frames that became complete wait in [`Decoder::next`].
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), TooLong> {
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.line.extend_from_slice(&bytes[..end]);
            let cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if cr {
                self.after_cr = bytes.is_empty();
                bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
            let line = std::mem::take(&mut self.line);
            self.take_line(&line);
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() + self.data.len() > MAX_FRAME_BYTES { Err(TooLong) } else { Ok(()) }
    }

    /// The next complete frame.
    pub fn next(&mut self) -> Option<Frame> {
        self.frames.pop_front()
    }

    /// The newest `retry:` since the last call, wherever it stood.
    pub fn take_retry(&mut self) -> Option<Duration> {
        self.retry.take()
    }

    fn take_line(&mut self, line: &[u8]) {
        let mut line = line;
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        // The standard decodes with replacement characters, so a bad byte is not the end of the stream.
        let line = String::from_utf8_lossy(line);
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry = value.parse().ok().map(Duration::from_millis).or(self.retry);
            }
            // A comment has an empty field name; unknown fields are ignored.
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        let event = std::mem::take(&mut self.event);
        let mut data = std::mem::take(&mut self.data);
        // The last line feed ends the last line. Without any `data:` there is no event.
        if data.pop().is_some() {
            self.frames.push_back(Frame { event, data, id: self.id.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(event: &str, data: &str, id: Option<&str>) -> Frame {
        Frame { event: event.into(), data: data.into(), id: id.map(str::to_owned) }
    }

    fn decode(bytes: &[u8], cut: usize) -> (Vec<Frame>, Option<Duration>) {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for chunk in bytes.chunks(cut) {
            decoder.feed(chunk).unwrap();
            frames.extend(std::iter::from_fn(|| decoder.next()));
        }
        (frames, decoder.take_retry())
    }

    #[test]
    fn frames_are_read_however_the_bytes_are_cut_and_lines_end() {
        let text = "\u{feff}retry: 1500\n\n: hello\nevent: whimbrel:position\ndata: {}\nid: 5-1\n\n\
                    data: {\ndata:\ndata:  \"ü\":1}\n:\n\nid: 5-2\n\nevent\ndata\n\nid\ndata: x\n\ndata: unfinished\n";
        let expected = vec![
            frame("whimbrel:position", "{}", Some("5-1")),
            frame("", "{\n\n \"ü\":1}", Some("5-1")),
            // An id in a block of its own counts from the next frame on.
            frame("", "", Some("5-2")),
            frame("", "x", Some("")),
        ];
        for end in ["\n", "\r", "\r\n"] {
            let bytes = text.replace('\n', end);
            for cut in 1..bytes.len() {
                let (frames, retry) = decode(bytes.as_bytes(), cut);
                assert_eq!(frames, expected, "cut {cut}, line end {end:?}");
                assert_eq!(retry, Some(Duration::from_millis(1500)), "a retry needs no data beside it");
            }
        }
    }

    #[test]
    fn a_frame_without_end_is_refused_before_it_fills_the_memory() {
        let mut decoder = Decoder::default();
        let chunk = vec![b'x'; 1024 * 1024];
        assert!((0..70).any(|_| decoder.feed(&chunk) == Err(TooLong)));
    }
}
