//! The token endpoints: read the request, decide, mint, record, answer; or, while observing, count and hand it on.
//!
//! Keeps true: every token request ends in exactly one outcome, counted and audited; no token leaves unrecorded.
//! Must not know: connections, upstreams.

mod body;
mod decision;
mod fields;
mod mint;
mod request;
mod wire;

use http::header::CONNECTION;
use http::{HeaderValue, Request, Response};

use self::body::Collected;
use self::decision::{Asked, Decision, Now, Refusal, Retry};
use self::wire::Minted;
use crate::access::sessions::{Claim, User};
use crate::context::RequestContext;
use crate::http::body::{Body, RequestBody};
use crate::snapshot::{Shared, Snapshot};
use crate::telemetry::audit;
use crate::telemetry::labels::{Endpoint, Outcome};
use crate::telemetry::traffic_labels::Source;

/// What became of a token request.
#[derive(Debug)]
pub enum Answer {
    /// Ours.
    Ours(Response<Body>),
    /// Decided but not enforced: the backend answers, and its status is counted beside our outcome.
    Backends {
        /// The request as it came.
        request: Request<RequestBody>,
        /// What we would have said.
        outcome: Outcome,
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
) -> Answer {
    let (head, mut body) = request.into_parts();
    let collected = body::collect(&mut body).await;
    if let Collected::Broken(error) = &collected {
        tracing::debug!(request_id = context.id.as_str(), %error, "the client went away before its body was read");
        return Answer::ClientGone;
    }
    let now = Now {
        unix_millis: shared.clock.unix_millis(),
        elapsed: shared.clock.elapsed(),
    };
    let asked = Asked {
        path,
        headers: &head.headers,
        body: collected.whole(),
        client_ip: context.client_ip,
    };
    let mut decision = decision::decide(snapshot, &shared.clock, &asked, now).await;
    let mut response = match conclude(shared, snapshot, &mut decision, now) {
        Ok(response) => response,
        Err(refusal) => {
            let response = wire::refusal(&refusal);
            decision.verdict = Err(refusal);
            response
        }
    };
    if asked.body.is_none() {
        // Nobody will read the rest: the client is told not to reuse the connection (RFC 9110 section 10.1.1).
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    report(shared, snapshot, context, &decision, now);
    if decision.enforced {
        return Answer::Ours(response);
    }
    Answer::Backends {
        request: Request::from_parts(head, body.replay(collected.taken())),
        outcome: decision.outcome(),
    }
}

/// Mints and records what was granted.
fn conclude(
    shared: &Shared,
    snapshot: &Snapshot,
    decision: &mut Decision,
    now: Now,
) -> Result<Response<Body>, Refusal> {
    let grant = decision.verdict.clone()?;
    let (Some(claims), Some(request)) = (&decision.claims, &decision.request) else {
        return Err(Refusal::unavailable("The decision is incomplete"));
    };
    let issued_at = now.unix_seconds();
    let Ok(salt) = shared.entropy.salt() else {
        return Err(Refusal::unavailable("No randomness for a token right now"));
    };
    let format = snapshot.config.token.format;
    let token = mint::token(format, &snapshot.signer, request, grant, issued_at, salt)
        .map_err(|_| Refusal::unavailable("No token can be made for this request"))?;
    let response = wire::success(&Minted {
        token: &token,
        channel: &request.channel,
        user: &request.user,
        role: grant.role,
        app_id: &snapshot.config.agora.app_id,
        issued_at,
        lifetime: grant.lifetime,
        refresh_before: snapshot.config.token.refresh_before,
    });
    if decision.enforced {
        let claim = Claim {
            channel: &request.channel,
            subject: &claims.subject,
            user: &request.user,
            role: grant.role,
        };
        let expires = issued_at + u64::from(grant.lifetime);
        snapshot
            .sessions
            .grant(claim, snapshot.session_rules(), issued_at, expires)
            .map_err(Refusal::of_session)?;
    }
    Ok(response)
}

/// Counts and audits, once for each request.
fn report(
    shared: &Shared,
    snapshot: &Snapshot,
    context: &RequestContext,
    decision: &Decision,
    now: Now,
) {
    let outcome = decision.outcome();
    let elapsed = shared.clock.elapsed().saturating_sub(context.started);
    let user = decision.request.as_ref().map(|request| &request.user);
    if let Some(source) = decision.streams {
        let elapsed = shared.clock.elapsed().saturating_sub(now.elapsed);
        shared
            .metrics
            .source_lookup(Source::Streams, source, elapsed);
    }
    if decision.enforced {
        shared
            .metrics
            .token_request(decision.endpoint, decision.role, outcome, elapsed);
        match &decision.verdict {
            Ok(grant) => shared.metrics.token_issued(
                decision.endpoint,
                grant.role,
                snapshot.config.token.format,
                user == Some(&User::Uid(0)),
            ),
            Err(Refusal {
                retry: Some(Retry::Limited(limited)),
                ..
            }) => {
                shared.metrics.rate_limited(limited.scope);
            }
            Err(_) => {}
        }
    }
    snapshot.audit.decision(&audit::Decision {
        request_id: &context.id,
        client: context.client_ip,
        endpoint: decision.endpoint,
        outcome,
        enforced: decision.enforced,
        subject: decision.claims.as_ref().map(|claims| &*claims.subject),
        channel: decision
            .request
            .as_ref()
            .map(|request| request.channel.as_str()),
        user: user.map(|user| match user {
            User::Uid(uid) => audit::User::Uid(*uid),
            User::Account(account) => audit::User::Account(account),
        }),
        role: decision.role,
        expires: match &decision.verdict {
            Ok(grant) if decision.enforced => Some(now.unix_seconds() + u64::from(grant.lifetime)),
            _ => None,
        },
    });
}
