//! The current app's answers with tokens in them, through renewd: the same answers, but for tokens that end when they should.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail
#![allow(clippy::float_cmp)] // counters hold whole numbers

mod support;

use std::collections::HashMap;

use serde_json::{Value, json};
use support::app::{ASTROLOGER, CHANNEL, VIEWER, send, settings, start};
use support::conversation::{Conversation, request};
use support::express::{Express, Version};
use support::raw::Response;
use support::renewd::{Renewd, Settings, now};

/// The rules that config.example.toml has for this app.
fn rules() -> String {
    let example = include_str!("../config.example.toml");
    let (_, rules) = example.split_once("\n[reissue]\n").unwrap();
    let (rules, _) = rules.split_once("\n[sessions]\n").unwrap();
    format!("[reissue]\n{rules}")
}

fn with_rules(app: &Express, rules: &str) -> Settings {
    Settings {
        tables: rules.to_owned(),
        ..settings(app)
    }
}

fn ask(renewd: &Renewd, method: &str, path: &str, bearer: &str, headers: &str) -> Response {
    let authorization = match bearer {
        "" => String::new(),
        bearer => format!("Authorization: Bearer {bearer}\r\n"),
    };
    let headers = format!("{authorization}{headers}Connection: close\r\n");
    send(renewd.public, &request(method, path, &headers, ""))
}

/// The tokens in an answer, wherever they are.
fn tokens(body: &Value) -> Vec<Value> {
    match body {
        Value::String(text) if text.starts_with("007") => vec![body.clone()],
        Value::Array(values) => values.iter().flat_map(tokens).collect(),
        Value::Object(members) => members.values().flat_map(tokens).collect(),
        _ => Vec::new(),
    }
}

/// The answer without what its tokens say.
fn without_tokens(body: &Value) -> Value {
    match body {
        Value::String(text) if text.starts_with("007") => json!("a token"),
        Value::Array(values) => values.iter().map(without_tokens).collect(),
        Value::Object(members) => {
            let members = members.iter();
            let members = members.map(|(name, value)| (name.clone(), without_tokens(value)));
            Value::Object(members.collect())
        }
        other => other.clone(),
    }
}

fn route(path: &str, outcome: &str) -> String {
    format!("renewd_reissue_total{{route=\"{path}\",outcome=\"{outcome}\"}}")
}

/// What Agora's package must say of a token that was issued anew just now.
fn is_short(app: &Express, token: &Value, privileges: usize) {
    let inspected = app.inspect(token);
    assert_eq!(inspected["verified"], true, "{inspected}");
    assert_eq!(inspected["expire"], 3600, "{inspected}");
    assert!(now() - inspected["issuedAt"].as_u64().unwrap() < 30);
    let service = &inspected["services"][0];
    assert_eq!(service["channelName"], CHANNEL);
    assert_eq!(service["uid"], "");
    let held: HashMap<String, u64> = serde_json::from_value(service["privileges"].clone()).unwrap();
    assert_eq!(held.len(), privileges, "{inspected}");
    assert!(held.values().all(|expire| *expire == 3600), "{inspected}");
}

#[test]
fn the_five_routes_give_the_same_answers_with_tokens_of_an_hour() {
    let app = start(Version::Four);
    let renewd = Renewd::start(&with_rules(&app, &rules()));
    let bearer = app.login(ASTROLOGER);
    let started = ask(&renewd, "POST", "/api/live/start", &bearer, "");
    assert_eq!(started.status, 201);
    let id = started.json()["data"]["_id"].as_str().unwrap().to_owned();
    let stranger = app.login(VIEWER);
    for (method, path, rule, bearer, privileges) in [
        (
            "GET",
            "/api/live/active",
            "/api/live/active",
            &String::new(),
            1,
        ),
        (
            "GET",
            "/API/Live//ACTIVE/?page=1",
            "/api/live/active",
            &stranger,
            1,
        ),
        (
            "GET",
            &format!("/api/live/{id}"),
            "/api/live/{id}",
            &String::new(),
            1,
        ),
        (
            "POST",
            &format!("/api/live/{id}/join"),
            "/api/live/{id}/join",
            &stranger,
            1,
        ),
        (
            "GET",
            &format!("/api/admin/live-streams/{id}/token"),
            "/api/admin/live-streams/{id}/token",
            &String::new(),
            1,
        ),
        // Last, for it ends the stream that the others show.
        ("POST", "/api/live/start", "/api/live/start", &bearer, 4),
    ] {
        let replaced = renewd.metric(&route(rule, "replaced"));
        let answer = ask(&renewd, method, path, bearer, "");
        let body = answer.json();
        let found = tokens(&body);
        assert!(!found.is_empty(), "{path}: {body}");
        for token in &found {
            is_short(&app, token, privileges);
        }
        #[allow(clippy::cast_precision_loss)] // a handful
        let count = found.len() as f64;
        let counted = renewd.metric(&route(rule, "replaced"));
        assert_eq!(counted - replaced, count, "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        for gone in ["etag", "content-length", "last-modified"] {
            assert_eq!(answer.header(gone), None, "{path}");
        }
        if method == "GET" {
            let headers = "Connection: close\r\n";
            let direct = send(app.address, &request("GET", path, headers, ""));
            assert_eq!(
                without_tokens(&direct.json()),
                without_tokens(&body),
                "{path}"
            );
            let long = app.inspect(&tokens(&direct.json())[0]);
            assert!(long["expire"].as_u64().unwrap() > 1_000_000_000, "{long}");
        }
    }
}

