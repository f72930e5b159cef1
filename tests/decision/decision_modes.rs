//! Trying renewd out and going back: one line in the file decides whether renewd or the backend answers token requests,
//! and saving the file is enough.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test's way to fail

use crate::support;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::support::app::{self, ASTROLOGER, CHANNEL, VIEWER, send};
use crate::support::conversation::{Conversation, chunked, request};
use crate::support::express::{Express, Version};
use crate::support::raw::Response;
use crate::support::renewd::{Renewd, Settings, configuration, login, private_file};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// A route of the app that tells what arrived, as a token path: the app's answers can't be mistaken for renewd's.
const SEEN: &str = "/wire/seen";

fn settings(app: &Express, decision: &str) -> Settings {
    Settings {
        jwt: String::new(),
        tables: format!(
            "[decision]\n{decision}\n\n[routes]\ntoken = [\"{SEEN}\", \"/api/live/token\"]\n\n"
        ),
        ..app::settings(app)
    }
}

fn started(decision: &str) -> (Express, Renewd) {
    let app = app::start(Version::Four);
    let renewd = Renewd::start(&settings(&app, decision));
    (app, renewd)
}

/// Saves the configuration with another decision, as an operator would, and waits until it is in force.
fn save(renewd: &Renewd, settings: &Settings) {
    let hash = |renewd: &Renewd| {
        let page = renewd.metrics();
        let line = page
            .lines()
            .find(|line| line.starts_with("renewd_config_hash"));
        line.expect("the configuration's hash").to_owned()
    };
    let before = hash(renewd);
    private_file(&renewd.file("config.toml"), &configuration(settings));
    renewd.eventually("the saved configuration is in force", |renewd| {
        hash(renewd) != before
    });
}

fn headers(login: &str) -> String {
    format!("Authorization: Bearer {login}\r\nContent-Type: application/json\r\n")
}

/// Asks as the stream's owner, with the uid of the owner's publisher token.
fn publish(renewd: &Renewd, path: &str, login: &str) -> Response {
    let body = json!({"channelName": CHANNEL, "uid": 1, "role": "publisher"});
    let asked = request("POST", path, &headers(login), &body.to_string());
    send(renewd.public, &asked)
}

fn ask(renewd: &Renewd, path: &str, login: &str) -> Response {
    let body = json!({"channelName": CHANNEL, "uid": 77, "role": "subscriber"});
    let asked = request("POST", path, &headers(login), &body.to_string());
    send(renewd.public, &asked)
}

fn is_ours(answer: &Response) -> bool {
    answer.json().get("sha256").is_none()
}

/// Every series of `renewd_shadow_decisions_total` and its value.
fn shadow_decisions(renewd: &Renewd) -> BTreeMap<String, String> {
    let page = renewd.metrics();
    let series = page
        .lines()
        .filter_map(|line| line.strip_prefix("renewd_shadow_decisions_total"));
    series
        .filter_map(|line| line.split_once(' '))
        .map(|(labels, value)| (labels.to_owned(), value.to_owned()))
        .collect()
}

fn shadow(outcome: &str, backend: &str) -> String {
    format!("{{outcome=\"{outcome}\",backend=\"{backend}\"}}")
}

// === observe ===

#[test]
fn while_observing_the_backend_gets_the_request_as_it_came() {
    let (_app, renewd) = started("mode = \"observe\"");
    let valid = json!({"channelName": CHANNEL, "uid": 77}).to_string();
    let filler = |length: usize| -> String { ('a'..='z').cycle().take(length).collect() };
    let bodies = [
        String::new(),
        valid,
        "not JSON".to_owned(),
        filler(16 * 1024),
        filler(16 * 1024 + 1),
        filler(300_000),
    ];
    for body in bodies {
        let digest = Sha256::digest(body.as_bytes());
        let digest = digest.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        let fields = format!("{}X-Kept: yes\r\n", headers(&login(VIEWER)));
        let in_chunks = |size| {
            let fields = format!("{fields}Transfer-Encoding: chunked\r\n");
            let head = request("POST", "/Wire//Seen/?a=%20b", &fields, "");
            [head, chunked(body.as_bytes(), size)].concat()
        };
        let with_length = request("POST", "/Wire//Seen/?a=%20b", &fields, &body);
        for (name, request) in [
            ("length", with_length),
            ("one chunk", in_chunks(1_000_000)),
            ("chunks", in_chunks(1000)),
        ] {
            let name = format!("{} bytes, {name}", body.len());
            let answer = send(renewd.public, &request);
            assert_eq!(answer.status, 200, "{name}");
            let seen = answer.json();
            assert_eq!(seen["method"], "POST", "{name}");
            assert_eq!(seen["url"], "/Wire//Seen/?a=%20b", "{name}");
            assert_eq!(seen["length"], body.len(), "{name}");
            assert_eq!(seen["sha256"], digest, "{name}");
            let raw = seen["headers"].as_array().unwrap();
            assert!(raw.iter().any(|header| header == "yes"), "{name}");
        }
    }
}

