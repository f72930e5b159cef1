//! What can go wrong with one forwarded request. Status, log level and retry all follow from this.
//!
//! Must not know: how a response is written.

use std::fmt;

/// A request that could not be forwarded, or an exchange that broke.
#[derive(Debug)]
pub struct ProxyError {
    /// What happened.
    pub kind: ProxyErrorKind,
    /// Whether another attempt may be made.
    pub retry: AnotherAttempt,
    /// The cause, for the log.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyErrorKind {
    /// No connection to the backend: refused, unreachable, unresolved or too slow.
    ConnectFailed,
    /// The backend closed or broke the connection before a byte of a response.
    ConnectionLost,
    /// The backend's response can't be understood or passed on, or breaks off before its end is in sight.
    BadResponse,
    /// No response header section in time.
    ResponseTimeout,
    /// The client went away or stalled.
    ClientGone,
    /// The limit of requests in flight, or of sockets to the backend, is reached.
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

impl fmt::Display for ProxyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            ProxyErrorKind::ConnectFailed => "no connection to the backend",
            ProxyErrorKind::ConnectionLost => {
                "the backend closed the connection before its response"
            }
            ProxyErrorKind::BadResponse => "the backend's response can't be passed on",
            ProxyErrorKind::ResponseTimeout => "the backend sent no response in time",
            ProxyErrorKind::ClientGone => "the client went away",
            ProxyErrorKind::Overloaded => {
                "upstream.max_requests are in flight, or no socket to the backend became free"
            }
        };
        match &self.source {
            Some(source) => write!(formatter, "{what}: {source}"),
            None => formatter.write_str(what),
        }
    }
}

impl std::error::Error for ProxyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
