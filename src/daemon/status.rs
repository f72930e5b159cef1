//! The daemon as its admin listener sees it: readiness, status, sessions, explanations, reload.
//!
//! Keeps true: no answer holds a secret, and none waits for a source, except `explain`.
//! Must not know: how an answer is written.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::conditions::{History, Samples, conditions, remedy};
use super::reload::Reloader;
use super::revoking::Revoker;
use super::source_states::{SourceState, source_states};
use super::traffic::RecentTraffic;
use crate::admin::{
    AlertSeverity, ConditionStatus, ConfigInForce, ConfigProblem, ConfigStatus, Lifted, ListQuery,
    ReadinessReport, ReloadResult, RevocationEntry, RevocationsResult, RevokeError, Revoked,
    SessionEntry, SessionPage, SessionStatus, SessionsResult, SourceStatus, Status, TrafficReport,
    UnknownCursor, UpstreamStatus, ViewFuture,
};
use crate::config::secret::Secret;
use crate::config::{ConfigErrors, Diagnostic};
use crate::decision;
use crate::decision::explain::{ExplainQuestion, explain};
use crate::forward::servers::ServerStanding;
use crate::reissue::socket::explain::{SocketQuestion, explain as socket_explain};
use crate::sessions::{Filter, Held, Sessions};
use crate::snapshot::{Shared, Snapshot};
use crate::terms::clock::{Clock, is_plausible};
use crate::terms::explanation::Explanation;
use crate::terms::role::Role;
use crate::terms::timestamp;
use crate::terms::version::VERSION;

/// The daemon, as its admin listener sees it.
#[derive(Debug)]
pub(crate) struct AdminView {
    /// The state that the workers serve from.
    pub shared: Arc<Shared>,
    /// The part that reloads.
    pub reloader: Arc<Reloader>,
    /// The part that revokes.
    pub revoker: Revoker,
    /// The counters of the last hour.
    pub history: Arc<History>,
    /// The token requests of the last hour.
    pub traffic: Arc<RecentTraffic>,
}

impl crate::admin::DaemonView for AdminView {
    fn readiness(&self) -> ReadinessReport {
        let snapshot = self.shared.current.load();
        ReadinessReport {
            phase: self.shared.readiness.phase(),
            upstream_reachable: snapshot.backends.reachable(),
            degraded: sources(&snapshot, &self.shared.clock)
                .into_iter()
                .filter(|source| !source.up)
                .map(|source| source.source)
                .collect(),
            mode: snapshot.config.decision.mode.as_str(),
            enforce_percent: snapshot.config.decision.enforce_percent,
            draining_publishers: self.draining(&snapshot),
        }
    }

    fn status(&self) -> Status {
        let snapshot = self.shared.current.load();
        let clock = &self.shared.clock;
        let uptime = clock.elapsed().as_secs();
        let page = self.shared.metrics.render();
        let samples = Samples::parse(&page);
        let latency = |name: &str| self.traffic.latency_ms(&samples, name);
        let mut sources = sources(&snapshot, clock);
        for source in &mut sources {
            source.latency_ms = latency(source.source);
        }
        Status {
            version: VERSION,
            as_of: timestamp::from_seconds(clock.unix_seconds()),
            conditions: self.conditions(&page),
            phase: self.shared.readiness.phase(),
            started_at: timestamp::from_seconds(clock.unix_seconds().saturating_sub(uptime)),
            uptime_seconds: uptime,
            mode: snapshot.config.decision.mode.as_str(),
            enforce_percent: snapshot.config.decision.enforce_percent,
            draining_publishers: self.draining(&snapshot),
            config: self.config_status(),
            upstreams: upstreams(&snapshot, latency),
            sources,
            sessions: SessionStatus {
                publishers: count(snapshot.sessions.count(Role::Publisher)),
                subscribers: count(snapshot.sessions.count(Role::Subscriber)),
            },
            revocations: count(snapshot.revocations.len()),
            connections: count(self.shared.connections.load(Ordering::Relaxed)),
        }
    }

    fn config(&self) -> ConfigInForce {
        let standing = self.reloader.standing();
        ConfigInForce {
            file: self.reloader.path.display().to_string(),
            hash: format!("{:012x}", standing.hash),
            fallback: standing.fallback,
            restart_required: standing.restart_required,
            keys: serde_json::to_value(&standing.shown.keys).unwrap_or_default(),
        }
    }

