//! A refusal: which row refused, what the client is told, and when to ask again.
//!
//! Must not know: how it is written.

use std::borrow::Cow;
use std::time::Duration;

use crate::limit;
use crate::sessions::ClaimRefused;
use crate::sources::accounts::Denial;
use crate::terms::outcome::{Outcome, Scope, UnauthenticatedReason};

/// How long a caller waits before asking again when a source gives no answer.
const RETRY_UNAVAILABLE: Duration = Duration::from_secs(5);

/// A refusal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DecisionRefusal {
    /// The outcome of the row that refused.
    pub outcome: Outcome,
    /// A message for the client's developer; installed clients show some of these to users.
    pub message: Cow<'static, str>,
    /// The account's own reason, where it has one.
    pub reason: Option<Box<str>>,
    /// Since when the account is suspended, where it says so.
    pub suspended_at: Option<Box<str>>,
    /// Why the login was refused, for operators; `None` where the login isn't the reason.
    pub unauthenticated: Option<UnauthenticatedReason>,
    /// When to ask again, where that helps.
    pub retry: Option<RetryAfter>,
}

/// When to ask again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RetryAfter {
    /// After this long.
    After(Duration),
    /// As the rate limit says.
    Limited(limit::LimitExceeded),
}

impl DecisionRefusal {
    pub(in crate::decision) fn new(
        outcome: Outcome,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            outcome,
            message: message.into(),
            reason: None,
            suspended_at: None,
            unauthenticated: None,
            retry: None,
        }
    }

    /// 503: the decision can't be made now.
    pub(crate) fn unavailable(message: &'static str) -> Self {
        Self {
            retry: Some(RetryAfter::After(RETRY_UNAVAILABLE)),
            ..Self::new(Outcome::Unavailable, message)
        }
    }

    /// 503: the login can't be verified now. Most logins that end here are forged.
    pub(in crate::decision) fn unverified(message: &'static str) -> Self {
        Self {
            outcome: Outcome::LoginUnverified,
            ..Self::unavailable(message)
        }
    }

    pub(in crate::decision) fn limited(refusal: limit::LimitExceeded) -> Self {
        let outcome = match refusal.scope {
            Scope::Subject | Scope::Address => Outcome::RateLimitedClient,
            Scope::Channel | Scope::Global => Outcome::RateLimitedShared,
        };
        Self {
            retry: Some(RetryAfter::Limited(refusal)),
            ..Self::new(outcome, "Too many requests, try again later")
        }
    }

    /// An operator's revocation. Installed clients show "suspended" where a message says so, which this isn't.
    pub(super) fn revoked() -> Self {
        Self::new(Outcome::Revoked, "Access has been revoked")
    }

    pub(super) fn of_account(denial: Denial) -> Self {
        let unauthenticated = match denial.outcome {
            Outcome::Unauthenticated => Some(UnauthenticatedReason::Account),
            Outcome::SessionReplaced => Some(UnauthenticatedReason::Session),
            _ => None,
        };
        Self {
            reason: denial.reason,
            suspended_at: denial.suspended_at,
            unauthenticated,
            ..Self::new(denial.outcome, String::from(denial.message))
        }
    }

    /// The session table's refusals.
    pub(crate) fn of_session(refused: ClaimRefused) -> Self {
        match refused {
            ClaimRefused::UidTaken => Self::new(
                Outcome::UidTaken,
                "This uid is in use by someone else in this channel",
            ),
            ClaimRefused::TooManyStreams => {
                Self::new(Outcome::TooManyStreams, "Too many streams at once")
            }
            ClaimRefused::SessionTooLong => Self::new(
                Outcome::SessionTooLong,
                "The session has reached its full length",
            ),
        }
    }
}
