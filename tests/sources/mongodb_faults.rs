//! A database that fails in every way: forwarding isn't touched, the holder of a token renews it, no other caller gets
//! one, and renewd recovers by itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test's way to fail

use crate::support;

use std::time::Duration;

use crate::support::app::{ASTROLOGER, VIEWER};
use crate::support::ask::counted;
use crate::support::database::{DATABASE, Site, ask, settings, status, timed};
use crate::support::express::Express;
use crate::support::mongo::Mongo;
use crate::support::renewd::{Renewd, Settings, jwt, now, write_files};
use mongodb::bson::doc;
use serde_json::{Value, json};

/// The subject that no fault may let in.
const STRANGER: &str = "65f000000000000000000003";

/// Longer than a decision may take, with a busy machine's delay.
const PATIENT: Duration = Duration::from_secs(10);

struct Outage {
    site: Site,
    owner: String,
    viewer: String,
    stranger: String,
}

impl Outage {
    /// The owner and a viewer hold tokens; the stranger has none.
    fn over(mongo: Mongo) -> Self {
        let site = Site::new(mongo, "cache_ttl = \"0s\"");
        let owner = site.login(ASTROLOGER, &json!({}));
        let viewer = site.login(VIEWER, &json!({}));
        let stranger = site.login(STRANGER, &json!({}));
        site.stream(&json!({}));
        let outage = Self {
            site,
            owner,
            viewer,
            stranger,
        };
        assert_eq!(outage.owner().0, 200);
        assert_eq!(outage.viewer().0, 200);
        outage
    }

    fn owner(&self) -> (u16, Value) {
        self.site.ask(&self.owner, 1, "publisher")
    }

    fn viewer(&self) -> (u16, Value) {
        self.site.ask(&self.viewer, 2, "subscriber")
    }

    fn stranger(&self) -> (u16, Value) {
        self.site.ask(&self.stranger, 3, "subscriber")
    }

    /// Holds that holders go on and strangers are refused as long as the database gives no answer.
    fn holds(&self, what: &str) {
        for turn in 0..2 {
            for (who, status) in [(self.owner(), 200), (self.viewer(), 200)] {
                assert_eq!(who.0, status, "{what}, {turn}: {}", who.1);
            }
            // Another role than the one held is a stranger's question too.
            for (answer, took) in [
                timed(|| self.stranger()),
                timed(|| self.site.ask(&self.viewer, 2, "publisher")),
            ] {
                assert_eq!(answer.0, 503, "{what}, {turn}: {}", answer.1);
                assert_eq!(answer.1["code"], "unavailable");
                assert!(took < PATIENT, "{what}: {took:?}");
            }
            let forwarded = self.site.forwarded();
            assert_eq!(forwarded.status, 200, "{what}");
        }
        let renewd = &self.site.renewd;
        for source in ["streams", "accounts"] {
            let up = format!("renewd_source_up{{source=\"{source}\"}}");
            assert_eq!(counted(renewd, &up), 0, "{what}: {source}");
        }
        let (status, ready) = status(renewd);
        assert_eq!(ready["ready"], true, "{what}: {ready}");
        assert_eq!(ready["degraded"], json!(["streams", "accounts"]), "{what}");
        assert!(
            status["sources"][0]["error"].is_string(),
            "{what}: {status}"
        );
    }

    /// Holds that renewd recovers by itself.
    fn recovers(&self, what: &str) {
        self.site.renewd.eventually(what, |renewd| {
            let granted = self.stranger().0 == 200;
            granted && status(renewd).1["degraded"] == json!([])
        });
        // The subject that wasn't let in before holds a token now.
        let again = self.site.login(STRANGER, &json!({}));
        let after = self.site.ask(&again, 4, "subscriber");
        assert_eq!(after.0, 200, "{what}: {}", after.1);
    }
}

