//! What is asked of the table of sessions, and what it answers.

use std::time::Duration;

use super::session::Session;
use crate::logins::remembered::Login;
use crate::terms::outcome::LapseCause;
use crate::terms::role::Role;
pub use crate::terms::user::User as SessionUser;

impl SessionUser {
    pub(super) fn is_bindable(&self) -> bool {
        *self != Self::Uid(0)
    }
}

/// What a grant asks for.
#[derive(Clone, Copy, Debug)]
pub struct SeatRequest<'a> {
    /// The channel's name.
    pub channel: &'a str,
    /// The JWT's subject.
    pub subject: &'a str,
    /// Who in the channel.
    pub user: &'a SessionUser,
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

/// Whose yes a renewal may rest on while that source gives no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    /// The accounts source's.
    Account,
    /// The streams source's.
    Stream,
    /// The hook's.
    Hook,
}

/// Some of the [`Ground`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grounds(u8);

/// What a grant was made on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// A decision: whoever was asked said yes, so that nobody's no stands any more.
    Decided {
        /// The session of the login that it was made for, where that has one.
        login: Option<Login>,
    },
    /// A token of the backend's was handed on. Not all were asked: what was said against its holder stands.
    HandedOn {
        /// The session of the login that asked, where it has one and may count as the holder's latest.
        login: Option<Login>,
        /// Whether it does where they hold something already. Otherwise what they hold stays of its own login: while accounts
        /// are silent, this one may be that of a phone that was stolen.
        vouched: bool,
        /// What the holder has no yes of, if this is their first token.
        lacks: Grounds,
    },
}

/// Who wants to rest on the last grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resting {
    /// A login that its source vouches for, or nobody in particular.
    Anyone,
    /// A login that nobody vouches for just now: it must be of the session that the last grant was for.
    Session(Option<Login>),
}

/// Why a claim was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimRefused {
    /// Someone else holds the user.
    UidTaken,
    /// The publisher holds too many channels.
    TooManyStreams,
    /// The session has lasted its full length.
    SessionTooLong,
}

// === impl Grounds ===

impl Grounds {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// Each of them.
    pub const ALL: Self = Self(0b111);

    /// The set of this one.
    pub(crate) const fn of(ground: Ground) -> Self {
        Self(1 << ground as u8)
    }

    /// Whether it is one of these.
    pub(crate) const fn contains(self, ground: Ground) -> bool {
        self.0 & Self::of(ground).0 != 0
    }

    /// Those of both.
    #[must_use]
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// As a number below 8.
    pub(super) const fn bits(self) -> u8 {
        self.0
    }

    /// The set of a number, whose other bits mean nothing.
    pub(super) const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }
}

/// What an allowed claim is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// The longest lifetime that `max_session` leaves; `None` is unlimited. At least a minute.
    pub at_most: Option<Duration>,
}

/// A session that nobody renewed in time. A lapse, if its stream is live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LapsedSession {
    /// The channel's name.
    pub channel: String,
    /// Who held it.
    pub subject: String,
    /// Who they were in the channel.
    pub user: SessionUser,
    /// What their last token let them do.
    pub role: Role,
    /// Whether they asked in vain or not at all.
    pub cause: LapseCause,
    /// When it expired, in Unix seconds.
    pub expired: u64,
}

impl LapsedSession {
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
