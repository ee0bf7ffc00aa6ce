//! Reading what a stream keeps, without listening.

use serde_json::{Value, json};

use crate::support::node::Node;
use crate::support::world::{World, promises};

promises! {
    everywhere:
        a_history_is_read_in_pages_in_either_direction;
    on_redis:
}

fn ids(history: &Value) -> Vec<String> {
    history["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

async fn a_history_is_read_in_pages_in_either_direction(world: World) {
    let node = world.node(&[]);
    let published = node.publish_all("topic:a", 0..10).await;
    let read = async |query: &str| node.get_json(&format!("/v1/topics/a/events?{query}")).await;
    assert_eq!(ids(&read("").await), published);
    assert_eq!(ids(&read("limit=3").await), published[..3]);
    assert_eq!(ids(&read(&format!("limit=3&after={}", published[2])).await), published[3..6]);
    assert_eq!(ids(&read(&format!("limit=3&before={}", published[5])).await), published[2..5]);
    assert_eq!(ids(&read("limit=3&before=now").await), published[7..]);
    let between = read(&format!("after={}&before={}", published[2], published[5])).await;
    assert_eq!(ids(&between), published[3..5]);
    assert_eq!((&between["gap"], &between["last"]), (&json!(null), &json!(published[9])));
    let end = read(&format!("after={}", published[9])).await;
    assert_eq!((ids(&end).len(), &end["gap"]), (0, &json!(null)));
}

#[tokio::test]
async fn a_history_that_makes_no_sense_is_refused() {
    let node = Node::start(&[]);
    node.publish("topic:a", "1").await;
    for (query, named) in [
        ("limit=0", "1 to 1000"),
        ("limit=1001", "1 to 1000"),
        ("limit=-1", "'-1' is not a whole number"),
        ("limit=%2B5", "'+5' is not a whole number"),
        ("limit=99999999999999999999", "not a whole number"),
        ("limit=many", "'limit'"),
        ("limit=", "'limit'"),
        ("limit=1&limit=2", "more than once"),
        ("after=yesterday", "'yesterday'"),
        ("after=now", "'now'"),
        ("after=5", "'5'"),
        ("after=18446744073709551616-1", "event id"),
        ("before=", "'before'"),
        ("before=-1", "'before'"),
        ("before=then", "or 'now'"),
        ("types=a", "'types'"),
    ] {
        let (slug, detail) = node.get(&format!("/v1/topics/a/events?{query}")).await.problem(400);
        assert!(slug == "bad-request" && detail.contains(named), "{query}: {detail}");
    }
    for id in ["x", "5", "5-", "-1", "5-1-1", "%FF"] {
        assert_eq!(node.get(&format!("/v1/topics/a/events/{id}")).await.problem(400).0, "bad-request", "{id}");
    }
    assert_eq!(node.get("/v1/topics/a/events/5-1").await.problem(404).0, "not-found");
    assert_eq!(node.get("/v1/topics/a%20b/events").await.problem(400).0, "invalid-name");
}

#[tokio::test]
async fn data_is_shown_byte_for_byte_with_the_white_space_around_it() {
    let node = Node::start(&[]);
    let data = " \t{\"a\" : [1.0]} \n";
    let id = node.publish("topic:a", data).await;
    for path in ["/v1/topics/a/events", &format!("/v1/topics/a/events/{id}")] {
        let answer = node.get(path).await;
        assert!(answer.text().contains(&format!("\"data\":{data}")), "{}", answer.text());
        answer.json();
    }
}
