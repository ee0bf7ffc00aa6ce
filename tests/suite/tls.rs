//! TLS on the listener: HTTP/1.1, WebSocket and HTTP/2 over it, and certificates that change.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::node::Node;
use crate::support::tls::{Authority, shake_hands};
use crate::support::{Signal, command, eventually, in_time};

/// A node whose clients speak TLS, with the plain one on a Unix socket beside it for what is not about TLS.
fn node(authority: &Authority, settings: &[(&str, &str)]) -> Node {
    authority.issue("node");
    let (certificate, key) = (authority.file("node.pem"), authority.file("node.key"));
    let mut all = vec![("WHIMBREL_TLS_CERT_FILE", certificate.as_str()), ("WHIMBREL_TLS_KEY_FILE", &key)];
    all.extend_from_slice(settings);
    Node::start(&all)
}

type Tls = BufReader<TlsStream<TcpStream>>;

async fn send(stream: &mut Tls, head: &str, body: &[u8]) {
    let length = body.len();
    let head = format!("{head} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    stream.flush().await.unwrap();
}

/// The status of an answer, whose body is read and dropped.
async fn status(stream: &mut Tls) -> String {
    let (mut first, mut length) = (String::new(), 0);
    stream.read_line(&mut first).await.unwrap();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
    }
    stream.read_exact(&mut vec![0; length]).await.unwrap();
    first.split(' ').nth(1).unwrap().to_owned()
}

async fn publish(authority: &Authority, node: &Node, data: &[String]) {
    let mut producer = BufReader::new(shake_hands(node.address(), authority.client(&[&TLS13], &[])).await.unwrap());
    for data in data {
        send(&mut producer, "POST /v1/topics/news/events", data.as_bytes()).await;
        assert_eq!(in_time("an answer", status(&mut producer)).await, "201");
    }
}

/// The data of the next so many events, which stand on a line each.
async fn data(stream: &mut (impl tokio::io::AsyncBufRead + Unpin), count: usize) -> Vec<String> {
    let mut data = Vec::new();
    while data.len() < count {
        let mut line = String::new();
        let read = in_time("an event", stream.read_line(&mut line)).await.unwrap();
        assert!(read > 0, "the stream ended after {} events", data.len());
        data.extend(line.trim_end().strip_prefix("data: ").filter(|data| !data.starts_with('{')).map(str::to_owned));
    }
    data
}

#[tokio::test]
async fn clients_publish_and_listen_over_either_version_of_tls() {
    let authority = Authority::new();
    let node = node(&authority, &[]);
    for version in [&TLS12, &TLS13] {
        let stream = shake_hands(node.address(), authority.client(&[version], &[b"http/1.1"])).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let mut listener = BufReader::new(stream);
        send(&mut listener, "GET /v1/sse?topic=news", b"").await;
        assert_eq!(in_time("an answer", status(&mut listener)).await, "200");
        // The first position is there: what is published from here on comes.
        let mut line = String::new();
        while !line.starts_with("data: ") {
            line.clear();
            in_time("the position", listener.read_line(&mut line)).await.unwrap();
        }
        let sent: Vec<String> = (0..20).map(|number| number.to_string()).collect();
        publish(&authority, &node, &sent).await;
        assert_eq!(data(&mut listener, 20).await, sent);
    }
}

#[tokio::test]
async fn a_client_over_tls_that_reads_late_misses_nothing() {
    let authority = Authority::new();
    // What waits beyond the outbox is read from the stream.
    let node = node(&authority, &[("WHIMBREL_OUTBOX_BYTES", "100000")]);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let socket = socket.connect(node.address()).await.unwrap();
    let config = authority.client(&[&TLS13], &[]);
    let stream = TlsConnector::from(config).connect("localhost".try_into().unwrap(), socket).await.unwrap();
    let mut listener = BufReader::new(stream);
    send(&mut listener, "GET /v1/sse?topic=news&after=earliest", b"").await;
    let sent: Vec<String> = (0..200).map(|number| format!("\"{number}{}\"", "x".repeat(30_000))).collect();
    publish(&authority, &node, &sent).await;
    assert_eq!(data(&mut listener, sent.len()).await, sent);
}

#[tokio::test]
async fn a_websocket_works_over_tls() {
    let authority = Authority::new();
    let node = node(&authority, &[]);
    let stream = shake_hands(node.address(), authority.client(&[&TLS13], &[b"http/1.1"])).await.unwrap();
    let connecting = tokio_tungstenite::client_async("wss://localhost/v1/ws?topic=news", stream);
    let (mut socket, _) = in_time("the handshake", connecting).await.unwrap();
    let ready = in_time("ready", socket.next()).await.unwrap().unwrap();
    assert!(ready.to_text().unwrap().contains("\"op\":\"ready\""));
    publish(&authority, &node, &["1".into()]).await;
    let event = in_time("an event", socket.next()).await.unwrap().unwrap();
    assert!(event.to_text().unwrap().contains("\"data\":1"), "{event}");
}