#[test]
fn killed_and_started_again() {
    let mut outage = Outage::over(Mongo::start());
    outage.site.mongo.kill();
    outage.holds("killed");
    outage.site.mongo.restart();
    // Documents that were written just before may be lost with the server, as with MongoDB.
    outage.site.renewd.eventually("somebody answers", |_| {
        // An empty collection is no answer: there is a stream and an account again.
        outage.site.login(STRANGER, &json!({}));
        outage.site.stream(&json!({}));
        outage.stranger().0 != 503
    });
    let stranger = outage.site.login(STRANGER, &json!({}));
    outage.site.stream(&json!({}));
    let outage = Outage { stranger, ..outage };
    outage.recovers("after a restart");
}

#[test]
fn frozen_and_thawed() {
    let outage = Outage::over(Mongo::start());
    outage.site.mongo.freeze();
    outage.holds("frozen");
    // Callers after the first few aren't kept waiting.
    let ((), took) = timed(|| {
        for _ in 0..20 {
            assert_eq!(outage.owner().0, 200);
        }
    });
    assert!(took < PATIENT, "{took:?}");
    outage.site.mongo.thaw();
    outage.recovers("after a thaw");
}

#[test]
fn error_codes_closed_connections_and_delays() {
    let outage = Outage::over(Mongo::start());
    for (what, failure) in [
        // InternalError, NotWritablePrimary, ShutdownInProgress.
        ("code 1", doc! { "errorCode": 1 }),
        ("code 10107", doc! { "errorCode": 10107 }),
        ("code 91", doc! { "errorCode": 91 }),
        ("closed", doc! { "closeConnection": true }),
        (
            "slow",
            doc! { "blockConnection": true, "blockTimeMS": 6000 },
        ),
    ] {
        let mut data = doc! { "failCommands": ["find"], "appName": "renewd" };
        data.extend(failure);
        outage.site.mongo.fail(data);
        outage.holds(what);
        outage.site.mongo.heal();
        outage.site.renewd.eventually(what, |_| {
            outage.site.login(STRANGER, &json!({}));
            outage.owner().0 == 200 && status(&outage.site.renewd).1["degraded"] == json!([])
        });
    }
}

/// Refused, and a second later the database is gone.
#[test]
fn whom_the_database_refused_gets_nothing_more_when_it_is_killed() {
    type Refusing = fn(&Outage) -> u16;
    let refusing: [(&str, Refusing); 3] = [
        ("deleted", |outage| {
            let of_viewer = json!({"astrologerId": VIEWER});
            let express = &outage.site.express;
            express.control("/accounts/delete", &of_viewer);
            401
        }),
        ("logged out", |outage| {
            let signed_out = json!({"activeSession": null});
            outage.site.account(VIEWER, &signed_out);
            401
        }),
        ("signed in on another phone", |outage| {
            let phone = outage.site.login(VIEWER, &json!({}));
            assert_eq!(outage.site.ask(&phone, 5, "subscriber").0, 200);
            401
        }),
    ];
    for (what, refuse) in refusing {
        let mut outage = Outage::over(Mongo::start());
        let status = refuse(&outage);
        let refused = outage.viewer();
        assert_eq!(refused.0, status, "{what}: {}", refused.1);
        outage.site.mongo.kill();
        for _ in 0..2 {
            assert_eq!(outage.viewer().0, 503, "{what}");
            assert_eq!(outage.owner().0, 200, "{what}");
        }
    }
}

#[test]
fn a_field_that_denies_a_login_denies_every_login_of_its_account_while_the_database_is_gone() {
    let mongo = Mongo::start();
    let express = Express::with_database(&mongo.uri(DATABASE));
    let right = settings(&mongo.uri(DATABASE), &express, "cache_ttl = \"0s\"");
    let suspends = "code = \"account_suspended\", reason_field = \"suspensionReason\"";
    let signs_out = with(&right, suspends, "code = \"unauthenticated\"");
    // Two devices may be signed in at once.
    let sessions = "session_field = \"activeSession.sessionId\"\n";
    let renewd = Renewd::start(&Settings {
        jwt: "subject_claim = \"astrologerId\"".to_owned(),
        ..with(&signs_out, sessions, "")
    });
    let mut site = Site {
        mongo,
        express,
        renewd,
    };
    site.stream(&json!({}));
    let devices = |user: &str| {
        let phone = site.login(user, &json!({}));
        let tablet = json!({"astrologerId": user, "device": "tablet", "exp": now() + 600});
        [phone, jwt(&tablet)]
    };
    let (owners, viewers) = (devices(ASTROLOGER), devices(VIEWER));
    let ask = |site: &Site| {
        let owners = owners
            .each_ref()
            .map(|login| site.ask(login, 1, "publisher").0);
        let viewers = viewers
            .each_ref()
            .map(|login| site.ask(login, 2, "subscriber").0);
        (owners, viewers)
    };
    assert_eq!(ask(&site), ([200, 200], [200, 200]));
    site.account(VIEWER, &json!({"isSuspended": true}));
    let (status, answer) = site.ask(&viewers[0], 2, "subscriber");
    assert_eq!((status, &answer["code"]), (401, &json!("unauthenticated")));
    site.mongo.kill();
    assert_eq!(ask(&site), ([200, 200], [503, 503]));
}

