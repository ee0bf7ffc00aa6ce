//! Who is present in topics, as both stores keep it: each test runs once against each.

use whimbrel::model::{NodeId, StreamName};
use whimbrel::store::members::{LocalMember, read_notices};
use whimbrel::store::{ChannelMessage, Store, Subscription};

use crate::conformance::{route, stream};
use crate::support::in_time;
use crate::support::stores::for_each_store;

for_each_store! {
    thousands_of_members_are_listed_page_by_page_and_leave_with_their_node;
    a_member_is_published_once_however_often_it_is_set;
    no_device_joins_through_a_node_without_a_route_and_a_leave_through_it_is_published;
}

fn room() -> StreamName {
    stream("topic:room")
}

/// A node with a route to the topic, and its channel.
async fn node(store: &impl Store) -> (NodeId, Box<dyn Subscription>) {
    let node = NodeId::random();
    let subscription = store.coordination().subscribe(&node).await.unwrap();
    store.sync(&room(), &route(&node, 1), None).await.unwrap();
    (node, subscription)
}

fn local(device: impl ToString, connections: u32) -> LocalMember {
    LocalMember { device: device.to_string(), connections, info: Some(r#"{"n":1}"#.to_owned()) }
}

/// The next `count` notices of a channel.
async fn notices(subscription: &mut Box<dyn Subscription>, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        for message in in_time("notices", subscription.next(64)).await.expect("the subscription lives") {
            let ChannelMessage::Control(control) = message else { panic!("nobody sent {message:?}") };
            let read = read_notices(&control).expect("it is about members");
            all.extend(read.iter().map(|notice| format!("{} {}", notice.kind(), notice.device)));
        }
    }
    assert_eq!(all.len(), count, "{all:?}");
    all
}

async fn devices(store: &impl Store) -> Vec<String> {
    let (mut all, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = store.members(&room(), after.as_deref(), 700).await.unwrap();
        all.extend(page.members.into_iter().map(|member| member.device));
        let Some(next) = page.next else { return all };
        after = Some(next);
    }
}

async fn thousands_of_members_are_listed_page_by_page_and_leave_with_their_node(store: &impl Store) {
    let ((dead, _), (alive, mut channel)) = (node(store).await, node(store).await);
    let all: Vec<LocalMember> = (1000..4000).map(|number| local(number, 1)).collect();
    for some in all.chunks(250) {
        assert_eq!(store.set_members(&room(), &dead, some).await, Ok(true));
    }
    notices(&mut channel, 3000).await;
    assert_eq!(store.set_members(&room(), &alive, &[local(2000, 2)]).await, Ok(true));
    let listed = devices(store).await;
    assert!(
        listed.iter().map(String::as_str).eq(all.iter().map(|member| member.device.as_str())),
        "in order, once each"
    );
    let both = store.members(&room(), Some("1999"), 1).await.unwrap();
    assert_eq!((both.members[0].connections, both.members[0].info.as_deref()), (3, Some(r#"{"n":1}"#)));
    let (mut after, mut steps) = (store.drop_members(&room(), &dead, None).await.unwrap(), 1);
    while let Some(last) = after {
        after = store.drop_members(&room(), &dead, Some(&last)).await.unwrap();
        steps += 1;
    }
    assert!(steps > 5, "they go some at a time");
    let left = notices(&mut channel, 2999).await;
    assert!(!left.contains(&"left 2000".to_owned()));
    assert_eq!(devices(store).await, ["2000"]);
}

async fn a_member_is_published_once_however_often_it_is_set(store: &impl Store) {
    let ((first, mut channel), (second, _)) = (node(store).await, node(store).await);
    let set = async |node: &NodeId, count: u32| {
        assert_eq!(store.set_members(&room(), node, &[local("ann", count)]).await, Ok(true));
    };
    for (node, count) in [(&first, 1), (&first, 1), (&second, 2), (&first, 0), (&first, 0), (&second, 0), (&second, 0)]
    {
        set(node, count).await;
    }
    set(&second, 1).await;
    assert_eq!(notices(&mut channel, 3).await, ["joined ann", "left ann", "joined ann"]);
}

async fn no_device_joins_through_a_node_without_a_route_and_a_leave_through_it_is_published(store: &impl Store) {
    let ((gone, _), (_node, mut channel)) = (node(store).await, node(store).await);
    assert_eq!(store.set_members(&room(), &gone, &[local("ann", 1), local("bob", 1)]).await, Ok(true));
    store.detach(&room(), &gone, None).await.unwrap();
    assert!(devices(store).await.is_empty(), "what counts is the route");
    let late = [local("ann", 0), local("carl", 1)];
    assert_eq!(store.set_members(&room(), &gone, &late).await, Ok(false));
    assert_eq!(notices(&mut channel, 3).await, ["joined ann", "joined bob", "left ann"]);
    assert!(devices(store).await.is_empty());
}
