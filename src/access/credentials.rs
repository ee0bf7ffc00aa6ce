//! Where a request carries its token or key.

use std::fmt;

use hyper::{HeaderMap, header};

/// The cookie that may hold a token.
const COOKIE: &str = "whimbrel_token";

/// What a WebSocket subprotocol begins with that is a token.
const SUBPROTOCOL: &str = "whimbrel.token.";

/// The query parameter that may hold one.
pub const PARAMETER: &str = "token";

/// A token or key, as it was brought. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The token or key itself.
    pub text: String,
    /// How it was brought.
    pub way: Way,
}

/// How a token can be brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `Authorization: Bearer`.
    Header,
    /// The parameter `token`.
    Parameter,
    /// The WebSocket subprotocol `whimbrel.token.JWT`.
    Subprotocol,
    /// The cookie `whimbrel_token`: browsers add it to requests of whatever page.
    Cookie,
}

/// Why it is not known which token is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// There are several.
    #[error("several different tokens were brought in {0}")]
    Several(&'static str),
    /// It is no text.
    #[error("the Authorization header is not text")]
    Text,
    /// Nothing says what it is.
    #[error("the Authorization header is not of the form 'Bearer TOKEN', with a token or an API key")]
    Bare,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "*** in {:?}", self.way)
    }
}

impl Credential {
    /// Whether the browser brought it by itself.
    pub fn is_cookie(&self) -> bool {
        self.way == Way::Cookie
    }

    /// The one that a request carries. What was put there on purpose goes before a cookie, which comes by itself.
    pub fn of(headers: &HeaderMap, query: &str) -> Result<Option<Self>, CredentialError> {
        let parameters = form_urlencoded::parse(query.as_bytes())
            .filter(|(name, _)| name == PARAMETER)
            .map(|(_, value)| value.into_owned());
        let ways = [
            (only("the Authorization header", bearers(headers)?.into_iter())?, Way::Header),
            (only("the parameter 'token'", parameters)?, Way::Parameter),
            (only("the subprotocol", subprotocols(headers).map(str::to_owned))?, Way::Subprotocol),
            (only("the cookie", cookies(headers).map(str::to_owned))?, Way::Cookie),
        ];
        let brought = ways.into_iter().find_map(|(text, way)| text.map(|text| Credential { text, way }));
        match brought {
            None if has_bare_word(headers) => Err(CredentialError::Bare),
            brought => Ok(brought),
        }
    }
}

/// Whether a token stands in the header without a scheme in front, or a scheme without a token.
fn has_bare_word(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| value.to_str().ok()).map(str::trim);
    let mut words = values.filter(|value| !value.is_empty());
    words.any(|value| !value.contains(' '))
}

fn only(place: &'static str, mut given: impl Iterator<Item = String>) -> Result<Option<String>, CredentialError> {
    let first = given.next();
    match given.all(|other| Some(&other) == first.as_ref()) {
        true => Ok(first),
        false => Err(CredentialError::Several(place)),
    }
}

/// Other schemes are somebody else's, such as those of a proxy in front.
fn bearers(headers: &HeaderMap) -> Result<Vec<String>, CredentialError> {
    let mut bearers = Vec::new();
    for value in headers.get_all(header::AUTHORIZATION) {
        let (scheme, rest) =
            value.to_str().map_err(|_| CredentialError::Text)?.trim().split_once(' ').unwrap_or_default();
        if scheme.eq_ignore_ascii_case("bearer") {
            bearers.push(rest.trim().to_owned());
        }
    }
    Ok(bearers)
}

fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    parts(headers, header::SEC_WEBSOCKET_PROTOCOL, ',').filter_map(|protocol| protocol.strip_prefix(SUBPROTOCOL))
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    parts(headers, header::COOKIE, ';').filter_map(|cookie| {
        let (name, value) = cookie.split_once('=')?;
        (name == COOKIE).then(|| value.trim_matches('"'))
    })
}

fn parts(headers: &HeaderMap, name: header::HeaderName, separator: char) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(move |value| value.split(separator)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(headers: &[(header::HeaderName, &str)], query: &str) -> Result<Option<(String, Way)>, CredentialError> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
        let found = Credential::of(&headers.collect(), query)?;
        Ok(found.map(|credential| (credential.text, credential.way)))
    }

    const COOKIE_OF_SHOP: (header::HeaderName, &str) = (header::COOKIE, "a=b; whimbrel_token=c.d.e; x=y");

    #[test]
    fn a_token_is_found_in_each_of_four_ways_and_the_cookie_is_the_last() {
        assert_eq!(found(&[], "topic=a"), Ok(None));
        assert_eq!(found(&[COOKIE_OF_SHOP], ""), Ok(Some(("c.d.e".into(), Way::Cookie))));
        let protocol = (header::SEC_WEBSOCKET_PROTOCOL, "whimbrel.v1, whimbrel.token.f.g.h");
        assert_eq!(found(&[COOKIE_OF_SHOP, protocol.clone()], ""), Ok(Some(("f.g.h".into(), Way::Subprotocol))));
        let protocols = [protocol.clone()];
        assert_eq!(found(&protocols, "token=i.j%2Ek"), Ok(Some(("i.j.k".into(), Way::Parameter))));
        let bearer = (header::AUTHORIZATION, "bearer  l.m.n ");
        assert_eq!(found(&[protocol, bearer], "token=i.j.k"), Ok(Some(("l.m.n".into(), Way::Header))));
    }

    #[test]
    fn two_different_tokens_in_one_place_are_none() {
        assert_eq!(found(&[], "token=a&token=b"), Err(CredentialError::Several("the parameter 'token'")));
        assert_eq!(found(&[], "token=a&token=a"), Ok(Some(("a".into(), Way::Parameter))));
        let tossed = (header::COOKIE, "whimbrel_token=evil");
        assert_eq!(found(&[COOKIE_OF_SHOP, tossed], ""), Err(CredentialError::Several("the cookie")));
    }

    #[test]
    fn another_scheme_is_no_token_of_ours() {
        assert_eq!(found(&[(header::AUTHORIZATION, "Basic YTpi")], ""), Ok(None));
    }

    #[test]
    fn a_token_without_its_scheme_is_no_missing_token() {
        for bare in ["l.m.n", "Bearer", " k-0123 "] {
            let bare = (header::AUTHORIZATION, bare);
            assert_eq!(found(std::slice::from_ref(&bare), ""), Err(CredentialError::Bare), "{bare:?}");
            assert_eq!(found(&[bare, COOKIE_OF_SHOP], ""), Ok(Some(("c.d.e".into(), Way::Cookie))));
        }
        assert_eq!(found(&[(header::AUTHORIZATION, "")], ""), Ok(None));
    }
}
