//! WebSocket frames as they are on the wire (RFC 6455), taken strictly.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::http::{Answer, Http};

/// The example of RFC 6455: a key, and what has to come back for it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A connection after the handshake.
pub struct Frames {
    http: Http,
}

/// What the server sent.
#[derive(Debug)]
pub enum Message {
    Text(String),
    Ping,
    Pong(Vec<u8>),
    /// Code and reason; answered, and the connection has ended.
    Close(u16, String),
    /// It ended without a close frame.
    End,
}

impl Frames {
    /// Sends the handshake.
    pub async fn ask(http: &mut Http, path: &str, headers: &[(&str, &str)]) {
        let upgrade = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", KEY),
        ];
        let all: Vec<_> = headers.iter().copied().chain(upgrade).collect();
        http.request("GET", path, &all, b"").await;
    }

    /// Reads the answer to the handshake; one that is no upgrade is the error.
    pub async fn open(mut http: Http) -> Result<Self, Answer> {
        let mut answer = http.head().await;
        if answer.status != 101 {
            answer.body = vec![0; answer.header("content-length").map_or(0, |length| length.parse().unwrap())];
            http.socket.read_exact(&mut answer.body).await.unwrap();
            return Err(answer);
        }
        assert!(answer.header("upgrade").unwrap().eq_ignore_ascii_case("websocket"));
        assert!(answer.header("connection").unwrap().eq_ignore_ascii_case("upgrade"));
        assert_eq!(answer.header("sec-websocket-accept"), Some(ACCEPT));
        Ok(Frames { http })
    }

    /// Sends a frame, masked as clients have to.
    pub async fn send(&mut self, opcode: u8, last: bool, payload: &[u8]) {
        self.http.send(frame(opcode, last, payload)).await;
    }

    /// Sends bytes as they are.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        self.http.send(bytes).await;
    }

    /// The next message. The end may cut a frame, as when a node is killed.
    pub async fn next(&mut self, answer_pings: bool) -> Message {
        let Ok((opcode, payload)) = self.read().await else { return Message::End };
        match opcode {
            0x1 => Message::Text(String::from_utf8(payload).expect("a text frame is UTF-8")),
            0x8 => {
                let (code, reason) = payload.split_first_chunk::<2>().expect("a close frame has a code");
                let reason = String::from_utf8(reason.to_vec()).unwrap();
                let _ = self.http.socket.write_all(&frame(0x8, true, code)).await;
                assert!(self.http.rest().await.is_empty(), "nothing follows a close frame");
                Message::Close(u16::from_be_bytes(*code), reason)
            }
            0x9 => {
                if answer_pings {
                    let _ = self.http.socket.write_all(&frame(0xa, true, &payload)).await;
                }
                Message::Ping
            }
            0xa => Message::Pong(payload),
            _ => panic!("a frame that the contract does not know: opcode {opcode}"),
        }
    }

    async fn read(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let socket = &mut self.http.socket;
        let head = socket.read_u8().await?;
        assert_eq!(head & 0xf0, 0x80, "whole messages, no reserved bits: {head:#x}");
        let short = socket.read_u8().await?;
        assert_eq!(short & 0x80, 0, "a server masks nothing");
        let length = match short {
            126 => u64::from(socket.read_u16().await?),
            127 => socket.read_u64().await?,
            short => u64::from(short),
        };
        assert!(short < 126 || length > 125, "the length is written as short as it can be");
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        socket.read_exact(&mut payload).await?;
        Ok((head & 0x0f, payload))
    }
}

/// A masked frame.
pub fn frame(opcode: u8, last: bool, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![opcode | if last { 0x80 } else { 0 }];
    match payload.len() {
        short @ ..126 => bytes.push(0x80 | short as u8),
        middle @ ..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}
