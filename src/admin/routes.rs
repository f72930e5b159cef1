//! Chooses the answer to a request.
//!
//! Keeps true: the checks come in the order of known host and same site, route, method, token, body.
//! Must not know: connections, or how the daemon does what it is asked.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;

use super::guard::{self, Entrance};
use super::respond::{self, AdminResponse, answer, error, json};
use super::{ConfigProblem, DaemonView, ReadinessReport, Reloaded, page, revocations, sessions};
use crate::decision::explain::ExplainQuestion;
use crate::terms::readiness::Phase;

/// The largest body.
const BODY_LIMIT: usize = 16 * 1024;

/// The version that Prometheus' text format has had since 2014.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

enum AdminRoute<'a> {
    Page,
    Metrics,
    Health,
    Readiness,
    Status,
    Traffic,
    Config,
    Sessions,
    Revocations,
    /// One revocation, by its id.
    Revocation(&'a str),
    Explain,
    Reload,
    /// An unknown path below `/v1`, which is answered 404 only with the token.
    UnknownVersioned,
}

impl<'a> AdminRoute<'a> {
    fn of(path: &'a str) -> Option<Self> {
        Some(match path {
            "/" => Self::Page,
            "/metrics" => Self::Metrics,
            "/healthz" => Self::Health,
            "/readyz" => Self::Readiness,
            "/v1/status" => Self::Status,
            "/v1/traffic" => Self::Traffic,
            "/v1/config" => Self::Config,
            "/v1/sessions" => Self::Sessions,
            "/v1/revocations" => Self::Revocations,
            "/v1/explain" => Self::Explain,
            "/-/reload" => Self::Reload,
            "/v1" => Self::UnknownVersioned,
            path => match path.strip_prefix("/v1/")?.strip_prefix("revocations/") {
                Some(id) => Self::Revocation(id),
                None => Self::UnknownVersioned,
            },
        })
    }

    fn needs_token(&self) -> bool {
        !matches!(
            self,
            Self::Page | Self::Metrics | Self::Health | Self::Readiness
        )
    }

    /// The methods of the route; `None` where any may be tried.
    fn methods(&self) -> Option<&'static str> {
        match self {
            Self::Reload => Some("POST"),
            Self::Revocations => Some("GET, HEAD, POST"),
            Self::Revocation(_) => Some("GET, HEAD, DELETE"),
            Self::UnknownVersioned => None,
            _ => Some("GET, HEAD"),
        }
    }
}

/// Whether the path is a probe's: liveness or readiness. Probes are answered quickly and never refused.
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
    if let Some(methods) = route.methods()
        && methods
            .split(", ")
            .all(|method| method != head.method.as_str())
    {
        return respond::method_not_allowed(methods);
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
        AdminRoute::Traffic => json(StatusCode::OK, &daemon.traffic()),
        AdminRoute::Config => json(StatusCode::OK, &daemon.config()),
        AdminRoute::Sessions => sessions::answer(&*daemon, head.uri.query()).await,
        AdminRoute::Revocations => {
            let (method, query) = (&head.method, head.uri.query());
            revocations::all(daemon, method, query, &head.headers, body).await
        }
        AdminRoute::Revocation(id) => revocations::one(daemon, &head.method, id).await,
        AdminRoute::Explain => explain(&*daemon, head.uri.query()).await,
        AdminRoute::Reload => match empty_json_object(&head.headers, body).await {
            Ok(()) => reload(daemon).await,
            Err((status, code, message)) => error(status, code, &message),
        },
        AdminRoute::UnknownVersioned => not_found(),
    }
}

/// Explains a decision, step by step.
async fn explain(daemon: &dyn DaemonView, query: Option<&str>) -> AdminResponse {
    match ExplainQuestion::from_query(query.unwrap_or_default()) {
        Ok(question) => json(StatusCode::OK, &daemon.explain(question).await),
        Err(message) => respond::invalid(&message),
    }
}

fn not_found() -> AdminResponse {
    error(
        StatusCode::NOT_FOUND,
        "not_found",
        "there are /, /metrics, /healthz, /readyz, /-/reload, /v1/config, /v1/explain, /v1/revocations, /v1/sessions, /v1/status and /v1/traffic",
    )
}

fn asks_for_tokens(query: Option<&str>) -> bool {
    query.is_some_and(|query| {
        query
            .split('&')
            .any(|pair| pair == "tokens" || pair.starts_with("tokens="))
    })
}

/// 503 only where no request should be sent here. A source that is down is named in the answer and causes 503 only
/// with `?tokens`, because forwarding still works without it.
fn readiness(readiness: &ReadinessReport, tokens: bool) -> AdminResponse {
    #[derive(Serialize)]
    struct ReadinessBody<'a> {
        ready: bool,
        reason: &'static str,
        #[serde(flatten)]
        report: &'a ReadinessReport,
    }
    let (ready, reason) = match readiness.phase {
        Phase::Starting => (false, "starting"),
        Phase::Draining => (false, "draining"),
        Phase::Ready if !readiness.upstream_reachable => (false, "no upstream reachable"),
        Phase::Ready if readiness.degraded.is_empty() => (true, "ok"),
        Phase::Ready => (!tokens, "degraded"),
    };
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = ReadinessBody {
        ready,
        reason,
        report: readiness,
    };
    json(status, &body)
}

/// Status, code and message of a refusal.
pub(super) type BodyRefusal = (StatusCode, &'static str, String);

/// Takes a body as JSON and refuses every other type: another site's page can send a form without asking the browser
/// for leave, but not JSON. `expected` says what to send.
pub(super) async fn json_body<B>(
    headers: &HeaderMap,
    body: B,
    expected: &str,
) -> Result<Bytes, BodyRefusal>
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
        return Err((
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            format!("send Content-Type: application/json and {expected}"),
        ));
    }
    let collected = Limited::new(body, BODY_LIMIT).collect().await;
    let bytes = collected.map_err(|problem| {
        if problem.is::<LengthLimitError>() {
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            let message = "the body is larger than 16 KiB".to_owned();
            return (status, "body_too_large", message);
        }
        invalid_body("the body ended early")
    })?;
    Ok(bytes.to_bytes())
}

fn invalid_body(message: &str) -> BodyRefusal {
    let status = StatusCode::BAD_REQUEST;
    (status, "invalid_request", message.to_owned())
}

/// Takes `{}` as JSON and refuses every other body.
async fn empty_json_object<B>(headers: &HeaderMap, body: B) -> Result<(), BodyRefusal>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let bytes = json_body(headers, body, "an empty JSON object: {}").await?;
    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes) {
        Ok(fields) if fields.is_empty() => Ok(()),
        Ok(_) => Err(invalid_body("a reload takes no parameters; send {}")),
        Err(_) => Err(invalid_body("the body is not a JSON object; send {}")),
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
    // The reload is a task of its own, so that it is finished even if the client disconnects.
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
                message: "the configuration is invalid; the running one stays in force",
                errors,
            },
        ),
        Err(problem) => {
            tracing::error!(error = %problem, "a reload panicked");
            error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal_error",
                "the reload failed; see the log",
            )
        }
    }
}
