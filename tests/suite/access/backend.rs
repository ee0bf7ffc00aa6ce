//! A backend of the application decides (`WHIMBREL_AUTHORIZE_URL`).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use super::*;
use crate::support::backend::{Backend, Question, Reply};
use crate::support::client::{Client, Said, Transport, Wanted};
use crate::support::producers::python_with;
use crate::support::receiver;
use crate::support::token::{device, now, token};

/// A node that asks this backend, with keys for producers.
fn asking(backend: &Backend, keys: &NamedTempFile, more: &[(&str, &str)]) -> Node {
    let url = backend.url("/authorize");
    let own = [
        ("WHIMBREL_AUTHORIZE_URL", url.as_str()),
        ("WHIMBREL_WEBHOOK_SECRET", receiver::SECRET),
        ("WHIMBREL_API_KEYS_FILE", keys.path().to_str().unwrap()),
    ];
    Node::start(&[&own[..], more].concat())
}

/// Says yes to whoever has a session, which names the device.
fn by_session(question: &Question) -> Reply {
    match question.header("cookie").strip_prefix("session=") {
        Some(device) => Reply::json(json!({"device": device, "subscribe": ["topic:news"]})),
        None => Reply::status(401),
    }
}

fn visitor(transport: Transport, streams: &[&str]) -> Wanted {
    Wanted::new(transport, streams).header("Cookie", "session=42")
}

async fn publish(node: &Node, stream: &str) -> String {
    ask_as(node, Some(PUBLISH), "POST", &crate::support::node::events_path(stream), "1").await.id()
}

#[tokio::test]
async fn a_client_without_a_token_is_let_in_by_what_the_backend_says() {
    let (backend, keys) = (Backend::start(by_session).await, keys_file());
    let node = asking(&backend, &keys, &[]);
    for transport in [Transport::Sse, Transport::WebSocket] {
        let wanted = visitor(transport, &["device:42", "topic:news"]).header("X-Forwarded-For", "192.0.2.7");
        let mut client = wanted.connect(&node).await;
        let id = publish(&node, "device:42").await;
        assert_eq!(client.event().await.id, id);
        // What the answer does not name is refused as with a token.
        let refused = visitor(transport, &["device:42", "topic:other"]).refused(&node).await.problem(403);
        assert!(refused.1.contains("topic:other"), "{}", refused.1);
        visitor(transport, &["device:7"]).refused(&node).await.problem(403);
        Wanted::new(transport, &["device:42"]).refused(&node).await.problem(401);
    }
    let question = &backend.asked()[0];
    receiver::verify(
        question.header("webhook-id"),
        question.header("webhook-timestamp"),
        question.header("webhook-signature"),
        &question.body,
    );
    assert_eq!((question.method.as_str(), question.path.as_str()), ("POST", "/authorize"));
    assert_eq!(
        (question.header("content-type"), question.header("x-forwarded-for")),
        ("application/json", "192.0.2.7")
    );
    let mut body = question.json();
    assert!(body["connection"].take().as_str().unwrap().parse::<uuid::Uuid>().is_ok());
    let streams = json!(["device:42", "topic:news"]);
    let expected =
        json!({"action": "connect", "device": "42", "streams": streams, "connection": null, "address": "127.0.0.1"});
    assert_eq!(body, expected);
    // Only who listens is asked about.
    ask(&node, "GET", "/v1/devices/42/events", &[("Cookie", "session=42")], "").await.problem(401);
    assert!(!node.log().contains("session=42"));
}

