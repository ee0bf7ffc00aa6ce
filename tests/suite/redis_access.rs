//! Getting into Redis: users with the least rights, TLS with certificates on both sides, and passwords that change.

use serde_json::json;

use crate::support::client::{Transport, Wanted};
use crate::support::command;
use crate::support::eventually;
use crate::support::node::Node;
use crate::support::producers::redis_cli;
use crate::support::redis::{RedisServer, raw};
use crate::support::tls::Authority;
use crate::support::{Signal, free_port};

/// Makes the users, whose password is their kind.
async fn make_users(redis: &RedisServer) {
    let rules = command::run(&["check", "--acl"], &[], b"").await;
    assert_eq!(rules.code, Some(0), "{rules:?}");
    let mut connection = redis.raw().await;
    let commands: Vec<&str> = rules.stdout.lines().filter(|line| line.starts_with("ACL ")).collect();
    assert_eq!(commands.len(), 3, "{rules:?}");
    for line in commands {
        let words: Vec<&str> = line.split(' ').collect();
        let kind = words[2].rsplit_once('-').unwrap().1;
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(word.replace("PASSWORD", kind));
        }
        let () = command.query_async(&mut connection).await.unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

fn url(redis: &RedisServer, kind: &str) -> String {
    format!("redis://whimbrel-{kind}:{kind}@127.0.0.1:{}", redis.port())
}

/// What Redis refused so far, as it logs it.
async fn refused(redis: &RedisServer) -> Vec<String> {
    let log = redis_cli(redis, &["ACL", "LOG"]).await;
    log.as_array().unwrap().iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn nodes_and_producers_work_with_the_least_rights_that_check_prints() {
    let redis = RedisServer::start();
    make_users(&redis).await;
    let url_of_nodes = url(&redis, "node");
    let settings = [("WHIMBREL_REDIS_URL", url_of_nodes.as_str()), ("WHIMBREL_SYNC_SECONDS", "1")];
    let nodes = [Node::start(&settings), Node::start(&settings)];

    // Publishing, in all ways, and listening on the other node.
    for transport in [Transport::Sse, Transport::WebSocket] {
        let device = format!("device:{transport:?}");
        let mut client = Wanted::new(transport, &[&device, "topic:news"]).connect(&nodes[1]).await;
        nodes[0].publish(&device, "1").await;
        nodes[0].publish_with("topic:news", "ttl=60&collapse=a&type=price", "2").await;
        nodes[0].publish_with("topic:news", "ephemeral=true", "3").await;
        nodes[0].publish_all("topic:news", [4, 5]).await;
        assert_eq!(client.data(5).await, ["1", "2", "3", "4", "5"]);
    }
    for query in ["durable=disk", "durable=replicas:1"] {
        let path = format!("/v1/topics/news/events?{query}");
        let answer = nodes[0].call("POST", &path, &[("Idempotency-Key", query)], "6").await;
        // What this Redis can't do is another matter.
        assert!(matches!(answer.status, 201 | 400 | 504), "{query}: {}", answer.text());
    }

    // History, resume with gaps, acknowledging, presence, erasing, kicking.
    let history = nodes[1].get_json("/v1/topics/news/events?limit=100").await;
    let first = history["events"][0]["id"].as_str().unwrap().to_owned();
    let mut resumed = Wanted::new(Transport::Sse, &["topic:news"]).after(&first).connect(&nodes[0]).await;
    resumed.data(3).await;
    let id = nodes[0].publish("device:42", "1").await;
    let acknowledge = json!({ "id": id }).to_string();
    assert_eq!(nodes[1].call("POST", "/v1/devices/42/ack", &[], &acknowledge).await.status, 200);
    let mut device = Wanted::new(Transport::Sse, &["device:42"]).connect(&nodes[0]).await;
    assert_eq!(nodes[1].get_json("/v1/devices/42").await["online"], true);
    assert_eq!(nodes[1].call("DELETE", "/v1/devices/42/connections", &[], "").await.status, 200);
    device.next().await;
    assert_eq!(nodes[0].call("DELETE", "/v1/devices/42", &[], "").await.status, 200);
    let lease = nodes[0].call("PUT", "/v1/topics/news/lease", &[], r#"{"seconds":5}"#).await;
    assert!(matches!(lease.status, 200 | 201), "{}", lease.text());
    for path in ["/v1/nodes", "/v1/topics/news", "/v1/topics/news/connections", "/v1/topics/whimbrel:lifecycle/events"]
    {
        assert_eq!(nodes[0].get(path).await.status, 200, "{path}");
    }

    // Straight into Redis.
    let mut ingress = raw(&url(&redis, "ingress")).await;
    let () = redis::cmd("XADD")
        .arg(&["whimbrel:ingress", "*", "topic", "direct", "data", "1"])
        .query_async(&mut ingress)
        .await
        .unwrap();
    eventually("the entry is taken", async || (nodes[0].history("topic:direct").await == ["1"]).then_some(())).await;
    assert!(redis::cmd("GET").arg("whimbrel:library").query_async::<()>(&mut ingress).await.is_err());
    let mut fcall = raw(&url(&redis, "fcall")).await;
    let key = |name: &str| format!("whimbrel:{{topic:direct}}:{name}");
    let publish = |fcall: &mut redis::aio::MultiplexedConnection, data: &str| {
        let mut command = redis::cmd("FCALL");
        command.arg("whimbrel_publish").arg(5);
        for name in ["events", "nodes", "meta", "collapse", "once:a"] {
            command.arg(key(name));
        }
        command.arg(data).arg("type").arg("price").arg("ttl").arg("60").arg("collapse").arg("c").arg("key").arg("a");
        let mut fcall = fcall.clone();
        async move { command.query_async::<String>(&mut fcall).await.unwrap() }
    };
    let id = publish(&mut fcall, "2").await;
    assert_eq!(publish(&mut fcall, "2").await, id, "the same key publishes nothing twice");
    assert_eq!(nodes[0].history("topic:direct").await, ["1", "2"]);

    // A node that dies is cleaned up after, and one that stops leaves.
    nodes[1].kill();
    drop(resumed);
    eventually("the dead node is forgotten", async || {
        (nodes[0].get_json("/v1/nodes").await["nodes"].as_array()?.len() == 1).then_some(())
    })
    .await;
    nodes[0].signal(Signal::TERM);
    assert!(nodes[0].ended().await.success());
    let refused: Vec<_> =
        refused(&redis).await.into_iter().filter(|entry| !entry.contains("whimbrel:library")).collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[tokio::test]
async fn a_password_that_is_replaced_in_its_file_needs_no_restart() {
    let redis = RedisServer::start();
    make_users(&redis).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "node\n").unwrap();
    let url = format!("redis://whimbrel-node@127.0.0.1:{}", redis.port());
    let node = Node::start(&[("WHIMBREL_REDIS_URL", &url), ("WHIMBREL_REDIS_PASSWORD_FILE", file.to_str().unwrap())]);
    node.publish("topic:news", "1").await;
    let mut client = Wanted::new(Transport::Sse, &["topic:news"]).connect(&node).await;
    redis_cli(&redis, &["ACL", "SETUSER", "whimbrel-node", "resetpass", ">another"]).await;
    std::fs::write(&file, "another").unwrap();
    redis_cli(&redis, &["CLIENT", "KILL", "USER", "whimbrel-node"]).await;
    eventually("the node is back, with the new password", async || {
        let answer = node.call("POST", "/v1/topics/news/events", &[("Idempotency-Key", "a")], "2").await;
        matches!(answer.status, 200 | 201).then_some(())
    })
    .await;
    assert_eq!(client.data(1).await, ["2"]);
    assert!(!node.log().contains("another"), "a password is never logged");
}

#[tokio::test]
async fn nodes_speak_tls_to_redis_and_show_it_their_certificate() {
    let authority = Authority::new();
    for name in ["redis", "node"] {
        authority.issue(name);
    }
    let file = |name: &str| authority.file(name);
    let port = free_port().to_string();
    let redis = RedisServer::start_with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &file("redis.pem"),
        "--tls-key-file",
        &file("redis.key"),
        "--tls-ca-cert-file",
        &file("ca.pem"),
        "--tls-auth-clients",
        "yes",
    ]);
    let url = format!("rediss://localhost:{port}");
    let (ca, certificate, key) = (file("ca.pem"), file("node.pem"), file("node.key"));
    let all = [
        ("WHIMBREL_REDIS_URL", url.as_str()),
        ("WHIMBREL_REDIS_CA_FILE", &ca),
        ("WHIMBREL_REDIS_CERT_FILE", &certificate),
        ("WHIMBREL_REDIS_KEY_FILE", &key),
    ];
    let node = Node::start(&all);
    let mut client = Wanted::new(Transport::WebSocket, &["topic:news"]).connect(&node).await;
    node.publish("topic:news", "1").await;
    assert_eq!(client.data(1).await, ["1"]);
    let other = Authority::new();
    other.issue("node");
    let foreign = other.file("ca.pem");
    let wrong = [
        // Nobody whom the node trusts has signed it; and it shows no certificate.
        vec![all[0], ("WHIMBREL_REDIS_CA_FILE", &foreign), all[2], all[3]],
        vec![all[0]],
        vec![all[0], all[1]],
    ];
    assert_eq!(command::run(&["check"], &all, b"").await.code, Some(0));
    for settings in wrong {
        let outcome = command::run(&["check"], &settings, b"").await;
        assert_eq!(outcome.code, Some(1), "{settings:?}: {outcome:?}");
    }
    drop(redis);
}

#[tokio::test]
async fn files_that_no_redis_would_be_shown_are_refused() {
    for (settings, words) in [
        (&[("WHIMBREL_REDIS_CA_FILE", "a")][..], "no URL begins with rediss://"),
        (&[("WHIMBREL_REDIS_URL", "rediss://a"), ("WHIMBREL_REDIS_CERT_FILE", "a")], "WHIMBREL_REDIS_KEY_FILE"),
        (&[("WHIMBREL_REDIS_URL", "redis://:b@a"), ("WHIMBREL_REDIS_PASSWORD_FILE", "a")], "give only one"),
    ] {
        let outcome = command::run(&["check"], settings, b"").await;
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains(words), "{outcome:?}");
    }
}
