//! The JSON that the admin listener answers.
//!
//! Keeps true: field names are an interface: add, never rename.
//! Must not know: where the values come from.

use serde::Serialize;

use crate::terms::readiness::Phase;

/// Whether requests should be sent here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReadinessReport {
    /// How far the process is.
    #[serde(skip)]
    pub phase: Phase,
    /// Whether at least one upstream takes connections.
    #[serde(skip)]
    pub upstream_reachable: bool,
    /// Sources and stores that give no answer: `streams`.
    pub degraded: Vec<&'static str>,
    /// `decision.mode`: `enforce`, `observe`, `off`.
    pub mode: &'static str,
    /// `decision.enforce_percent`.
    pub enforce_percent: u8,
    /// Publishers who renew tokens here although the backend answers their requests (`decision.drain_holders`), each
    /// counted once.
    #[serde(skip_serializing_if = "is_zero")]
    pub draining_publishers: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Everything the status page shows.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// This build.
    pub version: &'static str,
    /// When this status was read, RFC 3339.
    pub as_of: String,
    /// The conditions that an operator has to know now, the worst first.
    pub conditions: Vec<ConditionStatus>,
    /// How far the process is.
    pub phase: Phase,
    /// RFC 3339.
    pub started_at: String,
    /// Whole seconds since then.
    pub uptime_seconds: u64,
    /// `decision.mode`: `enforce`, `observe`, `off`.
    pub mode: &'static str,
    /// `decision.enforce_percent`.
    pub enforce_percent: u8,
    /// Publishers who renew tokens here although the backend answers their requests (`decision.drain_holders`), each
    /// counted once.
    pub draining_publishers: u64,
    /// The configuration and its last reload.
    pub config: ConfigStatus,
    /// The backend servers.
    pub upstreams: Vec<UpstreamStatus>,
    /// The sources that decisions ask.
    pub sources: Vec<SourceStatus>,
    /// The sessions with an unexpired token.
    pub sessions: SessionStatus,
    /// How many revocations are in force.
    pub revocations: u64,
    /// Open client connections.
    pub connections: u64,
}

/// How soon an operator has to act: as `severity` in `monitoring/alerts.yml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertSeverity {
    /// At once, at night too.
    Critical,
    /// On the next working day.
    Warning,
    /// Not at all: the operator has to know.
    Info,
}

/// One thing that an operator has to know now: the condition of an alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConditionStatus {
    /// The alert's name in `monitoring/alerts.yml`.
    pub alert: &'static str,
    /// How bad it is.
    pub severity: AlertSeverity,
    /// The event in English; holds no secret.
    pub message: String,
    /// The line of the configuration, or the command, that puts the condition right. Left out where that depends on the cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// The configuration and its last reload.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigStatus {
    /// The configuration file.
    pub path: String,
    /// The hash of what is in force, hexadecimal.
    pub hash: String,
    /// When it was last loaded successfully, RFC 3339.
    pub loaded_at: String,
    /// Whether the last attempt succeeded.
    pub last_reload_successful: bool,
    /// When the last attempt was, RFC 3339.
    pub last_reload_at: String,
    /// The problems of the last attempt.
    pub problems: Vec<ConfigProblem>,
    /// The warnings of `renewd check` about the configuration in force.
    pub warnings: Vec<ConfigProblem>,
    /// Keys whose change waits for a restart.
    pub restart_required: Vec<&'static str>,
    /// Running on the last valid configuration because the file was invalid at start.
    pub fallback: bool,
}

/// The configuration in force, key by key.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigInForce {
    /// The configuration file.
    pub file: String,
    /// As [`ConfigStatus::hash`].
    pub hash: String,
    /// As [`ConfigStatus::fallback`].
    pub fallback: bool,
    /// As [`ConfigStatus::restart_required`]: these keys have the values that they had at the start.
    pub restart_required: Vec<&'static str>,
    /// The keys without their secrets: a list of `key`, `value`, and whether that is the `default`.
    pub keys: serde_json::Value,
}

/// One backend server.
#[derive(Clone, Debug, Serialize)]
pub struct UpstreamStatus {
    /// As configured.
    pub server: String,
    /// Whether it takes connections, and passes its health checks.
    pub up: bool,
    /// Why it is not up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// How long its answers took on average in the last five minutes; left out where it was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
}

/// One source.
#[derive(Clone, Debug, Serialize)]
pub struct SourceStatus {
    /// The name of the source: `streams`.
    pub source: &'static str,
    /// Whether it answers.
    pub up: bool,
    /// Why it doesn't answer; holds no secret.
    pub error: Option<String>,
    /// Which of its fields may be configured wrongly although it answers; holds no secret. Left out where there is no
    /// doubt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
    /// How long its lookups took on average in the last five minutes; left out where it was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// When the first lookup failed since the source last answered, RFC 3339.
    pub down_since: Option<String>,
    /// Until when holders of a token can renew it without its answer, RFC 3339.
    pub rest_until: Option<String>,
}

/// Sessions that hold an unexpired token.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SessionStatus {
    /// As publisher.
    pub publishers: u64,
    /// As subscriber.
    pub subscribers: u64,
}

/// The token requests of the last hour.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TrafficReport {
    /// When it was read, RFC 3339.
    pub as_of: String,
    /// The length of a step.
    pub step_seconds: u64,
    /// The requests of each step.
    pub points: TrafficPoints,
    /// The share of well-formed requests that were answered; `None` if there were none.
    pub answered: Option<f64>,
    /// The same of publishers' requests.
    pub publishers_answered: Option<f64>,
    /// The refusals, the most frequent first.
    pub refusals: Vec<RefusalEntry>,
}

/// How many requests came in each step, the oldest first. Each request is in one of the lists.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TrafficPoints {
    /// Tokens renewed.
    pub refreshes: Vec<u64>,
    /// Other tokens issued.
    pub others: Vec<u64>,
    /// Refused by a rule, or because the request was wrong.
    pub refused: Vec<u64>,
    /// Not answered by a fault of the service.
    pub failed: Vec<u64>,
}

/// How often something was refused.
#[derive(Clone, Debug, Serialize)]
pub struct RefusalEntry {
    /// The `code` of the answer.
    pub code: &'static str,
    /// Who has to act: as `class` of `renewd_token_requests_total`.
    pub class: &'static str,
    /// How many requests.
    pub count: u64,
    /// How many of them asked to publish.
    pub publishers: u64,
    /// The meaning of the code, in a sentence.
    pub meaning: &'static str,
}

/// A reload that took effect.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Reloaded {
    /// Keys whose change is in force; empty when nothing had changed.
    pub changed: Vec<&'static str>,
    /// Keys whose change waits for a restart.
    pub restart_required: Vec<&'static str>,
    /// The warnings of `renewd check`.
    pub warnings: Vec<String>,
    /// The changes in whether renewd or the backend answers the token endpoints, for the log:
    /// `decision.mode: observe -> enforce`.
    #[serde(skip)]
    pub decision: Vec<String>,
}

/// One thing wrong with the configuration. Shows no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConfigProblem {
    /// The problem in English.
    pub message: String,
    /// The key path: `token.lifetime`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// From 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// From 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// The way to put it right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
