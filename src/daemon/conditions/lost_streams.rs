//! Conditions about users whose token ran out while their stream went on.
//!
//! Keeps true: where replicas share a store each of them has all sessions and one of them counts a lapse, so that a
//! daemon's own numbers are the least that was lost, and a message says so.
//! Must not know: what the other replicas have counted.

use super::samples::Count;
use super::{Facts, QUARTER, one, percent, share};
use crate::admin::AlertSeverity;

pub(super) fn publishers_lapse(facts: &Facts<'_>) -> Vec<(AlertSeverity, String)> {
    let lapsed = facts.increase.of(Count::PublishersLapsed, QUARTER);
    let severity = if lapsed > 2.5 {
        AlertSeverity::Critical
    } else {
        AlertSeverity::Warning
    };
    one(lapsed > 0.0, severity, || {
        format!(
            "{}{lapsed:.0} publishers' tokens ran out in the last 15 minutes while their streams went on.",
            least(facts)
        )
    })
}

pub(super) fn viewers_lapse_refused(facts: &Facts<'_>) -> Vec<(AlertSeverity, String)> {
    let lost = facts.increase.of(Count::ViewersLapsedRefused, QUARTER);
    let left = facts
        .page
        .sum("renewd_sessions", &["role=\"subscriber\""], &[]);
    let ratio = share(lost, lost + left);
    one(lost > 10.0 && ratio > 0.01, AlertSeverity::Warning, || {
        format!(
            "{}{} of the viewers of the last 15 minutes were refused a renewal and lost their stream.",
            least(facts),
            percent(ratio)
        )
    })
}

/// The words before a number of which other replicas may have counted a part.
fn least(facts: &Facts<'_>) -> &'static str {
    if facts.page.named("renewd_store_mode").is_empty() {
        ""
    } else {
        "At least "
    }
}
