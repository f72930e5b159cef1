//! Conditions and alerts are one list, and each condition holds when its numbers say so.

use std::collections::BTreeSet;

use super::*;

const ALERTS: &str = include_str!("../../../monitoring/alerts.yml");

/// Alerts that need somebody else's eyes: Prometheus', which misses the daemon.
const NOT_OURS: [&str; 2] = ["RenewdTargetDown", "RenewdTargetMissing"];

/// Each alert's name with the severities that `monitoring/alerts.yml` gives it.
fn alerts() -> BTreeSet<(String, String)> {
    let rules = ALERTS.split("- alert: ").skip(1);
    rules
        .map(|rule| {
            let (name, rest) = rule.split_once('\n').unwrap();
            let (_, severity) = rest.split_once("severity: ").unwrap();
            let severity = severity.lines().next().unwrap();
            (name.trim().to_owned(), severity.trim().to_owned())
        })
        .filter(|(name, _)| !NOT_OURS.contains(&name.as_str()))
        .collect()
}

fn found(page: &str, history: &History) -> Vec<(&'static str, AlertSeverity)> {
    let conditions = conditions(page, history, HOUR, 1_800_000_000);
    conditions
        .into_iter()
        .map(|condition| (condition.alert, condition.severity))
        .collect()
}

#[test]
fn every_alert_that_one_daemon_can_see_is_a_condition_and_every_condition_an_alert() {
    let alerts = alerts();
    let named: BTreeSet<&str> = alerts.iter().map(|(name, _)| name.as_str()).collect();
    let rules = RULES.iter().chain(&NOTES);
    let conditions: BTreeSet<&str> = rules.map(|rule| rule.alert).collect();
    assert_eq!(conditions, named);
}

/// An alert with its severity, and a page of which it holds: what goes wrong with requests.
fn of_requests() -> Vec<(&'static str, String)> {
    let requests = |labels: &str, count: u32| {
        format!("renewd_token_requests_total{{endpoint=\"token\",{labels}}} {count}\n")
    };
    let refused = |outcome: &str, count| {
        requests(
            &format!("role=\"unknown\",outcome=\"{outcome}\",class=\"client\""),
            count,
        )
    };
    let publishers = |outcome: &str, class: &str, count| {
        requests(
            &format!("role=\"publisher\",outcome=\"{outcome}\",class=\"{class}\""),
            count,
        )
    };
    vec![
        (
            "RenewdTokenRequestsFailing critical",
            publishers("ok", "ok", 95) + &publishers("unavailable", "failed", 5),
        ),
        (
            "RenewdMostRequestsUnauthenticated critical",
            refused("token_expired", 51) + &publishers("ok", "ok", 49),
        ),
        (
            "RenewdLoginsRefused critical",
            requests(
                "role=\"subscriber\",outcome=\"session_replaced\",class=\"denied\"",
                20,
            ),
        ),
        (
            "RenewdPublishersDenied critical",
            publishers("ok", "ok", 90) + &publishers("not_owner", "denied", 10),
        ),
        (
            "RenewdPublishersLapse warning",
            "renewd_token_lapses_total{role=\"publisher\",cause=\"silent\"} 1\n".to_owned(),
        ),
        (
            "RenewdPublishersLapse critical",
            "renewd_token_lapses_total{role=\"publisher\",cause=\"silent\"} 3\n".to_owned(),
        ),
        (
            "RenewdViewersLapseRefused warning",
            "renewd_token_lapses_total{role=\"subscriber\",cause=\"refused\"} 11\n\
             renewd_sessions{role=\"subscriber\"} 500\n"
                .to_owned(),
        ),
    ]
}

/// The same of what the process itself is in.
fn of_the_process() -> Vec<(&'static str, String)> {
    vec![
        (
            "RenewdSourceDown critical",
            "renewd_source_up{source=\"streams\"} 0\n".to_owned(),
        ),
        (
            "RenewdUpstreamDown critical",
            "renewd_upstream_up{server=\"http://127.0.0.1:3001\"} 0\n".to_owned(),
        ),
        (
            "RenewdReloadFailed warning",
            "renewd_config_last_reload_successful 0\n".to_owned(),
        ),
        (
            "RenewdFallbackConfiguration warning",
            "renewd_config_fallback 1\n".to_owned(),
        ),
        (
            "RenewdNotEnforcing warning",
            "renewd_decision_mode{mode=\"observe\"} 1\n".to_owned(),
        ),
        (
            "RenewdNotEnforcing warning",
            "renewd_enforce_percent 25\n".to_owned(),
        ),
        (
            "RenewdRestartRequired info",
            "renewd_config_restart_required 1\n".to_owned(),
        ),
        (
            "RenewdStateNotWritable warning",
            "renewd_state_writable 0\n".to_owned(),
        ),
        (
            "RenewdStateDamaged warning",
            "renewd_state_damaged 1\n".to_owned(),
        ),
        (
            "RenewdCertificateExpiring warning",
            "renewd_certificate_expiry_timestamp_seconds 1800864000\n".to_owned(),
        ),
        (
            "RenewdCertificateExpiring critical",
            "renewd_certificate_expiry_timestamp_seconds 1800172800\n".to_owned(),
        ),
        (
            "RenewdLogLinesDropped warning",
            "renewd_log_dropped_total 1\n".to_owned(),
        ),
        (
            "RenewdConnectionsNearLimit warning",
            "renewd_connections{listener=\"a\"} 81\nrenewd_connections_max 100\n".to_owned(),
        ),
        (
            "RenewdForwardedHeadersDropped warning",
            "renewd_forwarded_headers_dropped_total{listener=\"a\"} 1\n".to_owned(),
        ),
        (
            "RenewdUpstreamExposed warning",
            "renewd_upstream_exposed{server=\"http://127.0.0.1:3001\"} 1\n".to_owned(),
        ),
        (
            "RenewdWildcardTokensIssued info",
            "renewd_wildcard_tokens_issued_total{role=\"subscriber\"} 1\n".to_owned(),
        ),
    ]
}

