//! The ordered decision: may this caller have a token for this channel? Its rows are those of the contract's table.
//!
//! Keeps true: rows are asked in the table's order and the first refusal wins; a source without an answer is never a
//! yes and never a 403; while renewd only observes, nothing is charged.
//! Must not know: sockets, how a response is written, how a token is made.

pub(super) mod answers;
mod enforcement;
pub(super) mod holder;
pub(super) mod limits;
mod refusal;
mod revocation_row;

use std::cell::Cell;
use std::net::IpAddr;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::{Instant, timeout_at};

pub(crate) use enforcement::{draining_publishers, is_enforced, may_drain};
pub(crate) use refusal::{DecisionRefusal, RetryAfter};
pub(in crate::decision) use revocation_row::refuse_revoked;

use super::authorize_question;
use super::credentials::{authenticate, credentials};
use super::lifetime::{self, Bounds};
use super::messaging;
use super::request::{self, BadBody, TokenRequest};
use crate::config::model::{self, DecisionMode, DefaultRole, ZeroUid};
use crate::limit::Charge;
use crate::logins::jwt::JwtClaims;
use crate::sessions::{Ground, Rules, SeatRequest};
use crate::snapshot::Snapshot;
use crate::telemetry::labels::Endpoint;
use crate::terms::clock::{Clock, timer_now};
use crate::terms::outcome::{LookupOutcome, Outcome, UnauthenticatedReason};
use crate::terms::role::Role;
use crate::terms::user::User;
pub(super) use enforcement::is_to_drain;
use holder::Holder;

/// One token request, as far as it was read.
#[derive(Debug)]
pub(crate) struct TokenQuestion<'a> {
    /// The list of `routes` that its path is in.
    pub path: Endpoint,
    /// The request's header fields.
    pub headers: &'a HeaderMap,
    /// The request's body; `None` where it is larger than a token request may be.
    pub body: Option<&'a [u8]>,
    /// The client's address, for the address limit.
    pub client_ip: Option<IpAddr>,
}

/// The time of a decision, read once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Milliseconds since the Unix epoch.
    pub unix_millis: u64,
    /// On the clock's monotonic scale.
    pub elapsed: Duration,
    /// When the decision must be made, by the runtime's timers.
    pub due: Instant,
}

impl Now {
    /// Whole seconds since the Unix epoch.
    pub(crate) fn unix_seconds(self) -> u64 {
        self.unix_millis / 1000
    }

    /// How long one source may keep the decision waiting from here on.
    pub(crate) fn patience(self) -> Duration {
        model::DecisionConfig::source_budget(self.due.saturating_duration_since(timer_now()))
    }
}

/// The decision, and everything that audit and metrics report of it.
#[derive(Debug)]
pub(crate) struct Decision {
    /// Whether renewd answers; otherwise the decision is only counted.
    pub enforced: bool,
    /// Whether this is a renewal that renewd answers only if the answer is a yes: see [`draining_publishers`].
    pub drains: bool,
    /// The verified login's claims.
    pub claims: Option<JwtClaims>,
    /// The request, where its body could be read.
    pub request: Option<TokenRequest>,
    /// The findings of the rows on the way.
    pub findings: RowFindings,
    /// The grant, or the refusal of the first row that refused.
    pub verdict: Result<Grant, DecisionRefusal>,
}

impl Decision {
    /// The outcome that metrics and audit report.
    pub(crate) fn outcome(&self) -> Outcome {
        self.verdict
            .as_ref()
            .map_or_else(|refusal| refusal.outcome, |_| Outcome::Ok)
    }

    /// Why the login was refused, where it was.
    pub(crate) fn unauthenticated(&self) -> Option<UnauthenticatedReason> {
        self.verdict.as_ref().err()?.unauthenticated
    }
}

/// A yes: what to mint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The role that the token gives its holder.
    pub role: Role,
    /// How long it may live.
    pub bounds: Bounds,
    /// The session rules that it passed; it must pass them again when it is recorded.
    pub rules: Rules,
    /// The other channels of the publisher whose streams were found to be over.
    pub over: Vec<Box<str>>,
    /// Whether the grant rests on an earlier one for a source that gives no answer.
    pub rests: bool,
    /// The holder's id in RTM and chat; `None` where the token is for RTC alone.
    pub messaging_id: Option<Box<str>>,
}

/// The caller.
#[derive(Clone, Copy)]
struct TokenCaller<'a> {
    claims: &'a JwtClaims,
    /// The JWT as it was sent.
    credentials: &'a str,
}

/// The findings of the rows, whether one of them refused or not.
#[derive(Debug)]
pub(crate) struct RowFindings {
    /// First token or renewal.
    pub endpoint: Endpoint,
    /// The role decided on, or the one asked for.
    pub role: Option<Role>,
    /// How the accounts source answered, if it was asked.
    pub accounts: Option<LookupOutcome>,
    /// How the streams source answered, if it was asked.
    pub streams: Option<LookupOutcome>,
    /// The source that said no, where one did.
    pub refused_by: Option<Ground>,
}