#[test]
fn while_observing_a_body_that_waits_for_100_continue_is_asked_for_once() {
    let (_app, renewd) = started("mode = \"observe\"");
    let fields = format!("{}Expect: 100-continue\r\n", headers(&login(VIEWER)));
    let body = "x".repeat(40_000);
    let whole = request("POST", SEEN, &fields, &body);
    let (head, body) = whole.split_at(whole.len() - body.len());
    let mut conversation = Conversation::open(renewd.public);
    conversation.write(head);
    // A body that is too large by its announced length is forwarded unread: the connection to the backend asks for it.
    assert_eq!(conversation.response().map(|it| it.status), Some(100));
    conversation.write(body);
    let answer = conversation.response().expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["length"], 40_000);
}

#[test]
fn while_observing_our_outcome_is_counted_beside_the_backends_answer() {
    let (app, renewd) = started("mode = \"observe\"");
    assert_eq!(shadow_decisions(&renewd), BTreeMap::new());
    let viewer = login(VIEWER);
    assert_eq!(ask(&renewd, SEEN, &viewer).status, 200);
    assert_eq!(ask(&renewd, SEEN, &viewer).status, 200);
    // There is no account of that name: the app says 401 where renewd would grant a token.
    assert_eq!(ask(&renewd, "/api/live/token", &viewer).status, 401);
    assert_eq!(ask(&renewd, SEEN, "nonsense").status, 200);
    let empty = request("POST", SEEN, &headers(&viewer), "{}");
    assert_eq!(send(renewd.public, &empty).status, 200);
    let large = request("POST", SEEN, &headers(&viewer), &"x".repeat(20_000));
    assert_eq!(send(renewd.public, &large).status, 200);
    let publisher = json!({"channelName": CHANNEL, "role": "publisher"}).to_string();
    let publisher = request("POST", SEEN, &headers(&viewer), &publisher);
    assert_eq!(send(renewd.public, &publisher).status, 200);

    let expected = [
        (shadow("ok", "2xx"), "2"),
        (shadow("ok", "4xx"), "1"),
        (shadow("unauthenticated", "2xx"), "1"),
        (shadow("invalid_request", "2xx"), "1"),
        (shadow("body_too_large", "2xx"), "1"),
        (shadow("not_owner", "2xx"), "1"),
    ];
    let expected = expected.map(|(labels, value)| (labels, value.to_owned()));
    assert_eq!(shadow_decisions(&renewd), BTreeMap::from(expected));
    let page = renewd.metrics();
    for family in ["renewd_token_requests_total", "renewd_tokens_issued_total"] {
        let counted = page
            .lines()
            .filter(|line| line.starts_with(family) && !line.ends_with(" 0"));
        assert_eq!(counted.collect::<Vec<_>>(), Vec::<&str>::new());
    }
    assert_eq!(app.hits().get("token"), Some(&1));
}

#[test]
fn while_observing_a_backend_that_gives_no_answer_is_counted_as_an_error() {
    let app = app::start(Version::Four);
    let settings = Settings {
        // The backend's address in the usual test configuration refuses every connection.
        backend: None,
        ..settings(&app, "mode = \"observe\"")
    };
    let renewd = Renewd::start(&settings);
    assert_eq!(ask(&renewd, SEEN, &login(VIEWER)).status, 502);
    let expected = BTreeMap::from([(shadow("ok", "error"), "1".to_owned())]);
    assert_eq!(shadow_decisions(&renewd), expected);
}

