//! Tokens: how they are sent, by which keys they are verified, how refusals read.

use serde_json::json;

use super::*;
use crate::support::client::{Said, Transport, Wanted};
use crate::support::token::{ED25519, ES256, ES384, RS256, by_key, device, encoded, hs256, now, token, token_by};

#[tokio::test]
async fn a_token_can_be_brought_in_four_ways() {
    let keys = keys_file();
    let node = Node::start(&borrowed(&closed(&keys)));
    let token = device("42", &["topic:news"], &[]);
    let cookie = format!("theme=dark; whimbrel_token={token}");
    for transport in [Transport::Sse, Transport::WebSocket] {
        let wanted = || Wanted::new(transport, &["device:42", "topic:news"]);
        for wanted in [wanted().bearer(&token), wanted().with("token", &token), wanted().header("Cookie", &cookie)] {
            let mut client = wanted.connect(&node).await;
            let id = ask_as(&node, Some(PUBLISH), "POST", "/v1/devices/42/events", "1").await.id();
            assert_eq!(client.event().await.id, id);
        }
    }
    // A browser offers both; the one confirmed must not repeat the token.
    let protocols = format!("whimbrel.v1, whimbrel.token.{token}");
    let answer = ask(&node, "GET", "/v1/ws?device=42", &[("Sec-WebSocket-Protocol", &protocols)], "").await;
    assert_eq!((answer.status, answer.header("sec-websocket-protocol")), (101, Some("whimbrel.v1")));
    assert!(!node.log().contains(token.rsplit('.').next().unwrap()), "the token is in the log");
}

#[tokio::test]
async fn a_token_or_key_without_its_scheme_is_refused_with_the_form_that_is_allowed() {
    let keys = keys_file();
    let node = Node::start(&borrowed(&closed(&keys)));
    let token = device("42", &["topic:news"], &[]);
    for bare in [token.as_str(), READ, "Bearer"] {
        for path in ["/v1/sse?device=42", "/v1/whoami"] {
            let (_, detail) = ask(&node, "GET", path, &[("Authorization", bare)], "").await.problem(401);
            assert!(detail.contains("'Bearer TOKEN'") && !detail.contains(&token), "{detail}");
        }
    }
    // Another scheme may be for a proxy in front.
    let cookie = format!("whimbrel_token={token}");
    let headers = [("Authorization", "Basic YTpi"), ("Cookie", cookie.as_str())];
    assert_eq!(ask(&node, "GET", "/v1/whoami", &headers, "").await.json()["device"], "42");
}

