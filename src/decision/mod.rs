//! The token endpoints: read the request, decide, mint, record, answer. While renewd only observes, it counts what it
//! would have answered and hands the request to the backend.
//!
//! Keeps true: every token request ends in exactly one outcome, which is counted and audited; no token leaves
//! unrecorded.
//! Must not know: connections, backends.

mod authorize_question;
mod claims;
mod credentials;
pub mod explain;
mod lifetime;
mod messaging;
mod mint;
mod order;
mod request;
mod request_content;
mod request_fields;
mod revocation_request;
mod wire_format;

use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request, Response};

pub(crate) use order::{draining_publishers, is_enforced, may_drain};
pub use revocation_request::RevocationRequest;

use crate::exchange::response_body::{RequestBody, ResponseBody};
use crate::logins::jwt::JwtClaims;
use crate::sessions::{Basis, Ground, SeatRequest};
use crate::snapshot::{Shared, Snapshot};
use crate::telemetry::audit;
use crate::telemetry::labels::Endpoint;
use crate::terms::clock::{is_plausible, timer_now};
use crate::terms::context::RequestContext;
use crate::terms::outcome::{LookupOutcome, Outcome};
use crate::terms::role::Role;
use crate::terms::user::User;
use lifetime::Lifetimes;
use mint::GrantTerms;
use order::{Decision, DecisionRefusal, Now, RetryAfter, TokenQuestion};
use request_content::Collected;

/// The result of a token request.
#[derive(Debug)]
pub enum TokenReply {
    /// renewd answers.
    Ours(Response<ResponseBody>),
    /// The backend answers: nothing was decided, or the decision is not enforced. Its status is counted beside the
    /// outcome.
    Forward {
        /// The request as it came.
        request: Request<RequestBody>,
        /// The outcome that renewd would have answered with; `None` where nothing was decided.
        outcome: Option<Outcome>,
    },
    /// The client went away before its body was read.
    ClientGone,
}

