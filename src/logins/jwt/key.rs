//! A key as it verifies: prepared for every algorithm that it may be used with.
//!
//! Keeps true: a key's material decides what it can verify, then its own algorithm, then the allow-list; a token's header
//! only chooses among those. No public key ever verifies an HMAC.
//! Must not know: where keys come from.

use super::compact::Compact;
use super::mac::Mac;
use super::signature::SignatureKey;
use crate::config::model::{JwtAlgorithm, JwtKey, KeyMaterial};

/// A configured or fetched key with its prepared states, one for each algorithm it may verify.
pub(super) struct VerificationKey {
    pub(super) config: JwtKey,
    checks: Vec<(JwtAlgorithm, Check)>,
}

/// A key's prepared state under one algorithm.
#[allow(clippy::large_enum_variant)] // one for each key and algorithm, and read for every token: no detour
enum Check {
    Mac(Mac),
    Signature(SignatureKey),
}

impl VerificationKey {
    /// Prepares a key for those of the `allowed` algorithms that it takes.
    pub(super) fn new(config: &JwtKey, allowed: impl IntoIterator<Item = JwtAlgorithm>) -> Self {
        let bound = |algorithm: &JwtAlgorithm| config.algorithm.is_none_or(|own| own == *algorithm);
        let check = |algorithm| {
            let check = match &config.material {
                KeyMaterial::Secret(secret) => Check::Mac(Mac::new(algorithm, secret.expose())?),
                KeyMaterial::Public(key) => Check::Signature(SignatureKey::new(algorithm, key)?),
            };
            Some((algorithm, check))
        };
        Self {
            config: config.clone(),
            checks: allowed
                .into_iter()
                .filter(bound)
                .filter_map(check)
                .collect(),
        }
    }

    /// A `kid` on both sides must be equal; without one on either side the key is tried.
    pub(super) fn verifies(
        &self,
        compact: &Compact<'_>,
        algorithm: JwtAlgorithm,
        key_id: Option<&str>,
    ) -> bool {
        let named = self.config.id.is_empty() || key_id.is_none_or(|id| id == self.config.id);
        let check = self.checks.iter().find(|(bound, _)| *bound == algorithm);
        named
            && match check {
                Some((_, Check::Mac(mac))) => mac.verifies(compact.signed, compact.signature),
                Some((_, Check::Signature(key))) => key.verifies(compact.signed, compact.signature),
                None => false,
            }
    }
}
