//! The answers of the admin listener and of `server.health_path` about the running daemon, in order and in trouble.

use std::fs;
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::support::express::{Express, Version};
use crate::support::lifecycle::replace_file;
use crate::support::raw::{Client, Response};
use crate::support::renewd::{Renewd, STREAMS, Settings, login};

fn get(renewd: &Renewd, target: &str) -> Response {
    let request = format!("GET {target} HTTP/1.1\r\nHost: example.com\r\n\r\n");
    Client::new(renewd.public)
        .send(request.as_bytes())
        .expect("an answer")
}

/// `/readyz`: status, reason, what is degraded.
fn ready(renewd: &Renewd, target: &str) -> (u16, String, serde_json::Value) {
    let answer = renewd.ask_admin_as("", "GET", target, "");
    let body = answer.json();
    assert_eq!(body["ready"], answer.status == 200);
    (
        answer.status,
        body["reason"].as_str().unwrap().to_owned(),
        body["degraded"].clone(),
    )
}

#[test]
fn a_daemon_in_order_says_so_everywhere() {
    let backend = Express::start(Version::Five, &[]);
    let renewd = Renewd::start(&Settings {
        backend: Some(backend.address),
        server: "health_path = \"/ready\"".to_owned(),
        ..Settings::default()
    });
    assert_eq!(renewd.ask_for_token().status, 200);
    assert_eq!(get(&renewd, "/health").status, 200);

    assert_eq!(renewd.ask_admin_as("", "GET", "/healthz", "").status, 200);
    assert_eq!(ready(&renewd, "/readyz"), (200, "ok".to_owned(), json!([])));
    assert_eq!(
        ready(&renewd, "/readyz?tokens"),
        (200, "ok".to_owned(), json!([]))
    );
    assert_eq!(get(&renewd, "/ready").status, 200);

    let server = format!("http://{}", backend.address);
    metrics_are_in_order(&renewd, &server);
    status_is_in_order(&renewd, &server);
}

fn metrics_are_in_order(renewd: &Renewd, server: &str) {
    let page = renewd.metrics();
    for series in [
        "renewd_config_last_reload_successful 1",
        "renewd_config_restart_required 0",
        "renewd_config_fallback 0",
        "renewd_state_writable 1",
        "renewd_source_up{source=\"streams\"} 1",
        "renewd_log_dropped_total 0",
        "renewd_http_requests_total{handler=\"live\",method=\"POST\",code=\"2xx\"} 1",
        "renewd_http_requests_total{handler=\"forward\",method=\"GET\",code=\"2xx\"} 1",
        "renewd_http_requests_total{handler=\"health\",method=\"GET\",code=\"2xx\"} 1",
        &format!("renewd_upstream_up{{server=\"{server}\"}} 1"),
    ] {
        assert!(
            page.lines().any(|line| line == series),
            "no {series} in\n{page}"
        );
    }
    // One that is answered at once takes time too.
    for (handler, method) in [("live", "POST"), ("forward", "GET"), ("health", "GET")] {
        let labels = format!("{{handler=\"{handler}\",method=\"{method}\",code=\"2xx\"}}");
        let sum = format!("renewd_http_request_duration_seconds_sum{labels}");
        assert!(renewd.metric(&sum) > 0.0, "no {sum} in\n{page}");
    }
    renewd.eventually("gauges follow", |renewd| {
        renewd.whole("renewd_sessions{role=\"subscriber\"}") > 0
    });
}

fn status_is_in_order(renewd: &Renewd, server: &str) {
    let status = renewd.status();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&status["phase"], &status["mode"]),
        (&json!("running"), &json!("enforce"))
    );
    let took = |value: &Value| value["latency_ms"].as_f64().unwrap();
    // It may take long on a busy machine, but not more than a request may.
    assert!((0.0..60_000.0).contains(&took(&status["upstreams"][0])));
    let without_times = |list: &str| {
        let mut list = status[list].clone();
        for entry in list.as_array_mut().unwrap() {
            entry.as_object_mut().unwrap().remove("latency_ms");
        }
        list
    };
    let upstreams = without_times("upstreams");
    assert_eq!(upstreams, json!([{"server": server, "up": true}]));
    assert_eq!(
        without_times("sources"),
        json!([{
            "source": "streams",
            "up": true,
            "error": null,
            "down_since": null,
            "rest_until": null
        }])
    );
    assert_eq!(
        status["sessions"],
        json!({"publishers": 0, "subscribers": 1})
    );
    let config = &status["config"];
    assert_eq!(config["path"], renewd.file("config.toml").to_str().unwrap());
    assert_eq!(config["last_reload_successful"], true);
    let hash = u64::from_str_radix(config["hash"].as_str().unwrap(), 16).unwrap();
    assert_eq!(renewd.whole("renewd_config_hash"), hash);
}

