//! Getting into Redis: users with the least rights, TLS with certificates on both sides, and passwords that change.

use redis::aio::MultiplexedConnection;
use serde_json::json;

use crate::support::client::{Said, Transport, Wanted};
use crate::support::command;
use crate::support::eventually;
use crate::support::node::Node;
use crate::support::producers::redis_cli;
use crate::support::redis::{RedisServer, raw};
use crate::support::sentinel::{Group, Sentinel};
use crate::support::tls::Authority;
use crate::support::{Signal, free_port};

/// What creates the users: a command for each, and what is added to the first where the server knows it.
async fn rules(settings: &[(&str, &str)]) -> Vec<String> {
    let printed = command::run(&["check", "--acl"], settings, b"").await;
    assert_eq!(printed.code, Some(0), "{printed:?}");
    printed.stdout.lines().filter(|line| line.starts_with("ACL SETUSER ")).map(str::to_owned).collect()
}

/// Creates a user, whose password is its kind.
async fn create_user(server: &mut MultiplexedConnection, rule: &str) {
    let words: Vec<&str> = rule.split(' ').collect();
    let kind = words[2].rsplit_once('-').unwrap().1;
    let mut command = redis::cmd(words[0]);
    for word in &words[1..] {
        command.arg(word.replace("PASSWORD", kind));
    }
    let () = command.query_async(server).await.unwrap_or_else(|error| panic!("{rule}: {error}"));
}

