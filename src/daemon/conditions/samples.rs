//! The numbers of the metrics page at one moment, and how much its counters have grown since earlier moments.
//!
//! Keeps true: at most an hour of counters is remembered. Pure but for the lock around them.
//! Must not know: what a number means to an operator.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;

/// The longest window of an increase.
const LONGEST: Duration = Duration::from_hours(1);

/// A number that only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// Token requests.
    Requests,
    /// Those of them that were not wrong by themselves.
    WellFormed,
    /// Those that could not be answered.
    Failed,
    /// Those answered 401 because of the login itself.
    Unauthenticated,
    /// Those answered 401, and those whose login no key of the key set verifies.
    LoginsRefused,
    /// Those whose login was good.
    LoginsVerified,
    /// Publishers' requests that were not wrong by themselves.
    Publishers,
    /// Those of them that could not be answered.
    PublishersFailed,
    /// Publishers' requests that the rules refused.
    PublishersDenied,
    /// Publishers' tokens that were not renewed.
    PublishersLapsed,
    /// Viewers' tokens whose renewal was refused.
    ViewersLapsedRefused,
    /// Log and audit lines lost.
    LogLinesDropped,
    /// Requests of private peers whose forwarded headers were dropped.
    ForwardedHeadersDropped,
    /// Requests that Agora refused because of their credentials.
    EjectionsUnauthorized,
    /// Users who could not be removed from a channel.
    EjectionsFailed,
    /// Tokens for uid 0.
    WildcardTokens,
}

const COUNTS: usize = Count::WildcardTokens as usize + 1;

/// Every [`Count`] at one moment.
pub(crate) type SampledCounts = [f64; COUNTS];

/// The samples of a metrics page in Prometheus' text format.
#[derive(Debug)]
pub(crate) struct Samples<'p>(Vec<(&'p str, Labels<'p>, f64)>);

/// `name="value",…`, as it stands between braces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Labels<'p>(&'p str);

impl<'p> Labels<'p> {
    /// A label's value; empty where there is none. Names out of the configuration hold no quotes.
    pub(crate) fn value(self, name: &str) -> &'p str {
        let pairs = self.0.split(',');
        let mut values = pairs.filter_map(|pair| pair.strip_prefix(name)?.strip_prefix("=\""));
        values
            .next()
            .and_then(|value| value.strip_suffix('"'))
            .unwrap_or_default()
    }
}

impl<'p> Samples<'p> {
    /// Reads a page. Of histograms, the sums and counts alone.
    pub(crate) fn parse(page: &'p str) -> Self {
        let samples = page.lines().filter(|line| !line.starts_with('#'));
        Self(
            samples
                .filter_map(|line| {
                    let (series, value) = line.rsplit_once(' ')?;
                    let (name, labels) = match series.split_once('{') {
                        Some((name, labels)) => (name, labels.strip_suffix('}')?),
                        None => (series, ""),
                    };
                    let wanted = !name.ends_with("_bucket");
                    wanted.then_some((name, Labels(labels), value.parse().ok()?))
                })
                .collect(),
        )
    }

    /// The sum over the series of a name that have every label of `with` and none of `without`.
    pub(crate) fn sum(&self, name: &str, with: &[&str], without: &[&str]) -> f64 {
        self.0
            .iter()
            .filter(|(own, labels, _)| {
                let has = |label: &&str| labels.0.split(',').any(|pair| pair == *label);
                *own == name && with.iter().all(has) && !without.iter().any(has)
            })
            .map(|(_, _, value)| value)
            .sum()
    }