    fn traffic(&self) -> TrafficReport {
        let now = timestamp::from_seconds(self.shared.clock.unix_seconds());
        let page = self.shared.metrics.render();
        self.traffic.report(&Samples::parse(&page), now)
    }

    fn sessions(&self, query: ListQuery) -> ViewFuture<'_, SessionsResult> {
        let sessions = Arc::clone(&self.shared.current.load().sessions);
        let now = self.shared.clock.unix_seconds();
        Box::pin(async move {
            // A filter may have to look at each of a million sessions.
            let listing = tokio::task::spawn_blocking(move || page(&sessions, &query, now));
            listing
                .await
                .unwrap_or_else(|_cancelled| Ok(SessionPage::default()))
        })
    }

    fn revocations(&self, query: &ListQuery) -> RevocationsResult {
        self.revoker.page(query)
    }

    fn revocation(&self, id: &str) -> Option<RevocationEntry> {
        self.revoker.get(id)
    }

    fn revoke<'a>(&'a self, body: &'a [u8]) -> ViewFuture<'a, Result<Revoked, RevokeError>> {
        Box::pin(self.revoker.revoke(body))
    }

    fn lift<'a>(&'a self, id: &'a str) -> ViewFuture<'a, Option<Lifted>> {
        Box::pin(self.revoker.lift(id))
    }

    fn explain(&self, question: ExplainQuestion) -> ViewFuture<'_, Explanation> {
        Box::pin(async move {
            let snapshot = self.shared.current.load_full();
            if !question.socket {
                return explain(&snapshot, &self.shared.clock, &question).await;
            }
            let request = &question.request;
            let question = SocketQuestion {
                subject: Some(&*question.subject).filter(|subject| !subject.is_empty()),
                channel: &request.channel,
                user: &request.user,
                // What the backend mints for anyone who asks.
                role: request.role.unwrap_or(Role::Publisher),
            };
            socket_explain(&self.shared, &snapshot, question).await
        })
    }

    fn metrics(&self) -> String {
        self.shared.metrics.render()
    }

    fn token(&self) -> Option<Secret> {
        self.shared.current.load().config.admin.token.clone()
    }

    fn allowed_hosts(&self) -> Vec<String> {
        let running = self.shared.current.load();
        running.config.admin.allowed_hosts.clone()
    }

    fn reload(&self) -> ViewFuture<'_, ReloadResult> {
        let reloader = Arc::clone(&self.reloader);
        Box::pin(async move {
            // Reading files blocks, and a reload must not stop half-way because its caller disconnects.
            let result = tokio::task::spawn_blocking(move || reloader.reload("admin")).await;
            match result {
                Ok(Ok(reloaded)) => Ok(reloaded),
                Ok(Err(errors)) => Err(problems(&errors)),
                Err(_panicked) => Err(vec![ConfigProblem {
                    message: "the reload failed; the log says why".to_owned(),
                    ..ConfigProblem::default()
                }]),
            }
        })
    }
}

impl AdminView {
    /// The conditions that an operator has to know now, the worst first.
    fn conditions(&self, page: &str) -> Vec<ConditionStatus> {
        let clock = &self.shared.clock;
        let now = clock.unix_seconds();
        // Without a plausible time every token request fails, even before the first one is counted.
        let unset = unset_clock(now).map(|message| ConditionStatus {
            alert: "RenewdTokenRequestsFailing",
            severity: AlertSeverity::Critical,
            message,
            remedy: None,
        });
        let mut found = conditions(page, &self.history, clock.elapsed(), now);
        let proxy = self.shared.untrusted_proxy_seen.get().copied();
        for condition in &mut found {
            condition.remedy = remedy(condition.alert, &self.reloader.path, proxy);
        }
        unset.into_iter().chain(found).collect()
    }

    fn draining(&self, snapshot: &Snapshot) -> u64 {
        let now = self.shared.clock.unix_seconds();
        count(decision::draining_publishers(snapshot, now))
    }