/// Serves a POST on an owned path.
pub async fn answer(
    shared: &Shared,
    snapshot: &Snapshot,
    context: &RequestContext,
    path: Endpoint,
    request: Request<RequestBody>,
) -> TokenReply {
    let (head, mut body) = request.into_parts();
    let collected = request_content::collect(&mut body).await;
    if let Collected::Broken(error) = &collected {
        tracing::debug!(request_id = context.id.as_str(), %error, "the client went away before its body was read");
        return TokenReply::ClientGone;
    }
    let now = Now {
        unix_millis: shared.clock.unix_millis(),
        elapsed: shared.clock.elapsed(),
        due: timer_now() + snapshot.config.decision.timeout,
    };
    let asked = TokenQuestion {
        path,
        headers: &head.headers,
        body: collected.whole(),
        client_ip: context.client_ip,
    };
    let decision = order::decide(snapshot, &shared.clock, &asked, now).await;
    let Some(mut decision) = decision else {
        return TokenReply::Forward {
            request: Request::from_parts(head, collected.put_back(body)),
            outcome: None,
        };
    };
    let (mut response, issued) = match conclude(shared, snapshot, &decision, now).await {
        Ok((response, lifetimes)) => (response, Some(lifetimes)),
        Err(refusal) => {
            let response = wire_format::refusal(&refusal);
            decision.verdict = Err(refusal);
            decision.enforced &= !decision.drains;
            (response, None)
        }
    };
    if asked.body.is_none() {
        // renewd doesn't read the rest of the body, so the client must not reuse the connection (RFC 9110 section
        // 10.1.1).
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    remember(snapshot, &decision, now);
    report(shared, snapshot, context, &decision, issued, now);
    if decision.enforced {
        return TokenReply::Ours(response);
    }
    TokenReply::Forward {
        request: Request::from_parts(head, collected.put_back(body)),
        outcome: Some(decision.outcome()),
    }
}

/// Mints, claims and records what was granted.
async fn conclude(
    shared: &Shared,
    snapshot: &Snapshot,
    decision: &Decision,
    now: Now,
) -> Result<(Response<ResponseBody>, Lifetimes), DecisionRefusal> {
    let grant = decision.verdict.as_ref().map_err(DecisionRefusal::clone)?;
    let (Some(claims), Some(request)) = (&decision.claims, &decision.request) else {
        return Err(DecisionRefusal::unavailable("The decision is incomplete"));
    };
    let config = &snapshot.config.token;
    let no_randomness = |_| DecisionRefusal::unavailable("No randomness for a token right now");
    let chance = if config.jitter.is_zero() {
        0
    } else {
        shared.entropy.u64().map_err(no_randomness)?
    };
    let lifetimes = lifetime::lifetimes(config, grant.bounds, chance);
    let issued_at = now.unix_seconds();
    if !is_plausible(issued_at) {
        return Err(DecisionRefusal::unavailable(
            "No token can be dated right now",
        ));
    }
    let mint = GrantTerms {
        config,
        signer: &snapshot.signer,
        request,
        grant,
        issued_at,
    };
    let token = |lifetime| {
        let salt = shared.entropy.salt().map_err(no_randomness)?;
        mint.token(lifetime, salt)
            .map_err(|_| DecisionRefusal::unavailable("No token can be made for this request"))
    };
    let backup = lifetimes.backup.map(token).transpose()?;
    let app_id = &snapshot.config.agora.app_id;
    let (token, backup) = (token(lifetimes.token)?, backup.as_deref());
    let response = wire_format::success(&mint, app_id, lifetimes, &token, backup);
    // The sources may have taken seconds, and so may the store.
    let still_allowed = || order::refuse_revoked(snapshot, &claims.subject, request, now);
    still_allowed()?;
    if decision.enforced {
        record(snapshot, decision, &mint, claims, lifetimes.last(), now).await?;
        // A revocation lists the tokens that are recorded by then: this one is on the list, or isn't given.
        still_allowed()?;
    }
    Ok((response, lifetimes))
}

/// Claims and records a grant whose last token lives for `lasts` seconds: a holder of a backup token holds a token
/// until the backup expires.
async fn record(
    snapshot: &Snapshot,
    decision: &Decision,
    mint: &GrantTerms<'_>,
    claims: &JwtClaims,
    lasts: u32,
    now: Now,
) -> Result<(), DecisionRefusal> {
    let GrantTerms { request, grant, .. } = mint;
    let claim = SeatRequest {
        channel: &request.channel,
        subject: &claims.subject,
        user: &request.user,
        role: grant.role,
    };
    let expires = mint.issued_at + u64::from(lasts);
    let lasts = Duration::from_secs(lasts.into());
    let rules = claims::claim(snapshot, decision, grant, claim, lasts, now).await?;
    let login = snapshot.logins.session(claims);
    let basis = if grant.rests {
        Basis::Rested { login }
    } else {
        Basis::Decided { login }
    };
    let granted = snapshot
        .sessions
        .grant(claim, basis, rules, mint.issued_at, expires);
    granted.map_err(DecisionRefusal::of_session)
}

/// Remembers what the sources said. A refusal stands until its source says otherwise, and no renewal rests on that
/// source meanwhile. The holder's session is told of the refusal, so that a later lapse counts as refused.
fn remember(snapshot: &Snapshot, decision: &Decision, now: Now) {
    let heard = decision.enforced || decision.drains;
    let (true, Some(claims)) = (heard, &decision.claims) else {
        return;
    };
    let outcome = decision.outcome();
    let (logins, unix_now) = (&snapshot.logins, now.unix_seconds());
    if let Some(LookupOutcome::Hit | LookupOutcome::Miss) = decision.findings.accounts {
        if decision.findings.refused_by == Some(Ground::Account) {
            logins.refuse(claims, snapshot.accounts.denies(outcome), unix_now);
        } else {
            logins.accept(claims, unix_now);
        }
    }
    let (Some(request), Err(_)) = (&decision.request, &decision.verdict) else {
        return;
    };
    let (channel, subject) = (&*request.channel, &*claims.subject);
    snapshot.sessions.refused(SeatRequest {
        channel,
        subject,
        user: &request.user,
        role: decision.findings.role.unwrap_or(Role::Subscriber),
    });
    let role = match outcome {
        Outcome::NotOwner | Outcome::PolicyDenied => decision.findings.role,
        _ => None,
    };
    match decision.findings.refused_by {
        Some(ground @ (Ground::Stream | Ground::Hook)) => {
            snapshot
                .sessions
                .denied(channel, subject, ground, role, unix_now);
        }
        // Refusals by accounts are remembered in `logins`, by subject or login: they hold for all channels.
        Some(Ground::Account) | None => {}
    }
}

/// Counts and audits, once for each request.
fn report(
    shared: &Shared,
    snapshot: &Snapshot,
    context: &RequestContext,
    decision: &Decision,
    issued: Option<Lifetimes>,
    now: Now,
) {
    let issued = issued.filter(|_| decision.enforced);
    let expiry = |lifetime: u32| now.unix_seconds() + u64::from(lifetime);
    let outcome = decision.outcome();
    let elapsed = shared.clock.elapsed().saturating_sub(context.started);
    let user = decision.request.as_ref().map(|request| &request.user);
    let asking = shared.clock.elapsed().saturating_sub(now.elapsed);
    if let Some(outcome) = decision.findings.streams {
        snapshot.streams.metrics().lookup(outcome, asking);
    }
    if let (Some(outcome), Some(metrics)) =
        (decision.findings.accounts, snapshot.accounts.metrics())
    {
        metrics.lookup(outcome, asking);
    }
    let unauthenticated = decision.unauthenticated();
    if let Some(reason) = unauthenticated {
        shared.metrics.unauthenticated(reason);
    }
    if decision.enforced {
        shared.metrics.token_request(
            decision.findings.endpoint,
            decision.findings.role,
            outcome,
            elapsed,
        );
        match &decision.verdict {
            Ok(grant) => shared.metrics.token_issued(
                decision.findings.endpoint,
                grant.role,
                snapshot.config.token.format,
                user == Some(&User::Uid(0)),
            ),
            Err(DecisionRefusal {
                retry: Some(RetryAfter::Limited(limited)),
                ..
            }) => {
                shared.metrics.rate_limited(limited.scope);
            }
            Err(_) => {}
        }
    }
    snapshot.audit.decision(&audit::DecisionEvent {
        request_id: &context.id,
        client: context.client_ip,
        endpoint: decision.findings.endpoint,
        outcome,
        reason: unauthenticated,
        enforced: decision.enforced,
        subject: decision.claims.as_ref().map(|claims| &*claims.subject),
        channel: decision
            .request
            .as_ref()
            .map(|request| request.channel.as_str()),
        user: user.map(User::borrowed),
        role: decision.findings.role,
        expires: issued.map(|issued| expiry(issued.token)),
        backup_expires: issued.and_then(|issued| issued.backup).map(expiry),
    });
}
