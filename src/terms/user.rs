//! Whom a token is for in a channel, in Agora's terms.
//!
//! Must not know: how a token, a log line or a session spells a user.

/// Whom a token is for. `Account` is how the account's text is held: owned, or borrowed from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum User<Account = Box<str>> {
    /// A numeric uid; anyone may use a token for uid 0.
    Uid(u32),
    /// A string user account.
    Account(Account),
}

impl<Account: AsRef<str>> User<Account> {
    /// The same user with its account borrowed.
    pub(crate) fn borrowed(&self) -> User<&str> {
        match self {
            Self::Uid(uid) => User::Uid(*uid),
            Self::Account(account) => User::Account(account.as_ref()),
        }
    }

    /// The uid, where the user has one.
    pub(crate) fn uid(&self) -> Option<u32> {
        match self {
            Self::Uid(uid) => Some(*uid),
            Self::Account(_) => None,
        }
    }

    /// The account, where the user has one.
    pub(crate) fn account(&self) -> Option<&str> {
        match self {
            Self::Uid(_) => None,
            Self::Account(account) => Some(account.as_ref()),
        }
    }
}
