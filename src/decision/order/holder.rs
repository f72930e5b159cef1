//! The caller as a holder: which token they hold for the channel, and what a renewal may rest on while a source gives
//! no answer.
//!
//! Keeps true: no renewal rests on a source that has refused since the last grant; where accounts haven't vouched for
//! the login, it must belong to the session of the last grant; nothing is looked up that no silent source makes
//! necessary.
//! Must not know: how long a source may be silent.

use std::cell::Cell;

use super::Now;
use crate::logins::jwt::JwtClaims;
use crate::sessions::{Ground, Resting};
use crate::snapshot::Snapshot;
use crate::terms::role::Role;

/// One caller and one channel.
pub(in crate::decision) struct Holder<'a> {
    pub(in crate::decision) snapshot: &'a Snapshot,
    pub(in crate::decision) claims: &'a JwtClaims,
    pub(super) channel: &'a str,
    pub(super) now: Now,
    /// Whether the accounts source accepted this very login during this request.
    pub(super) vouched: Cell<bool>,
    /// Whether something was found to rest on in place of a source's answer.
    pub(in crate::decision) rested: Cell<bool>,
}

impl Holder<'_> {
    /// The role in which the caller holds an unexpired token: this one, or any for `None`.
    pub(super) fn held(&self, role: Option<Role>) -> Option<Role> {
        let (subject, now) = (&self.claims.subject, self.now.unix_seconds());
        let sessions = &self.snapshot.sessions;
        let held = sessions.held(self.channel, subject, role, now);
        held.or_else(|| {
            let handed = may_watch(role) && sessions.was_handed(self.channel, subject, now);
            handed.then_some(Role::Subscriber)
        })
    }

    /// The role in which a renewal may rest on what this source said at the last grant.
    pub(in crate::decision) fn rests(&self, ground: Ground, role: Option<Role>) -> Option<Role> {
        let logins = &self.snapshot.logins;
        if ground == Ground::Account && logins.refuses(self.claims, self.now.unix_seconds()) {
            return None;
        }
        let who = if self.vouched.get() {
            Resting::Anyone
        } else {
            let session = logins.session(self.claims);
            match logins.former_session(self.claims) {
                None => Resting::Session(session),
                former => Resting::Rehashed([session, former]),
            }
        };
        let (subject, now) = (&self.claims.subject, self.now.unix_seconds());
        let sessions = &self.snapshot.sessions;
        let (channel, grounds) = (self.channel, (ground, who));
        let stands = sessions.stands(channel, subject, role, grounds, now);
        let rests = stands.or_else(|| {
            // What a decision has given the caller since counts more than a list.
            let handed = may_watch(role)
                && sessions
                    .held(channel, subject, Some(Role::Subscriber), now)
                    .is_none()
                && sessions.handed_stands(channel, subject, grounds, now);
            handed.then_some(Role::Subscriber)
        });
        self.rested.set(self.rested.get() || rests.is_some());
        rests
    }

    /// Whether this source has refused what the caller holds in this role, and has not accepted it since.
    pub(in crate::decision) fn is_refused(&self, ground: Ground, role: Role) -> bool {
        let (subject, now) = (&self.claims.subject, self.now.unix_seconds());
        let sessions = &self.snapshot.sessions;
        sessions.is_refused(self.channel, subject, role, ground, now)
    }
}

fn may_watch(role: Option<Role>) -> bool {
    role.is_none_or(|role| role == Role::Subscriber)
}
