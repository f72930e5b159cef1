//! JSON Web Tokens (RFC 7519), signed with a shared secret or a private key.
//!
//! Keeps true: where nothing is configured, verdicts equal those of Node's `jsonwebtoken` 9
//! (`tests/logins/jwt_parity.rs`). The allow-list and the keys decide, never the token's header. Only the header is
//! read before the signature is verified. Work is linear in the token's length, which the header limit bounds.
//! Must not know: channels, roles, how a refusal is written.

mod authorization;
mod claims;
mod compact;
mod cookie;
mod jwks;
mod key;
mod key_set;
mod mac;
mod members;
mod signature;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

pub(crate) use authorization::authorization;
pub use claims::{ClaimValue, JwtClaims};
pub(crate) use cookie::cookie;
pub use jwks::{KeySet, OLDEST};

use crate::config::model::{Jwt, JwtAlgorithm};
use crate::terms::clock::{Clock, is_plausible};
use crate::terms::outcome::{Outcome, UnauthenticatedReason};
use compact::{Compact, Header, STACK, decode, header_text};
use jwks::{KeySetVerdict, VerifyingKeys};
use key::KeyRing;
use members::members;

/// The greatest length in bytes of a subject, which is a key in many tables, and of a session.
const LONGEST_SUBJECT: usize = 255;

/// Verifies tokens under one configuration. It is made anew by each reload and shared by all workers.
pub struct Verifier {
    algorithms: Vec<JwtAlgorithm>,
    issuer: String,
    audience: String,
    leeway: f64,
    subject_claim: String,
    session_claim: String,
    ring: KeyRing,
    key_set: Option<Arc<KeySet>>,
    /// The keys of the previous set, which had another URL, and until when they verify.
    former_set: Option<(Arc<VerifyingKeys>, Duration)>,
}

/// Why a token isn't accepted. The text is fit for clients and for the log: it quotes nothing of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// No token at all.
    #[error("Authentication required")]
    Missing,
    /// A cookie, in a request that another site's page may have caused.
    #[error("A login in a cookie needs a JSON body and an allowed Origin")]
    CookieAlone,
    /// Not a JSON Web Token.
    #[error("Malformed token")]
    Malformed,
    /// `alg` isn't allowed.
    #[error("Token algorithm not allowed")]
    Algorithm,
    /// No signature, or no key verifies it.
    #[error("Invalid token signature")]
    Signature,
    /// No known key verifies the token. The key set may have one by now, but can't be read again now.
    #[error("The key of this login isn't known right now")]
    KeyUnknown,
    /// No key set was ever read, or the last one is too old.
    #[error("The keys that verify logins can't be read right now")]
    NoKeys,
    /// The system's clock can't be right, so whether the login has expired can't be told.
    #[error("The time of day isn't known right now")]
    NoTime,
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
    /// The outcome: 401, where clients may renew on `token_expired`, or 503 where the token can't be judged.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::KeyUnknown => Outcome::LoginUnverified,
            Self::NoKeys | Self::NoTime => Outcome::Unavailable,
            Self::Expired => Outcome::TokenExpired,
            _ => Outcome::Unauthenticated,
        }
    }

    /// The reason as audit and metrics name it; `None` where the outcome says it all, or where the token can't be
    /// judged.
    pub(crate) fn reason(self) -> Option<UnauthenticatedReason> {
        Some(match self {
            Self::Missing | Self::CookieAlone => UnauthenticatedReason::Missing,
            Self::Malformed | Self::Time => UnauthenticatedReason::Malformed,
            Self::Algorithm => UnauthenticatedReason::Algorithm,
            Self::Signature => UnauthenticatedReason::Signature,
            Self::NotYetValid => UnauthenticatedReason::NotYetValid,
            Self::Audience => UnauthenticatedReason::Audience,
            Self::Issuer => UnauthenticatedReason::Issuer,
            Self::Subject => UnauthenticatedReason::Subject,
            Self::Expired | Self::KeyUnknown | Self::NoKeys | Self::NoTime => return None,
        })
    }
}

// === impl Verifier ===

