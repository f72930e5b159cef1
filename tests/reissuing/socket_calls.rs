//! The current app's calls over socket.io through renewd: both sides of a call get its token, and nobody gets one to
//! publish in a stream that isn't theirs.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail
#![allow(clippy::float_cmp)] // counters hold whole numbers

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mongodb::bson::{doc, oid::ObjectId};
use serde_json::{Value, json};

use crate::support::app::{ASTROLOGER, CHANNEL, VIEWER, settings, start};
use crate::support::ask::reconfigure;
use crate::support::database;
use crate::support::express::{Express, Version};
use crate::support::mongo::Mongo;
use crate::support::renewd::{Renewd, Settings, jwt, now};
use crate::support::talkers::{TRANSPORTS, Talkers};

const SOCKETS: &str = "[[reissue.socket]]\npath = \"/socket.io/*\"\n";

/// What Agora lets a publisher do: join, publish audio, video and data.
const PUBLISHER: usize = 4;
const SUBSCRIBER: usize = 1;

/// renewd's configuration with this rule for sockets; streams are named as the app names them.
fn with_sockets(app: &Express, rule: &str) -> Settings {
    Settings {
        tables: format!("{SOCKETS}{rule}"),
        streams_table: "channel_pattern = \"live_*\"".to_owned(),
        ..settings(app)
    }
}

fn series(outcome: &str) -> String {
    format!("renewd_reissue_total{{route=\"socket /socket.io/*\",outcome=\"{outcome}\"}}")
}

/// A login of the app's, for an hour.
fn login(user: &str) -> String {
    login_until(user, now() + 3600)
}

fn login_until(user: &str, end: u64) -> String {
    jwt(&json!({"astrologerId": user, "sessionId": "session", "exp": end}))
}

fn bearer(user: &str) -> Value {
    json!({ "extraHeaders": { "authorization": format!("Bearer {}", login(user)) } })
}

/// The token that an anonymous or named socket gets for a channel.
fn token(talkers: &mut Talkers, name: &str, channel: &str) -> Value {
    let answer = talkers.ask(name, "call:token", &json!({ "channelName": channel }));
    assert_eq!(answer["channelName"], channel, "{answer}");
    assert_eq!(answer["success"], true, "{answer}");
    answer["token"].clone()
}

/// Holds that Agora's package reads a token of an hour with so many privileges, which was made just now.
fn is_for_an_hour(app: &Express, token: &Value, channel: &str, privileges: usize) {
    let read = app.inspect(token);
    assert_eq!(read["verified"], true, "{read}");
    assert_eq!(read["expire"], 3600, "{read}");
    let service = &read["services"][0];
    assert_eq!(service["channelName"], channel, "{read}");
    let held = service["privileges"].as_object().unwrap();
    assert_eq!(held.len(), privileges, "{read}");
    assert!(held.values().all(|seconds| *seconds == 3600), "{read}");
}

fn is_to_publish(app: &Express, token: &Value) {
    is_for_an_hour(app, token, CHANNEL, PUBLISHER);
}

#[test]
fn both_sides_of_a_call_get_its_token_for_an_hour() {
    let app = start(Version::Four);
    let renewd = Renewd::start(&with_sockets(&app, ""));
    for transports in TRANSPORTS {
        let replaced = renewd.metric(&series("replaced"));
        let withheld = renewd.metric(&series("withheld"));
        call(&app, &renewd, transports);
        assert_eq!(renewd.metric(&series("replaced")), replaced + 4.0);
        assert_eq!(renewd.metric(&series("withheld")), withheld + 1.0);
    }
}

