//! Which request gets which answer.
//!
//! The order is: known host and same site, route, method, token, body.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;

use super::guard::{self, Entrance};
use super::respond::{self, AdminResponse, answer, error, json};
use super::{ConfigProblem, DaemonView, ReadinessReport, Reloaded, ReportedPhase, page, sessions};
use crate::decision::explain::ExplainQuestion;

/// No change needs a body anywhere near this.
const BODY_LIMIT: usize = 16 * 1024;

/// The version that Prometheus' text format has had since 2014.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

enum AdminRoute {
    Page,
    Metrics,
    Health,
    Readiness,
    Status,
    Sessions,
    Explain,
    Reload,
    /// Below `/v1`, where even what doesn't exist is told only to those who may ask.
    UnknownVersioned,
}

impl AdminRoute {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/" => Self::Page,
            "/metrics" => Self::Metrics,
            "/healthz" => Self::Health,
            "/readyz" => Self::Readiness,
            "/v1/status" => Self::Status,
            "/v1/sessions" => Self::Sessions,
            "/v1/explain" => Self::Explain,
            "/-/reload" => Self::Reload,
            "/v1" => Self::UnknownVersioned,
            path if path.starts_with("/v1/") => Self::UnknownVersioned,
            _ => return None,
        })
    }

    fn needs_token(&self) -> bool {
        matches!(
            self,
            Self::Status | Self::Sessions | Self::Explain | Self::Reload | Self::UnknownVersioned
        )
    }
}

/// Whether this is asked to learn whether the daemon lives or should get traffic: quickly answered, and never refused.
pub(crate) fn is_probe(path: &str) -> bool {
    matches!(
        AdminRoute::of(path),
        Some(AdminRoute::Health | AdminRoute::Readiness)
    )
}

/// Answers one request.
pub(crate) async fn handle<B>(
    daemon: Arc<dyn DaemonView>,
    entrance: Entrance,
    request: Request<B>,
) -> AdminResponse
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    if let Err(refusal) = guard::same_site(entrance, &head, &daemon.allowed_hosts()) {
        return respond::refused(refusal);
    }
    let Some(route) = AdminRoute::of(head.uri.path()) else {
        return not_found();
    };
    let reads = matches!(head.method, Method::GET | Method::HEAD);
    match route {
        AdminRoute::Reload if head.method != Method::POST => {
            return respond::method_not_allowed("POST");
        }
        AdminRoute::Reload | AdminRoute::UnknownVersioned => {}
        _ if !reads => return respond::method_not_allowed("GET, HEAD"),
        _ => {}
    }
    if route.needs_token()
        && let Err(refusal) = guard::authorized(entrance, &head.headers, daemon.token().as_ref())
    {
        return respond::refused(refusal);
    }
    match route {
        AdminRoute::Page => page::answer(),
        AdminRoute::Metrics => answer(StatusCode::OK, PROMETHEUS_TEXT, daemon.metrics()),
        AdminRoute::Health => answer(StatusCode::OK, "text/plain; charset=utf-8", "ok\n"),
        AdminRoute::Readiness => readiness(&daemon.readiness(), asks_for_tokens(head.uri.query())),
        AdminRoute::Status => json(StatusCode::OK, &daemon.status()),
        AdminRoute::Sessions => sessions::answer(&*daemon, head.uri.query()).await,
        AdminRoute::Explain => explain(&*daemon, head.uri.query()).await,
        AdminRoute::Reload => match json_body(&head.headers, body).await {
            Ok(()) => reload(daemon).await,
            Err(refused) => *refused,
        },
        AdminRoute::UnknownVersioned => not_found(),
    }
}

/// Who gets a token, step by step.
async fn explain(daemon: &dyn DaemonView, query: Option<&str>) -> AdminResponse {
    match ExplainQuestion::from_query(query.unwrap_or_default()) {
        Ok(question) => json(StatusCode::OK, &daemon.explain(question).await),
        Err(message) => error(StatusCode::BAD_REQUEST, "invalid_request", &message),
    }
}

