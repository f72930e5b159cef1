//! The keys behind `auth.jwt.jwks_url`: fetched ahead of need, kept while the URL gives no answer.
//!
//! Keeps true: a token that no key verifies is never refused for good on a set that was read before the token came,
//! whether its `kid` is known or not, because a set may keep the name and change the key: the set is read again
//! first, or the answer is "not now". Reads are one at a time, and for such tokens at most one in 30 s. A key that
//! left the set verifies for `key_grace`; a set that can't be read again verifies for 24 h.
//! Must not know: what a token says.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderMap;
use http::header::{ACCEPT, HeaderValue};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::compact::Compact;
use super::key::KeyRing;
use super::key_set::{BadSet, parse};
use crate::config::model::{Jwt, JwtAlgorithm, JwtKey};
use crate::http::url::Url;
use crate::io::fetch::{FetchError, FetchLimits, Fetcher};
use crate::telemetry::metrics::{Metrics, SourceMetrics};
use crate::telemetry::traffic_labels::SourceLabel;
use crate::terms::clock::Clock;
use crate::terms::outcome::LookupOutcome;

/// How long one read may take, and how large a set may be.
const LIMITS: FetchLimits = FetchLimits {
    time: Duration::from_secs(3),
    body: 256 * 1024,
};
/// The time between regular reads, so that new keys are known before tokens need them.
const EVERY: Duration = Duration::from_mins(10);
/// The least time between reads for tokens that no key verifies, which any client can send.
const UNVERIFIED: Duration = Duration::from_secs(30);
/// How long a set verifies that can't be read again.
pub const OLDEST: Duration = Duration::from_hours(24);
/// The pauses between attempts while there is no answer, the last for good.
const PAUSES: [u64; 5] = [1, 2, 4, 8, 15];

/// A key set and what keeps it fresh. It outlives reloads that keep its URL.
pub struct KeySet {
    url: Url,
    fetcher: Fetcher,
    metrics: Arc<SourceMetrics>,
    clock: Clock,
    grace_millis: AtomicU64,
    known: ArcSwap<VerifyingKeys>,
    ledger: Mutex<ReadLedger>,
    /// How many reads began: each read's number.
    begun: AtomicU64,
    /// How many reads ended.
    ended: watch::Sender<u64>,
}

/// The keys of a set that verify.
#[derive(Default)]
pub(super) struct VerifyingKeys {
    ring: KeyRing,
    /// When the set was last read.
    read_at: Option<Duration>,
    /// The number of that read.
    read: u64,
}

/// The reads so far, and their failures. Times are on the clock's monotonic scale.
#[derive(Default)]
struct ReadLedger {
    running: bool,
    begun_at: Duration,
    /// When a read last began for a token that no key verified.
    sought_at: Option<Duration>,
    /// Whether such a token waits for the next read that may begin.
    wanted: bool,
    failures: usize,
    /// When the first of these failures was.
    failing_since: Option<Duration>,
    /// Why the last read failed, if it did.
    error: Option<String>,
}

/// The verdict of the keys on a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeySetVerdict {
    /// A key verifies it.
    Verifies,
    /// None of these keys verifies it. Another read may bring one that does, under a new name or a known one.
    Unverified,
    /// There is no set, or it is too old.
    NoKeys,
}