fn call(app: &Express, renewd: &Renewd, transports: &'static [&'static str]) {
    let mut talkers = Talkers::start();
    talkers.transports = transports;
    for (name, uid) in [("caller", 11), ("callee", 12)] {
        talkers.open(name, renewd.public, "", &json!({}));
        let joined = talkers.ask(name, "join", &json!(format!("user:{uid}")));
        assert_eq!(joined, "joined");
    }
    let call = json!({ "to": 12, "from": 11, "channelName": "call_11_12" });
    talkers.emit("caller", "call:incoming", &call);
    let ringing = talkers.wait("callee", "call:incoming");
    assert_eq!(ringing["from"], 11);
    is_for_an_hour(app, &ringing["token"], "call_11_12", PUBLISHER);
    talkers.emit("callee", "call:accept", &call);
    for (name, uid) in [("caller", 11), ("callee", 12)] {
        let accepted = talkers.wait(name, "call:accept");
        assert_eq!(accepted["uid"], uid);
        is_for_an_hour(app, &accepted["token"], "call_11_12", PUBLISHER);
    }
    // An older backend's tokens say neither their channel nor their user, and the event says both.
    let wanted = json!({ "channelName": "call_11_12", "uid": 11, "format": "006" });
    talkers.emit("caller", "call:token", &wanted);
    let got = talkers.wait("caller", "call:token");
    let body = json!({ "token": got["token"], "channelName": "call_11_12", "uid": 11 });
    let read = app.control("/inspect", &body);
    assert_eq!(read["verified"], true, "{read}");
    assert_eq!(read["privileges"].as_object().unwrap().len(), PUBLISHER);
    let seconds = read["expire"].as_i64().unwrap();
    assert!((3590..=3600).contains(&seconds), "{read}");
    let everywhere = token(&mut talkers, "caller", "*");
    assert_eq!(everywhere, Value::Null);
}

/// The app's database, in which the stream's owner and a viewer have accounts.
fn with_accounts() -> Mongo {
    let mongo = Mongo::start();
    let account = |user: &str| {
        doc! { "_id": ObjectId::parse_str(user).unwrap(), "activeSession": { "sessionId": "session" } }
    };
    let accounts = vec![account(ASTROLOGER), account(VIEWER)];
    mongo.insert("live", "astrologers", accounts);
    mongo
}

fn stream(live: bool) -> mongodb::bson::Document {
    doc! { "agoraChannelName": CHANNEL, "astrologerId": ObjectId::parse_str(ASTROLOGER).unwrap(), "isLive": live }
}

fn change(
    mongo: &Mongo,
    collection: &str,
    of: mongodb::bson::Document,
    to: mongodb::bson::Document,
) {
    let updates = vec![doc! { "q": of, "u": { "$set": to }, "multi": true }];
    mongo.run("live", doc! { "update": collection, "updates": updates });
}

fn of_database(mongo: &Mongo, app: &Express, rule: &str) -> Settings {
    let settings = database::settings(&mongo.uri("live"), app, "cache_ttl = \"0s\"");
    let sources = settings.sources.unwrap();
    let pattern = "[streams]\nchannel_pattern = \"live_*\"\n";
    Settings {
        sources: Some(sources.replace("[streams]\n", pattern)),
        tables: format!("{}{SOCKETS}{rule}", settings.tables),
        token: "zero_uid = \"allow\"".to_owned(),
        ..settings
    }
}

#[test]
fn a_streams_publisher_token_goes_to_its_owner_alone_and_only_while_it_is_live() {
    let app = start(Version::Four);
    let mut mongo = with_accounts();
    let renewd = Renewd::start(&of_database(&mongo, &app, ""));
    let mut talkers = Talkers::start();
    talkers.open("nobody", renewd.public, "", &json!({}));
    talkers.open("owner", renewd.public, "", &bearer(ASTROLOGER));
    talkers.open("viewer", renewd.public, "", &bearer(VIEWER));
    let mut all = |state: &str| {
        for name in ["nobody", "viewer"] {
            let got = token(&mut talkers, name, CHANNEL);
            assert_eq!(got, Value::Null, "{name} {state}");
        }
        // Calls go on meanwhile.
        let call = token(&mut talkers, "nobody", "call_1_2");
        is_for_an_hour(&app, &call, "call_1_2", PUBLISHER);
        token(&mut talkers, "owner", CHANNEL)
    };
    assert_eq!(all("before its first stream"), Value::Null);
    mongo.insert("live", "livestreams", vec![stream(true)]);
    renewd.eventually("the owner publishes", |_| all("live") != Value::Null);
    is_to_publish(&app, &all("live"));
    change(&mongo, "livestreams", doc! {}, doc! { "isLive": false });
    renewd.eventually("the stream is over", |_| {
        all("after its end") == Value::Null
    });
    // The next one.
    mongo.insert("live", "livestreams", vec![stream(true)]);
    renewd.eventually("the owner publishes", |_| all("live again") != Value::Null);
    mongo.kill();
    assert_eq!(all("with the database down"), Value::Null);
}

