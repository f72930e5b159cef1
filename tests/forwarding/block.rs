//! `[[routes.block]]`: a blocked route is closed to the outside in every spelling, and open to the addresses that the
//! rule names.

use std::collections::BTreeSet;
use std::thread;

use crate::support::express::{Express, Version};
use crate::support::pages::FORWARDING;
use crate::support::raw::{Client, Response};
use crate::support::renewd::{Renewd, Settings, configuration, login, private_file};
use crate::support::targets::spelled;
use http::{Method, Uri};
use renewd::http::block::BlockRule;
use renewd::http::readings::Readings;
use renewd::http::target::origin_form;
use rustix::process::Signal;

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
        "/wire/..",
        "/wire/../x",
        "/wire/%2e%2e/z",
        "/wire/..%2f",
        "/wire/x/../../y",
        "http://elsewhere.test/wire/../q",
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
    assert!((counted - 15.0).abs() < f64::EPSILON, "{counted}");
}

#[test]
fn listed_methods_alone_are_blocked() {
    let backend = Express::start(Version::Four, &[]);
    let renewd = Renewd::start(&settings(&backend, RULES));
    assert!(is_blocked(&ask(&mut renewd.client(), "POST /health", "")));
    assert_eq!(ask(&mut renewd.client(), "GET /health", "").status, 200);
}

#[test]
fn a_method_that_the_backend_may_take_another_for_is_blocked_as_that() {
    let backend = Express::start(Version::Four, &[]);
    let mut settings = settings(&backend, RULES);
    settings.tables += "[routes]\nmethod_override = [\"header\", \"query:_method\"]\n";
    let renewd = Renewd::start(&settings);
    let disguised =
        "GET /health HTTP/1.1\r\nHost: api.test\r\nX-HTTP-Method-Override: POST\r\n\r\n";
    let answer = renewd
        .client()
        .send(disguised.as_bytes())
        .expect("an answer");
    assert!(is_blocked(&answer), "{answer:?}");
    assert!(is_blocked(&ask(
        &mut renewd.client(),
        "GET /health?_method=POST",
        ""
    )));
    assert_eq!(
        ask(&mut renewd.client(), "GET /health?method=POST", "").status,
        200
    );
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

// === what Express routes, asked ===

/// The handlers of `closed.js`, each with the rule that closes it and a path that comes to it.
const HANDLERS: [(&str, &str, &str); 9] = [
    ("exact", "/exact/secret", "/exact/secret"),
    ("mount", "/internal/*", "/internal"),
    ("router", "/nested/inner", "/nested/inner"),
    ("wildcard", "/files/*", "/files/a"),
    ("parameter", "/debug/{what}", "/debug/heap"),
    ("parameter inside", "/users/{id}/keys", "/users/7/keys"),
    ("expression", "/reports/*", "/reports/1"),
    (
        "static below a mount",
        "/assets/private/*",
        "/assets/private/secret.txt",
    ),
    ("static", "/private/*", "/private/secret.txt"),
];

/// Every kind of target that is refused although neither Express routes it to the handler behind the rule;
/// docs/forwarding.md lists them.
const REFUSED_FOR_NOTHING: [&str; 10] = [
    "an authority in the path",
    "a backslash",
    "a dot segment",
    "an empty segment",
    "an escaped backslash",
    "an escaped letter",
    "an escaped slash",
    "a file that isn't there",
    "another letter case of a file's name",
    "several segments for a name in braces",
];

fn kind(target: &str, handler: &str) -> &'static str {
    let path = target.split('?').next().unwrap_or_default().to_lowercase();
    let spelled_as = [
        ("\\", "a backslash"),
        ("%5c", "an escaped backslash"),
        ("%2f", "an escaped slash"),
        ("//u@h", "an authority in the path"),
    ];
    if let Some((_, kind)) = spelled_as.iter().find(|(part, _)| path.contains(part)) {
        return kind;
    }
    let is_dots = |segment: &str| matches!(&*segment.replace("%2e", "."), "." | "..");
    if path.split('/').any(is_dots) {
        "a dot segment"
    } else if path.contains("//") {
        "an empty segment"
    } else if path.contains('%') {
        "an escaped letter"
    } else if handler.starts_with("parameter") {
        "several segments for a name in braces"
    } else if !handler.starts_with("static") {
        "something else"
    } else if target.contains(|character: char| character.is_ascii_uppercase()) {
        "another letter case of a file's name"
    } else {
        "a file that isn't there"
    }
}

