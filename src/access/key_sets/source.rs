//! Where key sets are.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use reqwest::Url;

/// Most sets of a node.
const MOST_SETS: usize = 16;

/// Where one set is, and of which issuer the tokens have to be that its keys verify.
#[derive(Clone, PartialEq, Eq)]
pub struct KeySource {
    /// Its tokens' `iss`; any that the settings allow when not given.
    pub issuer: Option<String>,
    /// Where it is.
    pub location: Location,
}

/// Where a set is.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// On the web.
    Web(Url),
    /// On this machine.
    File(PathBuf),
}

/// Where all sets of a node are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySources(Vec<KeySource>);

/// Why a text names no key sets. It does not repeat the text, as a URL may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySourcesError {
    /// There is none.
    #[error("names no key set")]
    None,
    /// There are too many.
    #[error("names more than {MOST_SETS} key sets")]
    Many,
    /// One is no URL.
    #[error("has an entry that is not URL or ISSUER=URL, such as https://login.example.com/jwks.json")]
    Form,
    /// One is not protected on its way.
    #[error(
        "has a URL that is neither https:// nor file:///PATH; http:// is for a server on this machine alone, as \
         whoever can change the keys on their way gets in"
    )]
    Scheme,
}

impl KeySources {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &KeySource> {
        self.0.iter()
    }
}

impl FromStr for KeySources {
    type Err = KeySourcesError;

    /// Reads `URL` and `ISSUER=URL` with white space between them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let sources = text.split_whitespace().map(str::parse).collect::<Result<Vec<KeySource>, _>>()?;
        match sources.len() {
            0 => Err(KeySourcesError::None),
            1..=MOST_SETS => Ok(KeySources(sources)),
            _ => Err(KeySourcesError::Many),
        }
    }
}

impl FromStr for KeySource {
    type Err = KeySourcesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Issuers are URLs themselves, most of the time.
        let split = ["=https://", "=http://", "=file://"].iter().filter_map(|begin| text.find(begin)).min();
        let (issuer, url) = match split {
            Some(at) => (Some(text[..at].to_owned()), &text[at + 1..]),
            None => (None, text),
        };
        if issuer.as_deref() == Some("") {
            return Err(KeySourcesError::Form);
        }
        let url = Url::parse(url).map_err(|_| KeySourcesError::Form)?;
        let location = match url.scheme() {
            "https" if url.port() != Some(0) => Location::Web(url),
            "http" if is_loopback(&url) && url.port() != Some(0) => Location::Web(url),
            "file" => Location::File(url.to_file_path().map_err(|()| KeySourcesError::Scheme)?),
            _ => return Err(KeySourcesError::Scheme),
        };
        Ok(KeySource { issuer, location })
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for Location {
    /// Without user, password and parameters, and for the web without the path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Web(url) => f.write_str(&url.origin().ascii_serialization()),
            Location::File(path) => write!(f, "file://{}", path.display()),
        }
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.location)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_may_be_bound_to_an_issuer() {
        let text =
            "https://a.example/jwks https://login.b.example/=https://b.example/jwks?x=1\nc=file:///etc/jwks.json";
        let sources = text.parse::<KeySources>().unwrap();
        let shown: Vec<_> = sources.iter().map(|s| (s.issuer.as_deref(), s.location.to_string())).collect();
        let expected = [
            (None, "https://a.example"),
            (Some("https://login.b.example/"), "https://b.example"),
            (Some("c"), "file:///etc/jwks.json"),
        ];
        assert_eq!(shown, expected.map(|(issuer, place)| (issuer, place.to_owned())));
        assert!("http://localhost:8000/jwks http://[::1]/ http://127.0.0.1/".parse::<KeySources>().is_ok());
    }

    #[test]
    fn what_is_no_safe_place_is_refused_and_not_repeated() {
        let refusal = |text: &str| text.parse::<KeySources>().unwrap_err();
        assert_eq!(refusal(" "), KeySourcesError::None);
        for text in ["login.example", "=https://a.example", "/etc/jwks.json"] {
            assert_eq!(refusal(text), KeySourcesError::Form, "{text}");
        }
        let schemes =
            ["http://a.example/jwks", "a=http://a.example", "ftp://a.example", "file://host/x", "http://10.0.0.1"];
        for text in schemes.into_iter().chain(["http://localhost.a.example", "https://a.example:0"]) {
            assert_eq!(refusal(text), KeySourcesError::Scheme, "{text}");
        }
        assert_eq!(refusal(&"https://a.example ".repeat(17)), KeySourcesError::Many);
        let shown = format!("{:?}", "https://me:s3cret@a.example/T0K3N".parse::<KeySources>().unwrap());
        assert!(!shown.contains("s3cret") && !shown.contains("T0K3N"), "{shown}");
    }
}