#[test]
fn the_page_gets_the_traffic_of_the_last_hour_with_what_each_refusal_means() {
    let renewd = Renewd::start(&Settings::default());
    for (subject, body, status) in [
        ("viewer", r#"{"channelName":"live_show","uid":1}"#, 200),
        (
            "owner",
            r#"{"channelName":"live_show","uid":2,"role":"publisher"}"#,
            200,
        ),
        (
            "stranger",
            r#"{"channelName":"live_show","uid":3,"role":"publisher"}"#,
            403,
        ),
        ("viewer", "{", 400),
    ] {
        let answer = renewd.post("/api/live/token", &login(subject), body);
        assert_eq!(answer.status, status);
    }
    let read = || renewd.ask_admin("GET", "/v1/traffic", "").json();
    let report = read();
    assert_eq!(report["answered"], 1.0);
    assert_eq!(report["publishers_answered"], 1.0);
    let refusals: Vec<(&str, u64, u64)> = report["refusals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|refusal| {
            assert!(refusal["meaning"].as_str().unwrap().ends_with('.'));
            let count = |name| refusal[name].as_u64().unwrap();
            let code = refusal["code"].as_str().unwrap();
            (code, count("count"), count("publishers"))
        })
        .collect();
    assert_eq!(refusals, [("invalid_request", 1, 0), ("not_owner", 1, 1)]);
    // The step that these requests came in ends within a quarter of a minute.
    renewd.eventually("a step with the requests", |_| {
        let points = &read()["points"];
        let sum = |name| {
            let counts = points[name].as_array().unwrap().iter();
            counts.filter_map(Value::as_u64).sum::<u64>()
        };
        (
            sum("refreshes"),
            sum("others"),
            sum("refused"),
            sum("failed"),
        ) == (0, 2, 2, 0)
    });
}

#[test]
fn the_status_says_why_a_server_is_down_and_which_line_puts_a_condition_right() {
    // The usual test configuration has a backend that refuses every connection.
    let renewd = Renewd::start(&Settings {
        token: "lifetime = \"3h\"".to_owned(),
        ..Settings::default()
    });
    let proxied = b"GET / HTTP/1.1\r\nHost: example.com\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n";
    let dropped = "RenewdForwardedHeadersDropped";
    renewd.eventually(dropped, |renewd| {
        assert_eq!(renewd.client().send(proxied).unwrap().status, 502);
        renewd.status()["conditions"].to_string().contains(dropped)
    });
    replace_file(&renewd.file("config.toml"), "[server\n");
    assert_eq!(renewd.reload().status, 422);
    let status = renewd.status();
    let server = &status["upstreams"][0];
    assert_eq!(server["reason"], "it took no connection when last tried");
    let remedy = |alert: &str| {
        let conditions = status["conditions"].as_array().unwrap().iter();
        let found = conditions
            .clone()
            .find(|condition| condition["alert"] == alert);
        found.unwrap_or_else(|| panic!("no {alert}"))["remedy"].clone()
    };
    assert_eq!(
        remedy("RenewdForwardedHeadersDropped"),
        "[server] trusted_proxies = [\"127.0.0.1\"]"
    );
    let check = format!(
        "renewd check --config {}",
        renewd.file("config.toml").display()
    );
    assert_eq!(remedy("RenewdReloadFailed"), check);
    assert_eq!(remedy("RenewdUpstreamDown"), Value::Null);
    let warnings = status["config"]["warnings"].as_array().unwrap();
    let named = |warning: &Value| warning["key"] == "token.lifetime" && warning["hint"].is_string();
    assert!(warnings.iter().any(named), "{warnings:#?}");
}

