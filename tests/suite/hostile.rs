//! Clients that mean harm, or are broken, do not hurt the node.

use std::time::{Duration, Instant};

use crate::support::client::{Client, Said, Transport, Wanted};
use crate::support::free_port;
use crate::support::http::Http;
use crate::support::node::Node;
use crate::support::redis::RedisServer;
use crate::support::world::{World, promises};

promises! {
    everywhere:
        a_full_node_turns_the_next_client_away_and_takes_it_when_there_is_room;
    on_redis:
        foreign_pages_and_hosts_are_refused,
}

/// Whether the node still does what it is for.
async fn still_serves(node: &Node, bystander: &mut Client) {
    node.publish("topic:bystander", "1").await;
    assert_eq!(bystander.data(1).await, ["1"]);
    let mut new = Wanted::new(Transport::Sse, &["topic:bystander"]).after("last:1").connect(node).await;
    assert_eq!(new.data(1).await, ["1"]);
    assert_eq!(node.get("/health/ready").await.status, 200);
}

async fn bystander(node: &Node) -> Client {
    Wanted::new(Transport::WebSocket, &["topic:bystander"]).connect(node).await
}

async fn a_full_node_turns_the_next_client_away_and_takes_it_when_there_is_room(world: World) {
    let node = world.node(&[("WHIMBREL_MAX_CONNECTIONS", "2")]);
    let wanted = world.wanted(&["topic:news"]);
    let mut first = wanted.connect(&node).await;
    let second = wanted.connect(&node).await;
    let code = (world.transport == Transport::WebSocket).then_some(1013);
    for _ in 0..3 {
        assert_eq!(wanted.turned_away(&node).await, Said::Close { reason: "overload".into(), code });
    }
    // Probes, figures and producers are not counted.
    assert_eq!(node.get("/health/ready").await.json()["connections"], 2);
    node.publish("topic:news", "1").await;
    assert_eq!(first.data(1).await, ["1"]);
    drop(second);
    crate::support::eventually("there is room", async || {
        (node.get("/health/ready").await.json()["connections"] == 1).then_some(())
    })
    .await;
    let mut third = wanted.connect(&node).await;
    node.publish("topic:news", "2").await;
    assert_eq!((first.data(1).await, third.data(1).await), (vec!["2".into()], vec!["2".into()]));
}

