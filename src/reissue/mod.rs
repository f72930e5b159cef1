//! Tokens inside the backend's answers: which answers are searched, how they are requested and how they are handed
//! on.
//!
//! | file | what |
//! |---|---|
//! | `applying_rule` | what the rules say of a request |
//! | [`scan`] | finds what looks like a token in a stream of bytes |
//! | `run` | one token's characters, through the escapes of JSON and URLs |
//! | `unseen` | bodies in which no token could be seen |
//! | `names` | the channel and user that a 006 token doesn't contain |
//! | `judge` | who may have a token |
//! | `rewriter` | one answer: tokens found, judged, replaced |
//! | `ledger` | tokens counted, audited, remembered |
//! | `shared_claims` | what a publisher's token claims over all replicas |
//! | `tally` | one answer's tokens, for its one audit event |
//! | `body_fields` | header fields of the request and its answer |
//! | [`socket`] | the same for `WebSocket` messages |
//!
//! Keeps true: an answer that can't be searched is never passed on as if it had been; where token requests are only
//! observed, answers are too, since a short token is of no use without the endpoint that renews it.
//! Must not know: connections, servers.

mod applying_rule;
mod body_fields;
mod judge;
mod ledger;
mod names;
mod rewriter;
mod run;
pub(crate) mod scan;
mod shared_claims;
pub(crate) mod socket;
mod tally;
mod unseen;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body as _;
use parking_lot::Mutex;

use self::judge::{Judge, NamedCaller};
use self::ledger::TokenLedger;
use self::rewriter::{Parts, Rewriter};
use self::shared_claims::SharedClaims;
use crate::config::model::{DecisionMode, ReissueMode, Withheld};
use crate::exchange::request_body::{fields_into_map, fields_of};
use crate::exchange::response_body::{RequestBody, ResponseBody};
use crate::http::readings::Readings;
use crate::logins::jwt;
use crate::snapshot::{Shared, Snapshot};
use crate::telemetry::metrics::ReissueMetrics;
use crate::telemetry::traffic_labels::ReissueOutcome;
use crate::terms::context::{RequestContext, RequestId};
use crate::terms::proxy_error::{AnotherAttempt, ProxyError, ProxyErrorKind};
pub(crate) use applying_rule::Noted;
use applying_rule::ReissueTerms;

/// The treatment of the answer to one request. The plan holds the parts that it needs, never the snapshot.
pub(crate) struct ReissuePlan {
    parts: Parts,
    /// Whether the request is a `HEAD`: its answer has no content, and the head of one that has (RFC 9110 §9.3.2).
    is_head: bool,
}

/// Whether tokens in the answer to a request with these readings are shortened: a rule applies, and rules are in
/// force.
pub(crate) fn cuts(
    snapshot: &Snapshot,
    request: &Request<RequestBody>,
    readings: &Readings<'_>,
) -> bool {
    snapshot.config.reissue.mode == ReissueMode::Replace
        && terms(snapshot, request, readings).is_some()
}

/// The terms of the rules for a request, to be kept with it where finding its readings again would be expensive.
pub(crate) fn noted(
    snapshot: &Snapshot,
    request: &Request<RequestBody>,
    readings: &Readings<'_>,
) -> Option<Noted> {
    let looks = !readings.is_plain() && looks(snapshot);
    looks.then(|| Noted(terms(snapshot, request, readings)))
}

/// Whether any answer is searched.
fn looks(snapshot: &Snapshot) -> bool {
    let reissue = &snapshot.config.reissue;
    !reissue.rules.is_empty() && is_on(snapshot)
}

/// Whether tokens are looked for at all.
fn is_on(snapshot: &Snapshot) -> bool {
    let (reissue, decision) = (&snapshot.config.reissue, &snapshot.config.decision);
    reissue.mode != ReissueMode::Off && decision.mode != DecisionMode::Off
}

fn terms(
    snapshot: &Snapshot,
    request: &Request<RequestBody>,
    readings: &Readings<'_>,
) -> Option<ReissueTerms> {
    let config = &snapshot.config;
    ReissueTerms::of(
        &config.reissue.rules,
        config.token.lifetime,
        request.method(),
        readings,
        || {
            let method_override = &config.routes.method_override;
            method_override.applies(request.uri(), fields_of(request))
        },
    )
}

/// The plan for a request to which a rule applies: the request is changed so that its answer can be read.
/// `is_enforced` says whether renewd answers token requests of this subject.
pub(crate) fn plan(
    shared: &Shared,
    snapshot: &Snapshot,
    context: &RequestContext,
    request: &mut Request<RequestBody>,
    is_enforced: impl Fn(Option<&str>) -> bool,
) -> Option<Box<ReissuePlan>> {
    if !looks(snapshot) {
        return None;
    }
    let terms = Noted::of(request, |readings| terms(snapshot, request, readings))?;
    let route = snapshot.reissue_metrics.get(terms.position)?;
    fields_into_map(request);
    let caller = credentials(snapshot, request.headers())
        .and_then(|credentials| caller(shared, snapshot, credentials));
    let parts = parts(PartsSetting {
        shared,
        snapshot,
        request_id: context.id.clone(),
        client: context.client_ip,
        since: context.started,
        terms,
        route,
        caller,
        is_enforced: &is_enforced,
        target: request
            .uri()
            .path_and_query()
            .map_or("", |target| target.as_str()),
    });
    let observing = parts.ledger.observing;
    if !observing {
        let headers = std::mem::take(request.headers_mut());
        *request.headers_mut() = body_fields::request(headers);
    }
    Some(Box::new(ReissuePlan {
        parts,
        is_head: *request.method() == Method::HEAD,
    }))
}

