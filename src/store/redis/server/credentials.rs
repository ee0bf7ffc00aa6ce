//! Passwords and certificates out of files.
//!
//! The files are read again for each connection, so that one that was replaced needs no restart.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use redis::{Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, TlsCertificates};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Most bytes of one file. A chain of certificates is much shorter.
const MAX_BYTES: u64 = 1024 * 1024;

/// The files, each by the setting that names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CredentialFiles {
    /// The password, for URLs that have none.
    pub password: Option<PathBuf>,
    /// The password at Sentinels.
    pub sentinel_password: Option<PathBuf>,
    /// The authorities that may have signed a server's certificate, instead of those that browsers trust.
    pub authorities: Option<PathBuf>,
    /// The client's certificate with its chain, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A file that can't be used. Its path is not shown: the secret itself ends up there by mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the file {reason}")]
pub struct FileError {
    /// The setting that names it, as its field.
    pub field: &'static str,
    /// Why.
    pub reason: String,
}

/// Which password a connection needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Login {
    Server,
    Sentinel,
}

/// What the files hold.
struct Credentials {
    password: Option<String>,
    sentinel_password: Option<String>,
    authorities: Option<Vec<u8>>,
    identity: Option<ClientTlsConfig>,
}

impl CredentialFiles {
    /// Reads all files once, to refuse what could never work.
    pub fn check(&self) -> Result<(), FileError> {
        self.read().map(drop)
    }

    /// A client with what the files hold now.
    pub(super) async fn client(&self, info: ConnectionInfo, login: Login) -> Result<Client, String> {
        if *self == CredentialFiles::default() {
            return Client::open(info).map_err(|error| error.to_string());
        }
        let files = self.clone();
        let reading = tokio::task::spawn_blocking(move || files.read());
        let held = reading.await.map_err(|error| error.to_string())?;
        let held = held.map_err(|error| format!("{}: {error}", error.field))?;
        held.client(info, login).map_err(|error| error.to_string())
    }

    fn read(&self) -> Result<Credentials, FileError> {
        let identity = match &self.identity {
            Some((certificate, key)) => Some(ClientTlsConfig {
                client_cert: certificates("redis_cert_file", certificate)?,
                client_key: private_key("redis_key_file", key)?,
            }),
            None => None,
        };
        let password = |field, path: &Option<PathBuf>| path.as_deref().map(|path| password(field, path)).transpose();
        Ok(Credentials {
            password: password("redis_password_file", &self.password)?,
            sentinel_password: password("sentinel_password_file", &self.sentinel_password)?,
            authorities: self.authorities.as_deref().map(|path| certificates("redis_ca_file", path)).transpose()?,
            identity,
        })
    }
}

impl Credentials {
    fn client(self, info: ConnectionInfo, login: Login) -> redis::RedisResult<Client> {
        let settings = info.redis_settings();
        let password = match login {
            Login::Server => self.password.filter(|_| settings.password().is_none()),
            Login::Sentinel => self.sentinel_password,
        };
        let info = match password {
            Some(password) => info.clone().set_redis_settings(settings.clone().set_password(password)),
            None => info,
        };
        let own = self.authorities.is_some() || self.identity.is_some();
        if own && matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            let certificates = TlsCertificates { client_tls: self.identity, root_cert: self.authorities };
            return Client::build_with_tls(info, certificates);
        }
        Client::open(info)
    }
}

fn read(field: &'static str, path: &Path) -> Result<Vec<u8>, FileError> {
    let mut content = Vec::new();
    let reading = std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut content));
    match reading {
        Err(error) => Err(FileError { field, reason: format!("can't be read: {error}") }),
        Ok(size) if size as u64 > MAX_BYTES => {
            Err(FileError { field, reason: format!("is larger than {MAX_BYTES} bytes") })
        }
        Ok(_) => Ok(content),
    }
}

fn password(field: &'static str, path: &Path) -> Result<String, FileError> {
    let text = String::from_utf8(read(field, path)?).unwrap_or_default();
    match text.trim() {
        "" => Err(FileError { field, reason: "holds no password".to_owned() }),
        password => Ok(password.to_owned()),
    }
}

fn certificates(field: &'static str, path: &Path) -> Result<Vec<u8>, FileError> {
    let pem = read(field, path)?;
    let mut certificates = CertificateDer::pem_slice_iter(&pem).peekable();
    if certificates.peek().is_none() || certificates.any(|one| one.is_err()) {
        return Err(FileError { field, reason: "holds no certificates as PEM".to_owned() });
    }
    Ok(pem)
}

fn private_key(field: &'static str, path: &Path) -> Result<Vec<u8>, FileError> {
    let pem = read(field, path)?;
    match PrivateKeyDer::from_pem_slice(&pem) {
        Ok(_) => Ok(pem),
        Err(_) => Err(FileError { field, reason: "holds no private key as PEM".to_owned() }),
    }
}
