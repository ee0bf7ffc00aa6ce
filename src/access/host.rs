//! The host that a request is for: what the client typed, or what a page made its browser ask.

use std::net::IpAddr;

use hyper::{HeaderMap, Uri, Version, header};

/// Longest host that is looked at: a DNS name has at most 253 characters, and a port five.
const LONGEST: usize = 260;

/// Why a request names no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// HTTP/1.1 requires one.
    #[error("the Host header is missing")]
    Missing,
    /// Which of them is meant would be a guess, and a proxy in front may have guessed otherwise.
    #[error("the request names more than one host")]
    Several,
    /// Neither a name nor an address.
    #[error("the host is not a name or an address, perhaps with a port")]
    Malformed,
}

/// A host with its port, as a request names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host<'a> {
    /// A name or an address; an IPv6 address in brackets.
    pub name: &'a str,
    /// `None` for the default one.
    pub port: Option<u16>,
}

impl<'a> Host<'a> {
    /// Reads `NAME`, `NAME:PORT`, `[V6]` or `[V6]:PORT`.
    pub fn parse(text: &'a str) -> Result<Self, HostError> {
        if text.is_empty() || text.len() > LONGEST {
            return Err(HostError::Malformed);
        }
        let (name, port) = match text.rsplit_once(':') {
            // The colons of an IPv6 address stand inside its brackets.
            Some((name, port)) if !port.contains(']') => (name, Some(port)),
            _ => (text, None),
        };
        let port = match port {
            None | Some("") => None,
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(port.parse().map_err(|_| HostError::Malformed)?)
            }
            Some(_) => return Err(HostError::Malformed),
        };
        let is_sound = match name.strip_prefix('[').map(|inner| inner.strip_suffix(']')) {
            Some(inner) => inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok()),
            None => !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)),
        };
        if is_sound { Ok(Host { name, port }) } else { Err(HostError::Malformed) }
    }

    /// The host that a request is for; `None` when it may leave that out and does.
    pub fn of(uri: &'a Uri, version: Version, headers: &'a HeaderMap) -> Result<Option<Self>, HostError> {
        let mut given = headers.get_all(header::HOST).iter();
        let header = match (given.next(), given.next()) {
            (None, _) => None,
            (Some(only), None) => Some(Host::parse(only.to_str().map_err(|_| HostError::Malformed)?)?),
            (Some(_), Some(_)) => return Err(HostError::Several),
        };
        // In the request line of a client that takes the node for a proxy, or what HTTP/2 has instead of the header.
        let target = uri.authority().map(|authority| Host::parse(authority.as_str())).transpose()?;
        match (target, header) {
            (Some(target), Some(header)) if !target.is_same(header, default_port(uri)) => Err(HostError::Several),
            (None, None) if version == Version::HTTP_11 => Err(HostError::Missing),
            (target, header) => Ok(target.or(header)),
        }
    }

    /// Whether it is this machine itself, whoever asks.
    pub fn is_loopback(&self) -> bool {
        let name = self.name.trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost")
            || name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
    }

    /// Whether it is the same as `other`, where a port that is left out is `default`.
    pub fn is_same(self, other: Host<'_>, default: u16) -> bool {
        self.name.eq_ignore_ascii_case(other.name) && self.port.unwrap_or(default) == other.port.unwrap_or(default)
    }
}

fn default_port(uri: &Uri) -> u16 {
    if uri.scheme_str() == Some("https") { 443 } else { 80 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(target: &str, version: Version, headers: &[&str]) -> Result<Option<String>, HostError> {
        let mut map = HeaderMap::new();
        for value in headers {
            map.append(header::HOST, value.parse().unwrap());
        }
        let uri: Uri = target.parse().unwrap();
        Host::of(&uri, version, &map).map(|host| host.map(|host| host.name.to_owned()))
    }

    #[test]
    fn a_request_names_one_host() {
        assert_eq!(host("/", Version::HTTP_11, &["a.example:80"]), Ok(Some("a.example".into())));
        assert_eq!(host("http://a.example/", Version::HTTP_11, &["A.example"]), Ok(Some("a.example".into())));
        assert_eq!(host("https://a.example/", Version::HTTP_2, &[]), Ok(Some("a.example".into())));
        assert_eq!(host("/", Version::HTTP_10, &[]), Ok(None));
        assert_eq!(host("/", Version::HTTP_11, &[]), Err(HostError::Missing));
        assert_eq!(host("/", Version::HTTP_11, &["localhost", "localhost"]), Err(HostError::Several));
        assert_eq!(host("http://localhost/", Version::HTTP_11, &["evil.example"]), Err(HostError::Several));
        assert_eq!(host("https://localhost/", Version::HTTP_2, &["evil.example"]), Err(HostError::Several));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            "a b",
            "a,b",
            "user@localhost",
            "localhost:80:80",
            "[::1",
            "::1",
            "[localhost]",
            "a/b",
            "localhost:x",
            "a:99999",
            "\u{e4}",
        ] {
            assert_eq!(Host::parse(text), Err(HostError::Malformed), "{text}");
        }
        for text in ["localhost", "localhost:", "127.0.0.1:8080", "[::1]:80", "[::1]", "my_service.ns.svc:1"] {
            assert!(Host::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        let is_loopback = |text| Host::parse(text).unwrap().is_loopback();
        for text in ["localhost", "LOCALHOST:1", "127.0.0.1", "127.9.9.9:8080", "[::1]:80", "[::ffff:127.0.0.1]"] {
            assert!(is_loopback(text), "{text}");
        }
        for text in ["localhost.evil.example", "127.0.0.1.evil.example", "0.0.0.0", "10.0.0.1", "2130706433", "127.1"] {
            assert!(!is_loopback(text), "{text}");
        }
    }
}
