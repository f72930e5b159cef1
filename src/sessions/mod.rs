//! The table of live tokens: who holds which, since when, until when.
//!
//! A session is (channel, subject, user). Keeps true: bounded by `max` sessions; nothing expired is ever reported; a
//! bound user belongs to one subject; no lock is held over more than a hundred sessions or so, so that neither a sweep
//! nor a channel of a million viewers makes anybody wait. Locks are taken in the order publishing, bound, buckets, one
//! of each at most.
//! Must not know: how a token looks, why one was refused, where sessions are written down.

mod bucket;
mod column;
mod keeping;
mod links;
mod listing;
mod lists;
mod packed;
mod record;
mod requests;
mod resting;
mod session;
#[cfg(test)]
mod tests;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::terms::role::Role;
use bucket::Bucket;
use keeping::Forgotten;
pub use keeping::{SessionIdentity, StoredSession};
use links::{LinkShard, Links};
pub(crate) use listing::{Filter, Held};
use lists::Lists;
pub use lists::{Handed, Listed};
pub use record::{Records, SessionRecord};
pub(crate) use requests::{Allowed, Ground, Resting};
pub use requests::{Basis, ClaimRefused, Grounds, LapsedSession, Rules, SeatRequest, SessionUser};
use session::Session;

/// Buckets: enough that one holds some 120 of a million sessions, few enough that an idle table is small. A power of
/// two: the uppermost bits of a key choose one.
const BUCKETS: usize = 1 << BUCKET_BITS;
const BUCKET_BITS: u32 = 13;

/// Sweeps that go once round the table.
pub const SWEEPS: usize = 64;

/// How long after its expiry a token may be renewed before that is a lapse, in seconds: a client that was late is back
/// by then.
const GRACE: u32 = 90;

/// The table. Times are Unix seconds.
#[derive(Debug)]
pub struct Sessions {
    /// By (channel, subject).
    buckets: Vec<Mutex<Bucket>>,
    /// From (channel, user) to the key of the session that holds it. One whose session is over means nothing.
    bound: Links,
    /// From a subject to the keys of its sessions with a publisher's token.
    publishing: Links,
    /// Subscribers' tokens that were handed on in lists; no sessions are opened by them.
    lists: Lists,
    hasher: RandomState,
    counts: SessionCounts,
    max: AtomicUsize,
    /// Whether somebody writes the table down.
    kept: AtomicBool,
    forgotten: Mutex<Forgotten>,
}

/// How many sessions there are.
#[derive(Debug, Default)]
struct SessionCounts {
    total: AtomicUsize,
    live: [AtomicUsize; 2],
}

/// Where the sessions of a subject in a channel are: keyed, so that nobody can aim at a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BucketKey(u64);

// === impl Key ===

impl BucketKey {
    fn bucket(self) -> usize {
        usize::try_from(self.0 >> (u64::BITS - BUCKET_BITS)).unwrap_or(0)
    }

    /// What tells it from others in its bucket.
    fn tag(self) -> u32 {
        u32::try_from(self.0 & u64::from(u32::MAX)).unwrap_or(0)
    }
}

// === impl Counts ===

impl SessionCounts {
    fn added(&self) {
        self.total.fetch_add(1, Ordering::Relaxed);
    }

    fn removed(&self) {
        self.total.fetch_sub(1, Ordering::Relaxed);
    }

    fn live(&self, role: Role) {
        self.live[role.index()].fetch_add(1, Ordering::Relaxed);
    }

    fn over(&self, role: Role) {
        self.live[role.index()].fetch_sub(1, Ordering::Relaxed);
    }

    fn changed(&self, from: Role, to: Role) {
        if from != to {
            self.live(to);
            self.over(from);
        }
    }
}

// === impl Sessions ===

