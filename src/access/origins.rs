//! Which web pages may use the service through somebody's browser.
//!
//! A browser names the page behind a request in `Origin`. Where it leaves that out (an iframe, an image, a link), it
//! still says in `Sec-Fetch-Site` whether the page is of another site. A page's own code can set neither. Programs
//! send neither, and are not restricted here.

use std::str::FromStr;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::host::Host;

/// Most origins in the setting.
const MOST_RULES: usize = 256;

/// Longest origin that is looked at: a scheme, a DNS name and a port are shorter.
const LONGEST: usize = 300;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// The origins that may use the service besides its own pages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    rules: Vec<Rule>,
    /// Every page may, but without cookies.
    any: bool,
    /// Every page that is served by this machine may.
    loopback: bool,
}

/// One origin, or all below a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    Exact(String),
    /// `before` up to and with `://`, and `after` from the dot in front of the domain.
    Below {
        before: String,
        after: String,
    },
}

impl Rule {
    fn allows(&self, origin: &str) -> bool {
        match self {
            Rule::Exact(exact) => exact.eq_ignore_ascii_case(origin),
            Rule::Below { before, after } => {
                let length = before.len() + after.len();
                origin.is_ascii()
                    && origin.len() > length
                    && origin[..before.len()].eq_ignore_ascii_case(before)
                    && origin[origin.len() - after.len()..].eq_ignore_ascii_case(after)
                    && is_subdomain(&origin[before.len()..origin.len() - after.len()])
            }
        }
    }
}

/// Whether it can stand for the `*` of a rule: it must not bring in a port, user or path of its own.
fn is_subdomain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Who sent a request, as far as its browser says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// No page: a program, or a person who typed the address.
    Nobody,
    /// A page of this service.
    OwnPage,
    /// A page of an origin that is allowed by name.
    Named(HeaderValue),
    /// Some page, where all are allowed.
    AnyPage,
}

impl Caller {
    /// Whether a cookie of this request was sent by the will of a page that may act for its user.
    pub fn may_use_cookies(&self) -> bool {
        !matches!(self, Caller::AnyPage)
    }
}

/// A page that may not use the service, as it was named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForeignPage {
    /// By its origin.
    #[error("a page of origin '{0}' may not use this service; WHIMBREL_ORIGINS says which origins may")]
    Origin(String),
    /// By its distance: the browser did not say which one it is.
    #[error(
        "a page of another site made this request (Sec-Fetch-Site: {0}), and its browser did not say which; \
         WHIMBREL_ORIGINS says which origins may use this service, by requests that name theirs"
    )]
    Site(String),
}

/// What a request is for, as far as that decides who may send it.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Its host, if it names one.
    pub host: Option<Host<'a>>,
    /// It came over TLS that this node speaks.
    pub secure: bool,
    /// A page of any site may lead a person there by a link.
    pub is_page: bool,
}

impl Origins {
    /// The same, and every origin of this machine.
    pub fn with_loopback(mut self) -> Self {
        self.loopback = true;
        self
    }

    /// Whether some page besides the service's own may use it.
    pub fn allow_some(&self) -> bool {
        self.any || self.loopback || !self.rules.is_empty()
    }

    /// Who sent the request, unless it is a page that may not.
    pub fn admit(&self, headers: &HeaderMap, target: Target<'_>) -> Result<Caller, ForeignPage> {
        let mut given = headers.get_all(header::ORIGIN).iter();
        match (given.next(), given.next()) {
            (None, _) => self.admit_unnamed(headers, target),
            (Some(origin), None) => self.admit_origin(origin, headers, target),
            (Some(_), Some(_)) => Err(ForeignPage::Origin("several at once".into())),
        }
    }

