//! The commands, as people use them.

use crate::support::client::{Said, Transport, Wanted};
use crate::support::command::{Outcome, run, start};
use crate::support::node::Node;
use crate::support::redis::RedisServer;
use crate::support::sentinel::Group;
use crate::support::{Signal, eventually, free_port};

#[track_caller]
fn one_line_on_stderr(outcome: &Outcome, code: i32, named: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    for named in named {
        assert!(outcome.stderr.contains(named), "{named}: {outcome:?}");
    }
}

async fn connected(node: &Node) {
    node.metric_is("connections{transport=\"sse\"}", 1.0).await;
}

#[tokio::test]
async fn the_help_names_each_command() {
    let help = run(&["--help"], &[], b"").await;
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    for command in ["serve", "publish", "subscribe", "relay", "bench", "check"] {
        assert!(help.stdout.lines().any(|line| line.trim().starts_with(&format!("{command} "))), "{command}");
        let own = run(&[command, "--help"], &[], b"").await;
        assert_eq!(own.code, Some(0));
        assert!(own.stdout.contains("Usage: whimbrel"), "{own:?}");
    }
    // With the commit behind it in a build for release.
    let version = run(&["--version"], &[], b"").await.stdout;
    assert!(version.starts_with(concat!("whimbrel ", env!("CARGO_PKG_VERSION"))), "{version}");
    assert_eq!(run(&["dance"], &[], b"").await.code, Some(2));
}

#[tokio::test]
async fn the_help_of_a_command_lists_the_settings_that_it_uses_and_refers_to_serve_for_the_rest() {
    let listed = async |command: &str| {
        let help = run(&[command, "--help"], &[], b"").await.stdout;
        let is_flag = |line: &&str| line.trim_start().starts_with("--");
        let flags = help.lines().filter(is_flag).filter_map(|line| line.split_whitespace().next().map(str::to_owned));
        (flags.collect::<Vec<_>>(), help.contains("whimbrel serve --help"))
    };
    let (of_serve, _) = listed("serve").await;
    assert!(of_serve.contains(&"--redis-url".to_owned()), "{of_serve:?}");
    assert_eq!(listed("check").await, (vec!["--history".to_owned(), "--acl".to_owned()], true));
    let of_health = ["--ready", "--timeout", "--listen", "--tls-cert-file", "--tls-key-file"].map(str::to_owned);
    assert_eq!(listed("health").await, (of_health.into(), true));
}

#[tokio::test]
async fn shells_and_manuals_learn_of_each_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell], &[], b"").await;
        assert!(script.code == Some(0) && script.stdout.contains("redis-url"), "{shell}: {script:?}");
    }
    let page = run(&["man"], &[], b"").await;
    assert!(page.code == Some(0) && page.stdout.contains(".TH whimbrel 1"), "{page:?}");
    let folder = tempfile::TempDir::new().unwrap();
    assert_eq!(run(&["man", folder.path().to_str().unwrap()], &[], b"").await.code, Some(0));
    for name in ["whimbrel.1", "whimbrel-serve.1", "whimbrel-publish.1"] {
        assert!(folder.path().join(name).exists(), "{name}");
    }
}

#[tokio::test]
async fn a_load_is_estimated_and_nonsense_refused() {
    let load = ["size", "--connections", "100000", "--devices", "500000", "--rate", "1000"];
    let outcome = run(&load, &[], b"").await;
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    assert!(outcome.stdout.starts_with("nodes ") && outcome.stdout.contains("\nredis "), "{outcome:?}");
    one_line_on_stderr(&run(&[&load[..], &["--fan-out=-1"]].concat(), &[], b"").await, 2, &["--fan-out"]);
}