/// A login whose account is nowhere.
fn of_an_unknown_account() -> String {
    let claims = json!({
        "astrologerId": "65f00000000000000000dead", "sessionId": "gone", "exp": now() + 600
    });
    jwt(&claims)
}

fn with(settings: &Settings, from: &str, to: &str) -> Settings {
    let sources = settings.sources.as_deref().unwrap();
    assert!(sources.contains(from), "{from}");
    Settings {
        sources: Some(sources.replace(from, to)),
        ..settings.clone()
    }
}

/// The settings with one mistake each, and the names by which the log tells it.
fn mistyped(right: &Settings, mongo: &Mongo) -> [(&'static str, Settings, [&'static str; 2]); 8] {
    let wrong_claim = Settings {
        jwt: right.jwt.replace("sessionId", "sessionID"),
        ..right.clone()
    };
    let uri = mongo.uri(DATABASE);
    let id_field = "collection = \"astrologers\"\nid_field = \"userId\"";
    [
        (
            "another database",
            with(right, &uri, &mongo.uri("other")),
            ["other.astrologers", "_id"],
        ),
        (
            "the collection",
            with(right, "\"astrologers\"", "\"astrologer\""),
            ["live.astrologer ", "empty"],
        ),
        (
            "id_field",
            with(right, "collection = \"astrologers\"", id_field),
            ["live.astrologers", "userId"],
        ),
        (
            "session_field",
            with(right, "activeSession.sessionId", "activeSession.sessionID"),
            ["live.astrologers", "activeSession.sessionID"],
        ),
        (
            "session_claim",
            wrong_claim,
            ["live.astrologers", "activeSession.sessionId"],
        ),
        (
            "the streams' collection",
            with(right, "[streams]", "[streams]\ncollection = \"streams\""),
            ["live.streams ", "empty"],
        ),
        (
            "channel_field",
            with(
                right,
                "[streams]",
                "[streams]\nchannel_field = \"channelName\"",
            ),
            ["live.livestreams", "channelName"],
        ),
        (
            "live_field",
            with(right, "[streams]", "[streams]\nlive_field = \"live\""),
            ["live.livestreams", "live"],
        ),
    ]
}

#[test]
fn a_place_or_a_field_mistyped_is_no_answer_and_the_log_names_it() {
    let site = Site::new(Mongo::start(), "");
    let login = site.login(VIEWER, &json!({}));
    site.stream(&json!({}));
    let Site { mongo, express, .. } = &site;
    // Another app's accounts, under the same name.
    let other = vec![doc! { "_id": "somebody", "activeSession": { "sessionId": "s" } }];
    mongo.insert("other", "astrologers", other);
    let right = settings(&mongo.uri(DATABASE), express, "");
    for (what, settings, named) in mistyped(&right, mongo) {
        let renewd = Renewd::start(&settings);
        for turn in 0..2 {
            let (status, answer) = ask(&renewd, &login, 7, "subscriber");
            assert_eq!(status, 503, "{what}, {turn}: {answer}");
        }
        renewd.log().wait(what, |line| {
            let line = line.to_string();
            named.iter().all(|name| line.contains(name)).then_some(())
        });
    }
    // Where all settings are right, a missing account is known to be missing.
    let renewd = Renewd::start(&right);
    assert_eq!(
        ask(&renewd, &of_an_unknown_account(), 8, "subscriber").0,
        503,
        "nobody was found yet"
    );
    assert_eq!(ask(&renewd, &login, 7, "subscriber").0, 200);
    // A source that gave no answer about a subject is asked about it again after a moment.
    renewd.eventually("nobody is nobody", |renewd| {
        let (status, answer) = ask(renewd, &of_an_unknown_account(), 8, "subscriber");
        assert!(matches!(status, 401 | 503), "{answer}");
        answer["code"] == "unauthenticated"
    });
}

