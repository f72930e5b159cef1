//! The key of the hashes by which logins are remembered.
//!
//! Keeps true: the key is wiped when it is dropped, and is never shown.
//! Must not know: what is remembered.

use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroU64;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::remembered::{KEY, Login};

#[derive(Clone)]
pub(super) struct LoginKey {
    pub(super) bytes: Zeroizing<[u8; KEY]>,
    keyed: Hmac<Sha256>,
}

impl LoginKey {
    pub(super) fn new(bytes: [u8; KEY]) -> Self {
        // HMAC fills a shorter key up with zeros to its block (RFC 2104).
        let mut block = Zeroizing::new([0; 64]);
        block[..KEY].copy_from_slice(&bytes);
        let keyed = Hmac::new((&*block).into());
        Self {
            bytes: Zeroizing::new(bytes),
            keyed,
        }
    }

    /// A random key of 128 bits from the system, as the hash tables of this process have.
    pub(super) fn drawn() -> Self {
        let mut bytes = [0; KEY];
        let hasher = RandomState::new();
        for (number, part) in bytes.chunks_exact_mut(8).enumerate() {
            part.copy_from_slice(&hasher.hash_one(number).to_le_bytes());
        }
        Self::new(bytes)
    }

    pub(super) fn hash(&self, kind: u8, parts: [&str; 2]) -> Login {
        let mut mac = self.keyed.clone();
        mac.update(&[kind]);
        for part in parts {
            let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
            mac.update(&length.to_le_bytes());
            mac.update(part.as_bytes());
        }
        let hash = mac.finalize().into_bytes();
        let first = hash
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Login(NonZeroU64::new(first).unwrap_or(NonZeroU64::MAX))
    }

    pub(super) fn subject(&self, subject: &str) -> Login {
        self.hash(b'p', [subject, ""])
    }
}

impl std::fmt::Debug for LoginKey {
    /// Leaves the key out.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("LoginKey").finish_non_exhaustive()
    }
}
