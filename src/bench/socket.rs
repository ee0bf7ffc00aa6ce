//! Sockets to servers: plain, or over TLS.

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::Server;
use crate::client::{Authorities, mistrust};

/// A socket. What TLS needs is large, so that it stands apart: most runs are plain.
pub type Socket = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// How sockets speak TLS.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Trust {
    authorities: Authorities,
    /// Made once.
    #[serde(skip)]
    config: OnceLock<Arc<ClientConfig>>,
}

impl Trust {
    /// Trusts certificates of these authorities.
    pub fn in_authorities(authorities: Authorities) -> Self {
        Trust { authorities, config: OnceLock::new() }
    }

    fn config(&self) -> io::Result<Arc<ClientConfig>> {
        if let Some(config) = self.config.get() {
            return Ok(config.clone());
        }
        let config = Arc::new(self.authorities.config().map_err(io::Error::other)?);
        Ok(self.config.get_or_init(|| config).clone())
    }

    /// Connects to a server.
    pub async fn connect(&self, server: &Server) -> io::Result<Socket> {
        let socket = TcpStream::connect(server.address).await?;
        socket.set_nodelay(true)?;
        let Some(name) = &server.secure_name else { return Ok(Either::Left(socket)) };
        let name = ServerName::try_from(name.clone()).map_err(io::Error::other)?;
        let secured = TlsConnector::from(self.config()?).connect(name, socket).await;
        let secured = secured.map_err(|error| match mistrust(&error) {
            Some(reason) => io::Error::other(format!("{} is not trusted: {reason}", server.authority)),
            None => error,
        })?;
        Ok(Either::Right(Box::new(secured)))
    }
}
