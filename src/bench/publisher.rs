//! Publishing over REST on a few kept-alive connections.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// One kept-alive connection; a request at a time.
pub struct Poster {
    server: SocketAddr,
    socket: BufReader<TcpStream>,
}

impl Poster {
    pub async fn connect(server: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(server).await?;
        socket.set_nodelay(true)?;
        Ok(Poster { server, socket: BufReader::new(socket) })
    }

    /// Posts a body and reads the answer. Returns the status.
    pub async fn post(&mut self, path: &str, kind: &str, body: &[u8]) -> io::Result<u16> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            self.server,
            body.len()
        );
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        self.socket.get_mut().write_all(&request).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> io::Result<u16> {
        let mut line = String::new();
        self.socket.read_line(&mut line).await?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no HTTP answer: {line:?}")))?;
        let mut length = 0;
        loop {
            line.clear();
            self.socket.read_line(&mut line).await?;
            let header = line.trim_end();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        let mut body = vec![0; length];
        self.socket.read_exact(&mut body).await?;
        Ok(status)
    }
}

/// An event's data of about `size` bytes, due at `due` nanoseconds.
pub fn data(due: u64, size: usize) -> String {
    let head = format!("{{\"due\":{due},\"fill\":\"");
    let fill = size.saturating_sub(head.len() + 2);
    format!("{head}{}\"}}", "x".repeat(fill))
}
