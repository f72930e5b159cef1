//! The responses to requests that get none of the backend's.
//!
//! Keeps true: statuses and codes are the contract's; the cause is written to the log, never to the response.
//! Must not know: why a request is refused.

use http::header::CONNECTION;
use http::{HeaderValue, Response, StatusCode};

use crate::exchange::respond;
use crate::exchange::response_body::ResponseBody;
use crate::http::sanity;
use crate::telemetry::traffic_labels::ParseErrorKind;
use crate::terms::context::RequestContext;
use crate::terms::proxy_error::{ProxyError, ProxyErrorKind};

/// The response with `Connection: close`.
pub(crate) fn closing(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The response to a request that isn't acceptable HTTP.
pub(crate) fn refused(refusal: sanity::SanityRefusal) -> Response<ResponseBody> {
    respond::failure(refusal.status(), "invalid_request", refusal.message())
}

/// The kind that such a request is counted with.
pub(crate) fn parse_error_kind(refusal: sanity::SanityRefusal) -> ParseErrorKind {
    match refusal {
        sanity::SanityRefusal::Method => ParseErrorKind::Method,
        sanity::SanityRefusal::Target => ParseErrorKind::Malformed,
        sanity::SanityRefusal::HostMissing
        | sanity::SanityRefusal::HostDuplicate
        | sanity::SanityRefusal::HostInvalid => ParseErrorKind::Host,
        sanity::SanityRefusal::TransferEncoding | sanity::SanityRefusal::LengthAndEncoding => {
            ParseErrorKind::TransferEncoding
        }
    }
}

/// The response to bytes that are no request. The parser chose the status.
pub(crate) fn unparsed(status: StatusCode) -> Response<ResponseBody> {
    let message = match status {
        StatusCode::URI_TOO_LONG => "The request target is too long",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "The header section is too large",
        _ => "The request is malformed",
    };
    respond::failure(status, "invalid_request", message)
}

/// The response to an unknown route, the same as the backend's.
pub(crate) fn not_found() -> Response<ResponseBody> {
    respond::failure(StatusCode::NOT_FOUND, "not_found", "Route not found")
}

/// The response to a request that could not be forwarded, and a log line for the operator.
pub(crate) fn failed(context: &RequestContext, error: &ProxyError) -> Response<ResponseBody> {
    let (status, code, message) = match error.kind {
        ProxyErrorKind::ConnectFailed | ProxyErrorKind::ConnectionLost => (
            StatusCode::BAD_GATEWAY,
            "upstream_unreachable",
            "The backend can't be reached",
        ),
        ProxyErrorKind::BadResponse => (
            StatusCode::BAD_GATEWAY,
            "upstream_invalid",
            "The backend's answer can't be passed on",
        ),
        ProxyErrorKind::ResponseTimeout => (
            StatusCode::GATEWAY_TIMEOUT,
            "upstream_timeout",
            "The backend did not answer in time",
        ),
        ProxyErrorKind::ClientGone => (
            StatusCode::BAD_REQUEST,
            "invalid_request",
            "The request could not be passed on",
        ),
        ProxyErrorKind::Overloaded => {
            tracing::debug!(request_id = context.id.as_str(), %error, "answered 503");
            return respond::overloaded();
        }
    };
    let (request_id, answered) = (context.id.as_str(), status.as_u16());
    let response = respond::failure(status, code, message);
    if error.kind == ProxyErrorKind::ClientGone {
        tracing::debug!(request_id, %error, "answered {answered}");
        return closing(response);
    }
    tracing::warn!(request_id, %error, "answered {answered}");
    response
}
