//! Questions to a source that is asked over the network: one in flight per key, answers kept for a moment.
//!
//! Keeps true: however many requests ask, on whichever worker, each key is asked for once at a time; a request that
//! needs an answer from no earlier than some moment gets one that was asked for at or after it; a question that was
//! begun is never dropped, only no longer waited for. Keys are swept and questions in flight are limited.
//! Must not know: what is asked, or what follows from an answer.

mod known;

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::fmt;
use std::future::Future;
use std::hash::BuildHasher;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::outage::{NoAnswerReason, Outage, OutageAdmission, PROBE};
use crate::telemetry::metrics::SourceMetrics;
use crate::terms::clock::Clock;
use crate::terms::outcome::LookupOutcome;
use known::{Flight, KeptAnswer, Landing, LookupEntry, make_room};

/// The number of shards: enough that workers seldom wait for each other.
const SHARDS: usize = 32;

/// The most questions at once; others wait. A database that gets more than this doesn't answer sooner.
const MOST_IN_FLIGHT: usize = 128;

/// The time from one question for a key to the next, where a request wants a fresher answer than the one known, or
/// where the last question got no answer.
const SPACING: Duration = Duration::from_millis(100);

/// The most keys per shard. A full shard drops what no request waits for.
const MOST_KEYS: usize = 8192;

/// A question, made anew each time and run on the control plane.
pub(crate) type LookupQuestion<T> = Pin<Box<dyn Future<Output = Result<T, NoAnswerReason>> + Send>>;

/// A source that is asked over the network.
pub(crate) trait LookupSource<T>: Send + Sync {
    /// Asks about one key. The caller holds the question to a deadline.
    fn ask(self: Arc<Self>, key: Box<str>) -> LookupQuestion<T>;

    /// Called when a question had no reply in time.
    fn silent(&self) {}

    /// Why the source's answers may be wrong although it answers: a configured name may be mistyped. Holds no secret.
    fn doubt(&self) -> Option<String> {
        None
    }
}

/// An answer, and when it was asked for.
#[derive(Debug)]
pub(crate) struct LookupAnswer<T> {
    /// The source's answer.
    pub value: Arc<T>,
    /// When the question was begun, on the clock's monotonic scale.
    pub asked_at: Duration,
    /// [`LookupOutcome::Hit`] from memory, [`LookupOutcome::Miss`] from the source.
    pub outcome: LookupOutcome,
}

/// The source gives no answer; this is never a yes and never a 403.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoAnswer {
    /// The first lookup that failed, on the clock's monotonic scale.
    pub since: Duration,
}

/// One source and its latest answers. It is shared as an `Arc`, and outlives reloads that don't change it.
pub struct Lookups<T> {
    name: &'static str,
    source: Arc<dyn LookupSource<T>>,
    /// The control plane's runtime.
    runtime: Handle,
    clock: Clock,
    deadline: Duration,
    ttl: Duration,
    outage: Outage,
    metrics: Arc<SourceMetrics>,
    permits: Semaphore,
    shards: Vec<Mutex<HashMap<Box<str>, LookupEntry<T>>>>,
    hasher: RandomState,
}

/// The step that the table of known answers asks for.
enum TableLook<T> {
    Have(Arc<T>, Duration),
    Wait(Flight<T>),
    Begin(Landing<T>, Flight<T>),
    /// A question whose answer no request waits for.
    Probe(Landing<T>, Duration, NoAnswer),
    None(NoAnswer),
}

/// How a source is asked.
pub(crate) struct LookupTerms {
    /// The source's name in the log.
    pub name: &'static str,
    /// How long one question may take.
    pub deadline: Duration,
    /// How long an answer is good for.
    pub ttl: Duration,
}

