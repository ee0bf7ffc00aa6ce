//! What a backend is asked.

use std::net::IpAddr;

use hyper::header::{AUTHORIZATION, COOKIE, HeaderName, HeaderValue};
use hyper::{HeaderMap, header};
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use serde::Serialize;
use uuid::Uuid;

use crate::access::Credential;
use crate::model::StreamName;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What a client wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// To listen.
    Connect,
    /// To follow one more stream, over WebSocket.
    Subscribe,
    /// To publish, over WebSocket.
    Publish,
}

/// A client, as the backend knows it: by what its browser sends. Never shown.
#[derive(Clone)]
pub struct Visitor {
    headers: HeaderMap,
    address: Option<IpAddr>,
}

impl Visitor {
    /// Whoever sent a request. `with_cookies`: the page behind it may use the browser's cookies.
    pub fn of(headers: &HeaderMap, query: &str, address: Option<IpAddr>, with_cookies: bool) -> Self {
        let mut passed = HeaderMap::new();
        for name in [COOKIE, AUTHORIZATION, FORWARDED_FOR] {
            let values = headers.get_all(&name).into_iter().filter(|_| with_cookies || name != COOKIE);
            for value in values {
                passed.append(name.clone(), value.clone());
            }
        }
        // Where a browser can't set headers, what is the application's own comes in another way.
        if !passed.contains_key(AUTHORIZATION)
            && let Ok(Some(credential)) = Credential::of(headers, query)
            && !credential.is_cookie()
            && let Ok(mut bearer) = HeaderValue::try_from(format!("Bearer {}", credential.text))
        {
            bearer.set_sensitive(true);
            passed.insert(header::AUTHORIZATION, bearer);
        }
        Visitor { headers: passed, address }
    }

    /// What is passed on.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}

/// Whether a client may do something.
pub struct Question<'a> {
    /// What it wants to do.
    pub action: Action,
    /// Who it is.
    pub visitor: &'a Visitor,
    /// The device that it says it is, or is connected as.
    pub device: Option<&'a StreamName>,
    /// Which streams it is about.
    pub streams: &'a [StreamName],
    /// The connection's id.
    pub connection: Uuid,
}

#[derive(Serialize)]
struct Body<'a> {
    action: Action,
    device: Option<&'a str>,
    streams: &'a [StreamName],
    connection: Uuid,
    address: Option<IpAddr>,
}

impl Question<'_> {
    /// What goes out.
    pub fn body(&self) -> Vec<u8> {
        let device = self.device.and_then(StreamName::device);
        let address = self.visitor.address;
        let body = Body { action: self.action, device, streams: self.streams, connection: self.connection, address };
        serde_json::to_vec(&body).expect("a question holds only strings")
    }

    /// Equal questions have equal keys, whichever connection they are about. Holds nothing that could be read.
    pub fn key(&self) -> [u8; SHA256_OUTPUT_LEN] {
        let mut context = Context::new(&SHA256);
        // Each part with its length, so that none can pass for another.
        let mut add = |part: &[u8]| {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        };
        add(&[self.action as u8]);
        add(self.device.map_or("", StreamName::name).as_bytes());
        add(self.visitor.address.map_or_else(String::new, |address| address.to_string()).as_bytes());
        add(&self.streams.len().to_be_bytes());
        for stream in self.streams {
            add(stream.to_string().as_bytes());
        }
        for name in [COOKIE, AUTHORIZATION, FORWARDED_FOR] {
            let values = self.visitor.headers.get_all(&name);
            add(&values.iter().count().to_be_bytes());
            for value in values {
                add(value.as_bytes());
            }
        }
        context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visitor(headers: &[(HeaderName, &str)], query: &str, with_cookies: bool) -> Visitor {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        Visitor::of(&headers, query, Some([192, 0, 2, 1].into()), with_cookies)
    }

    fn asked<'a>(visitor: &'a Visitor, streams: &'a [StreamName]) -> Question<'a> {
        Question { action: Action::Connect, visitor, device: streams.first(), streams, connection: Uuid::new_v4() }
    }

    #[test]
    fn a_question_has_what_the_contract_says() {
        let streams = ["device:42".parse().unwrap(), "topic:news".parse().unwrap()];
        let visitor = visitor(&[], "", true);
        let question = asked(&visitor, &streams);
        let expected = serde_json::json!({"action": "connect", "device": "42", "streams": ["device:42", "topic:news"],
            "connection": question.connection, "address": "192.0.2.1"});
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&question.body()).unwrap(), expected);
    }

    #[test]
    fn a_cookie_is_passed_on_only_for_pages_that_may_use_it() {
        let cookie = (COOKIE, "session=1");
        assert_eq!(visitor(std::slice::from_ref(&cookie), "", true).headers()[COOKIE], "session=1");
        assert!(!visitor(&[cookie, (header::ACCEPT, "x")], "", false).headers().contains_key(COOKIE));
        assert_eq!(visitor(&[], "token=opaque", false).headers()[AUTHORIZATION], "Bearer opaque");
        let basic = (AUTHORIZATION, "Basic YTpi");
        assert_eq!(visitor(&[basic], "token=opaque", true).headers()[AUTHORIZATION], "Basic YTpi");
        assert!(visitor(&[(COOKIE, "whimbrel_token=t")], "", false).headers().is_empty());
    }

    #[test]
    fn questions_are_equal_when_all_but_the_connection_is() {
        let streams: [StreamName; 2] = ["device:42".parse().unwrap(), "topic:news".parse().unwrap()];
        let one = visitor(&[(COOKIE, "session=1")], "", true);
        let other = visitor(&[(COOKIE, "session=2")], "", true);
        let moved = visitor(&[(AUTHORIZATION, "session=1")], "", true);
        let key = asked(&one, &streams).key();
        assert_eq!(asked(&one, &streams).key(), key);
        for differing in [
            asked(&other, &streams),
            asked(&moved, &streams),
            asked(&one, &streams[..1]),
            Question { action: Action::Publish, ..asked(&one, &streams) },
            Question { device: None, ..asked(&one, &streams) },
        ] {
            assert_ne!(differing.key(), key);
        }
    }
}
