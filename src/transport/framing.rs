//! Where a block of an event stream ends for HTTP: chunks for HTTP/1.1, nothing for HTTP/1.0.
//!
//! Many HTTP clients read a body without chunks in buffers of a fixed size, and hold back an event until later
//! ones have filled the buffer. Chunks also show whether the end was orderly or the connection broke.
//!
//! Whatever connections share is kept as a whole chunk, so that one buffer serves all of them: an HTTP/1.0
//! client is given the inside of it, and a connection that puts a line of its own in front replaces the line
//! with the size.

use bytes::Bytes;
use memchr::memchr;

const CRLF: &[u8] = b"\r\n";

/// The chunk that ends a body.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How the body of an answer is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// In chunks, one for each block.
    Chunked,
    /// It ends with the connection.
    Plain,
}

/// `block` as one chunk.
pub fn chunk(block: &[u8]) -> Bytes {
    let size = size_line(block.len());
    let mut chunk = Vec::with_capacity(size.len() + block.len() + CRLF.len());
    chunk.extend_from_slice(size.as_bytes());
    chunk.extend_from_slice(block);
    chunk.extend_from_slice(CRLF);
    chunk.into()
}

fn size_line(size: usize) -> String {
    format!("{size:x}\r\n")
}

/// A chunk without its size line.
fn after_size(chunk: &Bytes) -> Bytes {
    let end = memchr(b'\n', chunk).expect("a chunk begins with its size");
    chunk.slice(end + 1..)
}

impl Framing {
    /// A block that goes to one connection only.
    pub fn block(self, block: impl Into<Bytes> + AsRef<[u8]>) -> Bytes {
        match self {
            Framing::Chunked => chunk(block.as_ref()),
            Framing::Plain => block.into(),
        }
    }

    /// A block that connections share as a [`chunk`].
    pub fn shared(self, chunk: Bytes) -> Bytes {
        match self {
            Framing::Chunked => chunk,
            Framing::Plain => {
                let block = after_size(&chunk);
                block.slice(..block.len() - CRLF.len())
            }
        }
    }

    /// `line` and a shared block behind it, as one block in two pieces.
    pub fn with_line(self, line: String, chunk: Bytes) -> [Bytes; 2] {
        match self {
            Framing::Chunked => {
                let block = after_size(&chunk);
                let size = line.len() + block.len() - CRLF.len();
                [(size_line(size) + &line).into(), block]
            }
            Framing::Plain => [line.into(), self.shared(chunk)],
        }
    }

    /// What stands behind the last block of a body that ends in good order.
    pub fn end(self) -> Option<Bytes> {
        (self == Framing::Chunked).then(|| Bytes::from_static(LAST_CHUNK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_has_its_size_in_front_and_an_http_1_0_client_gets_the_inside() {
        for length in [1, 9, 16, 255, 70_000] {
            let block = "x".repeat(length);
            let whole = chunk(block.as_bytes());
            assert_eq!(whole, format!("{length:x}\r\n{block}\r\n"));
            assert_eq!(Framing::Chunked.shared(whole.clone()), whole);
            let inside = Framing::Plain.shared(whole.clone());
            assert_eq!(inside, block);
            assert!(whole.as_ptr_range().contains(&inside.as_ptr()), "it is the same buffer");
        }
    }

    #[test]
    fn a_line_in_front_of_a_shared_block_makes_one_chunk_of_both() {
        let whole = chunk(b"data: 5\n\n");
        let [head, rest] = Framing::Chunked.with_line("id: c1\n".into(), whole.clone());
        assert_eq!([&head[..], &rest].concat(), b"10\r\nid: c1\ndata: 5\n\n\r\n");
        assert!(whole.as_ptr_range().contains(&rest.as_ptr()), "it is the same buffer");
        let [head, rest] = Framing::Plain.with_line("id: c1\n".into(), whole);
        assert_eq!([&head[..], &rest].concat(), b"id: c1\ndata: 5\n\n");
    }

    #[test]
    fn only_a_chunked_body_has_an_end_of_its_own() {
        assert_eq!(Framing::Chunked.end().as_deref(), Some(&b"0\r\n\r\n"[..]));
        assert_eq!(Framing::Plain.end(), None);
    }
}
