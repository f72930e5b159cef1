//! Streams and accounts as the current app keeps them in MongoDB: documents written by mongoose, read by renewd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test's way to fail

use crate::support;

use std::time::Duration;

use crate::support::app::{ASTROLOGER, CHANNEL, VIEWER};
use crate::support::ask::{Ask, counted};
use crate::support::database::{DATABASE, Site, ask, settings, status, timed};
use crate::support::express::Express;
use crate::support::mongo::Mongo;
use crate::support::renewd::{Renewd, Settings, login};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, DateTime, Document, doc};
use serde_json::{Value, json};

fn code((status, answer): (u16, Value)) -> (u16, String) {
    let code = answer["code"].as_str().unwrap_or("ok").to_owned();
    (status, code)
}

fn said(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[test]
fn every_row_of_the_table_from_documents_that_mongoose_wrote() {
    let site = Site::new(Mongo::start(), "");
    let owner = site.login(ASTROLOGER, &json!({}));
    let viewer = site.login(VIEWER, &json!({}));
    let as_viewer = || site.ask(&viewer, 7, "subscriber");
    let as_owner = || site.ask(&owner, 1, "publisher");
    a_stream_starts(&site, &owner, &as_viewer);

    assert_eq!(code(as_owner()), said(200, "ok"), "string and ObjectId");
    let (status, answer) = as_owner();
    assert_eq!(
        (status, &answer["data"]["role"]),
        (200, &json!("publisher"))
    );
    let publishing = site.ask(&viewer, 8, "publisher");
    assert_eq!(code(publishing), said(403, "not_owner"));

    a_viewer_is_banned_and_suspended_for_a_while(&site, &as_viewer);
    a_viewer_signs_in_elsewhere_and_out(&site, &as_viewer);
    the_newest_live_document_counts(&site, &as_owner);
    only_configured_sources_have_series(&site);
}

/// The answer to one caller's request for a token.
type Asking<'a> = &'a dyn Fn() -> (u16, Value);

fn a_stream_starts(site: &Site, owner: &str, as_viewer: Asking<'_>) {
    // A viewer is there before any stream ever was, and asks again the moment after `/start`.
    assert_eq!(code(as_viewer()), said(503, "unavailable"));
    let started = Ask::new("", &json!({})).bearer(owner);
    let started = Ask {
        path: "/api/live/start".to_owned(),
        ..started
    };
    assert_eq!(started.send(&site.renewd).status, 201);
    // A channel whose source gave no answer is asked for ten times a second at most.
    site.renewd.eventually("the viewer gets in", |_| {
        code(as_viewer()) == said(200, "ok")
    });
}

fn a_viewer_is_banned_and_suspended_for_a_while(site: &Site, as_viewer: Asking<'_>) {
    site.channel(&json!({"bannedViewers": [{"userId": VIEWER, "reason": "spam"}]}));
    site.renewd.eventually("the ban counts", |_| {
        code(as_viewer()) == said(403, "viewer_banned")
    });
    site.channel(&json!({"bannedViewers": []}));
    assert_eq!(
        code(as_viewer()),
        said(200, "ok"),
        "a lifted ban counts at once"
    );

    site.account(
        VIEWER,
        &json!({"isSuspended": true, "suspensionReason": "Spam", "suspendedAt": "2026-11-01"}),
    );
    site.renewd.eventually("the suspension counts", |_| {
        let (status, answer) = as_viewer();
        let suspended = status == 403;
        if suspended {
            assert_eq!(answer["code"], "account_suspended");
            assert_eq!(answer["reason"], "Spam");
            assert_eq!(answer["suspendedAt"], "2026-11-01T00:00:00.000Z");
            let message = answer["message"].as_str().unwrap();
            assert!(message.contains("suspend"), "{message}");
        }
        suspended
    });
    site.account(VIEWER, &json!({"isSuspended": false}));
    assert_eq!(
        code(as_viewer()),
        said(200, "ok"),
        "as does an end of a suspension"
    );
}

fn a_viewer_signs_in_elsewhere_and_out(site: &Site, as_viewer: Asking<'_>) {
    // The user has signed in on another device: the new login works at once, the old one is replaced.
    let elsewhere = site.login(VIEWER, &json!({}));
    assert_eq!(code(site.ask(&elsewhere, 7, "subscriber")), said(200, "ok"));
    let (status, answer) = as_viewer();
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("another device"), "{message}");
    assert_eq!(code((status, answer)), said(401, "session_replaced"));
    site.account(VIEWER, &json!({"activeSession": null}));
    site.renewd.eventually("the sign-out counts", |_| {
        let (status, answer) = site.ask(&elsewhere, 7, "subscriber");
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(!message.contains("another device"), "{message}");
        code((status, answer)) == said(401, "session_replaced")
    });
    let refused = |reason: &str| {
        let series = format!("renewd_unauthenticated_total{{reason=\"{reason}\"}}");
        site.renewd.metric(&series) > 0.0
    };
    assert!(refused("session") && !refused("account"));
    let deleted = json!({ "astrologerId": VIEWER });
    site.express.control("/accounts/delete", &deleted);
    site.renewd.eventually("the account is gone", |_| {
        code(site.ask(&elsewhere, 7, "subscriber")) == said(401, "unauthenticated")
    });
    assert!(refused("account"));
}

