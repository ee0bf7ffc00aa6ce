//! Where webhooks go.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;

/// The address of a receiver. Shown without user, password, path and parameters, any of which may be what
/// keeps others out.
#[derive(Clone, PartialEq, Eq)]
pub struct Target(Url);

/// Why a text is no such address. It does not repeat the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not an address to send to, such as https://example.com/whimbrel")]
pub struct TargetError;

impl Target {
    /// All of it.
    pub fn expose(&self) -> &Url {
        &self.0
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(|_| TargetError)?;
        let sound = matches!(url.scheme(), "http" | "https") && url.has_host() && url.port() != Some(0);
        sound.then_some(Target(url)).ok_or(TargetError)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.origin().ascii_serialization())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_of_a_receiver_is_refused() {
        for text in
            ["", "example.com", "/hook", "ftp://example.com", "unix:///x", "http://", "https://:80/", "http://h:0"]
        {
            assert_eq!(text.parse::<Target>(), Err(TargetError), "{text:?}");
        }
    }

    #[test]
    fn nothing_that_may_be_secret_is_shown() {
        let target: Target = "https://me:s3cret@example.com:8443/T0K3N/x?key=K3Y#F".parse().unwrap();
        assert_eq!((target.to_string(), format!("{target:?}")), {
            let shown = "https://example.com:8443".to_owned();
            (shown.clone(), shown)
        });
    }
}
