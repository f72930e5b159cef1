//! Reload: read everything again, swap the snapshot, report the result.
//!
//! Keeps true: one reload at a time; no connection is touched; an invalid file changes nothing and is reported in the
//! log, the metrics, the audit trail and systemd's status.
//! Must not know: what asked for it, except by name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::files::{self, Configuration};
use super::state::DaemonState;
use super::systemd::Notifier;
use crate::admin::Reloaded;
use crate::config::diff;
use crate::config::model::DecisionConfig;
use crate::config::shown::ConfigShown;
use crate::config::{ConfigErrors, Diagnostic, Loaded};
use crate::snapshot::{Shared, Snapshot, StreamsRead};
use crate::sources::streams::StreamSource;
use crate::telemetry::audit::{Audit, Reload};
use crate::telemetry::line_writer::DropCounter;
use crate::telemetry::log::LogControl;

/// The state of the configuration, for the status page.
#[derive(Clone, Debug)]
pub(crate) struct ConfigStanding {
    /// Of the configuration in force.
    pub hash: u64,
    /// When it was loaded, in Unix seconds.
    pub loaded_at: u64,
    /// The last attempt, in Unix seconds.
    pub attempted_at: u64,
    /// The errors of the last attempt.
    pub errors: Option<ConfigErrors>,
    /// The warnings about the configuration in force.
    pub warnings: Vec<Diagnostic>,
    /// Key paths whose new value waits for a restart.
    pub restart_required: Vec<&'static str>,
    /// Whether the last valid configuration is in force instead of the file.
    pub fallback: bool,
    /// The configuration in force, for `renewd config show`.
    pub shown: Arc<ConfigShown>,
}

impl ConfigStanding {
    /// The state after a start at `now`. With `errors` the last valid configuration is in force.
    pub(crate) fn of_start(loaded: &Loaded, now: u64, errors: Option<ConfigErrors>) -> Self {
        Self {
            hash: loaded.hash,
            shown: Arc::new(loaded.shown.clone()),
            loaded_at: now,
            attempted_at: now,
            fallback: errors.is_some(),
            errors,
            warnings: loaded.warnings.clone(),
            restart_required: Vec::new(),
        }
    }
}

/// Reloads on request.
#[derive(Debug)]
pub(crate) struct Reloader {
    /// The configuration file.
    pub path: PathBuf,
    /// The state that the workers serve from.
    pub shared: Arc<Shared>,
    /// Where the last valid configuration is kept.
    pub state: Arc<DaemonState>,
    /// The service manager.
    pub notifier: Notifier,
    /// The log, whose level and format are hot.
    pub log: LogControl,
    /// Counts lines that the log and audit writers lose.
    pub dropped: DropCounter,
    /// The files to watch, renewed by each reload.
    pub watched: tokio::sync::watch::Sender<Vec<PathBuf>>,
    /// The lock makes reloads one at a time.
    pub standing: Mutex<ConfigStanding>,
}

impl Reloader {
    /// Reads everything again. Blocks on file IO: call it off the workers.
    pub(crate) fn reload(&self, trigger: &'static str) -> Result<Reloaded, ConfigErrors> {
        let mut standing = self.standing.lock();
        let reloading = self.notifier.reloading();
        let result = files::configuration(&self.path)
            .and_then(|configuration| self.apply(&configuration, &mut standing));
        self.shared.metrics.config_reload(result.is_ok());
        standing.attempted_at = self.shared.clock.unix_seconds();
        standing.errors = result.as_ref().err().cloned();
        let detail = match &result {
            Ok(report) => {
                for warning in &report.warnings {
                    tracing::warn!("{warning}");
                }
                let detail = applied(report);
                tracing::info!(trigger, "{detail}");
                detail
            }
            Err(errors) => {
                for error in &errors.errors {
                    tracing::error!("{}", error.one_line());
                }
                // A file that is missing may appear later without any change of the configuration file.
                self.watched.send_if_modified(|watched| {
                    let before = watched.len();
                    watched.extend(errors.files.iter().cloned());
                    watched.sort();
                    watched.dedup();
                    watched.len() > before
                });
                let detail = format!(
                    "reload refused; the running configuration stays in force: {}",
                    summary(errors)
                );
                tracing::error!(trigger, "{detail}");
                detail
            }
        };
        let success = result.is_ok();
        self.shared.current.load().audit.reload(&Reload {
            success,
            trigger,
            detail: &detail,
        });
        reloading.finish(&detail);
        result
    }

    /// Reads only the streams file again, which changes far more often than the configuration.
    pub(crate) fn reload_streams(&self) {
        let _one_at_a_time = self.standing.lock();
        let running = self.shared.current.load_full();
        let streams = files::streams(&running.config);
        let valid = matches!(streams, StreamsRead::Table(_));
        match self.swap(running.config.clone(), streams, Arc::clone(&running.audit)) {
            Ok(channels) if valid => tracing::info!(channels, "streams reloaded"),
            // The error was logged where the file was read. A message of success after it would mislead.
            Ok(_) => {}
            Err(errors) => tracing::error!("{}", summary(&errors)),
        }
    }

    /// Whether the streams file is among the changed files, and whether others are.
    pub(crate) fn split(&self, changed: &[PathBuf]) -> (bool, bool) {
        let running = self.shared.current.load();
        let streams = running.config.streams.file();
        let is_streams = |file: &&PathBuf| Some(file.as_path()) == streams;
        let count = changed.iter().filter(is_streams).count();
        (count > 0, count < changed.len())
    }

