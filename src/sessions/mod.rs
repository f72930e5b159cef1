//! The table of live tokens: which subject holds which, since when, until when.
//!
//! A session is (channel, subject, user). A million of them, each with its login's hash, take up to 209 MiB, in packed
//! names; with a `Box<str>` for each name they took 222 MiB in the densest layout that was tried.
//!
//! Keeps true: bounded by `max` sessions; nothing expired is ever reported; a bound user belongs to one subject; no
//! lock is held over more than a hundred sessions or so, so that neither a sweep nor a channel of a million viewers
//! makes a request wait. Locks are taken in the order publishing, bound, table, one shard of each at most.
//! Must not know: how a token looks, why one was refused, where sessions are written down.

mod holding;
mod keeping;
mod listing;
mod lists;
mod packed;
mod record;
mod requests;
mod resting;
mod session;
mod shards;
mod shared_entry;
mod sharing;
mod subject;
#[cfg(test)]
mod tests;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use parking_lot::MutexGuard;

use crate::terms::role::Role;
use keeping::Forgotten;
pub use keeping::{SessionIdentity, StoredSession};
pub(crate) use listing::{Filter, Held};
use lists::Lists;
pub use lists::{Handed, Listed};
pub use record::{Records, SessionRecord};
pub(crate) use requests::{Allowed, Ground, Resting};
pub use requests::{Basis, ClaimRefused, Grounds, LapsedSession, Rules, SeatRequest, SessionUser};
use session::{Marks, Session};
pub(crate) use shards::Shards;
use shards::{SHARDS, Shard, shard_of};
pub(crate) use shared_entry::SharedEntry;
pub(crate) use sharing::MergedState;
use subject::{Displaced, SubjectSessions, length_left};

/// Sweeps that go once round the table.
pub const SWEEPS: usize = 64;

/// How long after its expiry a token may be renewed before that is a lapse, in seconds: a client that was late is
/// back by then.
const GRACE: u32 = 90;

/// The table. Times are Unix seconds. Keys are keyed hashes: a client can't aim at a shard, and two keys meet by
/// chance once in 2^64 pairs.
#[derive(Debug)]
pub struct Sessions {
    /// By (channel, subject).
    table: Shards<Box<SubjectSessions>>,
    /// By the position of a shard: the marks of change that sessions in it may have.
    changed: Box<[AtomicU8]>,
    /// From (channel, user) to the key in the table of the subject that holds it. The session there may be over.
    bound: Shards<u64>,
    /// From a subject to the keys in the table where it has a publisher's token. The sessions there may be over.
    publishing: Shards<u64>,
    /// Subscribers' tokens that were handed on in lists; no sessions are opened by them.
    lists: Lists,
    hasher: RandomState,
    counts: SessionCounts,
    max: AtomicUsize,
    forgotten: Forgotten,
}

/// How many sessions there are.
#[derive(Debug, Default)]
struct SessionCounts {
    total: AtomicUsize,
    live: [AtomicUsize; 2],
}

impl SessionCounts {
    /// Counts what a change has made of a subject's sessions; both are [`SubjectSessions::tally`].
    fn update(&self, before: (usize, [usize; 2]), after: (usize, [usize; 2])) {
        let update = |count: &AtomicUsize, before: usize, after: usize| {
            if before != after {
                // Addition wraps around: what is less afterwards is taken off.
                count.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
            }
        };
        update(&self.total, before.0, after.0);
        for role in Role::ALL {
            let index = role.index();
            update(&self.live[index], before.1[index], after.1[index]);
        }
    }
}

impl Sessions {
    /// An empty table for at most `max` sessions.
    pub fn new(max: usize) -> Self {
        Self {
            table: Shards::new(),
            changed: (0..SHARDS).map(|_| AtomicU8::new(0)).collect(),
            bound: Shards::new(),
            publishing: Shards::new(),
            lists: Lists::new(),
            hasher: RandomState::new(),
            counts: SessionCounts::default(),
            max: AtomicUsize::new(max),
            forgotten: Forgotten::default(),
        }
    }

