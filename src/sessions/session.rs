//! One session: what it holds, what may rest on it, what became of it.
//!
//! Keeps true: its role is counted while its mark says so; what is written down of it is marked as changed.
//! Must not know: where it is kept, how it is found.

use super::packed::Packed;
use super::{GRACE, Ground, Grounds, Resting, SeatRequest, SessionCounts, SessionUser};
use crate::logins::remembered::Login;
use crate::terms::role::Role;

/// A renewal was refused since the last grant.
pub(super) const REFUSED: u8 = 1;
/// The publisher's stream is over.
pub(super) const ENDED: u8 = 2;
/// The session counts as live; one that has expired no longer does, and is kept to see whether it lapses.
pub(super) const COUNTED: u8 = 4;
/// The session has changed since it was last written down.
pub(super) const CHANGED: u8 = 8;
/// From here on, a bit for each source whose yes it lacks: nothing of it rests on that.
pub(super) const LACKS: u8 = 4;

/// One subject's tokens for one channel under one user, in 88 bytes. Times are Unix seconds, until 2106.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) channel: Packed,
    pub(super) subject: Packed,
    pub(super) user: SessionUser,
    /// The session of the login that the subject's latest grant in the channel was for; `None` where that had none, or it
    /// isn't known.
    pub(super) login: Option<Login>,
    /// The subject's first token for the channel in an unbroken row.
    pub(super) first_issued: u32,
    /// When the token of each role expires; 0: none.
    pub(super) expires: [u32; 2],
    /// Tokens after the first; stays at the highest number.
    pub(super) refreshes: u16,
    pub(super) marks: u8,
    /// The last token's.
    pub(super) role: Role,
}

impl Session {
    pub(super) fn new(claim: SeatRequest<'_>, first_issued: u32) -> Self {
        Self {
            channel: Packed::new(claim.channel),
            subject: Packed::new(claim.subject),
            user: claim.user.clone(),
            login: None,
            first_issued,
            expires: [0; 2],
            refreshes: 0,
            marks: 0,
            role: claim.role,
        }
    }

    /// When its last token expires.
    pub(super) fn last_expiry(&self) -> u32 {
        self.expires[0].max(self.expires[1])
    }

    pub(super) fn is_live(&self, now: u32) -> bool {
        self.last_expiry() > now
    }

    /// Whether a further token begins another session: who renews a little late goes on with theirs. Otherwise nobody would
    /// reach the full length of one who asks anew as soon as it is cut.
    pub(super) fn is_over(&self, now: u32) -> bool {
        self.last_expiry().saturating_add(GRACE) <= now
    }

    pub(super) fn is_refused(&self) -> bool {
        self.marks & REFUSED != 0
    }

    /// The sources whose yes it lacks: they have said no since they said yes, or were never asked.
    pub(super) fn lacks(&self) -> Grounds {
        Grounds::from_bits(self.marks >> LACKS)
    }

    /// Whether a renewal may rest on what this source said of it.
    pub(super) fn stands(&self, ground: Ground, who: Resting) -> bool {
        let same = match (who, self.login) {
            (Resting::Anyone, _) | (_, None) => true,
            (Resting::Session(session), latest) => session == latest,
        };
        same && !self.lacks().contains(ground)
    }

    pub(super) fn is_ended(&self) -> bool {
        self.marks & ENDED != 0
    }

    /// Whether it holds a publisher's token for a stream that goes on.
    pub(super) fn publishes(&self, now: u32) -> bool {
        self.expires[Role::Publisher.index()] > now && !self.is_ended()
    }

    /// Whether it ever held a publisher's token.
    pub(super) fn published(&self) -> bool {
        self.expires[Role::Publisher.index()] != 0
    }

    /// Sets the marks that are written down.
    pub(super) fn mark(&mut self, refused: bool, ended: bool, lacks: Grounds) {
        self.marks &= COUNTED | CHANGED;
        for (marked, mark) in [(refused, REFUSED), (ended, ENDED)] {
            self.marks |= if marked { mark } else { 0 };
        }
        self.marks |= lacks.bits() << LACKS;
    }

    /// A further token.
    pub(super) fn renew(
        &mut self,
        claim: SeatRequest<'_>,
        first_issued: u32,
        now: u32,
        expires: u32,
        counts: &SessionCounts,
    ) {
        if self.marks & COUNTED == 0 {
            counts.live(claim.role);
        } else {
            counts.changed(self.role, claim.role);
        }
        self.role = claim.role;
        self.user = claim.user.clone();
        self.refreshes = self.refreshes.saturating_add(1);
        if self.is_over(now) {
            // What it was is over, and a session of its own begins.
            self.first_issued = first_issued;
            self.refreshes = 0;
        }
        if !self.is_live(now) {
            self.expires = [0; 2];
        }
        self.mark(false, false, self.lacks());
        self.set(COUNTED);
        let until = &mut self.expires[claim.role.index()];
        *until = (*until).max(expires);
    }

    pub(super) fn set(&mut self, mark: u8) {
        self.marks |= mark | CHANGED;
    }
}