impl Verifier {
    /// Prepares the configured keys.
    ///
    /// Keys of `previous` that are no longer configured verify until `key_grace` from now; those it had already
    /// retired verify until the earlier of that and their own end. The allow-list, issuer and audience are the new
    /// ones at once.
    pub fn new(config: &Jwt, previous: Option<&Self>, clock: &Clock) -> Self {
        let now = clock.elapsed();
        let grace_ends = now.saturating_add(config.key_grace);
        let previous = previous.map(|verifier| &verifier.ring);
        let ends = (grace_ends, grace_ends);
        Self {
            algorithms: config.algorithms.clone(),
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            leeway: config.leeway.as_secs_f64(),
            subject_claim: config.subject_claim.clone(),
            session_claim: config.session_claim.clone(),
            ring: KeyRing::new(&config.keys, &config.algorithms, previous, now, ends),
            key_set: None,
            former_set: None,
        }
    }

    /// Accepts the keys of a set too. The set that `previous` had, if it was another, verifies until `grace` from
    /// now.
    #[must_use]
    pub fn with_key_set(
        mut self,
        key_set: Option<Arc<KeySet>>,
        previous: Option<&Self>,
        grace: Duration,
        clock: &Clock,
    ) -> Self {
        let now = clock.elapsed();
        let ends = now.saturating_add(grace);
        let before = previous.and_then(|verifier| verifier.former_set.clone());
        let before = before.map(|(keys, until)| (keys, until.min(ends)));
        let left = previous.and_then(|verifier| verifier.key_set.as_ref());
        let left = left.filter(|left| key_set.as_ref().is_none_or(|set| !Arc::ptr_eq(set, left)));
        self.former_set = left
            .map(|left| (left.known(), ends))
            .or(before)
            .filter(|(_, until)| *until > now);
        self.key_set = key_set;
        self
    }

    /// The set of `auth.jwt.jwks_url`.
    pub fn key_set(&self) -> Option<&Arc<KeySet>> {
        self.key_set.as_ref()
    }

    /// Verifies a token as [`Verifier::verify`] does. A token that no key verifies is refused only by a key set that
    /// was read after this call; the call waits for that until `due`.
    pub async fn identify(
        &self,
        token: &str,
        clock: &Clock,
        due: Instant,
    ) -> Result<JwtClaims, JwtError> {
        let Some(key_set) = &self.key_set else {
            return self.verify(token, clock);
        };
        let came = key_set.moment();
        loop {
            // This is asked before the keys are: a read may end in between.
            let is_final = key_set.was_read_since(came);
            let verdict = self.verify(token, clock);
            match verdict {
                Err(JwtError::KeyUnknown) if is_final => return Err(JwtError::Signature),
                Err(JwtError::KeyUnknown | JwtError::NoKeys) => {}
                _ => return verdict,
            }
            // The end of a read that was already running ends this wait too. Another may then begin; no third is
            // needed.
            let read = timeout_at(due, key_set.read_again(came)).await;
            if read != Ok(true) {
                return verdict;
            }
        }
    }

    /// Verifies a token in compact serialization at the clock's time.
    ///
    /// Errors: the first check that fails, in `jsonwebtoken`'s order; the subject last.
    pub fn verify(&self, token: &str, clock: &Clock) -> Result<JwtClaims, JwtError> {
        let compact = Compact::split(token).ok_or(JwtError::Malformed)?;
        let typed = self.authenticate(&compact, clock)?;
        let (mut stack, mut heap) = ([0; STACK], Vec::new());
        let payload = decode(compact.payload, &mut stack, &mut heap).ok_or(JwtError::Malformed)?;
        // Node's `jws` 4.0.1 decodes payloads as UTF-8 (`payloadFromJWS` in `lib/verify-stream.js`), with U+FFFD for
        // invalid bytes.
        let payload = String::from_utf8_lossy(payload);
        let payload = unwrapped(&payload, typed);
        self.claims(&payload, typed, clock.unix_seconds())
    }

