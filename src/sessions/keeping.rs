//! Sessions as they are written down to survive a restart, and the way back into the table.
//!
//! Keeps true: what is given is the table's present state, so a batch that follows another never undoes it; only the
//! names of sessions that were taken away wait here, and their number is bounded.
//! Must not know: files, bytes.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::session::{Marks, Session};
use super::subject::SubjectSessions;
use super::{GRACE, Grounds, SHARDS, SessionUser, Sessions, seconds};
use crate::logins::remembered::Login;
use crate::terms::role::Role;

/// Names that may wait to be written down; when there are more, the whole table is written anew. Only a publisher's
/// claim or a subject's ninth user takes a session away before its time.
const FORGOTTEN_LIMIT: usize = 65_536;

/// The names that tell a session from others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionIdentity {
    /// The channel's name.
    pub channel: String,
    /// The JWT's subject.
    pub subject: String,
    /// The user in the channel.
    pub user: SessionUser,
}

/// A session as it is written down. Times are Unix seconds, until 2106.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    /// Which session this is.
    pub identity: SessionIdentity,
    /// The role of the last token.
    pub role: Role,
    /// When the subject got their first token for the channel in an unbroken row.
    pub first_issued: u32,
    /// When the token of each role expires; 0: none.
    pub expires: [u32; 2],
    /// Tokens after the first.
    pub refreshes: u16,
    /// A renewal was refused since the last grant.
    pub refused: bool,
    /// The publisher's stream is over.
    pub ended: bool,
    /// The sources that have said no since they said yes, or were never asked.
    pub lacks: Grounds,
    /// The session of the login that the subject's latest grant in the channel was for.
    pub login: Option<Login>,
    /// When a source last decided about the session, yes or no; where a former version wrote it down, when it began.
    pub settled: u32,
    /// The accounts source refuses the subject. The previous version of renewd looks for that here; the table itself
    /// doesn't know, so the writer fills it in.
    pub account_refused: bool,
}

/// A session that was taken away before it expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StruckSession {
    /// Which session it was.
    pub identity: SessionIdentity,
    /// When it would have expired, in Unix seconds.
    pub until: u32,
}

/// Sessions that were taken away before they expired, to be struck out where they are written down and shared.
#[derive(Debug, Default)]
pub(super) struct Forgotten {
    kept: ForgottenNames,
    shared: ForgottenNames,
}

#[derive(Debug, Default)]
struct ForgottenNames {
    /// Whether anyone reads them.
    read: AtomicBool,
    names: Mutex<Vec<StruckSession>>,
    /// There were more than [`FORGOTTEN_LIMIT`].
    overflowed: AtomicBool,
}

impl ForgottenNames {
    fn is_read(&self) -> bool {
        self.read.load(Ordering::Relaxed)
    }

    fn push(&self, struck: StruckSession) {
        let mut names = self.names.lock();
        if names.len() < FORGOTTEN_LIMIT {
            names.push(struck);
        } else {
            self.overflowed.store(true, Ordering::Relaxed);
        }
    }
}

impl Forgotten {
    /// Remembers a session that would have expired at `until`, for those who read.
    pub(super) fn add(&self, until: u32, identity: impl FnOnce() -> SessionIdentity) {
        let (kept, shared) = (self.kept.is_read(), self.shared.is_read());
        if !kept && !shared {
            return;
        }
        let identity = identity();
        let struck = StruckSession { identity, until };
        if kept && shared {
            self.kept.push(struck.clone());
        }
        if shared {
            self.shared.push(struck);
        } else {
            self.kept.push(struck);
        }
    }

    /// Remembers a session that another replica took away.
    fn add_kept(&self, until: u32, identity: &SessionIdentity) {
        if self.kept.is_read() {
            let identity = identity.clone();
            self.kept.push(StruckSession { identity, until });
        }
    }
}

impl SessionIdentity {
    pub(super) fn new(channel: &str, subject: &str, user: &SessionUser) -> Self {
        Self {
            channel: channel.to_owned(),
            subject: subject.to_owned(),
            user: user.clone(),
        }
    }
}

impl StoredSession {
    pub(super) fn of(held: &SubjectSessions, session: &Session) -> Self {
        Self {
            identity: SessionIdentity {
                channel: held.channel.text(),
                subject: held.subject.text(),
                user: session.user.clone(),
            },
            role: session.role,
            first_issued: session.first_issued,
            expires: session.expires,
            refreshes: session.refreshes,
            refused: session.refused,
            ended: session.ended,
            lacks: session.lacks,
            login: session.login,
            settled: session.settled,
            account_refused: false,
        }
    }

    /// Whether any source has said no since the last grant.
    pub(super) fn is_denied(&self) -> bool {
        self.account_refused || self.lacks != Grounds::NONE
    }

    /// Whether the session may still be renewed, or become a lapse.
    pub(crate) fn matters(&self, now: u64) -> bool {
        self.last_expiry().saturating_add(GRACE) > seconds(now)
    }