#[tokio::test]
async fn what_a_token_or_key_decides_the_backend_is_not_asked() {
    let (backend, keys) = (Backend::start(by_session).await, keys_file());
    let node = asking(&backend, &keys, &[("WHIMBREL_JWT_SECRET", SECRET)]);
    for transport in [Transport::Sse, Transport::WebSocket] {
        let wanted = |streams: &[&str]| visitor(transport, streams);
        wanted(&["device:7"]).bearer(&device("7", &[], &[])).connect(&node).await;
        wanted(&["topic:news"]).bearer(READ).connect(&node).await;
        wanted(&["topic:news"]).bearer(&device("7", &[], &[])).refused(&node).await.problem(403);
        wanted(&["device:7"]).bearer(&token(json!({"sub": "7", "exp": now() - 60}))).refused(&node).await.problem(401);
    }
    assert!(backend.asked().is_empty());
    // A token that is none of this service's is the application's own.
    backend.be(|question| match question.header("authorization") {
        "Bearer opaque-0123456789" => Reply::json(json!({"device": "42"})),
        _ => Reply::status(403),
    });
    Wanted::new(Transport::Sse, &["device:42"]).with("token", "opaque-0123456789").connect(&node).await;
    Wanted::new(Transport::WebSocket, &["device:42"]).bearer("opaque-0123456789").connect(&node).await;
    visitor(Transport::Sse, &["device:42"]).bearer("made-up").refused(&node).await.problem(403);
}

#[tokio::test]
async fn what_anyone_may_read_they_may_whatever_the_backend_says() {
    let (backend, keys) = (Backend::start(by_session).await, keys_file());
    let node = asking(&backend, &keys, &[("WHIMBREL_ANONYMOUS", "topic:public:*")]);
    let replies = [Reply::status(401), Reply::status(403), Reply::status(500)];
    for (number, reply) in replies.into_iter().enumerate() {
        backend.be(move |_| reply.clone());
        let public = format!("topic:public:{number}");
        for transport in [Transport::Sse, Transport::WebSocket] {
            Wanted::new(transport, &[&public]).connect(&node).await;
        }
        let refused = Wanted::new(Transport::WebSocket, &[&public, "topic:news"]).refused(&node).await;
        assert!(matches!(refused.status, 401 | 403 | 503), "{refused:?}");
    }
}