#[test]
fn while_observing_each_decision_is_audited_as_not_enforced() {
    let (_app, renewd) = started("mode = \"observe\"");
    ask(&renewd, SEEN, &login(VIEWER));
    let line = renewd.log().wait("audit event", |line| {
        (line["outcome"] == "ok").then(|| line.clone())
    });
    assert_eq!(line["enforced"], false);
    assert!(
        line.get("expires").is_none_or(serde_json::Value::is_null),
        "{line}"
    );
}

#[test]
fn observing_charges_no_limit_and_records_no_session() {
    let app = app::start(Version::Four);
    let limits = r#"
[rate_limit]
subject = { requests = 1, per = "1h", burst = 2 }
address = { requests = 1, per = "1h", burst = 1 }
"#;
    let with = |decision| {
        let mut settings = settings(&app, decision);
        settings.tables += limits;
        settings
    };
    let renewd = Renewd::start(&with("mode = \"observe\""));
    let viewer = login(VIEWER);
    for _ in 0..5 {
        assert!(!is_ours(&ask(&renewd, SEEN, &viewer)));
        assert!(!is_ours(&ask(&renewd, SEEN, "nonsense")));
    }
    let counted = shadow_decisions(&renewd);
    assert_eq!(counted[&shadow("ok", "2xx")], "5");
    assert_eq!(counted[&shadow("unauthenticated", "2xx")], "5");
    for role in ["publisher", "subscriber"] {
        let sessions = renewd.metric(&format!("renewd_sessions{{role=\"{role}\"}}"));
        assert!(sessions.abs() < f64::EPSILON, "{role}");
    }

    // The observed requests have left no trace: the uid is free for another caller, and a whole burst is left.
    save(&renewd, &with("mode = \"enforce\""));
    assert_eq!(ask(&renewd, SEEN, &login("another")).status, 200);
    assert_eq!(ask(&renewd, SEEN, &viewer).status, 409);
    assert_eq!(ask(&renewd, SEEN, &viewer).status, 409);
    assert_eq!(ask(&renewd, SEEN, &viewer).status, 429);
    assert_eq!(ask(&renewd, SEEN, "nonsense").status, 401);
    assert_eq!(ask(&renewd, SEEN, "nonsense").status, 429);
    assert_eq!(shadow_decisions(&renewd), counted);
}

// === off ===

#[test]
fn off_is_a_pure_proxy() {
    let app = app::start(Version::Four);
    let settings = Settings {
        tables: "[decision]\nmode = \"off\"\n".to_owned(),
        ..app::settings(&app)
    };
    let renewd = Renewd::start(&settings);
    let login = app.login(ASTROLOGER);
    app.control("/streams", &json!({ "astrologerId": ASTROLOGER }));
    let overridden = format!("{}X-HTTP-Method-Override: POST\r\n", headers(&login));
    let body = json!({"channelName": CHANNEL, "role": "publisher"}).to_string();
    for (method, target, headers) in [
        ("POST", "/api/live/token", headers(&login)),
        ("POST", "/API/live//Agora-Token/?x", headers(&login)),
        ("POST", "/refresh-token", headers(&login)),
        ("POST", "/refresh-token", String::new()),
        ("POST", "//api/live/token", headers(&login)),
        ("POST", "/api/live/%74oken", headers(&login)),
        ("POST", "/api/live/token/.", headers(&login)),
        ("GET", "/api/live/token", headers(&login)),
        ("PUT", "/refresh-token", headers(&login)),
        ("OPTIONS", "/api/live/token", overridden),
    ] {
        let asked = request(method, target, &headers, &body);
        let alone = send(app.address, &asked);
        let behind = send(renewd.public, &asked);
        assert_eq!(behind.status, alone.status, "{method} {target}");
        assert_eq!(
            behind.header("x-reached"),
            alone.header("x-reached"),
            "{method} {target}"
        );
        assert!(behind.header("x-dns-prefetch-control").is_some());
    }
    assert!(app.owned_hits() > 0);
    assert_eq!(shadow_decisions(&renewd), BTreeMap::new());
    let page = renewd.metrics();
    let ours = page
        .lines()
        .filter(|line| line.starts_with("renewd_token_requests_total") && !line.ends_with(" 0"));
    assert_eq!(ours.count(), 0);
}

