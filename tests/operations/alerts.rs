//! The alerting rules: valid, firing when they should, and about metrics that a fresh daemon really exports.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that lacks something fails

use std::path::{Path, PathBuf};
use std::process::Command;

use renewd::telemetry::line_writer::DropCounter;
use renewd::telemetry::metrics::Metrics;
use renewd::telemetry::traffic_labels::{EjectionOutcome, SourceLabel};
use renewd::terms::clock::Clock;

fn monitoring(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("monitoring")
        .join(file)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(monitoring(file)).unwrap()
}

fn promtool(arguments: &[&str], file: &str) {
    let output = Command::new("promtool")
        .args(arguments)
        .arg(monitoring(file))
        .output()
        .expect("promtool (Debian package prometheus) is installed");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn promtool_accepts_the_rules() {
    promtool(&["check", "rules"], "alerts.yml");
}

#[test]
fn every_alert_fires_when_it_should_and_not_beside_it() {
    promtool(&["test", "rules"], "alerts_test.yml");
}

#[test]
fn every_alert_that_takes_hours_fires_when_it_should_and_not_beside_it() {
    promtool(&["test", "rules"], "alerts_slow_test.yml");
}

#[test]
fn every_alert_is_tested_and_says_what_to_do() {
    let rules = read("alerts.yml");
    let tests = read("alerts_test.yml") + &read("alerts_slow_test.yml");
    let mut alerts = 0;
    for rule in rules.split("- alert: ").skip(1) {
        alerts += 1;
        let (name, rule) = rule.split_once('\n').unwrap();
        assert!(
            tests.contains(&format!(
                "exp_samples:\n          - labels: ALERTS{{alertname=\"{name}\","
            )),
            "{name} never fires in a test"
        );
        assert!(
            stays_silent(&tests, name),
            "{name} always fires in its tests"
        );
        assert!(rule.contains("severity: "), "{name}");
        let annotated = rule.contains("annotations: *")
            || (rule.contains("summary: ") && rule.contains("description: "));
        assert!(annotated, "{name}");
    }
    assert!(alerts > 10, "{alerts}");
}

#[test]
fn every_condition_of_the_page_is_held_to_a_real_prometheus() {
    let tests = concat!(
        include_str!("prometheus.rs"),
        include_str!("alerts_of_replicas.rs"),
        include_str!("exposure.rs")
    );
    let lists = tests.split("agree(").skip(1);
    let agreed: String = lists.map(|rest| rest.split(");").next().unwrap()).collect();
    for rule in read("alerts.yml").split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap();
        // Prometheus alone knows that it can't scrape a daemon.
        let ours = !name.starts_with("RenewdTarget");
        assert_eq!(agreed.contains(&format!("\"{name}\"")), ours, "{name}");
    }
}

/// Whether a test expects that the alert doesn't fire.
fn stays_silent(tests: &str, name: &str) -> bool {
    let selected = format!("alertname=\"{name}\"}}");
    let mentions = tests.split(&selected).skip(1);
    mentions
        .map(|rest| rest.split("- expr: ").next().unwrap_or_default())
        .any(|rest| rest.contains("exp_samples: []"))
}

/// `name{label="value",other=~"a|b"}`, wherever a metric of renewd stands in the rules' text.
#[derive(Debug)]
struct Selector {
    name: String,
    matchers: Vec<(String, String, Vec<String>)>,
}

fn selectors(text: &str) -> Vec<Selector> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("renewd_") {
        let part_of_a_word = rest[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        rest = &rest[start..];
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        rest = after;
        if part_of_a_word {
            continue;
        }
        let matchers = match after
            .strip_prefix('{')
            .and_then(|after| after.split_once('}'))
        {
            // An annotation's template fills its labels in.
            Some((inside, _)) if inside.contains("'%s'") => Vec::new(),
            Some((inside, _)) => inside.split(',').map(matcher).collect(),
            None => Vec::new(),
        };
        found.push(Selector {
            name: name.to_owned(),
            matchers,
        });
    }
    found
}

fn matcher(text: &str) -> (String, String, Vec<String>) {
    let (head, value) = text.split_once('"').unwrap();
    let label = head.trim_end_matches(['=', '!', '~']);
    let values = value.trim_end_matches('"').split('|').map(str::to_owned);
    (
        label.to_owned(),
        head[label.len()..].to_owned(),
        values.collect(),
    )
}

#[test]
fn every_series_in_the_rules_exists_from_the_start() {
    let metrics = Metrics::new(&Clock::manual(0), DropCounter::default());
    let parts = (
        metrics.upstream("http://127.0.0.1:3001"),
        metrics.listener("[::]:3000"),
        metrics.source(SourceLabel::Streams),
        metrics.source(SourceLabel::Redis),
        metrics.store_mode(),
    );
    // With [agora.rest].
    metrics.ejections(EjectionOutcome::Done, 0);
    let page = metrics.render();
    drop(parts);
    let selectors = selectors(&read("alerts.yml"));
    assert!(selectors.len() > 30, "{}", selectors.len());
    for selector in &selectors {
        let samples: Vec<&str> = page
            .lines()
            .filter(|line| {
                line.strip_prefix(&selector.name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
            })
            .collect();
        assert!(!samples.is_empty(), "{selector:?} doesn't exist");
        for (label, operator, values) in &selector.matchers {
            for value in values {
                let wanted = format!("{label}=\"{value}\"");
                let others_hold = |sample: &str| {
                    selector
                        .matchers
                        .iter()
                        .filter(|(other, operator, _)| other != label && !operator.starts_with('!'))
                        .all(|(other, _, values)| {
                            values
                                .iter()
                                .any(|value| sample.contains(&format!("{other}=\"{value}\"")))
                        })
                };
                assert!(
                    matches!(operator.as_str(), "=" | "=~" | "!="),
                    "{operator} in {selector:?}"
                );
                let exists = |sample: &&str| {
                    sample.contains(&wanted) && (operator == "!=" || others_hold(sample))
                };
                assert!(
                    samples.iter().any(exists),
                    "{wanted} of {selector:?} doesn't exist"
                );
            }
        }
    }
}
