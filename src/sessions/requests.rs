//! The questions that the table of sessions is asked, and its answers.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::session::{Marks, Session};
use crate::logins::remembered::Login;
use crate::terms::outcome::LapseCause;
use crate::terms::role::Role;
pub use crate::terms::user::User as SessionUser;

/// The seat that a grant asks for.
#[derive(Clone, Copy, Debug)]
pub struct SeatRequest<'a> {
    /// The channel's name.
    pub channel: &'a str,
    /// The JWT's subject.
    pub subject: &'a str,
    /// The user in the channel.
    pub user: &'a SessionUser,
    /// The user's role there.
    pub role: Role,
}

/// Which rules a claim must pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A user belongs to its subscriber while their token lives.
    pub bind_uid: bool,
    /// Distinct channels a publisher may hold; 0 is off.
    pub max_streams_per_publisher: u32,
    /// The longest session, from the subject's first token for the channel; zero is off.
    pub max_session: Duration,
    /// The claims to the user and to the channels are made over all replicas: this table takes them as made.
    pub claimed: bool,
}

/// A source whose last yes a renewal may rest on while that source gives no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    /// The accounts source.
    Account,
    /// The streams source.
    Stream,
    /// The `[authorize]` hook.
    Hook,
}

/// Some of the [`Ground`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grounds(u8);

/// The basis of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// A decision: every source that was asked said yes, so no earlier no stands any more.
    Decided {
        /// The session of the login that the decision was made for, where the login has one.
        login: Option<Login>,
    },
    /// A decision for which at least one source gave no answer, so that it rests on an earlier grant. A no that
    /// another replica has heard since that grant stands.
    Rested {
        /// As of a decision.
        login: Option<Login>,
    },
    /// A token that the backend gave out was handed on. Not all sources were asked: what a source has said against
    /// the holder stands.
    HandedOn {
        /// The session of the login that asked, where the login has one and may count as the holder's latest.
        login: Option<Login>,
        /// Whether the login becomes the latest also where the holder holds something already. Otherwise what they
        /// hold stays with its own login: while the accounts source is silent, this login may be that of a stolen
        /// phone.
        vouched: bool,
        /// The sources that have said no yes to the holder, if this is their first token.
        lacks: Grounds,
    },
}

/// The login for which a renewal would rest on the last grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resting {
    /// A login that its source vouches for, or any login.
    Anyone,
    /// A login that no source vouches for now: it must be of the session that the last grant was for.
    Session(Option<Login>),
    /// The same, while sessions may still be known by the hash of a former key: the login's hashes under both.
    Rehashed([Option<Login>; 2]),
}

/// Why a claim was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimRefused {
    /// Another subject holds the user.
    UidTaken,
    /// The publisher holds too many channels.
    TooManyStreams,
    /// The session has lasted its full length.
    SessionTooLong,
}

impl Resting {
    /// Whether a renewal may rest on a grant whose login, the latest that is known, is this.
    pub(super) fn may_rest_on(self, latest: Option<Login>) -> bool {
        match self {
            Self::Anyone => true,
            Self::Session(session) => latest.is_none() || session == latest,
            Self::Rehashed(sessions) => latest.is_none() || sessions.contains(&latest),
        }
    }
}

impl Grounds {
    /// No ground.
    pub const NONE: Self = Self(0);
    /// Every ground.
    pub const ALL: Self = Self(0b111);

    /// The set of this ground.
    pub(crate) const fn of(ground: Ground) -> Self {
        Self(1 << ground as u8)
    }

    /// Whether the ground is in the set.
    pub(crate) const fn contains(self, ground: Ground) -> bool {
        self.0 & Self::of(ground).0 != 0
    }

    /// The grounds of both sets.
    #[must_use]
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set as a number below 8.
    pub(super) const fn bits(self) -> u8 {
        self.0
    }

    /// The set of a number; bits from 8 on mean nothing.
    pub(super) const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }
}

/// The allowance of a claim that would pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// The longest lifetime that `max_session` leaves, at least a minute; `None` is unlimited.
    pub at_most: Option<Duration>,
}

/// A session that wasn't renewed in time. It is a lapse if its stream is live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LapsedSession {
    /// The channel's name.
    pub channel: String,
    /// The subject that held it.
    pub subject: String,
    /// The subject's user in the channel.
    pub user: SessionUser,
    /// The role of the last token.
    pub role: Role,
    /// Whether a renewal was refused or never asked for.
    pub cause: LapseCause,
    /// When the session expired, in Unix seconds.
    pub expired: u64,
    /// Whether its last token was granted by this process, and not by another replica.
    pub granted_here: bool,
}

impl LapsedSession {
    /// A name that is the same on all replicas.
    pub(crate) fn name(&self) -> [u8; 16] {
        let mut hash = Sha256::new();
        let account = match &self.user {
            SessionUser::Uid(uid) => {
                hash.update(uid.to_le_bytes());
                ""
            }
            SessionUser::Account(account) => &**account,
        };
        for text in [self.channel.as_str(), &self.subject, account] {
            hash.update(u64::try_from(text.len()).unwrap_or(0).to_le_bytes());
            hash.update(text);
        }
        hash.update(self.expired.to_le_bytes());
        hash.finalize().first_chunk().copied().unwrap_or_default()
    }

    pub(super) fn of(channel: String, subject: String, session: Session) -> Self {
        Self {
            channel,
            subject,
            role: session.role,
            cause: if session.refused {
                LapseCause::Refused
            } else {
                LapseCause::Silent
            },
            expired: session.last_expiry().into(),
            granted_here: !session.marks.has(Marks::ELSEWHERE),
            user: session.user,
        }
    }
}
