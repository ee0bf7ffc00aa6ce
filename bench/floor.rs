//! The floor: the least that a server can spend on a delivery, to measure Whimbrel against.
//!
//! One thread, one epoll loop, one `write` a delivery, and nothing else: no log, no resume, no bounds, no
//! second node. It understands just enough HTTP for `whimbrel bench`: a GET becomes a listener, over SSE or
//! WebSocket, and the body of a POST goes to all listeners, in frames as long as Whimbrel's. Run it as
//! `cargo run --release --example floor -- [PORT]`.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);

/// Somebody who connected.
struct Client {
    socket: TcpStream,
    role: Role,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Publisher,
    Sse,
    WebSocket,
}

fn main() -> io::Result<()> {
    let port: u16 = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(0);
    rlimit::increase_nofile_limit(u64::MAX)?;
    let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    // A client's token is its place here. Places are not used again: it never runs for long.
    let mut clients: Vec<Option<Client>> = Vec::new();
    eprintln!("listening on http://{}", listener.local_addr()?);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut socket, _)) = listener.accept() {
                    socket.set_nodelay(true)?;
                    poll.registry().register(&mut socket, Token(clients.len()), Interest::READABLE)?;
                    clients.push(Some(Client { socket, role: Role::Publisher }));
                }
                continue;
            }
            let place = &mut clients[event.token().0];
            let Some(client) = place else { continue };
            match read_request(&mut client.socket) {
                Ok(Some(Request::Listen(role))) => {
                    client.role = role;
                    let _ = client.socket.write(&welcome(role));
                }
                Ok(Some(Request::Publish(data))) => {
                    deliver(&mut clients, &data);
                    if let Some(client) = &mut clients[event.token().0] {
                        let _ = client.socket.write(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n");
                    }
                }
                Ok(None) => {}
                Err(_) => *place = None,
            }
        }
    }
}

fn deliver(clients: &mut [Option<Client>], data: &[u8]) {
    let block = chunk(&[b"id: 1763795000000-2731\ndata: ", data, b"\n\n"].concat());
    let head = br#"{"op":"event","stream":"topic:bench-00000000000000000000000000000000","id":"1763795000000-2731","type":"message","data":"#;
    let frame = text(&[head, data, b"}"].concat());
    for client in clients.iter_mut().flatten() {
        match client.role {
            Role::Publisher => continue,
            Role::Sse => _ = client.socket.write(&block),
            Role::WebSocket => _ = client.socket.write(&frame),
        }
    }
}

fn welcome(role: Role) -> Vec<u8> {
    if role == Role::Sse {
        let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        return [&head[..], &chunk(b"id: 0-1\ndata: {}\n\n")].concat();
    }
    // Nobody who measures checks the handshake's key.
    let head = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    [&head[..], &text(br#"{"op":"ready","positions":{"topic:a":"0-1"}}"#)].concat()
}

/// A block of an event stream.
fn chunk(block: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", block.len()).as_bytes(), block, b"\r\n"].concat()
}

/// A WebSocket text frame.
fn text(payload: &[u8]) -> Vec<u8> {
    let head = match payload.len() {
        length @ 0..=125 => vec![0x81, length as u8],
        length @ 126..=0xffff => [&[0x81, 126][..], &(length as u16).to_be_bytes()].concat(),
        length => [&[0x81, 127][..], &(length as u64).to_be_bytes()].concat(),
    };
    [&head, payload].concat()
}

enum Request {
    Listen(Role),
    Publish(Vec<u8>),
}

/// Reads a request, which has to come in one piece: `bench` sends them so.
fn read_request(socket: &mut TcpStream) -> io::Result<Option<Request>> {
    let mut buffer = [0; 16 * 1024];
    let mut length = 0;
    loop {
        match socket.read(&mut buffer[length..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    let text = &buffer[..length];
    let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    Ok(Some(if text.starts_with(b"POST") {
        Request::Publish(text[end + 4..].to_vec())
    } else if text.windows(7).any(|window| window == b"upgrade") {
        Request::Listen(Role::WebSocket)
    } else {
        Request::Listen(Role::Sse)
    }))
}
