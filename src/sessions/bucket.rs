//! The sessions whose keys fall together, found by scanning their tags.
//!
//! Keeps true: a subject has at most [`USERS_PER_SUBJECT`] sessions in a channel; `counts` counts what is here.
//! Must not know: other buckets, locks, what is bound to whom.

use std::time::Duration;

use super::column::Column;
use super::session::{CHANGED, COUNTED, ENDED, LACKS, REFUSED, Session};
use super::{
    Allowed, Basis, BucketKey, ClaimRefused, Ground, Grounds, SeatRequest, SessionCounts,
    SessionUser,
};
use crate::logins::remembered::Login;
use crate::terms::role::Role;

/// Users (uids, accounts) one subject may hold in one channel. A person has a few devices; without a bound one login
/// could take every uid of a channel and lock its viewers out.
pub(super) const USERS_PER_SUBJECT: usize = 8;

/// Shortest token worth having; what is left of a session below it is not.
const SHORTEST: Duration = Duration::from_mins(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// 32 bits of each session's key, in the order of `sessions`.
    tags: Vec<u32>,
    sessions: Column<Session>,
    /// Whether some session is marked so.
    changed: bool,
}

/// What recording a grant put an end to.
#[derive(Debug, Default)]
pub(super) struct Displaced {
    /// The uid-0 session that goes by its real uid from now on.
    pub(super) renamed: bool,
    /// The session that had to go because its subject has too many.
    pub(super) dropped: Option<Session>,
}

/// What a sweep took out.
#[derive(Debug, Default)]
pub(super) struct Swept {
    /// Every session whose time to be renewed is over, and whether that is a lapse if its stream is live.
    pub(super) gone: Vec<(Session, bool)>,
}

/// The sessions of a subject in a channel, by their places in the bucket; good until it changes.
#[derive(Debug)]
pub(super) struct SubjectSessions(Vec<usize>);

impl Bucket {
    /// The sessions of a subject in a channel.
    pub(super) fn of(
        &self,
        key: BucketKey,
        channel: &str,
        subject: &str,
    ) -> impl Iterator<Item = &Session> {
        self.tagged(key)
            .filter(move |session| session.channel.is(channel) && session.subject.is(subject))
    }

    /// The sessions of a key that somebody else kept: their names are compared where it matters.
    pub(super) fn tagged(&self, key: BucketKey) -> impl Iterator<Item = &Session> {
        self.places(key)
            .filter_map(|index| self.sessions.get(index))
    }

