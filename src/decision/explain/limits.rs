//! Row 4, explained: what the limits say of a caller, and whose limits they are.
//!
//! Must not know: how limits are counted.

use std::time::Duration;

use super::{Rows, Says};
use crate::decision::order;
use crate::decision::order::limits::{LimitAnswer, LimitsBy};
use crate::decision::wire_format;
use crate::limit::Charge;
use crate::snapshot::Snapshot;
use crate::terms::outcome::Outcome;
use crate::terms::role::Role;

pub(super) async fn add(
    snapshot: &Snapshot,
    subject: &str,
    channel: &str,
    held: Option<Role>,
    rows: &mut Rows,
) {
    let renewal = held.is_some();
    let asked = order::limits::ask(snapshot, subject, channel, renewal, Charge::Peek).await;
    let source = match asked.by {
        LimitsBy::Store => "redis",
        LimitsBy::Process | LimitsBy::Nothing => "rate limits",
    };
    let outage = snapshot.store.as_ref().and_then(|store| store.outage());
    let outage = outage.map_or_else(String::new, |outage| {
        let choice = snapshot.config.rate_limit.on_store_error.as_str();
        format!(
            "; the shared store gives no answer ({}): rate_limit.on_store_error = \"{choice}\"",
            outage.error
        )
    });
    let says = match asked.answer {
        LimitAnswer::Within if asked.by == LimitsBy::Nothing => {
            Says::Passes(format!("not limited{outage}"))
        }
        LimitAnswer::Within => Says::Passes(format!(
            "within the limits of subject, channel and all{outage}"
        )),
        LimitAnswer::Exceeded(refusal) => {
            let refused = order::DecisionRefusal::limited(refusal);
            let detail = format!(
                "over the {} limit, for {} more{outage}",
                refusal.scope.as_str(),
                humantime::format_duration(Duration::from_secs(wire_format::whole_seconds(
                    refusal.retry_after
                )))
            );
            Says::Refuses(refused.outcome, detail)
        }
        LimitAnswer::Unknown => {
            Says::Refuses(Outcome::Unavailable, format!("can't be told{outage}"))
        }
    };
    rows.add("limits", source, None, says);
}
