//! The price of one request over time, in one scope: the limits that came one after the other.
//!
//! Keeps true: a debt is paid at the rate of the limit that was in force at each time, so that a changed limit forgets
//! no debt and the wait that a refusal names stays true; a narrower `burst` cuts a debt to the whole capacity, counted
//! from the change on.
//! Must not know: keys, whether a request passes.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::store::Stored;

/// More than an operator makes while the debts of the first are unpaid. A debt that is older still is read as one of
/// the oldest limit that is known.
const KEPT: usize = 32;

/// One limit, as long as nothing of it changes. Times and costs are nanoseconds; times count from process start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tariff {
    pub(super) epoch: u32,
    /// When the limit came into force.
    pub(super) since: u64,
    /// The price of one request, in nanoseconds.
    interval: u64,
    /// The price of the whole capacity, in nanoseconds.
    capacity: u64,
}

/// The tariffs of one scope, oldest first. All limiters share them, one after the other.
#[derive(Debug, Default)]
pub(super) struct Tariffs(ArcSwap<Vec<Tariff>>);

/// The tariffs as they were when they were asked for.
#[derive(Debug)]
pub(super) struct KnownTariffs(Arc<Vec<Tariff>>);

impl Tariffs {
    /// Brings a limit into force at `now` and gives its tariff. An unchanged limit keeps its tariff.
    pub(super) fn adopt(&self, interval: u64, capacity: u64, now: Duration) -> Tariff {
        let known = self.0.load_full();
        let last = known.last();
        if let Some(last) = last
            && (last.interval, last.capacity) == (interval, capacity)
        {
            return *last;
        }
        let epoch = last.map_or(0, |last| last.epoch.wrapping_add(1));
        let mut tariffs = known.as_ref().clone();
        let tariff = Tariff {
            epoch,
            since: nanoseconds(now),
            interval,
            capacity,
        };
        tariffs.push(tariff);
        let excess = tariffs.len().saturating_sub(KEPT);
        tariffs.drain(..excess);
        self.0.store(Arc::new(tariffs));
        tariff
    }

    pub(super) fn known(&self) -> KnownTariffs {
        KnownTariffs(self.0.load_full())
    }
}

impl KnownTariffs {
    /// When a debt is paid under the limit of `epoch`, which is later than the debt's own; or earlier, for a request
    /// that began before a reload. No debt is above the whole capacity.
    pub(super) fn arrival(&self, stored: Stored, epoch: u32) -> u64 {
        let (from, to) = (self.position(stored.epoch), self.position(epoch));
        let arrival = self.whole_arrival(stored.arrival, from, to);
        match self.0.get(to) {
            Some(tariff) if from < to => arrival.min(tariff.since.saturating_add(tariff.capacity)),
            _ => arrival,
        }
    }

    /// When all of a debt is paid, also what of it is above the capacity.
    fn whole_arrival(&self, arrival: u64, from: usize, to: usize) -> u64 {
        let changes = |first: usize, last: usize| {
            let between = self.0.get(first..=last).unwrap_or_default();
            between.array_windows::<2>()
        };
        if from > to {
            return changes(to, from)
                .rev()
                .fold(arrival, |arrival, [earlier, later]| {
                    repriced(arrival, later.since, later.interval, earlier.interval)
                });
        }
        changes(from, to).fold(arrival, |arrival, [earlier, later]| {
            repriced(arrival, later.since, earlier.interval, later.interval)
        })
    }

    /// Whether all of a debt is paid at `now` under the newest limit. What is above its capacity counts, for a wider
    /// limit may follow.
    pub(super) fn is_paid(&self, stored: Stored, now: Duration) -> bool {
        let arrival = match self.0.last() {
            Some(newest) if newest.epoch != stored.epoch => {
                let (from, to) = (self.position(stored.epoch), self.position(newest.epoch));
                self.whole_arrival(stored.arrival, from, to)
            }
            _ => stored.arrival,
        };
        arrival <= nanoseconds(now)
    }

    /// The place of an epoch, or of the nearest that is known.
    fn position(&self, epoch: u32) -> usize {
        let first = self.0.first().map_or(0, |first| first.epoch);
        let newest = self.0.len().saturating_sub(1);
        // An epoch before the first known one is far from it when the count wraps around.
        match usize::try_from(epoch.wrapping_sub(first)) {
            Ok(place) if place <= newest => place,
            _ => 0,
        }
    }
}

/// A debt that is paid at `arrival`, when from `since` on each request costs another interval. Fractions of a
/// nanosecond stay owed.
fn repriced(arrival: u64, since: u64, before: u64, after: u64) -> u64 {
    let owed = arrival.saturating_sub(since);
    if owed == 0 || before == after {
        return arrival;
    }
    let owed = (u128::from(owed) * u128::from(after)).div_ceil(u128::from(before.max(1)));
    since.saturating_add(u64::try_from(owed).unwrap_or(u64::MAX))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
