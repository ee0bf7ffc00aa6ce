//! A chunked body without its chunks. A value: bytes go in, pieces of the body come out, uncopied.

use std::io;

/// Reads a body that is sent in chunks.
#[derive(Debug, Default)]
pub struct Chunks(State);

#[derive(Debug)]
enum State {
    /// Within the line that has the size, of which so much is read.
    Size(usize),
    /// So many bytes of the chunk are still to come.
    Content(usize),
    /// Within the line end behind the content.
    End,
}

impl Default for State {
    fn default() -> Self {
        State::Size(0)
    }
}

impl Chunks {
    /// Takes the next piece of the body off the front of `bytes`; `None` once they are used up. The end of the
    /// body is the error `UnexpectedEof`.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> io::Result<Option<&'a [u8]>> {
        while let Some((byte, rest)) = bytes.split_first() {
            match &mut self.0 {
                State::Content(left) => {
                    let (piece, rest) = bytes.split_at(bytes.len().min(*left));
                    *left -= piece.len();
                    if *left == 0 {
                        self.0 = State::End;
                    }
                    *bytes = rest;
                    return Ok(Some(piece));
                }
                State::End => {
                    if *byte == b'\n' {
                        self.0 = State::Size(0);
                    }
                }
                State::Size(0) if *byte == b'\n' => return Err(io::ErrorKind::UnexpectedEof.into()),
                State::Size(size) if *byte == b'\n' => self.0 = State::Content(*size),
                State::Size(_) if *byte == b'\r' => {}
                State::Size(size) => {
                    let digit = char::from(*byte).to_digit(16);
                    let grown = digit.and_then(|digit| size.checked_mul(16)?.checked_add(digit as usize));
                    *size = grown.ok_or(io::ErrorKind::InvalidData)?;
                }
            }
            *bytes = rest;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8], step: usize) -> (Vec<u8>, Option<io::ErrorKind>) {
        let (mut chunks, mut read) = (Chunks::default(), Vec::new());
        for mut bytes in body.chunks(step) {
            loop {
                match chunks.next(&mut bytes) {
                    Ok(Some(piece)) => read.extend_from_slice(piece),
                    Ok(None) => break,
                    Err(error) => return (read, Some(error.kind())),
                }
            }
        }
        (read, None)
    }

    #[test]
    fn the_same_comes_out_however_the_bytes_are_cut() {
        let body = b"5\r\nfirst\r\n1a\r\nand twenty-six bytes of it\r\n0\r\n\r\n";
        for step in 1..=body.len() {
            let (content, end) = read(body, step);
            assert_eq!(content, b"firstand twenty-six bytes of it", "{step}");
            assert_eq!(end, Some(io::ErrorKind::UnexpectedEof), "{step}");
        }
    }

    #[test]
    fn what_is_no_size_is_an_error() {
        for body in [&b"x\r\n"[..], b"ffffffffffffffffff\r\n"] {
            assert_eq!(read(body, 3), (Vec::new(), Some(io::ErrorKind::InvalidData)));
        }
    }
}
