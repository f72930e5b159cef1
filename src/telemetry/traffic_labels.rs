//! The closed label sets of what is not a decision: HTTP traffic, backends, lookups. Contract names: never change one.
//!
//! Keeps true: whatever a client or a backend sends maps onto a fixed, small set of values.

use http::{Method, StatusCode};

use crate::terms::proxy_error::ProxyErrorKind;

/// A source of answers that decisions need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceLabel {
    /// `[streams]`.
    Streams,
    /// `[accounts]`.
    Accounts,
    /// `[authorize]`.
    Authorize,
    /// `auth.jwt.jwks_url`.
    Jwks,
}

impl SourceLabel {
    /// The label's value.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Streams => "streams",
            Self::Accounts => "accounts",
            Self::Authorize => "authorize",
            Self::Jwks => "jwks",
        }
    }
}

/// What became of a token inside one of the backend's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReissueOutcome {
    /// Another one took its place.
    Replaced,
    /// It stays: it ends soon enough, or has ended.
    Short,
    /// Made empty: who asked may not have it.
    Withheld,
    /// Made empty, for nobody could say; or, if it couldn't even be read, left.
    Error,
}

impl ReissueOutcome {
    /// Every outcome, in order of declaration.
    pub(crate) const ALL: [Self; 4] = [Self::Replaced, Self::Short, Self::Withheld, Self::Error];

    /// The label's value.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Replaced => "replaced",
            Self::Short => "short",
            Self::Withheld => "withheld",
            Self::Error => "error",
        }
    }
}

/// A request's method, bounded: those of RFC 9110 and PATCH (RFC 5789), or `other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum MethodLabel {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
    /// `OPTIONS`
    Options,
    /// `CONNECT`
    Connect,
    /// `TRACE`
    Trace,
    /// Anything else.
    Other,
}

impl MethodLabel {
    /// Every method, in order of declaration.
    pub(crate) const ALL: [Self; 10] = [
        Self::Get,
        Self::Head,
        Self::Post,
        Self::Put,
        Self::Patch,
        Self::Delete,
        Self::Options,
        Self::Connect,
        Self::Trace,
        Self::Other,
    ];

    /// The label of `method`.
    pub(crate) fn of(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::HEAD => Self::Head,
            Method::POST => Self::Post,
            Method::PUT => Self::Put,
            Method::PATCH => Self::Patch,
            Method::DELETE => Self::Delete,
            Method::OPTIONS => Self::Options,
            Method::CONNECT => Self::Connect,
            Method::TRACE => Self::Trace,
            _ => Self::Other,
        }
    }

    /// The label's value.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Connect => "CONNECT",
            Self::Trace => "TRACE",
            Self::Other => "other",
        }
    }
}

/// A status code's class (RFC 9110 §15), or its absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StatusClass {
    /// `1xx`: an upgrade to a tunnel.
    Informational,
    /// `2xx`
    Success,
    /// `3xx`
    Redirection,
    /// `4xx`
    ClientError,
    /// `5xx`, and whatever lies above.
    ServerError,
    /// No response: the client left first, or the backend gave none.
    None,
}

impl StatusClass {
    /// Every class, in order of declaration.
    pub(crate) const ALL: [Self; 6] = [
        Self::Informational,
        Self::Success,
        Self::Redirection,
        Self::ClientError,
        Self::ServerError,
        Self::None,
    ];

    /// The class of `status`.
    pub(crate) fn of(status: Option<StatusCode>) -> Self {
        match status.map(|status| status.as_u16()) {
            Some(..=199) => Self::Informational,
            Some(200..=299) => Self::Success,
            Some(300..=399) => Self::Redirection,
            Some(400..=499) => Self::ClientError,
            Some(500..) => Self::ServerError,
            None => Self::None,
        }
    }

    /// The value of `code`: `2xx`, or `none`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Informational => "1xx",
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
            Self::None => "none",
        }
    }
}

/// Why a request was refused before it was routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParseErrorKind {
    /// Not HTTP, or bytes where they may not stand.
    Malformed,
    /// A version that is not spoken here.
    Version,
    /// The header section is too large or has too many fields: 431.
    HeadersTooLarge,
    /// The target is too long: 414.
    TargetTooLong,
    /// The header section took too long: 408.
    HeaderTimeout,
    /// No `Host`, several, or a bad one.
    Host,
    /// A `Transfer-Encoding` other than `chunked`, or a contradictory length.
    TransferEncoding,
    /// `CONNECT` or `TRACE`.
    Method,
    /// A TLS handshake that failed: no common version or cipher, no or a wrong client certificate, not TLS at all.
    TlsHandshake,
    /// A TLS handshake that took too long.
    TlsHandshakeTimeout,
    /// An HTTP/2 connection that was ended for floods of resets, or of frames that bring nothing.
    Http2Abuse,
}