#[test]
fn each_condition_holds_by_its_own_numbers_with_its_alerts_severity() {
    let cases = of_requests().into_iter().chain(of_the_process());
    let mut seen = BTreeSet::new();
    for (expected, page) in cases {
        let (alert, severity) = expected.split_once(' ').unwrap();
        seen.insert((alert.to_owned(), severity.to_owned()));
        let found = found(&page, &History::default());
        let found: Vec<String> = found
            .iter()
            .map(|(alert, severity)| {
                let severity = format!("{severity:?}").to_lowercase();
                format!("{alert} {severity}")
            })
            .collect();
        assert_eq!(found, [expected], "{page}");
    }
    // The slow burns of RenewdTokenRequestsFailing look back for days, which only Prometheus does.
    let slow = (
        "RenewdTokenRequestsFailing".to_owned(),
        "warning".to_owned(),
    );
    let alerts: BTreeSet<_> = alerts()
        .into_iter()
        .filter(|alert| *alert != slow)
        .collect();
    assert_eq!(seen, alerts);
}

#[test]
fn beside_its_threshold_no_condition_holds() {
    let quiet = "renewd_token_requests_total{endpoint=\"token\",role=\"unknown\",outcome=\"unauthenticated\",class=\"client\"} 19\n\
        renewd_token_requests_total{endpoint=\"reissue\",role=\"publisher\",outcome=\"not_owner\",class=\"denied\"} 900\n\
        renewd_source_up{source=\"streams\"} 1\nrenewd_upstream_up{server=\"a\"} 1\nrenewd_upstream_exposed{server=\"a\"} 0\n\
        renewd_config_last_reload_successful 1\nrenewd_config_fallback 0\nrenewd_config_restart_required 0\n\
        renewd_decision_mode{mode=\"enforce\"} 1\nrenewd_decision_mode{mode=\"off\"} 0\nrenewd_enforce_percent 100\n\
        renewd_state_writable 1\nrenewd_state_damaged 0\nrenewd_certificate_expiry_timestamp_seconds NaN\n\
        renewd_log_dropped_total 0\nrenewd_connections{listener=\"a\"} 80\nrenewd_connections_max 100\n\
        renewd_token_lapses_total{role=\"subscriber\",cause=\"silent\"} 5000\n";
    assert_eq!(found(quiet, &History::default()), []);
    let meant = "renewd_decision_mode{mode=\"observe\"} 1\n\
        renewd_decision_mode_ok_until_timestamp_seconds 1800000001\n";
    assert_eq!(found(meant, &History::default()), []);
}

#[test]
fn forged_logins_beside_good_ones_are_no_failure_of_every_login() {
    let page = "renewd_token_requests_total{endpoint=\"token\",role=\"unknown\",outcome=\"unauthenticated\",class=\"client\"} 40\n\
        renewd_token_requests_total{endpoint=\"token\",role=\"subscriber\",outcome=\"ok\",class=\"ok\"} 4\n";
    assert_eq!(found(page, &History::default()), []);
}

#[test]
fn what_was_counted_before_the_window_is_over() {
    let history = History::default();
    let before = "renewd_log_dropped_total 7\n";
    history.add(Duration::ZERO, Samples::parse("").counts());
    history.add(QUARTER * 3, Samples::parse(before).counts());
    assert_eq!(found(before, &history), []);
    let after = "renewd_log_dropped_total 8\n";
    assert_eq!(
        found(after, &history),
        [("RenewdLogLinesDropped", AlertSeverity::Warning)]
    );
}

#[test]
fn no_more_than_an_hour_is_remembered() {
    let history = History::default();
    for sample in 0..1000 {
        let counts = Samples::parse(&format!("renewd_log_dropped_total {sample}\n")).counts();
        history.add(SAMPLE * sample, counts);
    }
    let remembered = history.0.lock().unwrap().len();
    assert_eq!(remembered, 241);
    let now = Samples::parse("renewd_log_dropped_total 999\n").counts();
    let increase = history.until(SAMPLE * 999, now);
    assert!((increase.of(Count::LogLinesDropped, HOUR) - 240.0).abs() < f64::EPSILON);
    assert!((increase.of(Count::LogLinesDropped, MINUTE) - 4.0).abs() < f64::EPSILON);
}
