//! What a listener gets, over SSE or WebSocket. Unlike the strict clients of `support`, these take a
//! connection's end at any byte for what it is under faults: an end.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use whimbrel::history::Place;
use whimbrel::model::{EventId, GapReason, StreamName};

use crate::support::chunks::Chunks;
use crate::support::client::Transport;

/// What a client receives.
#[derive(Debug)]
pub enum Incoming {
    Event { stream: StreamName, id: EventId, payload: String, cursor: Option<String> },
    Gap { stream: StreamName, after: EventId, next: EventId, reason: GapReason },
    Position(Place),
    Close(String),
    Ping,
}

/// A connection.
pub enum Wire {
    Sse { body: Chunks<BufReader<TcpStream>>, streams: Vec<StreamName> },
    WebSocket(Box<WebSocketStream<TcpStream>>),
}

fn broken(why: impl ToString) -> io::Error {
    io::Error::other(why.to_string())
}

impl Wire {
    /// Connects to a node and asks for `streams`, from `cursor` on.
    pub async fn connect(
        node: SocketAddr,
        transport: Transport,
        streams: &[StreamName],
        cursor: Option<&Place>,
    ) -> io::Result<Self> {
        let mut query: Vec<String> =
            streams.iter().map(|stream| format!("{}={}", stream.kind().as_str(), stream.name())).collect();
        let mut header = String::new();
        match cursor {
            None => {}
            Some(Place::Cursor(cursor)) => header = format!("Last-Event-ID: {cursor}\r\n"),
            Some(Place::Positions(positions)) => {
                query.extend(positions.iter().map(|(stream, id)| format!("after={stream}/{id}")));
            }
        }
        let mut socket = TcpStream::connect(node).await?;
        socket.set_nodelay(true)?;
        match transport {
            Transport::Sse => {
                let head = format!(
                    "GET /v1/sse?{} HTTP/1.1\r\nHost: {node}\r\nAccept: text/event-stream\r\n{header}\r\n",
                    query.join("&")
                );
                socket.write_all(head.as_bytes()).await?;
                let mut socket = BufReader::new(socket);
                let status = line(&mut socket).await?;
                if !status.starts_with("HTTP/1.1 200") {
                    return Err(broken(status));
                }
                while !line(&mut socket).await?.trim_end().is_empty() {}
                Ok(Wire::Sse { body: Chunks::of(socket), streams: streams.to_vec() })
            }
            Transport::WebSocket => {
                let url = format!("ws://{node}/v1/ws?{}", query.join("&"));
                let (socket, _) = tokio_tungstenite::client_async(url, socket).await.map_err(broken)?;
                Ok(Wire::WebSocket(Box::new(socket)))
            }
        }
    }

    /// What comes next; an error is the end.
    pub async fn next(&mut self) -> io::Result<Incoming> {
        match self {
            Wire::Sse { body, streams } => sse(body, streams).await,
            Wire::WebSocket(socket) => websocket(socket).await,
        }
    }
}

async fn line(socket: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    socket.read_line(&mut line).await?;
    if line.ends_with('\n') { Ok(line) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[derive(Deserialize)]
struct Notice {
    stream: StreamName,
    after: EventId,
    next: EventId,
    reason: GapReason,
}

#[derive(Deserialize)]
struct Body<'a> {
    stream: StreamName,
    id: EventId,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Reason {
    reason: String,
}

fn json<'a, T: Deserialize<'a>>(text: &'a str) -> io::Result<T> {
    serde_json::from_str(text).map_err(|error| broken(format!("{error}: {text}")))
}

async fn sse(body: &mut Chunks<BufReader<TcpStream>>, streams: &[StreamName]) -> io::Result<Incoming> {
    let (mut id, mut kind, mut data) = (None, String::new(), Vec::new());
    loop {
        let line = body.line().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let line = String::from_utf8(line).map_err(broken)?;
        match line.split_once(": ") {
            Some(("id", value)) => id = Some(value.to_owned()),
            Some(("event", value)) => value.clone_into(&mut kind),
            Some(("data", value)) => data.push(value.to_owned()),
            _ if line == ":" => return Ok(Incoming::Ping),
            _ if line.is_empty() => break,
            _ => {}
        }
    }
    let data = data.join("\n");
    Ok(match (kind.as_str(), id) {
        ("whimbrel:ping", _) => Incoming::Ping,
        ("whimbrel:position", Some(cursor)) => Incoming::Position(Place::Cursor(cursor)),
        ("whimbrel:gap", _) => {
            let Notice { stream, after, next, reason } = json(&data)?;
            Incoming::Gap { stream, after, next, reason }
        }
        ("whimbrel:close", _) => Incoming::Close(json::<Reason>(&data)?.reason),
        (_, Some(cursor)) => match streams {
            [only] => {
                let id = cursor.parse().map_err(broken)?;
                Incoming::Event { stream: only.clone(), id, payload: data, cursor: Some(cursor) }
            }
            _ => {
                let body: Body<'_> = json(&data)?;
                let payload = body.data.get().to_owned();
                Incoming::Event { stream: body.stream, id: body.id, payload, cursor: Some(cursor) }
            }
        },
        (kind, None) => panic!("an event stream with a block of no sense: {kind:?} {data}"),
    })
}

async fn websocket(socket: &mut WebSocketStream<TcpStream>) -> io::Result<Incoming> {
    loop {
        let text = match socket.next().await {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Ping(_))) => {
                // Answered by the codec with what is sent next; nothing else would be.
                let _ = socket.flush().await;
                return Ok(Incoming::Ping);
            }
            Some(Ok(Message::Close(_))) | None => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(Ok(_)) => continue,
            Some(Err(Error::Io(error))) => return Err(error),
            Some(Err(error)) => return Err(broken(error)),
        };
        #[derive(Deserialize)]
        struct Op {
            op: String,
        }
        return Ok(match json::<Op>(&text)?.op.as_str() {
            "ready" => {
                #[derive(Deserialize)]
                struct Ready {
                    positions: BTreeMap<StreamName, EventId>,
                }
                Incoming::Position(Place::Positions(json::<Ready>(&text)?.positions))
            }
            "position" => {
                #[derive(Deserialize)]
                struct Position {
                    stream: StreamName,
                    id: EventId,
                }
                let Position { stream, id } = json(&text)?;
                Incoming::Position(Place::Positions(BTreeMap::from([(stream, id)])))
            }
            "event" => {
                let body: Body<'_> = json(&text)?;
                Incoming::Event { stream: body.stream, id: body.id, payload: body.data.get().to_owned(), cursor: None }
            }
            "gap" => {
                let Notice { stream, after, next, reason } = json(&text)?;
                Incoming::Gap { stream, after, next, reason }
            }
            "close" => Incoming::Close(json::<Reason>(&text)?.reason),
            other => panic!("an operation that nobody asked for: {other}"),
        });
    }
}