/// Started again on its state, with another configuration.
fn restart(mut renewd: Renewd, settings: &Settings) -> Renewd {
    renewd.signal(rustix::process::Signal::TERM);
    assert!(renewd.wait().success());
    let elsewhere = tempfile::tempdir().unwrap();
    let directory = std::mem::replace(&mut renewd.directory, elsewhere);
    write_files(directory.path(), settings);
    Renewd::start_in(directory, &[], |_| {})
}

/// The doubt that the status page names for a source.
fn doubt(renewd: &Renewd, source: &str) -> String {
    let (status, _) = status(renewd);
    let mut sources = status["sources"].as_array().unwrap().iter();
    let found = sources.find(|each| each["source"] == source).unwrap();
    assert_eq!(found["up"], true, "{found}");
    found["doubt"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn an_owner_field_mistyped_refuses_no_publisher_and_keeps_no_viewer_waiting() {
    let Site {
        mongo,
        express,
        mut renewd,
    } = Site::new(Mongo::start(), "cache_ttl = \"0s\"");
    let right = settings(&mongo.uri(DATABASE), &express, "cache_ttl = \"0s\"");
    let sign_in = |user: &str| {
        let answer = express.control("/login", &json!({"astrologerId": user}));
        answer["token"].as_str().unwrap().to_owned()
    };
    let (owner, viewer) = (sign_in(ASTROLOGER), sign_in(VIEWER));
    express.control("/streams", &json!({"astrologerId": ASTROLOGER}));
    let wrong = with(
        &right,
        "[streams]",
        "[streams]\nowner_field = \"astrologerID\"",
    );
    renewd = restart(renewd, &wrong);
    for turn in 0..2 {
        let (status, answer) = ask(&renewd, &viewer, 7, "subscriber");
        assert_eq!(status, 200, "{turn}: {answer}");
        for login in [&owner, &viewer] {
            let (status, answer) = ask(&renewd, login, 8, "publisher");
            let code = &answer["code"];
            assert_eq!((status, code), (503, &json!("unavailable")), "{turn}");
        }
    }
    let named = |line: &Value| {
        let line = line.to_string();
        let named = line.contains("live.livestreams: astrologerID");
        (named && line.contains("streams.owner_field")).then_some(())
    };
    renewd.log().wait("the field", named);
    let said = doubt(&renewd, "streams");
    assert!(said.contains("live.livestreams: astrologerID"), "{said}");

    // After an owner was seen, a stream without one belongs to no subject, also after a restart.
    renewd = restart(renewd, &right);
    assert_eq!(ask(&renewd, &owner, 8, "publisher").0, 200);
    assert_eq!(ask(&renewd, &viewer, 9, "publisher").0, 403);
    assert_eq!(doubt(&renewd, "streams"), "");
    let ownerless = doc! { "q": {}, "u": { "$unset": { "astrologerId": "" } }, "multi": true };
    mongo.run(
        DATABASE,
        doc! { "update": "livestreams", "updates": [ownerless] },
    );
    renewd = restart(renewd, &right);
    let (status, answer) = ask(&renewd, &viewer, 9, "publisher");
    assert_eq!((status, &answer["code"]), (403, &json!("not_owner")));
}

#[test]
fn a_field_that_denies_and_that_no_account_has_is_told_once_and_refuses_no_login() {
    let site = Site::new(Mongo::start(), "");
    let login = site.login(VIEWER, &json!({}));
    site.stream(&json!({}));
    let Site { mongo, express, .. } = &site;
    let right = settings(&mongo.uri(DATABASE), express, "cache_ttl = \"0s\"");
    for (settings, named) in [
        (right.clone(), None),
        (
            with(&right, "\"isSuspended\"", "\"isSuspnded\""),
            Some(("accounts", "live.astrologers", "isSuspnded")),
        ),
        (
            with(&right, "[streams]", "[streams]\nbanned_field = \"isBand\""),
            Some(("streams", "live.livestreams", "isBand")),
        ),
    ] {
        let renewd = Renewd::start(&settings);
        for turn in 0..25 {
            let (status, answer) = ask(&renewd, &login, 7, "subscriber");
            assert_eq!(status, 200, "{turn}: {answer}");
        }
        let said = ["streams", "accounts"].map(|source| doubt(&renewd, source));
        let Some((source, place, field)) = named else {
            assert_eq!(said, ["", ""]);
            continue;
        };
        let of_source = doubt(&renewd, source);
        assert!(
            of_source.contains(place) && of_source.contains(field),
            "{of_source}"
        );
        let told = |line: &Value| line.to_string().contains(field);
        renewd.log().wait(field, |line| told(line).then_some(()));
        let lines = renewd.log().lines();
        assert_eq!(lines.iter().filter(|line| told(line)).count(), 1);
    }
}

#[test]
fn what_was_found_is_remembered_over_a_restart_for_this_configuration_alone() {
    let Site {
        mongo,
        express,
        mut renewd,
    } = Site::new(Mongo::start(), "");
    let right = settings(&mongo.uri(DATABASE), &express, "");
    let claims = json!({"astrologerId": VIEWER});
    let old = express.control("/login", &claims)["token"]
        .as_str()
        .unwrap()
        .to_owned();
    express.control("/streams", &json!({"astrologerId": ASTROLOGER}));
    assert_eq!(ask(&renewd, &old, 7, "subscriber").0, 200);
    express.control("/login", &claims);
    let refuses = |renewd: &Renewd| {
        let (status, answer) = ask(renewd, &of_an_unknown_account(), 8, "subscriber");
        assert_eq!((status, &answer["code"]), (401, &json!("unauthenticated")));
        let (status, answer) = ask(renewd, &old, 7, "subscriber");
        assert_eq!((status, &answer["code"]), (401, &json!("session_replaced")));
    };
    renewd.eventually("the session was replaced", |renewd| {
        ask(renewd, &old, 7, "subscriber").0 == 401
    });
    renewd = restart(renewd, &right);
    refuses(&renewd);
    let elsewhere = with(&right, "\"astrologers\"", "\"livestreams\"");
    renewd = restart(renewd, &elsewhere);
    assert_eq!(
        ask(&renewd, &of_an_unknown_account(), 8, "subscriber").0,
        503
    );
    renewd = restart(renewd, &right);
    refuses(&renewd);
}

#[test]
fn collections_dropped_while_running_refuse_no_holder() {
    let outage = Outage::over(Mongo::start());
    let site = &outage.site;
    let nobody = || site.ask(&of_an_unknown_account(), 9, "subscriber");
    let other = |channel: &str| {
        let body = json!({"channelName": channel, "uid": 5, "role": "subscriber"});
        let asked = support::ask::Ask::new("", &body).bearer(&outage.stranger);
        asked.send(&site.renewd).status
    };
    assert_eq!(nobody().0, 401);
    assert_eq!(other("live_over"), 404);
    // An account and a stream were found since, so that a missing collection is a fault again.
    assert_eq!(outage.viewer().0, 200);
    for collection in ["astrologers", "livestreams"] {
        site.mongo.run(DATABASE, doc! { "drop": collection });
    }
    outage.holds("dropped");
    assert_eq!(nobody().0, 503);
    site.stream(&json!({}));
    let outage = Outage {
        owner: outage.site.login(ASTROLOGER, &json!({})),
        viewer: outage.site.login(VIEWER, &json!({})),
        stranger: outage.site.login(STRANGER, &json!({})),
        ..outage
    };
    outage.recovers("filled again");
    // That a collection is empty is remembered for 5 s.
    outage.site.renewd.eventually("nobody is nobody", |_| {
        outage.site.ask(&of_an_unknown_account(), 9, "subscriber").0 == 401
    });
}