#[test]
fn what_happens_to_a_user_in_mid_session_counts_for_the_next_message() {
    let app = start(Version::Four);
    let mongo = with_accounts();
    mongo.insert("live", "livestreams", vec![stream(true)]);
    let renewd = Renewd::start(&of_database(&mongo, &app, ""));
    let mut talkers = Talkers::start();
    let watch = json!({ "channelName": CHANNEL, "role": "subscriber" });
    let viewers = talkers_watch(&mut talkers, &renewd, &watch);
    is_for_an_hour(&app, &viewers, CHANNEL, SUBSCRIBER);
    let mut gets = |name: &str| talkers.ask(name, "call:token", &watch)["token"] != Value::Null;
    let viewer = ObjectId::parse_str(VIEWER).unwrap();
    let stream = doc! { "agoraChannelName": CHANNEL };
    let ban = doc! { "bannedViewers": [{ "userId": viewer }] };
    change(&mongo, "livestreams", stream.clone(), ban);
    renewd.eventually("the viewer is banned", |_| !gets("viewer"));
    assert!(gets("nobody"));
    change(&mongo, "livestreams", stream, doc! { "bannedViewers": [] });
    renewd.eventually("the ban is lifted", |_| gets("viewer"));
    let account = doc! { "_id": viewer };
    change(
        &mongo,
        "astrologers",
        account.clone(),
        doc! { "isSuspended": true },
    );
    renewd.eventually("the viewer is suspended", |_| !gets("viewer"));
    change(
        &mongo,
        "astrologers",
        account,
        doc! { "isSuspended": false },
    );
    renewd.eventually("the suspension is lifted", |_| gets("viewer"));
    let revocation = json!({ "subject": VIEWER, "for": "1h" }).to_string();
    let told = renewd.ask_admin("POST", "/v1/revocations", &revocation);
    assert_eq!(told.status, 201);
    assert!(!gets("viewer"), "the very next message");
    let id = told.json()["id"].as_str().unwrap().to_owned();
    renewd.ask_admin("DELETE", &format!("/v1/revocations/{id}"), "");
    assert!(gets("viewer"));
    let revocation = json!({ "channel": CHANNEL, "for": "1h" }).to_string();
    assert_eq!(
        renewd
            .ask_admin("POST", "/v1/revocations", &revocation)
            .status,
        201
    );
    assert!(!gets("viewer") && !gets("nobody"));
}

fn talkers_watch(talkers: &mut Talkers, renewd: &Renewd, watch: &Value) -> Value {
    talkers.open("viewer", renewd.public, "", &bearer(VIEWER));
    talkers.open("nobody", renewd.public, "", &json!({}));
    talkers.ask("viewer", "call:token", watch)["token"].clone()
}

#[test]
fn a_login_counts_wherever_the_client_shows_it_and_as_long_as_it_lasts() {
    let app = start(Version::Four);
    let places =
        "login = [\"handshake\", \"query:token\", \"socket.io\"]\n[auth]\ncookie = \"login\"\n";
    let renewd = Renewd::start(&with_sockets(&app, places));
    for transports in TRANSPORTS {
        shows_logins(&app, &renewd, transports);
    }
}

fn shows_logins(app: &Express, renewd: &Renewd, transports: &'static [&'static str]) {
    let mut talkers = Talkers::start();
    talkers.transports = transports;
    let owner = login(ASTROLOGER);
    let cookie = json!({ "extraHeaders": { "cookie": format!("a=1; login={owner}") } });
    let query = format!("?token={owner}");
    let auth = json!({ "auth": { "token": owner } });
    let with_scheme = json!({ "auth": { "token": format!("Bearer {owner}") } });
    let in_query = json!({ "query": { "token": owner } });
    for (name, query, options) in [
        ("header", "", &bearer(ASTROLOGER)),
        ("cookie", "", &cookie),
        ("query", &*query, &json!({})),
        ("query of an option", "", &in_query),
        ("auth", "", &auth),
        ("auth with scheme", "", &with_scheme),
    ] {
        talkers.open(name, renewd.public, query, options);
        is_to_publish(app, &token(&mut talkers, name, CHANNEL));
    }
    let wrong = json!({ "auth": { "token": "not.a.login" } });
    let elsewhere = json!({ "query": { "login": owner }, "auth": { "other": owner } });
    for (name, options) in [
        ("nothing", &json!({})),
        ("wrong", &wrong),
        ("elsewhere", &elsewhere),
        ("another", &bearer(VIEWER)),
    ] {
        talkers.open(name, renewd.public, "", options);
        assert_eq!(token(&mut talkers, name, CHANNEL), Value::Null, "{name}");
    }
    // A login that ends in mid-session has ended.
    let short = json!({ "auth": { "token": login_until(ASTROLOGER, now() + 4) } });
    talkers.open("short", renewd.public, "", &short);
    is_to_publish(app, &token(&mut talkers, "short", CHANNEL));
    renewd.eventually("the login ends", |_| {
        token(&mut talkers, "short", CHANNEL) == Value::Null
    });
}