/// A connection of HTTP/2.
async fn http2(authority: &Authority, node: &Node) -> SendRequest<Empty<Bytes>> {
    let stream = shake_hands(node.address(), authority.client(&[&TLS13], &[b"h2", b"http/1.1"])).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let connecting = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = in_time("the handshake of HTTP/2", connecting).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn get(sender: &mut SendRequest<Empty<Bytes>>, path: &str) -> hyper::Response<Incoming> {
    let request = Request::get(format!("https://localhost{path}")).body(Empty::new()).unwrap();
    in_time("an answer", sender.send_request(request)).await.unwrap()
}

/// What a listener's body holds so far, read until `wanted` is in it.
async fn read_until(body: &mut Incoming, wanted: &str) -> String {
    let mut text = String::new();
    while !text.contains(wanted) {
        let frame = in_time(wanted, body.frame()).await.unwrap_or_else(|| panic!("it ended after {text}")).unwrap();
        text += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
    }
    text
}

#[tokio::test]
async fn many_listeners_share_one_connection_of_http2() {
    let authority = Authority::new();
    let node =
        node(&authority, &[("WHIMBREL_ORIGINS", "https://app.example.com"), ("WHIMBREL_DRAIN_DELAY_SECONDS", "0")]);
    let mut sender = http2(&authority, &node).await;
    let mut bodies = Vec::new();
    for _ in 0..20 {
        let answer = get(&mut sender, "/v1/sse?topic=news&device=42&after=earliest").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream; charset=utf-8");
        assert_eq!(answer.headers()["cross-origin-resource-policy"], "same-origin");
        bodies.push(answer.into_body());
    }
    // The device may have sixteen connections.
    for body in &mut bodies[16..] {
        read_until(body, "\"limit\"").await;
    }
    for body in &mut bodies[..16] {
        read_until(body, "whimbrel:position").await;
    }
    let large = "x".repeat(60_000);
    publish(&authority, &node, &["1".into(), format!("\"{large}\""), "3".into()]).await;
    for body in &mut bodies[..16] {
        let text = read_until(body, "\"data\":3").await;
        assert!(text.contains("\"data\":1") && text.contains(&large));
    }
    let ready = async |sender: &mut SendRequest<Empty<Bytes>>| {
        let body = get(sender, "/health/ready").await.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice::<serde_json::Value>(&body).unwrap()["connections"].as_u64().unwrap()
    };
    // One that the client drops is gone, and the others go on.
    bodies.drain(10..);
    let mut asking = sender.clone();
    eventually("those that were dropped are gone", async || (ready(&mut asking).await == 10).then_some(())).await;
    node.signal(Signal::TERM);
    for body in &mut bodies {
        read_until(body, "\"drain\"").await;
    }
    assert!(node.ended().await.success());
}

#[tokio::test]
async fn over_http2_a_host_and_an_origin_are_judged_like_over_http1() {
    let authority = Authority::new();
    let node = node(&authority, &[("WHIMBREL_ORIGINS", "https://app.example.com")]);
    let mut sender = http2(&authority, &node).await;
    for (uri, origin, status) in [
        ("https://localhost/v1/nodes", None, 200),
        ("https://evil.example/v1/nodes", None, 403),
        ("https://localhost/v1/nodes", Some("https://app.example.com"), 200),
        ("https://localhost/v1/nodes", Some("https://localhost"), 200),
        // A page that came without TLS is another.
        ("https://localhost/v1/nodes", Some("http://localhost"), 403),
        ("https://localhost/v1/nodes", Some("https://evil.example"), 403),
    ] {
        let mut request = Request::get(uri);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        let answer = in_time("an answer", sender.send_request(request.body(Empty::new()).unwrap())).await.unwrap();
        assert_eq!(answer.status(), status, "{uri} {origin:?}");
    }
}

/// The certificate that the node shows now.
async fn shown(authority: &Authority, node: &Node) -> Vec<u8> {
    let stream = shake_hands(node.address(), authority.client(&[&TLS13], &[])).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn a_new_certificate_is_taken_when_the_files_change_and_a_bad_one_is_not() {
    let authority = Authority::new();
    let node = node(&authority, &[]);
    let first = shown(&authority, &node).await;
    std::fs::write(authority.path("node.pem"), "nothing").unwrap();
    node.signal(Signal::HUP);
    eventually("a line of the log that it can't be used", async || {
        node.log().contains("the TLS certificate stays as it was").then_some(())
    })
    .await;
    assert_eq!(shown(&authority, &node).await, first);
    let second = authority.issue("node");
    assert_ne!(first, second.to_vec());
    eventually("the new one is shown", async || (shown(&authority, &node).await == second.to_vec()).then_some(()))
        .await;
}

#[tokio::test]
async fn a_node_does_not_start_with_a_certificate_that_it_can_not_use() {
    let authority = Authority::new();
    authority.issue("one");
    authority.issue("other");
    std::fs::write(authority.path("empty.pem"), "").unwrap();
    for (certificate, key, words) in [
        ("one.pem", "missing.key", "missing.key"),
        ("one.pem", "other.key", "can't be used"),
        ("empty.pem", "one.key", "no certificate"),
        ("one.pem", "empty.pem", "no private key"),
    ] {
        let (certificate, key) = (authority.file(certificate), authority.file(key));
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--tls-cert-file", &certificate, "--tls-key-file", &key];
        let outcome = command::run(&arguments, &[], b"").await;
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        assert!(
            outcome.stderr.contains("WHIMBREL_TLS_CERT_FILE") && outcome.stderr.contains(words),
            "{}",
            outcome.stderr
        );
    }
}

#[tokio::test]
async fn clients_that_do_not_speak_tls_are_let_go_and_disturb_nobody() {
    let authority = Authority::new();
    let node = node(&authority, &[]);
    for bytes in [&b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff], &[0; 100]] {
        let mut socket = TcpStream::connect(node.address()).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = in_time("the end of the connection", socket.read_to_end(&mut answer)).await;
        assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    }
    let stranger = Arc::new(Authority::new());
    assert!(shake_hands(node.address(), stranger.client(&[&TLS13], &[])).await.is_err());
    publish(&authority, &node, &["1".into()]).await;
}