#[tokio::test]
async fn the_health_of_a_node_is_asked_from_its_own_machine() {
    let node = Node::start(&[]);
    let listen = [("WHIMBREL_LISTEN", node.address().to_string())];
    let listen = [(listen[0].0, listen[0].1.as_str())];
    for arguments in [&["health"][..], &["health", "--ready"]] {
        assert_eq!(run(arguments, &listen, b"").await.code, Some(0), "{arguments:?}");
    }
    let folder = tempfile::TempDir::new().unwrap();
    let socket = format!("unix:{}/http.sock", folder.path().display());
    let _local = Node::start(&[("WHIMBREL_LISTEN", &format!("127.0.0.1:0 {socket}"))]);
    assert_eq!(run(&["health"], &[("WHIMBREL_LISTEN", &socket)], b"").await.code, Some(0));
    let nobody = format!("127.0.0.1:{}", free_port());
    one_line_on_stderr(&run(&["health", "--listen", &nobody], &[], b"").await, 1, &[&nobody]);
    one_line_on_stderr(&run(&["health"], &[("WHIMBREL_LISTEN", "127.0.0.1:0")], b"").await, 2, &["port 0"]);
    // It lives, and is not ready: its store was never there.
    let listen = format!("127.0.0.1:{}", free_port());
    let away = format!("redis://127.0.0.1:{}", free_port());
    let _waiting = Node::start_waiting(&[("WHIMBREL_LISTEN", &listen), ("WHIMBREL_REDIS_URL", &away)]);
    let lives = async || (run(&["health", "--listen", &listen], &[], b"").await.code == Some(0)).then_some(());
    eventually("it lives", lives).await;
    assert_eq!(run(&["health", "--ready", "--listen", &listen], &[], b"").await.code, Some(1));
}

#[tokio::test]
async fn a_setting_that_can_not_work_ends_the_start_with_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for (name, value) in [
        ("WHIMBREL_LISTEN", "nowhere"),
        ("WHIMBREL_LISTEN", "0.0.0.0:0"),
        ("WHIMBREL_REDIS_URL", "http://127.0.0.1"),
        ("WHIMBREL_RETENTION", "lots"),
        ("WHIMBREL_LEASE_SECONDS", "0"),
        ("WHIMBREL_MAX_STREAMS", "65"),
        ("WHIMBREL_JWT_SECRET", "secret"),
        ("WHIMBREL_LOG", "verbose"),
        ("WHIMBREL_LOG", "whimbrel=loud"),
        ("WHIMBREL_LOG", "info,"),
    ] {
        one_line_on_stderr(&run(&["serve"], &[(name, value)], b"").await, 2, &[name]);
        let flag = name["WHIMBREL_".len()..].to_lowercase().replace('_', "-");
        one_line_on_stderr(&run(&[&format!("--{flag}={value}")], &[], b"").await, 2, &[name, &flag]);
        one_line_on_stderr(&run(&["check"], &[(name, value)], b"").await, 2, &[name]);
    }
    let address = taken.local_addr().unwrap().to_string();
    let outcome = run(&["serve"], &[("WHIMBREL_LISTEN", &address), ("WHIMBREL_LOG", "error")], b"").await;
    one_line_on_stderr(&outcome, 2, &["WHIMBREL_LISTEN", &address]);
    let evicting = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let settings =
        [("WHIMBREL_LISTEN", "127.0.0.1:0"), ("WHIMBREL_REDIS_URL", &evicting.url()), ("WHIMBREL_LOG", "error")];
    let outcome = run(&["serve"], &settings, b"").await;
    one_line_on_stderr(&outcome, 2, &["WHIMBREL_REDIS_URL", "allkeys-lru"]);
}

