//! Conditions and alerts are one list, and each condition holds when its numbers say so.

use std::collections::BTreeSet;

use super::*;

const ALERTS: &str = include_str!("../../../monitoring/alerts.yml");

/// Alerts that only Prometheus can see, since it misses the daemon.
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

/// Pages of which one condition holds; the file's head says how to read it.
const CASES: &str = include_str!("cases.txt");

/// Each alert with its severity, and a page of which it holds.
fn cases() -> Vec<(&'static str, String)> {
    let mut cases: Vec<(&str, String)> = Vec::new();
    for line in CASES
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let heading = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'));
        match (heading, cases.last_mut()) {
            (Some(heading), _) => cases.push((heading, String::new())),
            (None, Some((_, page))) if line.starts_with("renewd_") => {
                page.push_str(line);
                page.push('\n');
            }
            (None, _) => panic!("{line}"),
        }
    }
    assert_eq!(cases.len(), 28);
    cases
}

#[test]
fn each_condition_holds_by_its_own_numbers_with_its_alerts_severity() {
    let mut seen = BTreeSet::new();
    for (expected, page) in cases() {
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
        renewd_ejections_total{outcome=\"done\"} 9\nrenewd_ejections_total{outcome=\"retried\"} 9\n\
        renewd_log_dropped_total 0\nrenewd_connections{listener=\"a\"} 80\nrenewd_connections_max 100\n\
        renewd_store_mode{mode=\"shared\"} 1\nrenewd_store_mode{mode=\"local\"} 0\n\
        renewd_token_lapses_total{role=\"subscriber\",cause=\"silent\"} 5000\n";
    assert_eq!(found(quiet, &History::default()), []);
    let meant = "renewd_decision_mode{mode=\"observe\"} 1\n\
        renewd_decision_mode_ok_until_timestamp_seconds 1800000001\n";
    assert_eq!(found(meant, &History::default()), []);
}

#[test]
fn lapses_that_other_replicas_may_have_counted_too_are_the_least() {
    let lapses = "renewd_token_lapses_total{role=\"subscriber\",cause=\"refused\"} 25\n\
        renewd_token_lapses_total{role=\"publisher\",cause=\"silent\"} 1\n\
        renewd_sessions{role=\"subscriber\"} 975\n";
    let shared = "renewd_store_mode{mode=\"shared\"} 1\nrenewd_store_mode{mode=\"local\"} 0\n";
    let messages = |page: &str| {
        let found = conditions(page, &History::default(), HOUR, 1_800_000_000);
        let messages = found.into_iter().map(|condition| condition.message);
        messages.collect::<Vec<_>>()
    };
    let alone = messages(lapses);
    let of_several = messages(&format!("{lapses}{shared}"));
    assert_eq!(alone.len(), 2, "{alone:?}");
    assert!(alone[0].starts_with("1 publishers'"), "{alone:?}");
    assert!(alone[1].starts_with("2.5 % of the viewers"), "{alone:?}");
    let least: Vec<String> = alone
        .iter()
        .map(|said| format!("At least {said}"))
        .collect();
    assert_eq!(of_several, least);
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
    history.add(QUARTER * 3, Samples::parse(before).counts());
    assert_eq!(found(before, &history), []);
    let after = "renewd_log_dropped_total 8\n";
    assert_eq!(
        found(after, &history),
        [("RenewdLogLinesDropped", AlertSeverity::Warning)]
    );
}

#[test]
fn what_was_counted_before_the_first_sample_stays_a_condition_after_it() {
    let history = History::default();
    let page = "renewd_log_dropped_total 1\n";
    for moment in [Duration::from_millis(1), SAMPLE, SAMPLE * 2] {
        let found = conditions(page, &history, moment, 1_800_000_000);
        assert_eq!(found[0].alert, "RenewdLogLinesDropped");
        history.add(moment, Samples::parse(page).counts());
    }
}

#[test]
fn no_more_than_an_hour_is_remembered() {
    let history = History::default();
    for sample in 0..1000 {
        let counts = Samples::parse(&format!("renewd_log_dropped_total {sample}\n")).counts();
        history.add(SAMPLE * sample, counts);
    }
    let remembered = history.0.lock().len();
    assert_eq!(remembered, 241);
    let now = Samples::parse("renewd_log_dropped_total 999\n").counts();
    let increase = history.until(SAMPLE * 999, now);
    assert!((increase.of(Count::LogLinesDropped, HOUR) - 240.0).abs() < f64::EPSILON);
    assert!((increase.of(Count::LogLinesDropped, MINUTE) - 4.0).abs() < f64::EPSILON);
}
