//! What of the table survives a restart: sessions as they are written down, and the way back.
//!
//! Keeps true: what is handed over is the table's present, so a batch that follows another never undoes it; nothing
//! waits here but the names of sessions that were taken away, and those are bounded.
//! Must not know: files, bytes.

use std::sync::atomic::Ordering;

use super::session::Session;
use super::{
    BUCKETS, BucketKey, GRACE, Grounds, SeatRequest, SessionUser, Sessions, lock, seconds,
};
use crate::logins::remembered::Login;
use crate::terms::role::Role;

/// Names that may wait to be written down; beyond, the whole table is written anew. A session is taken away before its
/// time by a publisher or a ninth user only.
const FORGOTTEN_LIMIT: usize = 65_536;

/// Which session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionIdentity {
    /// The channel's name.
    pub channel: String,
    /// The JWT's subject.
    pub subject: String,
    /// Who in the channel.
    pub user: SessionUser,
}

/// A session as it is written down. Times are Unix seconds, until 2106.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    /// Which.
    pub identity: SessionIdentity,
    /// The last token's.
    pub role: Role,
    /// The subject's first token for the channel in an unbroken row.
    pub first_issued: u32,
    /// When the token of each role expires; 0: none.
    pub expires: [u32; 2],
    /// Tokens after the first.
    pub refreshes: u16,
    /// A renewal was refused since the last grant.
    pub refused: bool,
    /// The publisher's stream is over.
    pub ended: bool,
    /// The sources whose yes it lacks.
    pub lacks: Grounds,
    /// The session of the login that the subject's latest grant in the channel was for.
    pub login: Option<Login>,
    /// The accounts source refuses its subject. For the binary before this one, which looks for that here; the table
    /// itself doesn't know.
    pub account_refused: bool,
}

/// Sessions that were taken away before they expired, to be struck out where they are written down.
#[derive(Debug, Default)]
pub(super) struct Forgotten {
    names: Vec<SessionIdentity>,
    /// There were more than are remembered.
    overflowed: bool,
}

// === impl Identity ===

impl SessionIdentity {
    pub(super) fn new(channel: &str, subject: &str, user: &SessionUser) -> Self {
        Self {
            channel: channel.to_owned(),
            subject: subject.to_owned(),
            user: user.clone(),
        }
    }

    pub(super) fn of(session: &Session) -> Self {
        Self {
            channel: session.channel.text(),
            subject: session.subject.text(),
            user: session.user.clone(),
        }
    }
}

// === impl Kept ===

impl StoredSession {
    fn of(session: &Session) -> Self {
        Self {
            identity: SessionIdentity::of(session),
            role: session.role,
            first_issued: session.first_issued,
            expires: session.expires,
            refreshes: session.refreshes,
            refused: session.is_refused(),
            ended: session.is_ended(),
            lacks: session.lacks(),
            login: session.login,
            account_refused: false,
        }
    }

    /// Whether some source has said no since the last grant.
    pub(super) fn is_denied(&self) -> bool {
        self.account_refused || self.lacks != Grounds::NONE
    }

    /// Whether there is still something to know of it: until then it may be renewed, or be a lapse.
    pub(crate) fn matters(&self, now: u64) -> bool {
        let last = self.expires[0].max(self.expires[1]);
        last.saturating_add(GRACE) > seconds(now)
    }
}

// === impl Sessions ===

impl Sessions {
    /// Parts that [`Self::write_down`] takes the table in.
    pub(crate) const PARTS: usize = BUCKETS;

    /// From now on sessions that are taken away are remembered until [`Self::take_forgotten`].
    pub(crate) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// The sessions taken away since the last time, to be struck out before what [`Self::write_down`] gives is written.
    /// `None` where there were too many to remember: the whole table has to be written anew.
    pub(crate) fn take_forgotten(&self) -> Option<Vec<SessionIdentity>> {
        let forgotten = std::mem::take(&mut *lock(&self.forgotten));
        (!forgotten.overflowed).then_some(forgotten.names)
    }

