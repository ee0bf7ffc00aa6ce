//! TLS on the listener: the certificate and the key, and the handshake.
//!
//! Both files are read again on SIGHUP, and looked at every few seconds. What can't be used is logged, and the pair
//! before it stays: a certificate that is renewed file by file must not take the node down in between.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;

use super::socket::{Raw, Socket};
use super::tls_socket::TlsSocket;

/// A client that has not finished its handshake by then is let go.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

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
    /// What the files held when they were last tried.
    tried: Mutex<Files>,
}

/// By what is offered to clients.
struct Configs {
    both: Arc<ServerConfig>,
    /// While the node starts, it speaks HTTP/1.1 alone.
    only_one: Arc<ServerConfig>,
}

/// The bytes of both files.
#[derive(PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Tls {
    /// Reads both files.
    pub fn load(certificate: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let files = Files::read(certificate, key)?;
        let configs = files.configs(certificate, key)?;
        Ok(Arc::new(Tls {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            configs: ArcSwap::from_pointee(configs),
            tried: Mutex::new(files),
        }))
    }

    /// Reads the files again on SIGHUP and when they have changed, until it is dropped.
    pub async fn keep_fresh(self: Arc<Self>) {
        let mut hang_ups = match signal(SignalKind::hangup()) {
            Ok(hang_ups) => hang_ups,
            Err(error) => return tracing::warn!(%error, "SIGHUP can't be received, so the certificate stays as it is"),
        };
        let mut looks = tokio::time::interval(LOOK);
        loop {
            let forced = tokio::select! {
                _ = hang_ups.recv() => true,
                _ = looks.tick() => false,
            };
            let tls = self.clone();
            // Files may be on a disk that takes its time.
            let _ = tokio::task::spawn_blocking(move || tls.look(forced)).await;
        }
    }

    /// Takes what the files hold, if that is new or the reload is forced.
    fn look(&self, forced: bool) {
        match self.reload(forced) {
            Ok(true) => tracing::info!("the TLS certificate was read again"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the TLS certificate stays as it was: the new one can't be used"),
        }
    }

    /// Whether there was something to take.
    fn reload(&self, forced: bool) -> Result<bool, TlsError> {
        let files = match Files::read(&self.certificate, &self.key) {
            Ok(files) => files,
            // It may be about to be replaced.
            Err(_) if !forced => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut tried = self.tried.lock();
        if *tried == files && !forced {
            return Ok(false);
        }
        let configs = files.configs(&self.certificate, &self.key);
        *tried = files;
        self.configs.store(Arc::new(configs?));
        Ok(true)
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

impl Files {
    fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        Ok(Files { certificate: read(certificate)?, key: read(key)? })
    }

    fn configs(&self, certificate: &Path, key: &Path) -> Result<Configs, TlsError> {
        let chain = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<Vec<_>, _>>()
            .ok()
            .filter(|chain| !chain.is_empty())
            .ok_or_else(|| TlsError::Certificate(certificate.to_owned()))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| TlsError::Key(key.to_owned()))?;
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
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let wrong = |error| TlsError::File { path: path.to_owned(), error };
    if std::fs::metadata(path).map_err(wrong)?.len() > MOST_BYTES {
        return Err(wrong(io::Error::other(format!("is larger than {MOST_BYTES} bytes"))));
    }
    std::fs::read(path).map_err(wrong)
}