    /// Every session with its tag.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &Session)> {
        self.tags.iter().copied().zip(self.sessions.iter())
    }

    /// Where the sessions with this key's tag are.
    fn places(&self, key: BucketKey) -> impl Iterator<Item = usize> {
        let tag = key.tag();
        let tags = self.tags.iter().enumerate();
        tags.filter(move |(_, known)| **known == tag)
            .map(|(index, _)| index)
    }

    /// Looks a subject's sessions in a channel up.
    pub(super) fn find(&self, key: BucketKey, channel: &str, subject: &str) -> SubjectSessions {
        let places = self.places(key).filter(|index| {
            self.sessions
                .get(*index)
                .is_some_and(|session| session.channel.is(channel) && session.subject.is(subject))
        });
        SubjectSessions(places.collect())
    }

    fn found(&self, found: &SubjectSessions) -> impl Iterator<Item = &Session> {
        found.0.iter().filter_map(|index| self.sessions.get(*index))
    }

    fn exact(&self, found: &SubjectSessions, user: &SessionUser) -> Option<usize> {
        let mut places = found.0.iter().copied();
        places.find(|index| {
            let session = self.sessions.get(*index);
            session.is_some_and(|session| session.user == *user)
        })
    }

    /// The session that a grant for this user renews. Clients join with uid 0 and renew with the uid that the SDK
    /// assigned: that is the uid-0 session under its real name.
    fn renewed(&self, found: &SubjectSessions, user: &SessionUser) -> Option<usize> {
        self.exact(found, user).or_else(|| match user {
            SessionUser::Uid(_) => self.exact(found, &SessionUser::Uid(0)),
            SessionUser::Account(_) => None,
        })
    }

    /// Whether recording a claim to this user changes a session rather than adding one.
    pub(super) fn knows(&self, found: &SubjectSessions, user: &SessionUser) -> bool {
        self.renewed(found, user).is_some()
    }

    /// Whether the session may go on, and how long.
    pub(super) fn length_left(
        &self,
        found: &SubjectSessions,
        max_session: Duration,
        now: u32,
    ) -> Result<Allowed, ClaimRefused> {
        if max_session.is_zero() {
            return Ok(Allowed { at_most: None });
        }
        let first = self.first_issued(found, now).unwrap_or(now);
        let lasted = Duration::from_secs(now.saturating_sub(first).into());
        let left = max_session.saturating_sub(lasted);
        if left < SHORTEST {
            return Err(ClaimRefused::SessionTooLong);
        }
        Ok(Allowed {
            at_most: Some(left),
        })
    }

    /// When the oldest of the subject's sessions that aren't over began.
    fn first_issued(&self, found: &SubjectSessions, now: u32) -> Option<u32> {
        self.found(found)
            .filter(|session| !session.is_over(now))
            .map(|session| session.first_issued)
            .min()
    }

    /// Records a claim that passed.
    pub(super) fn record(
        &mut self,
        key: BucketKey,
        found: &SubjectSessions,
        claim: SeatRequest<'_>,
        basis: Basis,
        (now, expires): (u32, u32),
        counts: &SessionCounts,
    ) -> Displaced {
        self.changed = true;
        let first_issued = self.first_issued(found, now).unwrap_or(now);
        let login = self.settle(found, basis);
        let known = self.renewed(found, claim.user);
        if let Some(session) = known.and_then(|index| self.sessions.get_mut(index)) {
            let renamed = session.user != *claim.user;
            session.renew(claim, first_issued, now, expires, counts);
            if let Basis::Decided { .. } = basis {
                session.mark(false, false, Grounds::NONE);
                session.login = login;
            }
            return Displaced {
                renamed,
                dropped: None,
            };
        }
        let lacks = match basis {
            Basis::Decided { .. } => Grounds::NONE,
            Basis::HandedOn { lacks, .. } => {
                let others = self.found(found).map(Session::lacks);
                others.fold(lacks, Grounds::and)
            }
        };
        let dropped = self.make_room(found, counts);
        let mut session = Session::new(claim, first_issued);
        session.mark(false, false, lacks);
        session.login = login;
        session.expires[claim.role.index()] = expires;
        session.set(COUNTED);
        counts.live(claim.role);
        self.push(key, session, counts);
        Displaced {
            renamed: false,
            dropped,
        }
    }

    /// Makes the login of a grant the latest of all the subject's sessions in the channel: another of theirs may be that of
    /// a device that was stolen. So may one be that nobody vouched for: that is the latest only where there was none. Gives
    /// the login that the session granted is of.
    fn settle(&mut self, found: &SubjectSessions, basis: Basis) -> Option<Login> {
        let (Basis::Decided { login } | Basis::HandedOn { login, .. }) = basis;
        let stays = match basis {
            Basis::Decided { .. } => false,
            Basis::HandedOn { vouched, .. } => login.is_none() || (!vouched && !found.0.is_empty()),
        };
        if stays {
            return self.found(found).find_map(|session| session.login);
        }
        let login = login?;
        for index in &found.0 {
            if let Some(session) = self.sessions.get_mut(*index)
                && session.login != Some(login)
            {
                session.login = Some(login);
                session.marks |= CHANGED;
            }
        }
        Some(login)
    }

    /// Takes the subject's session that ends soonest, if it has as many as it may.
    fn make_room(&mut self, found: &SubjectSessions, counts: &SessionCounts) -> Option<Session> {
        if found.0.len() < USERS_PER_SUBJECT {
            return None;
        }
        let ends = |index: &usize| self.sessions.get(*index).map(Session::last_expiry);
        let soonest = found.0.iter().copied().min_by_key(ends)?;
        self.take(soonest, counts)
    }

    /// Takes the session out that a link's key and a user name.
    pub(super) fn remove(
        &mut self,
        key: BucketKey,
        channel: &str,
        user: &SessionUser,
        counts: &SessionCounts,
    ) -> Option<Session> {
        let index = self.places(key).find(|index| {
            self.sessions
                .get(*index)
                .is_some_and(|session| session.user == *user && session.channel.is(channel))
        })?;
        self.take(index, counts)
    }

    /// Takes exactly this session out.
    pub(super) fn forget(
        &mut self,
        found: &SubjectSessions,
        user: &SessionUser,
        counts: &SessionCounts,
    ) {
        if let Some(index) = self.exact(found, user) {
            self.take(index, counts);
        }
    }

    fn push(&mut self, key: BucketKey, session: Session, counts: &SessionCounts) {
        if self.tags.len() == self.tags.capacity() {
            self.tags.reserve_exact((self.tags.len() / 8).max(4));
        }
        self.tags.push(key.tag());
        self.sessions.push(session);
        counts.added();
    }

    fn take(&mut self, index: usize, counts: &SessionCounts) -> Option<Session> {
        let session = self.sessions.swap_remove(index)?;
        if index < self.tags.len() {
            self.tags.swap_remove(index);
        }
        if self.tags.capacity() > 2 * self.tags.len() + 8 {
            self.tags.shrink_to_fit();
        }
        counts.removed();
        if session.marks & COUNTED != 0 {
            counts.over(session.role);
        }
        Some(session)
    }

    /// A renewal was refused: of this user's session, or, where there is none, of the subject's.
    pub(super) fn refuse(&mut self, found: SubjectSessions, user: &SessionUser) {
        let found = match self.renewed(&found, user) {
            Some(index) => SubjectSessions(vec![index]),
            None => found,
        };
        self.mark(&found, REFUSED);
    }

    /// A source said no to the subject, in this role or in any.
    pub(super) fn deny(
        &mut self,
        found: &SubjectSessions,
        ground: Ground,
        role: Option<Role>,
        now: u32,
    ) {
        let holds = |session: &Session| role.is_none_or(|role| session.expires[role.index()] > now);
        let places = found.0.iter().copied();
        let meant = places.filter(|index| self.sessions.get(*index).is_some_and(holds));
        let meant = SubjectSessions(meant.collect());
        self.mark(&meant, Grounds::of(ground).bits() << LACKS);
    }

    /// The subject's stream in the channel is over.
    pub(super) fn end(&mut self, found: &SubjectSessions) {
        self.mark(found, ENDED);
    }

    fn mark(&mut self, found: &SubjectSessions, mark: u8) {
        for index in &found.0 {
            if let Some(session) = self.sessions.get_mut(*index)
                && session.marks & mark == 0
            {
                session.set(mark);
                self.changed = true;
            }
        }
    }

    /// Counts no more what has expired, and takes out what nobody renewed for [`super::GRACE`] after that.
    pub(super) fn sweep(&mut self, now: u32, counts: &SessionCounts) -> Swept {
        let mut due = Vec::new();
        for (index, session) in self.sessions.iter_mut().enumerate() {
            if session.is_live(now) {
                continue;
            }
            if session.marks & COUNTED != 0 {
                session.marks &= !COUNTED;
                counts.over(session.role);
            }
            if session.is_over(now) {
                due.push(index);
            }
        }
        let lapses: Vec<bool> = due.iter().map(|index| self.lapses(*index, now)).collect();
        // From the end: what takes a gap's place has been looked at.
        let mut swept = Swept::default();
        for (index, lapses) in due.into_iter().zip(lapses).rev() {
            if let Some(session) = self.take(index, counts) {
                swept.gone.push((session, lapses));
            }
        }
        swept
    }

    /// Whether the end of this session is a lapse where its stream is live. It isn't where the stream has ended, or where
    /// its subject goes on in the same role under another user: they changed device.
    fn lapses(&self, index: usize, now: u32) -> bool {
        let Some((tag, over)) = self.tags.get(index).zip(self.sessions.get(index)) else {
            return false;
        };
        let goes_on = self.all().any(|(known, session)| {
            known == *tag
                && session.expires[over.role.index()] > now
                && session.channel == over.channel
                && session.subject == over.subject
        });
        !over.is_ended() && !goes_on
    }

    /// Hands every session that has changed (or every one) to `each`, and takes them for written down.
    pub(super) fn written_down(&mut self, whole: bool, mut each: impl FnMut(&Session)) {
        if !whole && !self.changed {
            return;
        }
        self.changed = false;
        for session in self.sessions.iter_mut() {
            if whole || session.marks & CHANGED != 0 {
                session.marks &= !CHANGED;
                each(session);
            }
        }
    }

    /// Every session becomes one that any login of its subject may rest on.
    pub(super) fn forget_logins(&mut self) {
        for session in self.sessions.iter_mut() {
            session.login = None;
        }
    }

    /// Puts back a session as it was written down.
    pub(super) fn put_back(
        &mut self,
        key: BucketKey,
        mut session: Session,
        now: u32,
        counts: &SessionCounts,
    ) {
        if session.is_live(now) {
            session.marks |= COUNTED;
            counts.live(session.role);
        }
        self.push(key, session, counts);
    }
}
