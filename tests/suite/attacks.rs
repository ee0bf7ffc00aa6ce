//! Requests in shapes by which other servers were broken into.

use crate::support::http::Http;
use crate::support::node::Node;
use crate::support::redis::RedisServer;

/// What the node answers to these bytes, until it closes.
async fn answers(node: &Node, bytes: &[u8]) -> String {
    let mut http = Http::connect(node.address()).await;
    // It may close before it has read everything.
    let _ = tokio::io::AsyncWriteExt::write_all(&mut http.socket, bytes).await;
    let _ = tokio::io::AsyncWriteExt::shutdown(&mut http.socket).await;
    String::from_utf8_lossy(&http.rest().await).into_owned()
}

#[tokio::test]
async fn a_request_that_two_readers_would_read_differently_is_refused_with_all_that_follows_it() {
    let node = Node::start(&[]);
    let host = node.address();
    let smuggled = format!("POST /v1/topics/a/events HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\n\r\n2");
    for (version, framing) in [
        ("1.1", "Content-Length: 1\r\nContent-Length: 2"),
        ("1.1", "Content-Length: 1, 2"),
        ("1.1", "Content-Length: +1"),
        ("1.1", "Content-Length: -1"),
        ("1.1", "Content-Length: 0x1"),
        ("1.1", "Content-Length: 99999999999999999999"),
        ("1.1", "Content-Length : 1"),
        ("1.1", "Content-Length: 1\r\n X: folded"),
        ("1.1", "Transfer-Encoding : chunked"),
        ("1.1", "Transfer-Encoding: identity"),
        ("1.1", "Transfer-Encoding: chunked, identity"),
        ("1.1", "Transfer-Encoding:\r\n chunked"),
        ("1.0", "Transfer-Encoding: chunked"),
        ("1.1", "Content-Length: 1\r\nX: a\0b"),
        ("1.1", "Content-Length: 1\r\nX: a\rb: c"),
        ("1.1", "Content-Length: 1\r\n: nameless"),
        ("1.1", "Content-Length: 1\r\nX Y: z"),
    ] {
        let request =
            format!("POST /v1/topics/a/events HTTP/{version}\r\nHost: {host}\r\n{framing}\r\n\r\n1{smuggled}");
        let answer = answers(&node, request.as_bytes()).await;
        let is_refusal = answer.split(' ').nth(1).is_some_and(|status| status.starts_with('4'));
        assert!(answer.is_empty() || is_refusal, "{framing:?}: {answer}");
        assert!(answer.matches("HTTP/1.").count() <= 1, "{framing:?}: {answer}");
    }
    for chunks in
        ["z\r\n1\r\n0\r\n\r\n", "fffffffffffffffff1\r\n1\r\n0\r\n\r\n", "-1\r\n1\r\n0\r\n\r\n", "1\r\n12\r\n0\r\n\r\n"]
    {
        let request = format!(
            "POST /v1/topics/a/events HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{smuggled}"
        );
        let answer = answers(&node, request.as_bytes()).await;
        assert!(!answer.contains("HTTP/1.1 20"), "{chunks:?}: {answer}");
    }
    assert!(node.history("topic:a").await.is_empty());
}

#[tokio::test]
async fn a_request_whose_end_is_ambiguous_gets_400_and_its_connection_is_closed() {
    let node = Node::start(&[]);
    let host = node.address();
    let post = |fields: &str| format!("POST /v1/topics/a/events HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n\r\n");
    let sound = post("Content-Length: 1") + "7";
    let own = [
        post("Content-Length: 1\r\nTransfer-Encoding: chunked") + "3\r\n123\r\n0\r\n\r\n",
        post("transfer-encoding: chunked\r\ncontent-length: 3") + "3\r\n123\r\n0\r\n\r\n",
        post("Content-Length: 3\r\nContent-Length: 3") + "123",
        post("Content-Length: 3\nX: y") + "123",
        post("Content-Length: 3").replace("\r\n", "\n") + "123",
        post("Content-Length: 3").replacen("\r\n", "\n", 1) + "123",
        format!("GET /v1/sse?topic=a HTTP/1.1\r\nHost: {host}\n\r\n"),
    ];
    let hypers = [
        post("Content-Length: 3\r\nContent-Length: 4") + "123",
        post("Content-Length: 1, 3") + "123",
        post("Content-Length: 3\r\nX: y\r\n folded") + "123",
        post("Transfer-Encoding: chunked\r\n\tX: y") + "3\r\n123\r\n0\r\n\r\n",
    ];
    for (request, explained) in
        own.iter().map(|request| (request, true)).chain(hypers.iter().map(|request| (request, false)))
    {
        // By itself, behind an answered request, and right behind one that is not answered yet.
        for (before, at_once) in [("", true), (sound.as_str(), false), (sound.as_str(), true)] {
            let mut http = Http::connect(host).await;
            let mut taken = usize::from(!before.is_empty());
            if !at_once {
                http.send(before).await;
                assert_eq!(http.answer("POST").await.status, 201);
                taken = 0;
            }
            let before = if at_once { before } else { "" };
            // What follows would be stored if it were read as a request.
            http.send(format!("{before}{request}{sound}")).await;
            let rest = String::from_utf8_lossy(&http.rest().await).into_owned();
            let answers: Vec<&str> = rest.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
            assert_eq!(answers, [vec!["201"; taken], vec!["400"]].concat(), "{request:?}: {rest}");
            assert_eq!(rest.contains("urn:whimbrel:problem:bad-request"), explained, "{request:?}: {rest}");
        }
    }
    let count = (own.len() + hypers.len()) * 2;
    assert_eq!(node.history("topic:a").await, vec!["7"; count]);
    node.metric_is("requests_refused_total{reason=\"framing\"}", own.len() as f64 * 3.0).await;
}

