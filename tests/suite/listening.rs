//! Where a node listens, and that it goes on listening.

use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::support::client::{Transport, Wanted};
use crate::support::http::Http;
use crate::support::node::Node;
use crate::support::{Signal, eventually, in_time};

/// Sends a request and reads what comes until it ends with `end`.
async fn read_until(socket: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str, end: &str) -> String {
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    in_time(end, async {
        while !String::from_utf8_lossy(&read).ends_with(end) {
            assert!(socket.read_buf(&mut read).await.unwrap() > 0, "{}", String::from_utf8_lossy(&read));
        }
    })
    .await;
    String::from_utf8_lossy(&read).into_owned()
}

/// All addresses that a node logs as its own.
fn addresses(node: &Node) -> Vec<SocketAddr> {
    let log = node.log();
    let read = log.lines().filter_map(|line| line.split_once("listening on http://"));
    read.map(|(_, address)| address.split_whitespace().next().unwrap().parse().unwrap()).collect()
}

fn socket_in(folder: &TempDir) -> (String, String) {
    let path = folder.path().join("whimbrel.sock").to_str().unwrap().to_owned();
    (format!("unix:{path}"), path)
}

#[tokio::test]
async fn a_node_listens_at_several_addresses_and_a_unix_socket() {
    let folder = TempDir::new().unwrap();
    let (place, path) = socket_in(&folder);
    let node = Node::start(&[("WHIMBREL_LISTEN", &format!("127.0.0.1:0  127.0.0.2:0 {place}"))]);
    // The last one is logged last.
    eventually("all places", async || node.log().contains(&format!("listening on {place}")).then_some(())).await;
    let addresses = addresses(&node);
    assert_eq!(addresses.len(), 2);
    let mut clients = Vec::new();
    for address in &addresses {
        let mut http = Http::connect(*address).await;
        http.request("GET", "/v1/sse?topic=news", &[], b"").await;
        clients.push(Wanted::new(Transport::Sse, &["topic:news"]).taken_over(http).await);
    }
    let mut local = UnixStream::connect(&path).await.unwrap();
    // Whoever may open the socket is no browser: a proxy may leave the host that it was asked for.
    let request = "GET /v1/sse?topic=news HTTP/1.1\r\nHost: push.example\r\n\r\n";
    let head = read_until(&mut local, request, "\"}\n\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let mut upgraded = UnixStream::connect(&path).await.unwrap();
    let request = "GET /v1/ws?topic=news HTTP/1.1\r\nHost: push.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let head = read_until(&mut upgraded, request, "}}").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");

    let mut publisher = UnixStream::connect(&path).await.unwrap();
    let request = "POST /v1/topics/news/events HTTP/1.1\r\nHost: push.example\r\nContent-Length: 3\r\n\r\n\"a\"";
    let answer = read_until(&mut publisher, request, "}").await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    for client in &mut clients {
        assert_eq!(client.event().await.data, "\"a\"");
    }
    assert!(read_until(&mut local, "", "\n\n\r\n").await.contains("data: \"a\"\n\n"));
    assert!(read_until(&mut upgraded, "", "}").await.ends_with("\"data\":\"a\"}"));
}

#[tokio::test]
async fn a_unix_socket_that_a_killed_node_left_is_taken_over_and_one_in_use_is_not() {
    let folder = TempDir::new().unwrap();
    let (place, path) = socket_in(&folder);
    let settings = [("WHIMBREL_LISTEN", format!("127.0.0.1:0 {place}"))];
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let killed = Node::start(&settings);
    let other = crate::support::command::run(&["serve"], &settings, b"").await;
    assert_eq!(other.code, Some(2), "{other:?}");
    assert!(other.stderr.contains(&place), "{other:?}");
    killed.kill();
    assert!(Path::new(&path).exists());
    let mut drained = settings.clone();
    drained.extend([("WHIMBREL_DRAIN_DELAY_SECONDS", "0"), ("WHIMBREL_DRAIN_SECONDS", "0")]);
    let node = Node::start(&drained);
    let mut local = UnixStream::connect(&path).await.unwrap();
    let alive = read_until(&mut local, "GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n", "}").await;
    assert!(alive.starts_with("HTTP/1.1 200 OK\r\n"), "{alive}");
    drop(local);
    node.signal(Signal::TERM);
    assert!(node.ended().await.success());
    assert!(!Path::new(&path).exists(), "a node that stops takes its socket away");
}
