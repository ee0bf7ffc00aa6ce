//! The commands: tokens and keys from them, and what they bring to a server.

use serde_json::Value;

use super::*;
use crate::support::command::{run, start};
use crate::support::token::SECRET;

#[tokio::test]
async fn a_token_and_a_key_from_the_commands_are_what_the_other_commands_need() {
    let secret = ("WHIMBREL_JWT_SECRET", SECRET);
    let made = run(&["key", "shop", "--stream", "topic:orders:*"], &[], b"").await;
    let [key, entry] = made.stdout.lines().collect::<Vec<_>>().try_into().unwrap();
    assert!(!entry.contains(key), "{entry}");
    let mut file = NamedTempFile::new().unwrap();
    write!(file, "[{entry}]").unwrap();
    let node = Node::start(&[secret, ("WHIMBREL_API_KEYS_FILE", file.path().to_str().unwrap())]);
    let url = node.url();

    let arguments = ["token", "--device", "42", "--subscribe", "topic:orders:*", "--ttl", "60", "--id", "t-1"];
    let token = run(&arguments, &[secret], b"").await.stdout;
    let token = token.trim();
    let answer = ask_as(&node, Some(token), "GET", "/v1/whoami", "").await.json();
    assert_eq!((&answer["device"], &answer["token"]), (&Value::from("42"), &Value::from("t-1")), "{answer}");

    let at = ("WHIMBREL_URL", url.as_str());
    let subscribe = ["subscribe", "topic:orders:7", "--after", "earliest", "--limit", "1"];
    let listening = start(&subscribe, &[at, ("WHIMBREL_TOKEN", token)]);
    let published = run(&["publish", "topic:orders:7", "7", "--token", key], &[at], b"").await;
    assert_eq!(published.code, Some(0), "{published:?}");
    let outcome = listening.end().await;
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "7\n"), "{outcome:?}");

    let header = format!("Authorization: Bearer {key}");
    let by_header = run(&["publish", "topic:orders:7", "8", "--header", &header, "--url", &url], &[], b"").await;
    assert_eq!(by_header.code, Some(0), "{by_header:?}");
    for (stream, credential) in [("topic:orders:7", None), ("topic:news", Some(key))] {
        let environment: Vec<_> = credential.map(|key| ("WHIMBREL_TOKEN", key)).into_iter().chain([at]).collect();
        let refused = run(&["publish", stream, "9", "--retry-seconds", "0"], &environment, b"").await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(!refused.stderr.contains(key), "{refused:?}");
    }
}

#[tokio::test]
async fn what_makes_no_token_is_reported_in_a_line() {
    let without = run(&["token", "--device", "42"], &[], b"").await;
    assert_eq!(without.code, Some(2), "{without:?}");
    assert!(without.stderr.contains("WHIMBREL_JWT_SECRET"), "{without:?}");
    for arguments in [["--device", "a b"], ["--subscribe", "news"], ["--ttl", "0"], ["--info", "[]"]] {
        let arguments = [&["token"], &arguments[..]].concat();
        let refused = run(&arguments, &[("WHIMBREL_JWT_SECRET", SECRET)], b"").await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
    }
}
