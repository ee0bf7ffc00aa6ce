//! How the database is reached, and which certificates TLS trusts there.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::client::Authorities;

/// How long a connection and its login may take, where the connection string does not say.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// For how long the database may acknowledge nothing of what was sent, where the connection string does not say.
const SILENCE: Duration = Duration::from_secs(30);

/// A connection string of PostgreSQL, `postgres://…` or `host=… user=…`.
#[derive(Clone)]
pub struct Dsn {
    pub(super) config: Config,
    pub(super) tls: ClientConfig,
}

/// Why a text is no connection string. Says nothing of what it holds, as that may be a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DsnError {
    /// It can't be read.
    #[error(
        "it is no connection string such as postgres://user:password@host/database, or has options other than host, \
         hostaddr, port, user, password, dbname, sslmode, sslrootcert, sslnegotiation, channel_binding, options, \
         application_name, connect_timeout, tcp_user_timeout, keepalives, keepalives_idle, keepalives_interval, \
         keepalives_retries, target_session_attrs and load_balance_hosts"
    )]
    Unreadable,
    /// It names no host.
    #[error("it names no host")]
    NoHost,
    /// TLS is asked for in a way that there is not.
    #[error("sslmode is '{0}'; allowed are disable, allow, prefer, require, verify-ca and verify-full")]
    Mode(String),
    /// Who is to be trusted can't be read.
    #[error("sslrootcert: {0}")]
    Authorities(String),
}

impl Dsn {
    /// Where it leads, for people: nothing secret.
    pub fn place(&self) -> String {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            #[cfg(unix)]
            Some(Host::Unix(folder)) => folder.display().to_string(),
            None => self.config.get_hostaddrs().first().map(ToString::to_string).unwrap_or_default(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        format!("{host}:{port}/{}", self.config.get_dbname().or(self.config.get_user()).unwrap_or_default())
    }
}

impl FromStr for Dsn {
    type Err = DsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (rest, tls) = take_tls_options(text.trim());
        let mut config: Config = rest.parse().map_err(|_| DsnError::Unreadable)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(DsnError::NoHost);
        }
        let (mode, verified) = tls.mode()?;
        config.ssl_mode(mode);
        if config.get_application_name().is_none() {
            config.application_name("whimbrel relay");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(SILENCE);
        }
        if !rest.contains("keepalives") {
            config.keepalives_idle(SILENCE / 2).keepalives_interval(SILENCE / 6).keepalives_retries(3);
        }
        Ok(Dsn { config, tls: if verified { tls.verifying()? } else { trusting() } })
    }
}

/// What a connection string says of TLS.
#[derive(Debug, Default, PartialEq, Eq)]
struct TlsOptions {
    mode: Option<String>,
    authorities: Option<String>,
}

impl TlsOptions {
    /// What the driver is to do, and whether the certificate is verified. As everywhere with PostgreSQL, `prefer` and
    /// `require` alone encrypt, and verify nothing.
    fn mode(&self) -> Result<(SslMode, bool), DsnError> {
        let named = self.authorities.is_some();
        match self.mode.as_deref().unwrap_or("prefer") {
            "disable" => Ok((SslMode::Disable, false)),
            "allow" | "prefer" => Ok((SslMode::Prefer, named)),
            "require" => Ok((SslMode::Require, named)),
            "verify-ca" | "verify-full" => Ok((SslMode::Require, true)),
            other => Err(DsnError::Mode(other.chars().take(32).collect())),
        }
    }

    fn verifying(&self) -> Result<ClientConfig, DsnError> {
        let authorities = match self.authorities.as_deref() {
            None | Some("system") => Ok(Authorities::Machine),
            Some(path) => Authorities::of_file(Path::new(path)),
        };
        authorities.and_then(|authorities| authorities.config()).map_err(|e| DsnError::Authorities(e.to_string()))
    }
}

