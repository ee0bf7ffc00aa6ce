//! The floor: the least that a server can spend on a delivery, to measure Whimbrel against.
//!
//! One thread, one epoll loop, one `write` a delivery, and nothing else: no log, no resume, no bounds, no
//! second node. It understands just enough HTTP for `whimbrel bench`: a GET becomes a listener, and the
//! body of a POST goes to all listeners. Run it as `cargo run --release --example floor -- [PORT]`.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(0);

fn main() -> io::Result<()> {
    let port: u16 = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(0);
    rlimit::increase_nofile_limit(u64::MAX)?;
    let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut sockets: HashMap<Token, TcpStream> = HashMap::new();
    let mut listening: Vec<Token> = Vec::new();
    let mut next = 1;
    eprintln!("listening on http://{}", listener.local_addr()?);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut socket, _)) = listener.accept() {
                    socket.set_nodelay(true)?;
                    let token = Token(next);
                    next += 1;
                    poll.registry().register(&mut socket, token, Interest::READABLE)?;
                    sockets.insert(token, socket);
                }
                continue;
            }
            let Some(socket) = sockets.get_mut(&event.token()) else { continue };
            match read_request(socket) {
                Ok(Some(Request::Listen)) => {
                    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nid: 0-1\ndata: {}\n\n";
                    let _ = socket.write(head.as_bytes());
                    listening.push(event.token());
                }
                Ok(Some(Request::Publish(data))) => {
                    let block = [b"id: 1763795000000-2731\ndata: ", &data[..], b"\n\n"].concat();
                    for token in &listening {
                        if let Some(listener) = sockets.get_mut(token) {
                            let _ = listener.write(&block);
                        }
                    }
                    if let Some(socket) = sockets.get_mut(&event.token()) {
                        let _ = socket.write(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n");
                    }
                }
                Ok(None) => {}
                Err(_) => {
                    sockets.remove(&event.token());
                    listening.retain(|token| *token != event.token());
                }
            }
        }
    }
}

enum Request {
    Listen,
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
    Ok(Some(if text.starts_with(b"POST") { Request::Publish(text[end + 4..].to_vec()) } else { Request::Listen }))
}