fn the_newest_live_document_counts(site: &Site, as_owner: Asking<'_>) {
    site.channel(&json!({"isBanned": true}));
    site.renewd.eventually("the stream is taken down", |_| {
        code(as_owner()) == said(404, "stream_not_live")
    });
    site.channel(&json!({"isBanned": false}));
    assert_eq!(code(as_owner()), said(200, "ok"));

    // The newest live document counts where the channel has several.
    site.stream(&json!({"isLive": false}));
    assert_eq!(code(as_owner()), said(200, "ok"));
    let another = json!({"astrologerId": VIEWER, "agoraChannelName": CHANNEL});
    site.express.control("/streams", &another);
    site.renewd
        .eventually("the newer stream has another owner", |_| {
            code(as_owner()) == said(403, "not_owner")
        });
    site.channel(&json!({"isLive": false}));
    site.renewd.eventually("all are over", |_| {
        code(as_owner()) == said(404, "stream_not_live")
    });
}

fn only_configured_sources_have_series(site: &Site) {
    for source in ["streams", "accounts"] {
        let up = format!("renewd_source_up{{source=\"{source}\"}}");
        assert_eq!(counted(&site.renewd, &up), 1);
    }
    let page = site.renewd.metrics();
    for absent in ["authorize", "jwks", "redis"] {
        assert!(
            !page.contains(&format!("{{source=\"{absent}\"")),
            "{absent}"
        );
    }
}

/// Streams whose fields have other types than mongoose gives them.
fn odd_documents() -> Vec<Document> {
    let stream = |channel: &str, owner: Bson, live: Bson| {
        doc! { "agoraChannelName": channel, "astrologerId": owner, "isLive": live }
    };
    let owner = ObjectId::parse_str(ASTROLOGER).unwrap();
    let text = || Bson::String("ann".to_owned());
    let mut with_cohosts = stream("cohosts", text(), true.into());
    with_cohosts.insert("guests", vec![doc! { "who": owner }, doc! { "who": "bob" }]);
    let mut with_bans = stream("bans", text(), true.into());
    with_bans.insert(
        "bannedViewers",
        vec![Bson::from(doc! { "userId": "bob" }), owner.into()],
    );
    let mut oddly_banned = stream("oddly_banned", text(), true.into());
    oddly_banned.insert("isBanned", DateTime::from_millis(0));
    vec![
        stream("text", text(), true.into()),
        stream("object", owner.into(), true.into()),
        stream("number", 12_i64.into(), 1.into()),
        stream(
            "populated",
            doc! { "_id": owner, "name": "A" }.into(),
            1.0.into(),
        ),
        stream("long", 12_i32.into(), 1_i64.into()),
        stream("decimal", text(), Bson::Decimal128("1".parse().unwrap())),
        stream("nobody", Bson::Null, true.into()),
        doc! { "agoraChannelName": "absent", "isLive": true },
        stream("over", text(), false.into()),
        stream("undecided", text(), Bson::Null),
        stream("a date", text(), DateTime::from_millis(1).into()),
        with_cohosts,
        with_bans,
        oddly_banned,
        // Older and newer documents than the one that is live.
        stream("again", "eve".into(), true.into()),
        stream("again", text(), true.into()),
        stream("again", "eve".into(), false.into()),
    ]
}

