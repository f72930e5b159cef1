//! The target of a revocation, and the question that the revocations are asked.
//!
//! Must not know: where revocations are kept, how long one lasts.

use crate::terms::user::User;

/// The login, the channel or the user that a revocation refuses tokens to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevocationTarget {
    /// A login's subject, in every channel.
    Subject(Box<str>),
    /// A channel, for every caller.
    Channel(Box<str>),
    /// A subject in one channel.
    SubjectInChannel {
        /// The login's subject.
        subject: Box<str>,
        /// The channel's name.
        channel: Box<str>,
    },
    /// A uid or string user account of one channel, whoever asks for it.
    UserInChannel {
        /// The channel's name.
        channel: Box<str>,
        /// The uid or account.
        user: User,
    },
}

/// Who wants a token for what, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct RevocationQuestion<'a> {
    /// The login's subject.
    pub subject: Option<&'a str>,
    /// The channel's name.
    pub channel: Option<&'a str>,
    /// The uid or account that the token is for.
    pub user: Option<User<&'a str>>,
}

/// One thing that can be refused; revocations are found by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum RevokedKey<'a> {
    Subject(&'a str),
    Channel(&'a str),
    SubjectInChannel(&'a str, &'a str),
    UserInChannel(&'a str, User<&'a str>),
}

impl RevokedKey<'_> {
    /// How many kinds of keys there are.
    pub(super) const KINDS: usize = 4;

    /// The position of this key's kind.
    pub(super) fn kind(self) -> usize {
        match self {
            Self::Subject(_) => 0,
            Self::Channel(_) => 1,
            Self::SubjectInChannel(..) => 2,
            Self::UserInChannel(..) => 3,
        }
    }
}

impl RevocationTarget {
    /// The target of these names; `None` where they are no target: none at all, a user without a channel, a user and
    /// a subject.
    pub fn new(
        subject: Option<Box<str>>,
        channel: Option<Box<str>>,
        user: Option<User>,
    ) -> Option<Self> {
        Some(match (subject, channel, user) {
            (Some(subject), None, None) => Self::Subject(subject),
            (None, Some(channel), None) => Self::Channel(channel),
            (Some(subject), Some(channel), None) => Self::SubjectInChannel { subject, channel },
            (None, Some(channel), Some(user)) => Self::UserInChannel { channel, user },
            _ => return None,
        })
    }

    /// The subject, where the target names one.
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::Subject(subject) | Self::SubjectInChannel { subject, .. } => Some(subject),
            Self::Channel(_) | Self::UserInChannel { .. } => None,
        }
    }

    /// The channel, where the target names one.
    pub fn channel(&self) -> Option<&str> {
        match self {
            Self::Channel(channel)
            | Self::SubjectInChannel { channel, .. }
            | Self::UserInChannel { channel, .. } => Some(channel),
            Self::Subject(_) => None,
        }
    }

    /// The user, where the target names one.
    pub fn user(&self) -> Option<User<&str>> {
        match self {
            Self::UserInChannel { user, .. } => Some(user.borrowed()),
            _ => None,
        }
    }

    pub(super) fn key(&self) -> RevokedKey<'_> {
        match self {
            Self::Subject(subject) => RevokedKey::Subject(subject),
            Self::Channel(channel) => RevokedKey::Channel(channel),
            Self::SubjectInChannel { subject, channel } => {
                RevokedKey::SubjectInChannel(subject, channel)
            }
            Self::UserInChannel { channel, user } => {
                RevokedKey::UserInChannel(channel, user.borrowed())
            }
        }
    }
}

impl<'a> RevocationQuestion<'a> {
    /// Everything whose refusal is an answer to this question.
    pub(super) fn keys(self) -> impl Iterator<Item = RevokedKey<'a>> {
        let Self {
            subject,
            channel,
            user,
        } = self;
        let both = subject.zip(channel);
        let user = channel.zip(user);
        let keys = [
            subject.map(RevokedKey::Subject),
            channel.map(RevokedKey::Channel),
            both.map(|(subject, channel)| RevokedKey::SubjectInChannel(subject, channel)),
            user.map(|(channel, user)| RevokedKey::UserInChannel(channel, user)),
        ];
        keys.into_iter().flatten()
    }
}