#[tokio::test]
async fn a_check_distinguishes_a_good_redis_from_a_bad_one() {
    let good = RedisServer::start_with(&["--appendonly", "yes"]);
    let outcome = run(&["check"], &[("WHIMBREL_REDIS_URL", &good.url())], b"").await;
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    assert!(outcome.stdout.lines().all(|line| line.starts_with("ok ")), "{outcome:?}");

    let bad = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let outcome = run(&["check", "--redis-url", &bad.url()], &[("WHIMBREL_TYPO", "1")], b"").await;
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let says = |level: &str, what: &str| outcome.stdout.lines().any(|l| l.starts_with(level) && l.contains(what));
    assert!(says("error", "allkeys-lru") && says("warning", "persistence"), "{outcome:?}");
    assert!(says("warning", "WHIMBREL_TYPO"), "{outcome:?}");

    let nobody = format!("redis://me:s3cret@127.0.0.1:{}", free_port());
    let outcome = run(&["check"], &[("WHIMBREL_REDIS_URL", &nobody)], b"").await;
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(!format!("{outcome:?}").contains("s3cret"), "{outcome:?}");
    let errors = outcome.stdout.lines().filter(|line| line.starts_with("error"));
    assert_eq!(errors.count(), 1, "once is enough: {outcome:?}");
    assert_eq!(run(&["check"], &[], b"").await.code, Some(0));
}

#[tokio::test]
async fn a_check_finds_the_master_behind_sentinels() {
    let group = Group::start(&[]).await;
    let outcome = run(&["check"], &[("WHIMBREL_REDIS_URL", &group.url())], b"").await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.contains("warning  2 replicas, and min-replicas-to-write is 0"), "{outcome:?}");

    let url = group.url().replace("/main", "/nobody");
    let outcome = run(&["check"], &[("WHIMBREL_REDIS_URL", &url)], b"").await;
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stdout.contains("no Sentinel names the master 'nobody'"), "{outcome:?}");

    let sentinel = format!("redis://{}", group.sentinels[0].address());
    for (url, reason) in
        [(group.servers[1].url(), "reached, but read-only"), (sentinel, "is a Sentinel: use redis+sentinel")]
    {
        let outcome = run(&["check"], &[("WHIMBREL_REDIS_URL", &url)], b"").await;
        assert!(outcome.code == Some(1) && outcome.stdout.contains(reason), "{outcome:?}");
    }
}

#[tokio::test]
async fn one_event_is_published_from_the_command_line() {
    let node = Node::start(&[]);
    let url = node.url();
    let mut client = Wanted::new(Transport::WebSocket, &["device:42"]).connect(&node).await;
    let publish = async |rest: &[&str]| run(&[&["publish", "device:42", "--url", &url], rest].concat(), &[], b"").await;
    let outcome = publish(&["{\"unread\": 3}", "--type", "badge"]).await;
    let event = client.event().await;
    assert_eq!((event.kind.as_str(), event.data.as_str()), ("badge", "{\"unread\": 3}"));
    assert_eq!((outcome.code, outcome.stdout, outcome.stderr.as_str()), (Some(0), format!("{}\n", event.id), ""));
    assert_eq!(publish(&["--text", "Hello, \"world\""]).await.code, Some(0));
    assert_eq!(client.data(1).await, ["\"Hello, \\\"world\\\"\""]);
    assert_eq!(publish(&["-5"]).await.code, Some(0));
    assert_eq!(client.data(1).await, ["-5"]);
    let first = publish(&["1", "--key", "k"]).await;
    assert_eq!(publish(&["1", "--key", "k"]).await.stdout, first.stdout);
    one_line_on_stderr(&publish(&["2", "--key", "k"]).await, 1, &["422"]);
    assert_eq!(client.data(1).await, ["1"]);
    one_line_on_stderr(&publish(&["{oops"]).await, 2, &["DATA", "not JSON", "--text"]);
    one_line_on_stderr(&publish(&[&format!("\"{}\"", "x".repeat(70_000))]).await, 1, &["413"]);
}

