//! A link's socket: length-delimited frames, and the handshake over it.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::frame::MAX_FRAME;
use super::handshake::{Acceptor, Challenge, Dialer, HandshakeError, Hello, Key, MAX_MESSAGE, Proof, Welcome};
use crate::model::NodeId;

/// How long connecting or a handshake may take. Nobody waits for a link; until it is there, events go over
/// the channel.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(2);

/// Frames on a socket.
pub type Wire = Framed<TcpStream, LengthDelimitedCodec>;

/// Why a link did not come about.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The socket broke or never was.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other side took too long.
    #[error("no answer within {HANDSHAKE_TIME:?}")]
    Late,
    /// The other side is not the one it has to be.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

/// Opens a link from node `from` to node `to`, which should be at `address`.
pub async fn dial(address: &str, key: Key, from: NodeId, to: NodeId) -> Result<Wire, OpenError> {
    let open = async {
        let mut wire = framed(TcpStream::connect(address).await?)?;
        let (dialer, hello) = Dialer::new(key, from, to);
        say(&mut wire, &hello).await?;
        let proof = dialer.challenged(&receive::<Challenge>(&mut wire).await?)?;
        say(&mut wire, &proof).await?;
        receive::<Welcome>(&mut wire).await?;
        Ok(opened(wire))
    };
    timeout(HANDSHAKE_TIME, open).await.map_err(|_| OpenError::Late)?
}

/// Lets a link in on a connection that was accepted as node `node`; returns the node that it is from.
pub async fn accept(socket: TcpStream, key: Key, node: &NodeId) -> Result<(Wire, NodeId), OpenError> {
    let open = async {
        let mut wire = framed(socket)?;
        let (acceptor, challenge) = Acceptor::greeted(key, node, &receive::<Hello>(&mut wire).await?)?;
        say(&mut wire, &challenge).await?;
        let from = acceptor.proved(&receive::<Proof>(&mut wire).await?)?;
        say(&mut wire, &Welcome::YES).await?;
        Ok((opened(wire), from))
    };
    timeout(HANDSHAKE_TIME, open).await.map_err(|_| OpenError::Late)?
}

/// Small frames until both sides know each other.
fn framed(socket: TcpStream) -> io::Result<Wire> {
    socket.set_nodelay(true)?;
    Ok(LengthDelimitedCodec::builder().max_frame_length(MAX_MESSAGE).new_framed(socket))
}

fn opened(mut wire: Wire) -> Wire {
    wire.codec_mut().set_max_frame_length(MAX_FRAME);
    wire
}

async fn say(wire: &mut Wire, message: &impl Serialize) -> Result<(), OpenError> {
    let text = serde_json::to_vec(message).expect("handshakes hold only strings and numbers");
    Ok(wire.send(Bytes::from(text)).await?)
}

async fn receive<T: DeserializeOwned>(wire: &mut Wire) -> Result<T, OpenError> {
    let message = wire.next().await.ok_or(io::ErrorKind::UnexpectedEof).map_err(io::Error::from)??;
    Ok(serde_json::from_slice(&message).map_err(|_| HandshakeError::Nonsense)?)
}
