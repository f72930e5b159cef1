//! `[auth.jwt]` after validation: whose JWTs are believed.
//!
//! Must not know: how a signature is verified.

use std::time::Duration;

use crate::config::secret::Secret;
use crate::http::url::Url;
use crate::pki::public_key::{KeyKind, PublicKey};

/// `[auth.jwt]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwt {
    /// The allow-list; never empty.
    pub algorithms: Vec<JwtAlgorithm>,
    /// Never empty, unless there is a `jwks_url`.
    pub keys: Vec<JwtKey>,
    /// Where a key set is fetched from (RFC 7517 §5), besides `keys`; https, or on this machine.
    pub jwks_url: Option<Url>,
    /// Accepted `iss` values; empty accepts any.
    pub issuer: String,
    /// Accepted `aud`; empty ignores `aud`.
    pub audience: String,
    /// Clock tolerance for `exp` and `nbf`: 0 s.
    pub leeway: Duration,
    /// Refuses tokens without `exp`.
    pub require_exp: bool,
    /// How long replaced keys go on verifying: 10 min.
    pub key_grace: Duration,
    /// The claim that names the subject.
    pub subject_claim: String,
    /// The claim that names the login session; empty for none.
    pub session_claim: String,
}

/// A JWT signature algorithm (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512.
    Es512,
    /// Ed25519.
    EdDsa,
}

impl JwtAlgorithm {
    /// Each with its name in `alg`; Ed25519 has two (RFC 9864 §2.2).
    pub const NAMES: [(&'static str, Self); 14] = [
        ("HS256", Self::Hs256),
        ("HS384", Self::Hs384),
        ("HS512", Self::Hs512),
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("ES512", Self::Es512),
        ("EdDSA", Self::EdDsa),
        ("Ed25519", Self::EdDsa),
    ];

    /// The algorithm of exactly this name.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, algorithm)| *algorithm)
    }

    /// The kind of public key that it takes; `None` where both sides share a secret.
    pub(crate) fn key_kind(self) -> Option<KeyKind> {
        match self {
            Self::Hs256 | Self::Hs384 | Self::Hs512 => None,
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => {
                Some(KeyKind::Rsa)
            }
            Self::Es256 => Some(KeyKind::P256),
            Self::Es384 => Some(KeyKind::P384),
            Self::Es512 => Some(KeyKind::P521),
            Self::EdDsa => Some(KeyKind::Ed25519),
        }
    }
}

/// One key: `auth.jwt.secret`, `auth.jwt.public_key_file`, or an entry of `auth.jwt.keys`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtKey {
    /// Compared with a token's `kid` when both have one; empty for a key that stands alone.
    pub id: String,
    /// The one algorithm it verifies; `None` is any of the allow-list that its material takes.
    pub algorithm: Option<JwtAlgorithm>,
    /// The secret or the public key that verifies tokens.
    pub material: KeyMaterial,
}

/// The secret or the public key of a key, which decides the algorithms that the key can ever be used with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyMaterial {
    /// A secret shared with the signer, never empty: HS256, HS384, HS512.
    Secret(Secret),
    /// A public key: the algorithms of its kind.
    Public(PublicKey),
}

impl KeyMaterial {
    /// Whether a key of this material can be used with this algorithm.
    pub(crate) fn takes(&self, algorithm: JwtAlgorithm) -> bool {
        match self {
            Self::Secret(_) => algorithm.key_kind().is_none(),
            Self::Public(key) => algorithm.key_kind() == Some(key.kind()),
        }
    }
}
