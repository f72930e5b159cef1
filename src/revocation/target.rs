//! The target of a revocation, and the question that the revocations are asked.
//!
//! Keeps true: a key has one hash, whether a revocation or a question leads to it.
//! Must not know: where revocations are kept, how long one lasts.

use std::hash::BuildHasher;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RevokedKey<'a> {
    Subject(&'a str),
    Channel(&'a str),
    SubjectInChannel(&'a str, &'a str),
    UserInChannel(&'a str, User<&'a str>),
}

impl RevokedKey<'_> {
    pub(super) fn hash(self, hasher: &impl BuildHasher) -> u64 {
        let of = |text: &str| hasher.hash_one(text);
        match self {
            Self::Subject(subject) => of_subject(of(subject)),
            Self::Channel(channel) => of_channel(of(channel)),
            Self::SubjectInChannel(subject, channel) => of_both(of(subject), of(channel)),
            Self::UserInChannel(channel, user) => of_user(of(channel), user, hasher),
        }
    }
}

fn of_subject(subject: u64) -> u64 {
    mixed(1, subject)
}

fn of_channel(channel: u64) -> u64 {
    mixed(2, channel)
}

fn of_both(subject: u64, channel: u64) -> u64 {
    mixed(subject, channel)
}

fn of_user(channel: u64, user: User<&str>, hasher: &impl BuildHasher) -> u64 {
    match user {
        User::Uid(uid) => mixed(u64::from(uid) << 2, channel),
        User::Account(account) => mixed(hasher.hash_one(account).rotate_left(1), channel),
    }
}

/// One hash of two numbers. `keyed` is a keyed hash already, so that nobody can aim at what comes out.
fn mixed(number: u64, keyed: u64) -> u64 {
    // Knuth's multiplicative hashing; the upper bits are the good ones, and shards go by the lower ones.
    let product = (number ^ keyed.rotate_left(23)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    product ^ (product >> 32)
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
    /// Everything whose refusal is an answer to this question, each with its hash. Each name is hashed once.
    pub(super) fn keys(
        self,
        hasher: &impl BuildHasher,
    ) -> impl Iterator<Item = (RevokedKey<'a>, u64)> {
        let hashed = |name: &'a str| (name, hasher.hash_one(name));
        let (subject, channel) = (self.subject.map(hashed), self.channel.map(hashed));
        let both = subject.zip(channel);
        let user = channel.zip(self.user);
        let keys = [
            subject.map(|(name, hash)| (RevokedKey::Subject(name), of_subject(hash))),
            channel.map(|(name, hash)| (RevokedKey::Channel(name), of_channel(hash))),
            both.map(|((subject, of), (channel, hash))| {
                let key = RevokedKey::SubjectInChannel(subject, channel);
                (key, of_both(of, hash))
            }),
            user.map(|((channel, hash), user)| {
                let key = RevokedKey::UserInChannel(channel, user);
                (key, of_user(hash, user, hasher))
            }),
        ];
        keys.into_iter().flatten()
    }
}
