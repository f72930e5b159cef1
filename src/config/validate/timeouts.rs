//! Compares the timeouts of sources and hook with `decision.timeout`. There are only warnings: a source that takes
//! longer than a decision waits counts as one that gives no answer, and it may be faster the next time.
//!
//! Must not know: how a source is asked.

use std::time::Duration;

use super::seconds;
use crate::config::model::{AccountsSource, Config, DecisionConfig, HTTP_PATIENCE, StreamsSource};
use crate::config::raw::{RawItem, RawTable};

/// Compares what is configured.
pub(super) fn compare(root: &RawTable<'_>, config: &Config) {
    let whole = config.decision.timeout;
    let share = DecisionConfig::source_budget(whole);
    let mongodb = config.mongodb.as_ref().filter(|_| asks_mongodb(config));
    let mongodb = mongodb.map(|mongodb| mongodb.timeout);
    let http = asks_http(config).then_some(HTTP_PATIENCE);
    let slowest = mongodb.into_iter().chain(http).max().unwrap_or_default();
    if slowest > share {
        let message = format!(
            "a source may take {}, and a decision waits {} for it, four fifths of decision.timeout",
            humantime::format_duration(slowest),
            humantime::format_duration(share)
        );
        // For a source over HTTP there is no timeout to configure.
        let written = root.table("mongodb").item("timeout");
        let written = written.filter(|_| http.is_none_or(|http| http <= share));
        return warn(root, written.as_ref(), message, slowest * 5 / 4);
    }
    let Some(hook) = &config.authorize else {
        return;
    };
    let left = DecisionConfig::source_budget(whole.saturating_sub(slowest));
    if hook.timeout > left {
        let before = if slowest.is_zero() {
            String::new()
        } else {
            let slowest = humantime::format_duration(slowest);
            format!(" when another source has taken its {slowest}")
        };
        let message = format!(
            "the hook may take {}, and a decision waits {} for it{before}",
            humantime::format_duration(hook.timeout),
            humantime::format_duration(left)
        );
        let written = root.table("authorize").item("timeout");
        warn(
            root,
            written.as_ref(),
            message,
            slowest + hook.timeout * 5 / 4,
        );
    }
}

/// Warns at this key, or else at `decision.timeout`. One of the two is written, since the defaults fit each other.
fn warn(root: &RawTable<'_>, written: Option<&RawItem<'_>>, message: String, enough: Duration) {
    // Rounded up to seconds, as an operator would write it.
    let enough = seconds(enough.as_secs() + u64::from(enough.subsec_nanos() > 0));
    let raise = format!(
        "raise decision.timeout to {}",
        humantime::format_duration(enough)
    );
    if let Some(item) = written {
        item.warning(message, format!("lower it, or {raise}"));
    } else if let Some(item) = root.table("decision").item("timeout") {
        item.warning(message, raise);
    }
}

fn asks_mongodb(config: &Config) -> bool {
    matches!(config.accounts.source, AccountsSource::Mongodb(_))
        || matches!(config.streams.source, StreamsSource::Mongodb(_))
}

fn asks_http(config: &Config) -> bool {
    matches!(config.accounts.source, AccountsSource::Http(_))
        || matches!(config.streams.source, StreamsSource::Http(_))
}