#[tokio::test]
async fn whatever_is_no_answer_lets_nobody_in() {
    let elsewhere = Backend::start(by_session).await;
    let (backend, keys) = (Backend::start(|_| Reply::Hang).await, keys_file());
    let node = asking(&backend, &keys, &[]);
    let replies = [
        Reply::Hang,
        Reply::status(500),
        Reply::status(204),
        Reply::json("yes"),
        Reply::json(r#"{"device":"42","expires":5}"#),
        Reply::json(r#"{"device":"42","subscribe":["topic:news","news"]}"#),
        Reply::json(r#"{"device":"42","publish":["topic:a\nb"]}"#),
        Reply::json(r#"{"device":"42","info":{"a":"\ud800"}}"#),
        Reply::json(format!(r#"{{"device":"42","fill":"{}"}}"#, "x".repeat(100_000))),
        Reply::Say(307, vec![("location", elsewhere.url("/authorize"))], String::new()),
    ];
    let count = replies.len();
    for reply in replies {
        backend.be(move |_| reply.clone());
        visitor(Transport::WebSocket, &["device:42"]).refused(&node).await.problem(503);
    }
    let refused = ask(&node, "GET", "/v1/sse?device=42", &[("Cookie", "session=42")], "").await;
    assert_eq!((refused.problem(503).0.as_str(), refused.header("retry-after").is_some()), ("unavailable", true));
    // An EventSource would stay away for good at 503.
    let headers = [("Cookie", "session=42"), ("Accept", "text/event-stream")];
    let told = ask(&node, "GET", "/v1/sse?device=42", &headers, "").await;
    assert_eq!(told.status, 200);
    assert!(told.text().contains(r#"{"reason":"unavailable""#), "{}", told.text());
    assert!(elsewhere.asked().is_empty(), "redirects are not followed");
    let failed = count as f64 + 2.0;
    node.metric_is_for(ADMIN, "access_backend_questions_total{outcome=\"failed\"}", failed).await;
    for (status, expected) in [(401, 401), (403, 403)] {
        backend.be(move |_| Reply::status(status));
        let wanted = visitor(Transport::Sse, &["device:42"]).header("X-Forwarded-For", &status.to_string());
        wanted.refused(&node).await.problem(expected);
    }
}

#[tokio::test]
async fn over_a_websocket_what_the_answer_does_not_name_is_asked_for_when_it_is_wanted() {
    let (backend, keys) = (Backend::start(by_session).await, keys_file());
    let node = asking(&backend, &keys, &[]);
    let mut client = visitor(Transport::WebSocket, &["device:42"]).connect(&node).await;
    let subscribe = |stream: &str| json!({"op": "subscribe", "stream": stream});
    assert_eq!(client.ask(subscribe("topic:news")).await["op"], "ok");
    assert_eq!(backend.asked().len(), 1, "the answer at connect names it");
    backend.be(|question| match question.json()["action"].as_str().unwrap() {
        "subscribe" => Reply::json(json!({"device": "42", "subscribe": ["topic:extra"], "expires": now() + 3})),
        "publish" => Reply::json(json!({"device": "42", "publish": ["topic:extra"]})),
        _ => Reply::status(500),
    });
    assert_eq!(client.ask(subscribe("topic:extra")).await["op"], "ok");
    let question = backend.asked()[1].clone();
    assert_eq!((question.json()["streams"].clone(), question.header("cookie")), (json!(["topic:extra"]), "session=42"));
    assert_eq!(question.json()["connection"], client.connection());
    let id = client.ask(json!({"op": "publish", "stream": "topic:extra", "data": 1, "echo": false})).await;
    assert_eq!(id["op"], "ok", "{id}");
    assert_eq!(client.ask(json!({"op": "publish", "stream": "topic:else", "data": 1})).await["code"], "forbidden");
    assert_eq!(client.ask(subscribe("topic:else")).await["code"], "forbidden");
    // The extra stream ends with its answer, and the connection goes on.
    let ended = loop {
        if let Said::Answer(answer) = client.next().await {
            break answer;
        }
    };
    assert_eq!(ended, json!({"op": "unsubscribed", "stream": "topic:extra"}));
    backend.be(|_| Reply::status(403));
    assert_eq!(client.ask(subscribe("topic:more")).await["code"], "forbidden");
    backend.be(|_| Reply::status(500));
    assert_eq!(client.ask(subscribe("topic:still-more")).await["code"], "unavailable");
    backend.be(|_| Reply::json(json!({"device": "7", "subscribe": ["*"]})));
    assert_eq!(client.ask(subscribe("topic:of-another")).await["code"], "forbidden", "it is another device's");
    assert_eq!(client.ask(json!({"op": "ping"})).await["op"], "pong");
}

#[tokio::test]
async fn equal_questions_are_one_and_a_revocation_has_the_backend_asked_anew() {
    let (backend, keys) = (Backend::start(by_session).await, keys_file());
    let node = asking(&backend, &keys, &[]);
    let wanted = visitor(Transport::Sse, &["device:42"]);
    let mut clients: Vec<Client> = join_all((0..10).map(|_| wanted.connect(&node))).await;
    assert_eq!(backend.asked().len(), 1);
    visitor(Transport::Sse, &["topic:news"]).connect(&node).await;
    assert_eq!(backend.asked().len(), 2);
    let body = json!({"device": "42"}).to_string();
    assert_eq!(ask_as(&node, Some(ADMIN), "POST", "/v1/revocations", &body).await.status, 201);
    for client in &mut clients {
        let said = client.next().await;
        assert!(matches!(&said, Said::Close { reason, .. } if reason == "revoked"), "{said:?}");
    }
    wanted.connect(&node).await;
    assert_eq!(backend.asked().len(), 3, "what was answered before the revocation is not used after it");
}

#[tokio::test]
async fn a_connection_ends_with_the_answer_on_which_it_stands() {
    let (backend, keys) =
        (Backend::start(|_| Reply::json(json!({"device": "42", "expires": now() + 3}))).await, keys_file());
    let node = asking(&backend, &keys, &[]);
    for transport in [Transport::Sse, Transport::WebSocket] {
        let mut client = visitor(transport, &["device:42"]).connect(&node).await;
        assert_eq!(client.next().await, Said::Expiring);
        let said = client.next().await;
        assert!(matches!(&said, Said::Close { reason, .. } if reason == "expired"), "{said:?}");
    }
}

#[tokio::test]
async fn a_cookie_of_a_page_that_may_not_use_it_is_not_passed_on() {
    let (backend, keys) = (Backend::start(by_session).await, keys_file());
    let node = asking(&backend, &keys, &[("WHIMBREL_ORIGINS", "*")]);
    let wanted = visitor(Transport::Sse, &["device:42"]).header("Origin", "https://evil.example");
    wanted.refused(&node).await.problem(401);
    assert_eq!(backend.asked()[0].header("cookie"), "");
}

#[tokio::test]
async fn the_example_with_a_session_cookie_works_as_it_stands() {
    let keys = keys_file();
    // Its page is not run here, so it need not know the node.
    let mut application = python_with(
        "examples/session-cookie/backend.py",
        &["0", "http://127.0.0.1:1"],
        &[("WHIMBREL_WEBHOOK_SECRET", receiver::SECRET)],
    );
    let mut printed = application.lines();
    let origin = crate::support::in_time("its address", printed.next_line()).await.unwrap().unwrap();
    let url = format!("{origin}/authorize");
    let node = Node::start(&[
        ("WHIMBREL_AUTHORIZE_URL", &url),
        ("WHIMBREL_WEBHOOK_SECRET", receiver::SECRET),
        ("WHIMBREL_ORIGINS", &origin),
        ("WHIMBREL_API_KEYS_FILE", keys.path().to_str().unwrap()),
    ]);
    let address = origin.strip_prefix("http://").unwrap().parse().unwrap();
    let login = async |user: &str| {
        let form = format!("user={user}");
        let headers = [("Content-Type", "application/x-www-form-urlencoded")];
        let answer = Http::connect(address).await.call("POST", "/login", &headers, form.as_bytes()).await;
        answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
    };
    let wanted = |cookie: &str| {
        Wanted::new(Transport::Sse, &["device:ann", "topic:news"]).header("Cookie", cookie).header("Origin", &origin)
    };
    let (ann, bob) = (login("ann").await, login("bob").await);
    let page = Http::connect(address).await.call("GET", "/", &[("Cookie", &ann)], b"").await;
    assert!(page.text().contains("/v1/sse?device=ann"), "{}", page.text());
    let mut client = wanted(&ann).connect(&node).await;
    let id = publish(&node, "device:ann").await;
    assert_eq!(client.event().await.id, id);
    wanted(&bob).refused(&node).await.problem(403);
    wanted("session=made-up").refused(&node).await.problem(401);
    // Nobody else gets an answer of the application.
    let asked = Http::connect(address).await.call("POST", "/authorize", &[("Cookie", &ann)], b"{}").await;
    assert_eq!(asked.status, 400);
    assert_eq!(Http::connect(address).await.call("POST", "/logout", &[("Cookie", &ann)], b"").await.status, 204);
    let page = Http::connect(address).await.call("GET", "/", &[("Cookie", &ann)], b"").await;
    assert!(page.text().contains("Log in"), "{}", page.text());
}

#[tokio::test]
async fn at_most_256_questions_are_under_way_and_whoever_gets_no_turn_in_time_stays_out() {
    const CLIENTS: usize = 300;
    let (backend, keys) = (Backend::start(|_| Reply::Hang).await, keys_file());
    let node = asking(&backend, &keys, &[]);
    let clients = (0..CLIENTS).map(async |number| {
        let session = format!("session={number}");
        let wanted = Wanted::new(Transport::WebSocket, &["device:42"]).header("Cookie", &session);
        let begun = Instant::now();
        assert_eq!(wanted.refused(&node).await.problem(503).0, "unavailable");
        (session, begun)
    });
    let begun: HashMap<String, Instant> = join_all(clients).await.into_iter().collect();
    let asked = backend.asked();
    assert!(asked.len() >= 256, "{}", asked.len());
    // A question that came is under way for 3 s from when its client did, as nothing answers it.
    for question in &asked {
        let over = |other: &Question| begun[other.header("cookie")] + Duration::from_secs(3) <= question.at;
        let under_way = asked.iter().filter(|other| other.at <= question.at && !over(other)).count();
        assert!(under_way <= 256, "{under_way}");
    }
    node.metric_is_for(ADMIN, "access_backend_questions_total{outcome=\"failed\"}", CLIENTS as f64).await;
    node.metric_is_for(ADMIN, "access_backend_waiting", 0.0).await;
    backend.be(by_session);
    visitor(Transport::Sse, &["device:42"]).connect(&node).await;
}
