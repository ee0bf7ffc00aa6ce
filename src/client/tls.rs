//! Which certificates a client trusts over TLS, and its error for one that it does not.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;
use serde::{Deserialize, Serialize};

use super::ClientError;

/// The authorities whose certificates a client accepts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Authorities {
    /// Those that the machine trusts, or `SSL_CERT_FILE` names.
    #[default]
    Machine,
    /// These alone, in PEM.
    Only(String),
}

impl Authorities {
    /// Those of a PEM file.
    pub fn of_file(path: &Path) -> Result<Self, ClientError> {
        let refuse = |reason: String| ClientError::Request(format!("the file {} {reason}", path.display()));
        let pem = std::fs::read_to_string(path).map_err(|error| refuse(format!("can't be read: {error}")))?;
        let authorities = Authorities::Only(pem);
        authorities.config().map_err(|error| refuse(format!("holds no certificates to trust: {error}")))?;
        Ok(authorities)
    }

    /// Settings of TLS.
    pub fn config(&self) -> Result<ClientConfig, ClientError> {
        let refuse = |reason: String| ClientError::Request(reason);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has all that these versions need");
        let Authorities::Only(pem) = self else {
            let builder = builder.with_platform_verifier().map_err(|error| refuse(error.to_string()))?;
            return Ok(builder.with_no_client_auth());
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
            roots.add(certificate).map_err(|error| refuse(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(refuse("there is no CERTIFICATE in it".into()));
        }
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

/// What is wrong with a server's certificate, if that is what an error is about. Another try meets the same.
pub fn mistrust(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(rustls::Error::InvalidCertificate(fault)) = error.downcast_ref() {
        return Some(in_words(fault));
    }
    // The source of an I/O error is the source of what it holds.
    let within = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    within.and_then(|error| mistrust(error)).or_else(|| mistrust(error.source()?))
}

fn in_words(fault: &CertificateError) -> String {
    match fault {
        CertificateError::UnknownIssuer => {
            "its certificate is signed by an authority that is not trusted here (--ca-file names one)".into()
        }
        CertificateError::NotValidForName => "its certificate is for another name".into(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<_> = presented.iter().map(|name| plain_name(name)).collect();
            format!("its certificate is for {}, and not for {}", names.join(", "), expected.to_str())
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired".into(),
        fault => format!("its certificate can't be trusted: {fault}"),
    }
}

/// `localhost`, where rustls has `DnsName("localhost")`.
fn plain_name(name: &str) -> &str {
    name.split_once('(').map_or(name, |(_, name)| name).trim_matches(['(', ')', '"'])
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;

    use super::*;

    #[test]
    fn what_is_wrong_with_a_certificate_is_found_however_deep_it_lies() {
        let expected = ServerName::try_from("localhost").unwrap();
        let presented = vec![r#"DnsName("push.example.com")"#.to_owned()];
        let other_name = CertificateError::NotValidForNameContext { expected, presented };
        for (fault, words) in [
            (CertificateError::UnknownIssuer, "signed by an authority that is not trusted here"),
            (other_name, "is for push.example.com, and not for localhost"),
        ] {
            let fault = rustls::Error::InvalidCertificate(fault);
            let error = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, fault));
            assert!(mistrust(&error).unwrap().contains(words), "{:?}", mistrust(&error));
        }
        assert_eq!(mistrust(&io::Error::other("it broke")), None);
    }

    #[test]
    fn a_file_without_certificates_is_refused_by_its_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refusal = Authorities::of_file(file.path()).unwrap_err().to_string();
        assert!(refusal.contains(file.path().to_str().unwrap()) && refusal.contains("no CERTIFICATE"), "{refusal}");
        let missing = Authorities::of_file(Path::new("/nowhere/ca.pem")).unwrap_err().to_string();
        assert!(missing.contains("/nowhere/ca.pem can't be read"), "{missing}");
    }
}
