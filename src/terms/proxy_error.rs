//! The failures of one forwarded request. Status, log level and retry all follow from this.
//!
//! Must not know: how a response is written.

/// A request that could not be forwarded, or an exchange that broke.
#[derive(Debug, thiserror::Error)]
#[error("{kind}{}", source.as_ref().map(|source| format!(": {source}")).unwrap_or_default())]
pub struct ProxyError {
    /// The kind of failure.
    pub kind: ProxyErrorKind,
    /// Whether another attempt may be made.
    pub retry: AnotherAttempt,
    /// The cause, for the log.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ProxyErrorKind {
    /// No connection to the backend: refused, unreachable, unresolved or too slow.
    #[error("no connection to the backend")]
    ConnectFailed,
    /// The backend closed or broke the connection before a byte of a response.
    #[error("the backend closed the connection before its response")]
    ConnectionLost,
    /// The backend's response can't be understood or passed on, or breaks off before its end is in sight.
    #[error("the backend's response can't be passed on")]
    BadResponse,
    /// No response header section in time.
    #[error("the backend sent no response in time")]
    ResponseTimeout,
    /// The client went away or stalled.
    #[error("the client went away")]
    ClientGone,
    /// The limit of requests in flight, or of sockets to the backend, is reached.
    #[error("upstream.max_requests are in flight, or no socket to the backend became free")]
    Overloaded,
}

/// Whether another attempt may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AnotherAttempt {
    /// No.
    Never,
    /// Only if the request is idempotent and has no body: on a new connection where a reused one broke (a keep-alive
    /// race), and while `upstream.try_duration` runs.
    IfHarmless,
    /// Yes: not a byte of the request was written.
    Always,
}

/// Without a cause, and not to be tried again.
impl From<ProxyErrorKind> for ProxyError {
    fn from(kind: ProxyErrorKind) -> Self {
        Self {
            kind,
            retry: AnotherAttempt::Never,
            source: None,
        }
    }
}