#[tokio::test]
async fn every_option_of_an_event_is_a_flag_of_the_command_line() {
    let node = Node::start(&[]);
    let url = node.url();
    let mut client = Wanted::new(Transport::WebSocket, &["topic:a"]).connect(&node).await;
    let publish = async |rest: &[&str], input: &[u8]| {
        run(&[&["publish", "topic:a", "--url", &url], rest].concat(), &[], input).await
    };
    let outcome = publish(&["1", "--ephemeral", "--type", "typing"], b"").await;
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "1\n"), "nodes");
    let expected = Said::Ephemeral { stream: "topic:a".into(), kind: "typing".into(), data: "1".into(), trace: None };
    assert_eq!(client.next().await, expected);
    assert_eq!(publish(&["2", "--ttl", "1"], b"").await.code, Some(0));
    assert_eq!(publish(&["3", "--collapse", "k"], b"").await.code, Some(0));
    // For every line of the input, too.
    assert_eq!(publish(&["--json", "--collapse", "k", "--ttl", "1000"], b"4\n5\n").await.code, Some(0));
    eventually("the brief one expires", async || (node.history("topic:a").await.len() == 3).then_some(())).await;
    let mut late = Wanted::new(Transport::WebSocket, &["topic:a"]).after("earliest").connect(&node).await;
    assert_eq!(late.data(1).await, ["5"]);
    for wrong in [
        &["1", "--ttl", "0"][..],
        &["1", "--ttl", "soon"],
        &["1", "--ephemeral", "--ttl", "5"],
        &["1", "--ephemeral", "--collapse", "k"],
        &["1", "--ephemeral", "--key", "k"],
        &["--ephemeral"],
    ] {
        assert_eq!(publish(wrong, b"").await.code, Some(2), "{wrong:?}");
    }
    one_line_on_stderr(&publish(&["1", "--collapse", "a b"], b"").await, 1, &["400", "collapse"]);
    // A subscription prints what is not stored as well.
    let subscription = start(&["subscribe", "topic:a", "--url", &url, "--json", "--limit", "1"], &[]);
    connected(&node).await;
    publish(&["6", "--ephemeral"], b"").await;
    let printed = subscription.end().await.stdout;
    assert_eq!(printed, "{\"stream\":\"topic:a\",\"id\":null,\"type\":\"message\",\"data\":6}\n");
}

#[tokio::test]
async fn what_can_not_be_published_is_reported_with_its_line() {
    let node = Node::start(&[("WHIMBREL_MAX_EVENT_BYTES", "1000")]);
    let url = node.url();
    let publish = async |rest: &[&str], input: &[u8]| {
        run(&[&["publish", "topic:a", "--url", &url], rest].concat(), &[], input).await
    };
    let outcome = publish(&["--json"], b"1\n\n{oops\n4\n").await;
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.contains("line 3 is not JSON") && outcome.stderr.contains("published 1 event "),
        "{outcome:?}"
    );
    let outcome = publish(&[], b"a\nb\xff\nc\n").await;
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("line 2 is not UTF-8"), "{outcome:?}");
    let outcome = publish(&[], format!("c\n{}\nd\n", "x".repeat(2000)).as_bytes()).await;
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("line 2: "), "{outcome:?}");
    // An empty line is an empty text, and no input is nothing.
    assert_eq!(publish(&[], b"\nlast without an end").await.code, Some(0));
    assert_eq!(publish(&[], b"").await.code, Some(0));
    let events = node.get_json("/v1/topics/a/events").await["events"].clone();
    let data: Vec<String> = events.as_array().unwrap().iter().map(|event| event["data"].to_string()).collect();
    assert_eq!(data[..3], ["1", "\"a\"", "\"c\""]);
    assert_eq!(data[data.len() - 2..], ["\"\"", "\"last without an end\""]);

    let nobody = format!("http://127.0.0.1:{}", free_port());
    let outcome = run(&["publish", "topic:a", "1", "--url", &nobody, "--retry-seconds", "0"], &[], b"").await;
    one_line_on_stderr(&outcome, 1, &["can't be reached", &nobody]);
    for wrong in [&["publish", "news", "1"][..], &["publish"], &["publish", "topic:a", "1", "--url", "x"]] {
        assert_eq!(run(wrong, &[], b"").await.code, Some(2), "{wrong:?}");
    }
}

