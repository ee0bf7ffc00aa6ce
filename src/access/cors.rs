//! Which pages a browser lets read an answer (CORS), and that no others may embed it.

use std::fmt::Write as _;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::origins::Caller;

/// Request headers that a page may set, besides those that any page may.
const REQUEST_HEADERS: &str =
    "Authorization, Cache-Control, Content-Type, Idempotency-Key, Last-Event-ID, traceparent, tracestate";

/// Answer headers that a page may read, besides those that any page may.
const ANSWER_HEADERS: &str = "Location, Retry-After, WWW-Authenticate";

/// For how many seconds a browser need not ask again; none keeps it for longer than a day.
const MAX_AGE: &str = "7200";

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// What is added to an answer for the page that asked.
#[derive(Debug, Clone)]
pub struct Cors {
    caller: Caller,
    /// The answer depends on the origin, so a cache has to keep one for each.
    varies: bool,
}

impl Cors {
    /// For answers that no page of another origin may read.
    pub const NOBODY: Cors = Cors { caller: Caller::Nobody, varies: false };

    /// For this caller; `varies` where other pages than the service's own may call at all.
    pub fn new(caller: Caller, varies: bool) -> Self {
        Cors { caller, varies }
    }

    /// Who asked.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The headers of every answer.
    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let fixed = HeaderValue::from_static;
        let policy = if self.origin().is_some() { "cross-origin" } else { "same-origin" };
        let mut headers = vec![(RESOURCE_POLICY, fixed(policy)), (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff"))];
        if self.varies {
            headers.push((header::VARY, fixed("Origin")));
        }
        if let Some(origin) = self.origin() {
            headers.push((header::ACCESS_CONTROL_ALLOW_ORIGIN, origin));
            headers.push((header::ACCESS_CONTROL_EXPOSE_HEADERS, fixed(ANSWER_HEADERS)));
        }
        if let Caller::Named(_) = self.caller {
            headers.push((header::ACCESS_CONTROL_ALLOW_CREDENTIALS, fixed("true")));
        }
        headers
    }

    /// The headers as lines of a head that is written by hand.
    pub fn lines(&self) -> String {
        let mut lines = String::new();
        for (name, value) in self.headers() {
            // An origin that is allowed is visible ASCII.
            let _ = write!(lines, "{name}: {}\r\n", value.to_str().unwrap_or_default());
        }
        lines
    }

    /// Adds them to an answer.
    pub fn add_to(&self, answer: &mut HeaderMap) {
        for (name, value) in self.headers() {
            if name == header::VARY {
                answer.append(name, value);
            } else {
                answer.insert(name, value);
            }
        }
    }

    /// What the answer to a preflight for this method says besides. Usually it names the methods of the path already.
    pub fn add_preflight_to(&self, answer: &mut HeaderMap, method: &HeaderValue) {
        if !self.is_for_pages() {
            return;
        }
        let methods = answer.get(header::ALLOW).unwrap_or(method).clone();
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(REQUEST_HEADERS));
        answer.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
    }

    /// Whether a page of another origin may read the answer.
    pub fn is_for_pages(&self) -> bool {
        self.origin().is_some()
    }

    /// The origin that may read the answer.
    fn origin(&self) -> Option<HeaderValue> {
        match &self.caller {
            Caller::Named(origin) => Some(origin.clone()),
            Caller::AnyPage => Some(HeaderValue::from_static("*")),
            Caller::Nobody | Caller::OwnPage => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(caller: Caller, varies: bool) -> String {
        Cors::new(caller, varies).lines()
    }

    #[test]
    fn a_named_origin_may_read_with_credentials_and_any_page_without() {
        let named = lines(Caller::Named(HeaderValue::from_static("https://app.example.com")), true);
        assert!(named.contains("access-control-allow-origin: https://app.example.com\r\n"), "{named}");
        assert!(named.contains("access-control-allow-credentials: true\r\n"), "{named}");
        assert!(named.contains("vary: Origin\r\n"), "{named}");
        assert!(named.contains("cross-origin-resource-policy: cross-origin\r\n"), "{named}");
        let any = lines(Caller::AnyPage, true);
        assert!(any.contains("access-control-allow-origin: *\r\n"), "{any}");
        assert!(!any.contains("credentials"), "{any}");
    }

    #[test]
    fn other_answers_forbid_other_pages_to_embed_them() {
        for caller in [Caller::Nobody, Caller::OwnPage] {
            let lines = lines(caller, false);
            assert_eq!(lines, "cross-origin-resource-policy: same-origin\r\nx-content-type-options: nosniff\r\n");
        }
    }

    #[test]
    fn a_preflight_gets_the_methods_of_the_path_or_the_one_that_it_asks_for() {
        let (cors, asked) = (Cors::new(Caller::AnyPage, true), HeaderValue::from_static("PUT"));
        let mut found = HeaderMap::from_iter([(header::ALLOW, HeaderValue::from_static("GET, POST"))]);
        cors.add_preflight_to(&mut found, &asked);
        assert_eq!(found["access-control-allow-methods"], "GET, POST");
        assert!(found["access-control-allow-headers"].to_str().unwrap().contains("Last-Event-ID"));
        assert_eq!(found["access-control-max-age"], "7200");
        let mut missing = HeaderMap::new();
        cors.add_preflight_to(&mut missing, &asked);
        assert_eq!(missing["access-control-allow-methods"], "PUT");
        let mut nobody = HeaderMap::new();
        Cors::NOBODY.add_preflight_to(&mut nobody, &asked);
        assert!(nobody.is_empty());
    }
}
