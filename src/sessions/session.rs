//! One session: what it holds, what may rest on it, what became of it.
//!
//! Keeps true: a change of what is written down or shared of a session marks it as changed.
//! Must not know: where a session is kept, how it is found.

use super::{GRACE, Ground, Grounds, Resting, SeatRequest, SessionUser};
use crate::logins::remembered::Login;
use crate::terms::role::Role;

/// One subject's tokens for one channel under one user, in 48 bytes. Times are Unix seconds, until 2106.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) user: SessionUser,
    /// The session of the login that the subject's latest grant in the channel was for; `None` where the login had
    /// none, or it isn't known.
    pub(super) login: Option<Login>,
    /// When the subject got their first token for the channel in an unbroken row.
    pub(super) first_issued: u32,
    /// When the token of each role expires; 0: none.
    pub(super) expires: [u32; 2],
    /// Tokens after the first; stays at the highest number.
    pub(super) refreshes: u16,
    /// The last token's role.
    pub(super) role: Role,
    /// A renewal was refused since the last grant.
    pub(super) refused: bool,
    /// The publisher's stream is over.
    pub(super) ended: bool,
    /// The sources that have said no since they said yes, or were never asked: no renewal rests on their word.
    pub(super) lacks: Grounds,
    /// The session counts as live. One that has expired doesn't; it is kept to see whether it lapses.
    pub(super) counted: bool,
    /// When a source last decided about the session: the latest decided grant, or the latest no.
    pub(super) settled: u32,
    /// Who has not been told of the session as it is.
    pub(super) marks: Marks,
}

/// Who has not been told of a session as it is, and where its last token was granted: a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks(pub(super) u8);

impl Marks {
    /// The session has changed since it was last written down.
    pub(super) const UNWRITTEN: Self = Self(1);
    /// The session has changed since it was last given to the other replicas.
    pub(super) const UNSHARED: Self = Self(2);
    /// Both of these.
    pub(super) const CHANGED: Self = Self(3);
    /// The last token was granted by another replica.
    pub(super) const ELSEWHERE: Self = Self(4);

    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn set(&mut self, other: Self, to: bool) {
        self.0 = if to {
            self.0 | other.0
        } else {
            self.0 & !other.0
        };
    }

    /// Clears a mark; whether it was set.
    pub(super) fn take(&mut self, other: Self) -> bool {
        let had = self.has(other);
        self.set(other, false);
        had
    }
}

impl Session {
    /// When the session's last token expires.
    pub(super) fn last_expiry(&self) -> u32 {
        self.expires[0].max(self.expires[1])
    }

    /// The order in which a subject's sessions in a channel make room, the same on all replicas.
    pub(super) fn end(&self) -> (u32, &SessionUser) {
        (self.last_expiry(), &self.user)
    }

    pub(super) fn is_live(&self, now: u32) -> bool {
        self.last_expiry() > now
    }

    /// Whether a further token begins another session. A holder who renews a little late goes on with the same
    /// session; otherwise a client that asks anew as soon as it is cut would never reach the full length of a
    /// session.
    pub(super) fn is_over(&self, now: u32) -> bool {
        self.last_expiry().saturating_add(GRACE) <= now
    }

    /// Whether a renewal may rest on what this source said when the session was granted.
    pub(super) fn stands(&self, ground: Ground, who: Resting) -> bool {
        who.may_rest_on(self.login) && !self.lacks.contains(ground)
    }

    /// Whether the session holds a publisher's token for a stream that goes on.
    pub(super) fn publishes(&self, now: u32) -> bool {
        self.expires[Role::Publisher.index()] > now && !self.ended
    }

    /// Marks the session as changed, if it is.
    pub(super) fn note(&mut self, changed: bool) {
        if changed {
            self.marks.set(Marks::CHANGED, true);
        }
    }

    /// Whether the session ever held a publisher's token.
    pub(super) fn published(&self) -> bool {
        self.expires[Role::Publisher.index()] != 0
    }

    /// Records a further token.
    pub(super) fn renew(
        &mut self,
        claim: SeatRequest<'_>,
        first_issued: u32,
        now: u32,
        expires: u32,
    ) {
        self.role = claim.role;
        self.user = claim.user.clone();
        self.refreshes = self.refreshes.saturating_add(1);
        if self.is_over(now) {
            self.first_issued = first_issued;
            self.refreshes = 0;
        }
        if !self.is_live(now) {
            self.expires = [0; 2];
        }
        self.refused = false;
        self.ended = false;
        self.counted = true;
        self.marks = Marks::CHANGED;
        let until = &mut self.expires[claim.role.index()];
        *until = (*until).max(expires);
    }
}
