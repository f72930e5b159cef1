//! Accounts: whether the caller's account is in good standing, by the backend's own records.
//!
//! Keeps true: no answer is neither good nor bad; an account is called unknown, or signed in elsewhere, only by what
//! the source itself said, and "signed in elsewhere" only where a login's session was once found to be the account's:
//! a mistyped field or claim would otherwise sign out every user.
//! Must not know: streams, how a refusal is written.

use std::sync::Arc;
use std::time::Duration;

use super::lookup::{LookupAnswer, Lookups, NoAnswer};
use super::proven::Proof;
use crate::logins::remembered::Whom;
use crate::telemetry::metrics::SourceMetrics;
use crate::terms::outcome::Outcome;

/// The answer of a source about an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// There is no such account.
    Unknown,
    /// The account exists, and may do nothing.
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
    /// A message for users; installed clients show "suspended" where it says so.
    pub message: Box<str>,
    /// The reason that the account's record gives, for `reason` in the answer.
    pub reason: Option<Box<str>>,
    /// When the account was suspended, as the source writes times, for `suspendedAt` in the answer.
    pub suspended_at: Option<Box<str>>,
}

impl Denial {
    /// A denial for which the account's record gives no reason.
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
    /// The proof that a login's session was once the account's.
    pub matched: Proof,
}

impl SessionCheck {
    fn says(&self) -> String {
        format!(
            "no login's session has ever been the account's {}: accounts.session_field or auth.jwt.session_claim may be \
             wrong, so no caller is refused for it and no new holder is let in",
            self.place
        )
    }
}

/// `[accounts]`: the configured source.
#[derive(Debug)]
pub enum ConfiguredAccounts {
    /// `source = "none"`: every caller with a valid JWT is in good standing.
    None,
    /// `source = "mongodb"`: asked by subject.
    BySubject {
        /// The collection.
        lookups: Arc<Lookups<Account>>,
        /// Set where the JWT's session must be the account's.
        session: Option<SessionCheck>,
    },
    /// `source = "http"`: asked with the caller's own credentials.
    ByCredentials(Arc<Lookups<Account>>),
}

impl ConfiguredAccounts {
    /// The lookups; `None` where accounts aren't looked up.
    pub(crate) fn lookups(&self) -> Option<&Arc<Lookups<Account>>> {
        match self {
            Self::None => None,
            Self::BySubject { lookups, .. } | Self::ByCredentials(lookups) => Some(lookups),
        }
    }

    /// The source's series; `None` where accounts aren't looked up.
    pub(crate) fn metrics(&self) -> Option<&SourceMetrics> {
        Some(self.lookups()?.metrics())
    }

    /// Why the source's answers may be wrong although it answers: a configured name may be mistyped.
    pub(crate) fn doubt(&self) -> Option<String> {
        match self.session_check() {
            Some(check) if check.matched.is_missed() => Some(check.says()),
            _ => self.lookups()?.doubt(),
        }
    }

    /// The check of sessions; `None` where they aren't checked.
    fn session_check(&self) -> Option<&SessionCheck> {
        match self {
            Self::BySubject { session, .. } => session.as_ref(),
            Self::None | Self::ByCredentials(_) => None,
        }
    }

    /// Looks an account up; `None` where accounts aren't looked up. `credentials` is what the caller sent in
    /// `Authorization` or the cookie.
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

    /// Whether a denial is about the subject or about one login. A source that is asked about a subject speaks of one
    /// login only where the account has another session; a source that is asked with a login speaks of that login
    /// where it doesn't know the account.
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
        self.session_check().is_some()
    }

    /// Whether what the account says of this session may be believed: where no login's session has ever been the
    /// account's, the field or the claim may be mistyped. `now` is on the clock's monotonic scale.
    pub(crate) fn believed(
        &self,
        account: &Account,
        session: Option<&str>,
        now: Duration,
    ) -> Result<(), NoAnswer> {
        let (Some(check), Account::Good { session: current }) = (self.session_check(), account)
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
            tracing::error!(source = "accounts", field = check.place, "{}", check.says());
        }
        Err(NoAnswer { since })
    }
}

/// The verdict on an account. Where sessions are checked, a session that is missing on either side counts as another
/// one.
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
