//! The admin listener: metrics, health, status, sessions, revocations, explanations and reload, never on the public
//! port.
//!
//! Keeps true: whatever changes something or reveals more than metrics and readiness needs the bearer token or the
//! unix socket; the page of another site can't use the listener (DNS rebinding, cross-site requests); the number,
//! time and size of connections are bounded.
//! Must not know: how the daemon does what it is asked, except through [`DaemonView`].

mod guard;
mod list_query;
mod listen;
mod page;
mod respond;
mod revocations;
mod routes;
mod sessions;
mod status;

use std::future::Future;
use std::pin::Pin;

pub use list_query::ListQuery;
pub use listen::{AdminListener, bind};
pub use revocations::{
    EjectionStatus, Lifted, OutstandingToken, OutstandingTokens, RevocationEntry, RevocationPage,
    RevocationsResult, RevokeError, Revoked,
};
pub use sessions::{SessionEntry, SessionPage, UnknownCursor};
pub use status::{
    AlertSeverity, ConditionStatus, ConfigInForce, ConfigProblem, ConfigStatus, ReadinessReport,
    RefusalEntry, Reloaded, SessionStatus, SourceStatus, Status, TrafficPoints, TrafficReport,
    UpstreamStatus,
};

use crate::config::secret::Secret;
use crate::decision::explain::ExplainQuestion;
use crate::terms::explanation::Explanation;

/// The result of a reload: what it changed, or every problem of the configuration.
pub type ReloadResult = Result<Reloaded, Vec<ConfigProblem>>;

/// A page of sessions, or the error of an unknown cursor.
pub type SessionsResult = Result<SessionPage, UnknownCursor>;

/// The future that an asynchronous method of [`DaemonView`] returns.
pub type ViewFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The questions that the admin listener asks its daemon. Every method that returns no future must return at once.
pub trait DaemonView: Send + Sync + 'static {
    /// For `/readyz`.
    fn readiness(&self) -> ReadinessReport;

    /// For `/v1/status`.
    fn status(&self) -> Status;

    /// For `/v1/config`.
    fn config(&self) -> ConfigInForce;

    /// For `/v1/traffic`.
    fn traffic(&self) -> TrafficReport;

    /// For `/v1/sessions`.
    fn sessions(&self, query: ListQuery) -> ViewFuture<'_, SessionsResult>;

    /// For `GET /v1/revocations`.
    fn revocations(&self, query: &ListQuery) -> RevocationsResult;

    /// For `GET /v1/revocations/{id}`; `None` where none of that id is in force.
    fn revocation(&self, id: &str) -> Option<RevocationEntry>;

    /// For `POST /v1/revocations`, with its JSON body. Runs to its end even if the client disconnects.
    fn revoke<'a>(&'a self, body: &'a [u8]) -> ViewFuture<'a, Result<Revoked, RevokeError>>;

    /// For `DELETE /v1/revocations/{id}`; `None` where none of that id is in force. Runs to its end even if the
    /// client disconnects.
    fn lift<'a>(&'a self, id: &'a str) -> ViewFuture<'a, Option<Lifted>>;

    /// For `/v1/explain`.
    fn explain(&self, question: ExplainQuestion) -> ViewFuture<'_, Explanation>;

    /// For `/metrics`: Prometheus' text format.
    fn metrics(&self) -> String;

    /// The bearer token in force, from `admin.token_file`.
    fn token(&self) -> Option<Secret>;

    /// `admin.allowed_hosts` in force.
    fn allowed_hosts(&self) -> Vec<String>;

    /// For `/-/reload`. Runs to its end even if the client disconnects.
    fn reload(&self) -> ViewFuture<'_, ReloadResult>;
}