#[test]
fn answers_without_tokens_and_of_other_routes_are_the_apps_own() {
    let app = start(Version::Four);
    let renewd = Renewd::start(&with_rules(&app, &rules()));
    let unknown = ask(&renewd, "GET", "/api/live/65f000000000000000000009", "", "");
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.json()["message"], "Stream not found");
    let unauthenticated = ask(&renewd, "POST", "/api/live/start", "", "");
    assert_eq!(unauthenticated.status, 401);
    assert_eq!(unauthenticated.json()["message"], "No token provided");
    let mut head = Conversation::open(renewd.public);
    head.write(&request("HEAD", "/api/live/active", "", ""));
    let head = head.response_to("HEAD").unwrap();
    assert_eq!(head.status, 200);
    assert_eq!(head.header("etag"), None);
    assert_ne!(head.header("content-length"), Some("0"));
    let health = ask(&renewd, "GET", "/health", "", "");
    assert!(health.header("etag").is_some());
    assert_eq!(health.header("content-length"), Some("15"));
}

#[test]
fn what_the_client_has_already_is_no_reason_to_send_it_nothing() {
    let app = start(Version::Four);
    let renewd = Renewd::start(&with_rules(&app, &rules()));
    app.control("/streams", &json!({ "astrologerId": ASTROLOGER }));
    let headers = "If-None-Match: *\r\nRange: bytes=0-3\r\nAccept-Encoding: gzip, br\r\n";
    let answer = ask(&renewd, "GET", "/api/live/active", "", headers);
    assert_eq!(answer.status, 200);
    assert_eq!(tokens(&answer.json()).len(), 1);
}

#[test]
fn a_broadcaster_who_started_a_stream_holds_its_token() {
    let app = start(Version::Four);
    let renewd = Renewd::start(&with_rules(&app, &rules()));
    let bearer = app.login(ASTROLOGER);
    assert_eq!(
        ask(&renewd, "POST", "/api/live/start", &bearer, "").status,
        201
    );
    assert_eq!(
        ask(&renewd, "GET", "/api/live/active", &bearer, "").status,
        200
    );
    let body = json!({ "channelName": CHANNEL, "uid": 77, "role": "publisher" }).to_string();
    let renewed = renewd.post("/api/live/token", &bearer, &body);
    assert_eq!(renewed.status, 200);
    // A holder's request for a token is a renewal.
    let ok = r#"renewd_token_requests_total{endpoint="refresh",role="publisher",outcome="ok",class="ok"}"#;
    assert_eq!(renewd.metric(ok), 1.0);
    for (role, count) in [("publisher", 1.0), ("subscriber", 1.0)] {
        let issued = format!(
            "renewd_tokens_issued_total{{endpoint=\"reissue\",role=\"{role}\",format=\"007\"}}"
        );
        assert_eq!(renewd.metric(&issued), count);
        let requests = format!(
            "renewd_token_requests_total{{endpoint=\"reissue\",role=\"{role}\",outcome=\"ok\",class=\"ok\"}}"
        );
        assert_eq!(renewd.metric(&requests), count);
    }
    // The viewer's token opened no session.
    renewd.eventually("the sessions are counted", |renewd| {
        renewd.metric("renewd_sessions{role=\"publisher\"}") == 1.0
    });
    assert_eq!(renewd.metric("renewd_sessions{role=\"subscriber\"}"), 0.0);
    let audited = renewd.log().wait("an audited reissue", |line| {
        (line["endpoint"] == "reissue" && line["role"] == "publisher").then(|| line.clone())
    });
    assert_eq!(audited["subject"], ASTROLOGER);
    assert_eq!(audited["channel"], CHANNEL);
    assert_eq!(audited["outcome"], "ok");
    assert!(audited["expires"].is_string());
}

