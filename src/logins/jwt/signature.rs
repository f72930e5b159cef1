//! One public key under one algorithm, parsed once.
//!
//! Keeps true: signatures of ES256 and its like are the two numbers side by side (RFC 7518 §3.4), never DER; PSS has
//! a salt as long as its hash (§3.5).
//! Must not know: where keys come from, what a token says.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, VerificationAlgorithm,
};

use super::compact::{STACK, decode};
use crate::config::model::JwtAlgorithm;
use crate::pki::public_key::PublicKey;

/// A key, ready to verify.
pub(super) struct SignatureKey(ParsedPublicKey);

impl SignatureKey {
    /// `None` where the key is of another kind than the algorithm takes.
    pub(super) fn new(algorithm: JwtAlgorithm, key: &PublicKey) -> Option<Self> {
        if algorithm.key_kind() != Some(key.kind()) {
            return None;
        }
        key.parsed(scheme(algorithm)?).map(Self)
    }

    /// Whether `signature` is the base64url text of a signature of `signed`. Bits that fill no byte are dropped, as in
    /// Node's `Buffer.from(text, "base64")`: a signature, unlike a MAC, isn't compared as text.
    pub(super) fn verifies(&self, signed: &str, signature: &str) -> bool {
        let (mut stack, mut heap) = ([0; STACK], Vec::new());
        let signature = decode(signature, &mut stack, &mut heap);
        signature.is_some_and(|signature| self.0.verify_sig(signed.as_bytes(), signature).is_ok())
    }
}

fn scheme(algorithm: JwtAlgorithm) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match algorithm {
        JwtAlgorithm::Hs256 | JwtAlgorithm::Hs384 | JwtAlgorithm::Hs512 => return None,
        JwtAlgorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        JwtAlgorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
        JwtAlgorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        JwtAlgorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
        JwtAlgorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
        JwtAlgorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
        JwtAlgorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
        JwtAlgorithm::Es384 => &ECDSA_P384_SHA384_FIXED,
        JwtAlgorithm::Es512 => &ECDSA_P521_SHA512_FIXED,
        JwtAlgorithm::EdDsa => &ED25519,
    })
}