#[test]
fn documents_that_mongoose_would_not_write() {
    let mongo = Mongo::start();
    mongo.insert("test", "livestreams", odd_documents());
    // The database is mongoose's own where the connection string names none.
    let uri = mongo.uri("");
    let renewd = Renewd::start(&Settings {
        sources: Some(format!(
            "[mongodb]\nuri = \"{uri}?useNewUrlParser=true&socketTimeoutMS=45000\"\n\n[accounts]\nsource = \"none\"\n\n\
             [streams]\nsource = \"mongodb\"\ncohosts_field = \"guests.who\"\n\n"
        )),
        ..Settings::default()
    });
    let row = |subject: &str, channel: &str, role: &str| {
        let body = json!({"channelName": channel, "uid": 7, "role": role});
        let answer = Ask::new(subject, &body).send(&renewd);
        code((answer.status, answer.json()))
    };
    let publishes = |subject: &str, channel: &str| row(subject, channel, "publisher");
    for (subject, channel) in [
        ("ann", "text"),
        (ASTROLOGER, "object"),
        ("12", "number"),
        ("12", "long"),
        ("ann", "decimal"),
        (ASTROLOGER, "populated"),
        (ASTROLOGER, "cohosts"),
        ("bob", "cohosts"),
        ("ann", "again"),
    ] {
        assert_eq!(publishes(subject, channel), said(200, "ok"), "{channel}");
        assert_eq!(
            publishes("eve", channel),
            said(403, "not_owner"),
            "{channel}"
        );
    }
    for channel in ["nobody", "absent"] {
        for subject in ["null", "undefined", "ann"] {
            assert_eq!(publishes(subject, channel), said(403, "not_owner"));
        }
        assert_eq!(row("eve", channel, "subscriber"), said(200, "ok"));
    }
    for channel in ["over", "undecided", "a date", "oddly_banned", "nowhere"] {
        assert_eq!(
            publishes("ann", channel),
            said(404, "stream_not_live"),
            "{channel}"
        );
    }
    for subject in ["bob", ASTROLOGER] {
        assert_eq!(
            row(subject, "bans", "subscriber"),
            said(403, "viewer_banned")
        );
    }
}

#[test]
fn with_change_streams_an_end_counts_at_once() {
    // Without change streams no question would be asked within a minute.
    let site = Site::new(Mongo::start(), "cache_ttl = \"1m\"");
    let owner = site.login(ASTROLOGER, &json!({}));
    site.stream(&json!({}));
    let refresh = || code(site.ask(&owner, 1, "publisher"));
    assert_eq!(refresh(), said(200, "ok"));
    let misses = r#"renewd_source_lookups_total{source="streams",outcome="miss"}"#;
    let hits = r#"renewd_source_lookups_total{source="streams",outcome="hit"}"#;
    // While the change streams run, known answers stay known.
    site.renewd.eventually("an answer from memory", |renewd| {
        let before = (counted(renewd, misses), counted(renewd, hits));
        assert_eq!(refresh(), said(200, "ok"));
        counted(renewd, misses) == before.0 && counted(renewd, hits) == before.1 + 1
    });
    site.channel(&json!({"isLive": false}));
    let ((), took) = timed(|| {
        site.renewd.eventually("the end counts", |_| {
            refresh() == said(404, "stream_not_live")
        });
    });
    assert!(took < Duration::from_secs(20), "{took:?}");

    site.channel(&json!({"isLive": true}));
    assert_eq!(refresh(), said(200, "ok"));
    site.account(ASTROLOGER, &json!({"isSuspended": true}));
    site.renewd.eventually("the suspension counts", |_| {
        refresh() == said(403, "account_suspended")
    });
}

