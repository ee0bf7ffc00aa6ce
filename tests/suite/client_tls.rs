//! The commands against servers that speak TLS.

use crate::support::command::run;
use crate::support::node::Node;
use crate::support::tls::Authority;
use crate::support::token::{SECRET, device};

/// A node with this certificate of the authority, and where it is.
fn node(authority: &Authority, certificate: &str) -> (Node, String) {
    let (certificate, key) =
        (authority.file(&format!("{certificate}.pem")), authority.file(&format!("{certificate}.key")));
    let node = Node::start(&[
        ("WHIMBREL_TLS_CERT_FILE", certificate.as_str()),
        ("WHIMBREL_TLS_KEY_FILE", &key),
        ("WHIMBREL_JWT_SECRET", SECRET),
    ]);
    let place = format!("localhost:{}", node.address().port());
    (node, place)
}

#[tokio::test]
async fn the_commands_reach_a_server_over_tls_whose_authority_they_are_given() {
    let authority = Authority::new();
    authority.issue("node");
    let (_node, place) = node(&authority, "node");
    let (https, wss, ca) = (format!("https://{place}"), format!("wss://{place}"), authority.file("ca.pem"));
    let token = device("42", &["topic:*"], &["topic:*"]);
    let token = ("WHIMBREL_TOKEN", token.as_str());

    let published = run(&["publish", "topic:news", "1", "--url", &https, "--ca-file", &ca], &[token], b"").await;
    assert_eq!(published.code, Some(0), "{published:?}");
    let lines =
        run(&["publish", "topic:news"], &[token, ("WHIMBREL_URL", &https), ("WHIMBREL_CA_FILE", &ca)], b"a\nb\n").await;
    assert_eq!(lines.code, Some(0), "{lines:?}");
    let subscribe = ["subscribe", "topic:news", "--after", "earliest", "--limit", "3", "--url", &wss, "--ca-file", &ca];
    let subscribed = run(&subscribe, &[token], b"").await;
    assert_eq!((subscribed.code, subscribed.stdout.as_str()), (Some(0), "1\na\nb\n"), "{subscribed:?}");
    for transport in ["sse", "websocket"] {
        let load = ["--connections", "5", "--rate", "10", "--seconds", "1", "--json", "--transport", transport];
        let bench = run(&[&["bench", "--url", &https, "--ca-file", &ca][..], &load].concat(), &[token], b"").await;
        assert_eq!(bench.code, Some(0), "{bench:?}");
        let report: serde_json::Value = serde_json::from_str(&bench.stdout).unwrap();
        assert_eq!(report["publishing"]["published"], 10, "{report}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_trusted_is_refused_at_once_with_what_is_wrong() {
    let (authority, other) = (Authority::new(), Authority::new());
    authority.issue("node");
    authority.issue_for("elsewhere", &["push.example.com"]);
    let ((_node, place), (_elsewhere, wrong_place)) = (node(&authority, "node"), node(&authority, "elsewhere"));
    let (own, others) = (authority.file("ca.pem"), other.file("ca.pem"));
    for (place, ca, reason) in [
        (&place, Some(&others), "authority that is not trusted"),
        (&place, None, "authority that is not trusted"),
        (&wrong_place, Some(&own), "is for push.example.com, and not for localhost"),
    ] {
        let url = format!("https://{place}");
        let trust: Vec<&str> = ca.iter().flat_map(|ca| ["--ca-file", ca.as_str()]).collect();
        for command in [
            &["publish", "topic:news", "1"][..],
            &["subscribe", "topic:news"],
            &["bench", "--connections", "1", "--seconds", "1"],
        ] {
            let refused = run(&[command, &["--url", &url], &trust[..]].concat(), &[], b"").await;
            assert_eq!(refused.code, Some(1), "{command:?}: {refused:?}");
            assert!(refused.stderr.contains(reason) && refused.stderr.contains(place), "{command:?}: {refused:?}");
        }
    }
    let key = authority.file("node.key");
    let refused = run(&["publish", "topic:news", "1", "--ca-file", &key], &[], b"").await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("--ca-file") && refused.stderr.contains("no CERTIFICATE"), "{refused:?}");
}
