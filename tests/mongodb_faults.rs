//! A database that fails, in every way: forwarding isn't touched, who holds a token renews it, nobody else gets one, and
//! it ends by itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test's way to fail

mod support;

use std::time::Duration;

use mongodb::bson::doc;
use serde_json::{Value, json};
use support::app::{ASTROLOGER, VIEWER};
use support::ask::counted;
use support::database::{Site, status, timed};
use support::mongo::Mongo;

/// Who may be let in by no fault.
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

    /// What holds as long as the database gives no answer.
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

    /// By itself.
    fn recovers(&self, what: &str) {
        self.site.renewd.eventually(what, |renewd| {
            let granted = self.stranger().0 == 200;
            granted && status(renewd).1["degraded"] == json!([])
        });
        // Who wasn't let in before holds one now.
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
    // What was written just before may be lost with the server, as it may be with MongoDB.
    outage
        .site
        .renewd
        .eventually("somebody answers", |_| outage.stranger().0 != 503);
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
    // Who asks after the first few isn't kept waiting.
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
