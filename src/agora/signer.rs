//! One Agora project's App ID and certificate, ready to sign.
//!
//! Keeps true: both are 32 hexadecimal digits; keys derived from the certificate are wiped when dropped.
//! Must not know: what is signed.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{BuildError, is_hex_id};
use crate::config::secret::Secret;

/// An HMAC-SHA-256.
pub(super) type HmacDigest = [u8; 32];

/// HMAC-SHA-256 with its key in place.
pub(super) type KeyedHmac = Hmac<Sha256>;

/// Keys an HMAC.
pub(super) fn keyed(key: &[u8]) -> KeyedHmac {
    // HMAC takes a key of any length: the error of the trait can't arise.
    KeyedHmac::new_from_slice(key)
        .unwrap_or_else(|_| KeyedHmac::new(&hmac::digest::Key::<KeyedHmac>::default()))
}

/// The HMAC of one message.
pub(super) fn hmac(key: &[u8], message: &[u8]) -> HmacDigest {
    keyed(key)
        .chain_update(message)
        .finalize()
        .into_bytes()
        .into()
}

/// The key that signs a 007 token: the certificate, hashed under the issue time and then under the salt.
pub(super) fn signing_key(certificate: &[u8], issued_at: u32, salt: u32) -> Zeroizing<HmacDigest> {
    salted(&hmac(&issued_at.to_le_bytes(), certificate), salt)
}

fn salted(issue_key: &HmacDigest, salt: u32) -> Zeroizing<HmacDigest> {
    Zeroizing::new(hmac(&salt.to_le_bytes(), issue_key))
}

/// The first of the two steps to a 007 signing key, kept for the second it belongs to.
struct IssueKey {
    issued_at: u32,
    key: Zeroizing<HmacDigest>,
}

/// A project's App ID and certificate. Shared by all workers; signing takes no lock.
pub struct Signer {
    app_id: String,
    certificate: Secret,
    legacy: KeyedHmac,
    latest: ArcSwap<IssueKey>,
}

impl Signer {
    /// Checks both and keys what can be keyed once. Both are 32 hexadecimal digits, hashed as they are written.
    pub fn new(app_id: &str, certificate: &Secret) -> Result<Self, BuildError> {
        if !is_hex_id(app_id.as_bytes()) {
            return Err(BuildError::AppId);
        }
        if !is_hex_id(certificate.expose()) {
            return Err(BuildError::Certificate);
        }
        Ok(Self {
            app_id: app_id.to_owned(),
            certificate: certificate.clone(),
            legacy: keyed(certificate.expose()),
            latest: ArcSwap::from_pointee(IssueKey {
                issued_at: 0,
                key: Zeroizing::new(hmac(&0_u32.to_le_bytes(), certificate.expose())),
            }),
        })
    }

    /// The App ID, as written.
    pub(crate) fn app_id(&self) -> &str {
        &self.app_id
    }

    /// The key that signs a 007 token. Tokens of one second share its first step, a third of the whole work.
    pub(super) fn signing_key(&self, issued_at: u32, salt: u32) -> Zeroizing<HmacDigest> {
        let latest = self.latest.load();
        if latest.issued_at == issued_at {
            return salted(&latest.key, salt);
        }
        let key = Zeroizing::new(hmac(&issued_at.to_le_bytes(), self.certificate.expose()));
        let signing_key = salted(&key, salt);
        self.latest.store(Arc::new(IssueKey { issued_at, key }));
        signing_key
    }

    /// HMAC under the certificate itself: signs 006 tokens.
    pub(super) fn legacy(&self) -> KeyedHmac {
        self.legacy.clone()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Signer")
            .field("app_id", &self.app_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789ABCDEF";

    #[test]
    fn what_agora_refuses_to_sign_with_is_refused() {
        let good = Secret::new(ID.into());
        for bad in [
            "",
            "0123456789abcdef0123456789abcde",
            "g123456789abcdef0123456789abcdef",
        ] {
            assert_eq!(Signer::new(bad, &good).err(), Some(BuildError::AppId));
            let certificate = Secret::new(bad.into());
            assert_eq!(
                Signer::new(ID, &certificate).err(),
                Some(BuildError::Certificate)
            );
        }
    }

    #[test]
    fn a_cached_issue_key_gives_the_same_signing_key() {
        let certificate = Secret::new(ID.into());
        let signer = Signer::new(ID, &certificate).unwrap();
        for issued_at in [0, 7, 7, 8, 7] {
            let fresh = signing_key(certificate.expose(), issued_at, 5);
            assert_eq!(signer.signing_key(issued_at, 5), fresh);
        }
    }

    #[test]
    fn debug_shows_no_certificate() {
        let certificate = Secret::new(b"ffffffffffffffffffffffffffffffff".to_vec());
        let shown = format!("{:?}", Signer::new(ID, &certificate).unwrap());
        assert!(shown.contains(ID) && !shown.contains("ffff"), "{shown}");
    }
}