fn not_found() -> AdminResponse {
    error(
        StatusCode::NOT_FOUND,
        "not_found",
        "there are /, /metrics, /healthz, /readyz, /-/reload, /v1/explain, /v1/sessions and /v1/status",
    )
}

fn asks_for_tokens(query: Option<&str>) -> bool {
    query.is_some_and(|query| {
        query
            .split('&')
            .any(|pair| pair == "tokens" || pair.starts_with("tokens="))
    })
}

/// 503 only where no request should be sent here. A source that is down is named, and fails only who asks for tokens:
/// failing everybody would take a site away that still works.
fn readiness(readiness: &ReadinessReport, tokens: bool) -> AdminResponse {
    #[derive(Serialize)]
    struct RevocationBody<'a> {
        ready: bool,
        reason: &'static str,
        degraded: &'a [&'static str],
        mode: &'static str,
        enforce_percent: u8,
        /// While a drain runs.
        #[serde(skip_serializing_if = "is_zero")]
        draining_publishers: u64,
    }
    let (ready, reason) = match readiness.phase {
        ReportedPhase::Starting => (false, "starting"),
        ReportedPhase::Draining => (false, "draining"),
        ReportedPhase::Running if !readiness.upstream_reachable => (false, "no upstream reachable"),
        ReportedPhase::Running if readiness.degraded.is_empty() => (true, "ok"),
        ReportedPhase::Running => (!tokens, "degraded"),
    };
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    json(
        status,
        &RevocationBody {
            ready,
            reason,
            degraded: &readiness.degraded,
            mode: readiness.mode,
            enforce_percent: readiness.enforce_percent,
            draining_publishers: readiness.draining_publishers,
        },
    )
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A page elsewhere can post a form without asking, but not JSON: so a change is said in JSON, if only `{}`.
async fn json_body<B>(headers: &HeaderMap, body: B) -> Result<(), Box<AdminResponse>>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let media_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(str::trim);
    if !media_type.is_some_and(|value| value.eq_ignore_ascii_case("application/json")) {
        return Err(Box::new(error(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "send Content-Type: application/json and a JSON object, {} will do",
        )));
    }
    let bytes = match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(problem) if problem.is::<LengthLimitError>() => {
            return Err(Box::new(error(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                "at most 16 KiB",
            )));
        }
        Err(_) => {
            return Err(Box::new(error(
                StatusCode::BAD_REQUEST,
                "invalid_request",
                "the body ended early",
            )));
        }
    };
    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes) {
        Ok(fields) if fields.is_empty() => Ok(()),
        Ok(_) => Err(Box::new(error(
            StatusCode::BAD_REQUEST,
            "invalid_request",
            "a reload has no parameters: send {}",
        ))),
        Err(_) => Err(Box::new(error(
            StatusCode::BAD_REQUEST,
            "invalid_request",
            "the body is not a JSON object: send {}",
        ))),
    }
}

async fn reload(daemon: Arc<dyn DaemonView>) -> AdminResponse {
    #[derive(Serialize)]
    struct Done {
        success: bool,
        #[serde(flatten)]
        reloaded: Reloaded,
    }
    #[derive(Serialize)]
    struct BodyFailure {
        success: bool,
        code: &'static str,
        message: &'static str,
        errors: Vec<ConfigProblem>,
    }
    // On a task of its own: a caller who hangs up must not leave a reload half done.
    let task = tokio::spawn(async move { daemon.reload().await });
    match task.await {
        Ok(Ok(reloaded)) => json(
            StatusCode::OK,
            &Done {
                success: true,
                reloaded,
            },
        ),
        Ok(Err(errors)) => json(
            StatusCode::UNPROCESSABLE_ENTITY,
            &BodyFailure {
                success: false,
                code: "invalid_config",
                message: "the configuration is invalid; the former one stays in force",
                errors,
            },
        ),
        Err(problem) => {
            tracing::error!(error = %problem, "a reload broke off");
            error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal_error",
                "the reload broke off; see the log",
            )
        }
    }
}
