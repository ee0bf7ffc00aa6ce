use super::*;
use crate::client::fake::{Server, answer, events, problem, read_request};

fn subscriber(servers: &[&Server], wanted: Subscription) -> Subscriber {
    let urls: Vec<String> = servers.iter().map(|server| server.url()).collect();
    Subscriber::new(&urls, wanted).unwrap()
}

fn news() -> Subscription {
    Subscription::of(vec!["topic:news".parse().unwrap()])
}

fn event(id: &str, data: &str) -> String {
    format!(
        "id: {id}\ndata: {{\"stream\":\"topic:news\",\"id\":\"{id}\",\"type\":\"message\",\"time\":\"t\",\"data\":{data}}}\n\n"
    )
}

/// Goes on until the server refuses for good, and returns each notice in a few words.
async fn story(mut subscriber: Subscriber) -> Vec<String> {
    let mut story = Vec::new();
    loop {
        story.push(match subscriber.next().await {
            Ok(Some(Notice::Connected { .. })) => "connected".into(),
            Ok(Some(Notice::Event(event))) => format!("event {}", event.data),
            Ok(Some(Notice::Position)) => format!("at {}", subscriber.cursor().unwrap()),
            Ok(Some(Notice::Gap(gap))) => format!("gap {} {}", gap.reason, gap.after),
            Ok(Some(Notice::Close { reason })) => format!("close {reason}"),
            Ok(Some(Notice::Disconnected { .. })) => "disconnected".into(),
            Ok(None) => return story,
            Err(e) => {
                story.push(e.to_string());
                return story;
            }
        });
    }
}

const OVER: &str = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn a_subscriber_resumes_at_the_next_server_after_the_last_whole_event() {
    let first = format!(
        "retry: 1\n\nevent: whimbrel:position\ndata: {{}}\nid: 5-0\n\n{}{}",
        event("5-1", "1"),
        event("5-2", "2").trim_end()
    );
    let one = Server::start(vec![events(&first), OVER.into()]).await;
    let two = Server::start(vec![events(&format!("{}{}", event("5-2", "2"), event("5-3", "3")))]).await;
    let wanted = Subscription { after: Some("earliest".into()), types: vec!["a/b".parse().unwrap()], ..news() };
    let story = story(subscriber(&[&one, &two], wanted)).await;
    assert_eq!(
        story,
        ["connected", "at 5-0", "event 1", "disconnected", "connected", "event 2", "event 3", "disconnected"]
    );
    assert!(one.requests()[0].starts_with("GET /v1/sse?topic=news&types=a%2Fb&envelope=1&after=earliest HTTP/1.1"));
    assert!(two.requests()[0].starts_with("GET /v1/sse?topic=news&types=a%2Fb&envelope=1 HTTP/1.1"));
    assert!(two.requests()[0].contains("last-event-id: 5-1\r\n"));
    assert!(one.requests()[1].contains("last-event-id: 5-3\r\n"));
}

#[tokio::test]
async fn gaps_closes_and_unknown_frames_of_the_service_are_distinguished() {
    let frames = "retry: 60000\n\nevent: whimbrel:gap\nid: 8-0\n\
         data: {\"stream\":\"topic:news\",\"after\":\"5-1\",\"next\":\"8-1\",\"reason\":\"trimmed\"}\n\n\
         event: whimbrel:later\ndata: ?\n\n\
         event: whimbrel:close\ndata: {\"reason\":\"drain\",\"retry\":1}\nid: 8-0.stop\n\n";
    let server = Server::start(vec![events(frames), OVER.into()]).await;
    let story = story(subscriber(&[&server], Subscription { cursor: Some("5-1".into()), ..news() })).await;
    assert_eq!(story, ["connected", "gap trimmed 5-1", "close drain", "disconnected"]);
    assert!(server.requests()[0].contains("last-event-id: 5-1\r\n"));
    assert!(server.requests()[1].contains("last-event-id: 8-0.stop\r\n"));
}

#[tokio::test]
async fn a_server_in_distress_is_tried_again_and_a_refusal_is_final() {
    let server = Server::start(vec![
        problem("503 Service Unavailable", "draining"),
        answer("502 Bad Gateway", "text/html", "<p>"),
        problem("403 Forbidden", "not yours"),
    ])
    .await;
    let story = story(subscriber(&[&server], news())).await;
    assert_eq!(story[..2], ["disconnected", "disconnected"]);
    assert!(story[2].starts_with("not yours (answer 403 from http://127.0.0.1"), "{story:?}");
}

#[tokio::test]
async fn an_answer_that_is_no_event_stream_is_an_error() {
    let server = Server::start(vec![answer("200 OK", "text/html", "<p>")]).await;
    let story = story(subscriber(&[&server], news())).await;
    assert!(story[0].contains("'text/html' in place of an event stream"), "{story:?}");
}

#[tokio::test]
async fn a_connection_without_a_sign_of_life_counts_as_dead() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let silent = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        read_request(&mut socket).await;
        tokio::io::AsyncWriteExt::write_all(&mut socket, events(":\n").as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    });
    let mut subscriber = Subscriber::new(&[url], news()).unwrap();
    subscriber.silence = Duration::from_millis(50);
    assert!(matches!(subscriber.next().await, Ok(Some(Notice::Connected { .. }))));
    let Ok(Some(Notice::Disconnected { reason, .. })) = subscriber.next().await else {
        panic!("it should have given up");
    };
    assert!(reason.contains("no sign of life"), "{reason}");
    silent.abort();
}

#[test]
fn a_cursor_that_can_not_be_one_is_refused_at_once() {
    for cursor in ["", "a b", "5-1\r\nx: y", "ä"] {
        let wanted = Subscription { cursor: Some(cursor.into()), ..news() };
        assert!(matches!(Subscriber::new(&["http://h"], wanted), Err(ClientError::Request(_))), "{cursor:?}");
    }
}
