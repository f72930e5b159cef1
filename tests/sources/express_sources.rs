//! The app's own routes as sources of accounts, streams, keys and authorization, and the effect of each of their
//! failures.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test's way to fail

// `pairs` looks for the module here.

use std::time::Duration;

use crate::support::app::{ASTROLOGER, CHANNEL, VIEWER, start};
use crate::support::ask::{Ask, counted};
use crate::support::database::{ask, status, timed};
use crate::support::express::{Express, Version};
use crate::support::key_pairs::Pair;
use crate::support::renewd::{APP_CERTIFICATE, APP_ID, JWT_SECRET, Renewd, Settings, now};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// The replies that count as no answer of a route.
const FAULTS: [&str; 10] = [
    "silent", "trickle", "reset", "garbage", "cut", "huge", "endless", "redirect", "429", "500",
];

/// renewd before the app, which it asks about everything but logins' keys.
fn settings(app: &Express) -> Settings {
    let url = |path: &str| format!("http://{}/internal/{path}", app.address);
    let (account, streams, hook) = (url("account"), url("streams/{channel}"), url("authorize"));
    Settings {
        backend: Some(app.address),
        jwt: "subject_claim = \"astrologerId\"".to_owned(),
        sources: Some(format!(
            "[accounts]\nsource = \"http\"\nurl = \"{account}\"\ncache_ttl = \"0s\"\n\n\
             [streams]\nsource = \"http\"\nurl = \"{streams}\"\nlive_pointer = \"/data/isLive\"\n\
             owner_pointer = \"/data/astrologerId\"\nbanned_viewers_pointer = \"/data/bannedViewers\"\n\
             cache_ttl = \"0s\"\n\n[authorize]\nurl = \"{hook}\"\ntimeout = \"2s\"\n\n"
        )),
        tables: "[rate_limit]\nsubject = \"off\"\naddress = \"off\"\n\n[policy]\nmax_streams_per_publisher = 2\n"
            .to_owned(),
        ..Settings::default()
    }
}

fn fault(app: &Express, route: &str, fault: Option<&str>) {
    app.control("/fault", &json!({"route": route, "fault": fault}));
}

fn code((status, answer): (u16, Value)) -> (u16, String) {
    let code = answer["code"].as_str().unwrap_or("ok").to_owned();
    (status, code)
}

