//! The series on the metrics page: from the start, after events, and after their subjects are gone.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that lacks something fails

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use renewd::agora::TokenFormat;
use renewd::io::descriptors::Shares;
use renewd::telemetry::labels::{Endpoint, Handler};
use renewd::telemetry::line_writer::DropCounter;
use renewd::telemetry::metrics::{Metrics, families};
use renewd::telemetry::traffic_labels::{
    EjectionOutcome, ParseErrorKind, ReissueOutcome, SourceLabel, UpstreamOutcome,
};
use renewd::terms::clock::Clock;
use renewd::terms::outcome::{LapseCause, LookupOutcome, Outcome, Scope};
use renewd::terms::role::Role;

const MILLISECOND: Duration = Duration::from_millis(1);

fn metrics() -> Arc<Metrics> {
    Metrics::new(&Clock::manual(1_800_000_000), DropCounter::default())
}

fn value(page: &str, series: &str) -> Option<f64> {
    page.lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .map(|value| value.parse().unwrap())
}

#[test]
fn every_token_request_series_exists_at_zero_from_the_start() {
    let page = metrics().render();
    for endpoint in Endpoint::ALL {
        for role in ["publisher", "subscriber", "unknown"] {
            for outcome in Outcome::ALL {
                let series = format!(
                    "renewd_token_requests_total{{endpoint=\"{}\",role=\"{role}\",outcome=\"{}\",class=\"{}\"}}",
                    endpoint.as_str(),
                    outcome.as_str(),
                    outcome.class().as_str()
                );
                assert_eq!(value(&page, &series), Some(0.0), "{series}");
            }
        }
    }
}

#[test]
fn a_request_counts_in_its_own_series_and_in_no_other() {
    let metrics = metrics();
    metrics.token_request(
        Endpoint::Refresh,
        Some(Role::Publisher),
        Outcome::Unavailable,
        MILLISECOND,
    );
    metrics.token_request(Endpoint::Token, None, Outcome::Unauthenticated, MILLISECOND);
    metrics.token_issued(Endpoint::Token, Role::Subscriber, TokenFormat::V006, true);
    metrics.token_issued(Endpoint::Token, Role::Subscriber, TokenFormat::V006, false);
    let page = metrics.render();
    let counted: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("renewd_token") || line.starts_with("renewd_wildcard"))
        .filter(|line| !line.contains("_duration_") && !line.ends_with(" 0"))
        .collect();
    assert_eq!(
        counted,
        [
            "renewd_token_requests_total{endpoint=\"refresh\",role=\"publisher\",outcome=\"unavailable\",class=\"failed\"} 1",
            "renewd_token_requests_total{endpoint=\"token\",role=\"unknown\",outcome=\"unauthenticated\",class=\"client\"} 1",
            "renewd_tokens_issued_total{endpoint=\"token\",role=\"subscriber\",format=\"006\"} 2",
            "renewd_wildcard_tokens_issued_total{endpoint=\"token\",role=\"subscriber\",format=\"006\"} 1",
        ]
    );
    let duration = "renewd_token_request_duration_seconds";
    let bucket = |bound| format!("{duration}_bucket{{endpoint=\"refresh\",le=\"{bound}\"}}");
    assert_eq!(value(&page, &bucket("0.0005")), Some(0.0));
    assert_eq!(value(&page, &bucket("0.001")), Some(1.0));
    assert_eq!(value(&page, &bucket("+Inf")), Some(1.0));
}

#[test]
fn what_clients_and_backends_send_never_becomes_a_label() {
    let metrics = metrics();
    for text in ["BREW", "X-SUBJECT-42", "GETGET"] {
        let method = Method::from_bytes(text.as_bytes()).unwrap();
        for code in 100..1000 {
            let status = StatusCode::from_u16(code).ok();
            metrics.http_request(Handler::Forward, &method, status, MILLISECOND);
            metrics.shadow_decision(Outcome::Ok, status);
        }
        metrics.http_request(Handler::Forward, &method, None, MILLISECOND);
        metrics.shadow_decision(Outcome::NotOwner, None);
    }
    let page = metrics.render();
    let values = |label: &str| -> BTreeSet<String> {
        page.lines()
            .filter_map(|line| line.split_once(&format!("{label}=\""))?.1.split_once('"'))
            .map(|(value, _)| value.to_owned())
            .collect()
    };
    assert_eq!(
        values("method").into_iter().collect::<Vec<_>>(),
        ["GET", "POST", "other"]
    );
    assert_eq!(
        values("code").into_iter().collect::<Vec<_>>(),
        ["1xx", "2xx", "3xx", "4xx", "5xx", "none"]
    );
    assert_eq!(
        values("backend").into_iter().collect::<Vec<_>>(),
        ["1xx", "2xx", "3xx", "4xx", "5xx", "error"]
    );
}