impl ParseErrorKind {
    /// Every kind, in order of declaration.
    pub(crate) const ALL: [Self; 11] = [
        Self::Malformed,
        Self::Version,
        Self::HeadersTooLarge,
        Self::TargetTooLong,
        Self::HeaderTimeout,
        Self::Host,
        Self::TransferEncoding,
        Self::Method,
        Self::TlsHandshake,
        Self::TlsHandshakeTimeout,
        Self::Http2Abuse,
    ];

    /// The label's value.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::HeadersTooLarge => "headers_too_large",
            Self::TargetTooLong => "target_too_long",
            Self::HeaderTimeout => "header_timeout",
            Self::Host => "host",
            Self::TransferEncoding => "transfer_encoding",
            Self::Method => "method",
            Self::TlsHandshake => "tls_handshake",
            Self::TlsHandshakeTimeout => "tls_handshake_timeout",
            Self::Http2Abuse => "http2_abuse",
        }
    }
}

/// How one exchange with a backend ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamOutcome {
    /// A response below 500.
    Ok,
    /// A response of 500 or above.
    ServerError,
    /// No connection.
    ConnectFailed,
    /// The connection broke before a byte of a response.
    ConnectionLost,
    /// A response that can't be passed on, or that broke off in its head.
    BadResponse,
    /// No response in time.
    Timeout,
    /// The client left before the response.
    ClientGone,
}

impl UpstreamOutcome {
    /// Every outcome, in order of declaration.
    pub(crate) const ALL: [Self; 7] = [
        Self::Ok,
        Self::ServerError,
        Self::ConnectFailed,
        Self::ConnectionLost,
        Self::BadResponse,
        Self::Timeout,
        Self::ClientGone,
    ];

    /// The outcome of an exchange that brought a response.
    pub(crate) fn of(status: StatusCode) -> Self {
        if status.is_server_error() {
            Self::ServerError
        } else {
            Self::Ok
        }
    }

    /// The label's value.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ServerError => "server_error",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectionLost => "connection_lost",
            Self::BadResponse => "bad_response",
            Self::Timeout => "timeout",
            Self::ClientGone => "client_gone",
        }
    }
}

impl From<ProxyErrorKind> for UpstreamOutcome {
    fn from(kind: ProxyErrorKind) -> Self {
        match kind {
            // No server is asked where there is no room.
            ProxyErrorKind::ConnectFailed | ProxyErrorKind::Overloaded => Self::ConnectFailed,
            ProxyErrorKind::ConnectionLost => Self::ConnectionLost,
            ProxyErrorKind::BadResponse => Self::BadResponse,
            ProxyErrorKind::ResponseTimeout => Self::Timeout,
            ProxyErrorKind::ClientGone => Self::ClientGone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::outcome::LookupOutcome;

    #[test]
    fn an_invented_method_counts_as_other() {
        let method = Method::from_bytes(b"BREW").unwrap();
        assert_eq!(MethodLabel::of(&method), MethodLabel::Other);
        assert_eq!(MethodLabel::of(&Method::PATCH).as_str(), "PATCH");
    }

    #[test]
    fn a_status_beyond_599_still_has_a_class() {
        let class = |code| StatusClass::of(StatusCode::from_u16(code).ok());
        assert_eq!(class(101).as_str(), "1xx");
        assert_eq!(class(404).as_str(), "4xx");
        assert_eq!(class(999).as_str(), "5xx");
        assert_eq!(StatusClass::of(None).as_str(), "none");
    }

    #[test]
    fn every_label_stands_at_its_own_index() {
        fn holds<T: Copy + PartialEq>(all: &[T], index: impl Fn(T) -> usize) {
            for (position, label) in all.iter().enumerate() {
                assert_eq!(index(*label), position);
            }
        }
        holds(&LookupOutcome::ALL, |label| label as usize);
        holds(&MethodLabel::ALL, |label| label as usize);
        holds(&StatusClass::ALL, |label| label as usize);
        holds(&ParseErrorKind::ALL, |label| label as usize);
        holds(&UpstreamOutcome::ALL, |label| label as usize);
        holds(&crate::telemetry::labels::Endpoint::ALL, |label| {
            label as usize
        });
        holds(&crate::terms::outcome::Outcome::ALL, |label| label as usize);
        holds(&crate::terms::outcome::Scope::ALL, |label| label as usize);
        holds(&crate::telemetry::labels::Handler::ALL, |label| {
            label as usize
        });
    }
}
