//! Every response of the admin listener is made here.
//!
//! Keeps true: no response may be cached, sniffed or framed.
//! Must not know: which request gets which response.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use super::guard::GuardRefusal;

pub(crate) type AdminResponse = Response<Full<Bytes>>;

/// An answer with a body of this type that browsers don't cache, sniff or frame.
pub(crate) fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> AdminResponse {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> AdminResponse {
    match serde_json::to_vec(body) {
        Ok(bytes) => answer(status, "application/json", bytes),
        Err(error) => {
            tracing::error!(%error, "can't serialize an answer of the admin listener");
            answer(StatusCode::INTERNAL_SERVER_ERROR, "application/json", "{}")
        }
    }
}

/// An error, in the same form as on the public port.
pub(crate) fn error(status: StatusCode, code: &'static str, message: &str) -> AdminResponse {
    #[derive(Serialize)]
    struct AdminBody<'a> {
        success: bool,
        code: &'static str,
        message: &'a str,
    }
    json(
        status,
        &AdminBody {
            success: false,
            code,
            message,
        },
    )
}

/// The answer to a request that is wrong in itself.
pub(crate) fn invalid(message: &str) -> AdminResponse {
    error(StatusCode::BAD_REQUEST, "invalid_request", message)
}

/// 503: the limit of requests at once is reached.
pub(crate) fn overloaded() -> AdminResponse {
    error(
        StatusCode::SERVICE_UNAVAILABLE,
        "overloaded",
        "too many requests at once",
    )
}

/// 405, with the allowed methods.
pub(crate) fn method_not_allowed(allow: &'static str) -> AdminResponse {
    let mut answer = error(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        &format!("allowed here: {allow}"),
    );
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

/// The answer to a refused request, with what to do about it.
pub(crate) fn refused(refusal: GuardRefusal) -> AdminResponse {
    match refusal {
        GuardRefusal::UnknownHost => error(
            StatusCode::FORBIDDEN,
            "unknown_host",
            "use the address in admin.listen, a loopback address, localhost, or a name in admin.allowed_hosts",
        ),
        GuardRefusal::CrossSite => error(
            StatusCode::FORBIDDEN,
            "cross_site",
            "requests from pages of other sites are refused",
        ),
        GuardRefusal::NoTokenConfigured => error(
            StatusCode::FORBIDDEN,
            "no_admin_token",
            "set admin.token_file and send its content as a bearer token, or listen on a unix socket",
        ),
        GuardRefusal::Unauthenticated => {
            let mut answer = error(
                StatusCode::UNAUTHORIZED,
                "unauthenticated",
                "send the content of admin.token_file: Authorization: Bearer …",
            );
            answer.headers_mut().insert(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"renewd admin\""),
            );
            answer
        }
    }
}
