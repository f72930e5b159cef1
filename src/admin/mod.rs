//! The admin listener: metrics, health, status, sessions, explanations and reload, never on the public port.
//!
//! Keeps true: what changes or reveals anything needs the bearer token or the unix socket; a web page elsewhere can
//! do nothing with it (DNS rebinding, cross-site requests); everything about a connection is bounded.
//! Must not know: how the daemon does what it is asked; [`DaemonView`] is all it sees.

mod guard;
mod listen;
mod page;
mod respond;
mod routes;
mod sessions;
mod status;

use std::future::Future;
use std::pin::Pin;

pub use listen::{AdminListener, bind};
pub use sessions::{SessionEntry, SessionPage, SessionQuery, UnknownCursor};
pub use status::{
    ConditionStatus, ConfigProblem, ConfigStatus, ReadinessReport, Reloaded, ReportedPhase,
    SessionStatus, SourceStatus, Status, UpstreamStatus,
};

use crate::config::secret::Secret;
use crate::decision::explain::{ExplainQuestion, Explanation};

/// What a reload came to: what it did, or every problem of the configuration.
pub type ReloadResult = Result<Reloaded, Vec<ConfigProblem>>;

/// A page of sessions, or a cursor that nobody here gave.
pub type SessionsResult = Result<SessionPage, UnknownCursor>;

/// What the admin listener asks of the daemon it belongs to. All but what gives a future must answer at once.
pub trait DaemonView: Send + Sync + 'static {
    /// For `/readyz`.
    fn readiness(&self) -> ReadinessReport;

    /// For `/v1/status`.
    fn status(&self) -> Status;

    /// For `/v1/sessions`.
    fn sessions(
        &self,
        query: SessionQuery,
    ) -> Pin<Box<dyn Future<Output = SessionsResult> + Send + '_>>;

    /// For `/v1/explain`.
    fn explain(
        &self,
        question: ExplainQuestion,
    ) -> Pin<Box<dyn Future<Output = Explanation> + Send + '_>>;

    /// For `/metrics`: Prometheus' text format.
    fn metrics(&self) -> String;

    /// The bearer token in force, from `admin.token_file`.
    fn token(&self) -> Option<Secret>;

    /// `admin.allowed_hosts` in force.
    fn allowed_hosts(&self) -> Vec<String>;

    /// For `/-/reload`. Runs to its end even when the caller goes away.
    fn reload(&self) -> Pin<Box<dyn Future<Output = ReloadResult> + Send + '_>>;
}