#[tokio::test]
async fn a_publisher_waits_for_a_store_that_is_away() {
    let mut redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let node = Node::on(&redis, &[]);
    let mut client = Wanted::new(Transport::Sse, &["topic:log"]).connect(&node).await;
    let mut publish = start(&["publish", "topic:log", "--url", &node.url()], &[]);
    publish.write(b"one\n").await;
    assert_eq!(client.data(1).await, ["\"one\""]);
    redis.kill();
    eventually("the loss is noticed", async || {
        (node.call("POST", "/v1/topics/other/events", &[], "1").await.status == 503).then_some(())
    })
    .await;
    publish.write(b"two\nthree\n").await;
    redis.revive();
    let outcome = publish.end().await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(client.data(2).await, ["\"two\"", "\"three\""]);
}

#[tokio::test]
async fn a_subscription_with_a_cursor_file_goes_on_where_it_was_stopped() {
    let node = Node::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let cursor = folder.path().join("log.cursor");
    let cursor = cursor.to_str().unwrap();
    let url = node.url();
    let arguments = ["subscribe", "topic:log", "device:42", "--url", &url, "--cursor-file", cursor];
    let mut ids = Vec::new();
    let mut published = 0;
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::TERM, 143)] {
        let running = start(&arguments, &[]);
        connected(&node).await;
        node.publish_all("topic:log", published..published + 10).await;
        let all: String = (0..published + 10).map(|n| format!("{n}\n")).collect();
        running.printed(all.len() - ids.len()).await;
        running.signal(signal);
        let outcome = running.end().await;
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        ids.extend(outcome.stdout.into_bytes());
        node.metric_is("connections{transport=\"sse\"}", 0.0).await;
        // While nobody listens.
        node.publish_all("topic:log", published + 10..published + 15).await;
        published += 15;
    }
    let last = start(&[&arguments[..], &["--limit", "5"]].concat(), &[]).end().await;
    assert_eq!(last.code, Some(0), "{last:?}");
    ids.extend(last.stdout.into_bytes());
    let expected: String = (0..published).map(|n| format!("{n}\n")).collect();
    assert_eq!(String::from_utf8(ids).unwrap(), expected);
}

#[tokio::test]
async fn a_subscription_prints_texts_plain_and_everything_else_as_json() {
    let node = Node::start(&[]);
    node.publish_all("topic:a", ["\"text é\"", "{ \"a\" : [1.0] }", "null"]).await;
    let url = node.url();
    let subscribe = async |rest: &[&str]| {
        let all = [&["subscribe", "topic:a", "--url", &url, "--after", "earliest", "--limit", "3"], rest].concat();
        run(&all, &[], b"").await
    };
    assert_eq!(subscribe(&[]).await.stdout, "text é\n{\"a\":[1.0]}\nnull\n");
    let json = subscribe(&["--json"]).await.stdout;
    for line in json.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&event["stream"], &event["type"]), (&"topic:a".into(), &"message".into()), "{line}");
    }
    assert_eq!(json.lines().count(), 3);
    let refused = run(&["subscribe", "topic:a", "--url", &url, "--after", "yesterday"], &[], b"").await;
    one_line_on_stderr(&refused, 1, &["yesterday", "400"]);
}

#[tokio::test]
async fn publish_reports_that_the_server_is_away_and_publishes_when_it_comes() {
    let address = format!("127.0.0.1:{}", free_port());
    let url = format!("http://{address}");
    let publish = start(&["publish", "topic:a", "1", "--url", &url], &[]);
    publish.said("trying again for up to 60 s").await;
    let node = Node::start(&[("WHIMBREL_LISTEN", &address)]);
    let outcome = publish.end().await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let message = outcome.stderr.trim_end();
    assert!(
        message.starts_with(&format!("whimbrel: {url} can't be reached")) && message.lines().count() == 1,
        "{message}"
    );
    assert_eq!(node.history("topic:a").await, ["1"]);
}

