//! The body of an answer in chunks, read line by line.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

/// Takes a chunked body apart. Whatever RFC 9112 does not allow, and what it allows but Whimbrel does not send
/// (chunk extensions, trailers), is an error of the kind `InvalidData`.
pub struct Chunks<R> {
    body: R,
    /// Bytes of the present chunk that were not read yet.
    left: usize,
    ended: bool,
}

fn invalid(what: &str, bytes: &[u8]) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {:?}", String::from_utf8_lossy(bytes)))
}

impl<R: AsyncBufRead + Unpin> Chunks<R> {
    pub fn of(body: R) -> Self {
        Chunks { body, left: 0, ended: false }
    }

    /// The next line, without its line feed; `None` behind the last chunk. A body that breaks off is an error of
    /// the kind `UnexpectedEof`.
    pub async fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            if !self.is_within() && !self.begin().await? {
                return if line.is_empty() { Ok(None) } else { Err(invalid("a line without an end", &line)) };
            }
            let before = line.len();
            (&mut self.body).take(self.left as u64).read_until(b'\n', &mut line).await?;
            match line.len() - before {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.left -= read,
            }
            if self.left == 0 {
                self.empty_line().await?;
            }
        }
        line.pop();
        Ok(Some(line))
    }

    /// Whether a chunk has begun and not ended.
    pub fn is_within(&self) -> bool {
        self.left > 0
    }

    /// Reads a chunk's size. False when it is the last one.
    async fn begin(&mut self) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        let mut size = Vec::new();
        self.body.read_until(b'\n', &mut size).await?;
        if size.last() != Some(&b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let digits = size.strip_suffix(b"\r\n").and_then(|digits| std::str::from_utf8(digits).ok());
        let parsed = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        self.left = parsed
            .and_then(|digits| usize::from_str_radix(digits, 16).ok())
            .ok_or_else(|| invalid("not the size of a chunk", &size))?;
        self.ended = self.left == 0;
        if self.ended {
            self.empty_line().await?;
        }
        Ok(!self.ended)
    }

    async fn empty_line(&mut self) -> io::Result<()> {
        let mut end = [0; 2];
        self.body.read_exact(&mut end).await?;
        if &end == b"\r\n" { Ok(()) } else { Err(invalid("not the end of a chunk", &end)) }
    }
}
