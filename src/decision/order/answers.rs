//! Rows 6 to 9: what the sources say of the account and of the stream, and what follows where they give no answer.
//!
//! Keeps true: no caller is refused on an answer from before the request; while a source gives no answer, callers
//! without a token get 503, and holders only once `stale_if_error` is over or a source has refused them since their
//! last grant.
//! Must not know: which kinds of source there are.

use std::sync::Arc;
use std::time::Duration;

use super::{DecisionRefusal, Now, RowFindings, TokenCaller, asked_role, is_answer};
use crate::decision::request::TokenRequest;
use crate::sessions::SeatRequest;
use crate::snapshot::Snapshot;
use crate::sources::accounts::Account;
use crate::sources::lookup::{LookupAnswer, NoAnswer};
use crate::sources::streams::{StreamLookup, StreamState};
use crate::terms::outcome::{LookupOutcome, Outcome};
use crate::terms::role::Role;

/// Row 6: whether the account may go on; `None` where accounts aren't looked up. `standing` returns the role held, if
/// a renewal may rest on what accounts said at the last grant; it is called where they give no answer.
pub(super) async fn account(
    snapshot: &Snapshot,
    caller: TokenCaller<'_>,
    standing: impl Fn() -> Option<Role>,
    now: Now,
) -> Option<(LookupOutcome, Result<(), DecisionRefusal>)> {
    Some(match look_account(snapshot, caller, now).await? {
        Ok(answer) => {
            let session = caller.claims.session.as_deref();
            let verdict = snapshot.accounts.verdict(&answer.value, session);
            (answer.outcome, verdict.map_err(DecisionRefusal::of_account))
        }
        Err(no_answer) => {
            let stale = snapshot.config.accounts.stale_if_error;
            if rides_through(no_answer, stale, now) && standing().is_some() {
                (LookupOutcome::Stale, Ok(()))
            } else {
                let message = "Accounts can't be looked up right now";
                (
                    LookupOutcome::Error,
                    Err(DecisionRefusal::unavailable(message)),
                )
            }
        }
    })
}

/// Looks the account up. An answer from before the request that would refuse is asked for again; so is one that would
/// accept a login whose refusal is remembered, since the source may have refused it after that answer.
async fn look_account(
    snapshot: &Snapshot,
    caller: TokenCaller<'_>,
    now: Now,
) -> Option<Result<LookupAnswer<Account>, NoAnswer>> {
    let accounts = &snapshot.accounts;
    let (subject, credentials) = (&caller.claims.subject, caller.credentials);
    let session = caller.claims.session.as_deref();
    let looked = accounts
        .look(subject, credentials, None, now.patience())
        .await?;
    let looked = match looked {
        Ok(answer)
            if answer.asked_at < now.elapsed
                && (accounts.verdict(&answer.value, session).is_err()
                    || snapshot.logins.refuses(caller.claims, now.unix_seconds())) =>
        {
            let since = Some(now.elapsed);
            accounts
                .look(subject, credentials, since, now.patience())
                .await?
        }
        looked => looked,
    };
    Some(looked.and_then(|answer| {
        accounts.believed(&answer.value, session, now.elapsed)?;
        Ok(answer)
    }))
}

/// Whether a holder's last grant stands in for a source that gives no answer.
pub(in crate::decision) fn rides_through(
    no_answer: NoAnswer,
    stale_if_error: Duration,
    now: Now,
) -> bool {
    now.elapsed.saturating_sub(no_answer.since) < stale_if_error
}

/// Looks the stream up. An answer from before the request that would refuse is asked for again: a viewer may arrive a
/// moment after the stream began, a ban may be lifted, a co-host added.
pub(in crate::decision) async fn look_stream(
    snapshot: &Snapshot,
    subject: &str,
    request: &TokenRequest,
    now: Now,
) -> StreamLookup {
    let streams = &snapshot.streams;
    let looked = streams.look(&request.channel, None, now.patience()).await;
    let looked = believed(snapshot, subject, request, looked);
    let passes = match &looked.lookup {
        Ok(Some(stream)) => stream_role(snapshot, subject, request, stream).1.is_ok(),
        Ok(None) => false,
        Err(_) => true,
    };
    if passes || !looked.may_predate(now.elapsed) {
        return looked;
    }
    let looked = streams
        .look(&request.channel, Some(now.elapsed), now.patience())
        .await;
    believed(snapshot, subject, request, looked)
}

