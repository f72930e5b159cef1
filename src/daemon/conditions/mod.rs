//! The conditions that an operator has to know now: the condition of each alert that depends on one daemon alone.
//!
//! Keeps true: a condition reads the same series as its alert in `monitoring/alerts.yml`, off the page that
//! Prometheus scrapes, so that the status page and the alerts agree; a test holds the two lists to each other. An
//! alert waits for its `for`, a condition doesn't. Alerts about lapses add up what replicas count, a condition has its
//! own daemon's part. Pure but for the lock around the samples.
//! Must not know: how a condition is shown.

mod lost_streams;
mod remedies;
mod samples;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use self::lost_streams::{publishers_lapse, viewers_lapse_refused};
pub(crate) use self::remedies::remedy;
use self::samples::{Count, Increase};
pub(crate) use self::samples::{History, Samples};
use super::traffic::RecentTraffic;
use crate::admin::{AlertSeverity, ConditionStatus};
use crate::snapshot::Shared;
use crate::terms::timestamp;

/// How often the counters are remembered: the resolution of "in the last minute".
pub(crate) const SAMPLE: Duration = Duration::from_secs(15);

const MINUTE: Duration = Duration::from_mins(1);
const FIVE_MINUTES: Duration = Duration::from_mins(5);
const TEN_MINUTES: Duration = Duration::from_mins(10);
const QUARTER: Duration = Duration::from_mins(15);
const HOUR: Duration = Duration::from_hours(1);
const DAY_SECONDS: f64 = 86_400.0;

/// The share of token requests that may fail over 30 days (0.1 %), times the burn rate of the critical alert.
const FAST_BURN: f64 = 14.4 * 0.001;

/// The `source` that has an alert of its own.
const STORE: &str = "redis";

/// The numbers that rules read.
struct Facts<'a> {
    page: &'a Samples<'a>,
    increase: &'a Increase<'a>,
    /// Seconds since the Unix epoch.
    now: f64,
}

