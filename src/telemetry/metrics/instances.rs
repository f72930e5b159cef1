//! Metrics of things that come and go with the configuration: backend servers, listeners, sources.
//!
//! Keeps true: a series is shown while its handles are held, and no longer. metrics-exporter-prometheus 0.18 can't
//! remove a single series (<https://github.com/metrics-rs/metrics/pull/700>), so rendering leaves out those without a
//! holder. A series that returns goes on counting where it stopped.
//! Must not know: what holds the handles.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use parking_lot::Mutex;

use super::registrar::Registrar;
use super::{families, flag, number};
use crate::telemetry::traffic_labels::{ReissueOutcome, StoreMode, UpstreamOutcome};
use crate::terms::outcome::LookupOutcome;

/// One backend server.
#[derive(Debug)]
pub struct UpstreamMetrics {
    requests: [(Counter, Histogram); UpstreamOutcome::ALL.len()],
    up: Gauge,
    retries: Counter,
    exposed: Gauge,
}

impl UpstreamMetrics {
    pub(super) fn new(registrar: &Registrar, server: &str) -> Self {
        let of_server = [("server", server)];
        Self {
            requests: UpstreamOutcome::ALL.map(|outcome| {
                let labels = [("server", server), ("outcome", outcome.as_str())];
                (
                    registrar.counter(&families::UPSTREAM_REQUESTS, &labels),
                    registrar.histogram(&families::UPSTREAM_REQUEST_DURATION, &labels),
                )
            }),
            up: registrar.gauge_at(&families::UPSTREAM_UP, &of_server, 1.0),
            retries: registrar.counter(&families::UPSTREAM_RETRIES, &of_server),
            exposed: registrar.gauge_at(&families::UPSTREAM_EXPOSED, &of_server, 0.0),
        }
    }

    /// One exchange ended (its response header section arrived, or it failed) after `elapsed`.
    pub fn request(&self, outcome: UpstreamOutcome, elapsed: Duration) {
        let (count, duration) = &self.requests[outcome as usize];
        count.increment(1);
        duration.record(elapsed);
    }

    /// Whether the server takes connections.
    pub fn up(&self, up: bool) {
        self.up.set(flag(up));
    }

    /// Whether clients can reach the server without renewd.
    pub(crate) fn exposed(&self, exposed: bool) {
        self.exposed.set(flag(exposed));
    }

    /// One more attempt for the same request.
    pub fn retry(&self) {
        self.retries.increment(1);
    }
}

/// One listener.
#[derive(Debug)]
pub struct ListenerMetrics {
    connections: Gauge,
    tunnels: Gauge,
    accept_errors: Counter,
    forwarded_headers_dropped: Counter,
}

impl ListenerMetrics {
    pub(super) fn new(registrar: &Registrar, listener: &str) -> Self {
        let labels = [("listener", listener)];
        Self {
            connections: registrar.gauge(&families::CONNECTIONS, &labels),
            tunnels: registrar.gauge(&families::TUNNELS, &labels),
            accept_errors: registrar.counter(&families::ACCEPT_ERRORS, &labels),
            forwarded_headers_dropped: registrar
                .counter(&families::FORWARDED_HEADERS_DROPPED, &labels),
        }
    }

    /// A connection was accepted.
    pub fn connection_opened(&self) {
        self.connections.increment(1.0);
    }

    /// A connection is over.
    pub fn connection_closed(&self) {
        self.connections.decrement(1.0);
    }

    /// An upgrade succeeded.
    pub fn tunnel_opened(&self) {
        self.tunnels.increment(1.0);
    }

    /// A tunnel is over.
    pub fn tunnel_closed(&self) {
        self.tunnels.decrement(1.0);
    }

    /// One failed accept.
    pub fn accept_error(&self) {
        self.accept_errors.increment(1);
    }

    /// One request whose forwarded headers came from an untrusted private peer.
    pub fn forwarded_headers_dropped(&self) {
        self.forwarded_headers_dropped.increment(1);
    }
}

/// One source of answers that decisions need.
#[derive(Debug)]
pub struct SourceMetrics {
    lookups: [Counter; LookupOutcome::ALL.len()],
    duration: Histogram,
    up: Gauge,
    down_since: Gauge,
    rest_until: Gauge,
}

impl SourceMetrics {
    pub(super) fn new(registrar: &Registrar, source: &str) -> Self {
        let labels = [("source", source)];
        Self {
            lookups: LookupOutcome::ALL.map(|outcome| {
                let labels = [("source", source), ("outcome", outcome.as_str())];
                registrar.counter(&families::SOURCE_LOOKUPS, &labels)
            }),
            duration: registrar.histogram(&families::SOURCE_LOOKUP_DURATION, &labels),
            up: registrar.gauge_at(&families::SOURCE_UP, &labels, 1.0),
            down_since: registrar.gauge(&families::SOURCE_DOWN_SINCE, &labels),
            rest_until: registrar.gauge(&families::SOURCE_REST_UNTIL, &labels),
        }
    }

