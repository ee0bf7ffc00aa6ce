//! The heads of requests, as they come in: finds those that two readers could read differently.
//!
//! A proxy in front and this node have to agree where a request ends, or a client could hide one request in the body
//! of another. hyper reads a request with a length and chunks by its chunks, drops the length before anybody sees it,
//! and takes a bare LF for a line's end. Here such a head is noticed, so that it can be refused and its connection
//! closed (RFC 9112, 2.2 and 6.3). Everything else that is wrong is left to hyper, which closes as well.

/// Most bytes of a line that are looked at: the fields that matter are shorter.
const LINE_BYTES: usize = 64;

/// Why a head is not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ambiguity {
    /// A length, and chunks.
    LengthAndChunks,
    /// More than one length.
    TwoLengths,
    /// A length that takes more room than any number needs.
    LongLength,
    /// A line that ends with LF alone.
    BareLineFeed,
}

impl Ambiguity {
    /// What is wrong, for the client.
    pub const fn as_str(self) -> &'static str {
        match self {
            Ambiguity::LengthAndChunks => "the request has both Content-Length and Transfer-Encoding",
            Ambiguity::TwoLengths => "the request has more than one Content-Length",
            Ambiguity::LongLength => "the Content-Length of the request has too many characters",
            Ambiguity::BareLineFeed => "a line of the request's head ends with LF instead of CRLF",
        }
    }
}

/// Where in a request the next byte is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Within {
    /// Before its first line.
    #[default]
    Start,
    /// In its head.
    Head,
    /// In a body of which so many bytes are left.
    Body(u64),
    /// In the line that says how long the next chunk is.
    ChunkSize(u64),
    /// In what follows on the size in its line.
    ChunkExtension(u64),
    /// In a chunk of which so many bytes are left, with the line's end behind it.
    Chunk(u64),
    /// In the fields behind the last chunk.
    Trailers,
    /// Past anything that hyper would take.
    Lost,
}

/// Follows the bytes of one connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RequestHeads {
    place: Within,
    /// The beginning of the line under way, in lower case.
    line: Vec<u8>,
    /// How long the line is so far, and whether its last byte is CR.
    length: usize,
    after_cr: bool,
    /// Of the head under way.
    body: Option<u64>,
    chunked: bool,
    ambiguity: Option<Ambiguity>,
    /// Heads that are whole, and requests that were served.
    count: u64,
    served: u64,
    /// The first that is not to be trusted, by its number from 1 on.
    found: Option<(u64, Ambiguity)>,
}

impl RequestHeads {
    /// The next bytes came.
    pub fn read(&mut self, mut bytes: &[u8]) {
        // Behind the first such head nothing is served.
        while self.found.is_none() && !bytes.is_empty() {
            let passed = match &mut self.place {
                Within::Lost => return,
                Within::Body(left) | Within::Chunk(left) => {
                    let passed = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= passed as u64;
                    passed
                }
                _ => {
                    self.byte(bytes[0]);
                    1
                }
            };
            bytes = &bytes[passed..];
            match self.place {
                Within::Body(0) => self.place = Within::Start,
                Within::Chunk(0) => self.place = Within::ChunkSize(0),
                _ => {}
            }
        }
    }

    /// The next request is served: why it is not to be trusted, if it is not.
    pub fn serve(&mut self) -> Option<Ambiguity> {
        self.served += 1;
        self.found.filter(|(found, _)| *found == self.served).map(|(_, why)| why)
    }

    fn byte(&mut self, byte: u8) {
        match (self.place, byte) {
            // Empty lines before a request mean nothing.
            (Within::Start, b'\r' | b'\n') => {}
            (Within::Start, _) => {
                self.place = Within::Head;
                self.put(byte);
            }
            (Within::Head, b'\n') => self.end_line(),
            (Within::Trailers, b'\n') => {
                if self.length == usize::from(self.after_cr) {
                    self.place = Within::Start;
                }
                self.start_line();
            }
            (Within::Head | Within::Trailers, _) => self.put(byte),
            (Within::ChunkSize(size), _) if byte.is_ascii_hexdigit() => {
                let digit = (byte as char).to_digit(16).map_or(0, u64::from);
                self.place = size.checked_mul(16).map_or(Within::Lost, |size| Within::ChunkSize(size + digit));
            }
            (Within::ChunkSize(0) | Within::ChunkExtension(0), b'\n') => {
                self.start_line();
                self.place = Within::Trailers;
            }
            (Within::ChunkSize(size) | Within::ChunkExtension(size), b'\n') => {
                self.place = size.checked_add(2).map_or(Within::Lost, Within::Chunk);
            }
            (Within::ChunkSize(size), _) => self.place = Within::ChunkExtension(size),
            (Within::ChunkExtension(_) | Within::Body(_) | Within::Chunk(_) | Within::Lost, _) => {}
        }
    }

