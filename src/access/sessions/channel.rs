//! One channel's sessions: by subject, and by the user that belongs to one of them.
//!
//! Keeps true: a bound user belongs to one subject; a subject has at most [`USERS_PER_SUBJECT`] sessions.
//! Must not know: other channels, locks.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use super::{Allowed, Claim, Refused, Rules, Sessions, User};
use crate::role::Role;

/// Users (uids, accounts) one subject may hold in one channel. A person has a few devices; without a bound one login
/// could take every uid of a channel and lock its viewers out.
pub(super) const USERS_PER_SUBJECT: usize = 8;

/// Shortest token worth having; what is left of a session below it is not.
const SHORTEST: Duration = Duration::from_mins(1);

/// Who holds tokens for one channel.
#[derive(Debug, Default)]
pub(super) struct Channel {
    subjects: HashMap<Box<str>, Vec<Session>>,
    /// Whose a user is. The entry of a session that expired stands until the next sweep, and means nothing.
    holders: HashMap<User, Box<str>>,
}

/// One subject's tokens under one user.
#[derive(Debug)]
pub(super) struct Session {
    /// The last token's.
    pub(super) role: Role,
    user: User,
    first_issued: u64,
    /// When the token of each role expires; 0: none.
    expires: [u64; 2],
}

impl Session {
    fn expires(&self) -> u64 {
        self.expires[0].max(self.expires[1])
    }
}

// === impl Channel ===

impl Channel {
    /// Whether nobody holds anything.
    pub(super) fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }

    /// Whether a subject holds an unexpired token of this role.
    pub(super) fn holds(&self, subject: &str, role: Role, now: u64) -> bool {
        self.of_subject(subject)
            .iter()
            .any(|session| session.expires[role.index()] > now)
    }

    /// Whether recording the claim changes a session rather than adding one.
    pub(super) fn knows(&self, claim: Claim<'_>) -> bool {
        position(self.of_subject(claim.subject), claim.user).is_some()
    }

    /// Whether the claim passes.
    pub(super) fn check(
        &self,
        claim: Claim<'_>,
        rules: Rules,
        now: u64,
    ) -> Result<Allowed, Refused> {
        let taken = rules.bind_uid
            && claim.role == Role::Subscriber
            && self
                .holder(claim.user, now)
                .is_some_and(|holder| holder != claim.subject);
        if taken {
            return Err(Refused::UidTaken);
        }
        if rules.max_session.is_zero() {
            return Ok(Allowed { at_most: None });
        }
        let first = first_issued(self.of_subject(claim.subject), now).unwrap_or(now);
        let lasted = Duration::from_secs(now.saturating_sub(first));
        let left = rules.max_session.saturating_sub(lasted);
        if left < SHORTEST {
            return Err(Refused::SessionTooLong);
        }
        Ok(Allowed {
            at_most: Some(left),
        })
    }

    /// Records a claim that passed; `table` counts.
    pub(super) fn record(
        &mut self,
        table: &Sessions,
        claim: Claim<'_>,
        rules: Rules,
        now: u64,
        expires: u64,
    ) {
        if rules.bind_uid && claim.user.is_bindable() {
            let former = self
                .holders
                .insert(claim.user.clone(), claim.subject.into());
            if let Some(former) = former.filter(|former| **former != *claim.subject) {
                self.remove(table, &former, claim.user);
            }
        }
        let sessions = match self.subjects.entry(claim.subject.into()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Vec::with_capacity(1)),
        };
        let first_issued = first_issued(sessions, now).unwrap_or(now);
        let known = position(sessions, claim.user);
        if let Some(session) = known.and_then(|index| sessions.get_mut(index)) {
            table.changed(session.role, claim.role);
            session.role = claim.role;
            session.user = claim.user.clone();
            if session.expires() <= now {
                // Not swept yet: what it was is over, and a session of its own begins.
                session.first_issued = first_issued;
            }
            let until = &mut session.expires[claim.role.index()];
            *until = (*until).max(expires);
            return;
        }
        if sessions.len() >= USERS_PER_SUBJECT {
            let soonest = sessions
                .iter()
                .enumerate()
                .min_by_key(|(_, session)| session.expires())
                .map(|(index, _)| index);
            if let Some(index) = soonest {
                let dropped = sessions.swap_remove(index);
                table.removed(&dropped);
                unbind(&mut self.holders, &dropped.user, claim.subject);
            }
        }
        let mut token_expires = [0; 2];
        token_expires[claim.role.index()] = expires;
        sessions.push(Session {
            user: claim.user.clone(),
            role: claim.role,
            first_issued,
            expires: token_expires,
        });
        table.added(claim.role);
    }

    /// Forgets the sessions that have expired.
    pub(super) fn forget_expired(&mut self, table: &Sessions, now: u64) {
        let holders = &mut self.holders;
        self.subjects.retain(|subject, sessions| {
            sessions.retain(|session| {
                let alive = session.expires() > now;
                if !alive {
                    table.removed(session);
                    unbind(holders, &session.user, subject);
                }
                alive
            });
            !sessions.is_empty()
        });
    }

    fn of_subject(&self, subject: &str) -> &[Session] {
        self.subjects
            .get(subject)
            .map_or(&[], |sessions| sessions.as_slice())
    }

    fn holder(&self, user: &User, now: u64) -> Option<&str> {
        let subject = self.holders.get(user)?;
        self.of_subject(subject)
            .iter()
            .any(|session| session.user == *user && session.expires() > now)
            .then_some(subject)
    }

    fn remove(&mut self, table: &Sessions, subject: &str, user: &User) {
        let Some(sessions) = self.subjects.get_mut(subject) else {
            return;
        };
        if let Some(index) = sessions.iter().position(|session| session.user == *user) {
            table.removed(&sessions.swap_remove(index));
        }
        if sessions.is_empty() {
            self.subjects.remove(subject);
        }
    }
}

/// The session that a grant for this user renews. Clients join with uid 0 and renew with the uid that the SDK assigned:
/// that is the uid-0 session under its real name.
fn position(sessions: &[Session], user: &User) -> Option<usize> {
    let of = |user: &User| sessions.iter().position(|session| session.user == *user);
    of(user).or_else(|| match user {
        User::Uid(_) => of(&User::Uid(0)),
        User::Account(_) => None,
    })
}

/// When the oldest of the sessions that still live began.
fn first_issued(sessions: &[Session], now: u64) -> Option<u64> {
    sessions
        .iter()
        .filter(|session| session.expires() > now)
        .map(|session| session.first_issued)
        .min()
}

/// Frees a user, unless it is somebody else's by now.
fn unbind(holders: &mut HashMap<User, Box<str>>, user: &User, subject: &str) {
    if holders.get(user).is_some_and(|holder| **holder == *subject) {
        holders.remove(user);
    }
}
