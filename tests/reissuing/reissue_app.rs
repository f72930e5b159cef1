//! The current app's answers with tokens in them, through renewd: the same answers, but for tokens that end when they
//! should.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail
#![allow(clippy::float_cmp)] // counters hold whole numbers

use std::collections::HashMap;

use crate::support::app::{ASTROLOGER, CHANNEL, VIEWER, send, settings, start};
use crate::support::conversation::{Conversation, request};
use crate::support::database;
use crate::support::express::{Express, Version};
use crate::support::mongo::Mongo;
use crate::support::raw::Response;
use crate::support::renewd::{Renewd, Settings, now};
use serde_json::{Value, json};

/// The rules that config.example.toml has for this app.
fn rules() -> String {
    let example = include_str!("../../config.example.toml");
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

/// The answer with its tokens masked.
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

/// Holds that Agora's package reads this from a token that was issued anew just now.
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

/// The number of tokens in an answer, all of which are short.
#[allow(clippy::cast_precision_loss)] // a handful
fn short_tokens(app: &Express, path: &str, body: &Value, privileges: usize) -> f64 {
    let found = tokens(body);
    assert!(!found.is_empty(), "{path}: {body}");
    for token in &found {
        is_short(app, token, privileges);
    }
    found.len() as f64
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
        let count = short_tokens(&app, path, &body, privileges);
        let counted = renewd.metric(&route(rule, "replaced"));
        assert_eq!(counted - replaced, count, "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        for gone in ["etag", "content-length", "last-modified"] {
            assert_eq!(answer.header(gone), None, "{path}");
        }
        if method == "GET" {
            is_the_apps_but_for_tokens(&app, path, &body);
        }
    }
}

/// The app's own answer differs from this one in its tokens alone.
fn is_the_apps_but_for_tokens(app: &Express, path: &str, body: &Value) {
    let headers = "Connection: close\r\n";
    let direct = send(app.address, &request("GET", path, headers, ""));
    assert_eq!(
        without_tokens(&direct.json()),
        without_tokens(body),
        "{path}"
    );
    let long = app.inspect(&tokens(&direct.json())[0]);
    assert!(long["expire"].as_u64().unwrap() > 1_000_000_000, "{long}");
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
    // The example's rule for one stream leaves this list out.
    let list = ask(&renewd, "GET", "/api/live/streams", "", "");
    assert!(list.header("etag").is_some() && list.header("cache-control").is_none());
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

/// `/active` where each token is a publisher's.
const PUBLISHERS: &str = "/api/live/active?role=publisher";

fn active(path: &str, rule: &str) -> String {
    format!("[[reissue.rule]]\npath = \"{path}\"\n{rule}\n")
}

fn token_in(answer: &Response) -> Value {
    let body = answer.json();
    let stream = match &body["data"] {
        Value::Array(streams) => &streams[0],
        stream => stream,
    };
    assert_eq!(stream["agoraChannelName"], CHANNEL, "{body}");
    stream["agoraToken"].clone()
}

#[test]
fn the_banned_and_the_anonymous_get_no_token_and_the_rest_of_the_answer() {
    let app = start(Version::Four);
    app.control("/streams", &json!({ "astrologerId": ASTROLOGER }));
    let rules = "[[reissue.rule]]\npath = \"/api/live/active\"\n\
        [[reissue.rule]]\npath = \"/api/live/{id}\"\nrequire_auth = true\n";
    let streams = format!(
        "[[stream]]\nchannel = \"{CHANNEL}\"\nowner = \"{ASTROLOGER}\"\nbanned_viewers = [\"{VIEWER}\"]\n"
    );
    let (banned, fan) = (app.login(VIEWER), app.login("65f000000000000000000003"));
    // The rule says which value stands in the token's place.
    let typed = rules.replace("\n[[", "\nwithheld = \"empty\"\n[[") + "withheld = \"empty\"\n";
    for (rules, withheld) in [(rules, Value::Null), (&*typed, json!(""))] {
        let renewd = Renewd::start(&Settings {
            streams: Some(streams.clone()),
            ..with_rules(&app, rules)
        });
        let all = ask(&renewd, "GET", "/api/live/active", "", "");
        let id = all.json()["data"][0]["_id"].as_str().unwrap().to_owned();
        let one = format!("/api/live/{id}");
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
            let token = token_in(&ask(&renewd, "GET", path, bearer, ""));
            if given {
                is_short(&app, &token, 1);
            } else {
                assert_eq!(token, withheld, "{path} {bearer}");
            }
        }
        assert_eq!(renewd.metric(&route("/api/live/active", "withheld")), 1.0);
        assert_eq!(renewd.metric(&route("/api/live/{id}", "withheld")), 3.0);
        let banned = r#"renewd_token_requests_total{endpoint="reissue",role="subscriber",outcome="viewer_banned",class="denied"}"#;
        assert_eq!(renewd.metric(banned), 2.0);
    }
}

