//! One session: what it holds, what may rest on it, what became of it.
//!
//! Keeps true: a change of what the journal has of a session sets `changed`.
//! Must not know: where a session is kept, how it is found.

use super::{GRACE, Ground, Grounds, Resting, SeatRequest, SessionUser};
use crate::logins::remembered::Login;
use crate::terms::role::Role;

/// One subject's tokens for one channel under one user, in 48 bytes. Times are Unix seconds, until 2106.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
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
    /// The session has changed since it was last written down.
    pub(super) changed: bool,
}

impl Session {
    /// When the session's last token expires.
    pub(super) fn last_expiry(&self) -> u32 {
        self.expires[0].max(self.expires[1])
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
        self.changed = true;
        let until = &mut self.expires[claim.role.index()];
        *until = (*until).max(expires);
    }
}
