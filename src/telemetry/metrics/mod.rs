//! Everything that is counted, measured and exported for Prometheus.
//!
//! Keeps true: recording is an array index and an atomic: no hashing, no formatting, no lock, no allocation but a
//! histogram's sample block now and then. Labels are closed sets, or names out of the configuration. What an alert
//! divides by exists at 0 from the start. No recorder is global, so several daemons live in one process.
//! Must not know: what follows from a number; `monitoring/` says that.

mod descriptors;
pub mod families;
mod instances;
mod limits;
mod registrar;
mod render;
mod tables;

use std::array::from_fn;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Method, StatusCode};
use metrics::{Counter, Gauge, Histogram};

use self::descriptors::DescriptorMetrics;
use self::instances::Instances;
pub use self::instances::{
    ListenerMetrics, ReissueMetrics, SourceMetrics, StoreModeMetrics, UpstreamMetrics,
};
use self::limits::LimitMetrics;
use self::registrar::Registrar;
use super::labels::{Endpoint, Handler};
use super::line_writer::DropCounter;
use super::process::{self, number};
use super::traffic_labels::{
    EjectionOutcome, MethodLabel, ParseErrorKind, SourceLabel, StatusClass,
};
use crate::agora::TokenFormat;
use crate::config::model::{DecisionConfig, DecisionMode, RateLimit};
use crate::io::descriptors::{Budgets, Shares};
use crate::terms::clock::Clock;
use crate::terms::outcome::{LapseCause, Outcome, Scope, UnauthenticatedReason};
use crate::terms::role::Role;
use crate::terms::version::{COMMIT, VERSION};

const OUTCOMES: usize = Outcome::ALL.len();
const HANDLERS: usize = Handler::ALL.len();
const METHODS: usize = MethodLabel::ALL.len();
const STATUSES: usize = StatusClass::ALL.len();
const PARSE_ERRORS: usize = ParseErrorKind::ALL.len();

/// All metrics of one daemon. Share it as an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registrar: Registrar,
    clock: Clock,
    /// Seconds since the Unix epoch.
    process_start: f64,
    dropped_lines: DropCounter,

    token_requests: tables::TokenRequests,
    shadow_decisions: [[OnceLock<Counter>; STATUSES]; OUTCOMES],
    unauthenticated: [Counter; UnauthenticatedReason::ALL.len()],
    decision: DecisionMetrics,
    token_request_duration: [Histogram; Endpoint::ALL.len()],
    tokens_issued: tables::TokensIssued,
    wildcard_tokens_issued: tables::TokensIssued,
    sessions: [Gauge; Role::ALL.len()],
    token_lapses: [[Counter; LapseCause::ALL.len()]; Role::ALL.len()],
    limits: LimitMetrics,
    http_requests: HttpTable<Counter>,
    http_request_duration: HttpTable<Histogram>,
    parse_errors: [Counter; PARSE_ERRORS],
    connections_max: Gauge,
    descriptors: DescriptorMetrics,
    config: ConfigMetrics,
    revocations: Gauge,
    revocation_store_age: Gauge,
    /// Made when `[agora.rest]` is first configured.
    ejections: OnceLock<[Counter; EjectionOutcome::ALL.len()]>,
    state_writable: Gauge,
    state_damaged: Gauge,
    certificate_expiry: Gauge,
    log_dropped: Counter,

    instances: Instances,
}

/// By handler, method and status class; a series is made by its first request, as most combinations never occur.
type HttpTable<T> = [[[OnceLock<T>; STATUSES]; METHODS]; HANDLERS];

#[derive(Debug)]
struct DecisionMetrics {
    mode: [Gauge; DecisionMode::ALL.len()],
    enforce_percent: Gauge,
    draining: Gauge,
    ok_until: Gauge,
}

impl DecisionMetrics {
    /// Registers the series.
    fn new(registrar: &Registrar) -> Self {
        let gauge = |family| registrar.gauge(family, &[]);
        Self {
            mode: DecisionMode::ALL
                .map(|mode| registrar.gauge(&families::DECISION_MODE, &[("mode", mode.as_str())])),
            enforce_percent: gauge(&families::ENFORCE_PERCENT),
            draining: gauge(&families::DRAINING_PUBLISHERS),
            ok_until: gauge(&families::DECISION_MODE_OK_UNTIL),
        }
    }
}

#[derive(Debug)]
struct ConfigMetrics {
    reload_successful: Gauge,
    reload_timestamp: Gauge,
    restart_required: Gauge,
    fallback: Gauge,
    hash: Gauge,
}