    /// Changes the bound; sessions above it live out their time.
    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// The bound.
    pub fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    /// Sessions of a role: `renewd_sessions`.
    pub fn count(&self, role: Role) -> usize {
        self.counts.live[role.index()].load(Ordering::Relaxed)
    }

    fn is_full(&self) -> bool {
        self.counts.total.load(Ordering::Relaxed) >= self.max()
    }

    /// Whether the claim would pass now; changes nothing.
    pub(crate) fn check(
        &self,
        claim: SeatRequest<'_>,
        rules: Rules,
        now: u64,
    ) -> Result<Allowed, ClaimRefused> {
        let (now, key) = (seconds(now), self.key(claim.channel, claim.subject));
        if let Some(user) = self.binding(claim, rules) {
            self.check_user(&self.bound.lock(user), user, claim, key, now)?;
        }
        let first_issued = self.look(claim.channel, claim.subject, |held| held.first_issued(now));
        let allowed = length_left(first_issued.flatten(), rules.max_session, now)?;
        if let Some((subject, publishing)) = self.publishing_of(claim) {
            self.check_streams(&publishing, subject, claim, rules, now)?;
        }
        Ok(allowed)
    }

    /// Records a grant whose last token expires at `expires`. The claim is checked again under the locks: another
    /// worker may have been faster.
    pub fn grant(
        &self,
        claim: SeatRequest<'_>,
        basis: Basis,
        rules: Rules,
        now: u64,
        expires: u64,
    ) -> Result<(), ClaimRefused> {
        let (now, expires) = (seconds(now), seconds(expires));
        let SeatRequest {
            channel, subject, ..
        } = claim;
        let key = self.key(channel, subject);
        if let Basis::Decided { login: Some(login) } | Basis::Rested { login: Some(login) } = basis
        {
            self.lists.settle(subject, login);
        }
        // Locked until all is recorded: the same publisher may be asking for another channel on another worker.
        let publishing = self.publishing_of(claim);
        if let Some((publisher, publishing)) = &publishing {
            self.check_streams(publishing, *publisher, claim, rules, now)?;
        }
        // Locked for as long: another subject may be asking for the same user.
        let user = self.binding(claim, rules);
        let bound = user.map(|user| (user, self.bound.lock(user)));
        if let Some((user, bound)) = &bound
            && !rules.claimed
        {
            self.check_user(bound, *user, claim, key, now)?;
        }
        let recorded = self.change(channel, subject, |held| {
            length_left(held.first_issued(now), rules.max_session, now)?;
            let has_room = !self.is_full() || held.knows(claim.user);
            Ok(has_room.then(|| held.record(claim, basis, now, expires)))
        })?;
        let Some(Displaced { renamed, dropped }) = recorded else {
            // The token is granted and not remembered. A refusal would end streams for the sake of this table.
            return Ok(());
        };
        let taken = bound.and_then(|(user, mut bound)| {
            let former = bound.replace(user, key).filter(|former| *former != key)?;
            self.take_from(former, claim)
        });
        if let Some((publisher, mut publishing)) = publishing {
            publishing.add(publisher, key);
        }
        if let Some(until) = renamed {
            let identity = || SessionIdentity::new(channel, subject, &SessionUser::Uid(0));
            self.forgotten.add(until, identity);
        }
        let dropped = dropped.map(|session| (subject.to_owned(), session));
        for (subject, gone) in taken.into_iter().chain(dropped) {
            self.unlink(channel, &subject, &gone.user, gone.published());
            let identity = || SessionIdentity::new(channel, &subject, &gone.user);
            self.forgotten.add(gone.last_expiry(), identity);
        }
        Ok(())
    }

    /// Marks a holder's session: a renewal was refused, which is the cause of the lapse if no other renewal follows.
    pub(crate) fn refused(&self, claim: SeatRequest<'_>) {
        self.change(claim.channel, claim.subject, |held| held.refuse(claim.user));
    }

    /// The other channels that a publisher holds tokens for. The caller passes those whose streams are over to
    /// [`Self::ended`].
    pub(crate) fn publishing_elsewhere(&self, claim: SeatRequest<'_>, now: u64) -> Vec<Box<str>> {
        let Some((subject, publishing)) = self.publishing_of(claim) else {
            return Vec::new();
        };
        self.publishes_in(&publishing, subject, claim, seconds(now))
    }

