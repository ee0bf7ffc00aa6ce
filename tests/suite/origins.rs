//! Which web pages may use a node: its own, and those of allowed origins.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::support::client::Transport;
use crate::support::http::{Answer, Http};
use crate::support::in_time;
use crate::support::node::Node;
use crate::support::world::{World, promises};

promises! {
    everywhere:
        a_page_of_another_origin_is_refused_before_anything_is_done,
        a_page_of_an_allowed_origin_may_publish_and_listen_and_read_the_answers;
    on_redis:
}

/// The head of the answer to a listener's request with these headers.
async fn listened(world: &World, node: &Node, headers: &[(&str, &str)]) -> Answer {
    world.ask(node, headers).await.0
}

fn welcome(world: &World) -> u16 {
    match world.transport {
        Transport::Sse => 200,
        Transport::WebSocket => 101,
    }
}

async fn a_page_of_another_origin_is_refused_before_anything_is_done(world: World) {
    let node = world.node(&[("WHIMBREL_ORIGINS", "https://app.example.com")]);
    let port = node.address().port();
    let neighbour = format!("http://127.0.0.1:{}", port.wrapping_add(1));
    let alias = format!("http://localhost:{port}");
    for foreign in [&neighbour, &alias, "https://evil.example", "null", "https://app.example.com.evil.example"] {
        let origin = [("Origin", foreign)];
        for (method, path) in [("POST", "/v1/topics/news/events"), ("OPTIONS", "/v1/topics/news/events"), ("GET", "/")]
        {
            let answer = node.call(method, path, &origin, "1").await;
            assert_eq!(answer.problem(403).0, "forbidden", "{foreign} {method} {path}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
        assert_eq!(listened(&world, &node, &origin).await.status, 403, "{foreign}");
    }
    for site in ["cross-site", "same-site"] {
        let frame = [("Sec-Fetch-Site", site), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "iframe")];
        assert_eq!(listened(&world, &node, &frame).await.status, 403, "{site}");
        assert_eq!(node.call("GET", "/health/live", &frame, "").await.status, 403, "{site}");
        let link = [("Sec-Fetch-Site", site), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")];
        assert_eq!(node.call("GET", "/", &link, "").await.status, 200, "{site}");
        assert_eq!(node.call("GET", "/v1/nodes", &link, "").await.status, 403, "{site}");
    }
    assert!(node.history("topic:news").await.is_empty());
    node.metric_is("requests_refused_total{reason=\"origin\"}", 26.0).await;
    let own = node.url();
    for headers in [[("Origin", own.as_str())], [("Sec-Fetch-Site", "same-origin")], [("Sec-Fetch-Site", "none")]] {
        let answer = listened(&world, &node, &headers).await;
        assert_eq!(answer.status, welcome(&world), "{headers:?}");
        assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"));
    }
}

async fn a_page_of_an_allowed_origin_may_publish_and_listen_and_read_the_answers(world: World) {
    let node = world.node(&[("WHIMBREL_ORIGINS", "https://app.example.com https://*.example.org")]);
    for allowed in ["https://app.example.com", "https://a.b.example.org"] {
        // A browser marks these as from another site.
        let origin = [("Origin", allowed), ("Sec-Fetch-Site", "cross-site")];
        let answers = [
            (201, node.call("POST", "/v1/topics/news/events", &origin, "1").await),
            (400, node.call("POST", "/v1/topics/news/events?ttl=0", &origin, "1").await),
            (404, node.call("GET", "/v1/nothing", &origin, "").await),
            (405, node.call("PATCH", "/v1/events", &origin, "").await),
            (welcome(&world), listened(&world, &node, &origin).await),
        ];
        for (status, answer) in answers {
            assert_eq!(answer.status, status, "{allowed}");
            assert_eq!(answer.header("access-control-allow-origin"), Some(allowed), "{status}");
            assert_eq!(answer.header("access-control-allow-credentials"), Some("true"), "{status}");
            assert!(answer.headers.contains(&("vary".into(), "Origin".into())), "{status} {answer:?}");
        }
    }
    // A cache must not hand to one origin what it got for a request without any.
    let answer = node.get("/v1/topics/news").await;
    assert_eq!((answer.header("vary"), answer.header("access-control-allow-origin")), (Some("Origin"), None));
}

/// What a browser asks before it sends what a form could not.
async fn preflight(node: &Node, path: &str, origin: &str, method: &str, headers: &str) -> Answer {
    let asked = [
        ("Origin", origin),
        ("Access-Control-Request-Method", method),
        ("Access-Control-Request-Headers", headers),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Mode", "cors"),
    ];
    node.call("OPTIONS", path, &asked, "").await
}

#[tokio::test]
async fn a_preflight_allows_what_the_path_takes_and_clients_send() {
    let node = Node::start(&[("WHIMBREL_ORIGINS", "https://app.example.com")]);
    let wanted = "authorization,content-type,idempotency-key,last-event-id";
    for (path, methods) in [
        ("/v1/topics/news/events", &["GET", "POST"][..]),
        ("/v1/events", &["POST"]),
        ("/v1/sse", &["GET"]),
        ("/v1/devices/42/region", &["PUT"]),
        ("/v1/devices/42", &["GET", "DELETE"]),
    ] {
        for method in methods {
            let answer = preflight(&node, path, "https://app.example.com", method, wanted).await;
            assert_eq!(answer.status, 204, "{method} {path}");
            let listed = |name: &str, word: &str| {
                let list = answer.header(name).unwrap().split(',').map(str::trim).collect::<Vec<_>>();
                list.iter().any(|listed| listed.eq_ignore_ascii_case(word))
            };
            assert!(listed("access-control-allow-methods", method), "{method} {path}");
            assert!(wanted.split(',').all(|name| listed("access-control-allow-headers", name)), "{answer:?}");
            assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example.com"));
            assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
            assert!(answer.header("access-control-max-age").unwrap().parse::<u32>().unwrap() > 0);
        }
    }
    for (path, status) in [("/v1/tidess//events", 404), ("/v1/topics/a%20b/events", 400)] {
        let answer = preflight(&node, path, "https://app.example.com", "POST", wanted).await;
        assert_eq!((answer.status, answer.header("access-control-allow-methods")), (204, Some("POST")), "{path}");
        let page = ("Origin", "https://app.example.com");
        let refused = node.call("POST", path, &[page], "1").await;
        assert_eq!(refused.status, status, "{path}: {}", refused.text());
        assert_eq!(
            refused.header("access-control-allow-origin"),
            Some("https://app.example.com"),
            "the page reads why"
        );
    }
    let foreign = preflight(&node, "/v1/events", "https://evil.example", "POST", wanted).await;
    assert_eq!((foreign.status, foreign.header("access-control-allow-origin")), (403, None));
}

#[tokio::test]
async fn a_star_allows_every_page_without_credentials() {
    let node = Node::start(&[("WHIMBREL_ORIGINS", "*")]);
    for headers in [[("Origin", "https://any.example")], [("Origin", "null")]] {
        let answer = node.call("POST", "/v1/topics/news/events", &headers, "1").await;
        assert_eq!(answer.status, 201);
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
}

#[tokio::test]
async fn a_development_node_serves_every_page_of_this_machine_and_no_other() {
    let node = Node::start(&[("WHIMBREL_DEV", "true")]);
    for origin in ["http://localhost:3000", "http://127.0.0.1:5173", "https://app.localhost"] {
        let answer = node.call("POST", "/v1/topics/news/events", &[("Origin", origin)], "1").await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (201, Some(origin)));
    }
    let answer = node.call("POST", "/v1/topics/news/events", &[("Origin", "https://evil.example")], "1").await;
    assert_eq!(answer.status, 403);
}

#[tokio::test]
async fn a_request_names_one_host_and_on_loopback_one_of_this_machine() {
    let node = Node::start(&[]);
    let own = node.address();
    for (status, request) in [
        (200, format!("GET /health/live HTTP/1.1\r\nHost: {own}\r\n\r\n")),
        (200, format!("GET http://{own}/health/live HTTP/1.1\r\nHost: {own}\r\n\r\n")),
        (200, "GET /health/live HTTP/1.0\r\n\r\n".to_owned()),
        (400, "GET /health/live HTTP/1.1\r\n\r\n".to_owned()),
        (400, format!("GET /health/live HTTP/1.1\r\nHost: {own}\r\nHost: evil.example\r\n\r\n")),
        (400, format!("GET http://evil.example/health/live HTTP/1.1\r\nHost: {own}\r\n\r\n")),
        (400, "GET /health/live HTTP/1.1\r\nHost: me@localhost\r\n\r\n".to_owned()),
        (400, "GET /health/live HTTP/1.1\r\nHost: localhost, evil.example\r\n\r\n".to_owned()),
        (403, "GET http://evil.example/health/live HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned()),
        (403, "GET /health/live HTTP/1.0\r\nHost: evil.example\r\n\r\n".to_owned()),
        (403, "GET /health/live HTTP/1.1\r\nHost: 0.0.0.0\r\n\r\n".to_owned()),
    ] {
        let mut http = Http::connect(own).await;
        http.send(&request).await;
        let mut line = [0; 12];
        in_time("an answer", http.socket.read_exact(&mut line)).await.unwrap();
        assert!(line.ends_with(status.to_string().as_bytes()), "{request:?}: {}", String::from_utf8_lossy(&line));
    }
}

#[tokio::test]
async fn on_a_unix_socket_any_host_goes_and_only_its_own_origin() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sock");
    let listen = format!("127.0.0.1:0 unix:{}", path.display());
    let _node = Node::start(&[("WHIMBREL_LISTEN", &listen)]);
    for (origin, status) in [
        ("Origin: https://push.example\r\n", "201"),
        ("Origin: http://localhost:3000\r\n", "403"),
        ("Origin: http://127.0.0.1\r\n", "403"),
        ("Sec-Fetch-Site: cross-site\r\n", "403"),
        ("", "201"),
    ] {
        let mut socket = in_time("the connection", UnixStream::connect(&path)).await.unwrap();
        let head =
            format!("POST /v1/topics/news/events HTTP/1.1\r\nHost: push.example\r\n{origin}Content-Length: 1\r\n\r\n1");
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut line = [0; 12];
        in_time("an answer", socket.read_exact(&mut line)).await.unwrap();
        assert!(line.ends_with(status.as_bytes()), "{origin:?}: {}", String::from_utf8_lossy(&line));
    }
}