async fn foreign_pages_and_hosts_are_refused(world: World) {
    let node = world.node(&[]);
    let own = node.url();
    let path = match world.transport {
        Transport::Sse => "/v1/sse?topic=a",
        Transport::WebSocket => "/v1/ws?topic=a",
    };
    for headers in [
        [("Host", "evil.example"), ("Accept", "*/*")],
        [("Host", "127.0.0.1.evil.example:8080"), ("Accept", "*/*")],
        [("Origin", "https://evil.example"), ("Accept", "*/*")],
        [("Origin", "null"), ("Accept", "*/*")],
        [("Origin", "http://localhost.evil.example"), ("Accept", "*/*")],
    ] {
        for (method, path) in [("GET", path), ("POST", "/v1/topics/a/events"), ("GET", "/metrics"), ("GET", "/")] {
            assert_eq!(node.call(method, path, &headers, "1").await.problem(403).0, "forbidden", "{headers:?}");
        }
    }
    for headers in [[("Origin", own.as_str())], [("Host", "localhost")], [("Host", "[::1]:80")]] {
        assert_eq!(node.call("POST", "/v1/topics/a/events", &headers, "1").await.status, 201, "{headers:?}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_request_are_answered_or_dropped() {
    let node = Node::start(&[]);
    let mut bystander = bystander(&node).await;
    let host = format!("Host: {}\r\n", node.address());
    let huge_header = format!("GET / HTTP/1.1\r\n{host}X: {}\r\n\r\n", "x".repeat(2_000_000));
    let many_headers = format!("GET / HTTP/1.1\r\n{host}{}\r\n", "X: y\r\n".repeat(5_000));
    let huge_path = format!("GET /{} HTTP/1.1\r\n{host}\r\n", "x".repeat(2_000_000));
    let random: Vec<u8> = (0..5_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for garbage in [
        &random[..],
        b"\0\0\0\0\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        huge_header.as_bytes(),
        many_headers.as_bytes(),
        huge_path.as_bytes(),
    ] {
        let mut http = Http::connect(node.address()).await;
        let (mut reading, mut writing) = tokio::io::split(http.socket.get_mut());
        // It may close before it has read everything.
        let write = async {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut writing, garbage).await;
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut writing).await;
        };
        let read = async {
            let mut answer = Vec::new();
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut answer).await;
            answer
        };
        let (answer, ()) = crate::support::in_time("the end of it", async { tokio::join!(read, write) }).await;
        let shown = String::from_utf8_lossy(&garbage[..garbage.len().min(60)]).into_owned();
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{shown:?}: {:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    still_serves(&node, &mut bystander).await;
}

#[tokio::test]
async fn a_client_that_comes_back_at_once_is_turned_away_about_once_a_second() {
    let full = Node::start(&[("WHIMBREL_MAX_CONNECTIONS", "1")]);
    let _one = bystander(&full).await;
    let waiting = Node::start(&[("WHIMBREL_REDIS_URL", &format!("redis://127.0.0.1:{}/", free_port()))]);
    for (node, reason) in [(&full, "overload"), (&waiting, "unavailable")] {
        let since = Instant::now();
        for _ in 0..3 {
            let mut http = Http::connect(node.address()).await;
            http.request("GET", "/v1/sse?topic=a", &[], b"").await;
            let answered = String::from_utf8(http.rest().await).unwrap();
            assert!(answered.starts_with("HTTP/1.1 200 ") && answered.contains(reason), "{answered}");
        }
        assert!(since.elapsed() >= Duration::from_millis(1500), "{reason}: {:?}", since.elapsed());
        // Others are not held up by them.
        let since = Instant::now();
        assert_eq!(node.get("/health/live").await.status, 200);
        assert!(since.elapsed() < Duration::from_millis(400), "{:?}", since.elapsed());
    }
}

#[tokio::test]
async fn more_of_a_repeated_parameter_than_is_of_use_is_refused() {
    let node = Node::start(&[]);
    let list = |count: usize| (0..count).map(|n| format!("t{n}")).collect::<Vec<_>>().join(",");
    let same = ["a"; 5000].join(",");
    let mut wanted = Wanted::new(Transport::Sse, &["topic:a"]).with("types", &list(63)).with("types", &same);
    let mut client = wanted.connect(&node).await;
    node.publish_with("topic:a", "type=other", "1").await;
    node.publish_with("topic:a", "type=t62", "2").await;
    assert_eq!(client.data(1).await, ["2"]);
    wanted = wanted.with("types", "one-too-many");
    let streams = "&topic=a".repeat(3000) + &(0..64).map(|n| format!("&topic=t{n}")).collect::<String>();
    let positions = "&after=topic:a/1-1".repeat(65);
    for (path, detail) in [
        (format!("/v1/sse?topic=a&types={}", list(65)), "64 types"),
        (format!("/v1/sse?x=1{streams}").replace("x=1&", ""), "more than 64 streams"),
        (format!("/v1/sse?topic=a{positions}"), "more than 64 positions"),
    ] {
        let (slug, answered) = node.get(&path).await.problem(400);
        assert!(slug == "bad-request" && answered.contains(detail), "{answered}");
    }
    assert!(wanted.refused(&node).await.problem(400).1.contains("64 types"));
}

#[tokio::test]
async fn a_target_that_is_no_path_is_a_bad_request() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[]);
    // One that waits for its store answers by another way.
    let waiting = Node::start(&[("WHIMBREL_REDIS_URL", &format!("redis://127.0.0.1:{}/", free_port()))]);
    for node in [&node, &waiting] {
        let host = format!("Host: {}\r\nContent-Length: 0\r\n", node.address());
        for target in ["CONNECT evil.example:443", "CONNECT a:1", "GET evil.example", "POST a:1", "GET mailto:x@y"] {
            let mut http = Http::connect(node.address()).await;
            http.send(format!("{target} HTTP/1.1\r\n{host}\r\n")).await;
            assert_eq!(http.answer("GET").await.problem(400).0, "bad-request", "{target}");
        }
        // As a proxy is asked, and what is asked of a server as a whole.
        let own = node.url();
        for (target, status) in [
            (format!("GET {own}"), 200),
            (format!("GET {own}/nothing"), 404),
            ("OPTIONS *".to_owned(), 404),
            ("GET http://evil.example/".to_owned(), 400),
        ] {
            let mut http = Http::connect(node.address()).await;
            http.send(format!("{target} HTTP/1.1\r\n{host}\r\n")).await;
            assert_eq!(http.answer("GET").await.status, status, "{target}");
        }
        assert_eq!(node.metric("panics_total").await, 0.0);
    }
}

