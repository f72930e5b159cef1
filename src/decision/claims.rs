//! Rows 10 and 11 over all replicas: the user and the publisher's channel that a grant takes are claimed in the store,
//! as the last step before the grant is recorded.
//!
//! Keeps true: what is refused has claimed nothing; where the store has answered, this replica's own table takes the
//! claim as made. While the store gives no answer, this table decides, which knows what the others granted until then,
//! or, by `rate_limit.on_store_error = "deny"`, nobody does.
//! Must not know: how claims are kept.

use std::time::Duration;

use super::order::answers::streams_over;
use super::order::{Decision, DecisionRefusal, Grant, Now, is_answer};
use crate::config::model::OnStoreError;
use crate::sessions::{ClaimRefused, Rules, SeatRequest};
use crate::snapshot::Snapshot;
use crate::store::ClaimAnswer;

/// Claims what a grant that lasts this long takes. Gives the rules that recording it must pass.
pub(super) async fn claim(
    snapshot: &Snapshot,
    decision: &Decision,
    grant: &Grant,
    claim: SeatRequest<'_>,
    lasts: Duration,
    now: Now,
) -> Result<Rules, DecisionRefusal> {
    let rules = grant.rules;
    let Some(store) = &snapshot.store else {
        return Ok(rules);
    };
    let refused = |refused| Err(DecisionRefusal::of_session(refused));
    let made = store.claim(claim, rules, lasts, &grant.over).await;
    let made = match made {
        // Streams that this replica didn't know of may be over.
        Ok(ClaimAnswer::TooManyChannels(held))
            if decision.findings.streams.is_some_and(is_answer) =>
        {
            let over = streams_over(snapshot, claim.subject, held, now).await;
            if over.is_empty() {
                return refused(ClaimRefused::TooManyStreams);
            }
            store.claim(claim, rules, lasts, &over).await
        }
        made => made,
    };
    match (made, snapshot.config.rate_limit.on_store_error) {
        (Ok(ClaimAnswer::Made), _) => Ok(Rules {
            claimed: true,
            ..rules
        }),
        (Ok(ClaimAnswer::UserTaken), _) => refused(ClaimRefused::UidTaken),
        (Ok(ClaimAnswer::TooManyChannels(_)), _) => refused(ClaimRefused::TooManyStreams),
        (Err(_), OnStoreError::Local | OnStoreError::Allow) => Ok(rules),
        (Err(_), OnStoreError::Deny) => Err(DecisionRefusal::unavailable(
            "Whether the uid is free can't be checked right now",
        )),
    }
}
