//! Tells in a few nanoseconds that nothing is refused by a hash, so that nearly every question takes no lock.
//!
//! Keeps true: a place counts at least the entries whose hashes lead to it; one that has counted to its most never
//! counts down again. The memory is taken with the first entry.
//! Must not know: what a hash stands for.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

/// With 100,000 entries, one question in 30 that nothing answers is led astray.
const PLACES: usize = 1 << 20;

/// Places that lie beside each other in memory, so that one access brings all of them.
const LINE: usize = 64;

#[derive(Debug, Default)]
pub(super) struct CountingFilter(OnceLock<Box<[AtomicU8]>>);

impl CountingFilter {
    /// Whether there may be an entry of this hash.
    pub(super) fn may_have(&self, hash: u64) -> bool {
        let counts = |place: &AtomicU8| place.load(Ordering::Acquire) > 0;
        self.0
            .get()
            .is_some_and(|places| chosen(places, hash).into_iter().all(counts))
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
        for place in chosen(places, hash) {
            let count = place.load(Ordering::Relaxed);
            place.store(count.saturating_add(1), Ordering::Release);
        }
    }

    /// Counts an entry that can't be found any more. Callers take turns.
    pub(super) fn remove(&self, hash: u64) {
        let places = self.0.get().into_iter();
        for place in places.flat_map(|places| chosen(places, hash)) {
            let count = place.load(Ordering::Relaxed);
            if count < u8::MAX {
                place.store(count.saturating_sub(1), Ordering::Release);
            }
        }
    }
}

/// The two places of a hash, on one line.
fn chosen(places: &[AtomicU8], hash: u64) -> [&AtomicU8; 2] {
    let [line, first, second] =
        [hash >> 32, hash >> 6, hash].map(|part| usize::try_from(part).unwrap_or(0));
    let line = line % (PLACES / LINE) * LINE;
    [first, second].map(|place| &places[line + place % LINE])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_present_from_its_addition_to_its_removal() {
        let filter = CountingFilter::default();
        assert!(filter.is_unused() && !filter.may_have(7 << 32));
        filter.add(7 << 32);
        filter.add(7 << 32);
        filter.remove(7 << 32);
        assert!(filter.may_have(7 << 32) && !filter.may_have(8 << 32));
        filter.remove(7 << 32);
        assert!(!filter.may_have(7 << 32) && !filter.is_unused());
    }

    #[test]
    fn a_place_that_has_lost_count_stays_present() {
        let filter = CountingFilter::default();
        (0..300).for_each(|_| filter.add(1));
        (0..300).for_each(|_| filter.remove(1));
        assert!(filter.may_have(1));
    }
}
