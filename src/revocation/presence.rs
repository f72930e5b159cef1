//! Tells in a few nanoseconds that nothing is refused by a hash, so that nearly every question takes no lock.
//!
//! Keeps true: a place counts at least the entries whose hashes lead to it; one that has counted to its most never
//! counts down again. The memory is taken with the first entry.
//! Must not know: what a hash stands for.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

/// One entry of ten leads a question astray when there are 100,000.
const PLACES: usize = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Presence(OnceLock<Box<[AtomicU8]>>);

impl Presence {
    /// Whether there may be an entry of this hash.
    pub(super) fn may_have(&self, hash: u64) -> bool {
        let places = self.0.get();
        places.is_some_and(|places| place(places, hash).load(Ordering::Acquire) > 0)
    }

    /// Whether there has never been an entry.
    pub(super) fn is_unused(&self) -> bool {
        self.0.get().is_none()
    }

    /// Counts an entry, before it can be found. Callers take turns.
    pub(super) fn add(&self, hash: u64) {
        let places = self
            .0
            .get_or_init(|| (0..PLACES).map(|_| AtomicU8::new(0)).collect());
        let place = place(places, hash);
        let count = place.load(Ordering::Relaxed);
        place.store(count.saturating_add(1), Ordering::Release);
    }

    /// Counts an entry that can't be found any more. Callers take turns.
    pub(super) fn remove(&self, hash: u64) {
        let Some(places) = self.0.get() else {
            return;
        };
        let place = place(places, hash);
        let count = place.load(Ordering::Relaxed);
        if count < u8::MAX {
            place.store(count.saturating_sub(1), Ordering::Release);
        }
    }
}

/// The upper half chooses, because shards go by the lower bits.
fn place(places: &[AtomicU8], hash: u64) -> &AtomicU8 {
    let chosen = usize::try_from(hash >> 32).unwrap_or(0) % PLACES;
    &places[chosen]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_present_from_its_addition_to_its_removal() {
        let presence = Presence::default();
        assert!(presence.is_unused() && !presence.may_have(7 << 32));
        presence.add(7 << 32);
        presence.add(7 << 32);
        presence.remove(7 << 32);
        assert!(presence.may_have(7 << 32) && !presence.may_have(8 << 32));
        presence.remove(7 << 32);
        assert!(!presence.may_have(7 << 32) && !presence.is_unused());
    }

    #[test]
    fn a_place_that_has_lost_count_stays_present() {
        let presence = Presence::default();
        (0..300).for_each(|_| presence.add(1));
        (0..300).for_each(|_| presence.remove(1));
        assert!(presence.may_have(1));
    }
}