/// The circumstances of one answer, or of one message.
struct PartsSetting<'a> {
    shared: &'a Shared,
    snapshot: &'a Snapshot,
    request_id: RequestId,
    client: Option<IpAddr>,
    /// When the answer or the message came, on the clock's monotonic scale.
    since: Duration,
    terms: ReissueTerms,
    route: &'a Arc<ReissueMetrics>,
    caller: Option<NamedCaller>,
    is_enforced: &'a dyn Fn(Option<&str>) -> bool,
    /// The request's target, which may name the channel.
    target: &'a str,
}

/// The parts for the rewriting of one answer, or of one message.
fn parts(setting: PartsSetting<'_>) -> Parts {
    let PartsSetting {
        shared,
        snapshot,
        request_id,
        client,
        since,
        terms,
        route,
        caller,
        is_enforced,
        target,
    } = setting;
    let config = &snapshot.config;
    let subject = caller.as_ref().map(|caller| caller.claims.subject.clone());
    let observing = config.reissue.mode == ReissueMode::Observe || !is_enforced(subject.as_deref());
    let login = caller
        .as_ref()
        .and_then(|caller| snapshot.logins.session(&caller.claims));
    let judge = judge_of(shared, snapshot, terms, caller, since, !observing);
    let claims = snapshot.store.as_ref().map(|store| SharedClaims {
        store: Arc::clone(store),
        control: shared.control.runtime.clone(),
        sessions: Arc::clone(&snapshot.sessions),
    });
    let ledger = TokenLedger {
        clock: shared.clock.clone(),
        entropy: shared.entropy,
        metrics: Arc::clone(&shared.metrics),
        route: Arc::clone(route),
        sessions: Arc::clone(&snapshot.sessions),
        rules: snapshot.session_rules(),
        claims,
        audit: Arc::clone(&snapshot.audit),
        request_id,
        client,
        subject,
        login,
        handing: Mutex::default(),
        observing,
        tally: Mutex::default(),
    };
    let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    Parts {
        project: Arc::clone(&snapshot.project),
        lifetime: seconds(terms.lifetime),
        nulls: terms.withheld == Withheld::Null,
        jitter: seconds(config.token.jitter.min(terms.lifetime / 2)),
        judge: Arc::new(judge),
        ledger: Arc::new(ledger),
        target: target.into(),
    }
}

/// The judge of tokens for this caller, in an answer or a message that came at `since`.
fn judge_of(
    shared: &Shared,
    snapshot: &Snapshot,
    terms: ReissueTerms,
    caller: Option<NamedCaller>,
    since: Duration,
    remembers: bool,
) -> Judge {
    let config = &snapshot.config;
    Judge {
        accounts: Arc::clone(&snapshot.accounts),
        streams: Arc::clone(&snapshot.streams),
        logins: Arc::clone(&snapshot.logins),
        remembers,
        clock: shared.clock.clone(),
        caller,
        terms,
        channel_pattern: config.streams.channel_pattern.clone(),
        sessions: Arc::clone(&snapshot.sessions),
        revocations: Arc::clone(&snapshot.revocations),
        denies_all: snapshot.denies_for_stale_revocations(since),
        patience: config.decision.timeout,
        since,
    }
}

/// The login that a request carries. A cookie counts whichever page caused the request: the caller's name can only take
/// tokens away, and the browser decides whether that page sees the answer.
fn credentials<'h>(snapshot: &Snapshot, headers: &'h HeaderMap) -> Option<&'h str> {
    let credentials = match snapshot.config.cookie.as_deref() {
        Some(name) if !headers.contains_key(AUTHORIZATION) => jwt::cookie(headers, name),
        _ => jwt::authorization(headers),
    };
    credentials.ok()
}

/// The caller, if a key at hand verifies this login.
fn caller(shared: &Shared, snapshot: &Snapshot, credentials: &str) -> Option<NamedCaller> {
    let claims = snapshot.verifier.verify(credentials, &shared.clock).ok()?;
    Some(NamedCaller {
        claims,
        credentials: credentials.into(),
    })
}

impl ReissuePlan {
    /// The answer to hand on. Its length isn't known, so it is framed anew.
    pub(crate) fn response(
        self,
        response: Response<ResponseBody>,
    ) -> Result<Response<ResponseBody>, ProxyError> {
        let (mut head, body) = response.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Response::from_parts(head, body));
        }
        let ReissuePlan { mut parts, is_head } = self;
        parts.nulls &= body_fields::is_json(&head.headers);
        let observing = parts.ledger.observing;
        let has_content = !body.is_end_stream() || (is_head && body_fields::tell_of_content(&head));
        if has_content && let Some(why) = body_fields::unreadable(head.status, &head.headers) {
            parts.ledger.route.token(ReissueOutcome::Error);
            if observing {
                return Ok(Response::from_parts(head, body));
            }
            return Err(ProxyError {
                kind: ProxyErrorKind::BadResponse,
                retry: AnotherAttempt::Never,
                source: Some(why.into()),
            });
        }
        if !observing {
            head.headers = body_fields::response(head.headers);
        }
        let body = body.rewritten(Box::new(Rewriter::new(parts)));
        Ok(Response::from_parts(head, body))
    }
}