    fn config_status(&self) -> ConfigStatus {
        let standing = self.reloader.standing();
        ConfigStatus {
            path: self.reloader.path.display().to_string(),
            hash: format!("{:012x}", standing.hash),
            loaded_at: timestamp::from_seconds(standing.loaded_at),
            last_reload_successful: standing.errors.is_none(),
            last_reload_at: timestamp::from_seconds(standing.attempted_at),
            problems: standing.errors.as_ref().map(problems).unwrap_or_default(),
            warnings: standing.warnings.iter().map(problem).collect(),
            restart_required: standing.restart_required,
            fallback: standing.fallback,
        }
    }
}

fn page(sessions: &Sessions, query: &ListQuery, now: u64) -> SessionsResult {
    let after = match &query.cursor {
        Some(cursor) => Some(sessions.cursor(cursor).ok_or(UnknownCursor)?),
        None => None,
    };
    let filter = Filter {
        channel: query.channel.as_deref(),
        subject: query.subject.as_deref(),
    };
    let page = sessions.page(filter, after, query.limit, now);
    Ok(SessionPage {
        sessions: page.sessions.into_iter().map(entry).collect(),
        cursor: page.next.map(|next| next.to_string()),
    })
}

fn entry(held: Held) -> SessionEntry {
    SessionEntry {
        subject: held.subject,
        channel: held.channel,
        uid: held.user.uid(),
        account: held.user.account().map(str::to_owned),
        role: held.role.as_str(),
        first_issued: timestamp::from_seconds(held.first_issued),
        expires: timestamp::from_seconds(held.expires),
        refreshes: held.refreshes,
    }
}

fn upstreams(snapshot: &Snapshot, latency: impl Fn(&str) -> Option<f64>) -> Vec<UpstreamStatus> {
    let backends = snapshot.backends.all().iter();
    backends
        .map(|backend| {
            let reason = match backend.standing() {
                ServerStanding::Up => None,
                ServerStanding::Unhealthy => {
                    Some("it takes connections, and fails its health checks")
                }
                ServerStanding::Unreachable => Some("it took no connection when last tried"),
            };
            UpstreamStatus {
                server: backend.server.name.clone(),
                up: reason.is_none(),
                reason,
                latency_ms: latency(&backend.server.name),
            }
        })
        .collect()
}

/// The sources of decisions. The system's clock is among them only while its time is implausible.
fn sources(snapshot: &Snapshot, clock: &Clock) -> Vec<SourceStatus> {
    source_states(snapshot, clock)
        .into_iter()
        .map(status)
        .chain(clock_status(clock.unix_seconds()))
        .collect()
}

fn status(state: SourceState) -> SourceStatus {
    SourceStatus {
        source: state.source.as_str(),
        up: state.error.is_none(),
        error: state.error,
        doubt: state.doubt,
        latency_ms: None,
        down_since: state
            .outage
            .map(|outage| timestamp::from_seconds(outage.down_since)),
        rest_until: state
            .outage
            .and_then(|outage| outage.rest_until)
            .map(timestamp::from_seconds),
    }
}

fn clock_status(now: u64) -> Option<SourceStatus> {
    let error = unset_clock(now)?;
    Some(SourceStatus {
        source: "clock",
        up: false,
        error: Some(error),
        doubt: None,
        latency_ms: None,
        down_since: None,
        rest_until: None,
    })
}

/// The problem of the system's clock, if its time is implausible.
fn unset_clock(now: u64) -> Option<String> {
    let said = || {
        let now = timestamp::from_seconds(now);
        format!("the system's clock reads {now}; no tokens are issued until it is set")
    };
    (!is_plausible(now)).then(said)
}

fn problems(errors: &ConfigErrors) -> Vec<ConfigProblem> {
    errors.errors.iter().map(problem).collect()
}

fn problem(error: &Diagnostic) -> ConfigProblem {
    ConfigProblem {
        message: error.message.clone(),
        key: (!error.key.is_empty()).then(|| error.key.clone()),
        file: Some(error.file.display().to_string()),
        line: error.place.map(|place| place.line),
        column: error.place.map(|place| place.column),
        hint: error.hint.clone(),
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_named_only_while_it_gives_no_time_to_go_by() {
        assert!(clock_status(1_800_000_000).is_none());
        let unset = clock_status(7).expect("it is named");
        assert!(!unset.up);
        let error = unset.error.expect("it says why");
        assert!(error.contains("1970-01-01T00:00:07Z"), "{error}");
    }
}