    /// Checks algorithm and signature; returns whether the header's `typ` is `JWT`.
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
        let key_id = header.key_id.as_deref();
        if self.ring.verifies(compact, algorithm, key_id, clock) {
            return Ok(header.typed);
        }
        match self.verdict_of_sets(compact, algorithm, key_id, clock) {
            Some(KeySetVerdict::Verifies) => Ok(header.typed),
            Some(KeySetVerdict::Unverified) => Err(JwtError::KeyUnknown),
            Some(KeySetVerdict::NoKeys) => Err(JwtError::NoKeys),
            None => Err(JwtError::Signature),
        }
    }

    /// The verdict of the key sets on a token; `None` where no set can have a key for it.
    fn verdict_of_sets(
        &self,
        compact: &Compact<'_>,
        algorithm: JwtAlgorithm,
        key_id: Option<&str>,
        clock: &Clock,
    ) -> Option<KeySetVerdict> {
        // Only public keys come from sets.
        algorithm.key_kind()?;
        let set = self.key_set.as_deref();
        let verdict_now = set.map(|set| set.verdict(compact, algorithm, key_id));
        let now = clock.elapsed();
        match &self.former_set {
            Some((former, until))
                if verdict_now != Some(KeySetVerdict::Verifies)
                    && now < *until
                    && former.verdict(compact, algorithm, key_id, clock)
                        == KeySetVerdict::Verifies =>
            {
                Some(KeySetVerdict::Verifies)
            }
            _ => verdict_now,
        }
    }

    /// Checks the claims of an authentic payload.
    #[allow(clippy::cast_precision_loss)] // seconds stay far below 2⁵³, and Node computes in doubles too
    fn claims(&self, payload: &str, typed: bool, now: u64) -> Result<JwtClaims, JwtError> {
        let (subject, session) = (self.subject_claim.as_str(), self.session_claim.as_str());
        let names = [subject, session, "exp", "nbf", "iss", "aud"];
        let [subject, session, expires_at, not_before, issuer, audience] =
            match members(payload, names) {
                Ok(Some(found)) => found,
                // Node's `jsonwebtoken` 9.0.3 fails reading claims of `null` (`verify.js`, `payload.nbf`).
                Ok(None) if typed && payload.trim_ascii() == "null" => {
                    return Err(JwtError::Malformed);
                }
                Err(_) if typed => return Err(JwtError::Malformed),
                // Any other payload verifies and has no claims.
                Ok(None) | Err(_) => [None; 6],
            };
        if !is_plausible(now) {
            return Err(JwtError::NoTime);
        }
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
        let subject = subject.and_then(identifier).ok_or(JwtError::Subject)?;
        let session = session.filter(|_| !self.session_claim.is_empty());
        Ok(JwtClaims {
            subject,
            session: session.and_then(identifier),
            expires_at,
            // With a subject in it, the payload is an object.
            all: payload.trim_ascii().into(),
        })
    }
}

impl fmt::Debug for Verifier {
    /// Leaves the keys out: their prepared states are as secret as the keys.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Verifier")
            .field("algorithms", &self.algorithms)
            .field("keys", &self.ring.keys.len())
            .field("retired", &self.ring.retired.len())
            .finish_non_exhaustive()
    }
}

/// `jsonwebtoken` parses a payload twice where `typ` is `JWT`: a JSON string that contains JSON is the JSON it
/// contains.
fn unwrapped(payload: &str, typed: bool) -> Cow<'_, str> {
    if typed
        // Nearly all payloads are objects, and to fail takes longer than to parse them.
        && payload.trim_start().starts_with('"')
        && let Ok(inner) = serde_json::from_str::<String>(payload)
        && matches!(members(&inner, []), Ok(Some([])))
    {
        return Cow::Owned(inner);
    }
    Cow::Borrowed(payload)
}

/// A subject or session as text, if its length is that of a table's key.
fn identifier(value: &str) -> Option<Box<str>> {
    let text = ClaimValue::new(value).identifier()?;
    let acceptable = (1..=LONGEST_SUBJECT).contains(&text.len());
    acceptable.then(|| text.into())
}

#[cfg(test)]
mod tests;