    fn admit_origin(
        &self,
        origin: &HeaderValue,
        headers: &HeaderMap,
        target: Target<'_>,
    ) -> Result<Caller, ForeignPage> {
        // A header that is not text is foreign for certain.
        let text = origin.to_str().ok().filter(|text| text.len() <= LONGEST).unwrap_or("?");
        let page = Page::parse(text);
        if self.rules.iter().any(|rule| rule.allows(text)) || (self.loopback && page.is_some_and(Page::is_loopback)) {
            return Ok(Caller::Named(origin.clone()));
        }
        if page.is_some_and(|page| page.is_of(target)) && !is_of_other_site(headers) {
            return Ok(Caller::OwnPage);
        }
        if self.any {
            return Ok(Caller::AnyPage);
        }
        Err(ForeignPage::Origin(text.chars().take(100).collect()))
    }

    /// Without `Origin`, all that can be known is how far away the page is.
    fn admit_unnamed(&self, headers: &HeaderMap, target: Target<'_>) -> Result<Caller, ForeignPage> {
        let Some(site) = headers.get(SEC_FETCH_SITE) else { return Ok(Caller::Nobody) };
        let site = site.to_str().unwrap_or("?");
        match site {
            "none" => Ok(Caller::Nobody),
            "same-origin" => Ok(Caller::OwnPage),
            _ if target.is_page && is_navigation(headers) => Ok(Caller::Nobody),
            // The same site is the same host, at whichever port.
            "same-site" if self.loopback && target.host.is_some_and(|host| host.is_loopback()) => Ok(Caller::AnyPage),
            _ if self.any => Ok(Caller::AnyPage),
            _ => Err(ForeignPage::Site(site.chars().take(20).collect())),
        }
    }
}

/// Whether the browser says that a page of another origin sent this, although it names the node's own. It does after
/// a redirect, and where the page came without TLS and the node is reached with it. A WebSocket's first request says
/// it too in some browsers, for want of a scheme in common.
fn is_of_other_site(headers: &HeaderMap) -> bool {
    !headers.contains_key(header::UPGRADE)
        && headers.get(SEC_FETCH_SITE).is_some_and(|site| site == "cross-site" || site == "same-site")
}

/// Whether the person goes there, and no page does without them.
fn is_navigation(headers: &HeaderMap) -> bool {
    let is = |name, value: &str| headers.get(name).is_some_and(|given| given == value);
    is(SEC_FETCH_MODE, "navigate") && is(SEC_FETCH_DEST, "document")
}

/// A web page's origin.
#[derive(Debug, Clone, Copy)]
struct Page<'a> {
    secure: bool,
    host: Host<'a>,
}

impl<'a> Page<'a> {
    fn parse(origin: &'a str) -> Option<Self> {
        let (scheme, host) = origin.split_once("://")?;
        let secure = match scheme {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        Host::parse(host).ok().map(|host| Page { secure, host })
    }

    fn is_loopback(self) -> bool {
        let name = self.host.name;
        let is_below = name.len() > ".localhost".len()
            && name.is_ascii()
            && name[name.len() - ".localhost".len()..].eq_ignore_ascii_case(".localhost");
        self.host.is_loopback() || is_below
    }

    /// Whether the page is of the service itself. Where a proxy may speak TLS in front of the node, the page's scheme
    /// says nothing.
    fn is_of(self, target: Target<'_>) -> bool {
        let default = if self.secure { 443 } else { 80 };
        (self.secure || !target.secure) && target.host.is_some_and(|host| host.is_same(self.host, default))
    }
}

impl FromStr for Origins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut origins = Origins::default();
        for word in text.split_whitespace() {
            match word {
                "*" => origins.any = true,
                word => origins.rules.push(rule(word).map_err(|reason| format!("'{}' {reason}", shown(word)))?),
            }
        }
        match origins.rules.len() {
            0..=MOST_RULES => Ok(origins),
            count => Err(format!("names {count} origins; allowed are at most {MOST_RULES}")),
        }
    }
}

fn shown(word: &str) -> String {
    word.chars().take(100).collect::<String>().escape_debug().to_string()
}

const FORM: &str = "is not an origin such as https://app.example.com or https://*.example.com, nor *";