impl RowFindings {
    /// Nothing is found out yet.
    fn of(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            role: None,
            accounts: None,
            streams: None,
            refused_by: None,
        }
    }
}

/// Decides. Nothing is recorded but rate-limit charges; the caller of this function mints and records the grant.
/// `None` where `decision.mode` is off, except for renewals to drain.
pub(crate) async fn decide(
    snapshot: &Snapshot,
    clock: &Clock,
    asked: &TokenQuestion<'_>,
    now: Now,
) -> Option<Decision> {
    let is_off = snapshot.config.decision.mode == DecisionMode::Off;
    let mut drains = false;
    let mut findings = RowFindings::of(asked.path);
    let (claims, request, enforced, verdict) =
        match authenticate(snapshot, clock, asked.headers, now).await {
            Err(_) if is_off => return None,
            Err(refusal) => {
                let enforced = is_enforced(snapshot, None);
                (
                    None,
                    None,
                    enforced,
                    Err(charged(snapshot, asked, enforced, refusal)),
                )
            }
            Ok(claims) => {
                let enforced = is_enforced(snapshot, Some(&claims.subject));
                match read_body(snapshot, asked) {
                    Err(_) if is_off => return None,
                    Err(refusal) => {
                        let refusal = charged(snapshot, asked, enforced, refusal);
                        (Some(claims), None, enforced, Err(refusal))
                    }
                    Ok(request) => {
                        drains = !enforced && is_to_drain(snapshot, &claims.subject, &request, now);
                        if is_off && !drains {
                            return None;
                        }
                        let ours = enforced || drains;
                        findings.role = request.role;
                        let caller = TokenCaller {
                            claims: &claims,
                            credentials: credentials(&snapshot.config, asked.headers)
                                .unwrap_or_default(),
                        };
                        let verdict =
                            judge_in_time(snapshot, caller, &request, ours, now, &mut findings)
                                .await;
                        // The backend answers a drained publisher who gets no yes here.
                        let is_yes = verdict
                            .as_ref()
                            .is_ok_and(|grant| grant.role == Role::Publisher);
                        let enforced = enforced || drains && is_yes;
                        (Some(claims), Some(request), enforced, verdict)
                    }
                }
            }
        };
    Some(Decision {
        enforced,
        drains,
        claims,
        request,
        findings,
        verdict,
    })
}

/// Row 3.
fn read_body(
    snapshot: &Snapshot,
    asked: &TokenQuestion<'_>,
) -> Result<TokenRequest, DecisionRefusal> {
    let body = asked.body.ok_or_else(|| {
        DecisionRefusal::new(Outcome::BodyTooLarge, "The body is larger than 16 KiB")
    })?;
    let request = request::read(asked.headers, body).map_err(|bad| match bad {
        BadBody::Invalid(message) => DecisionRefusal::new(Outcome::InvalidRequest, message),
        BadBody::MediaType(message) => DecisionRefusal::new(Outcome::UnsupportedMediaType, message),
    })?;
    if request.user == User::Uid(0) && snapshot.config.token.zero_uid == ZeroUid::Reject {
        return Err(DecisionRefusal::new(
            Outcome::InvalidRequest,
            "uid: required and not 0; a token for uid 0 could be used by anyone",
        ));
    }
    Ok(request)
}

/// Row 1: what rows 2 and 3 refuse is charged to the address, and an address in debt is told to wait instead. A login
/// that no known key verifies is charged too, or guesses would be free while the key set may not be read again.
/// Nothing is charged where renewd can verify no login at all.
fn charged(
    snapshot: &Snapshot,
    asked: &TokenQuestion<'_>,
    enforced: bool,
    refusal: DecisionRefusal,
) -> DecisionRefusal {
    match asked.client_ip {
        Some(address) if enforced && refusal.outcome != Outcome::Unavailable => {
            match snapshot.limiter.charge_address(address) {
                Ok(()) => refusal,
                Err(limited) => DecisionRefusal::limited(limited),
            }
        }
        _ => refusal,
    }
}

/// Judges until the decision is due. The subject and whether the decision is enforced are known by now: a slow
/// source hands no caller to the backend.
async fn judge_in_time(
    snapshot: &Snapshot,
    caller: TokenCaller<'_>,
    request: &TokenRequest,
    enforced: bool,
    now: Now,
    findings: &mut RowFindings,
) -> Result<Grant, DecisionRefusal> {
    let judging = judge(snapshot, caller, request, enforced, now, findings);
    let judged = timeout_at(now.due, judging).await;
    judged.unwrap_or_else(|_elapsed| {
        findings.streams = findings.streams.or(Some(LookupOutcome::Error));
        Err(DecisionRefusal::unavailable("The decision took too long"))
    })
}

