//! TLS on the listener: the certificate and the key, and the handshake.
//!
//! Both files are read again on SIGHUP and when they change. What can't be used is logged, and the pair
//! before it stays: a certificate that is renewed file by file must not take the node down in between.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::socket::{Raw, Socket};
use super::tls_socket::TlsSocket;
use crate::watch::{Cause, watch};

/// A client that has not finished its handshake by then is let go.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// A certificate with its chain takes a few kilobytes. More is another file.
const MOST_BYTES: u64 = 1024 * 1024;

const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

/// Why a certificate and a key can't be used. No message repeats what the key's file holds.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The certificate's file holds none.
    #[error("{}: no certificate in PEM form is in it", .0.display())]
    Certificate(PathBuf),
    /// The key's file holds none.
    #[error("{}: no private key in PEM form is in it", .0.display())]
    Key(PathBuf),
    /// They don't belong together, or are of a kind that is not supported.
    #[error("the certificate and the key can't be used: {0}")]
    Pair(rustls::Error),
}

/// What the client wants to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1, also when it did not say.
    One,
    /// HTTP/2.
    Two,
}

/// The certificate and the key, as they are now.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    configs: ArcSwap<Configs>,
}

/// By what is offered to clients.
struct Configs {
    both: Arc<ServerConfig>,
    /// While the node starts, it speaks HTTP/1.1 alone.
    only_one: Arc<ServerConfig>,
}

impl Tls {
    /// Reads both files.
    pub fn load(certificate: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let configs = ArcSwap::from_pointee(configs(certificate, key)?);
        Ok(Arc::new(Tls { certificate: certificate.to_owned(), key: key.to_owned(), configs }))
    }

    /// Reads the files again on SIGHUP and when they have changed, until it is dropped.
    pub async fn keep_fresh(self: Arc<Self>) {
        watch(vec![self.certificate.clone(), self.key.clone()], |cause| self.reload(cause)).await;
    }

    fn reload(&self, cause: Cause) {
        match configs(&self.certificate, &self.key) {
            Ok(configs) => {
                self.configs.store(Arc::new(configs));
                tracing::info!("the TLS certificate was read again");
            }
            // It may be about to be replaced.
            Err(TlsError::File { .. }) if cause == Cause::Change => {}
            Err(error) => tracing::warn!(%error, "the TLS certificate stays as it was: the new one can't be used"),
        }
    }

    /// Shakes hands with a client. Returns the socket and the HTTP version that both agreed on.
    pub async fn accept(&self, raw: Raw) -> io::Result<(Socket, HttpVersion)> {
        let config = self.configs.load().both.clone();
        shake_hands(raw, config).await
    }

    /// The same with a client that is offered HTTP/1.1 alone.
    pub async fn accept_http1(&self, raw: Raw) -> io::Result<Socket> {
        let config = self.configs.load().only_one.clone();
        shake_hands(raw, config).await.map(|(socket, _)| socket)
    }
}

async fn shake_hands(raw: Raw, config: Arc<ServerConfig>) -> io::Result<(Socket, HttpVersion)> {
    let shaking = TlsAcceptor::from(config).accept(raw);
    let (raw, session) = tokio::time::timeout(HANDSHAKE_TIME, shaking).await??.into_inner();
    let version = if session.alpn_protocol() == Some(HTTP_2) { HttpVersion::Two } else { HttpVersion::One };
    Ok((Socket::Tls(Box::new(TlsSocket::new(raw, session))), version))
}

/// Reads both files.
fn configs(certificate: &Path, key: &Path) -> Result<Configs, TlsError> {
    let chain = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| TlsError::Certificate(certificate.to_owned()))?;
    let key = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| TlsError::Key(key.to_owned()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(TlsError::Pair)?;
    // Clients that come back after a restart of a node's neighbour resume instead of a whole handshake.
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(TlsError::Pair)?;
    config.send_tls13_tickets = 1;
    config.alpn_protocols = vec![HTTP_1.to_vec()];
    let only_one = Arc::new(config.clone());
    config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
    Ok(Configs { both: Arc::new(config), only_one })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let wrong = |error| TlsError::File { path: path.to_owned(), error };
    if std::fs::metadata(path).map_err(wrong)?.len() > MOST_BYTES {
        return Err(wrong(io::Error::other(format!("is larger than {MOST_BYTES} bytes"))));
    }
    std::fs::read(path).map_err(wrong)
}