impl ConfigMetrics {
    /// Registers the series with the values of a successful start at `now`.
    fn new(registrar: &Registrar, now: f64) -> Self {
        let gauge = |family, value: f64| registrar.gauge_at(family, &[], value);
        Self {
            reload_successful: gauge(&families::CONFIG_RELOAD_SUCCESSFUL, 1.0),
            reload_timestamp: gauge(&families::CONFIG_RELOAD_TIMESTAMP, now),
            restart_required: gauge(&families::CONFIG_RESTART_REQUIRED, 0.0),
            fallback: gauge(&families::CONFIG_FALLBACK, 0.0),
            hash: gauge(&families::CONFIG_HASH, 0.0),
        }
    }
}

impl Metrics {
    /// Registers every series that must exist from the start. `dropped_lines` is what the log and audit writers
    /// count their losses in. The configuration counts as loaded now, sources and state as working.
    pub fn new(clock: &Clock, dropped_lines: DropCounter) -> Arc<Self> {
        let registrar = Registrar::new();
        let counter = |family, labels: &[(&'static str, &str)]| registrar.counter(family, labels);
        let gauge = |family, value: f64| registrar.gauge_at(family, &[], value);
        let now = seconds(clock.unix_millis());
        let build = [("version", VERSION), ("commit", COMMIT)];
        registrar.gauge(&families::BUILD_INFO, &build).set(1.0);
        let metrics = Self {
            process_start: now - clock.elapsed().as_secs_f64(),
            clock: clock.clone(),
            dropped_lines,
            token_requests: tables::token_requests(&registrar),
            shadow_decisions: from_fn(|_| from_fn(|_| OnceLock::new())),
            unauthenticated: UnauthenticatedReason::ALL
                .map(|reason| counter(&families::UNAUTHENTICATED, &[("reason", reason.as_str())])),
            decision: DecisionMetrics::new(&registrar),
            token_request_duration: Endpoint::ALL.map(|endpoint| {
                registrar.histogram(
                    &families::TOKEN_REQUEST_DURATION,
                    &[("endpoint", endpoint.as_str())],
                )
            }),
            tokens_issued: tables::tokens_issued(&registrar, &families::TOKENS_ISSUED),
            wildcard_tokens_issued: tables::tokens_issued(
                &registrar,
                &families::WILDCARD_TOKENS_ISSUED,
            ),
            sessions: Role::ALL.map(|role| {
                registrar.gauge_at(&families::SESSIONS, &[("role", role.as_str())], 0.0)
            }),
            token_lapses: tables::token_lapses(&registrar),
            limits: LimitMetrics::new(&registrar),
            http_requests: from_fn(|_| from_fn(|_| from_fn(|_| OnceLock::new()))),
            http_request_duration: from_fn(|_| from_fn(|_| from_fn(|_| OnceLock::new()))),
            parse_errors: ParseErrorKind::ALL
                .map(|kind| counter(&families::HTTP_PARSE_ERRORS, &[("kind", kind.as_str())])),
            connections_max: gauge(&families::CONNECTIONS_MAX, 0.0),
            descriptors: DescriptorMetrics::new(&registrar),
            config: ConfigMetrics::new(&registrar, now),
            revocations: gauge(&families::REVOCATIONS, 0.0),
            revocation_store_age: gauge(&families::REVOCATION_STORE_AGE, 0.0),
            ejections: OnceLock::new(),
            state_writable: gauge(&families::STATE_WRITABLE, 1.0),
            state_damaged: gauge(&families::STATE_DAMAGED, 0.0),
            certificate_expiry: gauge(&families::CERTIFICATE_EXPIRY, f64::NAN),
            log_dropped: counter(&families::LOG_DROPPED, &[]),
            instances: Instances::default(),
            registrar,
        };
        metrics.register_usual_requests();
        Arc::new(metrics)
    }

    /// The usual combinations exist from the start, so that Prometheus sees their first request as an increase.
    fn register_usual_requests(&self) {
        for (handler, method) in [
            (Handler::Live, MethodLabel::Post),
            (Handler::Forward, MethodLabel::Get),
            (Handler::Forward, MethodLabel::Post),
        ] {
            for class in [
                StatusClass::Success,
                StatusClass::ClientError,
                StatusClass::ServerError,
            ] {
                self.http_requests(handler, method, class);
            }
        }
    }

    /// One answered token request; `role` is `None` where it was refused before its role was known.
    pub fn token_request(
        &self,
        endpoint: Endpoint,
        role: Option<Role>,
        outcome: Outcome,
        elapsed: Duration,
    ) {
        let role = role.map_or(tables::ROLE_UNKNOWN, Role::index);
        self.token_requests[endpoint as usize][role][outcome as usize].increment(1);
        self.token_request_duration[endpoint as usize].record(elapsed);
    }

    /// One login was refused, or would have been while decisions are only observed.
    pub(crate) fn unauthenticated(&self, reason: UnauthenticatedReason) {
        self.unauthenticated[reason as usize].increment(1);
    }

    /// The values of `[decision]` in force.
    pub(crate) fn decision(&self, decision: &DecisionConfig) {
        for (mode, gauge) in DecisionMode::ALL.into_iter().zip(&self.decision.mode) {
            gauge.set(flag(mode == decision.mode));
        }
        self.decision
            .enforce_percent
            .set(f64::from(decision.enforce_percent));
        let ok_until = decision.mode_ok_until.unwrap_or_default();
        self.decision.ok_until.set(number(ok_until));
    }

    /// Publishers who renew their tokens here although the backend answers token requests (`decision.drain_holders`).
    pub(crate) fn draining_publishers(&self, count: usize) {
        self.decision.draining.set(number(count));
    }

    /// One decision that was not enforced; `backend` is the status of the backend's answer, `None` if it gave none.
    pub fn shadow_decision(&self, outcome: Outcome, backend: Option<StatusCode>) {
        let class = StatusClass::of(backend);
        self.shadow_decisions[outcome as usize][class as usize]
            .get_or_init(|| {
                let backend = match class {
                    StatusClass::None => "error",
                    class => class.as_str(),
                };
                self.registrar.counter(
                    &families::SHADOW_DECISIONS,
                    &[("outcome", outcome.as_str()), ("backend", backend)],
                )
            })
            .increment(1);
    }

    /// One minted token; `uid_zero` where it is for uid 0, which anyone may use.
    pub fn token_issued(
        &self,
        endpoint: Endpoint,
        role: Role,
        format: TokenFormat,
        uid_zero: bool,
    ) {
        let (endpoint, role, format) = (endpoint as usize, role.index(), format as usize);
        self.tokens_issued[endpoint][role][format].increment(1);
        if uid_zero {
            self.wildcard_tokens_issued[endpoint][role][format].increment(1);
        }
    }

    /// How many sessions hold an unexpired token.
    pub fn sessions(&self, role: Role, count: usize) {
        self.sessions[role.index()].set(number(count));
    }

    /// One token that was not renewed although its stream goes on.
    pub fn token_lapse(&self, role: Role, cause: LapseCause) {
        self.token_lapses[role.index()][cause as usize].increment(1);
    }

    /// One request answered 429.
    pub fn rate_limited(&self, scope: Scope) {
        self.limits.limited(scope);
    }

    /// How many keys a limit remembers.
    pub fn rate_limit_keys(&self, scope: Scope, keys: usize) {
        self.limits.keys(scope, keys);
    }

    /// How many requests a limit has charged to its overflow bucket since start.
    pub fn rate_limit_overflow(&self, scope: Scope, total: u64) {
        self.limits.overflow(scope, total);
    }

    /// The limits in force.
    pub(crate) fn rate_limits(&self, limits: &RateLimit) {
        self.limits.configured(limits);
    }

    /// The metrics of a configured source. Its series are shown for as long as this is held.
    pub fn source(&self, source: SourceLabel) -> Arc<SourceMetrics> {
        let make = |name: &str| SourceMetrics::new(&self.registrar, name);
        self.instances.sources.get_or_make(source.as_str(), make)
    }

    /// One finished request on a public listener; `status` is `None` where no response was begun.
    pub fn http_request(
        &self,
        handler: Handler,
        method: &Method,
        status: Option<StatusCode>,
        elapsed: Duration,
    ) {
        let (method, class) = (MethodLabel::of(method), StatusClass::of(status));
        self.http_requests(handler, method, class).increment(1);
        self.http_request_duration[handler as usize][method as usize][class as usize]
            .get_or_init(|| {
                let labels = tables::http_labels(handler, method, class);
                self.registrar
                    .histogram(&families::HTTP_REQUEST_DURATION, &labels)
            })
            .record(elapsed);
    }

    fn http_requests(&self, handler: Handler, method: MethodLabel, class: StatusClass) -> &Counter {
        self.http_requests[handler as usize][method as usize][class as usize].get_or_init(|| {
            let labels = tables::http_labels(handler, method, class);
            self.registrar.counter(&families::HTTP_REQUESTS, &labels)
        })
    }

    /// One request refused because it isn't acceptable HTTP.
    pub fn parse_error(&self, kind: ParseErrorKind) {
        self.parse_errors[kind as usize].increment(1);
    }

    /// The metrics of one backend server, by its configured name. Its series are shown for as long as this is held.
    pub fn upstream(&self, server: &str) -> Arc<UpstreamMetrics> {
        let make = |name: &str| UpstreamMetrics::new(&self.registrar, name);
        self.instances.upstreams.get_or_make(server, make)
    }

    /// The metrics of one listener, by its configured name. Its series are shown for as long as this is held.
    pub fn listener(&self, name: &str) -> Arc<ListenerMetrics> {
        let make = |name: &str| ListenerMetrics::new(&self.registrar, name);
        self.instances.listeners.get_or_make(name, make)
    }

    /// The metrics of the rules for one route, by its configured path. Its series are shown for as long as this is
    /// held.
    pub fn reissue(&self, route: &str) -> Arc<ReissueMetrics> {
        let make = |name: &str| ReissueMetrics::new(&self.registrar, name);
        self.instances.routes.get_or_make(route, make)
    }

    /// Sets the shares of the file descriptors, by their use.
    pub fn descriptor_shares(&self, shares: &Shares) {
        self.connections_max.set(number(shares.clients));
        self.descriptors.shares(shares);
    }

    /// How many sockets to the backend there are, and how many requests waited for one in vain.
    pub(crate) fn sockets(&self, sockets: &Budgets) {
        self.descriptors.sockets(sockets);
    }

    /// A load of the configuration ended; a successful one sets the time of the last success.
    pub fn config_reload(&self, success: bool) {
        self.config.reload_successful.set(flag(success));
        if success {
            let now = seconds(self.clock.unix_millis());
            self.config.reload_timestamp.set(now);
        }
    }

    /// Whether the file holds a change that only a restart can apply.
    pub fn config_restart_required(&self, required: bool) {
        self.config.restart_required.set(flag(required));
    }

    /// Whether the process runs on the last valid configuration instead of the file.
    pub fn config_fallback(&self, fallback: bool) {
        self.config.fallback.set(flag(fallback));
    }

    /// The hash of the configuration in force: 48 bits.
    pub fn config_hash(&self, hash: u64) {
        self.config.hash.set(number(hash));
    }

    /// How many revocations are in force.
    pub(crate) fn revocations(&self, count: usize) {
        self.revocations.set(number(count));
    }

    /// How long ago every revocation of the other replicas was known.
    pub(crate) fn revocation_store_age(&self, age: Duration) {
        self.revocation_store_age.set(age.as_secs_f64());
    }

    /// So many rules at Agora have come to this; 0 makes the series.
    pub fn ejections(&self, outcome: EjectionOutcome, count: u64) {
        let counters = self.ejections.get_or_init(|| {
            EjectionOutcome::ALL.map(|outcome| {
                let labels = [("outcome", outcome.as_str())];
                self.registrar.counter(&families::EJECTIONS, &labels)
            })
        });
        counters[outcome as usize].increment(count);
    }

    /// Whether the state directory can be written.
    pub fn state_writable(&self, writable: bool) {
        self.state_writable.set(flag(writable));
    }

    /// Whether something in the state directory could not be read.
    pub fn state_damaged(&self, damaged: bool) {
        self.state_damaged.set(flag(damaged));
    }

    /// The series that say whether replicas share their limits; they exist from now on.
    pub fn store_mode(&self) -> StoreModeMetrics {
        StoreModeMetrics::new(&self.registrar)
    }

    /// When the certificate that clients see expires, in seconds since the Unix epoch; `None` where there is none.
    pub(crate) fn certificate_expiry(&self, expires: Option<u64>) {
        let expires = expires.map_or(f64::NAN, number);
        self.certificate_expiry.set(expires);
    }

    /// Everything in Prometheus' text format 0.0.4, families by name.
    pub fn render(&self) -> String {
        self.log_dropped.absolute(self.dropped_lines.get());
        let mut page = render::MetricsPage::parse(&self.registrar.render());
        page.retain(|label, value| self.instances.alive(label, value));
        page.add(&process::render(self.process_start));
        page.into_text()
    }

    /// Moves histogram samples into their buckets. Call it about every second: the exporter keeps every sample until
    /// then (metrics-exporter-prometheus 0.18, `PrometheusHandle::run_upkeep`).
    pub fn upkeep(&self) {
        self.registrar.upkeep();
        self.instances.forget_dead();
    }
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

fn seconds(millis: u64) -> f64 {
    number(millis) / 1000.0
}