/// Rows 4 to 11.
async fn judge(
    snapshot: &Snapshot,
    caller: TokenCaller<'_>,
    request: &TokenRequest,
    enforced: bool,
    now: Now,
    findings: &mut RowFindings,
) -> Result<Grant, DecisionRefusal> {
    let claims = caller.claims;
    let (subject, channel) = (&*claims.subject, request.channel.as_str());
    let path = findings.endpoint;

    // Row 4. A holder's renewal never waits for what other callers ask of the channel.
    let asked_role = asked_role(snapshot, request);
    let holder = Holder {
        snapshot,
        claims,
        channel,
        now,
        vouched: Cell::new(false),
        rested: Cell::new(false),
    };
    let held = holder.held(asked_role);
    if held.is_some() {
        findings.endpoint = Endpoint::Refresh;
    }
    let charge = if enforced { Charge::Take } else { Charge::Peek };
    let limits = limits::ask(snapshot, subject, channel, held.is_some(), charge);
    limits.await.answer.verdict()?;

    revocation_row::others_known(snapshot).await?;
    refuse_revoked(snapshot, subject, request, now)?;
    let role = ask_sources(&holder, caller, request, findings).await?;
    // Where no role was asked for, the role held may differ from the one that the stream gives now.
    if held.is_some_and(|held| held != role) && holder.held(Some(role)).is_none() {
        findings.endpoint = path;
    }
    grant(&holder, request, role, findings).await
}

/// Rows 6 to 9: the role that both sources allow. They are asked at once, so that together they take no longer than
/// one.
async fn ask_sources(
    holder: &Holder<'_>,
    caller: TokenCaller<'_>,
    request: &TokenRequest,
    findings: &mut RowFindings,
) -> Result<Role, DecisionRefusal> {
    let Holder { snapshot, now, .. } = *holder;
    let subject = &*caller.claims.subject;
    let asked_role = asked_role(snapshot, request);
    let resting = || holder.rests(Ground::Account, asked_role);
    let (account, stream) = tokio::join!(
        answers::account(snapshot, caller, resting, now),
        answers::look_stream(snapshot, subject, request, now)
    );
    findings.streams = Some(stream.outcome);
    if let Some((outcome, verdict)) = account {
        findings.accounts = Some(outcome);
        let answered = is_answer(outcome);
        findings.refused_by = (answered && verdict.is_err()).then_some(Ground::Account);
        verdict?;
        holder.vouched.set(answered);
    }
    let as_asked = || holder.rests(Ground::Stream, asked_role);
    answers::role_in_stream(snapshot, subject, request, as_asked, now, stream, findings)
        .inspect_err(|_| {
            let answered = findings.streams.is_some_and(is_answer);
            findings.refused_by = answered.then_some(Ground::Stream);
        })
}

/// Rows 10 and 11: the grant of a role that both sources allow.
async fn grant(
    holder: &Holder<'_>,
    request: &TokenRequest,
    role: Role,
    findings: &mut RowFindings,
) -> Result<Grant, DecisionRefusal> {
    let Holder {
        snapshot,
        claims,
        channel,
        now,
        ..
    } = *holder;
    let subject = &*claims.subject;
    let claim = SeatRequest {
        channel,
        subject,
        user: &request.user,
        role,
    };
    let over = answers::forget_ended_streams(snapshot, claim, findings.streams, now).await;
    let plan = lifetime::plan(&snapshot.config, claims);
    let rules = Rules {
        max_session: plan.max_session,
        ..snapshot.session_rules()
    };
    let allowed = snapshot
        .sessions
        .check(claim, rules, now.unix_seconds())
        .map_err(DecisionRefusal::of_session)?;
    if snapshot.config.jwt.require_exp && claims.expires_at.is_none() {
        let message = "This login never expires, which is not accepted here; sign in again";
        return Err(DecisionRefusal::new(Outcome::PolicyDenied, message));
    }
    let messaging_id = messaging::id(&snapshot.config.token, claims).map_err(|_none| {
        let message = "This login has no user id for messaging, which tokens here open too";
        DecisionRefusal::new(Outcome::PolicyDenied, message)
    })?;
    let shortened = authorize_question::ask(holder, request, role, now)
        .await
        .inspect_err(|refusal| {
            let said = refusal.outcome == Outcome::PolicyDenied;
            findings.refused_by = said.then_some(Ground::Hook);
        })?;
    let longest = shortened.unwrap_or(Duration::MAX);
    Ok(Grant {
        role,
        bounds: Bounds {
            lifetime: plan.lifetime.min(longest),
            at_most: [allowed.at_most, shortened].into_iter().flatten().min(),
        },
        rules,
        over,
        rests: holder.rested.get(),
        messaging_id,
    })
}

/// Whether a source answered, rather than its last answer standing in.
pub(super) fn is_answer(outcome: LookupOutcome) -> bool {
    matches!(outcome, LookupOutcome::Hit | LookupOutcome::Miss)
}

/// The role that the request or the configuration names; `None` where the stream decides it.
pub(super) fn asked_role(snapshot: &Snapshot, request: &TokenRequest) -> Option<Role> {
    request.role.or(match snapshot.config.token.default_role {
        DefaultRole::Publisher => Some(Role::Publisher),
        DefaultRole::Subscriber => Some(Role::Subscriber),
        DefaultRole::Auto => None,
    })
}