#[test]
fn the_series_of_a_removed_server_go_and_come_back_where_they_stopped() {
    let metrics = metrics();
    let (old, kept) = (
        metrics.upstream("http://old:1"),
        metrics.upstream("http://kept:2"),
    );
    old.request(UpstreamOutcome::Ok, MILLISECOND);
    old.up(false);
    kept.retry();
    let series = "renewd_upstream_requests_total{server=\"http://old:1\",outcome=\"ok\"}";
    assert_eq!(value(&metrics.render(), series), Some(1.0));

    let pinned_by_a_body = Arc::clone(&old);
    drop(old);
    assert!(metrics.render().contains("http://old:1"));
    drop(pinned_by_a_body);
    metrics.upkeep();
    let page = metrics.render();
    assert!(!page.contains("http://old:1"), "{page}");
    assert_eq!(
        value(
            &page,
            "renewd_upstream_retries_total{server=\"http://kept:2\"}"
        ),
        Some(1.0)
    );

    let back = metrics.upstream("http://old:1");
    let page = metrics.render();
    assert_eq!(value(&page, series), Some(1.0));
    assert_eq!(
        value(&page, "renewd_upstream_up{server=\"http://old:1\"}"),
        Some(1.0)
    );
    drop(back);
}

#[test]
fn connections_and_tunnels_count_up_and_down() {
    let metrics = metrics();
    let listener = metrics.listener("[::]:3000");
    listener.connection_opened();
    listener.tunnel_opened();
    let open = "renewd_connections{listener=\"[::]:3000\"}";
    let tunnels = "renewd_tunnels{listener=\"[::]:3000\"}";
    let page = metrics.render();
    assert_eq!(
        (value(&page, open), value(&page, tunnels)),
        (Some(1.0), Some(1.0))
    );
    listener.connection_closed();
    listener.tunnel_closed();
    let page = metrics.render();
    assert_eq!(
        (value(&page, open), value(&page, tunnels)),
        (Some(0.0), Some(0.0))
    );
}

#[test]
fn two_instances_in_one_process_count_apart() {
    let (one, other) = (metrics(), metrics());
    one.rate_limited(Scope::Global);
    let series = "renewd_rate_limited_total{scope=\"global\"}";
    assert_eq!(value(&one.render(), series), Some(1.0));
    assert_eq!(value(&other.render(), series), Some(0.0));
}

#[test]
fn a_failed_reload_keeps_the_time_of_the_last_success() {
    let clock = Clock::manual(1_800_000_000);
    let metrics = Metrics::new(&clock, DropCounter::default());
    let shown = |metrics: &Metrics| {
        let page = metrics.render();
        (
            value(&page, "renewd_config_last_reload_successful"),
            value(&page, "renewd_config_last_reload_success_timestamp_seconds"),
        )
    };
    assert_eq!(shown(&metrics), (Some(1.0), Some(1_800_000_000.0)));
    clock.advance(Duration::from_mins(1));
    metrics.config_reload(false);
    assert_eq!(shown(&metrics), (Some(0.0), Some(1_800_000_000.0)));
    metrics.config_reload(true);
    assert_eq!(shown(&metrics), (Some(1.0), Some(1_800_000_060.0)));
}

/// The metrics page after everything that can be recorded was recorded once.
fn recorded_everything() -> String {
    let metrics = metrics();
    metrics.token_request(Endpoint::Token, None, Outcome::Ok, MILLISECOND);
    metrics.shadow_decision(Outcome::Ok, Some(StatusCode::OK));
    metrics.sessions(Role::Publisher, 3);
    metrics.rate_limit_keys(Scope::Address, 4);
    metrics.rate_limit_overflow(Scope::Address, 5);
    let source = metrics.source(SourceLabel::Streams);
    source.lookup(LookupOutcome::Miss, MILLISECOND);
    source.up(false);
    metrics.parse_error(ParseErrorKind::Host);
    metrics.descriptor_shares(&Shares::of(65_536, 20_000));
    metrics.config_restart_required(true);
    metrics.config_fallback(true);
    metrics.config_hash((1 << 48) - 1);
    metrics.state_writable(false);
    metrics.state_damaged(true);
    metrics.token_lapse(Role::Publisher, LapseCause::Refused);
    let _store = metrics.store_mode();
    metrics.ejections(EjectionOutcome::Done, 1);
    let route = metrics.reissue("/api/live/active");
    route.token(ReissueOutcome::Replaced);
    let upstream = metrics.upstream("http://127.0.0.1:3001");
    upstream.request(UpstreamOutcome::ServerError, MILLISECOND);
    let listener = metrics.listener("unix:/run/a\"b\\c\n");
    listener.accept_error();
    listener.forwarded_headers_dropped();
    metrics.http_request(
        Handler::Live,
        &Method::POST,
        Some(StatusCode::OK),
        MILLISECOND,
    );
    let page = metrics.render();
    drop((upstream, listener, source, route));
    page
}

#[test]
fn every_family_is_exported_with_its_help() {
    let page = recorded_everything();
    for family in families::ALL {
        assert!(
            page.contains(&format!("# HELP {} ", family.name)),
            "{}",
            family.name
        );
    }
    assert_eq!(
        value(&page, "renewd_config_hash"),
        Some(281_474_976_710_655.0)
    );
    assert_eq!(
        value(
            &page,
            "renewd_accept_errors_total{listener=\"unix:/run/a_b_c_\"}"
        ),
        Some(1.0)
    );
}

#[test]
fn promtool_finds_nothing_to_improve() {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool (Debian package prometheus) is installed");
    let page = recorded_everything();
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(page.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