/// Turns a refusal for want of ownership into no answer where the source may look for owners in the wrong place.
fn believed(
    snapshot: &Snapshot,
    subject: &str,
    request: &TokenRequest,
    looked: StreamLookup,
) -> StreamLookup {
    let Ok(Some(stream)) = &looked.lookup else {
        return looked;
    };
    let (_, verdict) = stream_role(snapshot, subject, request, stream);
    match (
        verdict.map_err(|refusal| refusal.outcome),
        stream.doubts(subject),
    ) {
        (Err(Outcome::NotOwner), Some(since)) => StreamLookup {
            lookup: Err(NoAnswer { since }),
            outcome: LookupOutcome::Error,
            asked_at: None,
        },
        _ => looked,
    }
}

/// Rows 7 to 9: the role that the stream allows.
pub(super) fn role_in_stream(
    snapshot: &Snapshot,
    subject: &str,
    request: &TokenRequest,
    standing: impl Fn() -> Option<Role>,
    now: Now,
    looked: StreamLookup,
    findings: &mut RowFindings,
) -> Result<Role, DecisionRefusal> {
    let stream = match looked.lookup {
        Ok(Some(stream)) => stream,
        Ok(None) => return Err(stream_not_live()),
        Err(no_answer) => {
            let stale = snapshot.config.streams.stale_if_error;
            let rides = rides_through(no_answer, stale, now);
            let role = if rides { standing() } else { None };
            findings.streams = Some(role.map_or(LookupOutcome::Error, |_| LookupOutcome::Stale));
            findings.role = role.or(findings.role);
            return role.ok_or_else(|| {
                DecisionRefusal::unavailable("Streams can't be looked up right now")
            });
        }
    };
    let (role, verdict) = stream_role(snapshot, subject, request, &stream);
    if stream.is_open() {
        findings.role = Some(role);
    }
    verdict.map(|()| role)
}

/// The role that this stream gives the subject, and whether the subject may have it.
pub(in crate::decision) fn stream_role(
    snapshot: &Snapshot,
    subject: &str,
    request: &TokenRequest,
    stream: &StreamState,
) -> (Role, Result<(), DecisionRefusal>) {
    let may_publish = stream.may_publish(subject);
    let role = asked_role(snapshot, request).unwrap_or(if may_publish {
        Role::Publisher
    } else {
        Role::Subscriber
    });
    let verdict = if !stream.is_open() {
        Err(stream_not_live())
    } else if stream.bans(subject) {
        Err(DecisionRefusal::new(
            Outcome::ViewerBanned,
            "You are banned from this stream",
        ))
    } else if role == Role::Publisher && !may_publish {
        Err(DecisionRefusal::new(
            Outcome::NotOwner,
            "Not authorized to broadcast this stream",
        ))
    } else {
        Ok(())
    };
    (role, verdict)
}

/// Ends the publisher's sessions whose streams have ended, and gives their channels: the limit counts streams that are
/// live now. Tokens outlive streams by up to a lifetime, so that without this, a publisher who ended one stream could
/// not begin the next.
pub(super) async fn forget_ended_streams(
    snapshot: &Snapshot,
    claim: SeatRequest<'_>,
    streams: Option<LookupOutcome>,
    now: Now,
) -> Vec<Box<str>> {
    if snapshot.config.policy.max_streams_per_publisher == 0 || !streams.is_some_and(is_answer) {
        return Vec::new();
    }
    let held = snapshot
        .sessions
        .publishing_elsewhere(claim, now.unix_seconds());
    streams_over(snapshot, claim.subject, held, now).await
}

/// The channels, of these that a publisher holds, whose streams are over: the sessions there end. A source that gives
/// no answer ends no session, and isn't waited for again.
pub(in crate::decision) async fn streams_over(
    snapshot: &Snapshot,
    subject: &str,
    held: Vec<Box<str>>,
    now: Now,
) -> Vec<Box<str>> {
    let mut ended = Vec::new();
    for channel in held {
        let looked = snapshot.streams.look(&channel, None, now.patience()).await;
        let over = |stream: Option<Arc<StreamState>>| stream.is_none_or(|stream| !stream.is_open());
        if looked.lookup.is_ok_and(over) {
            snapshot.sessions.ended(subject, &channel);
            ended.push(channel);
        }
    }
    ended
}

fn stream_not_live() -> DecisionRefusal {
    DecisionRefusal::new(Outcome::StreamNotLive, "Stream no longer active")
}
