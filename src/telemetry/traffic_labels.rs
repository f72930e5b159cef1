//! The closed label sets of what is not a decision: HTTP traffic, backends, lookups. The names are the contract's:
//! never change one.
//!
//! Keeps true: whatever a client or a backend sends maps onto a fixed, small set of values.
//! Must not know: what counts them.

use http::{Method, StatusCode};

use crate::terms::labels::labels;
use crate::terms::proxy_error::ProxyErrorKind;

labels! {
    /// A source of answers that decisions need.
    pub enum SourceLabel {
        /// `[streams]`.
        Streams => "streams",
        /// `[accounts]`.
        Accounts => "accounts",
        /// `[authorize]`.
        Authorize => "authorize",
        /// `auth.jwt.jwks_url`.
        Jwks => "jwks",
        /// `[redis]`: what replicas share.
        Redis => "redis",
    }

    /// Whose limits count.
    pub(crate) enum StoreMode {
        /// Those of all replicas together.
        Shared => "shared",
        /// Those of this process, or none: `rate_limit.on_store_error`.
        Local => "local",
    }

    /// The fate of a token inside one of the backend's answers.
    pub enum ReissueOutcome {
        /// A token of renewd replaced it.
        Replaced => "replaced",
        /// Left as it was: it expires soon enough, or has expired.
        Short => "short",
        /// Made empty: the client may not have it.
        Withheld => "withheld",
        /// Made empty because no decision was possible, or left because it could not be read.
        Error => "error",
    }

    /// The outcome of a rule at Agora that removes a user from a channel, or of one attempt to make or delete it.
    pub enum EjectionOutcome {
        /// The rule was made.
        Done => "done",
        /// The rule was refused, or taken in no time that would still have helped.
        Failed => "failed",
        /// No rule can name the token's user.
        NotPossible => "not_possible",
        /// The rule was not needed any more.
        Dropped => "dropped",
        /// The rule was deleted, since its revocation was lifted.
        Deleted => "deleted",
        /// An attempt failed, and is repeated.
        Retried => "retried",
        /// An attempt was refused because of its credentials.
        Unauthorized => "unauthorized",
    }

    /// A request's method, bounded: those of RFC 9110 and PATCH (RFC 5789), or `other`.
    pub(crate) enum MethodLabel {
        /// `GET`
        Get => "GET",
        /// `HEAD`
        Head => "HEAD",
        /// `POST`
        Post => "POST",
        /// `PUT`
        Put => "PUT",
        /// `PATCH`
        Patch => "PATCH",
        /// `DELETE`
        Delete => "DELETE",
        /// `OPTIONS`
        Options => "OPTIONS",
        /// `CONNECT`
        Connect => "CONNECT",
        /// `TRACE`
        Trace => "TRACE",
        /// Anything else.
        Other => "other",
    }

    /// A status code's class (RFC 9110 §15), or its absence.
    pub(crate) enum StatusClass {
        /// `1xx`: an upgrade to a tunnel.
        Informational => "1xx",
        /// `2xx`
        Success => "2xx",
        /// `3xx`
        Redirection => "3xx",
        /// `4xx`
        ClientError => "4xx",
        /// `5xx`, and whatever lies above.
        ServerError => "5xx",
        /// No response: the client left first, or the backend gave none.
        None => "none",
    }

    /// Why a request was refused before it was routed.
    pub enum ParseErrorKind {
        /// Not HTTP, or bytes where they may not stand.
        Malformed => "malformed",
        /// A version of HTTP that renewd doesn't serve.
        Version => "version",
        /// The header section is too large or has too many fields: 431.
        HeadersTooLarge => "headers_too_large",
        /// The target is too long: 414.
        TargetTooLong => "target_too_long",
        /// The header section took too long. The connection is closed without an answer.
        HeaderTimeout => "header_timeout",
        /// No `Host`, several, or a bad one.
        Host => "host",
        /// A `Transfer-Encoding` other than `chunked`, or a contradictory length.
        TransferEncoding => "transfer_encoding",
        /// `CONNECT` or `TRACE`.
        Method => "method",
        /// A TLS handshake failed: no common version or cipher, no or a wrong client certificate, or no TLS at all.
        TlsHandshake => "tls_handshake",
        /// A TLS handshake took too long.
        TlsHandshakeTimeout => "tls_handshake_timeout",
        /// A connection that had to begin with a PROXY header and didn't (`server.proxy_protocol`).
        ProxyHeader => "proxy_header",
        /// A connection from an address that isn't in `server.trusted_proxies` while `server.proxy_protocol` is on.
        ProxyUntrusted => "proxy_untrusted",
        /// renewd ended an HTTP/2 connection because of a flood of resets or of useless frames.
        Http2Abuse => "http2_abuse",
    }

    /// How one exchange with a backend ended.
    pub enum UpstreamOutcome {
        /// A response below 500.
        Ok => "ok",
        /// A response of 500 or above.
        ServerError => "server_error",
        /// No connection.
        ConnectFailed => "connect_failed",
        /// The connection broke before a byte of a response.
        ConnectionLost => "connection_lost",
        /// A response that can't be passed on, or that broke off in its head.
        BadResponse => "bad_response",
        /// No response in time.
        Timeout => "timeout",
        /// The client left before the response.
        ClientGone => "client_gone",
    }
}

impl MethodLabel {
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
}

impl StatusClass {
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
}

impl UpstreamOutcome {
    /// The outcome of an exchange that brought a response.
    pub(crate) fn of(status: StatusCode) -> Self {
        if status.is_server_error() {
            Self::ServerError
        } else {
            Self::Ok
        }
    }
}

impl From<ProxyErrorKind> for UpstreamOutcome {
    fn from(kind: ProxyErrorKind) -> Self {
        match kind {
            // An overloaded request reached no server.
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
}
