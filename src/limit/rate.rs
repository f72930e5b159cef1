//! One limit's arithmetic: `governor`'s GCRA on one stored entry.
//!
//! Keeps true: a stored time means the same under every limit, because it is kept with the epoch of the limit that
//! charged it.
//! Must not know: keys, shards, what other limits there were.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use super::LimitExceeded;
use super::store::{LimitEntry, Stored};
use super::tariffs::{Tariff, Tariffs};
use crate::config::model;
use crate::terms::outcome::Scope;

/// The longest time until a whole capacity is back: a hundred years, well inside the 584 years that the 64-bit
/// nanoseconds of `governor` 0.10 (`governor::nanos::Nanos`, whose sums are unchecked) can hold.
const LONGEST_DEBT: u64 = 100 * 365 * 86_400 * 1_000_000_000;

/// When the latest debt is paid, that of a request after a hundred years.
const LATEST: u64 = 2 * LONGEST_DEBT;

/// A configured quota, within what the arithmetic can hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    quota: Quota,
    /// Nanoseconds in which one request comes back; above zero.
    interval: u64,
    /// Nanoseconds in which the whole capacity comes back.
    capacity: u64,
    /// The limit's number among those of its scope.
    epoch: u32,
    /// Since when the limit has been in force.
    since: Duration,
}

/// A request that may pass and isn't charged yet. The admission holds the lock of its entry.
#[must_use = "charges nothing unless taken"]
pub(super) struct RateAdmission<'store>(RateSlot<'store>);

impl Rate {
    /// Cuts limits to what can be counted: an interval to between 1 ns and 100 years, the capacity to what comes back
    /// within 100 years. No clock could tell such limits from what was configured. From `now` on the limit is in force.
    pub(super) fn new(quota: model::Quota, tariffs: &Tariffs, now: Duration) -> Self {
        let interval = (quota.per / quota.requests.max(1)).as_nanos();
        let interval = u64::try_from(interval)
            .unwrap_or(u64::MAX)
            .clamp(1, LONGEST_DEBT);
        let burst = u64::from(quota.burst).min(LONGEST_DEBT / interval);
        let burst = u32::try_from(burst).unwrap_or(u32::MAX);
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(Duration::from_nanos(interval))
            .unwrap_or(Quota::per_second(NonZeroU32::MIN))
            .allow_burst(burst);
        let capacity = interval * u64::from(burst.get());
        let Tariff { epoch, since, .. } = tariffs.adopt(interval, capacity, now);
        Self {
            quota,
            interval,
            capacity,
            epoch,
            since: Duration::from_nanos(since),
        }
    }

    /// Whether one more request conforms at `now`, counted from process start.
    pub(super) fn admit<'store>(
        &self,
        scope: Scope,
        entry: LimitEntry<'store>,
        tariffs: &Tariffs,
        now: Duration,
    ) -> Result<RateAdmission<'store>, LimitExceeded> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let now = Nanos::new(now.min(LONGEST_DEBT));
        let slot = RateSlot {
            arrival: entry.stored().map(|stored| self.arrival(stored, tariffs)),
            next: Cell::new(None),
            epoch: self.epoch,
            entry,
        };
        let clock = SinceProcessStart {
            now,
            asked: Cell::new(false),
        };
        let limiter = RateLimiter::<_, _, _, NoOpMiddleware<Nanos>>::new(self.quota, slot, clock);
        match limiter.check() {
            Ok(()) => Ok(RateAdmission(limiter.into_state_store())),
            Err(refused) => Err(self.refusal(scope, refused.wait_time_from(now))),
        }
    }

    /// The refusal of a request that would pass after `retry_after`.
    pub(crate) fn refusal(&self, scope: Scope, retry_after: Duration) -> LimitExceeded {
        LimitExceeded {
            scope,
            retry_after,
            limit: self.quota.burst_size().get(),
            remaining: 0,
            reset: retry_after + Duration::from_nanos(self.capacity - self.interval),
        }
    }

    /// The interval, the capacity, and how long the limit has been in force, in microseconds with their decimals.
    pub(crate) fn in_microseconds(&self, now: Duration) -> [String; 3] {
        let age = now.saturating_sub(self.since);
        [
            Duration::from_nanos(self.interval),
            Duration::from_nanos(self.capacity),
            age,
        ]
        .map(|time| format!("{}.{:03}", time.as_micros(), time.subsec_nanos() % 1000))
    }

    /// When an entry's debt is paid under this limit (GCRA's theoretical arrival time).
    fn arrival(&self, stored: Stored, tariffs: &Tariffs) -> Nanos {
        if stored.epoch == self.epoch {
            return Nanos::new(stored.arrival);
        }
        let arrival = tariffs.known().arrival(stored, self.epoch);
        Nanos::new(arrival.min(LATEST))
    }
}

impl RateAdmission<'_> {
    /// Charges the request.
    pub(super) fn take(self) {
        let RateSlot {
            next, epoch, entry, ..
        } = self.0;
        if let Some(next) = next.get() {
            entry.store(Stored {
                arrival: next.as_u64(),
                epoch,
            });
        }
    }
}

/// `governor`'s state store for one locked entry: it measures at once but replaces only when the admission is taken,
/// so that several limits can agree first.
struct RateSlot<'store> {
    arrival: Option<Nanos>,
    next: Cell<Option<Nanos>>,
    epoch: u32,
    entry: LimitEntry<'store>,
}

impl StateStore for RateSlot<'_> {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (outcome, next) = measure(self.arrival)?;
        self.next.set(Some(next));
        Ok(outcome)
    }
}

/// `governor` 0.10 counts a limiter's times from the first reading of its clock (`RateLimiter::new` takes
/// `clock.now()` as the start), and here a limiter lives for one request: the first reading gives process start,
/// every other one gives now.
struct SinceProcessStart {
    now: Nanos,
    asked: Cell<bool>,
}

impl Clock for SinceProcessStart {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        if self.asked.replace(true) {
            self.now
        } else {
            Nanos::new(0)
        }
    }
}