    /// Marks that a publisher's stream is over: it counts no more towards `max_streams_per_publisher`, though its
    /// token may live, and that token isn't expected to be renewed.
    pub(crate) fn ended(&self, subject: &str, channel: &str) {
        self.change(channel, subject, SubjectSessions::end);
    }

    /// Forgets the sessions that expired and weren't renewed in time, in one of [`SWEEPS`] parts of the table; `turn`
    /// is a counter. Gives the sessions that have lapsed, if their streams are live.
    pub fn sweep(&self, turn: usize, now: u64) -> Vec<LapsedSession> {
        let now = seconds(now);
        self.lists.sweep(turn, SWEEPS, now);
        let mut lapses = Vec::new();
        for mut shard in self.table.part(turn, SWEEPS) {
            let mut gone = Vec::new();
            shard.retain(|_, held| {
                let before = held.tally();
                let over: Vec<_> = held.sweep(now).collect();
                for (session, lapsed) in over {
                    gone.push((held.channel.text(), held.subject.text(), session, lapsed));
                }
                self.counts.update(before, held.tally());
                !held.sessions.is_empty()
            });
            drop(shard);
            for (channel, subject, session, lapsed) in gone {
                self.unlink(&channel, &subject, &session.user, session.published());
                if lapsed {
                    lapses.push(LapsedSession::of(channel, subject, session));
                }
            }
        }
        lapses
    }

    /// The key in `table` of a subject's sessions in a channel.
    fn key(&self, channel: &str, subject: &str) -> u64 {
        self.hasher.hash_one((channel, subject))
    }

    /// Looks at a subject's sessions in a channel; `None` where there are none.
    fn look<T>(
        &self,
        channel: &str,
        subject: &str,
        look: impl FnOnce(&SubjectSessions) -> T,
    ) -> Option<T> {
        let key = self.key(channel, subject);
        let shard = self.table.lock(key);
        let mut held = shard.of(key);
        held.find(|held| held.is(channel, subject))
            .map(|held| look(held))
    }

    /// Changes a subject's sessions in a channel, of which there may be none before or after.
    fn change<T>(
        &self,
        channel: &str,
        subject: &str,
        change: impl FnOnce(&mut SubjectSessions) -> T,
    ) -> T {
        let key = self.key(channel, subject);
        let mut shard = self.table.lock(key);
        let known = shard.of_mut(key).find(|held| held.is(channel, subject));
        if let Some(held) = known {
            let result = self.counted(key, held, change);
            if held.sessions.is_empty() {
                shard.retain(|_, held| !held.sessions.is_empty());
            }
            return result;
        }
        let mut held = Box::new(SubjectSessions::new(channel, subject));
        let result = self.counted(key, &mut held, change);
        if !held.sessions.is_empty() {
            shard.push(key, held);
        }
        result
    }

    /// Changes sessions whose shard is locked, and counts them anew.
    fn counted<T>(
        &self,
        key: u64,
        held: &mut SubjectSessions,
        change: impl FnOnce(&mut SubjectSessions) -> T,
    ) -> T {
        let before = held.tally();
        let result = change(held);
        self.counts.update(before, held.tally());
        let marks = held
            .sessions
            .iter()
            .fold(0, |marks, session| marks | session.marks.0);
        self.note_marks(shard_of(key), marks & Marks::CHANGED.0);
        result
    }

    fn note_marks(&self, shard: usize, marks: u8) {
        if marks != 0 {
            self.changed[shard].fetch_or(marks, Ordering::Relaxed);
        }
    }

    /// The key of a user in `bound`; `None` for one that is never bound.
    fn user(&self, channel: &str, user: &SessionUser) -> Option<u64> {
        let is_bindable = *user != SessionUser::Uid(0);
        is_bindable.then(|| self.hasher.hash_one((channel, user)))
    }

    /// The key of a subject in `publishing`.
    fn publisher(&self, subject: &str) -> u64 {
        self.hasher.hash_one(subject)
    }