    fn put(&mut self, byte: u8) {
        self.after_cr = byte == b'\r';
        self.length += 1;
        if self.line.len() < LINE_BYTES {
            self.line.push(byte.to_ascii_lowercase());
        }
    }

    fn start_line(&mut self) {
        self.line.clear();
        (self.length, self.after_cr) = (0, false);
    }

    fn end_line(&mut self) {
        if !self.after_cr {
            self.ambiguity.get_or_insert(Ambiguity::BareLineFeed);
        }
        let is_empty = self.length == usize::from(self.after_cr);
        if let Some(value) = self.line.strip_prefix(b"content-length:") {
            if self.body.is_some() {
                self.ambiguity.get_or_insert(Ambiguity::TwoLengths);
            }
            if self.length > LINE_BYTES {
                self.ambiguity.get_or_insert(Ambiguity::LongLength);
            }
            // What is no number is refused by hyper.
            let number = std::str::from_utf8(value).ok().and_then(|value| value.trim().parse().ok());
            self.body = Some(number.unwrap_or(u64::MAX));
        } else if self.line.starts_with(b"transfer-encoding:") {
            self.chunked = true;
        }
        self.start_line();
        if is_empty {
            self.end_head();
        }
    }

    fn end_head(&mut self) {
        self.count += 1;
        let (body, chunked) = (self.body.take(), std::mem::take(&mut self.chunked));
        let both = (body.is_some() && chunked).then_some(Ambiguity::LengthAndChunks);
        if let Some(why) = self.ambiguity.take().or(both) {
            self.found = Some((self.count, why));
        }
        self.place = match body {
            _ if chunked => Within::ChunkSize(0),
            Some(length) if length > 0 => Within::Body(length),
            _ => Within::Start,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab\n";
    const CHUNKED: &str = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
                           2;x=y\r\n\n\n\r\n0A\r\nContent-Le\r\n0\r\nContent-Length: 5\r\n\r\n";
    const EMPTY: &str = "\r\nGET / HTTP/1.1\r\nX-Content-Length: 3\r\n\r\n";
    const BOTH: &str = "POST / HTTP/1.1\r\ncontent-LENGTH:3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";

    /// What is found in these bytes, however they are cut.
    fn found(bytes: &str) -> Option<(u64, Ambiguity)> {
        let mut whole = RequestHeads::default();
        whole.read(bytes.as_bytes());
        for step in [1, 2, 7] {
            let mut heads = RequestHeads::default();
            bytes.as_bytes().chunks(step).for_each(|bytes| heads.read(bytes));
            assert_eq!((heads.found, heads.count), (whole.found, whole.count), "{step}");
        }
        whole.found
    }

    #[test]
    fn sound_requests_are_followed_one_behind_the_other() {
        let all = [PLAIN, CHUNKED, EMPTY, CHUNKED, PLAIN, EMPTY, EMPTY, PLAIN].concat();
        assert_eq!(found(&all), None);
        assert_eq!(
            found(&[&all, BOTH].concat()),
            Some((9, Ambiguity::LengthAndChunks)),
            "so nothing was lost on the way"
        );
    }

    #[test]
    fn what_two_readers_would_read_differently_is_found() {
        let head = |fields: &str| format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n");
        for (bytes, why) in [
            (head("Transfer-Encoding: chunked\r\nContent-Length: 3"), Ambiguity::LengthAndChunks),
            (head("Content-Length: 0\r\nTransfer-Encoding: chunked"), Ambiguity::LengthAndChunks),
            (head("Content-Length: 3\r\nContent-Length: 3"), Ambiguity::TwoLengths),
            (head(&format!("Content-Length:{}3", " ".repeat(60))), Ambiguity::LongLength),
            (head("Content-Length: 3\nHost: a"), Ambiguity::BareLineFeed),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n".to_owned(), Ambiguity::BareLineFeed),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n".to_owned(), Ambiguity::BareLineFeed),
            ("GET / HTTP/1.1\n\n".to_owned(), Ambiguity::BareLineFeed),
        ] {
            assert_eq!(found(&bytes), Some((1, why)), "{bytes:?}");
            assert_eq!(found(&[PLAIN, &bytes, BOTH].concat()), Some((2, why)), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_http_is_left_to_hyper() {
        let huge = format!("{}\r\n", "f".repeat(17));
        for bytes in
            [&[0xff_u8; 100][..], b"\r\n\r\n", b"POST / HTTP/1.1\r\nTransfer-Encoding: x\r\n\r\n", huge.as_bytes()]
        {
            RequestHeads::default().read(bytes);
        }
        let lost = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{huge}{BOTH}");
        assert_eq!(found(&lost), None);
    }
}