impl<T: Send + Sync + 'static> Lookups<T> {
    /// A source of which nothing is known yet. Questions run on `runtime`.
    pub(crate) fn new(
        terms: &LookupTerms,
        source: Arc<dyn LookupSource<T>>,
        runtime: Handle,
        clock: Clock,
        metrics: Arc<SourceMetrics>,
    ) -> Self {
        metrics.up(true);
        Self {
            name: terms.name,
            source,
            runtime,
            clock,
            deadline: terms.deadline,
            ttl: terms.ttl,
            outage: Outage::default(),
            metrics,
            permits: Semaphore::new(MOST_IN_FLIGHT),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// The source's series.
    pub(crate) fn metrics(&self) -> &SourceMetrics {
        &self.metrics
    }

    /// Why the source gives no answer; `None` while it answers.
    pub(crate) fn error(&self) -> Option<String> {
        self.outage.error()
    }

    /// Why the source's answers may be wrong although it answers.
    pub(crate) fn doubt(&self) -> Option<String> {
        self.source.doubt()
    }

    /// When the first lookup failed since the last that was answered, on the clock's monotonic scale.
    pub(crate) fn down_since(&self) -> Option<Duration> {
        self.outage.since()
    }

    /// The source's answer for `key`: with `since`, one that was asked for at or after it; else one no older than the
    /// time to live. Waits at most `patience`.
    pub(crate) async fn get(
        self: &Arc<Self>,
        key: &str,
        since: Option<Duration>,
        patience: Duration,
    ) -> Result<LookupAnswer<T>, NoAnswer> {
        match timeout(patience, self.wait(key, since)).await {
            Ok(result) => result,
            Err(_) => Err(NoAnswer {
                since: self
                    .outage
                    .since()
                    .unwrap_or_else(|| self.clock.elapsed().saturating_sub(patience)),
            }),
        }
    }

    async fn wait(
        self: &Arc<Self>,
        key: &str,
        since: Option<Duration>,
    ) -> Result<LookupAnswer<T>, NoAnswer> {
        let mut outcome = LookupOutcome::Hit;
        if let Some(pause) = since.and_then(|since| self.pause(key, since)) {
            sleep(pause).await;
        }
        loop {
            let mut flight = match self.next(key, since) {
                TableLook::Have(value, asked_at) => {
                    return Ok(LookupAnswer {
                        value,
                        asked_at,
                        outcome,
                    });
                }
                TableLook::None(no_answer) => return Err(no_answer),
                TableLook::Probe(landing, asked_at, no_answer) => {
                    self.begin(key, asked_at, landing);
                    return Err(no_answer);
                }
                TableLook::Wait(flight) => flight,
                TableLook::Begin(landing, flight) => {
                    self.begin(key, flight.asked_at, landing);
                    flight
                }
            };
            outcome = LookupOutcome::Miss;
            let landed = match flight.landed.wait_for(Option::is_some).await {
                Ok(landed) => landed.clone(),
                // The control plane is shutting down.
                Err(_) => None,
            };
            let value = landed.unwrap_or(Err(NoAnswer {
                since: flight.asked_at,
            }))?;
            if since.is_none_or(|since| flight.asked_at >= since) {
                return Ok(LookupAnswer {
                    value,
                    asked_at: flight.asked_at,
                    outcome,
                });
            }
        }
    }

    /// How long to wait before a key is asked for anew, so that all requests which want that at once get it by one
    /// question: a channel whose stream ended has thousands of them. `None` where nothing is asked, or the last
    /// question is long ago.
    fn pause(&self, key: &str, since: Duration) -> Option<Duration> {
        let shard = self.shard(key);
        let kept = shard.get(key)?.answer.as_ref()?;
        if kept.asked_at >= since {
            return None;
        }
        let due = kept.asked_at + SPACING;
        due.checked_sub(self.clock.elapsed())
    }

    fn next(&self, key: &str, since: Option<Duration>) -> TableLook<T> {
        let now = self.clock.elapsed();
        let mut shard = self.shard(key);
        let full = shard.len() >= MOST_KEYS;
        let known = match shard.entry(key.into()) {
            Entry::Occupied(entry) => entry.into_mut(),
            // Later requests must find the flight, so a full shard makes room first.
            Entry::Vacant(_) if full => {
                make_room(&mut shard);
                shard.entry(key.into()).or_default()
            }
            Entry::Vacant(entry) => entry.insert(LookupEntry::default()),
        };
        known.touched = now;
        if let Some(kept) = &known.answer {
            let acceptable = match since {
                // The age counts from the question: what was true then may not be when a slow answer comes.
                None => now.saturating_sub(kept.asked_at) < self.ttl,
                Some(since) => kept.asked_at >= since,
            };
            if acceptable {
                return TableLook::Have(Arc::clone(&kept.value), kept.asked_at);
            }
        }
        let failing_since = known.failing_since;
        let no_answer = |outage: Duration| NoAnswer {
            since: failing_since.map_or(outage, |key| key.min(outage)),
        };
        if let Some(flight) = &known.flight {
            return match self.outage.silent_since() {
                Some(since) => TableLook::None(no_answer(since)),
                None => TableLook::Wait(flight.clone()),
            };
        }
        // A question from each request doesn't help a source in trouble.
        let just_failed = known
            .failed_at
            .filter(|at| now.saturating_sub(*at) < SPACING);
        if let Some(at) = just_failed {
            return TableLook::None(no_answer(self.outage.since().unwrap_or(at)));
        }
        let admission = self.outage.admit(now);
        if let OutageAdmission::Refused(since) = admission {
            return TableLook::None(no_answer(since));
        }
        let (landing, landed) = watch::channel(None);
        let flight = Flight {
            asked_at: now,
            landed,
            keep: true,
        };
        known.flight = Some(flight.clone());
        match admission {
            OutageAdmission::Probe(since) => TableLook::Probe(landing, now, no_answer(since)),
            OutageAdmission::Ask | OutageAdmission::Refused(_) => TableLook::Begin(landing, flight),
        }
    }

    /// Asks on the control plane. The question itself runs in a task of its own, which is never cancelled: a future of
    /// the MongoDB driver (mongodb 3.9) that is dropped midway leaves its connection unusable
    /// (<https://jira.mongodb.org/browse/RUST-937>).
    fn begin(self: &Arc<Self>, key: &str, asked_at: Duration, landing: Landing<T>) {
        let this = Arc::clone(self);
        let key: Box<str> = key.into();
        self.runtime.spawn(async move {
            let asked = async {
                // The semaphore is never closed. The permit is given back at the deadline, so that questions without
                // a reply don't block others.
                let _permit = this.permits.acquire().await;
                tokio::spawn(Arc::clone(&this.source).ask(key.clone())).await
            };
            let result = match timeout(this.deadline, asked).await {
                Ok(Ok(result)) => result,
                Ok(Err(_panicked)) => Err(NoAnswerReason::Wrong("the lookup failed".to_owned())),
                Err(_) => Err(NoAnswerReason::Silent(format!(
                    "no reply within {}",
                    humantime::format_duration(this.deadline)
                ))),
            };
            if matches!(result, Err(NoAnswerReason::Silent(_))) {
                this.source.silent();
            }
            let landed = this.land(&key, asked_at, result);
            landing.send_replace(Some(landed));
            if this.outage.silent_since().is_some() {
                let lookups = Arc::downgrade(&this);
                drop(this);
                sleep(PROBE).await;
                if let Some(this) = lookups.upgrade() {
                    this.probe(&key);
                }
            }
        });
    }

    /// Asks a silent source again although no request wants to know, so that its return is noticed before the next
    /// request.
    fn probe(self: &Arc<Self>, key: &str) {
        if self.outage.silent_since().is_none() {
            return;
        }
        if let TableLook::Probe(landing, asked_at, _) = self.next(key, Some(self.clock.elapsed())) {
            self.begin(key, asked_at, landing);
        }
    }

    fn land(
        &self,
        key: &str,
        asked_at: Duration,
        result: Result<T, NoAnswerReason>,
    ) -> Result<Arc<T>, NoAnswer> {
        let now = self.clock.elapsed();
        self.outage
            .learn(result.as_ref().err(), now, self.name, &self.metrics);
        let mut shard = self.shard(key);
        let Some(known) = shard.get_mut(key) else {
            // The key was swept meanwhile.
            return result
                .map(Arc::new)
                .map_err(|_| NoAnswer { since: asked_at });
        };
        let keep = known.flight.take().is_none_or(|flight| flight.keep);
        let value = result.map_err(|failure| {
            // A silent source is already asked less by the circuit breaker.
            known.failed_at = matches!(failure, NoAnswerReason::Wrong(_)).then_some(now);
            let own = *known.failing_since.get_or_insert(asked_at);
            let since = self.outage.since().map_or(own, |outage| outage.min(own));
            NoAnswer { since }
        })?;
        let value = Arc::new(value);
        (known.failing_since, known.failed_at) = (None, None);
        known.answer = keep.then(|| KeptAnswer {
            value: Arc::clone(&value),
            asked_at,
        });
        Ok(value)
    }

    /// Forgets the answer for `key`, or all answers for `None`, because the source's data changed.
    pub(crate) fn invalidate(&self, key: Option<&str>) {
        let forget = |known: &mut LookupEntry<T>| {
            known.answer = None;
            if let Some(flight) = &mut known.flight {
                flight.keep = false;
            }
        };
        match key {
            Some(key) => {
                if let Some(known) = self.shard(key).get_mut(key) {
                    forget(known);
                }
            }
            None => {
                for index in 0..SHARDS {
                    if let Some(mut shard) = self.locked(index) {
                        shard.values_mut().for_each(forget);
                    }
                }
            }
        }
    }

    /// Forgets what is too old to be given, in one shard; call this with a counter.
    pub(crate) fn sweep(&self, turn: usize) {
        let now = self.clock.elapsed();
        // Failing keys are kept as long as requests ask for them now and then: the time for which holders may renew
        // is running.
        let remembered = self.ttl.max(Duration::from_mins(2));
        if let Some(mut shard) = self.locked(turn % SHARDS) {
            shard.retain(|_, known| {
                let age = now.saturating_sub(known.touched);
                let failing = known.failing_since.is_some() && age < Duration::from_hours(2);
                known.flight.is_some() || failing || age < remembered
            });
        }
    }

    fn shard(&self, key: &str) -> MutexGuard<'_, HashMap<Box<str>, LookupEntry<T>>> {
        let index = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        self.shards[index].lock()
    }

    fn locked(&self, index: usize) -> Option<MutexGuard<'_, HashMap<Box<str>, LookupEntry<T>>>> {
        let shard = self.shards.get(index)?;
        Some(shard.lock())
    }
}

impl<T> fmt::Debug for Lookups<T> {
    /// Leaves the keys out: some are credentials.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Lookups")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