#[test]
fn a_login_belongs_to_the_namespace_whose_connect_carried_it() {
    let app = start(Version::Four);
    let renewd = Renewd::start(&with_sockets(&app, ""));
    for transports in TRANSPORTS {
        has_logins_in_namespaces(&app, &renewd, transports);
    }
}

fn has_logins_in_namespaces(app: &Express, renewd: &Renewd, transports: &'static [&'static str]) {
    let mut talkers = Talkers::start();
    talkers.transports = transports;
    let auth = |user: &str| json!({ "auth": { "token": login(user) } });
    let publishes = |talkers: &mut Talkers, name: &str| {
        let got = token(talkers, name, CHANNEL);
        if got != Value::Null {
            is_to_publish(app, &got);
        }
        got != Value::Null
    };
    // The handshake's is the owner's: a namespace with another login has that one.
    talkers.open("main", renewd.public, "", &bearer(ASTROLOGER));
    talkers.open_over("calls", "main", "/calls", &json!({}));
    talkers.open_over("chat", "main", "/chat", &auth(VIEWER));
    assert!(publishes(&mut talkers, "main"));
    assert!(publishes(&mut talkers, "calls"));
    assert!(!publishes(&mut talkers, "chat"));
    // A second CONNECT replaces the login, and one without gives the handshake's back.
    for (auth, expected) in [
        (json!({ "token": login(ASTROLOGER) }), true),
        (json!({ "token": login(VIEWER) }), false),
        (json!({}), true),
    ] {
        let again = talkers.step(&json!({ "again": "chat", "auth": auth }));
        assert_eq!(again["opened"], json!(transports.last()));
        assert_eq!(publishes(&mut talkers, "chat"), expected, "{auth}");
        assert!(publishes(&mut talkers, "calls"));
    }
    // An anonymous handshake, and a login in one namespace alone.
    talkers.open("anonymous", renewd.public, "", &json!({}));
    talkers.open_over("named", "anonymous", "/calls", &auth(ASTROLOGER));
    talkers.open_over("nameless", "anonymous", "/chat", &json!({}));
    assert!(!publishes(&mut talkers, "anonymous"));
    assert!(publishes(&mut talkers, "named"));
    assert!(!publishes(&mut talkers, "nameless"));
    // A room's message is every member's own.
    for name in ["named", "calls"] {
        assert_eq!(talkers.ask(name, "join", &json!("user:7")), "joined");
    }
    let ring = json!({ "to": 7, "from": 8, "channelName": CHANNEL });
    talkers.emit("named", "call:incoming", &ring);
    for name in ["named", "calls"] {
        let ringing = talkers.wait(name, "call:incoming");
        is_to_publish(app, &ringing["token"]);
    }
}

#[test]
fn a_rule_may_withhold_more_or_give_others_a_token_to_watch_with() {
    let app = start(Version::Four);
    for (rule, [call, call_of_owner, stream, stream_of_owner]) in [
        ("unknown_channel = \"withhold\"", [0, 0, 0, PUBLISHER]),
        ("require_auth = true", [0, PUBLISHER, 0, PUBLISHER]),
        (
            "publisher_for_others = \"subscriber\"",
            [PUBLISHER, PUBLISHER, SUBSCRIBER, PUBLISHER],
        ),
    ] {
        let renewd = Renewd::start(&with_sockets(&app, rule));
        let mut talkers = Talkers::start();
        talkers.open("nobody", renewd.public, "", &json!({}));
        talkers.open("owner", renewd.public, "", &bearer(ASTROLOGER));
        for (name, channel, privileges) in [
            ("nobody", "call_1_2", call),
            ("owner", "call_1_2", call_of_owner),
            ("nobody", CHANNEL, stream),
            ("owner", CHANNEL, stream_of_owner),
            // Not begun yet.
            ("owner", "live_another", stream),
            ("nobody", "*", 0),
        ] {
            let got = token(&mut talkers, name, channel);
            match privileges {
                0 => assert_eq!(got, Value::Null, "{rule}: {name} {channel}"),
                _ => is_for_an_hour(&app, &got, channel, privileges),
            }
        }
    }
}

