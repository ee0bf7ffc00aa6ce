//! Key sets (JWKS): public keys of whoever issues tokens, published at a URL or in a file, and followed there.
//!
//! [`source`] is where a set is, [`reading`] makes keys of what is there, and [`key_set`] keeps one set fresh. A token
//! that names an unknown key has the sets fetched again, by [`pace`] at most once a minute.

mod key_set;
mod pace;
mod reading;
mod source;

use std::sync::Arc;

use futures_util::future::join_all;
use jsonwebtoken::{AlgorithmFamily, Header};

use super::verifier::{Rules, Trusted};
use crate::metrics::AccessMetrics;
use key_set::KeySet;

pub use key_set::KeySetError;
pub use source::{KeySources, KeySourcesError};

/// The keys of all sets as they were known at one moment. Equal are those of the same moment.
#[derive(Clone)]
pub struct KnownSets(Vec<Arc<Vec<Trusted>>>);

impl KnownSets {
    /// Each key.
    pub fn iter(&self) -> impl Iterator<Item = &Trusted> {
        self.0.iter().flat_map(|set| set.iter())
    }
}

impl PartialEq for KnownSets {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

/// All key sets of a node.
#[derive(Default)]
pub struct KeySets(Vec<KeySet>);

impl KeySets {
    /// Those of these places; nothing is fetched yet.
    pub fn new(sources: &KeySources, rules: &Rules) -> Result<Self, KeySetError> {
        sources.iter().map(|source| KeySet::new(source.clone(), rules)).collect::<Result<_, _>>().map(KeySets)
    }

    /// The keys of all sets, as they are known now.
    pub fn trusted(&self) -> KnownSets {
        KnownSets(self.0.iter().filter_map(KeySet::keys).collect())
    }

    /// Whether some set was never read: a key may be in it.
    pub fn lack_some(&self) -> bool {
        self.0.iter().any(|set| set.keys().is_none())
    }

    /// No key that is known verifies a token with this header: fetches the sets again that may have it by now.
    pub async fn look_again(&self, header: &Header) {
        if header.alg.family() == AlgorithmFamily::Hmac {
            return;
        }
        let sets = self.0.iter().filter(|set| !set.has_key_for(header));
        join_all(sets.map(KeySet::fetch_again)).await;
    }

    /// Keeps all sets fresh; runs until it is dropped.
    pub async fn keep(&self, metrics: &AccessMetrics) {
        join_all(self.0.iter().map(|set| set.keep(metrics))).await;
    }
}
