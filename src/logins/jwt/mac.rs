//! One HMAC key under one algorithm, its keyed state computed once.
//!
//! Keeps true: a signature is compared as text and in constant time, as Node's `jwa` 2.0.1 does (`createHmacVerifier`),
//! so that only the canonical one of the spellings which decode to the same bytes verifies.
//! Must not know: where keys come from, what a token says.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

use crate::config::model::JwtAlgorithm;

/// The unpadded base64url length of the longest MAC, 64 bytes.
const LONGEST_SIGNATURE: usize = 86;

/// A keyed HMAC state; verification clones it instead of hashing the key again.
#[derive(Clone)]
pub(super) enum KeyedMac {
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
}

impl KeyedMac {
    /// Keys the state; `None` for algorithms that aren't HMACs.
    pub(super) fn new(algorithm: JwtAlgorithm, secret: &[u8]) -> Option<Self> {
        match algorithm {
            JwtAlgorithm::Hs256 => Hmac::new_from_slice(secret).ok().map(Self::Sha256),
            JwtAlgorithm::Hs384 => Hmac::new_from_slice(secret).ok().map(Self::Sha384),
            JwtAlgorithm::Hs512 => Hmac::new_from_slice(secret).ok().map(Self::Sha512),
            _ => None,
        }
    }

    /// Whether `signature` is the base64url text of this key's MAC over `signed`.
    pub(super) fn verifies(&self, signed: &str, signature: &str) -> bool {
        match self {
            Self::Sha256(state) => is_mac(state, signed, signature),
            Self::Sha384(state) => is_mac(state, signed, signature),
            Self::Sha512(state) => is_mac(state, signed, signature),
        }
    }
}

fn is_mac(state: &(impl Mac + Clone), signed: &str, signature: &str) -> bool {
    let computed = state.clone().chain_update(signed).finalize().into_bytes();
    let mut text = [0; LONGEST_SIGNATURE];
    let Ok(length) = URL_SAFE_NO_PAD.encode_slice(&computed, &mut text) else {
        return false;
    };
    text.get(..length)
        .is_some_and(|text| text.ct_eq(signature.as_bytes()).into())
}