/// One alert's condition.
struct AlertRule {
    alert: &'static str,
    /// Severity and message of each instance that holds.
    holds: fn(&Facts<'_>) -> Vec<(AlertSeverity, String)>,
}

/// Every alert that depends on one daemon alone, as in `monitoring/alerts.yml`.
const RULES: [AlertRule; 22] = [
    rule("RenewdTokenRequestsFailing", requests_failing),
    rule("RenewdLoginsRefused", logins_refused),
    rule("RenewdMostRequestsUnauthenticated", most_unauthenticated),
    rule("RenewdPublishersDenied", publishers_denied),
    rule("RenewdPublishersLapse", publishers_lapse),
    rule("RenewdViewersLapseRefused", viewers_lapse_refused),
    rule("RenewdSourceDown", source_down),
    rule("RenewdStoreLocal", store_local),
    rule("RenewdRevocationsStale", revocations_stale),
    rule("RenewdUpstreamDown", upstream_down),
    rule("RenewdReloadFailed", reload_failed),
    rule("RenewdFallbackConfiguration", fallback),
    rule("RenewdNotEnforcing", not_enforcing),
    rule("RenewdRestartRequired", restart_required),
    rule("RenewdStateNotWritable", state_not_writable),
    rule("RenewdStateDamaged", state_damaged),
    rule("RenewdEjectionsFailing", ejections_failing),
    rule("RenewdCertificateExpiring", certificate_expiring),
    rule("RenewdLogLinesDropped", log_lines_dropped),
    rule("RenewdConnectionsNearLimit", connections_near_limit),
    rule("RenewdForwardedHeadersDropped", forwarded_headers_dropped),
    rule("RenewdUpstreamExposed", upstream_exposed),
];

/// Alerts about what some configurations intend.
const NOTES: [AlertRule; 1] = [rule("RenewdWildcardTokensIssued", wildcard_tokens)];

const fn rule(
    alert: &'static str,
    holds: fn(&Facts<'_>) -> Vec<(AlertSeverity, String)>,
) -> AlertRule {
    AlertRule { alert, holds }
}

/// Every condition that holds, the worst first. `page` is the metrics page of this moment.
pub(crate) fn conditions(
    page: &str,
    history: &History,
    elapsed: Duration,
    now: u64,
) -> Vec<ConditionStatus> {
    let samples = Samples::parse(page);
    let increase = history.until(elapsed, samples.counts());
    let facts = Facts {
        page: &samples,
        increase: &increase,
        #[allow(clippy::cast_precision_loss)] // exact to 2^53
        now: now as f64,
    };
    let mut conditions: Vec<ConditionStatus> = RULES
        .iter()
        .chain(&NOTES)
        .flat_map(|rule| {
            let held = (rule.holds)(&facts).into_iter();
            held.map(|(severity, message)| ConditionStatus {
                alert: rule.alert,
                severity,
                message,
                remedy: None,
            })
        })
        .collect();
    conditions.sort_by_key(|condition| condition.severity);
    conditions
}

/// Records the counters until the runtime ends.
pub(crate) async fn run(shared: Arc<Shared>, history: Arc<History>, traffic: Arc<RecentTraffic>) {
    let mut turns = interval(SAMPLE);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let page = shared.metrics.render();
        let samples = Samples::parse(&page);
        history.add(shared.clock.elapsed(), samples.counts());
        traffic.add(&samples);
    }
}

/// Publishers apart, because their failures hardly show among those of the viewers.
fn requests_failing(facts: &Facts<'_>) -> Vec<(AlertSeverity, String)> {
    let all = facts.increase.of(Count::WellFormed, HOUR) >= 50.0;
    let publishers = facts.increase.of(Count::PublishersFailed, HOUR) > 2.5;
    let groups = [
        (all, Count::Failed, Count::WellFormed, "token"),
        (
            publishers,
            Count::PublishersFailed,
            Count::Publishers,
            "publishers'",
        ),
    ];
    let failing = groups.into_iter().filter_map(|(enough, failed, asked, whose)| {
        let increase = &facts.increase;
        let ratio = |window| share(increase.of(failed, window), increase.of(asked, window));
        let lately = ratio(FIVE_MINUTES);
        (enough && lately > FAST_BURN && ratio(HOUR) > FAST_BURN).then(|| {
            let lately = percent(lately);
            (
                AlertSeverity::Critical,
                format!("{lately} of the {whose} requests of the last 5 minutes could not be answered."),
            )
        })
    });
    failing.collect()
}

fn logins_refused(facts: &Facts<'_>) -> Vec<(AlertSeverity, String)> {
    let refused = facts.increase.of(Count::LoginsRefused, MINUTE);
    let verified = facts.increase.of(Count::LoginsVerified, MINUTE);
    one(
        refused >= 20.0 && verified < 1.0,
        AlertSeverity::Critical,
        || {
            format!(
                "No login of the last minute was accepted ({refused:.0} were sent): installed clients log their users out on a \
                 401. renewd_unauthenticated_total says why."
            )
        },
    )
}

fn most_unauthenticated(facts: &Facts<'_>) -> Vec<(AlertSeverity, String)> {
    let refused = facts.increase.of(Count::Unauthenticated, TEN_MINUTES);
    let all = facts.increase.of(Count::Requests, TEN_MINUTES);
    let ratio = share(refused, all);
    one(all >= 50.0 && ratio > 0.5, AlertSeverity::Critical, || {
        format!(
            "{} of the token requests of the last 10 minutes were answered 401.",
            percent(ratio)
        )
    })
}

fn publishers_denied(facts: &Facts<'_>) -> Vec<(AlertSeverity, String)> {
    let denied = facts.increase.of(Count::PublishersDenied, QUARTER);
    let all = facts.increase.of(Count::Publishers, QUARTER);
    let ratio = share(denied, all);
    one(all >= 20.0 && ratio > 0.05, AlertSeverity::Critical, || {
        format!(
            "{} of the publishers' requests of the last 15 minutes were denied.",
            percent(ratio)
        )
    })
}

fn source_down(facts: &Facts<'_>) -> Vec<(AlertSeverity, String)> {
    let down = facts.page.having("renewd_source_up", |value| value < 1.0);
    let down = down.filter(|labels| labels.value("source") != STORE);
    down.map(|labels| {
        let source = labels.value("source");
        let matcher = format!("source=\"{source}\"");
        let time = |name| facts.page.sum(name, &[&matcher], &[]);
        let since = written(time("renewd_source_down_since_timestamp_seconds"));
        let until = written(time("renewd_source_rest_until_timestamp_seconds"));
        let message = match (since, until) {
            (Some(since), Some(until)) => format!(
                "The {source} source has given no answer since {since}. Holders of a token can renew it until {until}."
            ),
            _ => format!("The {source} source gives no answer."),
        };
        (AlertSeverity::Critical, message)
    })
    .collect()
}

fn store_local(facts: &Facts<'_>) -> Vec<(AlertSeverity, String)> {
    let mut modes = facts.page.having("renewd_store_mode", |value| value > 0.0);
    let local = modes.any(|labels| labels.value("mode") == "local");
    one(local, AlertSeverity::Warning, || {
        let matcher = format!("source=\"{STORE}\"");
        let since = "renewd_source_down_since_timestamp_seconds";
        let since = written(facts.page.sum(since, &[&matcher], &[]));
        let since = since.map_or_else(String::new, |since| format!(" since {since}"));
        format!(
            "The Redis that the replicas share has given no answer{since}: rate_limit.on_store_error decides."
        )
    })
}

fn revocations_stale(facts: &Facts<'_>) -> Vec<(AlertSeverity, String)> {
    let age = facts
        .page
        .sum("renewd_revocation_store_age_seconds", &[], &[]);
    one(age > 300.0, AlertSeverity::Warning, || {
        "For more than five minutes revocations of the other replicas may have been missed."
            .to_owned()
    })
}

fn upstream_down(facts: &Facts<'_>) -> Vec<(AlertSeverity, String)> {
    let down = facts.page.having("renewd_upstream_up", |value| value < 1.0);
    down.map(|labels| {
        let message = format!("The backend {} is down.", labels.value("server"));
        (AlertSeverity::Critical, message)
    })
    .collect()
}

fn reload_failed(facts: &Facts<'_>) -> Vec<(AlertSeverity, String)> {
    let failed = facts.is("renewd_config_last_reload_successful", 0.0);
    one(failed, AlertSeverity::Warning, || {
        "The configuration file is invalid; the former configuration stays in force.".to_owned()
    })
}

fn fallback(facts: &Facts<'_>) -> Vec<(AlertSeverity, String)> {
    one(
        facts.is("renewd_config_fallback", 1.0),
        AlertSeverity::Warning,
        || "The last valid configuration is in force: the file was invalid at start.".to_owned(),
    )
}

fn not_enforcing(facts: &Facts<'_>) -> Vec<(AlertSeverity, String)> {
    let ok_until = facts
        .page
        .value("renewd_decision_mode_ok_until_timestamp_seconds");
    if ok_until.is_some_and(|until| until >= facts.now) {
        return Vec::new();
    }
    let mut other = facts
        .page
        .having("renewd_decision_mode", |value| value > 0.0);
    let mode = other.find(|labels| labels.value("mode") != "enforce");
    let share = facts.page.value("renewd_enforce_percent").unwrap_or(100.0);
    match mode {
        Some(labels) => one(true, AlertSeverity::Warning, || {
            let mode = labels.value("mode");
            format!("The backend answers token requests: decision.mode is \"{mode}\".")
        }),
        None => one(share < 100.0, AlertSeverity::Warning, || {
            format!(
                "The backend answers token requests of {:.0} % of the users: decision.enforce_percent is {share:.0}.",
                100.0 - share
            )
        }),
    }
}

fn restart_required(facts: &Facts<'_>) -> Vec<(AlertSeverity, String)> {
    one(
        facts.is("renewd_config_restart_required", 1.0),
        AlertSeverity::Info,
        || "The configuration file has a change that waits for a restart.".to_owned(),
    )
}

fn state_not_writable(facts: &Facts<'_>) -> Vec<(AlertSeverity, String)> {
    one(
        facts.is("renewd_state_writable", 0.0),
        AlertSeverity::Warning,
        || "The state directory can't be written: sessions would be lost in a restart.".to_owned(),
    )
}

fn state_damaged(facts: &Facts<'_>) -> Vec<(AlertSeverity, String)> {
    one(
        facts.is("renewd_state_damaged", 1.0),
        AlertSeverity::Warning,
        || {
            "Something in the state directory couldn't be read at start; the log says how much."
                .to_owned()
        },
    )
}

fn ejections_failing(facts: &Facts<'_>) -> Vec<(AlertSeverity, String)> {
    let unauthorized = facts.increase.of(Count::EjectionsUnauthorized, QUARTER) > 0.0;
    let failed = facts.increase.of(Count::EjectionsFailed, QUARTER);
    one(unauthorized || failed > 0.0, AlertSeverity::Warning, || {
        if unauthorized {
            "Agora refuses customer_id or customer_secret of [agora.rest]: revoked users stay in their channels."
                .to_owned()
        } else {
            format!(
                "{failed:.0} revoked users could not be removed from their channels in the last 15 minutes."
            )
        }
    })
}

fn certificate_expiring(facts: &Facts<'_>) -> Vec<(AlertSeverity, String)> {
    let expiry = facts
        .page
        .value("renewd_certificate_expiry_timestamp_seconds");
    let Some(expiry) = expiry.filter(|expiry| expiry.is_finite()) else {
        return Vec::new();
    };
    let days = (expiry - facts.now) / DAY_SECONDS;
    let severity = if days < 3.0 {
        AlertSeverity::Critical
    } else {
        AlertSeverity::Warning
    };
    one(days < 14.0, severity, || match written(expiry) {
        Some(when) if days >= 0.0 => {
            format!("The certificate that clients see expires in {days:.0} days, at {when}.")
        }
        Some(when) => format!("The certificate that clients see expired at {when}."),
        None => "The certificate that clients see has expired.".to_owned(),
    })
}

fn log_lines_dropped(facts: &Facts<'_>) -> Vec<(AlertSeverity, String)> {
    let lost = facts.increase.of(Count::LogLinesDropped, QUARTER);
    one(lost > 0.0, AlertSeverity::Warning, || {
        format!("{lost:.0} log or audit lines were lost in the last 15 minutes.")
    })
}

fn connections_near_limit(facts: &Facts<'_>) -> Vec<(AlertSeverity, String)> {
    let open = facts.page.sum("renewd_connections", &[], &[]);
    let most = facts.page.value("renewd_connections_max").unwrap_or(0.0);
    let ratio = share(open, most);
    one(ratio > 0.8, AlertSeverity::Warning, || {
        format!("{} of the connections are in use.", percent(ratio))
    })
}

fn forwarded_headers_dropped(facts: &Facts<'_>) -> Vec<(AlertSeverity, String)> {
    let dropped = facts.increase.of(Count::ForwardedHeadersDropped, HOUR);
    one(dropped > 0.0, AlertSeverity::Warning, || {
        "A private peer that is not in server.trusted_proxies sends X-Forwarded headers, which are dropped: if it is \
         your load balancer, all its users count as one address."
            .to_owned()
    })
}

fn upstream_exposed(facts: &Facts<'_>) -> Vec<(AlertSeverity, String)> {
    let exposed = facts
        .page
        .having("renewd_upstream_exposed", |value| value > 0.0);
    exposed
        .map(|labels| {
            let message = format!(
                "Clients can reach the backend {} without renewd, on addresses that aren't loopback.",
                labels.value("server")
            );
            (AlertSeverity::Warning, message)
        })
        .collect()
}

fn wildcard_tokens(facts: &Facts<'_>) -> Vec<(AlertSeverity, String)> {
    let issued = facts.increase.of(Count::WildcardTokens, HOUR);
    one(issued > 0.0, AlertSeverity::Info, || {
        format!("{issued:.0} tokens for uid 0, which anyone may use, were issued in the last hour.")
    })
}

impl Facts<'_> {
    fn is(&self, name: &str, value: f64) -> bool {
        self.page
            .value(name)
            .is_some_and(|found| (found - value).abs() < f64::EPSILON)
    }
}

fn one(
    holds: bool,
    severity: AlertSeverity,
    message: impl FnOnce() -> String,
) -> Vec<(AlertSeverity, String)> {
    holds.then(|| (severity, message())).into_iter().collect()
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

fn percent(ratio: f64) -> String {
    format!("{:.1} %", ratio * 100.0)
}

/// RFC 3339; `None` for 0, which stands for never.
fn written(unix_seconds: f64) -> Option<String> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // a cast of a float saturates
    let whole = unix_seconds as u64;
    (whole > 0).then(|| timestamp::from_seconds(whole))
}

#[cfg(test)]
mod tests;
