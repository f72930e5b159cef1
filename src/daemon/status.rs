//! What the admin listener may ask of this process.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use super::reload::Reloader;
use crate::admin::{
    ConfigStatus, Phase, Problem, Readiness, ReloadResult, Reloaded, SessionStatus, SourceStatus,
    Status, UpstreamStatus,
};
use crate::backends::Standing;
use crate::config::model::DecisionMode;
use crate::config::secret::Secret;
use crate::config::{ConfigErrors, Diagnostic};
use crate::readiness;
use crate::role::Role;
use crate::snapshot::{Shared, Snapshot};

/// The daemon, as its admin listener sees it.
#[derive(Debug)]
pub struct AdminView {
    /// What is served from.
    pub shared: Arc<Shared>,
    /// What reloads.
    pub reloader: Arc<Reloader>,
}

impl AdminView {
    fn phase(&self) -> Phase {
        match self.shared.readiness.phase() {
            readiness::Phase::Starting => Phase::Starting,
            readiness::Phase::Ready => Phase::Running,
            readiness::Phase::Draining => Phase::Draining,
        }
    }
}

impl crate::admin::Daemon for AdminView {
    fn readiness(&self) -> Readiness {
        let snapshot = self.shared.current.load();
        Readiness {
            phase: self.phase(),
            upstream_reachable: snapshot.backends.reachable(),
            degraded: if snapshot.streams.is_up() {
                Vec::new()
            } else {
                vec!["streams"]
            },
        }
    }

    fn status(&self) -> Status {
        let snapshot = self.shared.current.load();
        let clock = &self.shared.clock;
        let uptime = clock.elapsed().as_secs();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            phase: self.phase(),
            started_at: timestamp(clock.unix_seconds().saturating_sub(uptime)),
            uptime_seconds: uptime,
            mode: match snapshot.config.decision.mode {
                DecisionMode::Enforce => "enforce",
                DecisionMode::Observe => "observe",
                DecisionMode::Off => "off",
            },
            enforce_percent: snapshot.config.decision.enforce_percent,
            config: self.config_status(),
            upstreams: upstreams(&snapshot),
            sources: vec![SourceStatus {
                source: "streams",
                up: snapshot.streams.is_up(),
                error: (!snapshot.streams.is_up()).then(|| {
                    format!(
                        "{} can't be used; the log says why",
                        snapshot.config.streams.file.display()
                    )
                }),
            }],
            sessions: SessionStatus {
                publishers: count(snapshot.sessions.count(Role::Publisher)),
                subscribers: count(snapshot.sessions.count(Role::Subscriber)),
            },
            connections: count(self.shared.connections.load(Ordering::Relaxed)),
        }
    }

    fn metrics(&self) -> String {
        self.shared.metrics.render()
    }

    fn token(&self) -> Option<Secret> {
        self.shared.current.load().config.admin.token.clone()
    }

    fn reload(&self) -> Pin<Box<dyn Future<Output = ReloadResult> + Send + '_>> {
        let reloader = Arc::clone(&self.reloader);
        Box::pin(async move {
            // Reading files blocks, and a caller who hangs up must not stop a reload half-way.
            let result = tokio::task::spawn_blocking(move || reloader.reload("admin")).await;
            match result {
                Ok(Ok(report)) => Ok(Reloaded {
                    changed: report.changed.iter().map(ToString::to_string).collect(),
                    restart_required: report
                        .restart_required
                        .iter()
                        .map(ToString::to_string)
                        .collect(),
                    warnings: report.warnings,
                }),
                Ok(Err(errors)) => Err(problems(&errors)),
                Err(_panicked) => Err(vec![Problem {
                    message: "the reload failed; the log says why".to_owned(),
                    ..Problem::default()
                }]),
            }
        })
    }
}

impl AdminView {
    fn config_status(&self) -> ConfigStatus {
        let standing = self.reloader.standing();
        ConfigStatus {
            path: self.reloader.path.display().to_string(),
            hash: format!("{:012x}", standing.hash),
            loaded_at: timestamp(standing.loaded_at),
            last_reload_successful: standing.errors.is_none(),
            last_reload_at: timestamp(standing.attempted_at),
            problems: standing.errors.as_ref().map(problems).unwrap_or_default(),
            restart_required: standing
                .restart_required
                .iter()
                .map(ToString::to_string)
                .collect(),
            fallback: standing.fallback,
        }
    }
}

fn upstreams(snapshot: &Snapshot) -> Vec<UpstreamStatus> {
    let backends = snapshot.backends.all().iter();
    backends
        .map(|backend| UpstreamStatus {
            server: backend.server.name.clone(),
            up: backend.standing() == Standing::Up,
        })
        .collect()
}

fn problems(errors: &ConfigErrors) -> Vec<Problem> {
    errors.errors.iter().map(problem).collect()
}

fn problem(error: &Diagnostic) -> Problem {
    Problem {
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

fn timestamp(unix_seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(unix_seconds)).to_string()
}
