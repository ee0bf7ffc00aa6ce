//! Key sets (JWKS).

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::*;
use crate::support::backend::{Backend, Reply};
use crate::support::client::{Transport, Wanted};
use crate::support::command::run;
use crate::support::tls::Authority;
use crate::support::token::{ED25519, ES256, ES384, RS256, by_key, encoded, hs256, jwk, now, token_by};
use crate::support::{Signal, eventually};

/// A set of these keys: algorithm, private key, name.
fn set(keys: &[(&str, (&str, &str), &str)]) -> String {
    let keys: Vec<Value> = keys.iter().map(|(alg, key, kid)| jwk(alg, key.0, kid)).collect();
    json!({"keys": keys}).to_string()
}

/// A token of device 42 by a key, with whatever else its header and claims have.
fn signed(alg: &str, key: (&str, &str), header: Value, claims: Value) -> String {
    let (mut head, mut body) = (json!({"alg": alg}), json!({"sub": "42", "exp": now() + 3600}));
    head.as_object_mut().unwrap().extend(header.as_object().unwrap().clone());
    body.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    token_by(&head.to_string(), &body.to_string(), by_key(alg, key.0))
}

fn named(alg: &str, key: (&str, &str), kid: &str) -> String {
    signed(alg, key, json!({"kid": kid}), json!({}))
}

async fn status(node: &Node, token: &str) -> u16 {
    ask_as(node, Some(token), "GET", "/v1/whoami", "").await.status
}