    /// The sessions of a part that have changed since they were last given, or all of them.
    pub(crate) fn write_down(&self, part: usize, whole: bool) -> Vec<StoredSession> {
        let mut written = Vec::new();
        if let Some(bucket) = self.buckets.get(part) {
            lock(bucket).written_down(whole, |session| written.push(StoredSession::of(session)));
        }
        written
    }

    /// Puts back a session that was written down, in the place of what is known of it. Gives whether there was room.
    /// Who holds which user counts from [`Self::put_back_links`] on.
    pub(crate) fn put_back(&self, kept: &StoredSession, now: u64) -> bool {
        let SessionIdentity {
            channel,
            subject,
            user,
        } = &kept.identity;
        let key = self.key(channel, subject);
        let Some(mut bucket) = self.bucket(key) else {
            return false;
        };
        let claim = SeatRequest {
            channel,
            subject,
            user,
            role: kept.role,
        };
        let found = bucket.find(key, channel, subject);
        bucket.forget(&found, user, &self.counts);
        if self.counts.total.load(Ordering::Relaxed) >= self.max.load(Ordering::Relaxed) {
            return false;
        }
        let mut session = Session::new(claim, kept.first_issued);
        session.expires = kept.expires;
        session.refreshes = kept.refreshes;
        session.mark(kept.refused, kept.ended, kept.lacks);
        session.login = kept.login;
        bucket.put_back(key, session, seconds(now), &self.counts);
        true
    }

    /// Forgets which logins grants were for: what is known of them was made with another key.
    pub(crate) fn forget_logins(&self) {
        for bucket in &self.buckets {
            lock(bucket).forget_logins();
        }
    }

    /// Strikes out a session that was put back.
    pub(crate) fn strike_out(&self, identity: &SessionIdentity) {
        let SessionIdentity {
            channel,
            subject,
            user,
        } = identity;
        let key = self.key(channel, subject);
        if let Some(mut bucket) = self.bucket(key) {
            let found = bucket.find(key, channel, subject);
            bucket.forget(&found, user, &self.counts);
        }
    }

    /// Gives users back to who held them, when all is put back. A publisher's claim goes first, as it did when it was
    /// granted.
    pub(crate) fn put_back_links(&self) {
        for role in Role::ALL {
            for bucket in &self.buckets {
                let sessions: Vec<StoredSession> = {
                    let bucket = lock(bucket);
                    let of_role = bucket.all().filter(|(_, session)| session.role == role);
                    of_role
                        .map(|(_, session)| StoredSession::of(session))
                        .collect()
                };
                for kept in sessions {
                    self.put_back_link(&kept);
                }
            }
        }
    }

    fn put_back_link(&self, kept: &StoredSession) {
        let SessionIdentity {
            channel,
            subject,
            user,
        } = &kept.identity;
        let BucketKey(key) = self.key(channel, subject);
        if let Some(user) = self.user(channel, user)
            && let Some(mut bound) = self.bound.lock(user)
            && bound.from(user).next().is_none()
        {
            bound.set(user, key);
        }
        if kept.expires[Role::Publisher.index()] != 0 {
            let from = self.publisher(subject);
            if let Some(mut publishing) = self.publishing.lock(from) {
                publishing.add(from, key);
            }
        }
    }

    /// Remembers that a session was taken away, if somebody writes the table down.
    pub(super) fn forgot(&self, identity: impl FnOnce() -> SessionIdentity) {
        if !self.kept.load(Ordering::Relaxed) {
            return;
        }
        let mut forgotten = lock(&self.forgotten);
        if forgotten.names.len() >= FORGOTTEN_LIMIT {
            forgotten.names = Vec::new();
            forgotten.overflowed = true;
        }
        if !forgotten.overflowed {
            forgotten.names.push(identity());
        }
    }
}
