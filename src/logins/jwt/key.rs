//! Keys as they verify: each prepared for every algorithm that it may be used with.
//!
//! Keeps true: a key's material decides what it can verify, then its own algorithm, then the allow-list; a token's
//! header only chooses among those. No public key ever verifies an HMAC.
//! Must not know: where keys come from.

use std::time::Duration;

use super::compact::Compact;
use super::mac::KeyedMac;
use super::signature::SignatureKey;
use crate::config::model::{JwtAlgorithm, JwtKey, KeyMaterial};
use crate::terms::clock::Clock;

/// The keys in force, and those that were replaced and still verify.
#[derive(Default)]
pub(super) struct KeyRing {
    pub(super) keys: Vec<VerificationKey>,
    /// With the moments until which they verify, on the clock's monotonic scale: setting the time of day neither ends
    /// nor prolongs them.
    pub(super) retired: Vec<(VerificationKey, Duration)>,
}

impl KeyRing {
    /// `keys` are in force from `now` on. Keys of the `previous` ring that aren't among them verify until
    /// `grace_ends`; those that had been retired before verify until their own end, and no longer than `latest`.
    pub(super) fn new(
        keys: &[JwtKey],
        allowed: &[JwtAlgorithm],
        previous: Option<&Self>,
        now: Duration,
        (grace_ends, latest): (Duration, Duration),
    ) -> Self {
        let prepared = |key| VerificationKey::new(key, allowed);
        let replaced = previous.into_iter().flat_map(|ring| &ring.keys);
        let retired = previous.into_iter().flat_map(|ring| &ring.retired);
        let retired = replaced
            .map(|key| (key, grace_ends))
            .chain(retired.map(|(key, until)| (key, latest.min(*until))))
            .filter(|(key, until)| *until > now && !keys.contains(&key.config))
            .map(|(key, until)| (prepared(&key.config), until))
            .collect();
        Self {
            keys: keys.iter().map(prepared).collect(),
            retired,
        }
    }

    /// Whether one of the keys verifies a token signed under `algorithm`.
    pub(super) fn verifies(
        &self,
        compact: &Compact<'_>,
        algorithm: JwtAlgorithm,
        key_id: Option<&str>,
        clock: &Clock,
    ) -> bool {
        let verifies = |key: &VerificationKey| key.verifies(compact, algorithm, key_id);
        self.keys.iter().any(verifies)
            || (!self.retired.is_empty() && {
                let now = clock.elapsed();
                let mut retired = self.retired.iter();
                retired.any(|(key, until)| now < *until && verifies(key))
            })
    }
}

/// A configured or fetched key with its prepared states, one for each algorithm it may verify.
pub(super) struct VerificationKey {
    config: JwtKey,
    checks: Vec<(JwtAlgorithm, Check)>,
}

/// A key's prepared state under one algorithm.
#[allow(clippy::large_enum_variant)] // one for each key and algorithm, and read for every token: no detour
enum Check {
    Mac(KeyedMac),
    Signature(SignatureKey),
}

impl VerificationKey {
    /// Prepares a key for those `allowed` algorithms that it can verify.
    fn new(config: &JwtKey, allowed: &[JwtAlgorithm]) -> Self {
        let bound = |algorithm: &JwtAlgorithm| config.algorithm.is_none_or(|own| own == *algorithm);
        let check = |algorithm| {
            let check = match &config.material {
                KeyMaterial::Secret(secret) => {
                    Check::Mac(KeyedMac::new(algorithm, secret.expose())?)
                }
                KeyMaterial::Public(key) => Check::Signature(SignatureKey::new(algorithm, key)?),
            };
            Some((algorithm, check))
        };
        Self {
            config: config.clone(),
            checks: allowed
                .iter()
                .copied()
                .filter(bound)
                .filter_map(check)
                .collect(),
        }
    }

    /// A `kid` on both sides must be equal; without one on either side the key is tried.
    fn verifies(
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