#[test]
fn the_status_needs_the_token_and_probes_need_none() {
    let renewd = Renewd::start(&Settings::default());
    for (target, status) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/v1/status", 401),
        ("/v1/traffic", 401),
        ("/v1/anything", 401),
    ] {
        assert_eq!(
            renewd.ask_admin_as("", "GET", target, "").status,
            status,
            "{target}"
        );
    }
    assert_eq!(
        get(&renewd, "/metrics").status,
        502,
        "nothing of it is on the public port"
    );
}

#[test]
fn a_source_that_is_down_degrades_and_fails_only_probes_for_tokens() {
    let renewd = Renewd::start(&Settings {
        server: "health_path = \"/ready\"".to_owned(),
        ..Settings::default()
    });
    let file = renewd.file("streams.toml");
    fs::remove_file(&file).unwrap();
    let up = |renewd: &Renewd| renewd.whole("renewd_source_up{source=\"streams\"}") > 0;
    renewd.eventually("the loss is noticed", |renewd| !up(renewd));
    let degraded = json!(["streams"]);
    assert_eq!(
        ready(&renewd, "/readyz"),
        (200, "degraded".to_owned(), degraded.clone())
    );
    assert_eq!(
        ready(&renewd, "/readyz?tokens"),
        (503, "degraded".to_owned(), degraded)
    );
    assert_eq!(get(&renewd, "/ready").status, 200, "the site still works");
    let source = &renewd.status()["sources"][0];
    assert_eq!(source["up"], false);
    assert!(
        source["error"].as_str().unwrap().contains("streams.toml"),
        "{source}"
    );
    assert_eq!(renewd.ask_for_token().status, 503);

    replace_file(&file, STREAMS);
    renewd.eventually("it is back", up);
    assert_eq!(
        ready(&renewd, "/readyz?tokens"),
        (200, "ok".to_owned(), json!([]))
    );
    assert_eq!(renewd.ask_for_token().status, 200);

    // An invalid streams file degrades readiness too, but the last valid streams stay in force.
    replace_file(&file, "[[stream]]\nchanel = \"x\"\n");
    renewd.eventually("it is noticed", |renewd| !up(renewd));
    assert_eq!(ready(&renewd, "/readyz").1, "degraded");
    assert_eq!(renewd.ask_for_token().status, 200);
    let lines = renewd.log().lines();
    let why = lines.iter().filter_map(|line| line["msg"].as_str());
    assert!(
        why.clone().any(|said| said.contains("streams.toml:2:1: ")),
        "{:?}",
        why.collect::<Vec<_>>()
    );
}

#[test]
fn a_backend_that_went_away_is_noticed_and_its_return_too_without_any_request() {
    // A port that was free just now, on which the test listens later.
    let reserved = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let renewd = Renewd::start(&Settings {
        backend: Some(address),
        server: "health_path = \"/ready\"".to_owned(),
        ..Settings::default()
    });
    let up = || {
        renewd.whole(&format!(
            "renewd_upstream_up{{server=\"http://{address}\"}}"
        ))
    };
    assert_eq!(
        ready(&renewd, "/readyz").0,
        200,
        "taken to be there until tried"
    );
    assert_eq!(up(), 1);

    assert_eq!(get(&renewd, "/health").status, 502);
    assert_eq!(
        ready(&renewd, "/readyz"),
        (503, "no upstream reachable".to_owned(), json!([]))
    );
    assert_eq!(get(&renewd, "/ready").status, 503);
    assert_eq!(up(), 0);
    assert_eq!(renewd.status()["upstreams"][0]["up"], false);
    let body = r#"{"channelName":"live_show","uid":7}"#;
    let tokens = renewd.post("/api/live/token", &login("viewer"), body);
    assert_eq!(tokens.status, 200, "tokens need no backend");

    let _back = TcpListener::bind(address).unwrap();
    renewd.eventually("it is back", |renewd| ready(renewd, "/readyz").0 == 200);
    renewd.eventually("the metric follows", |_| up() > 0);
    assert_eq!(get(&renewd, "/ready").status, 200);
    assert_eq!(renewd.status()["upstreams"][0]["up"], true);
    for said in [
        "the backend is not reachable",
        "the backend is reachable again",
    ] {
        renewd
            .log()
            .wait(said, |line| (line["msg"] == said).then_some(()));
    }
}