async fn create_users(redis: &RedisServer) {
    let rules = rules(&[]).await;
    let [users @ .., newer] = &rules[..] else { panic!("{rules:?}") };
    assert_eq!(users.len(), 3, "{rules:?}");
    for rule in users {
        create_user(&mut redis.raw().await, rule).await;
    }
    // Redis 7.0 refuses it.
    let words: Vec<&str> = newer.split(' ').collect();
    let _ = redis_cli(redis, &words).await;
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
    let redis = RedisServer::start_with(&["--appendonly", "yes"]);
    create_users(&redis).await;
    let url_of_nodes = url(&redis, "node");
    let settings = [("WHIMBREL_REDIS_URL", url_of_nodes.as_str()), ("WHIMBREL_LEASE_SECONDS", "2")];
    let check = command::run(&["check"], &settings, b"").await;
    assert_eq!(check.code, Some(0), "{check:?}");
    let nodes = [Node::start(&settings), Node::start(&settings)];

    // Publishing, in all ways, and listening on the other node.
    for transport in [Transport::Sse, Transport::WebSocket] {
        let device = format!("device:{transport:?}");
        let mut client = Wanted::new(transport, &[&device, "topic:news"]).connect(&nodes[1]).await;
        nodes[0].publish(&device, "1").await;
        nodes[0].publish_with("topic:news", "ttl=60&collapse=a&type=price", "2").await;
        assert_eq!(client.data(2).await, ["1", "2"]);
        assert_eq!(nodes[0].call("POST", "/v1/topics/news/events?ephemeral=true", &[], "3").await.status, 202);
        assert!(matches!(client.next().await, Said::Ephemeral { .. }));
        nodes[0].publish_all("topic:news", [4, 5]).await;
        assert_eq!(client.data(2).await, ["4", "5"]);
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
    resumed.data(2).await;
    let id = nodes[0].publish("device:42", "1").await;
    let acknowledge = json!({ "id": id }).to_string();
    assert_eq!(nodes[1].call("POST", "/v1/devices/42/ack", &[], &acknowledge).await.status, 200);
    let mut device = Wanted::new(Transport::Sse, &["device:42"]).connect(&nodes[0]).await;
    eventually("the device is online", async || {
        (nodes[1].get_json("/v1/devices/42").await["online"] == true).then_some(())
    })
    .await;
    assert_eq!(nodes[1].call("DELETE", "/v1/devices/42/connections", &[], "").await.status, 200);
    device.next().await;
    assert_eq!(nodes[0].call("DELETE", "/v1/devices/42", &[], "").await.status, 204);
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
    let publish = |fcall: &mut MultiplexedConnection, data: &str| {
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
    // What the test itself tried, and the name that its client sends on newer servers.
    let own = |entry: &String| entry.contains("user=whimbrel-ingress") || entry.contains("setinfo");
    let refused: Vec<_> = refused(&redis).await.into_iter().filter(|entry| !own(entry)).collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

/// Publishes once the node is logged in again.
async fn is_back(node: &Node) {
    eventually("the node is back, with the new password", async || {
        let answer = node.call("POST", "/v1/topics/news/events", &[("Idempotency-Key", "a")], "2").await;
        matches!(answer.status, 200 | 201).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_password_that_is_replaced_in_its_file_needs_no_restart() {
    let redis = RedisServer::start();
    create_users(&redis).await;
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
    is_back(&node).await;
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
async fn passwords_at_sentinels_and_behind_them_are_replaced_without_a_restart() {
    let group = Group::start(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (password, sentinel_password) = (file("node"), file("sentinel"));
    std::fs::write(&password, "node").unwrap();
    std::fs::write(&sentinel_password, "sentinel").unwrap();
    let url = group.url().replace("://", "://whimbrel-node@");
    let settings = [
        ("WHIMBREL_REDIS_URL", url.as_str()),
        ("WHIMBREL_REDIS_PASSWORD_FILE", &password),
        ("WHIMBREL_SENTINEL_USER", "whimbrel-sentinel"),
        ("WHIMBREL_SENTINEL_PASSWORD_FILE", &sentinel_password),
    ];
    let rules = rules(&settings).await;
    let [node_rule, .., sentinel_rule] = &rules[..] else { panic!("{rules:?}") };
    let master = &group.servers[0];
    create_user(&mut master.raw().await, node_rule).await;
    let at = |sentinel: &Sentinel| format!("redis://{}/", sentinel.address());
    for sentinel in &group.sentinels {
        create_user(&mut raw(&at(sentinel)).await, sentinel_rule).await;
    }
    let node = Node::start(&settings);
    let mut client = Wanted::new(Transport::Sse, &["topic:news"]).connect(&node).await;
    node.publish("topic:news", "1").await;
    assert_eq!(client.data(1).await, ["1"]);

    let rotate = ["resetpass", ">another"];
    let mut servers = vec![(master.raw().await, "whimbrel-node")];
    for sentinel in &group.sentinels {
        servers.push((raw(&at(sentinel)).await, "whimbrel-sentinel"));
    }
    for (mut server, user) in servers {
        let () = redis::cmd("ACL").arg("SETUSER").arg(user).arg(&rotate).query_async(&mut server).await.unwrap();
        let () = redis::cmd("CLIENT").arg("KILL").arg("USER").arg(user).query_async(&mut server).await.unwrap();
    }
    std::fs::write(&password, "another").unwrap();
    std::fs::write(&sentinel_password, "another").unwrap();
    is_back(&node).await;
    assert_eq!(client.data(1).await, ["2"]);
    let listed: String = group.sentinels[0].ask(&["CLIENT", "LIST"]).await;
    assert!(listed.contains("user=whimbrel-sentinel"), "{listed}");
}

#[tokio::test]
async fn files_that_no_connection_could_use_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "\n").unwrap();
    let empty = empty.to_str().unwrap();
    let tls = ("WHIMBREL_REDIS_URL", "rediss://a");
    for (settings, words) in [
        (&[("WHIMBREL_REDIS_CA_FILE", empty)][..], "is for Redis over TLS, and no URL begins with rediss"),
        (&[tls, ("WHIMBREL_REDIS_CERT_FILE", empty)], "needs WHIMBREL_REDIS_KEY_FILE"),
        (&[tls, ("WHIMBREL_REDIS_CA_FILE", empty)], "the file holds no certificates as PEM"),
        (&[tls, ("WHIMBREL_REDIS_PASSWORD_FILE", empty)], "the file holds no password"),
        (&[tls, ("WHIMBREL_REDIS_PASSWORD_FILE", "/none")], "the file can't be read"),
        (&[("WHIMBREL_REDIS_URL", "redis://:b@a"), ("WHIMBREL_REDIS_PASSWORD_FILE", empty)], "give only one of them"),
    ] {
        let outcome = command::run(&["check"], settings, b"").await;
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains(words), "{outcome:?}");
    }
}
