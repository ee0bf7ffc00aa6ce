//! Who gets in, and what they may do there.

mod backend;
mod commands;
mod expiry;
mod info;
mod key_sets;
mod keys;
mod logs;
mod revocations;
mod stalled;
mod table;
mod tokens;

use std::io::Write as _;

use tempfile::NamedTempFile;

use crate::support::http::{Answer, Http};
use crate::support::node::Node;
use crate::support::token::{SECRET, bearer};
use crate::support::websocket::Frames;

/// Producers' keys of the tests.
const PUBLISH: &str = "key-that-publishes-0123";
const READ: &str = "key-that-reads-01234567";
const ADMIN: &str = "key-that-manages-012345";
const PUBLISH_OTHER: &str = "key-that-publishes-else";
const ADMIN_OTHER: &str = "key-that-manages-others";

/// A file with all of them.
fn keys_file() -> NamedTempFile {
    let entry = |name: &str, key: &str, scope: &str, streams: &str| {
        format!(r#"{{"name":"{name}","key":"{key}","scopes":["{scope}"]{streams}}}"#)
    };
    let other = r#","streams":["topic:other:*"]"#;
    let entries = [
        entry("publisher", PUBLISH, "publish", ""),
        entry("reader", READ, "read", ""),
        entry("manager", ADMIN, "admin", ""),
        entry("publisher elsewhere", PUBLISH_OTHER, "publish", other),
        entry("manager elsewhere", ADMIN_OTHER, "admin", other),
    ];
    let mut file = NamedTempFile::new().unwrap();
    write!(file, "[{}]", entries.join(",")).unwrap();
    file
}

/// Settings that close access, with this file of keys.
fn closed(keys: &NamedTempFile) -> Vec<(&'static str, String)> {
    vec![
        ("WHIMBREL_JWT_SECRET", SECRET.to_owned()),
        ("WHIMBREL_API_KEYS_FILE", keys.path().to_str().unwrap().to_owned()),
        ("WHIMBREL_ANONYMOUS", "topic:public:*".to_owned()),
    ]
}

fn borrowed<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    settings.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// The answer to a request, of which a live stream's or a WebSocket's is the head alone.
async fn ask(node: &Node, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut http = Http::connect(node.address()).await;
    if method == "GET" && path.starts_with("/v1/ws") {
        Frames::ask(&mut http, path, headers).await;
    } else {
        http.request(method, path, headers, body.as_bytes()).await;
    }
    let mut answer = http.head().await;
    if let Some(length) = answer.header("content-length").and_then(|length| length.parse().ok())
        && method != "HEAD"
    {
        answer.body = vec![0; length];
        tokio::io::AsyncReadExt::read_exact(&mut http.socket, &mut answer.body).await.unwrap();
    }
    answer
}

/// The same, with a token or key in the header.
async fn ask_as(node: &Node, token: Option<&str>, method: &str, path: &str, body: &str) -> Answer {
    let value = token.map(bearer);
    let header = value.as_deref().map(|value| ("Authorization", value));
    ask(node, method, path, header.as_slice(), body).await
}