#[tokio::test]
async fn tokens_are_verified_by_key_sets_on_the_web_and_in_files() {
    let (authority, secret) = (Authority::new(), "a secret that stands in a public set");
    authority.issue("server");
    let mut keys = json!([jwk("RS256", RS256.0, "r"), jwk("ES256", ES256.0, "e"), {"kty": "later", "kid": "l"}]);
    keys.as_array_mut().unwrap().push(json!({"kty": "oct", "k": encoded(secret), "kid": "o", "alg": "HS256"}));
    let body = json!({"keys": keys}).to_string();
    let web = Backend::start_tls(authority.acceptor("server"), move |_| Reply::json(&body)).await;
    std::fs::write(authority.path("set.json"), set(&[("EdDSA", ED25519, "d")])).unwrap();
    let urls = format!("{} file://{}", web.url("/jwks.json"), authority.file("set.json"));
    // The web's authorities are the machine's, and this variable says which those are.
    let node = Node::start(&[("WHIMBREL_JWKS_URL", &urls), ("SSL_CERT_FILE", &authority.file("ca.pem"))]);
    for (alg, key, kid) in
        [("RS256", RS256, "r"), ("PS512", RS256, "r"), ("ES256", ES256, "e"), ("EdDSA", ED25519, "d")]
    {
        let token = named(alg, key, kid);
        let asked = ask_as(&node, Some(&token), "GET", "/v1/whoami", "").await;
        match alg {
            // The set says that its RSA key is for RS256.
            "PS512" => assert_eq!(asked.status, 401),
            _ => assert_eq!(asked.json()["device"], "42", "{alg}"),
        }
    }
    assert_eq!(
        status(&node, &signed("ES256", ES256, json!({}), json!({}))).await,
        200,
        "a token need not name its key"
    );
    assert_eq!(status(&node, &named("ES256", ES256, "r")).await, 401, "nor be signed by another than it names");
    let shared =
        token_by(r#"{"alg":"HS256","kid":"o"}"#, &json!({"sub": "42", "exp": now() + 60}).to_string(), hs256(secret));
    assert_eq!(status(&node, &shared).await, 401, "a secret that everybody reads is none");
    // Whoever brings an address of his own is not asked for it.
    let evil = Backend::start(|_| Reply::json(set(&[("ES384", ES384, "x")]))).await;
    for name in ["jku", "x5u"] {
        assert_eq!(
            status(&node, &signed("ES384", ES384, json!({"kid": "x", name: evil.url("/")}), json!({}))).await,
            401
        );
    }
    assert!(evil.asked().is_empty());

    std::fs::write(authority.path("set.json"), set(&[("ES384", ES384, "n")])).unwrap();
    let new = named("ES384", ES384, "n");
    eventually("the new file", async || (status(&node, &new).await == 200).then_some(())).await;
    assert_eq!(status(&node, &named("EdDSA", ED25519, "d")).await, 401, "what is gone from the set is gone");
}

#[tokio::test]
async fn an_unknown_key_is_looked_for_at_once_and_a_flood_of_them_is_one_fetch_a_minute() {
    let web = Backend::start(|_| Reply::json(set(&[("ES256", ES256, "old")]))).await;
    let node = Node::start(&[("WHIMBREL_JWKS_URL", &web.url("/jwks"))]);
    let (old, new) = (named("ES256", ES256, "old"), named("ES384", ES384, "new"));
    assert_eq!(status(&node, &old).await, 200);
    web.be(|_| Reply::json(set(&[("ES256", ES256, "old"), ("ES384", ES384, "new")])));
    assert_eq!((status(&node, &new).await, web.asked().len()), (200, 2), "a new key is good at once");
    let flood: Vec<String> = (0..40).map(|number| named("ES256", ES256, &format!("unknown-{number}"))).collect();
    let answers = join_all(flood.iter().map(|token| status(&node, token))).await;
    assert!(answers.iter().all(|status| *status == 401), "{answers:?}");
    assert_eq!((status(&node, &old).await, status(&node, &new).await), (200, 200));
    assert_eq!(web.asked().len(), 2);
    // A wrong signature by a known key is no reason to ask at all, and no more is a token for a secret.
    assert_eq!(status(&node, &named("ES256", ES256, "new")).await, 401);
    assert_eq!(web.asked().len(), 2);
}

#[tokio::test]
async fn the_keys_stand_while_their_place_is_away_or_talks_nonsense() {
    let good = set(&[("ES256", ES256, "a")]);
    let first = good.clone();
    let web = Backend::start(move |_| Reply::json(&first)).await;
    let keys = keys_file();
    let node = Node::start(&[
        ("WHIMBREL_JWKS_URL", &web.url("/jwks")),
        ("WHIMBREL_API_KEYS_FILE", keys.path().to_str().unwrap()),
    ]);
    let token = named("ES256", ES256, "a");
    assert_eq!(status(&node, &token).await, 200);
    // Elsewhere is another set, to which nobody is to be led.
    let elsewhere = Backend::start(|_| Reply::json(set(&[("ES384", ES384, "x")]))).await;
    let large = format!(r#"{{"keys":[{}],"fill":"{}"}}"#, jwk("ES384", ES384.0, "x"), "x".repeat(300_000));
    let nonsense = [
        Reply::status(500),
        Reply::json("<html>"),
        Reply::json(r#"{"keys":[]}"#),
        Reply::json(large),
        Reply::Say(302, vec![("location", elsewhere.url("/"))], String::new()),
    ];
    let failures = async || node.metric_for(ADMIN, "access_key_set_failures_total").await;
    for reply in nonsense {
        web.be(move |_| reply.clone());
        // The unknown key of the first round had it fetched as well.
        let before = failures().await;
        node.signal(Signal::HUP);
        eventually("a failure", async || (failures().await > before).then_some(())).await;
        assert_eq!(status(&node, &token).await, 200);
        assert_eq!(status(&node, &named("ES384", ES384, "x")).await, 401);
    }
    assert!(elsewhere.asked().is_empty());
    assert!(node.log().contains("its keys stay as they were") && !node.log().contains("/jwks"), "{}", node.log());
}

#[tokio::test]
async fn until_a_set_was_read_nobody_is_let_in_by_it_and_all_are_told_to_come_back() {
    let web = Backend::start(|_| Reply::status(503)).await;
    let node = Node::start(&[("WHIMBREL_JWKS_URL", &web.url("/jwks"))]);
    let token = named("ES256", ES256, "a");
    let refused = ask_as(&node, Some(&token), "GET", "/v1/whoami", "").await;
    assert_eq!(refused.problem(503).0, "unavailable");
    assert!(refused.header("retry-after").is_some());
    // An EventSource would stay away for good at 503.
    let headers = [("Authorization", bearer(&token)), ("Accept", "text/event-stream".to_owned())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let told = ask(&node, "GET", "/v1/sse?device=42", &headers, "").await;
    assert_eq!(told.status, 200);
    assert!(
        told.text().starts_with("retry: ") && told.text().contains(r#"{"reason":"unavailable""#),
        "{}",
        told.text()
    );
    Wanted::new(Transport::WebSocket, &["device:42"]).bearer(&token).refused(&node).await.problem(503);
    ask_as(&node, None, "GET", "/v1/whoami", "").await.problem(401);
    web.be(|_| Reply::json(set(&[("ES256", ES256, "a")])));
    eventually("the set", async || (status(&node, &token).await == 200).then_some(())).await;
    Wanted::new(Transport::Sse, &["device:42"]).bearer(&token).connect(&node).await;
}

#[tokio::test]
async fn a_set_of_an_issuer_is_for_its_tokens_alone() {
    // Both have a key of this name.
    let web = Backend::start(|question| match question.path.as_str() {
        "/a" => Reply::json(set(&[("ES256", ES256, "1")])),
        "/b" => Reply::json(set(&[("ES384", ES384, "1")])),
        _ => Reply::json(set(&[("EdDSA", ED25519, "1")])),
    })
    .await;
    let urls = format!("https://a.example={} https://b.example/={} {}", web.url("/a"), web.url("/b"), web.url("/c"));
    let node = Node::start(&[("WHIMBREL_JWKS_URL", &urls), ("WHIMBREL_JWT_ISSUER", "https://c.example")]);
    let by = |alg: &str, key, issuer: &str| signed(alg, key, json!({"kid": "1"}), json!({"iss": issuer}));
    for (alg, key, issuer, accepted) in [
        ("ES256", ES256, "https://a.example", true),
        ("ES384", ES384, "https://b.example/", true),
        ("EdDSA", ED25519, "https://c.example", true),
        ("ES256", ES256, "https://b.example/", false),
        ("ES256", ES256, "https://c.example", false),
        ("EdDSA", ED25519, "https://a.example", false),
        ("ES384", ES384, "https://b.example", false),
    ] {
        assert_eq!(status(&node, &by(alg, key, issuer)).await == 200, accepted, "{alg} {issuer}");
    }
    assert_eq!(status(&node, &named("ES256", ES256, "1")).await, 401, "of no issuer at all");
}

#[tokio::test]
async fn a_place_that_can_be_no_key_set_ends_the_start() {
    for url in ["http://login.example/jwks", "file:///nowhere/jwks.json", "login.example", ""] {
        let outcome = run(&["serve"], &[("WHIMBREL_JWKS_URL", url), ("WHIMBREL_LISTEN", "127.0.0.1:0")], b"").await;
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.lines().last().unwrap().contains("WHIMBREL_JWKS_URL"), "{outcome:?}");
    }
}
