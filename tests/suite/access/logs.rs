//! What a log shows: never an event's data, nor what callers bring. Secrets and tokens are looked for in the log of every
//! node of the suite (`support/secrets.rs`).

use serde_json::json;

use super::*;
use crate::support::client::{Transport, Wanted};
use crate::support::eventually;
use crate::support::redis::RedisServer;
use crate::support::token::{device, token};

/// Stands in all data and credentials of the test.
const MARKER: &str = "m4rk3r-0f-s3cr3t-th1ngs";

#[tokio::test]
async fn neither_data_nor_credentials_are_logged_whatever_goes_wrong() {
    let (redis, keys) = (RedisServer::start(), keys_file());
    let mut settings = closed(&keys);
    settings.extend([("WHIMBREL_LOG", "info,whimbrel=trace".to_owned()), ("WHIMBREL_INGRESS", "true".to_owned())]);
    let node = Node::on(&redis, &borrowed(&settings));
    let post = async |path: &str, body: &str| ask_as(&node, Some(ADMIN), "POST", path, body).await.status;
    let data = format!(r#"{{"text":"{MARKER}"}}"#);
    let allowed = device("42", &["topic:news"], &["topic:news"]);
    let mut clients = Vec::new();
    for transport in [Transport::Sse, Transport::WebSocket] {
        let wanted = Wanted::new(transport, &["device:42", "topic:news"]).bearer(&allowed);
        clients.push(wanted.connect(&node).await);
    }
    for path in ["/v1/topics/news/events", "/v1/topics/news/events?ephemeral=true", "/v1/devices/42/events?type=a"] {
        assert!(matches!(post(path, &data).await, 200..=202), "{path}");
    }
    assert_eq!(post("/v1/events", &format!(r#"[{{"device":"42","data":{data}}}]"#)).await, 200);
    // And what is refused.
    for broken in [format!("{data},"), format!(r#"{{"{MARKER}":"#), format!("{MARKER}\u{0}")] {
        assert_eq!(post("/v1/topics/news/events", &broken).await, 400);
        assert_eq!(post("/v1/events", &broken).await, 400);
    }
    let socket = clients.last_mut().unwrap();
    for operation in [
        json!({"op": "publish", "stream": "topic:news", "data": MARKER, "ref": 1}),
        json!({"op": "publish", "stream": "topic:else", "data": MARKER, "token": MARKER}),
        json!({"op": "renew", "token": MARKER}),
        json!({"op": "subscribe", "stream": "topic:else", "token": format!("eyJ.{MARKER}")}),
    ] {
        socket.say(&operation).await;
    }
    let mut raw = redis.raw().await;
    for fields in
        [["device", "42", "data", &data], ["nonsense", "42", "data", &data], ["topic", "news", "data", MARKER]]
    {
        let mut add = redis::cmd("XADD");
        let _: String = add.arg("whimbrel:ingress").arg("*").arg(&fields).query_async(&mut raw).await.unwrap();
    }
    eventually("what is rejected", async || {
        let count: u32 = redis::cmd("XLEN").arg("whimbrel:ingress:rejected").query_async(&mut raw).await.unwrap();
        (count >= 2).then_some(())
    })
    .await;
    let wrong = token(json!({"sub": "42", "aud": MARKER, "whimbrel": 7}));
    for way in [wrong, MARKER.to_owned(), format!("eyJ.{MARKER}.x")] {
        ask_as(&node, Some(&way), "GET", "/v1/whoami", "").await.problem(401);
        ask(&node, "GET", &format!("/v1/sse?device=42&token={way}"), &[], "").await.problem(401);
        let cookie = format!("whimbrel_token={way}; session={MARKER}");
        ask(&node, "GET", "/v1/sse?device=42", &[("Cookie", &cookie)], "").await.problem(401);
        let protocol = format!("whimbrel.token.{way}");
        ask(&node, "GET", "/v1/ws?device=42", &[("Sec-WebSocket-Protocol", &protocol)], "").await.problem(401);
    }
    drop(clients);
    let log = node.log();
    let shown = log.lines().find(|line| line.contains(MARKER));
    assert!(shown.is_none(), "{}", shown.unwrap_or_default());
}
