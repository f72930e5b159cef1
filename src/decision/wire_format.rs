//! A decision as an HTTP response: status, JSON body, headers. Pure.
//!
//! Keeps true: installed clients read `data.token`, log out on any 401 and show "suspended" on a 403 that says so;
//! the mapping from outcome to status stands here and nowhere else.
//! Must not know: how a decision was made.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::lifetime::Lifetimes;
use super::mint::GrantTerms;
use super::order::{DecisionRefusal, RetryAfter};
use crate::exchange::respond;
use crate::exchange::respond::Because;
use crate::exchange::response_body::ResponseBody;
use crate::limit;
use crate::terms::outcome::Outcome;
use crate::terms::timestamp;

#[derive(Serialize)]
struct Success<'a> {
    success: bool,
    data: Data<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    token: &'a str,
    channel_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<&'a str>,
    role: &'static str,
    app_id: &'a str,
    expires_at: String,
    expires_in: u32,
    refresh_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<Backup<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Backup<'a> {
    token: &'a str,
    expires_at: String,
}

/// 200 with the token, and with its backup where there is one.
pub(crate) fn success(
    terms: &GrantTerms<'_>,
    app_id: &str,
    lifetimes: Lifetimes,
    token: &str,
    backup: Option<&str>,
) -> Response<ResponseBody> {
    let after =
        |lifetime: u32| timestamp::from_millis((terms.issued_at + u64::from(lifetime)) * 1000);
    let body = Success {
        success: true,
        data: Data {
            token,
            channel_name: &terms.request.channel,
            uid: terms.request.user.uid(),
            account: terms.request.user.account(),
            role: terms.grant.role.as_str(),
            app_id,
            expires_at: after(lifetimes.token),
            expires_in: lifetimes.token,
            refresh_at: after(lifetimes.refresh),
            backup: backup
                .zip(lifetimes.backup)
                .map(|(token, lifetime)| Backup {
                    token,
                    expires_at: after(lifetime),
                }),
        },
    };
    match serde_json::to_vec(&body) {
        Ok(body) => respond::json(StatusCode::OK, body),
        Err(_) => refusal(&DecisionRefusal::unavailable(
            "The response could not be written",
        )),
    }
}

/// The refusal: its status, code and message, and when to ask again.
pub(crate) fn refusal(refusal: &DecisionRefusal) -> Response<ResponseBody> {
    let mut response = respond::failure_because(
        status(refusal.outcome),
        refusal.outcome.as_str(),
        &refusal.message,
        Because {
            reason: refusal.reason.as_deref(),
            suspended_at: refusal.suspended_at.as_deref(),
        },
    );
    match &refusal.retry {
        Some(RetryAfter::After(wait)) => {
            insert(response.headers_mut(), RETRY_AFTER, whole_seconds(*wait));
        }
        Some(RetryAfter::Limited(limited)) => rate_limit_headers(response.headers_mut(), limited),
        None => {}
    }
    response
}

/// The status of each outcome, by the contract's table.
pub(crate) fn status(outcome: Outcome) -> StatusCode {
    match outcome {
        Outcome::Ok => StatusCode::OK,
        Outcome::InvalidRequest => StatusCode::BAD_REQUEST,
        Outcome::Unauthenticated | Outcome::TokenExpired | Outcome::SessionReplaced => {
            StatusCode::UNAUTHORIZED
        }
        Outcome::Revoked
        | Outcome::AccountSuspended
        | Outcome::ViewerBanned
        | Outcome::NotOwner
        | Outcome::PolicyDenied
        | Outcome::TooManyStreams
        | Outcome::SessionTooLong => StatusCode::FORBIDDEN,
        Outcome::StreamNotLive => StatusCode::NOT_FOUND,
        Outcome::UidTaken => StatusCode::CONFLICT,
        Outcome::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Outcome::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Outcome::RateLimitedClient | Outcome::RateLimitedShared => StatusCode::TOO_MANY_REQUESTS,
        Outcome::LoginUnverified | Outcome::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The fields of draft-ietf-httpapi-ratelimit-headers-06, as express-rate-limit's "standard headers" option writes
/// them.
fn rate_limit_headers(headers: &mut HeaderMap, limited: &limit::LimitExceeded) {
    insert(headers, RETRY_AFTER, whole_seconds(limited.retry_after));
    insert(
        headers,
        HeaderName::from_static("ratelimit-limit"),
        u64::from(limited.limit),
    );
    insert(
        headers,
        HeaderName::from_static("ratelimit-remaining"),
        u64::from(limited.remaining),
    );
    insert(
        headers,
        HeaderName::from_static("ratelimit-reset"),
        whole_seconds(limited.reset),
    );
}

fn insert(headers: &mut HeaderMap, name: HeaderName, number: u64) {
    headers.insert(name, HeaderValue::from(number));
}

/// Whole seconds, rounded up and at least 1: a client that comes back on the second must be let in.
pub(super) fn whole_seconds(duration: Duration) -> u64 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    seconds.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_javascript_writes_them() {
        assert_eq!(
            timestamp::from_millis(1_795_390_239_000),
            "2026-11-22T23:30:39.000Z"
        );
    }

    #[test]
    fn waits_are_rounded_up() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1001)), 2);
        assert_eq!(whole_seconds(Duration::from_secs(3)), 3);
    }
}
