//! Where a client begins: every form of `after`, and what is refused.

use serde_json::json;

use crate::support::client::{Cursor, Said, Transport, Wanted, numbers};
use crate::support::eventually;
use crate::support::world::{World, promises};

promises! {
    everywhere:
        every_form_of_after_begins_at_its_position,
        since_a_time_begins_with_what_was_stored_then_and_reports_what_is_gone,
        after_nothing_is_from_the_beginning_and_no_gap,
        a_type_filter_moves_the_position_over_what_it_leaves_out;
    on_redis:
        a_position_that_makes_no_sense_is_refused,
}

async fn every_form_of_after_begins_at_its_position(world: World) {
    let node = world.node(&[]);
    let news = node.publish_all("topic:news", 0..5).await;
    let sport = node.publish_all("topic:sport", 10..13).await;
    let one = world.wanted(&["topic:news"]);
    let mut from_now = vec![one.clone().connect(&node).await, one.clone().after("now").connect(&node).await];
    for (after, first) in [("earliest", 0), ("last:2", 3), ("last:5", 0), ("last:128", 0), (&news[1], 2), (&news[4], 5)]
    {
        let mut client = one.clone().after(after).connect(&node).await;
        let expected: Vec<String> = (first..5).map(|n| n.to_string()).collect();
        assert_eq!(client.data(expected.len()).await, expected, "after={after}");
        from_now.push(client);
    }
    let both = world.wanted(&["topic:news", "topic:sport"]);
    let pairs = both.clone().after(&format!("topic:news/{}", news[3])).after(&format!("topic:sport/{}", sport[0]));
    let mut client = pairs.connect(&node).await;
    let mut received = [client.event().await, client.event().await, client.event().await].map(|event| event.id);
    received.sort();
    let mut expected = [news[4].clone(), sport[1].clone(), sport[2].clone()];
    expected.sort();
    assert_eq!(received, expected);
    from_now.push(client);
    // A pair that is not given means now, and a pair of another stream means nothing.
    let client = both.after(&format!("topic:news/{}", news[4])).after("topic:other/1-1").connect(&node).await;
    from_now.push(client);
    let words = world.wanted(&["topic:news", "topic:sport"]).after("last:1");
    let mut client = words.connect(&node).await;
    let mut received = client.data(2).await;
    received.sort();
    assert_eq!(received, ["12", "4"]);
    from_now.push(client);
    // From there on they all get the same, and nothing they had before.
    node.publish("topic:news", "5").await;
    for client in &mut from_now {
        assert_eq!(client.data(1).await, ["5"]);
    }
}

async fn since_a_time_begins_with_what_was_stored_then_and_reports_what_is_gone(world: World) {
    let node = world.node(&[("WHIMBREL_RETENTION", "topic:short=1/3600 *=1000/3600")]);
    let before = node.publish("topic:news", "0").await;
    // Another millisecond on the store's clock.
    let second = eventually("a later id", async || {
        let id = node.publish("topic:news", "1").await;
        (numbers(&id).0 > numbers(&before).0).then_some(id)
    })
    .await;
    node.publish("topic:news", "2").await;
    let history = node.get_json("/v1/topics/news/events").await;
    let event =
        history["events"].as_array().unwrap().iter().find(|event| event["id"] == second.as_str()).unwrap().clone();
    let time = event["time"].as_str().unwrap();
    let ahead = "since:2100-01-01T00:00:00%2B01:00".replace("%2B", "+");
    let mut future = world.wanted(&["topic:news"]).after(&ahead).connect(&node).await;
    for after in [format!("since:{}", numbers(&second).0), format!("since:{time}"), format!("topic:news/since:{time}")]
    {
        let mut client = world.wanted(&["topic:news"]).after(&after).connect(&node).await;
        assert_eq!(client.event().await.id, second, "{after}");
    }
    let mut all = world.wanted(&["topic:news"]).after("since:0").connect(&node).await;
    assert_eq!(all.event().await.id, before);
    node.publish("topic:news", "3").await;
    assert_eq!(future.data(1).await, ["3"]);
    // Redis drops whole nodes of a stream, so more than one event has to go.
    let published = node.publish_all("topic:short", 0..500).await;
    let first = node.get_json("/v1/topics/short/events?limit=1").await["events"][0]["id"].as_str().unwrap().to_owned();
    assert_ne!(first, published[0]);
    let start = format!("since:{}", numbers(&published[0]).0);
    let mut late = world.wanted(&["topic:short"]).after(&start).connect(&node).await;
    let gap = late.gap().await;
    assert_eq!((gap.next.as_str(), gap.reason.as_str()), (first.as_str(), "trimmed"));
    assert_eq!(late.event().await.id, first);
}

async fn after_nothing_is_from_the_beginning_and_no_gap(world: World) {
    let node = world.node(&[]);
    for after in ["0-0", "earliest", "last:3"] {
        let stream = format!("topic:{}", after.replace([':', '-'], "."));
        let mut empty = world.wanted(&[&stream]).after(after).connect(&node).await;
        node.publish(&stream, "1").await;
        assert_eq!(empty.data(1).await, ["1"]);
        let mut client = world.wanted(&[&stream]).after(after).connect(&node).await;
        assert_eq!(client.data(1).await, ["1"]);
    }
}