#[tokio::test]
async fn clients_that_send_slowly_or_nothing_hold_up_nobody() {
    let node = Node::start(&[]);
    let mut bystander = bystander(&node).await;
    let mut held = Vec::new();
    let host = format!("Host: {}\r\n", node.address());
    for n in 0..300 {
        let mut http = Http::connect(node.address()).await;
        match n % 4 {
            0 => {}
            1 => http.send("GET /v1/sse?topic=bystander HT").await,
            2 => http.send(format!("GET / HTTP/1.1\r\n{host}X-Slow: ")).await,
            _ => http.send(format!("POST /v1/topics/a/events HTTP/1.1\r\n{host}Content-Length: 100\r\n\r\n[1")).await,
        }
        held.push(http);
    }
    let since = Instant::now();
    still_serves(&node, &mut bystander).await;
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    for http in &mut held {
        http.send("x").await;
    }
    still_serves(&node, &mut bystander).await;
    drop(held);
    still_serves(&node, &mut bystander).await;
    assert_eq!(node.get_json("/v1/topics/a/events").await["events"], serde_json::json!([]));
}

/// What floods a WebSocket, over and over.
const FLOODS: [&[u8]; 5] = [
    &[0x89, 0x80, 0, 0, 0, 0],                  // pings
    &[0x8a, 0x80, 0, 0, 0, 0],                  // pongs that nobody asked for
    &[0x01, 0x80, 0, 0, 0, 0],                  // beginnings of messages
    b"\x81\x8d\0\0\0\0{\"op\":\"ping\"}",       // operations
    b"\x81\x92\0\0\0\0{\"op\":\"publish\",\"x", // nonsense
];

#[tokio::test]
async fn floods_over_a_websocket_hold_up_nobody() {
    let node = Node::start(&[("WHIMBREL_RATE_MESSAGES", "100")]);
    let mut bystander = bystander(&node).await;
    let before = crate::support::resident(node.pid());
    let mut held = Vec::new();
    for flood in FLOODS.into_iter().cycle().take(4 * FLOODS.len()) {
        let mut http = Http::connect(node.address()).await;
        crate::support::websocket::Frames::ask(&mut http, "/v1/ws?topic=a", &[]).await;
        assert_eq!(http.head().await.status, 101);
        // It reads nothing, and stops where the node takes no more, or lets it go.
        let write = async {
            let bytes = flood.repeat(20_000);
            let _ = tokio::io::AsyncWriteExt::write_all(&mut http.socket, &bytes).await;
        };
        let _ = tokio::time::timeout(Duration::from_millis(500), write).await;
        held.push(http);
    }
    // And one that begins a message and adds nothing to it, for ever.
    let mut empty = Http::connect(node.address()).await;
    crate::support::websocket::Frames::ask(&mut empty, "/v1/ws?topic=a", &[]).await;
    empty.send(FLOODS[2]).await;
    let _ = tokio::io::AsyncWriteExt::write_all(&mut empty.socket, &[0, 0x80, 0, 0, 0, 0].repeat(50_000)).await;
    still_serves(&node, &mut bystander).await;
    let grown = crate::support::resident(node.pid()).saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
    drop((held, empty));
    still_serves(&node, &mut bystander).await;
}

#[tokio::test]
async fn clients_that_vanish_in_the_middle_leave_nothing() {
    let node = Node::start(&[]);
    let mut bystander = bystander(&node).await;
    for n in 0..100 {
        let transport = if n % 2 == 0 { Transport::Sse } else { Transport::WebSocket };
        let wanted = Wanted::new(transport, &["topic:bystander", "topic:other"]).after("earliest");
        match n % 3 {
            0 => drop(wanted.ask(&node).await),
            1 => drop(wanted.connect(&node).await),
            _ => {
                let client = wanted.connect(&node).await;
                node.publish("topic:other", "1").await;
                drop(client);
            }
        }
    }
    node.metric_is("connections{transport=\"sse\"}", 0.0).await;
    node.metric_is("connections{transport=\"websocket\"}", 1.0).await;
    node.metric_is("temporary_dispatchers", 0.0).await;
    still_serves(&node, &mut bystander).await;
}