#[tokio::test]
async fn a_cookie_counts_only_where_our_own_page_sends_it() {
    let keys = keys_file();
    let node = Node::start(&borrowed(&closed(&keys)));
    let cookie = format!("whimbrel_token={}", device("42", &[], &["device:42"]));
    let own = node.url();
    let publish = async |headers: &[(&str, &str)]| {
        let headers = [&[("Cookie", cookie.as_str())], headers].concat();
        ask(&node, "POST", "/v1/devices/42/events", &headers, "1").await.status
    };
    assert_eq!(publish(&[]).await, 201, "no browser sends neither");
    assert_eq!(publish(&[("Origin", &own), ("Sec-Fetch-Site", "same-origin")]).await, 201);
    assert_eq!(publish(&[("Sec-Fetch-Site", "none")]).await, 201);
    assert_eq!(publish(&[("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")]).await, 403);
    // An iframe or image of another page names no origin.
    for site in ["cross-site", "same-site"] {
        let read = async |headers: &[(&str, &str)]| {
            ask(&node, "GET", "/v1/devices/42/events", &[headers, &[("Sec-Fetch-Site", site)]].concat(), "")
                .await
                .status
        };
        assert!(matches!(read(&[("Cookie", &cookie)]).await, 401 | 403), "{site}");
    }
    assert_eq!(ask_as(&node, Some(PUBLISH), "GET", "/v1/devices/42/events", "").await.status, 403);
    let history = ask_as(&node, Some(READ), "GET", "/v1/devices/42/events", "").await.json();
    assert_eq!(history["events"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn tokens_of_every_kind_of_key_are_accepted_and_keys_can_be_rotated() {
    let pems = [ES256.1, RS256.1, ED25519.1, ES384.1].join("\n");
    let node = Node::start(&[
        ("WHIMBREL_JWT_PUBLIC_KEY", &pems),
        ("WHIMBREL_JWT_SECRET", "the secret in use, 0123456789\n\nthe one before, 0123456789"),
        ("WHIMBREL_JWT_ISSUER", "https://login.example"),
        ("WHIMBREL_JWT_AUDIENCE", "push"),
    ]);
    let claims = |rest: serde_json::Value| {
        let mut claims = json!({"sub": "42", "exp": now() + 60, "iss": "https://login.example", "aud": ["push"]});
        claims.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        claims.to_string()
    };
    let asked = async |token: &str| ask_as(&node, Some(token), "GET", "/v1/whoami", "").await;
    let keys = [("ES256", ES256), ("RS256", RS256), ("PS512", RS256), ("EdDSA", ED25519), ("ES384", ES384)];
    for (alg, key) in keys {
        let token = token_by(&format!(r#"{{"alg":"{alg}"}}"#), &claims(json!({})), by_key(alg, key.0));
        assert_eq!(asked(&token).await.json()["device"], "42", "{alg}");
    }
    let header = r#"{"alg":"HS256","kid":"unknown"}"#;
    for secret in ["the secret in use, 0123456789", "the one before, 0123456789"] {
        assert_eq!(asked(&token_by(header, &claims(json!({})), hs256(secret))).await.status, 200);
    }
    let wrong = |rest, secret: &'static str| token_by(header, &claims(rest), hs256(secret));
    for (token, said) in [
        (wrong(json!({}), "a secret that was never in use"), "signature"),
        (wrong(json!({"iss": "https://evil.example"}), "the secret in use, 0123456789"), "issuer"),
        (wrong(json!({"aud": "pull"}), "the secret in use, 0123456789"), "audience"),
        (wrong(json!({"exp": now() - 60}), "the secret in use, 0123456789"), "expired"),
        (wrong(json!({"nbf": now() + 60}), "the secret in use, 0123456789"), "not valid yet"),
        (wrong(json!({"exp": null}), "the secret in use, 0123456789"), "exp"),
        (wrong(json!({"sub": "no spaces"}), "the secret in use, 0123456789"), "no device"),
        (format!("{}.{}.", encoded(r#"{"alg":"none"}"#), encoded(claims(json!({})))), "no known API key, and no JWT"),
        ("made up".into(), "no known API key, and no JWT"),
    ] {
        let (slug, detail) = asked(&token).await.problem(401);
        assert_eq!(slug, "unauthorized");
        assert!(detail.contains(said), "{detail}");
        assert!(token.split('.').all(|part| part.is_empty() || !detail.contains(part)), "{detail}");
    }
}

#[tokio::test]
async fn whoami_shows_what_a_token_or_key_may_do() {
    let keys = keys_file();
    let node = Node::start(&borrowed(&closed(&keys)));
    let rights = json!({"subscribe": ["topic:a"], "publish": ["topic:b:*"], "info": {"name": "Ann"}});
    let exp = now() + 60;
    let token = token(json!({"sub": "42", "jti": "t-1", "iat": 5, "exp": exp, "whimbrel": rights}));
    let answer = ask_as(&node, Some(&token), "GET", "/v1/whoami", "").await.json();
    let expected = json!({"kind": "token", "token": "t-1", "device": "42", "subscribe": ["topic:a"],
        "publish": ["topic:b:*"], "info": {"name": "Ann"}, "issued": 5, "expires": exp});
    assert_eq!(answer, expected);
    let answer = ask_as(&node, Some(ADMIN_OTHER), "GET", "/v1/whoami", "").await.json();
    assert_eq!(answer["scopes"], json!(["publish", "read", "admin"]));
    assert_eq!((&answer["name"], &answer["subscribe"]), (&json!("manager elsewhere"), &json!(["topic:other:*"])));
    assert_eq!(Node::start(&[]).get_json("/v1/whoami").await["kind"], "open");
}

#[tokio::test]
async fn what_is_open_to_all_is_read_without_a_token_and_nothing_else() {
    let keys = keys_file();
    let node = Node::start(&borrowed(&closed(&keys)));
    for transport in [Transport::Sse, Transport::WebSocket] {
        let mut client = Wanted::new(transport, &["topic:public:a"]).connect(&node).await;
        let id = ask_as(&node, Some(PUBLISH), "POST", "/v1/topics/public:a/events", "1").await.id();
        assert_eq!(client.event().await.id, id);
        Wanted::new(transport, &["topic:public:a", "topic:news"]).refused(&node).await.problem(401);
        if transport == Transport::WebSocket {
            let answer = client.ask(json!({"op": "subscribe", "stream": "topic:news"})).await;
            assert_eq!(answer["code"], "unauthorized");
        }
    }
    assert_eq!(ask_as(&node, None, "GET", "/v1/topics/public:a/events", "").await.status, 200);
    ask_as(&node, None, "POST", "/v1/topics/public:a/events", "1").await.problem(401);
    ask_as(&node, None, "GET", "/v1/topics/public:a/connections", "").await.problem(401);
    // A token that is no good is not passed over.
    let expired = token(json!({"sub": "42", "exp": now() - 60}));
    ask_as(&node, Some(&expired), "GET", "/v1/topics/public:a/events", "").await.problem(401);
}

#[tokio::test]
async fn a_client_is_connected_as_the_device_of_its_token_and_as_no_other() {
    let keys = keys_file();
    let node = Node::start(&borrowed(&closed(&keys)));
    let online = async |device: &str| {
        let answer = ask_as(&node, Some(READ), "GET", &format!("/v1/devices/{device}"), "").await.json();
        answer["online"].as_bool().unwrap()
    };
    // It may watch the inbox of another device, and holds no place of that.
    let watching = device("7", &["device:*"], &[]);
    let mut client = Wanted::new(Transport::WebSocket, &["device:42"]).bearer(&watching).connect(&node).await;
    assert!(client.ready["device"].is_null(), "{}", client.ready);
    assert!(!online("42").await);
    let id = ask_as(&node, Some(PUBLISH), "POST", "/v1/devices/42/events", "1").await.id();
    assert!(matches!(client.next().await, Said::Event(event) if event.id == id));
    let both = Wanted::new(Transport::WebSocket, &["device:42", "device:7"]).bearer(&watching).connect(&node).await;
    assert_eq!(both.ready["device"], "7");
    assert!(online("7").await && !online("42").await);
}

#[tokio::test]
async fn with_access_closed_a_node_is_reached_by_any_name_and_from_anywhere() {
    let keys = keys_file();
    let mut settings = closed(&keys);
    settings.push(("WHIMBREL_LISTEN", "0.0.0.0:0".into()));
    let node = Node::start(&borrowed(&settings));
    assert!(!node.log().contains("access is open"), "{}", node.log());
    let port = node.address().port();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let token = bearer(&device("42", &[], &[]));
    let headers = [("Host", "push.example.com"), ("Authorization", token.as_str())];
    let answer = Http::connect(address).await.call("GET", "/v1/whoami", &headers, b"").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn open_access_beyond_loopback_is_warned_of() {
    let open = Node::start(&[("WHIMBREL_LISTEN", "0.0.0.0:0"), ("WHIMBREL_INSECURE", "true")]);
    assert!(open.log().contains("access is open to everyone"), "{}", open.log());
    assert!(!Node::start(&[]).log().contains("access is open to everyone"));
}

#[tokio::test]
async fn what_anyone_may_read_is_open_to_bearers_of_tokens_and_keys_too() {
    let file = keys_file();
    let node = Node::start(&borrowed(&closed(&file)));
    let token = token(json!({"sub": "42", "exp": now() + 60}));
    for caller in [None, Some(token.as_str()), Some(PUBLISH_OTHER)] {
        let status =
            async |stream: &str| ask_as(&node, caller, "GET", &format!("/v1/topics/{stream}/events"), "").await.status;
        assert_eq!(status("public:news").await, 200, "{caller:?}");
        assert_ne!(status("news").await, 200, "{caller:?}");
    }
    let answer = ask_as(&node, Some(&token), "GET", "/v1/sse?device=42&topic=public:news", "").await;
    assert_eq!(answer.status, 200, "together with what only the token covers");
}

#[tokio::test]
async fn a_token_whose_claims_make_no_sense_is_refused_by_the_name_of_the_claim_on_every_way_in() {
    let keys = keys_file();
    let node = Node::start(&borrowed(&closed(&keys)));
    for (claims, name) in [
        (json!({"sub": "42", "whimbrel": {"subscribe": ["topic:news", "news"]}}), "subscribe"),
        (json!({"sub": "42", "whimbrel": {"publish": ["topic:a\r\nb*"]}}), "publish"),
        (json!({"sub": "42", "whimbrel": {"subscribe": ["topic:\u{2028}"]}}), "subscribe"),
        (json!({"sub": "42\0"}), "sub"),
        (json!({"sub": "42", "jti": "a\nb"}), "jti"),
        (json!({"sub": "42", "whimbrel": {"info": [1]}}), "info"),
    ] {
        let token = token(claims);
        for transport in [Transport::Sse, Transport::WebSocket] {
            let (_, detail) = Wanted::new(transport, &["device:42"]).bearer(&token).refused(&node).await.problem(401);
            assert!(
                detail.contains(&format!("its {name}")) && !detail.contains(char::is_control),
                "{name}: {detail:?}"
            );
        }
        let (_, detail) = ask_as(&node, Some(&token), "POST", "/v1/topics/news/events", "1").await.problem(401);
        assert!(detail.contains(&format!("its {name}")), "{name}: {detail}");
    }
    assert!(!node.log().contains("a\nb"), "{}", node.log());
}