#[test]
fn an_odd_spelling_has_the_terms_of_the_strictest_rule_that_it_can_be_read_as() {
    let rules = "[routes]\nmethod_override = [\"header\", \"query:_method\"]\n\
        [[reissue.rule]]\npath = \"/api/live/active\"\n\
        [[reissue.rule]]\nmethods = [\"GET\"]\npath = \"/api/live/{id}\"\nrequire_auth = true\n\
        except = [\"/api/live/nothing\"]\n\
        [[reissue.rule]]\nmethods = [\"POST\"]\npath = \"/api/live/{id}/join\"\nlifetime = \"10m\"\n";
    for version in [Version::Four, Version::Five] {
        let app = start(version);
        // Streams whose ids are dots, and ids that could be taken for another route's path.
        for id in ["..", ".", "12/../active", "active", "%61ctive", "nothing"] {
            app.control(
                "/streams",
                &json!({ "astrologerId": ASTROLOGER, "_id": id }),
            );
        }
        let renewd = Renewd::start(&with_rules(&app, rules));
        let given = |method: &str, path: &str| {
            let answer = ask(&renewd, method, path, "", "");
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            tokens(&answer.json())
        };
        for path in ["/api/live/active", "/API/live/Active/"] {
            assert!(!given("GET", path).is_empty(), "{path}");
        }
        if version == Version::Four {
            assert!(!given("GET", "/api/live//active").is_empty());
        }
        for path in [
            "/api/live/..",
            "/api/live/.",
            "/api/live/%2e%2E",
            "/api/live/12%2F..%2Factive",
            "/api/live/%61ctive",
            "/api/live/%6eothing",
        ] {
            assert_eq!(given("GET", path), [] as [Value; 0], "{path}");
        }
        for path in [
            "/api/live/../join",
            "/api/live/./join",
            "/api/live/12%2F..%2Factive/join",
        ] {
            let token = given("POST", path).remove(0);
            assert_eq!(app.inspect(&token)["expire"], 600, "{path}");
        }
        // An excepted answer doesn't change at all.
        let excepted = ask(&renewd, "GET", "/api/live/nothing", "", "");
        assert!(excepted.header("etag").is_some());
        let long = app.inspect(&tokens(&excepted.json())[0]);
        assert!(long["expire"].as_u64().unwrap() > 1_000_000_000, "{long}");
        let disguised = ask(&renewd, "PUT", "/api/live/..?_method=GET", "", "");
        assert_eq!(disguised.header("cache-control"), Some("no-store"));
    }
}

#[test]
fn a_publishers_token_for_a_stream_is_its_owners_and_co_hosts() {
    const COHOST: &str = "65f000000000000000000004";
    let app = start(Version::Five);
    app.control("/streams", &json!({ "astrologerId": ASTROLOGER }));
    let streams = format!(
        "[[stream]]\nchannel = \"{CHANNEL}\"\nowner = \"{ASTROLOGER}\"\ncohosts = [\"{COHOST}\"]\nlive = LIVE\n"
    );
    let (owner, cohost) = (app.login(ASTROLOGER), app.login(COHOST));
    let viewer = app.login(VIEWER);
    let to_watch = "publisher_for_others = \"subscriber\"";
    for (streams, pattern, is_stream) in [
        (streams.replace("LIVE", "true"), "", true),
        // A stream that is over is still one.
        (streams.replace("LIVE", "false"), "", true),
        ("stream = []\n".to_owned(), "", false),
        (
            "stream = []\n".to_owned(),
            "channel_pattern = \"live_*\"",
            true,
        ),
        (
            "stream = []\n".to_owned(),
            "channel_pattern = \"room_*\"",
            false,
        ),
    ] {
        for rule in ["", to_watch] {
            let renewd = Renewd::start(&Settings {
                streams: Some(streams.clone()),
                streams_table: pattern.to_owned(),
                ..with_rules(&app, &active("/api/live/active", rule))
            });
            let knows_hosts = streams.contains("owner");
            for (bearer, hosts) in [
                (&owner, knows_hosts),
                (&cohost, knows_hosts),
                (&viewer, false),
                (&String::new(), false),
            ] {
                let token = token_in(&ask(&renewd, "GET", PUBLISHERS, bearer, ""));
                let what = format!("{streams} {pattern} {rule} {bearer}");
                if hosts || !is_stream {
                    is_short(&app, &token, 4);
                } else if rule == to_watch {
                    is_short(&app, &token, 1);
                } else {
                    assert_eq!(token, Value::Null, "{what}");
                }
            }
            if is_stream && rule.is_empty() {
                let refused = r#"renewd_token_requests_total{endpoint="reissue",role="publisher",outcome="not_owner",class="denied"}"#;
                let count = if knows_hosts { 2.0 } else { 4.0 };
                assert_eq!(renewd.metric(refused), count);
            }
        }
    }
}

