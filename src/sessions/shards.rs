//! A map from keyed hashes to values, in many small shards, each behind a lock of its own.
//!
//! A shard is a vector that is scanned: at a million values that takes less than a microsecond. Hash tables per shard
//! were tried for sessions: they double when a removed entry leaves no free place, and take up to 317 MiB.
//!
//! Keeps true: a vector grows by an eighth and gives half-empty room back, so that memory follows the number of
//! values; a key may have several values.
//! Must not know: what a key stands for, what a value is.

use parking_lot::{Mutex, MutexGuard};

/// Enough that a shard holds some 60 of a million values, few enough that an empty map is small.
pub(super) const SHARDS: usize = 16_384;

/// The whole map.
#[derive(Debug)]
pub(crate) struct Shards<T>(Box<[Mutex<Shard<T>>]>);

/// The values of some keys; locked as long as what they say must stay true.
#[derive(Debug)]
pub(crate) struct Shard<T>(Vec<(u64, T)>);

impl<T> Shards<T> {
    pub(crate) fn new() -> Self {
        Self((0..SHARDS).map(|_| Mutex::new(Shard(Vec::new()))).collect())
    }

    /// The shard of a key, locked.
    pub(crate) fn lock(&self, key: u64) -> MutexGuard<'_, Shard<T>> {
        self.0[shard_of(key)].lock()
    }

    /// The shard at a position below [`SHARDS`], locked.
    pub(super) fn lock_at(&self, position: usize) -> MutexGuard<'_, Shard<T>> {
        self.0[position].lock()
    }

    /// One shard after another, locked as long as the item lives.
    pub(super) fn iter(&self) -> impl Iterator<Item = MutexGuard<'_, Shard<T>>> {
        self.0.iter().map(Mutex::lock)
    }

    /// The shards of one of `parts` equal parts of the map, as [`Self::iter`] gives them. `turn` may be any number.
    pub(super) fn part(
        &self,
        turn: usize,
        parts: usize,
    ) -> impl Iterator<Item = MutexGuard<'_, Shard<T>>> {
        let part = SHARDS / parts;
        self.0[turn % parts * part..][..part]
            .iter()
            .map(Mutex::lock)
    }
}

/// The position of a key's shard.
pub(super) fn shard_of(key: u64) -> usize {
    usize::try_from(key % SHARDS as u64).unwrap_or(0)
}

impl<T> Shard<T> {
    /// The values of a key.
    pub(crate) fn of(&self, key: u64) -> impl Iterator<Item = &T> {
        let of_key = self.0.iter().filter(move |(known, _)| *known == key);
        of_key.map(|(_, value)| value)
    }

    /// The values of a key.
    pub(super) fn of_mut(&mut self, key: u64) -> impl Iterator<Item = &mut T> {
        let of_key = self.0.iter_mut().filter(move |(known, _)| *known == key);
        of_key.map(|(_, value)| value)
    }

    /// Every value.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, value)| value)
    }

    /// Every value.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    /// Adds a value to those of its key.
    pub(crate) fn push(&mut self, key: u64, value: T) {
        if self.0.len() == self.0.capacity() {
            self.0.reserve_exact((self.0.len() / 8).max(4));
        }
        self.0.push((key, value));
    }

    /// Keeps the values for which `keeps` is true.
    pub(crate) fn retain(&mut self, mut keeps: impl FnMut(u64, &mut T) -> bool) {
        self.0.retain_mut(|(key, value)| keeps(*key, value));
        if self.0.capacity() > 2 * self.0.len() + 8 {
            self.0.shrink_to_fit();
        }
    }
}

impl Shard<u64> {
    /// Makes `value` the key's only value and gives the one before it.
    pub(super) fn replace(&mut self, key: u64, value: u64) -> Option<u64> {
        if let Some(known) = self.of_mut(key).next() {
            return Some(std::mem::replace(known, value));
        }
        self.push(key, value);
        None
    }

    /// Adds a value, unless the key has it.
    pub(super) fn add(&mut self, key: u64, value: u64) {
        if self.of(key).all(|known| *known != value) {
            self.push(key, value);
        }
    }

    /// Removes one value of a key.
    pub(super) fn remove(&mut self, key: u64, value: u64) {
        self.retain(|known_key, known| (known_key, *known) != (key, value));
    }
}
