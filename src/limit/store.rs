//! The debts of one scope's keys: a sharded, counted, bounded table.
//!
//! Keeps true: the table never has more than `max_keys` entries, however many threads ask; when it is full, new keys
//! share one overflow entry. No operation locks or visits more than one shard.
//! Must not know: what a key stands for, what a stored time means for the next request.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

/// With a million keys a shard has 4 000, which take some 10 µs to sweep.
const SHARDS: usize = 256;

/// Tables smaller than this are never shrunk.
const SMALL: usize = 64;

/// A debt, in nanoseconds; times count from process start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// When the debt is paid.
    pub(super) arrival: u64,
    /// Which of the scope's limits charged it ([`super::tariffs`]).
    pub(super) epoch: u32,
}

/// One scope's entries.
#[derive(Debug)]
pub(super) struct DebtTable {
    shards: Box<[Mutex<LimitShard>]>,
    /// Entries in all shards, and those that a locked [`LimitEntry`] may still add.
    count: AtomicUsize,
    overflow: Mutex<Option<Stored>>,
    overflowed: AtomicU64,
    next_slice: AtomicUsize,
}

type LimitShard = HashMap<u64, Stored, BuildHasherDefault<AlreadyHashed>>;

/// One key's entry, locked. An entry that is dropped without [`LimitEntry::store`] leaves the table as it was.
pub(super) struct LimitEntry<'store> {
    store: &'store DebtTable,
    place: EntryPlace<'store>,
    /// The entry is counted, but not in the table yet.
    reserved: bool,
}

enum EntryPlace<'store> {
    /// The entry is in its shard, or room is kept for it there.
    Shard(MutexGuard<'store, LimitShard>, u64),
    /// The table is full.
    Overflow(MutexGuard<'store, Option<Stored>>),
}

/// The keys are keyed hashes already: this hasher passes them through.
#[derive(Default)]
struct AlreadyHashed(u64);

impl Default for DebtTable {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            count: AtomicUsize::new(0),
            overflow: Mutex::default(),
            overflowed: AtomicU64::new(0),
            next_slice: AtomicUsize::new(0),
        }
    }
}

impl DebtTable {
    /// Locks the entry of a key. Keys must be evenly distributed; `max_keys` may change from call to call.
    pub(super) fn entry(&self, key: u64, max_keys: usize) -> LimitEntry<'_> {
        let shard = self.shard(key).lock();
        let known = shard.contains_key(&key);
        let reserved = !known && self.reserve(max_keys);
        let place = if known || reserved {
            EntryPlace::Shard(shard, key)
        } else {
            drop(shard);
            EntryPlace::Overflow(self.overflow.lock())
        };
        LimitEntry {
            store: self,
            place,
            reserved,
        }
    }

    /// Entries in the table.
    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// How often the overflow entry was charged.
    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// Removes the entries whose debt is paid from the next shard, and gives their number.
    pub(super) fn sweep_slice(&self, is_paid: impl Fn(Stored) -> bool) -> usize {
        let slice = self.next_slice.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let mut shard = self.shards[slice].lock();
        let before = shard.len();
        shard.retain(|_, stored| !is_paid(*stored));
        let removed = before - shard.len();
        // The memory of a flood of keys is given back.
        if shard.capacity() > SMALL && shard.len() < shard.capacity() / 4 {
            let room = shard.len() * 2;
            shard.shrink_to(room);
        }
        drop(shard);
        self.count.fetch_sub(removed, Ordering::Relaxed);
        removed
    }

    /// Counts one more entry unless the table is full.
    fn reserve(&self, max_keys: usize) -> bool {
        let more = |count: usize| (count < max_keys).then_some(count + 1);
        self.count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    fn shard(&self, key: u64) -> &Mutex<LimitShard> {
        // Hash tables use the lowest and the highest bits of a hash; the shard is chosen by bits in between.
        let bits = usize::try_from(key >> 40 & 0xff).unwrap_or(0);
        &self.shards[bits % SHARDS]
    }
}

impl LimitEntry<'_> {
    /// The debt, if one is known.
    pub(super) fn stored(&self) -> Option<Stored> {
        match &self.place {
            EntryPlace::Shard(shard, key) => shard.get(key).copied(),
            EntryPlace::Overflow(overflow) => **overflow,
        }
    }

    /// Replaces the debt.
    pub(super) fn store(mut self, stored: Stored) {
        match &mut self.place {
            EntryPlace::Shard(shard, key) => {
                shard.insert(*key, stored);
                self.reserved = false;
            }
            EntryPlace::Overflow(overflow) => {
                **overflow = Some(stored);
                self.store.overflowed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for LimitEntry<'_> {
    fn drop(&mut self) {
        if self.reserved {
            self.store.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}