    /// When the session's last token expires.
    pub(crate) fn last_expiry(&self) -> u32 {
        self.expires[0].max(self.expires[1])
    }

    /// The session as the table has it.
    pub(super) fn session(&self, now: u32) -> Session {
        let mut session = Session {
            user: self.identity.user.clone(),
            login: self.login,
            first_issued: self.first_issued,
            expires: self.expires,
            refreshes: self.refreshes,
            role: self.role,
            refused: self.refused,
            ended: self.ended,
            lacks: self.lacks,
            counted: false,
            settled: self.settled,
            marks: Marks::default(),
        };
        session.counted = session.is_live(now);
        session
    }
}

impl Sessions {
    /// Parts that [`Self::write_down`] takes the table in.
    pub(crate) const PARTS: usize = SHARDS;

    /// From now on sessions that are taken away are remembered until [`Self::take_forgotten`].
    pub(crate) fn keep(&self) {
        self.forgotten.kept.read.store(true, Ordering::Relaxed);
    }

    /// From now on sessions that are taken away are remembered until [`Self::take_struck`].
    pub(crate) fn share(&self) {
        self.forgotten.shared.read.store(true, Ordering::Relaxed);
    }

    /// The sessions taken away since the last time, for the other replicas. Where there were too many, the rest is
    /// left out: there it lasts until it expires.
    pub(crate) fn take_struck(&self) -> Vec<StruckSession> {
        std::mem::take(&mut *self.forgotten.shared.names.lock())
    }

    /// Remembers that another replica took a session away.
    pub(super) fn struck_elsewhere(&self, until: u32, identity: &SessionIdentity) {
        self.forgotten.add_kept(until, identity);
    }

    /// The sessions taken away since the last time, to be struck out before what [`Self::write_down`] gives is
    /// written. `None` where there were too many to remember: the whole table has to be written anew.
    pub(crate) fn take_forgotten(&self) -> Option<Vec<SessionIdentity>> {
        let kept = &self.forgotten.kept;
        let names = std::mem::take(&mut *kept.names.lock());
        let all = !kept.overflowed.swap(false, Ordering::Relaxed);
        all.then(|| names.into_iter().map(|struck| struck.identity).collect())
    }

    /// The sessions of a part that have changed since they were last given, or all of them.
    pub(crate) fn write_down(&self, part: usize, whole: bool) -> Vec<StoredSession> {
        let mut written = Vec::new();
        let mut shard = self.table.lock_at(part);
        let unwritten = Marks::UNWRITTEN;
        let before = self.changed[part].fetch_and(!unwritten.0, Ordering::Relaxed);
        if before & unwritten.0 != 0 || whole {
            for held in shard.values_mut() {
                for index in 0..held.sessions.len() {
                    let changed = held.sessions[index].marks.take(unwritten);
                    if changed || whole {
                        written.push(StoredSession::of(held, &held.sessions[index]));
                    }
                }
            }
        }
        written
    }

    /// Puts back a session that was written down, in the place of what is known of it. Gives whether there was room.
    /// Users count as held from [`Self::put_back_links`] on.
    pub(crate) fn put_back(&self, kept: &StoredSession, now: u64) -> bool {
        let SessionIdentity {
            channel,
            subject,
            user,
        } = &kept.identity;
        let session = kept.session(seconds(now));
        // Under one lock: a grant may come in between, and a user has one session.
        self.change(channel, subject, |held| {
            let has_room = held.remove(user).is_some() || !self.is_full();
            if has_room {
                held.push(session);
            }
            has_room
        })
    }

    /// Forgets which logins grants were for: what is known of them was made with another key.
    pub(crate) fn forget_logins(&self) {
        for mut shard in self.table.iter() {
            for session in shard.values_mut().flat_map(|held| &mut held.sessions) {
                session.login = None;
            }
        }
    }

    /// Strikes out a session that was put back.
    pub(crate) fn strike_out(&self, identity: &SessionIdentity) {
        let SessionIdentity {
            channel,
            subject,
            user,
        } = identity;
        self.change(channel, subject, |held| held.remove(user));
    }

    /// Gives users back to the subjects that held them, when all is put back. A publisher's claim goes first, as it
    /// did when it was granted.
    pub(crate) fn put_back_links(&self) {
        for role in Role::ALL {
            for part in 0..SHARDS {
                let mut links = Vec::new();
                for held in self.table.lock_at(part).values() {
                    let (channel, subject) = (held.channel.text(), held.subject.text());
                    let of_role = held.sessions.iter().filter(|session| session.role == role);
                    for session in of_role {
                        let publisher = session.published().then(|| self.publisher(&subject));
                        let user = self.user(&channel, &session.user);
                        links.push((user, publisher, self.key(&channel, &subject)));
                    }
                }
                for (user, publisher, key) in links {
                    if let Some(user) = user {
                        let mut bound = self.bound.lock(user);
                        if bound.of(user).next().is_none() {
                            bound.push(user, key);
                        }
                    }
                    if let Some(publisher) = publisher {
                        self.publishing.lock(publisher).add(publisher, key);
                    }
                }
            }
        }
    }
}