    /// One question that a decision asked, and what it got. [`Self::up`] is set separately.
    pub fn lookup(&self, outcome: LookupOutcome, elapsed: Duration) {
        self.lookups[outcome as usize].increment(1);
        self.duration.record(elapsed);
    }

    /// Whether the source answers.
    pub fn up(&self, up: bool) {
        self.up.set(flag(up));
    }

    /// Since when the source gives no answer and until when holders of a token can renew it without one, in seconds
    /// since the Unix epoch; `None` while it answers.
    pub(crate) fn outage(&self, outage: Option<(u64, u64)>) {
        let (down_since, rest_until) = outage.unwrap_or_default();
        self.down_since.set(number(down_since));
        self.rest_until.set(number(rest_until));
    }
}

/// Whether replicas share their limits.
#[derive(Debug)]
pub struct StoreModeMetrics([Gauge; StoreMode::ALL.len()]);

impl StoreModeMetrics {
    /// They share until the store is found to give no answer.
    pub(super) fn new(registrar: &Registrar) -> Self {
        let gauge =
            |mode: StoreMode| registrar.gauge(&families::STORE_MODE, &[("mode", mode.as_str())]);
        let metrics = Self(StoreMode::ALL.map(gauge));
        metrics.set(true);
        metrics
    }

    /// Whether they share now.
    pub(crate) fn set(&self, shared: bool) {
        for (mode, gauge) in StoreMode::ALL.into_iter().zip(&self.0) {
            gauge.set(flag((mode == StoreMode::Shared) == shared));
        }
    }
}

/// One rule of `[[reissue.rule]]`.
#[derive(Debug)]
pub struct ReissueMetrics {
    tokens: [Counter; ReissueOutcome::ALL.len()],
    route: Box<str>,
    complained: AtomicBool,
}

impl ReissueMetrics {
    pub(super) fn new(registrar: &Registrar, route: &str) -> Self {
        let tokens = ReissueOutcome::ALL.map(|outcome| {
            let labels = [("route", route), ("outcome", outcome.as_str())];
            registrar.counter(&families::REISSUE, &labels)
        });
        Self {
            tokens,
            route: route.into(),
            complained: AtomicBool::new(false),
        }
    }

    /// The rule's path.
    pub(crate) fn route(&self) -> &str {
        &self.route
    }

    /// Whether this is the first problem with the rule's answers. Only the first is logged; the counter counts all.
    pub(crate) fn complains_first(&self) -> bool {
        !self.complained.swap(true, Ordering::Relaxed)
    }

    /// One token was found.
    pub fn token(&self, outcome: ReissueOutcome) {
        self.tokens[outcome as usize].increment(1);
    }
}

/// All instances.
#[derive(Debug, Default)]
pub(super) struct Instances {
    pub(super) upstreams: Living<UpstreamMetrics>,
    pub(super) listeners: Living<ListenerMetrics>,
    pub(super) sources: Living<SourceMetrics>,
    pub(super) routes: Living<ReissueMetrics>,
}

impl Instances {
    /// Whether a series with this label is shown; labels that don't name an instance always are.
    pub(crate) fn alive(&self, label: &str, value: &str) -> bool {
        match label {
            "server" => self.upstreams.has(value),
            "listener" => self.listeners.has(value),
            "source" => self.sources.has(value),
            "route" => self.routes.has(value),
            _ => true,
        }
    }

    /// Bounds what is remembered of instances that are gone.
    pub(crate) fn forget_dead(&self) {
        self.upstreams.forget_dead();
        self.listeners.forget_dead();
        self.sources.forget_dead();
        self.routes.forget_dead();
    }
}

/// The instances of one kind by name, each for as long as its handles are held.
#[derive(Debug)]
pub(super) struct Living<T>(Mutex<HashMap<String, Weak<T>>>);

impl<T> Default for Living<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Living<T> {
    pub(super) fn get_or_make(&self, name: &str, make: impl FnOnce(&str) -> T) -> Arc<T> {
        let name = plain(name);
        let mut living = self.0.lock();
        if let Some(found) = living.get(&name).and_then(Weak::upgrade) {
            return found;
        }
        let instance = Arc::new(make(&name));
        living.insert(name, Arc::downgrade(&instance));
        instance
    }

    fn has(&self, name: &str) -> bool {
        let living = self.0.lock();
        living.get(name).is_some_and(|weak| weak.strong_count() > 0)
    }

    fn forget_dead(&self) {
        let mut living = self.0.lock();
        living.retain(|_, weak| weak.strong_count() > 0);
    }
}

/// A name that stands in the text format as it is: no quote, backslash or control character to escape.
fn plain(name: &str) -> String {
    name.chars()
        .map(|character| match character {
            '"' | '\\' => '_',
            character if character.is_control() => '_',
            character => character,
        })
        .collect()
}
