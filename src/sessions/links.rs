//! From what a session is also found by to where it is: from a user of a channel to its holder, from a subject to the
//! channels it publishes in.
//!
//! Keeps true: both ends are keyed hashes, which nobody can aim at and which meet by chance once in 2^64 pairs; what a
//! link leads to may be over, so whoever follows one looks.
//! Must not know: what is linked.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::column::Column;

/// Enough that a scan of one is short at a million links: 122 of 16 bytes.
const SHARDS: u64 = 8192;

/// Links by where they come from.
#[derive(Debug)]
pub(super) struct Links(Vec<Mutex<LinkShard>>);

/// The links of some origins; locked as long as what they say must stay true.
#[derive(Debug, Default)]
pub(super) struct LinkShard(Column<Link>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    from: u64,
    to: u64,
}

// === impl Links ===

impl Links {
    pub(super) fn new() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }

    /// The links from here, locked. `None` never happens: the index is within the shards.
    pub(super) fn lock(&self, from: u64) -> Option<MutexGuard<'_, LinkShard>> {
        let index = usize::try_from(from % SHARDS).ok()?;
        let shard = self.0.get(index)?;
        // Each change is a single write: a panic while it was locked leaves it whole.
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

// === impl Shard ===

impl LinkShard {
    /// Where the links from here lead.
    pub(super) fn from(&self, from: u64) -> impl Iterator<Item = u64> {
        let links = self.0.iter().filter(move |link| link.from == from);
        links.map(|link| link.to)
    }

    /// The only link from here from now on; gives what it replaces.
    pub(super) fn set(&mut self, from: u64, to: u64) -> Option<u64> {
        if let Some(link) = self.0.iter_mut().find(|link| link.from == from) {
            return Some(std::mem::replace(&mut link.to, to));
        }
        self.0.push(Link { from, to });
        None
    }

    /// One more link from here, if it isn't there.
    pub(super) fn add(&mut self, from: u64, to: u64) {
        let link = Link { from, to };
        if self.0.iter().all(|known| *known != link) {
            self.0.push(link);
        }
    }

    /// Forgets a link, if it is there.
    pub(super) fn remove(&mut self, from: u64, to: u64) {
        let link = Link { from, to };
        let found = self.0.iter().position(|known| *known == link);
        if let Some(index) = found {
            self.0.swap_remove(index);
        }
    }
}