async fn a_type_filter_moves_the_position_over_what_it_leaves_out(world: World) {
    let node = world.node(&[("WHIMBREL_PING_SECONDS", "1")]);
    let publish = async |kind: &str, data: &str| {
        node.call("POST", &format!("/v1/topics/news/events?type={kind}"), &[], data).await.id()
    };
    let wanted = world.wanted(&["topic:news"]).with("types", "price,trade");
    let mut client = wanted.clone().connect(&node).await;
    publish("noise", "1").await;
    publish("price", "2").await;
    publish("pricey", "3").await;
    publish("trade", "4").await;
    node.publish("topic:news", "5").await;
    let (first, second) = (client.event().await, client.event().await);
    assert_eq!((first.kind.as_str(), first.data.as_str()), ("price", "2"));
    assert_eq!((second.kind.as_str(), second.data.as_str()), ("trade", "4"));
    // What the filter leaves out is left out of a history too.
    let last = publish("noise", "6").await;
    let mut resumed = wanted.clone().after("earliest").connect(&node).await;
    assert_eq!(resumed.data(2).await, ["2", "4"]);
    // The position follows with the next ping; one may have come between two of the events.
    while client.cursor().id() != last {
        assert_eq!(client.next().await, Said::Position);
    }
    publish("trade", "7").await;
    assert_eq!(client.data(1).await, ["7"]);
    assert_eq!(resumed.data(1).await, ["7"]);
}

async fn a_position_that_makes_no_sense_is_refused(world: World) {
    let node = world.node(&[]);
    let id = node.publish("topic:a", "1").await;
    let one = world.wanted(&["topic:a"]);
    let two = world.wanted(&["topic:a", "topic:b"]);
    let detail = async |wanted: Wanted| wanted.refused(&node).await.problem(400).1;
    assert!(detail(two.clone().after(&id)).await.contains("2 streams"), "a bare id can't be of both");
    for after in [
        "",
        "yesterday",
        "last:0",
        "last:-1",
        "last:x",
        "since:",
        "since:now",
        "since:-1",
        "5",
        "5-",
        "c1.",
        "c1.!!!",
        "-1-0",
    ] {
        detail(one.clone().after(after)).await;
        detail(two.clone().after(after)).await;
    }
    let long = format!("c1.{}", "A".repeat(4000));
    for cursor in ["yesterday", "c1.", "x", "1-1-1", long.as_str()] {
        detail(one.clone().last_event_id(cursor)).await;
        detail(two.clone().last_event_id(cursor)).await;
    }
    let twice = two.clone().after(&format!("topic:a/{id}")).after("topic:a/1-1");
    assert!(detail(twice).await.contains("another for the same stream"));
    for pair in ["topic:a/yesterday", "a/1-1", "planet:a/1-1", "/1-1"] {
        detail(two.clone().after(pair)).await;
    }
    detail(two.clone().after(&format!("topic:a/{id}")).after(&id)).await;
    let mut client = Wanted::new(Transport::Sse, &["topic:a", "topic:b"]).connect(&node).await;
    node.publish("topic:b", "2").await;
    client.event().await;
    let Cursor::Opaque(cursor) = client.cursor() else { panic!("SSE cursors are opaque") };
    let (head, tail) = cursor.split_at_checked(cursor.len() - 5).unwrap();
    let changed =
        format!("{head}{}", if tail.starts_with('A') { tail.replace('A', "B") } else { format!("A{}", &tail[1..]) });
    for damaged in [head, changed.as_str()] {
        assert!(detail(two.clone().last_event_id(damaged)).await.contains("damaged"));
    }
    two.clone().last_event_id(&cursor).connect(&node).await;
}

#[tokio::test]
async fn a_listener_that_makes_no_sense_is_refused() {
    let world = World::embedded(Transport::Sse);
    let node = world.node(&[("WHIMBREL_MAX_STREAMS", "3")]);
    for (path, slug, named) in [
        ("/v1/sse", "bad-request", "device=NAME"),
        ("/v1/sse?topic=a%20b", "invalid-name", "a b"),
        ("/v1/sse?topic=whimbrel:x", "invalid-name", "whimbrel:x"),
        ("/v1/sse?topic=a&topic=b&topic=c&topic=d", "bad-request", "more than 3 streams"),
        ("/v1/sse?topic=a&bogus=x", "bad-request", "'bogus'"),
        ("/v1/sse?topic=a&envelope=maybe", "bad-request", "'envelope'"),
        ("/v1/sse?topic=a&heartbeat=1&heartbeat=1", "bad-request", "'heartbeat'"),
        ("/v1/sse?topic=a&types=open", "bad-request", "'open'"),
        ("/v1/sse?topic=a&types=", "bad-request", "'types'"),
        ("/v1/sse?topic=a&types=b,,c", "bad-request", "'types'"),
        ("/v1/sse?topic", "invalid-name", "empty"),
        ("/v1/sse?device=", "invalid-name", "empty"),
        ("/v1/sse?device=%FF", "invalid-name", "\u{fffd}"),
        ("/v1/sse?topic=a&heartbeat=", "bad-request", "'heartbeat'"),
        ("/v1/ws?topic=a", "bad-request", "upgrade"),
    ] {
        let (received, detail) = node.get(path).await.problem(400);
        assert_eq!(received, slug, "{path}");
        assert!(detail.contains(named), "{path}: {detail}");
    }
    let binary = node.call("GET", "/v1/sse?topic=a", &[("Last-Event-ID", "\u{e9}")], "").await;
    assert!(binary.problem(400).1.contains("Last-Event-ID"));
    let event_stream = [("Accept", "text/event-stream")];
    for (query, named) in [("limit=5", "'limit'"), ("topic=b", "'topic'"), ("after=yesterday", "'yesterday'")] {
        let answer = node.call("GET", &format!("/v1/topics/a/events?{query}"), &event_stream, "").await;
        assert!(answer.problem(400).1.contains(named), "{query}");
    }
    let nothing = Wanted::new(Transport::WebSocket, &[]).connect(&node).await;
    assert_eq!(nothing.ready["positions"], json!({}), "over WebSocket streams can be subscribed to later");
    world.wanted(&["topic:a", "topic:a", "topic:b", "device:c"]).connect(&node).await;
}
