//! Signatures of tokens by *ring*, for `jsonwebtoken`, whose own back ends would each bring another library.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result, new_error};
use jsonwebtoken::signature::{Error, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::hmac;
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};

/// Makes `jsonwebtoken` verify with *ring*, in this whole process.
pub fn install() {
    static ONCE: Once = Once::new();
    static RING: CryptoProvider =
        CryptoProvider { signer_factory: signer, verifier_factory: verifier, key_utils: KeyUtils::new_unimplemented() };
    // Only this installs one; in a test of another library a second one would be the same.
    ONCE.call_once(|| _ = RING.install_default());
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    match algorithm {
        Algorithm::HS256 => Ok(Box::new(Hs256(hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes())))),
        _ => Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    }
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    if key.family() != algorithm.family() {
        return Err(new_error(ErrorKind::InvalidAlgorithm));
    }
    let by = |with: &'static dyn VerificationAlgorithm| -> Result<Box<dyn JwtVerifier>> {
        let key = UnparsedPublicKey::new(with, key.try_get_as_bytes()?.into());
        Ok(Box::new(PublicKey { algorithm: *algorithm, key }))
    };
    let by_rsa = |with: &'static RsaParameters| match key.kind() {
        DecodingKeyKind::SecretOrDer(_) => by(with),
        DecodingKeyKind::RsaModulusExponent { n, e } => {
            let key = RsaPublicKeyComponents { n: n.as_slice().into(), e: e.as_slice().into() };
            Ok(Box::new(RsaComponents { algorithm: *algorithm, with, key }) as Box<dyn JwtVerifier>)
        }
    };
    match algorithm {
        Algorithm::HS256 => Ok(Box::new(Hs256(hmac::Key::new(hmac::HMAC_SHA256, key.try_get_as_bytes()?)))),
        Algorithm::ES256 => by(&signature::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => by(&signature::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => by(&signature::ED25519),
        Algorithm::RS256 => by_rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => by_rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => by_rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => by_rsa(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => by_rsa(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => by_rsa(&signature::RSA_PSS_2048_8192_SHA512),
        _ => Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    }
}

/// A shared secret.
struct Hs256(hmac::Key);

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        Ok(hmac::sign(&self.0, message).as_ref().to_vec())
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        hmac::verify(&self.0, message, signature).map_err(|_| Error::new())
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

/// A public key in the form that *ring* reads.
struct PublicKey {
    algorithm: Algorithm,
    key: UnparsedPublicKey<Box<[u8]>>,
}

impl Verifier<Vec<u8>> for PublicKey {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        self.key.verify(message, signature).map_err(|_| Error::new())
    }
}

impl JwtVerifier for PublicKey {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// An RSA key as key sets give it.
struct RsaComponents {
    algorithm: Algorithm,
    with: &'static RsaParameters,
    key: RsaPublicKeyComponents<Box<[u8]>>,
}

impl Verifier<Vec<u8>> for RsaComponents {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        self.key.verify(self.with, message, signature).map_err(|_| Error::new())
    }
}

impl JwtVerifier for RsaComponents {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