#[test]
fn a_killed_database_keeps_no_user_from_starting_a_stream_or_watching_one() {
    let app = start(Version::Four);
    let mut mongo = Mongo::start();
    let uri = mongo.uri("live");
    // The rules are the example's: /start is trusted, the lists aren't.
    let of_database = database::settings(&uri, &app, "");
    let renewd = Renewd::start(&Settings {
        tables: format!("{}{}", of_database.tables, rules()),
        token: "zero_uid = \"allow\"".to_owned(),
        ..of_database
    });
    let (owner, viewer) = (app.login(ASTROLOGER), app.login(VIEWER));
    mongo.kill();
    let started = ask(&renewd, "POST", "/api/live/start", &owner, "");
    assert_eq!(started.status, 201);
    is_short(&app, &token_in(&started), 4);
    let path = "/api/live/active";
    for bearer in ["", &viewer, &owner] {
        is_short(&app, &token_in(&ask(&renewd, "GET", path, bearer, "")), 1);
        let publishers = token_in(&ask(&renewd, "GET", PUBLISHERS, bearer, ""));
        assert_eq!(publishers, Value::Null, "{bearer}");
    }
    // Only the caller that began the stream goes on with it.
    let body = json!({ "channelName": CHANNEL, "uid": 0, "role": "publisher" }).to_string();
    for (bearer, status) in [(&owner, 200), (&viewer, 503)] {
        let renewed = renewd.post("/api/live/refresh-token", bearer, &body);
        assert_eq!(renewed.status, status, "{bearer}");
    }
}

#[test]
fn an_owner_field_mistyped_keeps_no_broadcaster_from_starting() {
    let app = start(Version::Four);
    let mongo = Mongo::start();
    let stream = mongodb::bson::doc! { "agoraChannelName": CHANNEL, "astrologerId": ASTROLOGER, "isLive": true };
    mongo.insert("live", "livestreams", vec![stream]);
    let uri = mongo.uri("live");
    let started = |owner_field: &str| {
        let of_database = database::settings(&uri, &app, "");
        let renewd = Renewd::start(&Settings {
            sources: Some(format!(
                "[mongodb]\nuri = \"{uri}\"\n\n[accounts]\nsource = \"none\"\n\n\
                 [streams]\nsource = \"mongodb\"\nowner_field = \"{owner_field}\"\n\n"
            )),
            tables: format!("{}{}", of_database.tables, rules()),
            token: "zero_uid = \"allow\"".to_owned(),
            ..of_database
        });
        let of = |user: &str| {
            let login = app.login(user);
            token_in(&ask(&renewd, "POST", "/api/live/start", &login, ""))
        };
        (of(ASTROLOGER), renewd)
    };
    // The source names no owners, so that the rule that trusts the backend grants the token; a list's rule doesn't.
    let (token, renewd) = started("astrologerID");
    is_short(&app, &token, 4);
    let login = app.login(ASTROLOGER);
    let listed = ask(&renewd, "GET", PUBLISHERS, &login, "");
    assert_eq!(token_in(&listed), Value::Null);
    let (token, _renewd) = started("astrologerId");
    is_short(&app, &token, 4);
}

