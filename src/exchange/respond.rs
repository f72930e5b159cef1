//! The only place that makes renewd's own responses on the public port.
//!
//! Keeps true: every failure is the contract's JSON object, and no cache may keep it; a response repeats nothing of
//! the request except what the caller passes as a message.
//! Must not know: why a request failed.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::response_body::ResponseBody;

/// A JSON answer that no cache may keep.
pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `{"success":false,"code":…,"message":…}`.
pub(crate) fn failure(status: StatusCode, code: &str, message: &str) -> Response<ResponseBody> {
    failure_because(status, code, message, Because::default())
}

/// Further members of an account's refusal, each where it is known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Because<'a> {
    /// `reason`.
    pub reason: Option<&'a str>,
    /// `suspendedAt`.
    pub suspended_at: Option<&'a str>,
}

/// The same with the known reasons.
pub(crate) fn failure_because(
    status: StatusCode,
    code: &str,
    message: &str,
    because: Because<'_>,
) -> Response<ResponseBody> {
    #[derive(Serialize)]
    struct FailureBody<'a> {
        success: bool,
        code: &'a str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
        #[serde(rename = "suspendedAt", skip_serializing_if = "Option::is_none")]
        suspended_at: Option<&'a str>,
    }
    let failure = FailureBody {
        success: false,
        code,
        message,
        reason: because.reason,
        suspended_at: because.suspended_at,
    };
    // Serialising strings can't fail; the response would keep its status without a body.
    json(status, serde_json::to_vec(&failure).unwrap_or_default())
}

/// 204, the response to an `OPTIONS` that may not be forwarded further.
pub(crate) fn no_content() -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// 503 for a request beyond the limits, which the client may repeat after a second.
pub(crate) fn overloaded() -> Response<ResponseBody> {
    let mut response = failure(
        StatusCode::SERVICE_UNAVAILABLE,
        "overloaded",
        "Too many requests are being served, try again in a moment",
    );
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// 405 with the methods that are allowed.
pub(crate) fn method_not_allowed(allow: &'static str) -> Response<ResponseBody> {
    let mut response = failure(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "This method is not allowed here",
    );
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allow));
    response
}
