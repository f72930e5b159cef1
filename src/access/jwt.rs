//! Who is calling: JSON Web Tokens (RFC 7519) signed with a shared secret.
//!
//! Keeps true: where nothing is configured, verdicts equal Node's `jsonwebtoken` 9 (`tests/jwt_parity.rs`). The allow-list
//! and the keys decide, never the token's header. Nothing of a token is interpreted before its signature verified, but its
//! header. Work is linear in the token's length, which the header limit bounds.
//! Must not know: channels, roles, how a refusal is written.

mod authorization;
mod compact;
mod mac;
mod members;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

pub use authorization::authorization;

use crate::clock::Clock;
use crate::config::model::{Jwt, JwtAlgorithm, JwtKey};
use crate::telemetry::labels::Outcome;
use compact::{Compact, Header, STACK, decode, header_text};
use mac::Mac;
use members::members;

/// A subject's greatest length in bytes: it is a key in every table we keep.
const LONGEST_SUBJECT: usize = 255;

/// The largest integer that a JSON number holds without loss in JavaScript, 2⁵³ − 1 (`Number.MAX_SAFE_INTEGER`).
const LARGEST_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

/// Verifies tokens under one configuration; made once a reload, shared by all workers.
pub struct Verifier {
    algorithms: Vec<JwtAlgorithm>,
    issuer: String,
    audience: String,
    leeway: f64,
    subject_claim: String,
    keys: Vec<Key>,
    retired: Vec<Retired>,
}

/// What a verified token says.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims {
    /// The value of `auth.jwt.subject_claim`: 1 to 255 bytes.
    pub subject: Box<str>,
    /// `exp`, seconds since the Unix epoch; may have a fraction, may be infinite. `None` in a token that never expires.
    pub expires_at: Option<f64>,
}

/// Why a token isn't accepted. The text is fit for clients and for the log: it quotes nothing of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// No token at all.
    #[error("Authentication required")]
    Missing,
    /// Not a JSON Web Token.
    #[error("Malformed token")]
    Malformed,
    /// `alg` isn't allowed.
    #[error("Token algorithm not allowed")]
    Algorithm,
    /// No signature, or no key verifies it.
    #[error("Invalid token signature")]
    Signature,
    /// `exp` or `nbf` isn't a number.
    #[error("Invalid time in token")]
    Time,
    /// `nbf` lies ahead.
    #[error("Token not active yet")]
    NotYetValid,
    /// `exp` has passed.
    #[error("Token expired")]
    Expired,
    /// `aud` isn't the configured one.
    #[error("Invalid token audience")]
    Audience,
    /// `iss` isn't the configured one.
    #[error("Invalid token issuer")]
    Issuer,
    /// The subject's claim is missing, empty, too long, or neither a string nor an integer.
    #[error("Token names no subject")]
    Subject,
}

impl JwtError {
    /// Both are 401; clients may renew on `token_expired`.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Expired => Outcome::TokenExpired,
            _ => Outcome::Unauthenticated,
        }
    }
}

/// A configured key with its keyed states, one for each algorithm it may verify.
struct Key {
    config: JwtKey,
    macs: Vec<(JwtAlgorithm, Mac)>,
}

/// A key that was replaced and still verifies.
struct Retired {
    key: Key,
    /// On the clock's monotonic scale, so that setting the time of day neither ends nor prolongs it.
    until: Duration,
}

// === impl Verifier ===

impl Verifier {
    /// Prepares the configured keys.
    ///
    /// Keys of `previous` that are configured no more go on verifying until `key_grace` from now, those it had already
    /// retired until the earlier of that and their time; allow-list, issuer and audience are the new ones at once.
    pub fn new(config: &Jwt, previous: Option<&Self>, clock: &Clock) -> Self {
        let now = clock.elapsed();
        let grace_ends = now.saturating_add(config.key_grace);
        let current = previous.into_iter().flat_map(|verifier| &verifier.keys);
        let retired = previous.into_iter().flat_map(|verifier| &verifier.retired);
        let retired = current
            .map(|key| (key, grace_ends))
            .chain(retired.map(|retired| (&retired.key, retired.until.min(grace_ends))))
            .filter(|(key, until)| *until > now && !config.keys.contains(&key.config))
            .map(|(key, until)| Retired {
                key: Key::new(&key.config, &config.algorithms),
                until,
            })
            .collect();
        let keys = config
            .keys
            .iter()
            .map(|key| Key::new(key, &config.algorithms))
            .collect();
        Self {
            algorithms: config.algorithms.clone(),
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            leeway: config.leeway.as_secs_f64(),
            subject_claim: config.subject_claim.clone(),
            keys,
            retired,
        }
    }

    /// Verifies a token in compact serialization at the clock's time.
    ///
    /// Errors: the first check that fails, in `jsonwebtoken`'s order; the subject last.
    pub fn verify(&self, token: &str, clock: &Clock) -> Result<Claims, JwtError> {
        let compact = Compact::split(token).ok_or(JwtError::Malformed)?;
        let typed = self.authenticate(&compact, clock)?;
        let (mut stack, mut heap) = ([0; STACK], Vec::new());
        let payload = decode(compact.payload, &mut stack, &mut heap).ok_or(JwtError::Malformed)?;
        // Node decodes payloads as UTF-8, with U+FFFD for what isn't.
        let payload = String::from_utf8_lossy(payload);
        let payload = unwrapped(&payload, typed);
        self.claims(&payload, typed, clock.unix_seconds())
    }

