//! Row 4: the limits on subject, channel and all requests. Where replicas share a store, it decides; while it gives no
//! answer, `rate_limit.on_store_error` says what does.
//!
//! Keeps true: a request waits for the store at most `redis.timeout`, and not at all once the store is known to be
//! down. What the store grants is charged to this process' own limits too, whose verdict then doesn't count: when the
//! store fails, no caller begins with a full burst.
//! Must not know: how limits are counted.

use super::DecisionRefusal;
use crate::config::model::OnStoreError;
use crate::limit::{Charge, LimitExceeded};
use crate::snapshot::Snapshot;

/// The verdict of the limits, and the owner of these limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decision) struct LimitsAsked {
    /// The verdict.
    pub(in crate::decision) answer: LimitAnswer,
    /// The owner of the limits.
    pub(in crate::decision) by: LimitsBy,
}

/// The verdict of the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decision) enum LimitAnswer {
    /// The request is within all of them.
    Within,
    /// The request is over one of them.
    Exceeded(LimitExceeded),
    /// No limit was asked: `on_store_error = "deny"`.
    Unknown,
}

/// The owner of the limits that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decision) enum LimitsBy {
    /// Those of all replicas together.
    Store,
    /// This process' own.
    Process,
    /// None: the store gives no answer, and `on_store_error` is `"allow"` or `"deny"`.
    Nothing,
}

impl LimitAnswer {
    /// The row's verdict.
    pub(super) fn verdict(self) -> Result<(), DecisionRefusal> {
        match self {
            Self::Within => Ok(()),
            Self::Exceeded(exceeded) => Err(DecisionRefusal::limited(exceeded)),
            Self::Unknown => Err(DecisionRefusal::unavailable(
                "Rate limits can't be checked right now",
            )),
        }
    }
}

impl From<Result<(), LimitExceeded>> for LimitAnswer {
    fn from(checked: Result<(), LimitExceeded>) -> Self {
        checked.map_or_else(Self::Exceeded, |()| Self::Within)
    }
}

/// Asks the limits, and charges them if the request is within all of them and `charge` says so.
pub(in crate::decision) async fn ask(
    snapshot: &Snapshot,
    subject: &str,
    channel: &str,
    renewal: bool,
    charge: Charge,
) -> LimitsAsked {
    let limiter = &snapshot.limiter;
    let own = || limiter.check_local(subject, channel, renewal, charge);
    let Some(store) = &snapshot.store else {
        return LimitsAsked {
            answer: own().into(),
            by: LimitsBy::Process,
        };
    };
    let asking = store.check_shared(limiter, subject, channel, renewal, charge);
    let (answer, by) = match (asking.await, snapshot.config.rate_limit.on_store_error) {
        (Ok(shared), _) => {
            if shared.is_ok() {
                // The verdict of these limits doesn't count: their overflow bucket is shared by strangers.
                let _ = own();
            }
            (shared.into(), LimitsBy::Store)
        }
        (Err(_), OnStoreError::Local) => (own().into(), LimitsBy::Process),
        (Err(_), OnStoreError::Allow) => {
            // Charged for the time when the limits count again.
            let _ = own();
            (LimitAnswer::Within, LimitsBy::Nothing)
        }
        (Err(_), OnStoreError::Deny) => (LimitAnswer::Unknown, LimitsBy::Nothing),
    };
    LimitsAsked { answer, by }
}