    /// Whether the files differ from when they were last read: a change between the reading and the watching of a
    /// file is no event. Blocks on file IO.
    pub(crate) fn is_behind(&self) -> bool {
        let known = self.standing().errors;
        match files::configuration(&self.path) {
            Ok(read) => {
                let running = &self.shared.current.load().config;
                known.is_some() || diff::effective(running, read.loaded.config) != *running
            }
            Err(errors) => known != Some(errors),
        }
    }

    /// The state of the configuration.
    pub(crate) fn standing(&self) -> ConfigStanding {
        self.standing.lock().clone()
    }

    fn apply(
        &self,
        configuration: &Configuration,
        standing: &mut ConfigStanding,
    ) -> Result<Reloaded, ConfigErrors> {
        let Loaded {
            config,
            warnings,
            hash,
            files,
            shown,
        } = configuration.loaded.clone();
        let running = self.shared.current.load_full();
        let changes = diff::changes(&running.config, &config);
        let config = diff::effective(&running.config, config);
        let audit = if config.log.audit == running.config.log.audit {
            Arc::clone(&running.audit)
        } else {
            let opened = Audit::open(
                &config.log.audit,
                self.shared.clock.clone(),
                self.dropped.clone(),
            );
            Arc::new(opened.map_err(|error| audit_errors(&self.path, &error))?)
        };
        let streams = files::streams(&config);
        let log = config.log.clone();
        let decision = config.decision.clone();
        let limits = config.rate_limit.clone();
        self.swap(config, streams, audit)?;
        self.log.apply(&log);
        self.watched
            .send_replace(files::watched(&self.path, &files));
        self.state.keep(files::kept_text(&self.path, configuration));
        self.shared.metrics.config_hash(hash);
        self.shared.metrics.decision(&decision);
        self.shared.metrics.rate_limits(&limits);
        let expires = self.shared.current.load().certificate_expires();
        self.shared.metrics.certificate_expiry(expires);
        self.shared.metrics.config_fallback(false);
        self.shared
            .metrics
            .config_restart_required(!changes.restart_required.is_empty());
        standing.hash = hash;
        standing.shown = Arc::new(shown.in_force(&standing.shown, &changes.restart_required));
        standing.loaded_at = self.shared.clock.unix_seconds();
        standing.fallback = false;
        standing.warnings.clone_from(&warnings);
        standing
            .restart_required
            .clone_from(&changes.restart_required);
        Ok(Reloaded {
            changed: changes.changed,
            decision: decision_changes(&running.config.decision, &decision),
            restart_required: changes.restart_required,
            warnings: warnings
                .iter()
                .map(|warning| warning.one_line().to_string())
                .collect(),
        })
    }

    fn swap(
        &self,
        config: crate::config::model::Config,
        streams: StreamsRead,
        audit: Arc<Audit>,
    ) -> Result<usize, ConfigErrors> {
        let running = self.shared.current.load_full();
        let snapshot = Snapshot::build(
            config,
            streams,
            audit,
            Some(&running),
            &self.shared.metrics,
            &self.shared.clock,
            &self.shared.control,
        )
        .map_err(|error| {
            ConfigErrors::of_file(
                &self.path,
                error.to_string(),
                "see [agora] and [server.tls]",
            )
        })?;
        let channels = match snapshot.streams.source() {
            StreamSource::Table(table) => table.len(),
            StreamSource::Asked(_) => 0,
        };
        self.shared.put_in_force(snapshot);
        Ok(channels)
    }
}

/// The error of an audit file that can't be opened.
pub(crate) fn audit_errors(path: &Path, error: &std::io::Error) -> ConfigErrors {
    let message = format!("can't open the file of log.audit: {error}");
    ConfigErrors::of_file(
        path,
        message,
        "check that its directory exists and that this user may write to it",
    )
}

/// The old and the new value of each changed key that decides whether renewd or the backend answers token requests.
fn decision_changes(running: &DecisionConfig, read: &DecisionConfig) -> Vec<String> {
    let (was, is) = (running.mode.as_str(), read.mode.as_str());
    let mode = (was != is).then(|| format!("decision.mode: {was} -> {is}"));
    let (was, is) = (running.enforce_percent, read.enforce_percent);
    let percent = (was != is).then(|| format!("decision.enforce_percent: {was} -> {is}"));
    mode.into_iter().chain(percent).collect()
}

fn applied(report: &Reloaded) -> String {
    let changed = if report.changed.is_empty() {
        "nothing changed".to_owned()
    } else {
        let tables = report.changed.join(", ");
        let decision = report.decision.iter();
        decision.fold(tables, |said, change| format!("{said}; {change}"))
    };
    if report.restart_required.is_empty() {
        format!("configuration reloaded: {changed}")
    } else {
        let waiting = report.restart_required.join(", ");
        format!("configuration reloaded: {changed}; restart required for {waiting}")
    }
}

/// The first error, on one line.
fn summary(errors: &ConfigErrors) -> String {
    let Some(first) = errors.errors.first() else {
        return String::new();
    };
    let place = first
        .place
        .map(|place| format!(" at line {}", place.line))
        .unwrap_or_default();
    let key = if first.key.is_empty() {
        String::new()
    } else {
        format!("{}: ", first.key)
    };
    format!("{key}{}{place}", first.message)
}