#[tokio::test]
async fn sound_requests_in_chunks_keep_their_connection() {
    let node = Node::start(&[]);
    let mut http = Http::connect(node.address()).await;
    let head = format!("POST /v1/topics/a/events HTTP/1.1\r\nHost: {}\r\n", node.address());
    for body in [
        "1\r\n1\r\n0\r\n\r\n",
        "1;a=\"b\"\r\n1\r\n1\r\n2\r\n0\r\nX-Trailer: y\r\n\r\n",
        "00A\r\n\"12\\n345\\n\r\n1\r\n\"\r\n0\r\n\r\n",
    ] {
        for _ in 0..2 {
            http.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n{body}")).await;
            assert_eq!(http.answer("POST").await.status, 201, "{body:?}");
            assert_eq!(http.call("POST", "/v1/topics/a/events", &[], b"\n1").await.status, 201, "{body:?}");
        }
    }
    assert_eq!(node.history("topic:a").await.len(), 12);
}

#[tokio::test]
async fn a_path_is_decoded_once_and_leads_nowhere_else() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[]);
    for name in [
        "%2e%2e",
        "%2E",
        "..",
        "%252e%252e",
        "a%2Fevents",
        "42%2F..%2Fother",
        "a%5Cb",
        "a%00b",
        "a%0d%0aX:%20y",
        "a%0A",
        "a%20b",
        "%c0%ae%c0%ae",
        "%ed%a0%80",
        "a%E2%80%A8b",
        "%7Bdevice:x%7D",
        "a%7D:meta",
        "a%7D%7Bb",
        "%",
        "%zz",
        "whimbrel:lifecycle",
        "a;b",
        "a?b",
        "",
    ] {
        for path in [format!("/v1/devices/{name}/events"), format!("/v1/topics/{name}/events")] {
            let answer = node.call("POST", &path, &[], "1").await;
            assert!(matches!(answer.status, 400 | 403 | 404 | 405), "{path}: {}", answer.text());
        }
        // Whoever may, may follow that one.
        if name != "whimbrel:lifecycle" {
            let answer = node.get(&format!("/v1/sse?topic={name}")).await;
            assert_eq!(answer.status, 400, "{name}: {answer:?}");
        }
    }
    for path in
        ["/v1//devices/42/events", "/v1/devices/42/events/", "/v1/devices/42/../../topics/a/events", "//v1/events"]
    {
        let answer = node.call("POST", path, &[], "1").await;
        assert!(matches!(answer.status, 400 | 404 | 405), "{path}: {}", answer.text());
    }
    // No stream's keys came to be, in its hash tag or out of it.
    let mut raw = redis.raw().await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("whimbrel:*").query_async(&mut raw).await.unwrap();
    let stream =
        keys.iter().find(|key| key.contains("device:") || (key.contains("topic:") && !key.contains("lifecycle")));
    assert!(stream.is_none(), "{stream:?}");
}

#[tokio::test]
async fn control_characters_stand_in_no_type_key_cursor_or_id() {
    let node = Node::start(&[]);
    for bad in ["%00", "a%0Ab", "a%0Db", "a%E2%80%A8b", "a%ED%A0%80b", "a%7Fb", "%FF"] {
        for path in [
            format!("/v1/topics/a/events?type={bad}"),
            format!("/v1/topics/a/events?collapse={bad}"),
            format!("/v1/topics/a/events?ttl={bad}"),
            format!("/v1/topics/a/events?exclude={bad}"),
        ] {
            let answer = node.call("POST", &path, &[], "1").await;
            assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        }
        for path in [
            format!("/v1/sse?topic=a&after={bad}"),
            format!("/v1/sse?topic=a&types={bad}"),
            format!("/v1/topics/a/events?after={bad}"),
            format!("/v1/topics/a/events/5-1{bad}"),
        ] {
            let answer = node.get(&path).await;
            assert!(matches!(answer.status, 400 | 404), "{path}: {answer:?}");
            assert!(!answer.text().contains(['\n', '\r', '\0']), "{path}: {answer:?}");
        }
        let answer = node.call("GET", "/v1/sse?topic=a", &[("Last-Event-ID", &bad.replace('%', "\u{fffd}"))], "").await;
        assert_eq!(answer.status, 400, "{bad}");
    }
    for key in ["a\u{e9}", &"x".repeat(129)] {
        let answer = node.call("POST", "/v1/topics/a/events", &[("Idempotency-Key", key)], "1").await;
        assert_eq!(answer.status, 400, "{key}");
    }
    assert!(node.history("topic:a").await.is_empty());
}
