//! What the admin listener says, as JSON. Names here are an interface: add, never rename.

use serde::Serialize;

/// Whether requests should be sent here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadinessReport {
    /// How far the process is.
    pub phase: ReportedPhase,
    /// Whether at least one upstream takes connections.
    pub upstream_reachable: bool,
    /// Sources and stores that give no answer: `streams`.
    pub degraded: Vec<&'static str>,
    /// `decision.mode`: `enforce`, `observe`, `off`.
    pub mode: &'static str,
    /// `decision.enforce_percent`.
    pub enforce_percent: u8,
    /// Publishers who renew tokens here though the backend answers them (`decision.drain_holders`), each once.
    pub draining_publishers: u64,
}

/// How far the process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportedPhase {
    /// Not all listeners are bound.
    Starting,
    /// Serving.
    Running,
    /// Stopping.
    Draining,
}

/// Everything the status page shows.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// This build.
    pub version: &'static str,
    /// When all of this was so, RFC 3339.
    pub as_of: String,
    /// What an operator has to know now, the worst first.
    pub conditions: Vec<ConditionStatus>,
    /// How far the process is.
    pub phase: ReportedPhase,
    /// RFC 3339.
    pub started_at: String,
    /// Whole seconds since then.
    pub uptime_seconds: u64,
    /// `decision.mode`: `enforce`, `observe`, `off`.
    pub mode: &'static str,
    /// `decision.enforce_percent`.
    pub enforce_percent: u8,
    /// Publishers who renew tokens here though the backend answers them (`decision.drain_holders`), each once.
    pub draining_publishers: u64,
    /// The configuration and its last reload.
    pub config: ConfigStatus,
    /// The backend servers.
    pub upstreams: Vec<UpstreamStatus>,
    /// What decisions ask.
    pub sources: Vec<SourceStatus>,
    /// Who holds live tokens.
    pub sessions: SessionStatus,
    /// Open client connections.
    pub connections: u64,
}

/// One thing that an operator has to know now: the condition of an alert.
#[derive(Clone, Debug, Serialize)]
pub struct ConditionStatus {
    /// The alert's name in `monitoring/alerts.yml`.
    pub alert: &'static str,
    /// `critical`, `warning` or `info`.
    pub severity: &'static str,
    /// For people; holds no secret.
    pub message: String,
}

/// The configuration and its last reload.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigStatus {
    /// Its file.
    pub path: String,
    /// The hash of what is in force, hexadecimal.
    pub hash: String,
    /// When it was last loaded successfully, RFC 3339.
    pub loaded_at: String,
    /// Whether the last attempt succeeded.
    pub last_reload_successful: bool,
    /// When the last attempt was, RFC 3339.
    pub last_reload_at: String,
    /// What was wrong in the last attempt.
    pub problems: Vec<ConfigProblem>,
    /// Keys whose change waits for a restart.
    pub restart_required: Vec<String>,
    /// Running on the last valid configuration because the file was invalid at start.
    pub fallback: bool,
}

/// One backend server.
#[derive(Clone, Debug, Serialize)]
pub struct UpstreamStatus {
    /// As configured.
    pub server: String,
    /// Whether it takes connections, and passes its health checks.
    pub up: bool,
}

/// One source.
#[derive(Clone, Debug, Serialize)]
pub struct SourceStatus {
    /// `streams`.
    pub source: &'static str,
    /// Whether it answers.
    pub up: bool,
    /// Why it doesn't; holds no secret.
    pub error: Option<String>,
    /// Which of its fields it may only look for in the wrong place, while it answers; holds no secret. Left out where
    /// there is no doubt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
    /// When the first lookup failed since the source last answered, RFC 3339.
    pub down_since: Option<String>,
    /// Until when those who hold a token can renew it without its answer, RFC 3339.
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

/// A reload that took effect.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Reloaded {
    /// Keys whose change is in force; empty when nothing had changed.
    pub changed: Vec<String>,
    /// Keys whose change waits for a restart.
    pub restart_required: Vec<String>,
    /// What `check` warns of.
    pub warnings: Vec<String>,
}

/// One thing wrong with the configuration. Shows no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConfigProblem {
    /// What is wrong.
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
    /// What would be right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
