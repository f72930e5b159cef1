//! The caller as a holder: which token they hold for the channel, and what a renewal may rest on while a source is silent.
//!
//! Keeps true: nothing rests on a source that has said no since; where nobody vouches for a login, it must be of the session
//! that the last grant was for; what no silent source asks for isn't looked up.
//! Must not know: how long a source may be silent.

use std::cell::Cell;

use super::Now;
use crate::access::jwt::Claims;
use crate::access::sessions::{Ground, Resting};
use crate::role::Role;
use crate::snapshot::Snapshot;

/// One caller and one channel.
pub(in crate::live) struct Holder<'a> {
    pub(in crate::live) snapshot: &'a Snapshot,
    pub(in crate::live) claims: &'a Claims,
    pub(super) channel: &'a str,
    pub(super) now: Now,
    /// Whether the accounts source said yes to this very login, just now.
    pub(super) vouched: Cell<bool>,
}

impl Holder<'_> {
    /// The role under which they hold an unexpired token: this one, or whichever.
    pub(super) fn held(&self, role: Option<Role>) -> Option<Role> {
        let (subject, now) = (&self.claims.subject, self.now.unix_seconds());
        self.snapshot
            .sessions
            .held(self.channel, subject, role, now)
    }

    /// The role in which a renewal may rest on what this source said at the last grant.
    pub(in crate::live) fn rests(&self, ground: Ground, role: Option<Role>) -> Option<Role> {
        let logins = &self.snapshot.logins;
        if ground == Ground::Account && logins.refuses(self.claims, self.now.unix_seconds()) {
            return None;
        }
        let who = if self.vouched.get() {
            Resting::Anyone
        } else {
            Resting::Session(logins.session(self.claims))
        };
        let (subject, now) = (&self.claims.subject, self.now.unix_seconds());
        let sessions = &self.snapshot.sessions;
        sessions.stands(self.channel, subject, role, (ground, who), now)
    }

    /// Whether this source said no to what they hold in this role, and has said nothing else since.
    pub(in crate::live) fn is_refused(&self, ground: Ground, role: Role) -> bool {
        let (subject, now) = (&self.claims.subject, self.now.unix_seconds());
        let sessions = &self.snapshot.sessions;
        sessions.is_refused(self.channel, subject, role, ground, now)
    }
}
