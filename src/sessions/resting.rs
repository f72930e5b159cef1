//! The tokens that a subject holds, and the ground that a renewal may rest on while a source gives no answer: that
//! source's yes at the last grant, unless the source has said no since.
//!
//! Must not know: which source is silent, and for how long.

use super::session::Session;
use super::{Ground, Resting, Sessions, seconds};
use crate::terms::role::Role;

impl Sessions {
    /// The role under which this subject holds an unexpired token for the channel: the one asked for, or, where none
    /// is asked for, whichever they hold (publisher first).
    pub(crate) fn held(
        &self,
        channel: &str,
        subject: &str,
        role: Option<Role>,
        now: u64,
    ) -> Option<Role> {
        self.holding(channel, subject, role, now, |_| true)
    }

    fn holding(
        &self,
        channel: &str,
        subject: &str,
        role: Option<Role>,
        now: u64,
        counts: impl Fn(&Session) -> bool,
    ) -> Option<Role> {
        let now = seconds(now);
        let asked = Role::ALL
            .into_iter()
            .filter(|held| role.is_none_or(|role| role == *held));
        let holding = self.look(channel, subject, |held| {
            let sessions = || held.sessions.iter().filter(|session| counts(session));
            let mut asked = asked;
            asked.find(|role| sessions().any(|session| session.expires[role.index()] > now))
        });
        holding.flatten()
    }

    /// The role, as [`Self::held`] has it, that this source has said yes to and hasn't said no to since: what a
    /// renewal may rest on while the source gives no answer.
    pub(crate) fn stands(
        &self,
        channel: &str,
        subject: &str,
        role: Option<Role>,
        (ground, who): (Ground, Resting),
        now: u64,
    ) -> Option<Role> {
        let stands = |session: &Session| session.stands(ground, who);
        self.holding(channel, subject, role, now, stands)
    }

    /// Whether this source said no to what the subject holds in this role, and has said nothing else since.
    pub(crate) fn is_refused(
        &self,
        channel: &str,
        subject: &str,
        role: Role,
        ground: Ground,
        now: u64,
    ) -> bool {
        let role = Some(role);
        let anyone = (ground, Resting::Anyone);
        self.held(channel, subject, role, now).is_some()
            && self.stands(channel, subject, role, anyone, now).is_none()
    }

    /// A source said no to what the subject holds in a channel (in this role; in any for `None`): until the next
    /// decision in their favour, nothing of it [`Self::stands`] on that source's word.
    pub(crate) fn denied(
        &self,
        channel: &str,
        subject: &str,
        ground: Ground,
        role: Option<Role>,
        now: u64,
    ) {
        self.lists.refuse(channel, subject);
        self.change(channel, subject, |held| {
            held.deny(ground, role, seconds(now));
        });
    }
}
