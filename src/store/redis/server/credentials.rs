//! What is shown to a server and asked of it, out of files: the password, and the certificates of TLS.
//!
//! All are read anew for each connection, so one that was replaced holds for the next, without a restart.

use std::io;
use std::path::{Path, PathBuf};

use redis::{Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, TlsCertificates};

/// A password or a certificate is much shorter. More is another file.
const MOST_BYTES: u64 = 1024 * 1024;

/// The files; what is `None` is as the URL has it, or as everybody has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CredentialFiles {
    /// The password, where the URL has none.
    pub password: Option<PathBuf>,
    /// Whom a server's certificate may be signed by, instead of the authorities of the web.
    pub authority: Option<PathBuf>,
    /// The client's certificate with its chain, and the key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl CredentialFiles {
    /// A client for this server, with what the files hold now.
    pub(super) async fn client(&self, mut info: ConnectionInfo) -> Result<Client, String> {
        if let Some(path) = self.password.as_ref().filter(|_| info.redis_settings().password().is_none()) {
            let password = read(path).await?;
            let password = std::str::from_utf8(&password).map_err(|_| wrong(path, "is not UTF-8 text"))?;
            let settings = info.redis_settings().clone().set_password(password.trim_end_matches(['\n', '\r']));
            info = info.set_redis_settings(settings);
        }
        self.client_without_password(info).await
    }

    /// The same for a Sentinel, which has a login of its own.
    pub(super) async fn client_without_password(&self, info: ConnectionInfo) -> Result<Client, String> {
        let is_secure = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        let client = if is_secure && (self.authority.is_some() || self.identity.is_some()) {
            let client_tls = match &self.identity {
                Some((certificate, key)) => {
                    Some(ClientTlsConfig { client_cert: read(certificate).await?, client_key: read(key).await? })
                }
                None => None,
            };
            let root_cert = match &self.authority {
                Some(path) => Some(read(path).await?),
                None => None,
            };
            Client::build_with_tls(info, TlsCertificates { client_tls, root_cert })
        } else {
            Client::open(info)
        };
        client.map_err(|error| error.to_string())
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, String> {
    let bounded = async {
        match tokio::fs::metadata(path).await?.len() {
            0..=MOST_BYTES => tokio::fs::read(path).await,
            _ => Err(io::Error::other(format!("is larger than {MOST_BYTES} bytes"))),
        }
    };
    bounded.await.map_err(|error| wrong(path, error))
}

fn wrong(path: &Path, reason: impl std::fmt::Display) -> String {
    format!("the file {} can't be used: {reason}", path.display())
}