    fn binding(&self, claim: SeatRequest<'_>, rules: Rules) -> Option<u64> {
        let user = rules.bind_uid.then_some(claim.user)?;
        self.user(claim.channel, user)
    }

    /// Refuses a subscriber's claim to a user that another subject holds.
    fn check_user(
        &self,
        bound: &Shard<u64>,
        user: u64,
        claim: SeatRequest<'_>,
        key: u64,
        now: u32,
    ) -> Result<(), ClaimRefused> {
        let Some(holder) = bound.of(user).next().copied() else {
            return Ok(());
        };
        if claim.role == Role::Publisher || holder == key {
            return Ok(());
        }
        let shard = self.table.lock(holder);
        let mut sessions = shard.of(holder).flat_map(|held| &held.sessions);
        if sessions.any(|session| session.user == *claim.user && session.is_live(now)) {
            return Err(ClaimRefused::UidTaken);
        }
        Ok(())
    }

    /// Takes the claim's user from the subject that held it, and gives that subject and the session.
    fn take_from(&self, former: u64, claim: SeatRequest<'_>) -> Option<(String, Session)> {
        let mut shard = self.table.lock(former);
        let mut of_channel = shard
            .of_mut(former)
            .filter(|held| held.channel.is(claim.channel));
        let taken = of_channel.find_map(|held| {
            let session = self.counted(former, held, |held| held.remove(claim.user))?;
            Some((held.subject.text(), session))
        });
        drop(of_channel);
        shard.retain(|_, held| !held.sessions.is_empty());
        taken
    }

    /// The channels of a claim's publisher, locked; `None` for a claim that publishes nothing.
    fn publishing_of(&self, claim: SeatRequest<'_>) -> Option<(u64, MutexGuard<'_, Shard<u64>>)> {
        if claim.role != Role::Publisher {
            return None;
        }
        let subject = self.publisher(claim.subject);
        Some((subject, self.publishing.lock(subject)))
    }

    /// The channels other than the claim's where its subject publishes.
    fn publishes_in(
        &self,
        publishing: &Shard<u64>,
        subject: u64,
        claim: SeatRequest<'_>,
        now: u32,
    ) -> Vec<Box<str>> {
        let own = self.key(claim.channel, claim.subject);
        let others = publishing.of(subject).filter(|key| **key != own);
        let channels = others.filter_map(|key| {
            let shard = self.table.lock(*key);
            let publishes = shard.of(*key).find(|held| {
                let mut sessions = held.sessions.iter();
                held.subject.is(claim.subject) && sessions.any(|session| session.publishes(now))
            })?;
            Some(publishes.channel.text().into_boxed_str())
        });
        channels.collect()
    }

    fn check_streams(
        &self,
        publishing: &Shard<u64>,
        subject: u64,
        claim: SeatRequest<'_>,
        rules: Rules,
        now: u32,
    ) -> Result<(), ClaimRefused> {
        if rules.max_streams_per_publisher == 0 || rules.claimed {
            return Ok(());
        }
        let others = self.publishes_in(publishing, subject, claim, now).len();
        if u32::try_from(others).unwrap_or(u32::MAX) >= rules.max_streams_per_publisher {
            return Err(ClaimRefused::TooManyStreams);
        }
        Ok(())
    }

    /// Removes what led to a session that is gone, unless it leads to another one of its subject and channel.
    fn unlink(&self, channel: &str, subject: &str, user: &SessionUser, published: bool) {
        let key = self.key(channel, subject);
        let another = |like: &dyn Fn(&Session) -> bool| {
            let found = self.look(channel, subject, |held| held.sessions.iter().any(like));
            found.unwrap_or(false)
        };
        if let Some(bound_user) = self.user(channel, user) {
            let mut bound = self.bound.lock(bound_user);
            if !another(&|session| session.user == *user) {
                bound.remove(bound_user, key);
            }
        }
        if published {
            let publisher = self.publisher(subject);
            let mut publishing = self.publishing.lock(publisher);
            if !another(&Session::published) {
                publishing.remove(publisher, key);
            }
        }
    }
}

/// Unix seconds as the table keeps them.
fn seconds(unix: u64) -> u32 {
    u32::try_from(unix).unwrap_or(u32::MAX)
}