#[test]
fn the_line_that_says_ready_says_whose_requests_are_enforced() {
    for (decision, mode, percent) in [
        ("", "enforce", 100),
        ("enforce_percent = 25", "enforce", 25),
        ("mode = \"observe\"", "observe", 100),
    ] {
        let renewd = Renewd::start(&Settings {
            tables: format!("[decision]\n{decision}\n"),
            ..Settings::default()
        });
        let ready = |line: &Value| (line["msg"] == "ready").then(|| line.clone());
        let line = renewd.log().wait("readiness", ready);
        assert_eq!(line["mode"], mode, "{line}");
        assert_eq!(line["enforce_percent"], percent, "{line}");
    }
}

// === draining ===

/// The modes in which answers are the backend's.
const BACK: [&str; 4] = [
    "mode = \"off\"",
    "mode = \"observe\"",
    "enforce_percent = 0",
    "mode = \"off\"\nenforce_percent = 50",
];

const REFRESH: &str = "/api/live/refresh-token";

/// Settings with the app's own logins, which both sides read.
fn of_the_app(app: &Express, decision: &str) -> Settings {
    Settings {
        jwt: app::settings(app).jwt,
        ..settings(app, decision)
    }
}

fn draining() -> (Express, Renewd) {
    let app = app::start(Version::Four);
    let renewd = Renewd::start(&of_the_app(&app, ""));
    (app, renewd)
}

#[test]
fn only_a_publisher_who_holds_a_token_renews_it_here_after_a_change_of_mode() {
    let (app, renewd) = draining();
    let (owner, viewer) = (app.login(ASTROLOGER), app.login(VIEWER));
    app.control("/streams", &json!({ "astrologerId": ASTROLOGER }));
    assert_eq!(publish(&renewd, "/api/live/token", &owner).status, 200);
    assert_eq!(ask(&renewd, "/api/live/token", &viewer).status, 200);
    let is_the_apps = |answer: &Response| answer.header("x-dns-prefetch-control").is_some();
    for decision in BACK {
        save(&renewd, &of_the_app(&app, decision));
        for path in [REFRESH, "/api/live/token"] {
            let answer = publish(&renewd, path, &owner);
            assert_eq!(answer.status, 200, "{decision} {path}");
            assert!(!is_the_apps(&answer), "{decision} {path}");
            let data = &answer.json()["data"];
            assert_eq!(data["role"], "publisher", "{decision} {path}");
            assert!(data["refreshAt"].is_string());
        }
        for (what, answer) in [
            ("a viewer's", ask(&renewd, REFRESH, &viewer)),
            ("a stranger's", publish(&renewd, REFRESH, &viewer)),
            ("an owner's other role", ask(&renewd, REFRESH, &owner)),
            ("a login of nobody's", publish(&renewd, REFRESH, "nonsense")),
        ] {
            assert!(is_the_apps(&answer), "{decision}: {what}");
        }
        let ready = renewd.ask_admin("GET", "/readyz", "").json();
        assert_eq!(ready["draining_publishers"], 1, "{decision}: {ready}");
        let status = renewd.ask_admin("GET", "/v1/status", "").json();
        assert_eq!(status["draining_publishers"], 1, "{decision}: {status}");
        renewd.eventually("the metric says so", |renewd| {
            renewd.metrics().contains("renewd_draining_publishers 1\n")
        });
    }
    let sessions = renewd.ask_admin("GET", "/v1/sessions", "").json();
    let sessions = sessions["sessions"].as_array().unwrap();
    let held = sessions
        .iter()
        .find(|session| session["role"] == "publisher");
    assert_eq!(
        held.unwrap()["refreshes"],
        8,
        "each yes extends the session"
    );
    let renewed = "renewd_token_requests_total{endpoint=\"refresh\",role=\"publisher\",outcome=\"ok\",class=\"ok\"}";
    assert!((renewd.metric(renewed) - 8.0).abs() < f64::EPSILON);

    save(
        &renewd,
        &of_the_app(&app, "mode = \"off\"\ndrain_holders = false"),
    );
    assert!(is_the_apps(&publish(&renewd, REFRESH, &owner)));
    let ready = renewd.ask_admin("GET", "/readyz", "").json();
    assert!(ready.get("draining_publishers").is_none(), "{ready}");
    save(&renewd, &of_the_app(&app, "# back to the default"));
    assert!(!is_the_apps(&publish(&renewd, REFRESH, &owner)));
    let ready = renewd.ask_admin("GET", "/readyz", "").json();
    assert!(ready.get("draining_publishers").is_none(), "{ready}");
}

