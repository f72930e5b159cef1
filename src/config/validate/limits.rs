//! `[rate_limit]`: quotas, each a table or `"off"`.
//!
//! Keeps true: a quota's arithmetic in nanoseconds can't be zero or overflow.

use std::time::Duration;

use super::{LONGEST, POSITIVE_DURATION, TABLE_SIZES, seconds};
use crate::config::model::{OnStoreError, Quota, RateLimit};
use crate::config::raw::{RawItem, RawTable};

const HINT: &str = "write { requests = 60, per = \"1m\", burst = 20 }, or \"off\"";

pub(super) fn rate_limit(table: &RawTable<'_>) -> RateLimit {
    let minutely = |requests, burst| {
        Some(Quota {
            requests,
            per: seconds(60),
            burst,
        })
    };
    let scope = |name, default| {
        let quota = quota(&table.table(name));
        match table.item(name) {
            None => default,
            Some(item) => checked(&item, quota),
        }
    };
    RateLimit {
        max_keys: table.number("max_keys", TABLE_SIZES, 1_000_000),
        on_store_error: table.choice(
            "on_store_error",
            &OnStoreError::ALL.map(|choice| (choice.as_str(), choice)),
            OnStoreError::Local,
        ),
        subject: scope("subject", minutely(60, 20)),
        address: scope("address", minutely(600, 200)),
        channel: scope("channel", None),
        global: scope("global", None),
    }
}

fn quota(table: &RawTable<'_>) -> Option<Quota> {
    let count = |name| {
        let number = table.item(name)?.number(1..=u64::from(u32::MAX))?;
        u32::try_from(number).ok()
    };
    let (requests, burst) = (count("requests"), count("burst"));
    let per = table.item("per");
    let per = per.and_then(|item| item.duration(POSITIVE_DURATION));
    Some(Quota {
        requests: requests?,
        per: per?,
        burst: burst?,
    })
}

/// The quota that a value is; `None` for `"off"` and what is reported.
fn checked(item: &RawItem<'_>, quota: Option<Quota>) -> Option<Quota> {
    if let Some(text) = item.if_text() {
        if text != "off" {
            item.error("not a limit", HINT);
        }
        return None;
    }
    let table = item.as_table()?;
    for name in ["requests", "per", "burst"] {
        if table.find(name).is_none() {
            table.missing(name, HINT);
        }
    }
    let quota = quota?;
    // GCRA counts nanoseconds: one request's share must not be none, a whole burst's not more than a clock holds.
    let share = quota.per / quota.requests;
    if share < Duration::from_nanos(1) {
        item.error("more requests than nanoseconds", "lower `requests`");
    } else if share
        .checked_mul(quota.burst)
        .is_none_or(|refill| refill > LONGEST)
    {
        item.error(
            "after a full burst it would take over a year to recover",
            "lower `burst` or `per`, or raise `requests`",
        );
    }
    Some(quota)
}
