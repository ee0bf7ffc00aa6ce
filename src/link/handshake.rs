//! How two nodes make sure of each other, as values: messages in, messages out.
//!
//! ```text
//!   dialer                                         acceptor
//!     | hello: my id, the peer's, a nonce      ->     |
//!     | <- challenge: who I am, a nonce, a proof      |
//!     | proof                                  ->     |
//!     | <- welcome                                    |
//! ```
//!
//! A proof is an HMAC-SHA256 with the shared secret over the side that gives it, both names and both
//! nonces: it can be neither guessed, nor used again, nor sent back to whoever gave it. Both sides name the
//! node that the acceptor is, because another process may have got the address of the one that is wanted.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::model::NodeId;

/// Longest message of a handshake, in bytes.
pub const MAX_MESSAGE: usize = 1024;

/// The version of what goes over links. Nodes of another one don't link, and use the channels.
const VERSION: u32 = 1;

/// Why there is no link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// What came is no message of a handshake, or not the one that is due.
    #[error("the other side does not speak as a node of this version")]
    Nonsense,
    /// The proof is not one.
    #[error("the other side has another secret")]
    Secret,
    /// Somebody else answers there.
    #[error("another node answers: {0}")]
    OtherNode(NodeId),
}

/// The secret that all nodes of a region share.
#[derive(Clone)]
pub struct Key(hmac::Key);

impl Key {
    /// The key that follows from a secret.
    pub fn new(secret: &str) -> Self {
        Key(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))
    }
}

type Nonce = [u8; 32];

/// What the dialer begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    whimbrel: u32,
    from: String,
    to: String,
    nonce: String,
}

/// The acceptor's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    node: String,
    nonce: String,
    proof: String,
}

/// The dialer's answer to that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    proof: String,
}

/// The link is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    welcome: bool,
}

impl Welcome {
    /// The message.
    pub const YES: Welcome = Welcome { welcome: true };
}

/// The names and nonces of one handshake.
struct Round {
    from: String,
    acceptor: String,
    dialed: Nonce,
    accepted: Nonce,
}

impl Round {
    /// What a side's proof is made of. Each part has its length before it, so that no two rounds give the
    /// same text.
    fn text(&self, side: &str) -> Vec<u8> {
        let parts = [
            b"whimbrel link",
            side.as_bytes(),
            self.from.as_bytes(),
            self.acceptor.as_bytes(),
            &self.dialed,
            &self.accepted,
        ];
        parts
            .iter()
            .flat_map(|part| (part.len() as u64).to_be_bytes().into_iter().chain(part.iter().copied()))
            .collect()
    }

    fn proof(&self, key: &Key, side: &str) -> String {
        BASE64.encode(hmac::sign(&key.0, &self.text(side)))
    }

    fn check(&self, key: &Key, side: &str, proof: &str) -> Result<(), HandshakeError> {
        let proof = BASE64.decode(proof).map_err(|_| HandshakeError::Nonsense)?;
        hmac::verify(&key.0, &self.text(side), &proof).map_err(|_| HandshakeError::Secret)
    }
}

const DIALER: &str = "dialer";
const ACCEPTOR: &str = "acceptor";

fn nonce(text: &str) -> Result<Nonce, HandshakeError> {
    BASE64.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(HandshakeError::Nonsense)
}

/// The side that opens the link.
pub struct Dialer {
    key: Key,
    from: NodeId,
    to: NodeId,
    nonce: Nonce,
}

impl Dialer {
    /// Begins: node `from` wants a link to node `to`.
    pub fn new(key: Key, from: NodeId, to: NodeId) -> (Self, Hello) {
        let nonce = rand::random();
        let hello =
            Hello { whimbrel: VERSION, from: from.to_string(), to: to.to_string(), nonce: BASE64.encode(nonce) };
        (Dialer { key, from, to, nonce }, hello)
    }

    /// Judges the acceptor's answer.
    pub fn challenged(self, challenge: &Challenge) -> Result<Proof, HandshakeError> {
        let round = Round {
            from: self.from.to_string(),
            acceptor: challenge.node.clone(),
            dialed: self.nonce,
            accepted: nonce(&challenge.nonce)?,
        };
        round.check(&self.key, ACCEPTOR, &challenge.proof)?;
        if challenge.node != self.to.as_str() {
            return Err(HandshakeError::OtherNode(challenge.node.clone().into()));
        }
        Ok(Proof { proof: round.proof(&self.key, DIALER) })
    }
}

