//! Who × what: every call that the API describes, by every kind of caller, on both stores and two nodes. A call
//! that is described and not judged here fails the test.

use serde_json::{Value, json};

use super::*;
use crate::support::client::{Client, Said, Transport, Wanted};
use crate::support::eventually;
use crate::support::redis::RedisServer;
use crate::support::token::{device, now, token};

/// What a call does, as far as access goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    /// Probes, descriptions, the page.
    Free,
    /// Something about the caller.
    Own,
    /// A batch, each entry of which is judged for itself.
    Batch,
    /// To follow or read `device:42`, or `topic:news`.
    Subscribe(&'static str),
    /// To publish to one of them.
    Publish(&'static str),
    /// To acknowledge for device 42.
    Acknowledge,
    /// To see the state of one of them, or of the service.
    Inspect(&'static str),
    /// To erase, move or disconnect one of them.
    Manage(&'static str),
    /// What concerns the whole service.
    Service,
}

fn call(method: &str, path: &str) -> Call {
    let stream = if path.contains("{device}") { "device:42" } else { "topic:news" };
    match (method, path) {
        ("options", _) => Call::Free,
        ("get", "/" | "/console/{file}" | "/openapi.json" | "/asyncapi.json") => Call::Free,
        ("get", path) if path.starts_with("/client") && path.ends_with(".js") => Call::Free,
        ("get", "/health/live" | "/health/ready") => Call::Free,
        ("get", "/metrics" | "/v1/leases" | "/v1/links" | "/v1/ingress/rejected") => Call::Service,
        ("get", "/v1/whoami") => Call::Own,
        ("post", "/v1/connections/{connection}/renew") => Call::Own,
        ("get" | "post" | "delete", path) if path.starts_with("/v1/revocations") => Call::Service,
        ("post", "/v1/events" | "/v1/cloudevents") => Call::Batch,
        ("post", path) if path.ends_with("/cloudevents") => Call::Publish(stream),
        ("get", "/v1/sse" | "/v1/ws" | "/v1/cursor") | ("post", "/v1/sse") => Call::Subscribe("topic:news"),
        ("get", "/v1/nodes" | "/v1/regions") => Call::Inspect("service"),
        ("get", "/v1/devices/{device}" | "/v1/topics/{topic}" | "/v1/topics/{topic}/connections") => {
            Call::Inspect(stream)
        }
        ("post", "/v1/devices/{device}/ack") => Call::Acknowledge,
        ("get" | "post", path) if path.ends_with("/log") => Call::Manage(stream),
        ("post", path) if path.ends_with("/events") => Call::Publish(stream),
        ("put" | "delete", path) if path.ends_with("/lease") => Call::Publish(stream),
        ("get", path) if path.contains("/events") || path.ends_with("/members") => Call::Subscribe(stream),
        ("put", path) if path.ends_with("/region") => Call::Manage(stream),
        ("delete", "/v1/devices/{device}" | "/v1/topics/{topic}" | "/v1/devices/{device}/connections") => {
            Call::Manage(stream)
        }
        _ => panic!("{method} {path} is described, but this table has no right for it"),
    }
}

/// A kind of caller.
struct Caller {
    name: &'static str,
    token: Option<String>,
    /// What it is answered, apart from success.
    judge: fn(Call) -> Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allowed,
    /// 401
    Unknown,
    /// 403
    Forbidden,
}

use Verdict::{Allowed, Forbidden, Unknown};

fn allowed_if(allowed: bool) -> Verdict {
    if allowed { Allowed } else { Forbidden }
}

fn nobody(call: Call) -> Verdict {
    if call == Call::Free { Allowed } else { Unknown }
}

fn callers() -> Vec<Caller> {
    let old = |claims: Value| Some(token(claims));
    vec![
        Caller { name: "nobody", token: None, judge: nobody },
        Caller { name: "who made it up", token: Some("made-up-0123456789abc".into()), judge: nobody },
        Caller { name: "an expired token", token: old(json!({"sub": "42", "exp": now() - 60})), judge: nobody },
        Caller { name: "a token before its time", token: old(json!({"sub": "42", "nbf": now() + 60})), judge: nobody },
        Caller {
            name: "a revoked token",
            token: old(json!({"sub": "revoked", "iat": now(), "whimbrel": {"subscribe": ["*"], "publish": ["*"]}})),
            judge: nobody,
        },
        Caller {
            name: "the device",
            token: Some(device("42", &["topic:news"], &["topic:news"])),
            judge: |call| {
                use Call::{Acknowledge, Batch, Free, Inspect, Own, Publish, Subscribe};
                let own = matches!(call, Free | Own | Batch | Subscribe(_) | Publish("topic:news") | Acknowledge);
                allowed_if(own || call == Inspect("device:42"))
            },
        },
        Caller {
            name: "the device, with nothing but its inbox",
            token: Some(device("42", &[], &[])),
            judge: |call| {
                use Call::{Acknowledge, Batch, Free, Inspect, Own, Subscribe};
                let own = matches!(call, Free | Own | Batch | Subscribe("device:42") | Acknowledge);
                allowed_if(own || call == Inspect("device:42"))
            },
        },
        Caller {
            name: "another device",
            token: Some(device("7", &["topic:new", "device:4"], &["device:421"])),
            judge: |call| allowed_if(matches!(call, Call::Free | Call::Own | Call::Batch)),
        },
        Caller {
            name: "a key that publishes",
            token: Some(PUBLISH.into()),
            judge: |call| {
                use Call::{Acknowledge, Batch, Free, Own, Publish};
                allowed_if(matches!(call, Free | Own | Batch | Publish(_) | Acknowledge))
            },
        },
        Caller {
            name: "a key that reads",
            token: Some(READ.into()),
            judge: |call| {
                use Call::{Batch, Free, Inspect, Own, Subscribe};
                allowed_if(matches!(call, Free | Own | Batch | Subscribe(_) | Inspect(_)))
            },
        },
        Caller { name: "a key that manages", token: Some(ADMIN.into()), judge: |_| Allowed },
        Caller {
            name: "a key that publishes elsewhere",
            token: Some(PUBLISH_OTHER.into()),
            judge: |call| allowed_if(matches!(call, Call::Free | Call::Own | Call::Batch)),
        },
        Caller {
            name: "a key that manages elsewhere",
            token: Some(ADMIN_OTHER.into()),
            // What is no stream's own is seen by callers that may read anything.
            judge: |call| allowed_if(matches!(call, Call::Free | Call::Own | Call::Batch | Call::Inspect("service"))),
        },
    ]
}

/// An id that nothing has.
const NOBODYS: &str = "00000000-0000-4000-8000-000000000000";

/// A request of this kind, about device 42 and topic news.
fn request(method: &str, path: &str) -> (String, &'static str) {
    let id = if path.starts_with("/v1/revocations") { NOBODYS } else { "5-1" };
    let filled = path.replace("{device}", "42").replace("{topic}", "news").replace("{id}", id);
    let filled = filled.replace("{connection}", NOBODYS).replace("{file}", "app.js");
    let (path, body) = match (method, path) {
        ("get", "/v1/sse" | "/v1/ws" | "/v1/cursor") => (format!("{filled}?topic=news"), ""),
        ("post", "/v1/sse") => (filled, r#"{"streams":["topic:news"]}"#),
        ("post", "/v1/events") => (filled, r#"[{"topic":"elsewhere","data":1}]"#),
        ("post", "/v1/cloudevents") => (filled, "[]"),
        ("post", "/v1/revocations") => (filled, r#"{"device":"nobody"}"#),
        ("post", "/v1/devices/{device}/ack") => (filled, r#"{"id":"0-0"}"#),
        ("post", _) => (filled, "1"),
        ("put", path) if path.ends_with("/lease") => (filled, r#"{"seconds":1}"#),
        ("delete", path) if path.ends_with("/lease") => (format!("{filled}?lease={}", "0".repeat(32)), ""),
        ("put", _) => (filled, r#"{"region":"local"}"#),
        _ => (filled, ""),
    };
    (path, body)
}

/// Revokes the tokens of one caller, and waits until all nodes know.
async fn revoke_on(nodes: &[&Node]) {
    let body = json!({"device": "revoked", "before": now() + 60}).to_string();
    assert_eq!(ask_as(nodes[0], Some(ADMIN), "POST", "/v1/revocations", &body).await.status, 201);
    let token = token(json!({"sub": "revoked", "iat": now()}));
    for node in nodes {
        let refused = async || (ask_as(node, Some(&token), "GET", "/v1/whoami", "").await.status == 401).then_some(());
        eventually("the revocation", refused).await;
    }
}

async fn judged_on(nodes: &[&Node]) {
    let document = nodes[0].get("/openapi.json").await.json();
    revoke_on(nodes).await;
    let mut cells = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            let call = call(method, path);
            let (target, body) = request(method, path);
            for caller in callers() {
                let node = nodes[cells % nodes.len()];
                let answer = ask_as(node, caller.token.as_deref(), &method.to_uppercase(), &target, body).await;
                let verdict = match answer.status {
                    401 => Unknown,
                    403 => Forbidden,
                    _ => Allowed,
                };
                let cell = format!("{} × {method} {target}: {} {:?}", caller.name, answer.status, answer.body);
                assert_eq!(verdict, (caller.judge)(call), "{cell}");
                check_refusal(&caller, call, verdict, &answer);
                cells += 1;
            }
        }
    }
    assert!(cells > 400, "only {cells} cells");
}

/// A refusal names the missing right or the stream, and never the token.
fn check_refusal(caller: &Caller, call: Call, verdict: Verdict, answer: &Answer) {
    if verdict == Allowed {
        return;
    }
    let (slug, detail) = answer.problem(answer.status);
    if let Some(token) = &caller.token {
        assert!(token.split('.').all(|part| !detail.contains(part)), "{detail}");
    }
    match verdict {
        Unknown => {
            assert_eq!((slug.as_str(), answer.header("www-authenticate")), ("unauthorized", Some("Bearer")));
        }
        Forbidden => {
            assert_eq!(slug, "forbidden");
            let stream = match call {
                Call::Subscribe(stream) | Call::Publish(stream) | Call::Manage(stream) => stream,
                Call::Inspect("service") | Call::Service => "the service",
                Call::Inspect(stream) => stream,
                _ => "device:42",
            };
            assert!(detail.contains(stream), "{detail}");
        }
        Allowed => {}
    }
}

#[tokio::test]
async fn every_call_is_for_callers_with_its_right_alone_on_the_embedded_store() {
    let keys = keys_file();
    judged_on(&[&Node::start(&borrowed(&closed(&keys)))]).await;
}

#[tokio::test]
async fn every_call_is_for_callers_with_its_right_alone_on_two_nodes_with_redis() {
    let (redis, keys) = (RedisServer::start(), keys_file());
    let settings = closed(&keys);
    let nodes = [Node::on(&redis, &borrowed(&settings)), Node::on(&redis, &borrowed(&settings))];
    judged_on(&[&nodes[0], &nodes[1]]).await;
}

/// What an operation over WebSocket is answered: `ok`, or the code of the error.
async fn operation(client: &mut Client, operation: Value) -> String {
    client.say(&operation).await;
    let answer = loop {
        // What was published a moment ago may come first.
        if let Said::Answer(answer) = client.next().await {
            break answer;
        }
    };
    answer["code"].as_str().unwrap_or_else(|| answer["op"].as_str().unwrap()).to_owned()
}

#[tokio::test]
async fn over_a_websocket_each_operation_is_for_callers_with_its_right() {
    let keys = keys_file();
    let node = Node::start(&borrowed(&closed(&keys)));
    let id = ask_as(&node, Some(PUBLISH), "POST", "/v1/devices/42/events", "1").await.id();
    revoke_on(&[&node]).await;
    let mut judged = 0;
    for caller in callers() {
        let connect = Wanted::new(Transport::WebSocket, &[]);
        let connect = caller.token.iter().fold(connect, |wanted, token| wanted.bearer(token));
        if caller.token.is_some() && (caller.judge)(Call::Own) == Unknown {
            connect.refused(&node).await.problem(401);
            continue;
        }
        let mut client = connect.connect(&node).await;
        let outcome = |call| match (caller.judge)(call) {
            Allowed => "ok",
            Unknown => "unauthorized",
            Forbidden => "forbidden",
        };
        for (stream, data) in [("device:42", "1"), ("topic:news", "2")] {
            let publish = json!({"op": "publish", "stream": stream, "data": data});
            assert_eq!(
                operation(&mut client, publish).await,
                outcome(Call::Publish(stream)),
                "{} {stream}",
                caller.name
            );
            let subscribe = json!({"op": "subscribe", "stream": stream});
            let answer = operation(&mut client, subscribe).await;
            assert_eq!(answer, outcome(Call::Subscribe(stream)), "{} {stream}", caller.name);
        }
        let ack = json!({"op": "ack", "stream": "device:42", "id": id});
        assert_eq!(operation(&mut client, ack).await, outcome(Call::Acknowledge), "{}", caller.name);
        judged += 1;
    }
    assert_eq!(judged, callers().len() - 4, "only those whose token is no good stay out");
}

#[tokio::test]
async fn one_forbidden_stream_refuses_the_connection_and_reveals_nothing() {
    let keys = keys_file();
    let node = Node::start(&borrowed(&closed(&keys)));
    ask_as(&node, Some(PUBLISH), "POST", "/v1/topics/there/events", "1").await.id();
    let token = device("42", &["topic:news"], &[]);
    for transport in [Transport::Sse, Transport::WebSocket] {
        let details = ["topic:there", "topic:gone"].map(|stream| {
            let wanted = Wanted::new(transport, &["topic:news", stream, "device:42"]).bearer(&token);
            let node = &node;
            async move { wanted.refused(node).await.problem(403).1.replace(stream, "X") }
        });
        let [there, gone] = details;
        assert_eq!(there.await, gone.await);
    }
    for path in ["/v1/topics/there/events/5-1", "/v1/topics/gone/events/5-1"] {
        ask_as(&node, Some(&token), "GET", path, "").await.problem(403);
    }
}

#[tokio::test]
async fn entries_of_a_batch_are_judged_each_for_itself() {
    let keys = keys_file();
    let node = Node::start(&borrowed(&closed(&keys)));
    let token = device("42", &[], &["topic:chat:*"]);
    let body =
        r#"[{"topic":"chat:1","data":1},{"topic":"news","data":2},{"devices":["42","7"],"data":3,"ephemeral":true}]"#;
    let answer = ask_as(&node, Some(&token), "POST", "/v1/events", body).await;
    let results = answer.json()["results"].clone();
    assert!(results[0]["id"].is_string(), "{results}");
    for (at, stream) in [(1, "topic:news"), (2, "device:42"), (3, "device:7")] {
        assert_eq!(results[at]["error"], "forbidden", "{results}");
        assert!(results[at]["detail"].as_str().unwrap().contains(stream), "{results}");
    }
}
