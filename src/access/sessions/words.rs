//! What is asked of the table of sessions, and what it answers.

use std::time::Duration;

use super::bucket::Session;
use crate::role::Role;
use crate::telemetry::labels::LapseCause;

/// Who a token is for, in Agora's terms.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum User {
    /// A numeric user id; 0 lets anyone use the token and is never bound.
    Uid(u32),
    /// A string user account.
    Account(Box<str>),
}

impl User {
    pub(super) fn is_bindable(&self) -> bool {
        *self != Self::Uid(0)
    }
}

/// What a grant asks for.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The channel's name.
    pub channel: &'a str,
    /// The JWT's subject.
    pub subject: &'a str,
    /// Who in the channel.
    pub user: &'a User,
    /// What they may do there.
    pub role: Role,
}

/// Which rules a claim must pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A user belongs to its subscriber while their token lives.
    pub bind_uid: bool,
    /// Distinct channels a publisher may hold; 0 is off.
    pub max_streams_per_publisher: u32,
    /// From the subject's first token for the channel; zero is off.
    pub max_session: Duration,
}

/// Why a claim was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Someone else holds the user.
    UidTaken,
    /// The publisher holds too many channels.
    TooManyStreams,
    /// The session has lasted its full length.
    SessionTooLong,
}

/// What an allowed claim is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The longest lifetime that `max_session` leaves; `None` is unlimited. At least a minute.
    pub at_most: Option<Duration>,
}

/// A session that nobody renewed in time. A lapse, if its stream is live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lapse {
    /// The channel's name.
    pub channel: String,
    /// Who held it.
    pub subject: String,
    /// Who they were in the channel.
    pub user: User,
    /// What their last token let them do.
    pub role: Role,
    /// Whether they asked in vain or not at all.
    pub cause: LapseCause,
    /// When it expired, in Unix seconds.
    pub expired: u64,
}

impl Lapse {
    pub(super) fn of(session: &Session) -> Self {
        Self {
            channel: session.channel.text(),
            subject: session.subject.text(),
            user: session.user.clone(),
            role: session.role,
            cause: if session.is_refused() {
                LapseCause::Refused
            } else {
                LapseCause::Silent
            },
            expired: session.last_expiry().into(),
        }
    }
}