    /// Checks algorithm and signature; whether the header's `typ` is `JWT`.
    fn authenticate(&self, compact: &Compact<'_>, clock: &Clock) -> Result<bool, JwtError> {
        let (mut stack, mut heap) = ([0; STACK], Vec::new());
        let header = decode(compact.header, &mut stack, &mut heap).ok_or(JwtError::Malformed)?;
        let header = header_text(header);
        let header = Header::parse(&header).ok_or(JwtError::Malformed)?;
        if compact.signature.is_empty() {
            return Err(JwtError::Signature);
        }
        let algorithm = header
            .algorithm
            .filter(|algorithm| self.algorithms.contains(algorithm))
            .ok_or(JwtError::Algorithm)?;
        let verifies = |key: &Key| key.verifies(compact, algorithm, header.key_id.as_deref());
        let authentic = self.keys.iter().any(verifies)
            || (!self.retired.is_empty() && {
                let now = clock.elapsed();
                let mut retired = self.retired.iter();
                retired.any(|retired| now < retired.until && verifies(&retired.key))
            });
        if authentic {
            Ok(header.typed)
        } else {
            Err(JwtError::Signature)
        }
    }

    /// Checks what an authentic payload says.
    #[allow(clippy::cast_precision_loss)] // seconds stay far below 2⁵³, and Node computes in doubles too
    fn claims(&self, payload: &str, typed: bool, now: u64) -> Result<Claims, JwtError> {
        let names = [self.subject_claim.as_str(), "exp", "nbf", "iss", "aud"];
        let [subject, expires_at, not_before, issuer, audience] = match members(payload, names) {
            Ok(Some(found)) => found,
            // Node fails reading claims of `null`.
            Ok(None) if typed && payload.trim_ascii() == "null" => return Err(JwtError::Malformed),
            Err(_) if typed => return Err(JwtError::Malformed),
            // Any other payload verifies and has no claims.
            Ok(None) | Err(_) => [None; 5],
        };
        let now = now as f64;
        if let Some(not_before) = not_before {
            let not_before = members::number(not_before).ok_or(JwtError::Time)?;
            if not_before > now + self.leeway {
                return Err(JwtError::NotYetValid);
            }
        }
        let expires_at = match expires_at {
            None => None,
            Some(value) => Some(members::number(value).ok_or(JwtError::Time)?),
        };
        if expires_at.is_some_and(|expires_at| now >= expires_at + self.leeway) {
            return Err(JwtError::Expired);
        }
        if !self.audience.is_empty()
            && !audience.is_some_and(|value| members::is_or_contains(value, &self.audience))
        {
            return Err(JwtError::Audience);
        }
        if !self.issuer.is_empty()
            && issuer.and_then(members::string).as_deref() != Some(self.issuer.as_str())
        {
            return Err(JwtError::Issuer);
        }
        let subject = subject.and_then(subject_text).ok_or(JwtError::Subject)?;
        Ok(Claims {
            subject,
            expires_at,
        })
    }
}

impl fmt::Debug for Verifier {
    /// Shows no key material: the keyed states are as good as the keys.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Verifier")
            .field("algorithms", &self.algorithms)
            .field("keys", &self.keys.len())
            .field("retired", &self.retired.len())
            .finish_non_exhaustive()
    }
}

// === impl Key ===

impl Key {
    fn new(config: &JwtKey, allowed: &[JwtAlgorithm]) -> Self {
        let bound = |algorithm: &JwtAlgorithm| {
            config.algorithm.is_none() || config.algorithm == Some(*algorithm)
        };
        let secret = config.secret.expose();
        let macs = allowed
            .iter()
            .copied()
            .filter(bound)
            .filter_map(|algorithm| Some((algorithm, Mac::new(algorithm, secret)?)))
            .collect();
        Self {
            config: config.clone(),
            macs,
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
        let mac = self.macs.iter().find(|(bound, _)| *bound == algorithm);
        named && mac.is_some_and(|(_, mac)| mac.verifies(compact.signed, compact.signature))
    }
}

/// `jsonwebtoken` parses a payload twice where `typ` is `JWT`: a JSON string that contains JSON is the JSON it contains.
fn unwrapped(payload: &str, typed: bool) -> Cow<'_, str> {
    if typed
        && let Ok(inner) = serde_json::from_str::<String>(payload)
        && matches!(members(&inner, []), Ok(Some([])))
    {
        return Cow::Owned(inner);
    }
    Cow::Borrowed(payload)
}

/// A subject as text: a string as it is, an integer in decimal digits, as MongoDB ids and SQL ids come.
fn subject_text(value: &str) -> Option<Box<str>> {
    let text = match members::number(value) {
        Some(number) if number.fract() == 0.0 && number.abs() <= LARGEST_SAFE_INTEGER => {
            // JavaScript writes -0 as "0".
            Cow::Owned(format!("{:.0}", number + 0.0))
        }
        Some(_) => return None,
        None => members::string(value)?,
    };
    let acceptable = (1..=LONGEST_SUBJECT).contains(&text.len());
    acceptable.then(|| text.into())
}

#[cfg(test)]
mod tests;