#[test]
fn observing_counts_and_leaves_every_byte() {
    let app = start(Version::Four);
    app.control("/streams", &json!({ "astrologerId": ASTROLOGER }));
    let observing = format!("{}\n[decision]\nmode = \"observe\"\n", rules());
    let of_its_own = rules().replace("# mode = \"replace\"", "mode = \"observe\"");
    for tables in [observing, of_its_own] {
        let renewd = Renewd::start(&with_rules(&app, &tables));
        let answer = ask(&renewd, "GET", "/api/live/active", "", "");
        let length = answer.body.len().to_string();
        assert_eq!(answer.header("content-length"), Some(&*length));
        assert_eq!(renewd.metric(&route("/api/live/active", "replaced")), 1.0);
        let token = &tokens(&answer.json())[0];
        assert!(app.inspect(token)["expire"].as_u64().unwrap() > 1_000_000_000);
        assert!(answer.header("etag").is_some());
        let headers = "If-None-Match: *\r\n";
        let cached = ask(&renewd, "GET", "/api/live/active", "", headers);
        assert_eq!(cached.status, 304);
        let requests = renewd.metrics();
        assert!(
            !requests.lines().any(|line| line
                .starts_with("renewd_token_requests_total{endpoint=\"reissue\"")
                && !line.ends_with(" 0")),
            "{requests}"
        );
    }
}

#[test]
fn a_pure_proxy_looks_at_nothing() {
    let app = start(Version::Four);
    app.control("/streams", &json!({ "astrologerId": ASTROLOGER }));
    let off = format!("{}\n[decision]\nmode = \"off\"\n", rules());
    let of_its_own = rules().replace("# mode = \"replace\"", "mode = \"off\"");
    for tables in [off, of_its_own] {
        let renewd = Renewd::start(&with_rules(&app, &tables));
        let answer = ask(&renewd, "GET", "/api/live/active", "", "");
        assert!(answer.header("etag").is_some());
        assert_eq!(renewd.metric(&route("/api/live/active", "replaced")), 0.0);
    }
}

#[test]
fn the_banned_and_the_anonymous_get_an_empty_token_and_the_rest_of_the_answer() {
    let app = start(Version::Four);
    app.control("/streams", &json!({ "astrologerId": ASTROLOGER }));
    let rules = "[[reissue.rule]]\npath = \"/api/live/active\"\n\
        [[reissue.rule]]\npath = \"/api/live/{id}\"\nrequire_auth = true\n";
    let streams = format!(
        "[[stream]]\nchannel = \"{CHANNEL}\"\nowner = \"{ASTROLOGER}\"\nbanned_viewers = [\"{VIEWER}\"]\n"
    );
    let renewd = Renewd::start(&Settings {
        streams: Some(streams),
        ..with_rules(&app, rules)
    });
    let all = ask(&renewd, "GET", "/api/live/active", "", "");
    let id = all.json()["data"][0]["_id"].as_str().unwrap().to_owned();
    let one = format!("/api/live/{id}");
    let (banned, fan) = (app.login(VIEWER), app.login("65f000000000000000000003"));
    for (path, bearer, given) in [
        ("/api/live/active", "", true),
        ("/api/live/active", &fan, true),
        ("/api/live/active", &banned, false),
        ("/api/live/active", "not.a.login", true),
        (&one, "", false),
        (&one, "not.a.login", false),
        (&one, &fan, true),
        (&one, &banned, false),
    ] {
        let body = ask(&renewd, "GET", path, bearer, "").json();
        let data = match path {
            "/api/live/active" => &body["data"][0],
            _ => &body["data"],
        };
        assert_eq!(data["agoraChannelName"], CHANNEL, "{body}");
        let token = data["agoraToken"].as_str().unwrap();
        assert_eq!(!token.is_empty(), given, "{path} {bearer}: {body}");
    }
    assert_eq!(renewd.metric(&route("/api/live/active", "withheld")), 1.0);
    assert_eq!(renewd.metric(&route("/api/live/{id}", "withheld")), 3.0);
    let banned = r#"renewd_token_requests_total{endpoint="reissue",role="subscriber",outcome="viewer_banned",class="denied"}"#;
    assert_eq!(renewd.metric(banned), 2.0);
}

#[test]
fn while_streams_give_no_answer_those_with_a_name_get_none_either() {
    let app = start(Version::Four);
    app.control("/streams", &json!({ "astrologerId": ASTROLOGER }));
    let renewd = Renewd::start(&with_rules(&app, &rules()));
    std::fs::remove_file(renewd.file("streams.toml")).unwrap();
    renewd.signal(rustix::process::Signal::HUP);
    renewd.eventually("the source is down", |renewd| {
        renewd.metric("renewd_source_up{source=\"streams\"}") == 0.0
    });
    let viewer = app.login(VIEWER);
    let token = |bearer: &str| {
        let body = ask(&renewd, "GET", "/api/live/active", bearer, "").json();
        body["data"][0]["agoraToken"].as_str().unwrap().to_owned()
    };
    assert_eq!(token(&viewer), "");
    // Nothing is asked about somebody without a name.
    assert_ne!(token(""), "");
    assert_eq!(renewd.metric(&route("/api/live/active", "error")), 1.0);
    let failed = r#"renewd_token_requests_total{endpoint="reissue",role="subscriber",outcome="unavailable",class="failed"}"#;
    assert_eq!(renewd.metric(failed), 1.0);
}
