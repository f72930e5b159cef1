//! `[[token.tier]]`: other times for some logins; and the bounds of a session, which a tier shares with `[policy]`.
//!
//! Keeps true: each tier can take some login; a lifetime and its backup end within 24 hours.

use std::time::Duration;

use super::tokens::{self, LONGEST_LIFETIME};
use super::{ANY_DURATION, seconds};
use crate::config::model::Tier;
use crate::config::raw::{RawItem, RawTable, in_one_unit};

const EXAMPLE: &str = "claim = \"plan\", value = \"pro\"";

/// The tiers; `backup` is `token.backup`.
pub(super) fn tiers(token: &RawTable<'_>, backup: Duration) -> Vec<Tier> {
    let mut tiers: Vec<Tier> = Vec::new();
    for table in token.tables("tier") {
        let Some(tier) = tier(&table, backup) else {
            continue;
        };
        if tier.lifetime.is_none() && tier.max_session.is_none() {
            table.warning(
                "changes nothing for the logins that it takes",
                "give it a lifetime or a max_session",
            );
        }
        let same = |earlier: &Tier| earlier.claim == tier.claim && earlier.value == tier.value;
        if tiers.iter().any(same) {
            table.error(
                "a tier before this takes the same logins",
                "keep one of them",
            );
        }
        tiers.push(tier);
    }
    tiers
}

fn tier(table: &RawTable<'_>, backup: Duration) -> Option<Tier> {
    for name in ["claim", "value"] {
        if table.item(name).is_none() {
            table.missing(name, EXAMPLE);
        }
    }
    let claim = table.text("claim", "");
    if let Some(item) = table.item("claim")
        && item.if_text() == Some("")
    {
        item.error("no claim is named", EXAMPLE);
    }
    let value = table.item("value").and_then(|item| item.scalar());
    let lifetime = tokens::lifetime(table);
    if let Some(lifetime) = lifetime
        && let Some(item) = table.item("lifetime")
    {
        within_a_day(&item, lifetime, backup);
    }
    let max_session = max_session(table);
    Some(Tier {
        claim,
        value: value?,
        lifetime,
        max_session,
    })
}

fn within_a_day(lifetime_item: &RawItem<'_>, lifetime: Duration, backup: Duration) {
    if lifetime + backup > LONGEST_LIFETIME {
        let most = in_one_unit(LONGEST_LIFETIME.saturating_sub(backup));
        lifetime_item.error(
            "with token.backup more than 24h, when Agora ends every token",
            format!("write at most \"{most}\""),
        );
    } else {
        tokens::warn_if_long(lifetime_item, lifetime + backup);
    }
}

/// `max_session`, of `[policy]` or a tier.
pub(super) fn max_session(table: &RawTable<'_>) -> Option<Duration> {
    let item = table.item("max_session")?;
    let length = item.duration(ANY_DURATION)?;
    if !length.is_zero() && length < seconds(60) {
        item.error(
            "shorter than the shortest token, so that no token would be issued",
            "write at least \"1m\", or \"0s\" for no limit",
        );
    }
    Some(length)
}