/// The side to which the link is opened.
pub struct Acceptor {
    key: Key,
    round: Round,
    wanted: bool,
}

impl Acceptor {
    /// Answers a hello as node `node`.
    pub fn greeted(key: Key, node: &NodeId, hello: &Hello) -> Result<(Self, Challenge), HandshakeError> {
        if hello.whimbrel != VERSION {
            return Err(HandshakeError::Nonsense);
        }
        let round = Round {
            from: hello.from.clone(),
            acceptor: node.to_string(),
            dialed: nonce(&hello.nonce)?,
            accepted: rand::random(),
        };
        let challenge = Challenge {
            node: node.to_string(),
            nonce: BASE64.encode(round.accepted),
            proof: round.proof(&key, ACCEPTOR),
        };
        Ok((Acceptor { key, round, wanted: hello.to == node.as_str() }, challenge))
    }

    /// Judges the dialer's proof. The answer is the dialer's name.
    pub fn proved(self, proof: &Proof) -> Result<NodeId, HandshakeError> {
        self.round.check(&self.key, DIALER, &proof.proof)?;
        if !self.wanted {
            return Err(HandshakeError::OtherNode(self.round.acceptor.into()));
        }
        Ok(self.round.from.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId::from(name.to_owned())
    }

    fn key(secret: &str) -> Key {
        Key::new(secret)
    }

    #[test]
    fn nodes_with_the_same_secret_agree() {
        let (dialer, hello) = Dialer::new(key("s"), node("a"), node("b"));
        let (acceptor, challenge) = Acceptor::greeted(key("s"), &node("b"), &hello).unwrap();
        let proof = dialer.challenged(&challenge).unwrap();
        assert_eq!(acceptor.proved(&proof), Ok(node("a")));
    }

    #[test]
    fn each_side_notices_a_wrong_secret() {
        let (dialer, hello) = Dialer::new(key("s"), node("a"), node("b"));
        let (acceptor, challenge) = Acceptor::greeted(key("other"), &node("b"), &hello).unwrap();
        assert_eq!(dialer.challenged(&challenge), Err(HandshakeError::Secret));
        // A dialer that goes on all the same.
        let proof = Proof { proof: acceptor.round.proof(&key("s"), DIALER) };
        assert_eq!(acceptor.proved(&proof), Err(HandshakeError::Secret));
    }

    #[test]
    fn another_node_at_the_address_is_known_by_name_only_if_it_has_the_secret() {
        let (dialer, hello) = Dialer::new(key("s"), node("a"), node("b"));
        let (acceptor, challenge) = Acceptor::greeted(key("s"), &node("c"), &hello).unwrap();
        assert_eq!(dialer.challenged(&challenge), Err(HandshakeError::OtherNode(node("c"))));
        let proof = Proof { proof: acceptor.round.proof(&key("s"), DIALER) };
        assert_eq!(acceptor.proved(&proof), Err(HandshakeError::OtherNode(node("c"))));

        let (dialer, hello) = Dialer::new(key("s"), node("a"), node("b"));
        let (_, mut challenge) = Acceptor::greeted(key("s"), &node("c"), &hello).unwrap();
        challenge.node = "b".to_owned();
        assert_eq!(dialer.challenged(&challenge), Err(HandshakeError::Secret), "a name can't be borrowed");
    }

    #[test]
    fn a_proof_is_good_for_one_side_of_one_handshake() {
        let (dialer, hello) = Dialer::new(key("s"), node("a"), node("b"));
        let (acceptor, challenge) = Acceptor::greeted(key("s"), &node("b"), &hello).unwrap();
        let reflected = Proof { proof: challenge.proof.clone() };
        assert_eq!(acceptor.proved(&reflected), Err(HandshakeError::Secret));
        let proof = dialer.challenged(&challenge).unwrap();
        let (acceptor, _) = Acceptor::greeted(key("s"), &node("b"), &hello).unwrap();
        assert_eq!(acceptor.proved(&proof), Err(HandshakeError::Secret), "replayed");
    }

    #[test]
    fn another_version_and_what_is_no_handshake_are_refused() {
        let (_, hello) = Dialer::new(key("s"), node("a"), node("b"));
        for wrong in [
            Hello { whimbrel: 2, ..hello.clone() },
            Hello { nonce: "AAAA".into(), ..hello.clone() },
            Hello { nonce: "!".into(), ..hello },
        ] {
            assert_eq!(Acceptor::greeted(key("s"), &node("b"), &wrong).err(), Some(HandshakeError::Nonsense));
        }
    }
}
