//! Revocations: what an operator refuses tokens to, and until when.
//!
//! A question hashes its names, and looks at four counters; only where one isn't zero does it look into a map behind a
//! lock. So it costs the same however many revocations are active.
//!
//! Keeps true: what is added is in force when [`Revocations::add`] returns; an expired revocation refuses nothing; at
//! most [`MOST`] are active. A worker never waits for the ledger, only for one shard at a time.
//! Must not know: where revocations are written down, who asks for one, how a refusal looks.

mod counting_filter;
mod id;
mod ledger;
mod record;
mod target;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::sessions::Shards;
use counting_filter::CountingFilter;
pub use id::RevocationId;
use ledger::Ledger;
pub(crate) use ledger::{ListedRevocations, RevocationFilter};
pub use record::RevocationRecord;
pub(crate) use record::record_version;
use target::RevokedKey;
pub use target::{RevocationQuestion, RevocationTarget};

/// The most revocations that are active at once.
pub const MOST: usize = 100_000;

/// One revocation. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// The revocation's name.
    pub id: RevocationId,
    /// The tokens that the revocation refuses.
    pub target: RevocationTarget,
    /// The subjects that held the target's user when it was revoked. They are refused in that channel as well,
    /// whichever user they ask for.
    pub holders: Vec<Box<str>>,
    /// When it was made.
    pub created: u64,
    /// The first second at which it is over.
    pub until: u64,
    /// The operator's note; empty for none.
    pub reason: Box<str>,
    /// Members of its record that a newer build has written and this one doesn't know.
    pub(crate) others: BTreeMap<String, Value>,
}

/// The table is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{MOST} revocations are active, which is the most; lift some, or revoke a whole channel instead"
)]
pub struct TooManyRevocations;

/// All revocations that are in force here.
#[derive(Debug)]
pub struct Revocations {
    hasher: RandomState,
    /// From what is refused to the revocations that refuse it.
    refused: Shards<Arc<Revocation>>,
    /// The hashes of the keys of `refused`.
    filter: CountingFilter,
    /// How many are active.
    active: AtomicUsize,
    /// Every revocation by its name and by its end. Workers never lock it.
    ledger: Mutex<Ledger>,
    /// When every change of the other replicas was last known, in milliseconds on the clock's monotonic scale;
    /// [`UNSHARED`] where there are none.
    heard: AtomicU64,
    /// Other replicas share theirs, and this process hasn't read them yet.
    unread: AtomicBool,
    /// Told when they are read.
    read: Notify,
}

/// Nothing is shared.
const UNSHARED: u64 = u64::MAX;

impl Default for Revocations {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            refused: Shards::new(),
            filter: CountingFilter::default(),
            active: AtomicUsize::new(0),
            ledger: Mutex::default(),
            heard: AtomicU64::new(UNSHARED),
            unread: AtomicBool::new(false),
            read: Notify::new(),
        }
    }
}

impl Revocations {
    /// The revocation that refuses a token now; `None` where none does.
    pub fn find(&self, question: RevocationQuestion<'_>, now: u64) -> Option<Arc<Revocation>> {
        if self.filter.is_unused() {
            return None;
        }
        let mut keys = question.keys(&self.hasher);
        keys.find_map(|(key, hash)| {
            if !self.filter.may_have(hash) {
                return None;
            }
            let shard = self.refused.lock(hash);
            let mut of_hash = shard.of(hash);
            of_hash
                .find(|revocation| revocation.until > now && revocation.has(key))
                .cloned()
        })
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.active.load(Ordering::Acquire) == 0
    }