/// The handler to which this Express routes each target, as it would be forwarded; "" for none.
fn handlers_reached(version: Version, targets: &[String]) -> Vec<String> {
    let express = Express::closed(version);
    let mut client = Client::new(express.address);
    let reached = |target: &String| {
        let uri: Uri = target.parse().expect("a target");
        let origin = origin_form(&uri).expect("a path");
        let request = format!("GET {origin} HTTP/1.1\r\nHost: app.test\r\n\r\n");
        let answer = client.send(request.as_bytes()).expect("an answer");
        answer.header("x-reached").unwrap_or_default().to_owned()
    };
    targets.iter().map(reached).collect()
}

/// Targets by the grammar of `support/targets.rs`, and those that once passed, as far as the parser takes them: a
/// target that the parser refuses gets 400 and never comes to a rule.
fn targets_to_try() -> Vec<String> {
    let mut targets = BTreeSet::new();
    for (_, _, path) in HANDLERS {
        spelled(path, &mut targets);
    }
    let known = include_str!("../vectors/targets_past_a_block.txt").lines();
    let known = known.filter(|line| !line.starts_with('#'));
    targets.extend(known.map(str::to_owned));
    targets.retain(|target| {
        target
            .parse::<Uri>()
            .is_ok_and(|uri| uri.path().starts_with('/'))
    });
    targets.into_iter().collect()
}

/// The handlers that each target reaches in Express 4 and in Express 5.
fn reached_in_both(targets: &[String]) -> [Vec<String>; 2] {
    thread::scope(|scope| {
        let runs = [Version::Four, Version::Five]
            .map(|version| scope.spawn(move || handlers_reached(version, targets)));
        runs.map(|run| run.join().expect("a run"))
    })
}

/// Holds that targets are refused for nothing in the documented ways, and in no other.
fn assert_documented(for_nothing: &[(&str, &String)]) {
    let kinds: BTreeSet<&str> = for_nothing.iter().map(|(kind, _)| *kind).collect();
    let examples: Vec<_> = kinds
        .iter()
        .map(|kind| {
            let mut of_kind = for_nothing.iter().filter(|(found, _)| found == kind);
            (kind, of_kind.clone().count(), of_kind.next())
        })
        .collect();
    assert_eq!(kinds, BTreeSet::from(REFUSED_FOR_NOTHING), "{examples:#?}");
    let documented = FORWARDING.split_whitespace().collect::<Vec<_>>().join(" ");
    for kind in REFUSED_FOR_NOTHING {
        assert!(
            documented.contains(kind),
            "docs/forwarding.md doesn't say: {kind}"
        );
    }
}

#[test]
fn no_target_that_express_brings_to_a_closed_handler_passes() {
    let targets = targets_to_try();
    assert!(targets.len() > 10_000, "only {} targets", targets.len());
    let [four, five] = reached_in_both(&targets);
    let rules =
        HANDLERS.map(|(name, path, _)| (name, BlockRule::new(path, Vec::new(), Vec::new())));
    let mut reached = vec![0; rules.len()];
    let mut passed = Vec::new();
    let mut for_nothing: Vec<(&str, &String)> = Vec::new();
    for ((target, four), five) in targets.iter().zip(&four).zip(&five) {
        let uri: Uri = target.parse().expect("a target");
        let readings = Readings::of(uri.path());
        for ((name, rule), count) in rules.iter().zip(&mut reached) {
            let refused = rule.refuses(&Method::GET, &readings, None, || false);
            let routed = four == name || five == name;
            *count += usize::from(routed);
            if routed && !refused {
                passed.push((*name, target));
            }
            if refused && !routed {
                for_nothing.push((kind(target, name), target));
            }
        }
    }
    assert!(passed.is_empty(), "passed: {passed:#?}");
    // Each handler was reached; those that are compared as written were reached in few ways.
    assert!(reached.iter().all(|count| *count > 5), "{reached:?}");
    assert_documented(&for_nothing);
}
