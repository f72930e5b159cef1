//! `[[routes.block]]`: closed to the outside in every spelling, open to whom it names.

mod support;

use rustix::process::Signal;
use support::express::{Express, Version};
use support::raw::{Client, Response};
use support::renewd::{Renewd, Settings, configuration, login, private_file};

const RULES: &str = r#"
[[routes.block]]
path = "/wire/*"
allow = ["203.0.113.0/24", "2001:db8::7"]

[[routes.block]]
methods = ["POST"]
path = "/health"

[[routes.block]]
path = "/api/{any}/token"
"#;

fn settings(backend: &Express, rules: &str) -> Settings {
    Settings {
        backend: Some(backend.address),
        server: "trusted_proxies = [\"127.0.0.1\"]".to_owned(),
        tables: rules.to_owned(),
        ..Settings::default()
    }
}

fn ask(client: &mut Client, line: &str, forwarded_for: &str) -> Response {
    let request = format!(
        "{line} HTTP/1.1\r\nHost: api.test\r\nX-Forwarded-For: {forwarded_for}\r\nContent-Length: 0\r\n\r\n"
    );
    client.send(request.as_bytes()).expect("an answer")
}

fn is_blocked(response: &Response) -> bool {
    // The app's own 404 has no code.
    response.status == 404 && response.json()["code"] == "not_found"
}

#[test]
fn a_blocked_path_is_the_apps_unknown_route_in_every_spelling() {
    let backend = Express::start(Version::Four, &[]);
    let renewd = Renewd::start(&settings(&backend, RULES));
    let mut client = renewd.client();
    let unknown = ask(&mut Client::new(backend.address), "GET /unknown", "").json();
    for target in [
        "/wire",
        "/wire/seen",
        "/WIRE/Seen/",
        "/wire//seen",
        "//wire/seen",
        "/%77ire/seen",
        "/wire%2Fseen",
        "/api/../wire/seen?x",
        "http://elsewhere.test/wire/seen",
    ] {
        let answer = ask(&mut client, &format!("GET {target}"), "198.51.100.1");
        assert!(is_blocked(&answer), "{target}: {answer:?}");
        assert_eq!(answer.json()["message"], unknown["message"]);
        assert_eq!(answer.json()["success"], unknown["success"]);
        assert!(answer.header("x-request-id").is_some());
    }
    assert!(!is_blocked(&ask(&mut client, "GET /wired", "198.51.100.1")));
    let counted =
        renewd.metric(r#"renewd_http_requests_total{handler="reject",method="GET",code="4xx"}"#);
    assert!((counted - 9.0).abs() < f64::EPSILON, "{counted}");
}

#[test]
fn listed_methods_alone_are_blocked() {
    let backend = Express::start(Version::Four, &[]);
    let renewd = Renewd::start(&settings(&backend, RULES));
    assert!(is_blocked(&ask(&mut renewd.client(), "POST /health", "")));
    assert_eq!(ask(&mut renewd.client(), "GET /health", "").status, 200);
}

#[test]
fn allowed_clients_pass_and_nobody_can_claim_to_be_one() {
    let backend = Express::start(Version::Four, &[]);
    let renewd = Renewd::start(&settings(&backend, RULES));
    for (chain, passes) in [
        ("203.0.113.9", true),
        ("2001:db8::7", true),
        ("203.0.113.9, 198.51.100.1", false),
        ("2001:db8::8", false),
        ("", false),
    ] {
        let answer = ask(&mut renewd.client(), "GET /wire/seen", chain);
        assert_eq!(answer.status == 200, passes, "{chain}: {answer:?}");
    }
}

#[test]
fn a_token_path_can_be_closed_too() {
    let backend = Express::start(Version::Four, &[]);
    let renewd = Renewd::start(&settings(&backend, RULES));
    let body = r#"{"channelName":"live_show","uid":77}"#;
    let viewer = login("viewer");
    assert!(is_blocked(&renewd.post("/api/live/token", &viewer, body)));
    assert_eq!(renewd.post("/refresh-token", &viewer, body).status, 200);
}

#[test]
fn rules_are_hot() {
    let backend = Express::start(Version::Four, &[]);
    let renewd = Renewd::start(&settings(&backend, ""));
    let mut client = renewd.client();
    assert_eq!(ask(&mut client, "GET /wire/seen", "").status, 200);
    private_file(
        &renewd.file("config.toml"),
        &configuration(&settings(&backend, RULES)),
    );
    renewd.signal(Signal::HUP);
    renewd.eventually("the rule being in force", |_| {
        is_blocked(&ask(&mut client, "GET /wire/seen", ""))
    });
}