#[test]
fn a_drained_publisher_is_counted_once_and_explained_as_ours() {
    let (app, renewd) = draining();
    let owner = app.login(ASTROLOGER);
    app.control("/streams", &json!({ "astrologerId": ASTROLOGER }));
    for uid in [1, 2] {
        let body = json!({"channelName": CHANNEL, "uid": uid, "role": "publisher"}).to_string();
        let asked = request("POST", "/api/live/token", &headers(&owner), &body);
        assert_eq!(send(renewd.public, &asked).status, 200);
    }
    let mode = |subject: &str, role: &str| {
        let path = format!("/v1/explain?subject={subject}&channel={CHANNEL}&role={role}");
        let explained = renewd.ask_admin("GET", &path, "").json();
        let steps = explained["steps"].as_array().unwrap().clone();
        let step = steps.into_iter().find(|step| step["step"] == "mode");
        step.unwrap()["detail"].as_str().unwrap().to_owned()
    };
    for decision in BACK {
        save(&renewd, &of_the_app(&app, decision));
        let ready = renewd.ask_admin("GET", "/readyz", "").json();
        assert_eq!(ready["draining_publishers"], 1, "{decision}: {ready}");
        renewd.eventually("the metric says so", |renewd| {
            renewd.metrics().contains("renewd_draining_publishers 1\n")
        });
        for (subject, role, ours) in [
            (ASTROLOGER, "publisher", true),
            (ASTROLOGER, "subscriber", false),
            (VIEWER, "publisher", false),
        ] {
            let said = mode(subject, role);
            let named = said.contains("renewd still decides");
            assert_eq!(named, ours, "{decision}, {subject}, {role}: {said}");
        }
    }
    save(
        &renewd,
        &of_the_app(&app, "mode = \"off\"\ndrain_holders = false"),
    );
    let said = mode(ASTROLOGER, "publisher");
    assert_eq!(said, "off: the backend answers, whatever follows");
}

#[test]
fn what_a_drained_publisher_is_refused_is_forwarded_and_counted() {
    for decision in ["mode = \"off\"", "mode = \"observe\""] {
        let (app, renewd) = draining();
        let owner = app.login(ASTROLOGER);
        app.control("/streams", &json!({ "astrologerId": ASTROLOGER }));
        assert_eq!(publish(&renewd, "/api/live/token", &owner).status, 200);
        save(&renewd, &of_the_app(&app, decision));
        assert_eq!(publish(&renewd, REFRESH, &owner).status, 200);
        assert_eq!(shadow_decisions(&renewd), BTreeMap::new(), "{decision}");
        let over = format!(
            "[[stream]]\nchannel = \"{CHANNEL}\"\nowner = \"{ASTROLOGER}\"\nlive = false\n"
        );
        support::ask::change_streams(&renewd, &over);
        let refused = publish(&renewd, REFRESH, &owner);
        assert!(refused.header("x-dns-prefetch-control").is_some());
        // The app compares a string with an ObjectId.
        assert_eq!(refused.status, 403, "{decision}");
        let counted = BTreeMap::from([(shadow("stream_not_live", "4xx"), "1".to_owned())]);
        assert_eq!(shadow_decisions(&renewd), counted, "{decision}");
    }
}

#[test]
fn while_publishers_drain_the_backend_gets_all_else_as_it_came() {
    let (app, renewd) = draining();
    let owner = app.login(ASTROLOGER);
    app.control("/streams", &json!({ "astrologerId": ASTROLOGER }));
    assert_eq!(publish(&renewd, "/api/live/token", &owner).status, 200);
    save(&renewd, &of_the_app(&app, "mode = \"off\""));
    for length in [0, 5, 16 * 1024, 16 * 1024 + 1, 300_000] {
        let body: String = ('a'..='z').cycle().take(length).collect();
        let digest = Sha256::digest(body.as_bytes());
        let digest = digest.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        let answer = send(
            renewd.public,
            &request("POST", "/Wire//Seen/?a=%20b", &headers(&owner), &body),
        );
        assert_eq!(answer.status, 200, "{length}");
        assert_eq!(answer.json()["sha256"], digest, "{length}");
    }
    assert_eq!(shadow_decisions(&renewd), BTreeMap::new());
}