impl Sessions {
    /// An empty table for at most `max` sessions.
    pub fn new(max: usize) -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| Mutex::default()).collect(),
            bound: Links::new(),
            publishing: Links::new(),
            lists: Lists::new(),
            hasher: RandomState::new(),
            counts: SessionCounts::default(),
            max: AtomicUsize::new(max),
            kept: AtomicBool::new(false),
            forgotten: Mutex::default(),
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

    /// The role under which this subject holds an unexpired token for the channel: the one asked for, or, where none is
    /// asked for, whichever they hold (publisher first).
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
        let (now, key) = (seconds(now), self.key(channel, subject));
        let bucket = self.bucket(key)?;
        let mut expires = [0; 2];
        for session in bucket
            .of(key, channel, subject)
            .filter(|session| counts(session))
        {
            for (latest, expires) in expires.iter_mut().zip(session.expires) {
                *latest = expires.max(*latest);
            }
        }
        Role::ALL
            .into_iter()
            .filter(|held| role.is_none_or(|role| role == *held))
            .find(|held| expires[held.index()] > now)
    }

    /// Whether the claim would pass now; changes nothing.
    pub(crate) fn check(
        &self,
        claim: SeatRequest<'_>,
        rules: Rules,
        now: u64,
    ) -> Result<Allowed, ClaimRefused> {
        let (now, key) = (seconds(now), self.key(claim.channel, claim.subject));
        if let Some(user) = self.binding(claim, rules)
            && let Some(bound) = self.bound.lock(user)
        {
            self.check_user(&bound, user, claim, key, now)?;
        }
        let allowed = match self.bucket(key) {
            Some(bucket) => {
                let found = bucket.find(key, claim.channel, claim.subject);
                bucket.length_left(&found, rules.max_session, now)?
            }
            None => Allowed { at_most: None },
        };
        if let Some((subject, publishing)) = self.publishing_of(claim) {
            self.check_streams(&publishing, subject, claim, rules, now)?;
        }
        Ok(allowed)
    }

    /// Records a grant whose last token expires at `expires`, checked again under the locks: another worker may have been faster.
    pub fn grant(
        &self,
        claim: SeatRequest<'_>,
        basis: Basis,
        rules: Rules,
        now: u64,
        expires: u64,
    ) -> Result<(), ClaimRefused> {
        let (now, expires) = (seconds(now), seconds(expires));
        let key = self.key(claim.channel, claim.subject);
        if let Basis::Decided { login: Some(login) } = basis {
            self.lists.settle(claim.subject, login);
        }
        // Held until all is recorded: the same publisher may be asking for another channel on another worker.
        let publishing = self.publishing_of(claim);
        if let Some((subject, publishing)) = &publishing {
            self.check_streams(publishing, *subject, claim, rules, now)?;
        }
        // And so is this: somebody else may be asking for the same user.
        let user = self.binding(claim, rules);
        let bound = user.and_then(|user| Some((user, self.bound.lock(user)?)));
        if let Some((user, bound)) = &bound {
            self.check_user(bound, *user, claim, key, now)?;
        }
        let displaced = {
            let Some(mut bucket) = self.bucket(key) else {
                return Ok(());
            };
            let found = bucket.find(key, claim.channel, claim.subject);
            bucket.length_left(&found, rules.max_session, now)?;
            let full =
                self.counts.total.load(Ordering::Relaxed) >= self.max.load(Ordering::Relaxed);
            if full && !bucket.knows(&found, claim.user) {
                // The token is granted and not remembered. Refusing would end streams for our own bookkeeping.
                return Ok(());
            }
            bucket.record(key, &found, claim, basis, (now, expires), &self.counts)
        };
        let taken = bound.and_then(|(user, mut bound)| {
            let former = bound.set(user, key.0).filter(|former| *former != key.0)?;
            self.take_from(BucketKey(former), claim)
        });
        if let Some((subject, mut publishing)) = publishing {
            publishing.add(subject, key.0);
        }
        if displaced.renamed {
            self.forgot(|| {
                SessionIdentity::new(claim.channel, claim.subject, &SessionUser::Uid(0))
            });
        }
        for gone in taken.iter().chain(&displaced.dropped) {
            self.unlink(gone);
            self.forgot(|| SessionIdentity::of(gone));
        }
        Ok(())
    }

    /// A renewal that its holder asked for was refused: if they don't get another, that is why.
    pub(crate) fn refused(&self, claim: SeatRequest<'_>) {
        let key = self.key(claim.channel, claim.subject);
        if let Some(mut bucket) = self.bucket(key) {
            let found = bucket.find(key, claim.channel, claim.subject);
            bucket.refuse(found, claim.user);
        }
    }

    /// The other channels that a publisher holds tokens for: those whose streams are over are to be [`Self::ended`].
    pub(crate) fn publishing_elsewhere(&self, claim: SeatRequest<'_>, now: u64) -> Vec<Box<str>> {
        let Some((subject, publishing)) = self.publishing_of(claim) else {
            return Vec::new();
        };
        self.publishes_in(&publishing, subject, claim, seconds(now))
    }

    /// A publisher's stream is over: it counts no more towards `max_streams_per_publisher`, though its token may live,
    /// and nobody expects that to be renewed.
    pub(crate) fn ended(&self, subject: &str, channel: &str) {
        let key = self.key(channel, subject);
        if let Some(mut bucket) = self.bucket(key) {
            let found = bucket.find(key, channel, subject);
            bucket.end(&found);
        }
    }

    /// Forgets what expired and wasn't renewed in time, in one of [`SWEEPS`] parts of the table; call with a counter.
    /// Gives the sessions that have lapsed, if their streams are live.
    pub fn sweep(&self, turn: usize, now: u64) -> Vec<LapsedSession> {
        let now = seconds(now);
        self.lists.sweep(turn, SWEEPS, now);
        let part = BUCKETS / SWEEPS;
        let first = turn % SWEEPS * part;
        let mut lapses = Vec::new();
        for bucket in self.buckets.iter().skip(first).take(part) {
            let swept = lock(bucket).sweep(now, &self.counts);
            for (session, lapsed) in swept.gone {
                self.unlink(&session);
                if lapsed {
                    lapses.push(LapsedSession::of(&session));
                }
            }
        }
        lapses
    }

    fn key(&self, channel: &str, subject: &str) -> BucketKey {
        BucketKey(self.hasher.hash_one((channel, subject)))
    }

    /// A bucket, locked. `None` never happens: the index is within the table.
    fn bucket(&self, key: BucketKey) -> Option<MutexGuard<'_, Bucket>> {
        self.buckets.get(key.bucket()).map(lock)
    }

    /// Where a user's link starts; `None` for one that is never bound.
    fn user(&self, channel: &str, user: &SessionUser) -> Option<u64> {
        user.is_bindable()
            .then(|| self.hasher.hash_one((channel, user)))
    }

    /// Where a publisher's links start.
    fn publisher(&self, subject: &str) -> u64 {
        self.hasher.hash_one(subject)
    }

    fn binding(&self, claim: SeatRequest<'_>, rules: Rules) -> Option<u64> {
        rules
            .bind_uid
            .then(|| self.user(claim.channel, claim.user))
            .flatten()
    }

    /// Refuses a subscriber's claim to a user that somebody else holds.
    fn check_user(
        &self,
        bound: &LinkShard,
        user: u64,
        claim: SeatRequest<'_>,
        key: BucketKey,
        now: u32,
    ) -> Result<(), ClaimRefused> {
        let Some(holder) = bound.from(user).next().map(BucketKey) else {
            return Ok(());
        };
        if claim.role == Role::Publisher || holder == key {
            return Ok(());
        }
        let taken = self.bucket(holder).is_some_and(|bucket| {
            bucket
                .tagged(holder)
                .any(|session| session.user == *claim.user && session.is_live(now))
        });
        if taken {
            return Err(ClaimRefused::UidTaken);
        }
        Ok(())
    }

    /// Takes the claim's user from who held it.
    fn take_from(&self, former: BucketKey, claim: SeatRequest<'_>) -> Option<Session> {
        let mut bucket = self.bucket(former)?;
        bucket.remove(former, claim.channel, claim.user, &self.counts)
    }

    /// The channels of a claim's publisher, locked; `None` for a claim that publishes nothing.
    fn publishing_of(&self, claim: SeatRequest<'_>) -> Option<(u64, MutexGuard<'_, LinkShard>)> {
        if claim.role != Role::Publisher {
            return None;
        }
        let subject = self.publisher(claim.subject);
        Some((subject, self.publishing.lock(subject)?))
    }

    /// The channels other than the claim's where its subject publishes.
    fn publishes_in(
        &self,
        publishing: &LinkShard,
        subject: u64,
        claim: SeatRequest<'_>,
        now: u32,
    ) -> Vec<Box<str>> {
        let own = self.key(claim.channel, claim.subject);
        let others = publishing
            .from(subject)
            .map(BucketKey)
            .filter(|key| *key != own);
        others
            .filter_map(|key| {
                let bucket = self.bucket(key)?;
                let mut sessions = bucket.tagged(key);
                let publishes = sessions
                    .find(|session| session.publishes(now) && session.subject.is(claim.subject))?;
                Some(publishes.channel.text().into_boxed_str())
            })
            .collect()
    }

    fn check_streams(
        &self,
        publishing: &LinkShard,
        subject: u64,
        claim: SeatRequest<'_>,
        rules: Rules,
        now: u32,
    ) -> Result<(), ClaimRefused> {
        if rules.max_streams_per_publisher == 0 {
            return Ok(());
        }
        let others = self.publishes_in(publishing, subject, claim, now).len();
        if u32::try_from(others).unwrap_or(u32::MAX) >= rules.max_streams_per_publisher {
            return Err(ClaimRefused::TooManyStreams);
        }
        Ok(())
    }

    /// Removes what led to a session that is gone, unless it leads to another of its key.
    fn unlink(&self, gone: &Session) {
        let (channel, subject) = (gone.channel.text(), gone.subject.text());
        let key = self.key(&channel, &subject);
        let another = |like: &dyn Fn(&Session) -> bool| {
            self.bucket(key)
                .is_some_and(|bucket| bucket.of(key, &channel, &subject).any(like))
        };
        if let Some(user) = self.user(&channel, &gone.user)
            && let Some(mut bound) = self.bound.lock(user)
            && !another(&|session| session.user == gone.user)
        {
            bound.remove(user, key.0);
        }
        if !gone.published() {
            return;
        }
        let from = self.publisher(&subject);
        if let Some(mut publishing) = self.publishing.lock(from)
            && !another(&Session::published)
        {
            publishing.remove(from, key.0);
        }
    }
}

/// Unix seconds as the table keeps them.
fn seconds(unix: u64) -> u32 {
    u32::try_from(unix).unwrap_or(u32::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it was held leaves what is behind it whole: no change to one is done half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
