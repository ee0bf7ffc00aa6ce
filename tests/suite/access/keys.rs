//! Keys of producers.

use super::*;
use crate::support::{Signal, eventually};

async fn status_of(node: &Node, key: &str) -> u16 {
    ask_as(node, Some(key), "POST", "/v1/topics/news/events", "1").await.status
}

#[tokio::test]
async fn keys_are_read_again_when_the_file_changes_and_on_sighup() {
    let file = keys_file();
    let node = Node::start(&borrowed(&closed(&file)));
    assert_eq!((status_of(&node, PUBLISH).await, status_of(&node, "another-key-0123456789").await), (201, 401));
    let text = std::fs::read_to_string(file.path()).unwrap();
    std::fs::write(file.path(), text.replace(PUBLISH, "another-key-0123456789")).unwrap();
    eventually("the new key", async || (status_of(&node, "another-key-0123456789").await == 201).then_some(())).await;
    assert_eq!(status_of(&node, PUBLISH).await, 401, "the old one is gone");

    // A file that is not valid changes nothing, and a line of the log reports it without showing it.
    std::fs::write(file.path(), r#"[{"name":"a","key":"key-that-nobody-may-see"}]"#).unwrap();
    node.signal(Signal::HUP);
    eventually("a word of it", async || node.log().contains("keys of producers stay as they were").then_some(())).await;
    assert_eq!(status_of(&node, "another-key-0123456789").await, 201);
    assert!(!node.log().contains("nobody-may-see"));
}

#[tokio::test]
async fn a_key_is_no_token_and_counts_in_the_header_alone() {
    let file = keys_file();
    let node = Node::start(&borrowed(&closed(&file)));
    let cookie = format!("whimbrel_token={READ}");
    for (path, headers) in [
        (format!("/v1/topics/news/events?token={READ}"), vec![]),
        ("/v1/topics/news/events".to_owned(), vec![("Cookie", cookie.as_str())]),
    ] {
        ask(&node, "GET", &path, &headers, "").await.problem(401);
    }
}

#[tokio::test]
async fn a_key_publishes_no_faster_than_its_rate() {
    let mut file = NamedTempFile::new().unwrap();
    let entry = |name: &str, rate: &str| {
        format!(r#"{{"name":"{name}","key":"key-of-the-{name}-one-0123","scopes":["publish"]{rate}}}"#)
    };
    let entries = [entry("slow", r#","rate":5"#), entry("quick", ""), entry("other", r#","rate":5"#)];
    write!(file, "[{}]", entries.join(",")).unwrap();
    let node = Node::start(&[("WHIMBREL_API_KEYS_FILE", file.path().to_str().unwrap())]);
    let publish = async |name: &str| {
        let key = format!("key-of-the-{name}-one-0123");
        ask_as(&node, Some(&key), "POST", "/v1/topics/news/events", "1").await
    };
    let mut published = 0;
    // However slow the machine is: a burst of five, and five a second from then on.
    let refused = eventually("a refusal", async || {
        let answer = publish("slow").await;
        published += usize::from(answer.status == 201);
        (answer.status != 201).then_some(answer)
    })
    .await;
    assert!(published >= 5, "{published}");
    assert_eq!(refused.problem(429).0, "rate");
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    // Others are not held up.
    assert_eq!(publish("other").await.status, 201);
    for _ in 0..20 {
        assert_eq!(publish("quick").await.status, 201);
    }
}