#[tokio::test]
async fn publish_waits_for_the_durability_it_is_asked_for() {
    let redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let node = Node::on(&redis, &[]);
    let publish = async |durable: &str| {
        let url = node.url();
        let command = ["publish", "topic:a", "1", "--url", &url, "--durable", durable, "--retry-seconds", "0"];
        run(&command, &[], b"").await
    };
    let kept = publish("disk").await;
    assert_eq!((kept.code, kept.stderr.as_str()), (Some(0), ""));
    let short = publish("replicas:1").await;
    assert_eq!(short.code, Some(1));
    assert!(short.stderr.contains("not confirmed to be as durable"), "{short:?}");
    let lines = run(&["publish", "topic:a", "--durable", "disk"], &[], b"").await;
    assert!(lines.code == Some(2) && lines.stderr.contains("DATA"), "{lines:?}");
}

#[tokio::test]
async fn the_log_shows_that_access_is_closed() {
    let node = Node::start(&[("WHIMBREL_JWT_SECRET", crate::support::token::SECRET)]);
    assert!(node.log().lines().next().unwrap().contains("access=\"closed\""), "{}", node.log());
}

#[tokio::test]
async fn the_log_begins_with_what_is_started() {
    let redis = RedisServer::start();
    let node = Node::on(&redis, &[("WHIMBREL_PREFIX", "birds")]);
    let log = node.log();
    let first = log.lines().next().unwrap();
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    let store = format!("127.0.0.1:{}", redis.port());
    for named in ["whimbrel starts", &version, &store, "birds", "access=\"open\"", &node.url()] {
        assert!(first.contains(named), "{named}: {first}");
    }
}

#[tokio::test]
async fn a_check_names_what_the_user_of_redis_may_not_do_and_a_node_that_waits_says_the_same() {
    let redis = RedisServer::start();
    let mut raw = redis.raw().await;
    for (user, rules, named) in [
        ("nochannels", &["~*", "resetchannels", "+@all"][..], "&whimbrel:node:*"),
        ("noscripts", &["~*", "&*", "+@all", "-@scripting"], "+@scripting"),
        ("otherkeys", &["~other:*", "&*", "+@all"], "~whimbrel:*"),
        ("readonly", &["~*", "&*", "+@read", "+@connection", "+@scripting"], "subscribe"),
        ("nohset", &["~*", "&*", "+@all", "-hset"], "HSET"),
    ] {
        let acl = [&["SETUSER", user, "on", ">s3cret"], rules].concat();
        let () = redis::cmd("ACL").arg(&acl).query_async(&mut raw).await.unwrap();
        let url = redis.url().replace("redis://", &format!("redis://{user}:s3cret@"));
        let outcome = run(&["check"], &[("WHIMBREL_REDIS_URL", &url)], b"").await;
        assert_eq!(outcome.code, Some(1), "{user}: {outcome:?}");
        let error = outcome.stdout.lines().find(|line| line.starts_with("error")).unwrap_or_default();
        assert!(error.contains(named) && !error.contains("s3cret"), "{user}: {outcome:?}");
        let node = Node::start_waiting(&[("WHIMBREL_REDIS_URL", &url)]);
        eventually("the reason in the log", async || node.log().contains(named).then_some(())).await;
    }
    let acl = ["SETUSER", "enough", "on", ">s3cret", "~whimbrel:*", "&whimbrel:node:*", "+@all", "-@dangerous"];
    let () = redis::cmd("ACL").arg(&acl).query_async(&mut raw).await.unwrap();
    let url = redis.url().replace("redis://", "redis://enough:s3cret@");
    assert_eq!(run(&["check"], &[("WHIMBREL_REDIS_URL", &url)], b"").await.code, Some(0));
    let node = Node::start(&[("WHIMBREL_REDIS_URL", &url)]);
    node.publish("topic:a", "1").await;
    assert_eq!(node.history("topic:a").await, ["1"]);
}
