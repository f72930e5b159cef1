//! Sessions as they are written down to survive a restart, and the way back into the table.
//!
//! Keeps true: what is given is the table's present state, so a batch that follows another never undoes it; only the
//! names of sessions that were taken away wait here, and their number is bounded.
//! Must not know: files, bytes.

use std::sync::atomic::Ordering;

use super::session::Session;
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
    /// The accounts source refuses the subject. The previous version of renewd looks for that here; the table itself
    /// doesn't know, so the writer fills it in.
    pub account_refused: bool,
}

/// Sessions that were taken away before they expired, to be struck out where they are written down; `None` where
/// there were more than [`FORGOTTEN_LIMIT`].
pub(super) type Forgotten = Option<Vec<SessionIdentity>>;

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
    fn of(held: &SubjectSessions, session: &Session) -> Self {
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
            account_refused: false,
        }
    }

    /// Whether any source has said no since the last grant.
    pub(super) fn is_denied(&self) -> bool {
        self.account_refused || self.lacks != Grounds::NONE
    }

    /// Whether the session may still be renewed, or become a lapse.
    pub(crate) fn matters(&self, now: u64) -> bool {
        let last = self.expires[0].max(self.expires[1]);
        last.saturating_add(GRACE) > seconds(now)
    }
}

impl Sessions {
    /// Parts that [`Self::write_down`] takes the table in.
    pub(crate) const PARTS: usize = SHARDS;

    /// From now on sessions that are taken away are remembered until [`Self::take_forgotten`].
    pub(crate) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// The sessions taken away since the last time, to be struck out before what [`Self::write_down`] gives is
    /// written. `None` where there were too many to remember: the whole table has to be written anew.
    pub(crate) fn take_forgotten(&self) -> Option<Vec<SessionIdentity>> {
        self.forgotten.lock().replace(Vec::new())
    }

    /// The sessions of a part that have changed since they were last given, or all of them.
    pub(crate) fn write_down(&self, part: usize, whole: bool) -> Vec<StoredSession> {
        let mut written = Vec::new();
        let mut shard = self.table.lock_at(part);
        if self.changed[part].swap(false, Ordering::Relaxed) || whole {
            for held in shard.values_mut() {
                for index in 0..held.sessions.len() {
                    let changed = std::mem::take(&mut held.sessions[index].changed);
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
        let mut session = Session {
            user: user.clone(),
            login: kept.login,
            first_issued: kept.first_issued,
            expires: kept.expires,
            refreshes: kept.refreshes,
            role: kept.role,
            refused: kept.refused,
            ended: kept.ended,
            lacks: kept.lacks,
            counted: false,
            changed: false,
        };
        session.counted = session.is_live(seconds(now));
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

    /// Remembers that a session was taken away, if the table is written down.
    pub(super) fn forgot(&self, identity: impl FnOnce() -> SessionIdentity) {
        if !self.kept.load(Ordering::Relaxed) {
            return;
        }
        let mut forgotten = self.forgotten.lock();
        if let Some(names) = &mut *forgotten {
            if names.len() < FORGOTTEN_LIMIT {
                names.push(identity());
            } else {
                *forgotten = None;
            }
        }
    }
}