    /// How many are active: `renewd_revocations`.
    pub fn len(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    /// Puts a revocation in force. `false` where that changes nothing: its name is known, or it was lifted.
    pub fn add(&self, revocation: Revocation) -> Result<bool, TooManyRevocations> {
        let mut ledger = self.ledger.lock();
        if ledger.get(revocation.id).is_some() || ledger.is_lifted(revocation.id) {
            return Ok(false);
        }
        if ledger.len() >= MOST {
            return Err(TooManyRevocations);
        }
        let revocation = Arc::new(revocation);
        ledger.add(Arc::clone(&revocation));
        for key in revocation.keys() {
            let hash = key.hash(&self.hasher);
            self.filter.add(hash);
            self.refused.lock(hash).push(hash, Arc::clone(&revocation));
        }
        self.active.store(ledger.len(), Ordering::Release);
        Ok(true)
    }

    /// Ends a revocation before its time; `None` where there is none of that name.
    pub fn lift(&self, id: RevocationId) -> Option<Arc<Revocation>> {
        let until = self.ledger.lock().get(id)?.until;
        self.apply_lift(id, until)
    }

    /// Applies a record that a revocation was lifted, whether it is known here or becomes known later. The revocation
    /// that this ends.
    pub(crate) fn apply_lift(&self, id: RevocationId, until: u64) -> Option<Arc<Revocation>> {
        let mut ledger = self.ledger.lock();
        ledger.mark_lifted(id, until);
        let lifted = ledger.remove(id)?;
        self.strike_out(&lifted);
        self.active.store(ledger.len(), Ordering::Release);
        Some(lifted)
    }

    /// A record of each revocation, and of each that was lifted, that is not over: all that a restart or another
    /// replica needs.
    pub(crate) fn records(&self, now: u64) -> Vec<RevocationRecord> {
        let ledger = self.ledger.lock();
        let lifted = ledger.lifted().filter(|(_, until)| *until > now);
        let lifted = lifted.map(|(id, until)| RevocationRecord::Lifted { id, until });
        let made = ledger.all().into_iter();
        let made = made.filter(|revocation| revocation.until > now);
        lifted
            .chain(made.map(|revocation| RevocationRecord::Made((*revocation).clone())))
            .collect()
    }

    /// Forgets revocations that are over, a few hundred at a time. Gives how many.
    pub fn sweep(&self, now: u64) -> usize {
        let mut ledger = self.ledger.lock();
        let over = ledger.take_over(now);
        for revocation in &over {
            self.strike_out(revocation);
        }
        self.active.store(ledger.len(), Ordering::Release);
        over.len()
    }

    /// Notes that other replicas share theirs, before any of those is known.
    pub(crate) fn expect_others(&self) {
        self.unread.store(true, Ordering::Release);
    }

    /// Notes that those of the other replicas are read, or that nothing can be read now.
    pub(crate) fn expect_no_others(&self) {
        if self.unread.swap(false, Ordering::AcqRel) {
            self.read.notify_waiters();
        }
    }

    /// Waits until those of the other replicas are read for the first time; `false` where that takes too long.
    pub(crate) async fn await_others(&self, at_most: Duration) -> bool {
        let is_read = || !self.unread.load(Ordering::Acquire);
        if is_read() {
            return true;
        }
        let mut reading = pin!(self.read.notified());
        reading.as_mut().enable();
        is_read() || timeout(at_most, reading).await.is_ok()
    }

    /// Notes that every change of the other replicas is known now, on the clock's monotonic scale.
    pub(crate) fn heard(&self, now: Duration) {
        let millis = u64::try_from(now.as_millis()).unwrap_or(UNSHARED - 1);
        self.heard.store(millis, Ordering::Relaxed);
    }

    /// How long ago every change of the other replicas was known; zero where nothing is shared.
    pub(crate) fn age(&self, now: Duration) -> Duration {
        match self.heard.load(Ordering::Relaxed) {
            UNSHARED => Duration::ZERO,
            heard => now.saturating_sub(Duration::from_millis(heard)),
        }
    }

    /// Whether a revocation was lifted, and would still be in force.
    pub(crate) fn is_lifted(&self, id: RevocationId) -> bool {
        self.ledger.lock().is_lifted(id)
    }

    /// A revocation by its name.
    pub fn get(&self, id: RevocationId) -> Option<Arc<Revocation>> {
        self.ledger.lock().get(id)
    }

    /// At most `limit` of the revocations that the filter takes and that are not over: the latest first, from the
    /// one before `after` on.
    pub(crate) fn page(
        &self,
        filter: RevocationFilter<'_>,
        after: Option<RevocationId>,
        limit: usize,
        now: u64,
    ) -> ListedRevocations {
        self.ledger.lock().page(filter, after, limit, now)
    }

    fn strike_out(&self, gone: &Revocation) {
        for key in gone.keys() {
            let hash = key.hash(&self.hasher);
            let mut shard = self.refused.lock(hash);
            shard.retain(|_, revocation| revocation.id != gone.id);
            drop(shard);
            self.filter.remove(hash);
        }
    }
}

impl Revocation {
    /// A revocation without holders or a reason.
    pub fn new(id: RevocationId, target: RevocationTarget, created: u64, until: u64) -> Self {
        Self {
            id,
            target,
            holders: Vec::new(),
            created,
            until,
            reason: "".into(),
            others: BTreeMap::new(),
        }
    }

    /// Everything that it refuses, each once.
    fn keys(&self) -> impl Iterator<Item = RevokedKey<'_>> {
        let channel = self.target.channel();
        let holders = channel.into_iter().flat_map(|channel| {
            let holders = self.holders.iter();
            holders.map(move |holder| RevokedKey::SubjectInChannel(holder, channel))
        });
        std::iter::once(self.target.key()).chain(holders)
    }

    fn has(&self, key: RevokedKey<'_>) -> bool {
        self.keys().any(|its| its == key)
    }
}