/// Takes out what a connection string says of TLS: the driver knows fewer modes and reads no files.
fn take_tls_options(text: &str) -> (String, TlsOptions) {
    let mut tls = TlsOptions::default();
    let is_url = text.starts_with("postgres://") || text.starts_with("postgresql://");
    let (head, options, separator) = match text.split_once('?') {
        Some((head, options)) if is_url => (format!("{head}?"), options.split('&').collect(), "&"),
        None if is_url => return (text.to_owned(), tls),
        _ => (String::new(), words(text), " "),
    };
    let value = |raw: &str| {
        let raw = if is_url { percent_decode_str(raw).decode_utf8_lossy() } else { raw.trim_matches('\'').into() };
        Some(raw.into_owned())
    };
    let mut rest = Vec::new();
    for option in options {
        match option.split_once('=') {
            Some(("sslmode", mode)) => tls.mode = value(mode),
            Some(("sslrootcert", path)) => tls.authorities = value(path),
            _ => rest.push(option),
        }
    }
    (head + &rest.join(separator), tls)
}

/// The words of a text; white space between single quotes, and behind a backslash, parts none.
fn words(text: &str) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = text.split(|c: char| {
        let plain = !std::mem::take(&mut escaped);
        escaped = plain && c == '\\';
        quoted ^= plain && c == '\'';
        plain && !quoted && c.is_whitespace()
    });
    parts.filter(|word| !word.is_empty()).collect()
}

/// TLS with whoever answers.
fn trusting() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Anyone(Arc::clone(&provider)));
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has all that these versions need")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth()
}

/// Accepts every certificate, if its holder has the key.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> DsnError {
        text.parse::<Dsn>().map(|_| ()).unwrap_err()
    }

    #[test]
    fn both_forms_say_how_tls_is_used_and_the_rest_is_left_as_it_is() {
        let verified = TlsOptions { mode: Some("verify-full".into()), authorities: Some("/etc/our ca.pem".into()) };
        for (text, rest) in [
            (
                "postgres://me:p%3Fw@db/shop?sslmode=verify-full&connect_timeout=3&sslrootcert=/etc/our%20ca.pem",
                "postgres://me:p%3Fw@db/shop?connect_timeout=3",
            ),
            (
                r"host=db password='a \' sslmode=no' sslmode=verify-full sslrootcert='/etc/our ca.pem'",
                r"host=db password='a \' sslmode=no'",
            ),
        ] {
            let (left, tls) = take_tls_options(text);
            assert_eq!((left.as_str(), &tls), (rest, &verified));
        }
    }

    #[test]
    fn modes_mean_what_they_mean_to_every_client_of_postgresql() {
        for (text, mode, verified) in [
            ("postgres://db/shop", SslMode::Prefer, false),
            ("postgres://db/shop?sslmode=disable", SslMode::Disable, false),
            ("host=db sslmode=require", SslMode::Require, false),
            ("host=db sslmode=require sslrootcert=system", SslMode::Require, true),
            ("host=db sslmode=verify-full", SslMode::Require, true),
        ] {
            assert_eq!(take_tls_options(text).1.mode(), Ok((mode, verified)), "{text}");
        }
    }

    #[test]
    fn what_is_no_connection_string_is_refused_without_showing_it() {
        assert_eq!(refusal("postgres://me:s3cret@db:port/shop"), DsnError::Unreadable);
        assert_eq!(refusal("password=s3cret more"), DsnError::Unreadable);
        assert_eq!(refusal("user=me password=s3cret"), DsnError::NoHost);
        assert_eq!(refusal("host=db sslmode=maybe"), DsnError::Mode("maybe".into()));
        let missing = refusal("host=db sslmode=verify-full sslrootcert=/nowhere/ca.pem").to_string();
        assert!(missing.contains("/nowhere/ca.pem"), "{missing}");
    }

    #[test]
    fn a_place_shows_no_password() {
        let place = |text: &str| text.parse::<Dsn>().unwrap().place();
        assert_eq!(place("postgres://me:s3cret@db:6000/shop"), "db:6000/shop");
        assert_eq!(place("host=/run/postgresql user=me password=s3cret"), "/run/postgresql:5432/me");
    }
}
