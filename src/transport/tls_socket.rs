//! A socket with TLS on it that can be written to from anywhere, without waiting: dispatchers write to their
//! listeners' sockets themselves.

use std::io::{self, IoSlice, Read as _, Write};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use rustls::ServerConnection;

use super::socket::Raw;

/// Most plain bytes that are encrypted before the socket has taken what came of those before them.
const ENCRYPTED_AT_ONCE: usize = 16 * 1024;

/// A socket after the TLS handshake.
pub struct TlsSocket {
    raw: Raw,
    session: Mutex<ServerConnection>,
}

impl TlsSocket {
    pub fn new(raw: Raw, mut session: ServerConnection) -> Self {
        session.set_buffer_limit(Some(ENCRYPTED_AT_ONCE));
        TlsSocket { raw, session: Mutex::new(session) }
    }

    pub fn raw(&self) -> &Raw {
        &self.raw
    }

    /// Reads what is there; nothing is there at the end.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut session = self.session.lock();
        loop {
            match session.reader().read(buffer) {
                Ok(count) => return Ok(count),
                // Most clients just close. What is cut off then is seen one layer above.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            session.read_tls(&mut Direct(&self.raw))?;
            let outcome = session.process_new_packets();
            // Answers of the protocol itself, alerts among them; what the socket does not take goes with the next.
            let _ = self.send(&mut session);
            outcome.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }

    /// Encrypts what there is room for, once what was encrypted before is written.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write_vectored(&[IoSlice::new(bytes)])
    }

    /// The same of several pieces.
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut session = self.session.lock();
        self.send(&mut session)?;
        let taken = session.writer().write_vectored(slices)?;
        match self.send(&mut session) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    /// Writes what is encrypted and was not written so far.
    pub fn try_flush(&self) -> io::Result<()> {
        self.send(&mut self.session.lock())
    }

    /// Says that nothing more will come.
    pub fn try_close(&self) -> io::Result<()> {
        let mut session = self.session.lock();
        session.send_close_notify();
        self.send(&mut session)
    }

    /// Ready when there may be something to read.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was decrypted and not asked for shows nowhere else.
        let decrypted =
            self.session.lock().process_new_packets().is_ok_and(|state| state.plaintext_bytes_to_read() > 0);
        if decrypted { Poll::Ready(Ok(())) } else { self.raw.poll_read_ready(cx) }
    }

    fn send(&self, session: &mut ServerConnection) -> io::Result<()> {
        while session.wants_write() {
            session.write_tls(&mut Direct(&self.raw))?;
        }
        Ok(())
    }
}

/// Reads and writes without waiting.
struct Direct<'a>(&'a Raw);

impl io::Read for Direct<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Direct<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