    /// The value of a metric without labels.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        let mut values = self.0.iter().filter(|(own, ..)| *own == name);
        values.next().map(|(_, _, value)| *value)
    }

    /// The series of a name, in the page's order.
    pub(crate) fn named(&self, name: &str) -> Vec<(Labels<'p>, f64)> {
        let named = self.0.iter().filter(|(own, ..)| *own == name);
        named.map(|(_, labels, value)| (*labels, *value)).collect()
    }

    /// The labels of the series of a name whose value `wanted` accepts.
    pub(crate) fn having(
        &self,
        name: &str,
        wanted: impl Fn(f64) -> bool,
    ) -> impl Iterator<Item = Labels<'p>> {
        let named = self.0.iter().filter(move |(own, ..)| *own == name);
        named
            .filter(move |(_, _, value)| wanted(*value))
            .map(|(_, labels, _)| *labels)
    }

    /// Every [`Count`].
    pub(crate) fn counts(&self) -> SampledCounts {
        const REISSUE: &str = "endpoint=\"reissue\"";
        let requests = |with: &[&str], without: &[&str]| {
            let without = [&[REISSUE], without].concat();
            self.sum("renewd_token_requests_total", with, &without)
        };
        let outcome = |outcome: &str| requests(&[&format!("outcome=\"{outcome}\"")], &[]);
        let unauthenticated = outcome("unauthenticated") + outcome("token_expired");
        let replaced = outcome("session_replaced");
        let unverified = requests(&["outcome=\"unavailable\"", "class=\"client\""], &[]);
        let verified = requests(&["class=\"ok\""], &[]) + requests(&["class=\"denied\""], &[]);
        let publisher = "role=\"publisher\"";
        let publishers = |class| requests(&[publisher, class], &[]);
        let ejections = |outcome| self.sum("renewd_ejections_total", &[outcome], &[]);
        let lapses = |with: &[&str]| self.sum("renewd_token_lapses_total", with, &[]);
        let mut counts = [0.0; COUNTS];
        for (count, value) in [
            (Count::Requests, requests(&[], &[])),
            (Count::WellFormed, requests(&[], &["class=\"client\""])),
            (Count::Failed, requests(&["class=\"failed\""], &[])),
            (Count::Unauthenticated, unauthenticated),
            (
                Count::LoginsRefused,
                unauthenticated + replaced + unverified,
            ),
            (Count::LoginsVerified, verified - replaced),
            (
                Count::Publishers,
                requests(&[publisher], &["class=\"client\""]),
            ),
            (Count::PublishersFailed, publishers("class=\"failed\"")),
            (Count::PublishersDenied, publishers("class=\"denied\"")),
            (Count::PublishersLapsed, lapses(&[publisher])),
            (
                Count::ViewersLapsedRefused,
                lapses(&["role=\"subscriber\"", "cause=\"refused\""]),
            ),
            (
                Count::LogLinesDropped,
                self.sum("renewd_log_dropped_total", &[], &[]),
            ),
            (
                Count::ForwardedHeadersDropped,
                self.sum("renewd_forwarded_headers_dropped_total", &[], &[]),
            ),
            (
                Count::EjectionsUnauthorized,
                ejections("outcome=\"unauthorized\""),
            ),
            (Count::EjectionsFailed, ejections("outcome=\"failed\"")),
            (
                Count::WildcardTokens,
                self.sum("renewd_wildcard_tokens_issued_total", &[], &[]),
            ),
        ] {
            counts[count as usize] = value;
        }
        counts
    }
}

/// The counters of the last hour.
#[derive(Debug)]
pub(crate) struct History(pub(super) Mutex<VecDeque<(Duration, SampledCounts)>>);

impl Default for History {
    /// A process begins with counters of zero. Without that sample, what was counted before the first one would be a
    /// condition only until then.
    fn default() -> Self {
        Self(Mutex::new([(Duration::ZERO, [0.0; COUNTS])].into()))
    }
}

impl History {
    /// Remembers the counters of a moment on the clock's monotonic scale. Call with ascending moments.
    pub(crate) fn add(&self, moment: Duration, counts: SampledCounts) {
        let mut samples = self.0.lock();
        samples.push_back((moment, counts));
        // One sample that is an hour old or older stays, so that an hour's increase has a start.
        let old = |second: &(Duration, SampledCounts)| moment.saturating_sub(second.0) >= LONGEST;
        while samples.get(1).is_some_and(old) {
            samples.pop_front();
        }
    }

    /// The growth of the counters until now.
    pub(crate) fn until(&self, now: Duration, counts: SampledCounts) -> Increase<'_> {
        Increase {
            history: self,
            now,
            counts,
        }
    }
}

/// Counters now, and before.
#[derive(Debug)]
pub(crate) struct Increase<'h> {
    history: &'h History,
    now: Duration,
    counts: SampledCounts,
}

impl Increase<'_> {
    /// How much a counter has grown in the time before now; since the start, where that is shorter.
    pub(crate) fn of(&self, count: Count, window: Duration) -> f64 {
        let samples = self.history.0.lock();
        let start = self.now.saturating_sub(window);
        let older = samples.iter().take_while(|(moment, _)| *moment <= start);
        let before = older.last().or(samples.front());
        let before = before.map_or(0.0, |(_, counts)| counts[count as usize]);
        self.counts[count as usize] - before
    }
}