#[test]
fn a_refused_subject_gets_nothing_while_the_source_that_refused_is_silent() {
    let app = start(Version::Four);
    let fan = "65f000000000000000000003";
    app.control("/streams", &json!({ "astrologerId": ASTROLOGER }));
    let streams = format!("[[stream]]\nchannel = \"{CHANNEL}\"\nowner = \"{ASTROLOGER}\"\n");
    let trusted = active("/api/live/active", "trust_publisher = true")
        + &active("/api/live/{id}", "require_auth = true");
    let renewd = Renewd::start(&Settings {
        streams: Some(streams.clone()),
        ..with_rules(&app, &trusted)
    });
    let (owner, viewer, fan) = (app.login(ASTROLOGER), app.login(VIEWER), app.login(fan));
    let request = |bearer: &str, role: &str| {
        let body = json!({ "channelName": CHANNEL, "uid": 0, "role": role }).to_string();
        renewd.post("/api/live/token", bearer, &body).status
    };
    for (bearer, role) in [
        (&owner, "publisher"),
        (&viewer, "subscriber"),
        (&fan, "subscriber"),
    ] {
        assert_eq!(request(bearer, role), 200);
    }
    // The viewer is banned, and the stream belongs to another subject.
    let changed = format!(
        "[[stream]]\nchannel = \"{CHANNEL}\"\nowner = \"another\"\nbanned_viewers = [\"{VIEWER}\"]\n"
    );
    std::fs::write(renewd.file("streams.toml"), changed).unwrap();
    renewd.eventually("the owner is none", |_| request(&owner, "publisher") == 403);
    assert_eq!(request(&viewer, "subscriber"), 403);
    std::fs::remove_file(renewd.file("streams.toml")).unwrap();
    renewd.signal(rustix::process::Signal::HUP);
    renewd.eventually("the source is down", |renewd| {
        renewd.metric("renewd_source_up{source=\"streams\"}") == 0.0
    });
    let all = ask(&renewd, "GET", "/api/live/active", "", "");
    let id = all.json()["data"][0]["_id"].as_str().unwrap().to_owned();
    let one = format!("/api/live/{id}");
    for (path, bearer, privileges) in [
        ("/api/live/active", "", Some(1)),
        ("/api/live/active", &fan, Some(1)),
        ("/api/live/active", &owner, Some(1)),
        ("/api/live/active", &viewer, None),
        (PUBLISHERS, "", None),
        (PUBLISHERS, &owner, None),
        (PUBLISHERS, &viewer, None),
        // A login that no source refused is enough.
        (PUBLISHERS, &fan, Some(4)),
        // The rule wants to know whose token this is, and no source says.
        (&*one, &fan, None),
    ] {
        let token = token_in(&ask(&renewd, "GET", path, bearer, ""));
        match privileges {
            Some(privileges) => is_short(&app, &token, privileges),
            None => assert_eq!(token, Value::Null, "{path} {bearer}"),
        }
    }
    assert_eq!(renewd.metric(&route("/api/live/active", "error")), 4.0);
    let failed = r#"renewd_token_requests_total{endpoint="reissue",role="subscriber",outcome="unavailable",class="failed"}"#;
    assert_eq!(renewd.metric(failed), 2.0);
}

/// The audit events of answers with tokens, from the log or a file.
fn audited_reissues(renewd: &Renewd, file: Option<&str>) -> Vec<Value> {
    let lines: Vec<Value> = match file {
        None => renewd.log().lines(),
        Some(file) => {
            let text = std::fs::read_to_string(renewd.file(file)).unwrap_or_default();
            let lines = text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            lines.collect()
        }
    };
    let of_lists = lines
        .into_iter()
        .filter(|line| line["endpoint"] == "reissue");
    of_lists.collect()
}

#[test]
fn the_tokens_of_an_answer_are_one_audit_event() {
    let app = start(Version::Four);
    for number in 1..=50 {
        let astrologer = format!("65f0000000000000000000{number:02}");
        app.control("/streams", &json!({ "astrologerId": astrologer }));
    }
    let banned =
        "[[stream]]\nchannel = \"live_65f000000000000000000007\"\nbanned_viewers = [\"VIEWER\"]\n";
    let settings = Settings {
        streams: Some(banned.replace("VIEWER", VIEWER)),
        ..with_rules(&app, &rules())
    };
    for (log, file) in [
        ("", None),
        ("audit = \"file:audit.log\"", Some("audit.log")),
    ] {
        let renewd = Renewd::start(&Settings {
            log: log.to_owned(),
            ..settings.clone()
        });
        for bearer in ["", &app.login(VIEWER)] {
            let answer = ask(&renewd, "GET", "/api/live/active", bearer, "");
            let given = tokens(&answer.json()).len();
            assert_eq!(given, if bearer.is_empty() { 50 } else { 49 });
        }
        let events = || audited_reissues(&renewd, file);
        renewd.eventually("two audit events", |_| events().len() >= 2);
        let events = events();
        assert_eq!(events.len(), 2, "{events:#?}");
        for (event, outcome) in events.iter().zip(["ok", "mixed"]) {
            assert_eq!(event["event"], "decision", "{event}");
            assert_eq!(event["tokens"], 50, "{event}");
            assert_eq!(event["outcome"], outcome, "{event}");
            assert_eq!(event["role"], "subscriber", "{event}");
            assert_eq!(event["uid"], 0, "{event}");
            assert!(
                event["expires"].is_string() && event["channel"].is_null(),
                "{event}"
            );
            let list = event["list"].as_str().unwrap();
            assert_eq!(list.split("; ").count(), 50, "{list}");
            let seventh = "live_65f000000000000000000007 0 subscriber ";
            let fate = if outcome == "ok" {
                "ok"
            } else {
                "viewer_banned"
            };
            assert!(list.contains(&format!("{seventh}{fate}")), "{list}");
        }
        assert_eq!(events[1]["subject"], VIEWER);
    }
}
