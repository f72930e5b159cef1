//! Accounts: whether the caller's is in good standing, by the backend's own records.
//!
//! Keeps true: no answer is neither good nor bad; an account that is unknown, or signed in elsewhere, is said to be so
//! only from what the source itself said, and "signed in elsewhere" only where some login's session once was the
//! account's: a field or claim mistyped would else sign everybody out.
//! Must not know: streams, how a refusal is written.

use std::sync::Arc;
use std::time::Duration;

use super::lookup::{LookupAnswer, Lookups, NoAnswer};
use super::proven::Proof;
use crate::logins::remembered::Whom;
use crate::telemetry::metrics::SourceMetrics;
use crate::terms::outcome::Outcome;

/// What a source says of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// There is none.
    Unknown,
    /// There is one, and it may do nothing.
    Denied(Denial),
    /// In good standing.
    Good {
        /// The session it is signed in with, where the source knows.
        session: Option<Box<str>>,
    },
}

/// Why an account may do nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// [`Outcome::AccountSuspended`], [`Outcome::Unauthenticated`] or [`Outcome::SessionReplaced`].
    pub outcome: Outcome,
    /// For people; installed clients show "suspended" where it says so.
    pub message: Box<str>,
    /// The account's own reason, for `reason` in the answer.
    pub reason: Option<Box<str>>,
    /// When it was suspended, as the source writes times, for `suspendedAt` in the answer.
    pub suspended_at: Option<Box<str>>,
}

impl Denial {
    /// A denial without a reason of the account's.
    pub(crate) fn new(outcome: Outcome, message: &str) -> Self {
        Self {
            outcome,
            message: message.into(),
            reason: None,
            suspended_at: None,
        }
    }
}

/// How a login's session is compared with the account's.
#[derive(Debug)]
pub struct SessionCheck {
    /// `accounts.session_field`, with its database and collection, for the log.
    pub place: String,
    /// Shown by a login whose session is the account's.
    pub matched: Proof,
}

/// `[accounts]`: the configured source.
#[derive(Debug)]
pub enum ConfiguredAccounts {
    /// `source = "none"`: whoever has a valid JWT is in good standing.
    None,
    /// `source = "mongodb"`: asked by subject.
    BySubject {
        /// The collection.
        lookups: Arc<Lookups<Account>>,
        /// Where the JWT's session must be the account's.
        session: Option<SessionCheck>,
    },
    /// `source = "http"`: asked with the caller's own credentials.
    ByCredentials(Arc<Lookups<Account>>),
}

impl ConfiguredAccounts {
    /// The lookups, unless there are none to make.
    pub(crate) fn lookups(&self) -> Option<&Arc<Lookups<Account>>> {
        match self {
            Self::None => None,
            Self::BySubject { lookups, .. } | Self::ByCredentials(lookups) => Some(lookups),
        }
    }

    /// Its series, where there is a source.
    pub(crate) fn metrics(&self) -> Option<&SourceMetrics> {
        Some(self.lookups()?.metrics())
    }

    /// Why its answers may not be gone by in part, where that may be.
    pub(crate) fn doubt(&self) -> Option<String> {
        match self {
            Self::BySubject {
                session: Some(check),
                ..
            } if check.matched.is_missed() => Some(format!(
                "no login's session has ever been the account's {}: accounts.session_field or auth.jwt.session_claim may be \
                 another than the backend's",
                check.place
            )),
            _ => self.lookups()?.doubt(),
        }
    }

    /// Asks; `None` where there is no source. `credentials` is what the caller sent in `Authorization` or the cookie.
    pub(crate) async fn look(
        &self,
        subject: &str,
        credentials: &str,
        since: Option<Duration>,
        patience: Duration,
    ) -> Option<Result<LookupAnswer<Account>, NoAnswer>> {
        let (lookups, key) = match self {
            Self::None => return None,
            Self::BySubject { lookups, .. } => (lookups, subject),
            Self::ByCredentials(lookups) => (lookups, credentials),
        };
        Some(lookups.get(key, since, patience).await)
    }