// === the canary ===

fn enforced_subjects(renewd: &Renewd, subjects: &[String]) -> Vec<bool> {
    let ours = |subject: &String| {
        let answer = ask(renewd, SEEN, &login(subject));
        // The subject that was served first holds the uid, and renewd still answers.
        assert!(matches!(answer.status, 200 | 409), "{}", answer.json());
        is_ours(&answer)
    };
    subjects.iter().map(ours).collect()
}

#[test]
fn a_canary_is_the_same_users_every_time_and_grows_with_its_share() {
    let app = app::start(Version::Four);
    let at = |percent: u8| {
        let mut settings = settings(&app, &format!("enforce_percent = {percent}"));
        settings.tables += "[rate_limit]\nsubject = \"off\"\naddress = \"off\"\n";
        settings
    };
    let subjects: Vec<_> = (0..200).map(|number| format!("user-{number}")).collect();
    let renewd = Renewd::start(&at(20));
    let few = enforced_subjects(&renewd, &subjects);
    assert_eq!(enforced_subjects(&renewd, &subjects), few);
    let count = few.iter().filter(|ours| **ours).count();
    assert!((15..=70).contains(&count), "{count} of 200 at 20 percent");
    let forwarded: f64 = shadow_decisions(&renewd)
        .values()
        .map(|value| value.parse::<f64>().unwrap())
        .sum();
    assert!((forwarded - 2.0 * (200.0 - f64::from(u32::try_from(count).unwrap()))).abs() < 0.5);
    // A login without a subject belongs to no subject's share.
    assert!(!is_ours(&ask(&renewd, SEEN, "nonsense")));

    // Another replica, or this one after a restart, chooses the same.
    let other = Renewd::start(&at(20));
    assert_eq!(enforced_subjects(&other, &subjects), few);

    save(&renewd, &at(60));
    let more = enforced_subjects(&renewd, &subjects);
    assert!(few.iter().zip(&more).all(|(few, more)| !few || *more));
    assert!(more.iter().filter(|ours| **ours).count() > count);

    save(&renewd, &at(100));
    assert!(
        enforced_subjects(&renewd, &subjects)
            .iter()
            .all(|ours| *ours)
    );
    assert_eq!(ask(&renewd, SEEN, "nonsense").status, 401);

    save(&renewd, &at(0));
    assert!(
        !enforced_subjects(&renewd, &subjects)
            .iter()
            .any(|ours| *ours)
    );
    // Every request still reaches the backend, as while observing.
    let guarded = send(renewd.public, &request("POST", "//wire/seen", "", ""));
    assert!(guarded.header("x-dns-prefetch-control").is_some());
}

// === switching ===

#[test]
fn saving_the_file_switches_open_connections_with_their_next_request() {
    let (app, renewd) = started("mode = \"enforce\"");
    let body = json!({"channelName": CHANNEL, "uid": 77}).to_string();
    let asked = request("POST", SEEN, &headers(&login(VIEWER)), &body);
    let mut conversation = Conversation::open(renewd.public);
    let mut ours = |renewd: &Renewd, decision: &str| {
        save(renewd, &settings(&app, decision));
        conversation.write(&asked);
        let answer = conversation.response().expect("the connection stays");
        assert_eq!(answer.status, 200, "{decision}");
        is_ours(&answer)
    };
    assert!(!ours(&renewd, "mode = \"observe\""));
    assert!(ours(&renewd, "mode = \"enforce\"\nenforce_percent = 100"));
    assert!(!ours(&renewd, "mode = \"off\""));
    assert!(ours(&renewd, "# back to the default"));
    // A file that can't be read changes nothing.
    private_file(&renewd.file("config.toml"), "[decision]\nmode = \"of\"\n");
    renewd.eventually("the failed reload", |renewd| {
        renewd.metric("renewd_config_last_reload_successful").abs() < f64::EPSILON
    });
    conversation.write(&asked);
    assert!(is_ours(
        &conversation.response().expect("the connection stays")
    ));
}