#[test]
fn without_change_streams_an_end_counts_within_the_time_to_live() {
    let mongo = Mongo::with(&["--standalone"]);
    let site = Site::new(mongo, "cache_ttl = \"1s\"");
    let owner = site.login(ASTROLOGER, &json!({}));
    site.stream(&json!({}));
    let refresh = || code(site.ask(&owner, 1, "publisher"));
    assert_eq!(refresh(), said(200, "ok"));
    site.renewd.log().wait("why", |line| {
        let said = line["msg"].as_str()?;
        said.contains("no change streams").then_some(())
    });
    site.channel(&json!({"isLive": false}));
    let ((), took) = timed(|| {
        site.renewd.eventually("the end counts", |_| {
            refresh() == said(404, "stream_not_live")
        });
    });
    assert!(took < Duration::from_secs(10), "{took:?}");
}

use crate::support::tls;

#[test]
fn a_password_and_tls_as_in_the_apps_connection_string() {
    let mut mongo = Mongo::start();
    let user = doc! { "createUser": "reader", "pwd": "hunter2", "roles": [{ "role": "read", "db": DATABASE }] };
    mongo.run("admin", user);
    let owner = Bson::String("owner".to_owned());
    mongo.insert(
        DATABASE,
        "livestreams",
        vec![doc! { "agoraChannelName": "live_show", "astrologerId": owner, "isLive": true }],
    );
    let authority = tls::Authority::new();
    let pair = authority.issue("mongo", 10);
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    mongo.restart_with(&[
        "--auth",
        "--tls-cert-file",
        &path(&pair.certificate),
        "--tls-key-file",
        &path(&pair.key),
    ]);
    mongo.options = format!(
        "?authSource=admin&tls=true&tlsCAFile={}",
        path(&authority.certificate())
    );
    let configured = |password: &str| Settings {
        sources: Some(format!(
            "[mongodb]\nuri = \"mongodb://reader:{password}@{}/{DATABASE}{}\"\n\n[accounts]\nsource = \"none\"\n\n\
             [streams]\nsource = \"mongodb\"\n\n",
            mongo.address, mongo.options
        )),
        ..Settings::default()
    };
    let publish = json!({"channelName": "live_show", "uid": 7, "role": "publisher"});
    let renewd = Renewd::start(&configured("hunter2"));
    let answer = Ask::new("owner", &publish).send(&renewd);
    assert_eq!(answer.status, 200, "{}", answer.json());

    let renewd = Renewd::start(&configured("hunter3"));
    let answer = Ask::new("owner", &publish).send(&renewd);
    assert_eq!(answer.status, 503, "{}", answer.json());
    says(&renewd, "authentication failed");
    let (status, _) = status(&renewd);
    let shown = format!("{status} {:?}", renewd.log().lines());
    assert!(!shown.contains("hunter3"), "{shown}");

    // The certificate is another authority's.
    let stranger = tls::Authority::new();
    let other = mongo.options.replace(
        &path(&authority.certificate()),
        &path(&stranger.certificate()),
    );
    let settings = configured("hunter2");
    let sources = settings.sources.as_deref().unwrap();
    let sources = sources.replace(&mongo.options, &other);
    let renewd = Renewd::start(&Settings {
        sources: Some(sources),
        ..settings
    });
    let answer = Ask::new("owner", &publish).send(&renewd);
    assert_eq!(answer.status, 503, "{}", answer.json());
    says(&renewd, "certificate");
}