    /// Whether the account may go on under this session.
    pub(crate) fn verdict(&self, account: &Account, session: Option<&str>) -> Result<(), Denial> {
        verdict(account, session, self.checks_session())
    }

    /// Whom the source means that denied so. Asked about a subject, it speaks of one login only where it has another one's
    /// session; asked with a login, it speaks of that where it doesn't know who that is.
    pub(crate) fn denies(&self, outcome: Outcome) -> Whom {
        match (self, outcome) {
            (_, Outcome::SessionReplaced) | (Self::ByCredentials(_), Outcome::Unauthenticated) => {
                Whom::Login
            }
            _ => Whom::Subject,
        }
    }

    /// Whether the login's session must be the account's.
    pub(crate) fn checks_session(&self) -> bool {
        matches!(
            self,
            Self::BySubject {
                session: Some(_),
                ..
            }
        )
    }

    /// Whether what the account says of this session may be gone by: where no login's session has ever been the
    /// account's, the field or the claim may be another than the backend's. `now` is on the clock's monotonic scale.
    pub(crate) fn believed(
        &self,
        account: &Account,
        session: Option<&str>,
        now: Duration,
    ) -> Result<(), NoAnswer> {
        let (
            Self::BySubject {
                session: Some(check),
                ..
            },
            Account::Good { session: current },
        ) = (self, account)
        else {
            return Ok(());
        };
        if session.is_some() && session == current.as_deref() {
            check.matched.give();
            return Ok(());
        }
        if check.matched.holds() {
            return Ok(());
        }
        let (since, first) = check.matched.missed(now);
        if first {
            tracing::error!(
                source = "accounts",
                field = check.place,
                "no login's session has ever been the account's: accounts.session_field or auth.jwt.session_claim may be \
                 another than the backend's, so nobody is refused for it and nobody new is let in"
            );
        }
        Err(NoAnswer { since })
    }
}

/// Where sessions are checked, one that is missing on either side is another one.
fn verdict(account: &Account, session: Option<&str>, checks_session: bool) -> Result<(), Denial> {
    match account {
        Account::Unknown => Err(Denial::new(
            Outcome::Unauthenticated,
            "No such account; sign in again",
        )),
        Account::Denied(denial) => Err(denial.clone()),
        Account::Good { session: current } => {
            let same = session.is_some() && session == current.as_deref();
            if checks_session && !same {
                let message = match (session, current) {
                    (_, None) => "Signed out: the account has no session; sign in again",
                    (None, _) => "This login has no session; sign in again",
                    _ => "Signed in on another device; sign in again",
                };
                return Err(Denial::new(Outcome::SessionReplaced, message));
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(session: Option<&str>) -> Account {
        Account::Good {
            session: session.map(Into::into),
        }
    }

    #[test]
    fn a_session_that_is_missing_on_either_side_is_replaced() {
        for (current, presented, said) in [
            (Some("one"), Some("one"), None),
            (Some("one"), Some("two"), Some("another device")),
            (Some("one"), None, Some("This login has no session")),
            (None, Some("one"), Some("Signed out")),
            (None, None, Some("Signed out")),
        ] {
            let denial = verdict(&good(current), presented, true).err();
            assert_eq!(
                denial.is_some(),
                said.is_some(),
                "{current:?} {presented:?}"
            );
            if let (Some(denial), Some(said)) = (denial, said) {
                assert_eq!(denial.outcome, Outcome::SessionReplaced);
                assert!(denial.message.contains(said), "{}", denial.message);
            }
            assert_eq!(verdict(&good(current), presented, false), Ok(()));
        }
    }

    #[test]
    fn what_the_source_denies_is_denied_in_its_words() {
        let denial = Denial {
            reason: Some("spam".into()),
            ..Denial::new(Outcome::AccountSuspended, "Account suspended")
        };
        let denied = Account::Denied(denial.clone());
        assert_eq!(verdict(&denied, Some("one"), true), Err(denial));
        assert_eq!(
            verdict(&Account::Unknown, None, false).unwrap_err().outcome,
            Outcome::Unauthenticated
        );
    }
}