fn rule(word: &str) -> Result<Rule, String> {
    if word == "null" {
        return Err("is the origin of every sandboxed page and every file, so it names nobody; \
                    * allows it, without cookies"
            .into());
    }
    let (scheme, host) = word.split_once("://").ok_or(FORM)?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte));
    if !is_scheme || word.len() > LONGEST {
        return Err(FORM.into());
    }
    if host.contains('/') {
        return Err("has a path; an origin is only SCHEME://HOST, perhaps with :PORT".into());
    }
    let default = match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    };
    let below = host.strip_prefix("*.");
    let parsed = Host::parse(below.unwrap_or(host)).map_err(|_| FORM)?;
    if parsed.port.is_some() && parsed.port == default {
        return Err(format!("names the default port of {scheme}, which browsers leave out; leave it out too"));
    }
    match below {
        None => Ok(Rule::Exact(word.to_owned())),
        Some(domain) if parsed.name.contains('.') || parsed.name == "localhost" => {
            Ok(Rule::Below { before: format!("{scheme}://"), after: format!(".{domain}") })
        }
        Some(_) => Err("would allow a whole top-level domain; name at least https://*.example.com".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(rules: &str, host: &str, secure: bool, headers: &[(&'static str, &str)]) -> Option<Caller> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let target = Target { host: Some(Host::parse(host).unwrap()), secure, is_page: false };
        let origins = match rules {
            "dev" => Origins::default().with_loopback(),
            rules => rules.parse().unwrap(),
        };
        origins.admit(&map, target).ok()
    }

    fn by_origin(rules: &str, host: &str, origin: &str) -> Option<Caller> {
        admitted(rules, host, false, &[("origin", origin)])
    }

    #[test]
    fn without_a_rule_only_the_nodes_own_pages_may() {
        for (host, origin) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("localhost:8080", "http://LOCALHOST:8080"),
            ("push.example", "https://push.example"),
            ("push.example:443", "https://push.example"),
            ("push.example", "http://push.example:80"),
            ("[::1]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(by_origin("", host, origin), Some(Caller::OwnPage), "{host} {origin}");
        }
        for (host, origin) in [
            ("127.0.0.1:8080", "http://127.0.0.1:3000"),
            ("127.0.0.1:8080", "http://localhost:8080"),
            ("localhost:8080", "http://localhost"),
            ("push.example", "https://push.example.evil.example"),
            ("push.example", "https://evil.example"),
            ("push.example", "null"),
            ("push.example", ""),
            ("push.example", "push.example"),
            ("push.example", "ftp://push.example"),
            ("push.example", "https://user@push.example"),
            ("push.example", "https://push.example/"),
        ] {
            assert_eq!(by_origin("", host, origin), None, "{host} {origin}");
        }
    }

    #[test]
    fn a_page_that_came_without_tls_is_not_the_own_one_of_a_node_that_speaks_it() {
        let own = |origin| admitted("", "push.example", true, &[("origin", origin)]);
        assert_eq!(own("https://push.example"), Some(Caller::OwnPage));
        assert_eq!(own("http://push.example"), None);
    }

    #[test]
    fn rules_name_origins_exactly_or_all_below_a_domain() {
        let rules = "https://app.example.com https://*.example.org http://localhost:3000 https://*.example.net:8443";
        let allowed = |origin| matches!(by_origin(rules, "push.example", origin), Some(Caller::Named(_)));
        for origin in [
            "https://app.example.com",
            "https://a.example.org",
            "https://a.b.example.org",
            "http://localhost:3000",
            "https://x.example.net:8443",
        ] {
            assert!(allowed(origin), "{origin}");
        }
        for origin in [
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://xapp.example.com",
            "https://example.org",
            "https://.example.org",
            "https://evilexample.org",
            "http://a.example.org",
            "https://a.example.org:444",
            "https://evil.example/.example.org",
            "https://evil.example:1.example.org",
            "https://user@a.example.org",
            "http://localhost:3001",
            "https://x.example.net",
            "null",
        ] {
            assert!(!allowed(origin), "{origin}");
        }
    }

    #[test]
    fn a_star_allows_all_without_cookies_and_named_ones_with() {
        let rules = "* https://app.example.com";
        assert_eq!(by_origin(rules, "push.example", "https://any.example"), Some(Caller::AnyPage));
        assert_eq!(by_origin(rules, "push.example", "null"), Some(Caller::AnyPage));
        assert!(!Caller::AnyPage.may_use_cookies());
        let named = by_origin(rules, "push.example", "https://app.example.com").unwrap();
        assert!(matches!(named, Caller::Named(_)) && named.may_use_cookies());
    }

    #[test]
    fn a_development_node_takes_every_page_of_this_machine() {
        for origin in ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:5173", "http://app.localhost:1234"] {
            assert!(matches!(by_origin("dev", "127.0.0.1:8080", origin), Some(Caller::Named(_))), "{origin}");
        }
        for origin in ["http://evil.example", "http://localhost.evil.example", "http://10.0.0.1:3000", "null"] {
            assert_eq!(by_origin("dev", "127.0.0.1:8080", origin), None, "{origin}");
        }
    }

    #[test]
    fn a_request_without_an_origin_must_not_come_from_another_site() {
        let by_site = |rules, site: &str| admitted(rules, "localhost:8080", false, &[("sec-fetch-site", site)]);
        assert_eq!(admitted("", "localhost:8080", false, &[]), Some(Caller::Nobody));
        assert_eq!(by_site("", "none"), Some(Caller::Nobody));
        assert_eq!(by_site("", "same-origin"), Some(Caller::OwnPage));
        for site in ["cross-site", "same-site", "", "new-value"] {
            assert_eq!(by_site("", site), None, "{site}");
            assert_eq!(by_site("https://app.example.com", site), None, "{site}");
            assert_eq!(by_site("*", site), Some(Caller::AnyPage), "{site}");
        }
        assert_eq!(by_site("dev", "same-site"), Some(Caller::AnyPage));
        assert_eq!(by_site("dev", "cross-site"), None);
    }

    #[test]
    fn the_own_origin_from_another_site_is_foreign() {
        let own = ("origin", "http://localhost:8080");
        let of = |headers: &[(&'static str, &str)]| admitted("", "localhost:8080", false, headers);
        assert_eq!(of(&[own, ("sec-fetch-site", "same-origin")]), Some(Caller::OwnPage));
        assert_eq!(of(&[own, ("sec-fetch-site", "cross-site")]), None);
        assert_eq!(of(&[own, ("sec-fetch-site", "cross-site"), ("upgrade", "websocket")]), Some(Caller::OwnPage));
        assert_eq!(of(&[own, own]), None);
    }

    #[test]
    fn a_link_may_lead_a_person_to_the_page_and_nowhere_else() {
        let go = |is_page, mode: &'static str, dest: &'static str| {
            let headers = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)];
            let map = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
            let target = Target { host: None, secure: false, is_page };
            Origins::default().admit(&map.collect(), target).is_ok()
        };
        assert!(go(true, "navigate", "document"));
        assert!(!go(false, "navigate", "document"));
        assert!(!go(true, "navigate", "iframe"));
        assert!(!go(true, "no-cors", "script"));
    }

    #[test]
    fn what_names_no_origin_is_refused_with_the_reason() {
        for (text, words) in [
            ("app.example.com", "is not an origin"),
            ("https://app.example.com/", "has a path"),
            ("https://*.com", "top-level"),
            ("https://*", "is not an origin"),
            ("https://a.*.example.com", "is not an origin"),
            ("https://app.example.com:443", "default port"),
            ("null", "sandboxed"),
            ("https://", "is not an origin"),
            ("HTTPS://app.example.com", "is not an origin"),
        ] {
            let reason = text.parse::<Origins>().unwrap_err();
            assert!(reason.contains(words), "{text}: {reason}");
        }
        assert!("capacitor://localhost chrome-extension://abcdefgh".parse::<Origins>().is_ok());
        assert_eq!("".parse::<Origins>(), Ok(Origins::default()));
    }
}
