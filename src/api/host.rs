//! While access is open, no website may use the service through somebody's browser.
//!
//! A page of another origin names itself in `Origin`; a page that had its own name point to this machine
//! (DNS rebinding) names that in `Host`.

use std::net::IpAddr;

use hyper::{HeaderMap, Uri, header};

use super::Problem;
use crate::transport::Reach;

/// Refuses requests with a foreign `Origin` or, on a loopback address, a foreign `Host`.
pub fn check(headers: &HeaderMap, reach: Reach) -> Result<(), Problem> {
    let host = text(headers, header::HOST);
    if reach == Reach::Loopback
        && let Some(host) = host
        && !is_loopback(host)
    {
        return Err(Problem::forbidden(format!(
            "the request is for host '{}', but access is open and limited to localhost",
            shown(host)
        )));
    }
    let Some(origin) = text(headers, header::ORIGIN) else { return Ok(()) };
    let authority = origin.parse::<Uri>().ok().and_then(|uri| uri.authority().map(|a| a.as_str().to_owned()));
    let same = authority.as_deref().is_some_and(|authority| Some(authority) == host || is_loopback(authority));
    if same {
        Ok(())
    } else {
        Err(Problem::forbidden(format!(
            "a page of origin '{}' may not use this service: access is open, so only its own pages may",
            shown(origin)
        )))
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    // A header that is not text is foreign for certain.
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

/// Whether `authority` (a name or address, perhaps with a port) is this machine itself.
fn is_loopback(authority: &str) -> bool {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => authority,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(host: &str, origin: Option<&str>, reach: Reach) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        check(&headers, reach).is_ok()
    }

    #[test]
    fn open_access_on_loopback_is_for_this_machine_only() {
        for host in ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST"] {
            assert!(checked(host, None, Reach::Loopback), "{host}");
        }
        for host in ["evil.example", "evil.example:8080", "localhost.evil.example", "10.0.0.1:8080"] {
            assert!(!checked(host, None, Reach::Loopback), "{host}");
        }
    }

    #[test]
    fn no_page_of_another_origin_may_use_it() {
        assert!(checked("127.0.0.1:8080", Some("http://127.0.0.1:8080"), Reach::Loopback));
        assert!(checked("push.example", Some("https://push.example"), Reach::Network));
        for origin in ["https://evil.example", "null", "http://localhost.evil.example", ""] {
            assert!(!checked("127.0.0.1:8080", Some(origin), Reach::Loopback), "{origin}");
            assert!(!checked("push.example", Some(origin), Reach::Network), "{origin}");
        }
    }
}
