//! An event stream as it is on the wire, taken strictly.

use std::io;

use tokio::io::BufReader;
use tokio::net::TcpStream;

use super::chunks::Chunks;
use super::http::{Answer, Http};

/// The stream of one answer.
pub struct Blocks {
    body: Chunks<BufReader<TcpStream>>,
    /// The last `retry:`.
    pub retry: Option<u64>,
    /// It ended in good order, not because the connection broke.
    pub ended: bool,
}

/// What stands between two empty lines. A comment is a block of nothing.
#[derive(Debug, Default)]
pub struct Block {
    pub id: Option<String>,
    /// Empty: the line was left out.
    pub event: String,
    pub data: Option<String>,
    /// Where `trace=1` was asked for, and there is no envelope.
    pub trace: Option<String>,
}

impl Blocks {
    /// Asks for a stream.
    pub async fn ask(http: &mut Http, path: &str, headers: &[(&str, &str)]) {
        let all: Vec<_> = headers.iter().copied().chain([("Accept", "text/event-stream")]).collect();
        http.request("GET", path, &all, b"").await;
    }

    /// Reads the answer's head; an answer that is no stream is the error.
    pub async fn open(mut http: Http) -> Result<Self, Answer> {
        let mut answer = http.head().await;
        if answer.status != 200 {
            answer.body = vec![0; answer.header("content-length").map_or(0, |length| length.parse().unwrap())];
            tokio::io::AsyncReadExt::read_exact(&mut http.socket, &mut answer.body).await.unwrap();
            return Err(answer);
        }
        assert!(answer.header("content-type").unwrap().starts_with("text/event-stream"), "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store, no-transform"));
        assert_eq!(answer.header("x-accel-buffering"), Some("no"));
        assert!(answer.header("vary").unwrap().eq_ignore_ascii_case("accept"), "{answer:?}");
        assert_eq!((answer.header("transfer-encoding"), answer.header("content-length")), (Some("chunked"), None));
        Ok(Blocks { body: Chunks::of(http.socket), retry: None, ended: false })
    }

    /// The next block or comment; `None` at the end. The end may cut a block, as when a node is killed.
    pub async fn next(&mut self) -> Option<Block> {
        let mut block = Block::default();
        let mut begun = false;
        loop {
            let line = match self.body.line().await {
                Ok(Some(line)) => line,
                Ok(None) => {
                    assert!(!begun, "an orderly end within a block: {block:?}");
                    self.ended = true;
                    return None;
                }
                Err(error) => {
                    assert_ne!(error.kind(), io::ErrorKind::InvalidData, "{error}");
                    return None;
                }
            };
            let line = String::from_utf8(line).expect("an event stream is UTF-8");
            assert!(!line.contains('\r'), "lines end with a line feed alone: {line:?}");
            let (field, value) = match line.as_str() {
                "" => {
                    assert!(block.data.is_some(), "a block without data: {block:?}");
                    assert!(!self.body.is_within(), "more in the chunk of {block:?}");
                    return Some(block);
                }
                ":" => {
                    assert!(!begun && !self.body.is_within(), "a comment within a block: {block:?}");
                    return Some(block);
                }
                line => line.split_once(": ").unwrap_or_else(|| match line {
                    "data:" => ("data", ""),
                    _ => panic!("not a line of the contract: {line:?}"),
                }),
            };
            begun = true;
            match field {
                "id" => {
                    assert!(!value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic()), "{line:?}");
                    assert!(value.len() <= 2048, "a cursor of {} bytes", value.len());
                    assert!(block.id.replace(value.to_owned()).is_none(), "two ids in {block:?}");
                }
                "event" => {
                    assert!(block.event.is_empty(), "two types in {block:?}");
                    block.event = value.to_owned();
                }
                "data" => match &mut block.data {
                    None => block.data = Some(value.to_owned()),
                    Some(data) => {
                        data.push('\n');
                        data.push_str(value);
                    }
                },
                "traceparent" => assert!(block.trace.replace(value.to_owned()).is_none(), "two traces in {block:?}"),
                "retry" => self.retry = Some(value.parse().unwrap()),
                _ => panic!("not a line of the contract: {line:?}"),
            }
        }
    }
}