#[test]
fn observing_counts_and_leaves_every_token_and_off_does_not_even_count() {
    let app = start(Version::Four);
    for (tables, counts) in [
        ("[reissue]\nmode = \"observe\"\n", true),
        ("[decision]\nmode = \"observe\"\n", true),
        ("[decision]\nmode = \"off\"\n", false),
        ("[reissue]\nmode = \"off\"\n", false),
    ] {
        let settings = with_sockets(&app, "");
        let renewd = Renewd::start(&Settings {
            tables: format!("{tables}{}", settings.tables),
            ..settings
        });
        let mut talkers = Talkers::start();
        talkers.open("nobody", renewd.public, "", &json!({}));
        for channel in [CHANNEL, "*", "call_1_2"] {
            let read = app.inspect(&token(&mut talkers, "nobody", channel));
            assert_eq!(read["expire"], 24 * 3600, "{tables}");
        }
        let counted = || ["replaced", "withheld"].map(|outcome| renewd.metric(&series(outcome)));
        let expected = if counts { [1.0, 2.0] } else { [0.0, 0.0] };
        // Nobody waits for the sources while tokens are only observed.
        renewd.eventually(tables, |_| counted() == expected);
    }
}

#[test]
fn a_message_is_one_audit_event_and_a_reload_counts_for_the_next_one() {
    let app = start(Version::Four);
    let renewd = Renewd::start(&with_sockets(&app, ""));
    let mut talkers = Talkers::start();
    talkers.open("owner", renewd.public, "", &bearer(ASTROLOGER));
    for channel in [CHANNEL, "call_1_2", "*"] {
        token(&mut talkers, "owner", channel);
    }
    let events = || {
        let mut lines = renewd.log().lines();
        lines.retain(|line| line["target"] == "audit" && line["endpoint"] == "reissue");
        lines
    };
    renewd.eventually("three audit events", |_| events().len() >= 3);
    let told = events();
    assert_eq!(told.len(), 3, "{told:#?}");
    for (event, (channel, outcome)) in
        told.iter()
            .zip([(CHANNEL, "ok"), ("call_1_2", "ok"), ("*", "policy_denied")])
    {
        assert_eq!(event["event"], "decision", "{event}");
        assert_eq!(event["channel"], channel, "{event}");
        assert_eq!(event["outcome"], outcome, "{event}");
        assert_eq!(event["subject"], ASTROLOGER, "{event}");
        assert_eq!(event["tokens"], 1, "{event}");
        assert_eq!(event["expires"].is_string(), outcome == "ok", "{event}");
    }
    assert_eq!(renewd.metric(&series("replaced")), 2.0);
    assert_eq!(renewd.metric(&series("withheld")), 1.0);
    let shorter = with_sockets(&app, "");
    reconfigure(
        &renewd,
        &Settings {
            token: format!("{}\nlifetime = \"10m\"", shorter.token),
            ..shorter
        },
    );
    let read = app.inspect(&token(&mut talkers, "owner", CHANNEL));
    assert_eq!(read["expire"], 600);
    let withheld = with_sockets(&app, "unknown_channel = \"withhold\"");
    reconfigure(&renewd, &withheld);
    assert_eq!(token(&mut talkers, "owner", "call_1_2"), Value::Null);
    let off = with_sockets(&app, "[decision]\nmode = \"off\"\n");
    reconfigure(&renewd, &off);
    let read = app.inspect(&token(&mut talkers, "owner", CHANNEL));
    assert_eq!(read["expire"], 24 * 3600);
}

#[test]
fn bytes_in_a_websocket_are_searched_where_the_rule_says_so() {
    let app = start(Version::Four);
    let mut talkers = Talkers::start();
    talkers.open("direct", app.address, "", &json!({}));
    let long = token(&mut talkers, "direct", "call_1_2");
    let bytes = STANDARD.encode(json!({ "token": long, "rest": "ÿ" }).to_string());
    for (rule, seconds) in [("", 24 * 3600), ("binary = true", 3600)] {
        let renewd = Renewd::start(&with_sockets(&app, rule));
        talkers.open("through", renewd.public, "", &json!({}));
        let sent = json!({ "photo": { "$bytes": bytes } });
        let back = talkers.ask("through", "bytes", &sent);
        let back = STANDARD
            .decode(back["photo"]["$bytes"].as_str().unwrap())
            .unwrap();
        let back: Value = serde_json::from_slice(&back).unwrap();
        assert_eq!(back["rest"], "ÿ");
        let read = app.inspect(&back["token"]);
        assert_eq!(read["expire"], seconds, "{rule}");
    }
}