/// Waits until the page gives this as the reason why streams have no answer. The log says the first one alone, for
/// which a busy machine may have had no time.
fn says(renewd: &Renewd, reason: &str) {
    let has = |said: &Value| {
        let said = said.as_str().unwrap_or_default().to_lowercase();
        said.contains(reason)
    };
    renewd.eventually(reason, |renewd| {
        has(&status(renewd).0["sources"][0]["error"])
    });
}

#[test]
fn a_change_of_sources_drops_nothing() {
    let site = Site::new(Mongo::start(), "");
    let owner = site.login(ASTROLOGER, &json!({}));
    site.stream(&json!({}));
    assert_eq!(code(site.ask(&owner, 1, "publisher")), said(200, "ok"));
    let mongodb = settings(&site.mongo.uri(DATABASE), &site.express, "");
    let http = format!(
        "[accounts]\nsource = \"http\"\nurl = \"http://{0}/internal/account\"\n\n[streams]\nsource = \"http\"\n\
         url = \"http://{0}/internal/streams/{{channel}}\"\nlive_pointer = \"/data/isLive\"\nowner_pointer = \"/data/astrologerId\"\n\n",
        site.express.address
    );
    let file = format!(
        "[accounts]\nsource = \"none\"\n\n[streams]\nfile = \"streams.toml\"\n\n# {CHANNEL}\n"
    );
    let streams = format!("[[stream]]\nchannel = \"{CHANNEL}\"\nowner = \"{ASTROLOGER}\"\n");
    let mut client = site.renewd.client();
    let mut ask_on = |what: &str| {
        let body = json!({"channelName": CHANNEL, "uid": 1, "role": "publisher"});
        let answer = Ask::new("", &body).bearer(&owner).send_on(&mut client);
        assert_eq!(answer.status, 200, "{what}: {}", answer.json());
    };
    support::renewd::private_file(&site.renewd.file("streams.toml"), &streams);
    for (what, sources, accounts) in [
        ("http", Some(http), true),
        ("file", Some(file), false),
        ("mongodb", mongodb.sources.clone(), true),
    ] {
        let changed = Settings {
            sources,
            streams: Some(streams.clone()),
            ..mongodb.clone()
        };
        support::ask::reconfigure(&site.renewd, &changed);
        ask_on(what);
        let page = site.renewd.metrics();
        assert_eq!(
            page.contains("renewd_source_up{source=\"accounts\"}"),
            accounts,
            "{what}"
        );
    }
    // Each reload makes sources anew, which the earlier ones must not hinder.
    for turn in 0..40 {
        let lines = format!("cache_ttl = \"{}ms\"", 1000 + turn);
        let changed = settings(&site.mongo.uri(DATABASE), &site.express, &lines);
        support::ask::reconfigure(&site.renewd, &changed);
        ask_on(&lines);
    }
}

#[test]
fn a_database_that_is_nowhere_delays_no_start_and_is_503() {
    let express = Express::start(support::express::Version::Four, &[]);
    let renewd = Renewd::start(&settings(
        "mongodb://app:hunter2@127.0.0.1:1/live",
        &express,
        "",
    ));
    let (answer, took) = timed(|| ask(&renewd, &login("nobody"), 7, "subscriber"));
    // The login has no `astrologerId`.
    assert_eq!(answer.0, 401);
    let login = support::renewd::jwt(&json!({
        "astrologerId": VIEWER, "sessionId": "s", "exp": support::renewd::now() + 60
    }));
    let answer = ask(&renewd, &login, 7, "subscriber");
    assert_eq!(code(answer), said(503, "unavailable"));
    assert!(took < Duration::from_secs(10), "{took:?}");
    let (status, ready) = status(&renewd);
    assert_eq!(ready["degraded"], json!(["streams", "accounts"]), "{ready}");
    let shown = format!("{status} {:?}", renewd.log().lines());
    assert!(!shown.contains("hunter2"), "{shown}");
    says(&renewd, "connection refused");
}