/// A moment, as the number of reads that had begun by then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment(u64);

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("{0}")]
    Fetch(#[from] FetchError),
    #[error("it answers {0}")]
    Status(http::StatusCode),
    #[error("{0}")]
    Set(#[from] BadSet),
}

impl KeySet {
    /// The set of `jwks_url`: the previous one where that is the same, else a new one, whose first read begins at once.
    pub fn of(
        config: &Jwt,
        previous: Option<&Arc<Self>>,
        fetcher: &Fetcher,
        metrics: &Metrics,
        clock: &Clock,
    ) -> Option<Arc<Self>> {
        let url = config.jwks_url.as_ref()?;
        let set = match previous {
            Some(previous) if previous.url == *url => Arc::clone(previous),
            _ => {
                let set = Arc::new(Self {
                    url: url.clone(),
                    fetcher: fetcher.clone(),
                    metrics: metrics.source(SourceLabel::Jwks),
                    clock: clock.clone(),
                    grace_millis: AtomicU64::new(0),
                    known: ArcSwap::default(),
                    ledger: Mutex::default(),
                    begun: AtomicU64::new(0),
                    ended: watch::Sender::new(0),
                });
                set.begin(&mut set.ledger.lock(), clock.elapsed());
                set
            }
        };
        let grace = u64::try_from(config.key_grace.as_millis()).unwrap_or(u64::MAX);
        set.grace_millis.store(grace, Ordering::Relaxed);
        Some(set)
    }

    /// Whether the last read gave a set: `renewd_source_up`.
    pub fn is_up(&self) -> bool {
        self.ledger.lock().failures == 0
    }

    /// Why the last read gave no set; `None` where it gave one.
    pub(crate) fn error(&self) -> Option<String> {
        self.ledger.lock().error.clone()
    }

    /// When the first read failed since the last that gave a set, on the clock's monotonic scale.
    pub(crate) fn down_since(&self) -> Option<Duration> {
        self.ledger.lock().failing_since
    }

    /// Reads the set again when it is time to; called every second or so.
    pub fn keep_fresh(self: &Arc<Self>) {
        let now = self.clock.elapsed();
        let mut ledger = self.ledger.lock();
        let failed = ledger.failures.checked_sub(1);
        let pause = match failed.map(|failed| PAUSES.get(failed).or(PAUSES.last())) {
            Some(pause) => Duration::from_secs(pause.copied().unwrap_or(1)),
            None if ledger.wanted && ledger.may_seek(now) => Duration::ZERO,
            None => EVERY,
        };
        if !ledger.running && now.saturating_sub(ledger.begun_at) >= pause {
            if ledger.wanted {
                ledger.sought_at = Some(now);
            }
            self.begin(&mut ledger, now);
        }
    }

    /// The verdict of the keys on a token signed under `algorithm`.
    pub(super) fn verdict(
        &self,
        compact: &Compact<'_>,
        algorithm: JwtAlgorithm,
        key_id: Option<&str>,
    ) -> KeySetVerdict {
        let known = self.known.load();
        let verdict = known.verdict(compact, algorithm, key_id, &self.clock);
        if verdict == KeySetVerdict::Verifies {
            let outcome = if self.is_up() {
                LookupOutcome::Hit
            } else {
                LookupOutcome::Stale
            };
            self.metrics.lookup(outcome, Duration::ZERO);
        }
        verdict
    }

    /// The keys as they are.
    pub(super) fn known(&self) -> Arc<VerifyingKeys> {
        self.known.load_full()
    }

    /// Now, as [`KeySet::was_read_since`] counts time.
    pub(super) fn moment(&self) -> Moment {
        Moment(self.begun.load(Ordering::Acquire))
    }

    /// Whether the keys come from a read that began after `moment`.
    pub(super) fn was_read_since(&self, moment: Moment) -> bool {
        self.known.load().read > moment.0
    }

    /// For a token that no key verifies: waits for the read that is running, or for one that begins because of the
    /// token. False where no read may begin now, or it failed.
    pub(super) async fn read_again(self: &Arc<Self>, moment: Moment) -> bool {
        let began = self.clock.elapsed();
        let mut ended = {
            let mut ledger = self.ledger.lock();
            if self.was_read_since(moment) {
                // A read for another token has ended meanwhile.
                return true;
            }
            let never = self.known.load().read_at.is_none();
            if !ledger.running {
                if ledger.failures > 0 || never {
                    // Failed reads are repeated by `keep_fresh`.
                    return self.not_now(began);
                }
                if !ledger.may_seek(began) {
                    ledger.wanted = true;
                    return false;
                }
                ledger.sought_at = Some(began);
                self.begin(&mut ledger, began);
            }
            self.ended.subscribe()
        };
        // This fails only when the set is dropped, which `self` prevents.
        let _ = ended.changed().await;
        self.is_up() || self.not_now(began)
    }

    /// Counts a token that waited for a set that can't be read.
    fn not_now(&self, began: Duration) -> bool {
        let elapsed = self.clock.elapsed().saturating_sub(began);
        self.metrics.lookup(LookupOutcome::Error, elapsed);
        false
    }

    /// Starts a read; none may be running.
    fn begin(self: &Arc<Self>, ledger: &mut ReadLedger, now: Duration) {
        ledger.running = true;
        ledger.begun_at = now;
        ledger.wanted = false;
        let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let set = Arc::clone(self);
        self.fetcher.spawn(async move {
            let result = set.read().await;
            set.end(number, result);
        });
    }

    async fn read(&self) -> Result<Vec<JwtKey>, ReadError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let answer = self.fetcher.get(&self.url, headers, LIMITS).await?;
        if answer.status != http::StatusCode::OK {
            return Err(ReadError::Status(answer.status));
        }
        Ok(parse(&answer.body)?)
    }

    fn end(&self, number: u64, result: Result<Vec<JwtKey>, ReadError>) {
        let now = self.clock.elapsed();
        let mut ledger = self.ledger.lock();
        ledger.running = false;
        let took = now.saturating_sub(ledger.begun_at);
        match result {
            Ok(keys) => {
                if ledger.failures > 0 {
                    tracing::info!(url = %self.url, "the key set can be read again");
                }
                ledger.failures = 0;
                ledger.failing_since = None;
                ledger.error = None;
                let grace = Duration::from_millis(self.grace_millis.load(Ordering::Relaxed));
                let known = self.known.load().with(number, &keys, now, grace);
                self.known.store(Arc::new(known));
                self.metrics.lookup(LookupOutcome::Miss, took);
            }
            Err(error) => {
                if ledger.failures == 0 {
                    tracing::error!(url = %self.url, %error, "the key set can't be read; known keys stay for a day");
                }
                ledger.failures = ledger.failures.saturating_add(1);
                ledger.failing_since.get_or_insert(now);
                ledger.error = Some(error.to_string());
            }
        }
        let up = ledger.failures == 0;
        drop(ledger);
        self.metrics.up(up);
        self.ended
            .send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl ReadLedger {
    fn may_seek(&self, now: Duration) -> bool {
        self.sought_at
            .is_none_or(|sought_at| now.saturating_sub(sought_at) >= UNVERIFIED)
    }
}

impl VerifyingKeys {
    /// The verdict of these keys on a token signed under `algorithm`.
    pub(super) fn verdict(
        &self,
        compact: &Compact<'_>,
        algorithm: JwtAlgorithm,
        key_id: Option<&str>,
        clock: &Clock,
    ) -> KeySetVerdict {
        let age = self
            .read_at
            .map(|read_at| clock.elapsed().saturating_sub(read_at));
        if age.is_none_or(|age| age >= OLDEST) {
            KeySetVerdict::NoKeys
        } else if self.ring.verifies(compact, algorithm, key_id, clock) {
            KeySetVerdict::Verifies
        } else {
            KeySetVerdict::Unverified
        }
    }

    /// The keys after the read of this number; those that left the set with it verify for `grace`.
    fn with(&self, read: u64, keys: &[JwtKey], now: Duration, grace: Duration) -> Self {
        let every = JwtAlgorithm::NAMES.map(|(_, algorithm)| algorithm);
        let ends = (now.saturating_add(grace), Duration::MAX);
        Self {
            ring: KeyRing::new(keys, &every, Some(&self.ring), now, ends),
            read_at: Some(now),
            read,
        }
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KeySet")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}
