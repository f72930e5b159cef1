//! Row 5: the operators' revocations.
//!
//! Keeps true: a process that has just started grants nothing before it has read what other replicas have revoked, as
//! long as their store answers; no request waits for that longer than `redis.timeout`.
//! Must not know: who revokes, how replicas share.

use super::{DecisionRefusal, Now};
use crate::decision::request::TokenRequest;
use crate::revocation::RevocationQuestion;
use crate::snapshot::Snapshot;

/// Waits until the other replicas' revocations are known. While there is no store to read them from, those that are
/// known here have to do.
pub(super) async fn others_known(snapshot: &Snapshot) -> Result<(), DecisionRefusal> {
    let Some(store) = &snapshot.store else {
        return Ok(());
    };
    let known = snapshot.revocations.await_others(store.timeout()).await;
    if known || store.is_starting() || store.outage().is_some() {
        return Ok(());
    }
    let message = "The revocations of other replicas are still being read";
    Err(DecisionRefusal::unavailable(message))
}

/// Row 5. No renewal rests on anything against a revocation. Asked again before the token leaves.
pub(in crate::decision) fn refuse_revoked(
    snapshot: &Snapshot,
    subject: &str,
    request: &TokenRequest,
    now: Now,
) -> Result<(), DecisionRefusal> {
    let question = RevocationQuestion {
        subject: Some(subject),
        channel: Some(&request.channel),
        user: Some(request.user.borrowed()),
    };
    if snapshot
        .revocations
        .find(question, now.unix_seconds())
        .is_some()
    {
        return Err(DecisionRefusal::revoked());
    }
    if snapshot.denies_for_stale_revocations(now.elapsed) {
        let message = "The revocations of other replicas are not known right now";
        return Err(DecisionRefusal::unavailable(message));
    }
    Ok(())
}