fn said(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn up(renewd: &Renewd, source: &str) -> bool {
    counted(renewd, &format!("renewd_source_up{{source=\"{source}\"}}")) == 1
}

/// The astrologer is live and holds a token; a viewer has none yet.
struct Site {
    app: Express,
    renewd: Renewd,
    holder: String,
    stranger: String,
}

impl Site {
    fn new() -> Self {
        let app = start(Version::Four);
        app.control("/streams", &json!({ "astrologerId": ASTROLOGER }));
        let site = Self {
            holder: app.login(ASTROLOGER),
            stranger: app.login(VIEWER),
            renewd: Renewd::start(&settings(&app)),
            app,
        };
        assert_eq!(site.as_holder(), said(200, "ok"));
        site
    }

    fn as_holder(&self) -> (u16, String) {
        code(ask(&self.renewd, &self.holder, 1, "publisher"))
    }

    fn as_stranger(&self) -> (u16, String) {
        code(ask(&self.renewd, &self.stranger, 2, "subscriber"))
    }

    /// Holds that holders go on and strangers are refused while `source` gives no answer.
    fn rides_through(&self, source: &str, what: &str) {
        let (stranger, took) = timed(|| self.as_stranger());
        assert_eq!(stranger, said(503, "unavailable"), "{source}: {what}");
        assert!(took < Duration::from_secs(10), "{source}: {what}: {took:?}");
        assert_eq!(self.as_holder(), said(200, "ok"), "{source}: {what}");
        let (_, ready) = status(&self.renewd);
        assert_eq!(ready["degraded"], json!([source]), "{what}");
    }

    /// Holds that renewd recovers once the source answers again, which renewd learns from the holder's requests.
    fn recovers(&self, source: &str, what: &str) {
        self.renewd.eventually("it recovers", |renewd| {
            assert_eq!(self.as_holder(), said(200, "ok"), "{source}: {what}");
            up(renewd, source)
        });
    }

    fn fails(&self, route: &str, source: &str, faults: &[&str]) {
        for what in faults {
            fault(&self.app, route, Some(what));
            self.rides_through(source, what);
            fault(&self.app, route, None);
            self.recovers(source, what);
        }
        assert_eq!(self.app.hits().get("elsewhere"), None, "never followed");
        assert_eq!(self.as_stranger(), said(200, "ok"));
    }
}

#[test]
fn a_route_of_accounts_that_fails_lets_no_new_caller_in_and_ends_no_holders_stream() {
    let site = Site::new();
    // 404 says that the URL is wrong, not that the account is.
    site.fails("account", "accounts", &[&FAULTS[..], &["404"]].concat());
    let suspended = json!({
        "astrologerId": VIEWER, "sessionId": "s", "isSuspended": true, "suspensionReason": "Spam",
    });
    site.app.control("/accounts", &suspended);
    let (status, answer) = ask(&site.renewd, &site.stranger, 2, "subscriber");
    assert_eq!((status, &answer["reason"]), (403, &json!("Spam")));
}

#[test]
fn a_route_of_streams_that_fails_lets_no_new_caller_in_and_ends_no_holders_stream() {
    let site = Site::new();
    site.fails("streams", "streams", &[&FAULTS[..], &["html"]].concat());
    // An app in trouble isn't asked by each of its viewers.
    for what in ["429", "500"] {
        fault(&site.app, "streams", Some(what));
        let before = site.app.hits()["streams"];
        let ((), took) = timed(|| {
            for _ in 0..300 {
                assert_eq!(site.as_holder(), said(200, "ok"), "{what}");
            }
        });
        let asked = u128::from(site.app.hits()["streams"] - before);
        // The source is asked at most ten times a second.
        assert!(
            asked <= took.as_millis() / 100 + 2,
            "{what}: {asked} in {took:?}"
        );
    }
    fault(&site.app, "streams", None);
    site.recovers("streams", "500");
    // The app's own 404 is an answer.
    fault(&site.app, "streams", Some("404"));
    assert_eq!(site.as_holder(), said(404, "stream_not_live"));
    fault(&site.app, "streams", None);
    let end = json!({ "channelName": CHANNEL });
    assert_eq!(site.as_holder(), said(200, "ok"));
    site.app.control("/streams/end", &end);
    assert_eq!(site.as_holder(), said(404, "stream_not_live"));
}

#[test]
fn a_hook_that_fails_lets_no_new_caller_in_and_ends_no_holders_stream() {
    let site = Site::new();
    site.fails("authorize", "authorize", &[&FAULTS[..], &["404"]].concat());
    let opinion = |status: u16, body: Value| {
        let opinion = json!({"status": status, "body": body});
        site.app.control("/opinion", &opinion);
    };
    for status in [402, 403] {
        opinion(status, json!({"message": "No credits left"}));
        let (answered, answer) = ask(&site.renewd, &site.holder, 1, "publisher");
        assert_eq!((answered, &answer["code"]), (403, &json!("policy_denied")));
        assert_eq!(answer["message"], "No credits left");
    }
    opinion(200, json!({"lifetime": 90}));
    let (_, answer) = ask(&site.renewd, &site.holder, 1, "publisher");
    assert_eq!(answer["data"]["expiresIn"], 90);
}

#[test]
fn when_all_falls_silent_at_once_the_first_holder_who_asks_goes_on_in_time() {
    let site = Site::new();
    // A second channel of the publisher's, about which the streams would be asked too.
    let second = json!({"astrologerId": ASTROLOGER, "agoraChannelName": "second"});
    site.app.control("/streams", &second);
    let body = json!({"channelName": "second", "uid": 1, "role": "publisher"});
    let asked = Ask::new("", &body).bearer(&site.holder);
    assert_eq!(asked.send(&site.renewd).status, 200);
    for route in ["account", "streams", "authorize"] {
        fault(&site.app, route, Some("silent"));
    }
    // The daemon can't know yet that no answer will come: it waits for each source, and the decision has 3 s.
    let (holder, took) = timed(|| site.as_holder());
    assert_eq!(holder, said(200, "ok"), "{took:?}");
    assert_eq!(site.as_stranger(), said(503, "unavailable"));
}

#[test]
fn while_the_app_is_down_holders_go_on_and_once_it_is_back_everybody_does() {
    let Site {
        app,
        renewd,
        holder,
        stranger,
    } = Site::new();
    let port = app.address.port().to_string();
    drop(app);
    for turn in 0..20 {
        let asked = code(ask(&renewd, &stranger, 2, "subscriber"));
        assert_eq!(asked, said(503, "unavailable"), "{turn}");
        let asked = code(ask(&renewd, &holder, 1, "publisher"));
        assert_eq!(asked, said(200, "ok"), "{turn}");
    }
    let environment = [
        ("PORT", port.as_str()),
        ("JWT_SECRET", JWT_SECRET),
        ("APP_ID", APP_ID),
        ("APP_CERTIFICATE", APP_CERTIFICATE),
        ("RATE_LIMIT", "0"),
    ];
    let app = Express::start(Version::Four, &environment);
    // The app answers from its memory, which the test sets.
    app.control("/streams", &json!({ "astrologerId": ASTROLOGER }));
    for login in [&holder, &stranger] {
        let payload = URL_SAFE_NO_PAD.decode(login.split('.').nth(1).unwrap());
        let claims: Value = serde_json::from_slice(&payload.unwrap()).unwrap();
        app.control("/accounts", &claims);
    }
    renewd.eventually("the stranger gets in", |renewd| {
        assert_eq!(code(ask(renewd, &holder, 1, "publisher")), said(200, "ok"));
        code(ask(renewd, &stranger, 2, "subscriber")) == said(200, "ok")
    });
    assert_eq!(code(ask(&renewd, &holder, 1, "publisher")), said(200, "ok"));
}

#[test]
fn a_route_of_keys_that_never_ends_its_answer_logs_no_user_out() {
    keys_fail(&["silent", "trickle", "reset", "cut", "endless"]);
}

#[test]
fn a_route_of_keys_that_answers_something_else_logs_no_user_out() {
    keys_fail(&["garbage", "huge", "redirect", "429", "500", "404", "html"]);
}

fn keys_fail(faults: &[&str]) {
    let app = start(Version::Four);
    let (old, new) = (Pair::ec("P-256"), Pair::ec("P-256"));
    let publish = |pairs: &[(&str, &Pair)]| {
        let keys: Vec<Value> = pairs
            .iter()
            .map(|(id, pair)| {
                let mut jwk = pair.jwk();
                jwk["kid"] = (*id).into();
                jwk
            })
            .collect();
        app.control("/keys", &json!({ "keys": keys }));
    };
    let login =
        |pair: &Pair, id: &str| pair.sign("ES256", &json!({"sub": "ada", "exp": now() + 600}), id);
    let (known, unknown) = (login(&old, "old"), login(&new, "new"));
    let settings = Settings {
        jwt: format!(
            "algorithms = [\"HS256\", \"ES256\"]\njwks_url = \"http://{}/internal/keys\"",
            app.address
        ),
        ..Settings::default()
    };
    for what in faults {
        publish(&[("old", &old)]);
        let renewd = Renewd::start(&settings);
        let asked = |login: &str, uid| Ask::viewer("", uid).bearer(login).send(&renewd).status;
        assert_eq!(asked(&known, 7), 200, "{what}");
        publish(&[("old", &old), ("new", &new)]);
        fault(&app, "keys", Some(what));
        let (status, took) = timed(|| asked(&unknown, 8));
        assert_eq!(status, 503, "{what}");
        assert!(took < Duration::from_secs(10), "{what}: {took:?}");
        assert_eq!(asked(&known, 7), 200, "{what}");
        assert_eq!(Ask::viewer("bob", 9).send(&renewd).status, 200, "{what}");
        renewd.eventually("the set is down", |renewd| !up(renewd, "jwks"));
        fault(&app, "keys", None);
        renewd.eventually("the set is read", |renewd| up(renewd, "jwks"));
        assert_eq!(asked(&unknown, 8), 200, "{what}");
    }
    assert_eq!(app.hits().get("elsewhere"), None, "never followed");
}
