//! The authorization hook: the question that the backend gets, the answers that it may give, and the meaning of its
//! silence.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail

use crate::support;

use crate::support::ask::{Ask, Row, counted, reconfigure};
use crate::support::raw::Response;
use crate::support::renewd::{DEADLINE, Renewd, Settings, jwt, now};
use crate::support::scripted::Scripted;
use serde_json::{Value, json};

const PATH: &str = "/internal/authorize";

fn settings(hook: &Scripted, more: &str) -> Settings {
    Settings {
        tables: format!(
            "[rate_limit]\nsubject = \"off\"\n[authorize]\nurl = \"{}\"\n{more}\n",
            hook.url(PATH)
        ),
        ..Settings::default()
    }
}

fn start(more: &str) -> (Scripted, Renewd) {
    let hook = Scripted::start();
    hook.answer(204, "");
    let renewd = Renewd::start(&settings(&hook, more));
    (hook, renewd)
}

fn viewer(subject: &str) -> Ask {
    Ask::viewer(subject, 7)
}

fn up(renewd: &Renewd) -> u64 {
    counted(renewd, r#"renewd_source_up{source="authorize"}"#)
}

fn lookups(renewd: &Renewd, outcome: &str) -> u64 {
    let series =
        format!(r#"renewd_source_lookups_total{{source="authorize",outcome="{outcome}"}}"#);
    counted(renewd, &series)
}

fn unavailable() -> Row {
    Row::new(503, "unavailable", "subscriber", "failed")
}

fn message(answer: &Response) -> String {
    answer.json()["message"].as_str().unwrap().to_owned()
}

#[test]
fn the_hook_is_told_the_subject_and_the_request() {
    let (hook, renewd) = start("");
    let claims = json!({"sub": "ada", "exp": now() + 600, "plan": {"name": "gold"}, "n": [1.50]});
    let ask = viewer("").bearer(&jwt(&claims));
    Row::new(200, "ok", "subscriber", "ok").holds_for(&renewd, &ask);
    let body = json!({"channelName": "live_show", "account": "ada@home", "role": "publisher"});
    Ask::new("owner", &body).send(&renewd);
    let asked = hook.asked();
    assert_eq!(
        asked[0].json(),
        json!({"subject": "ada", "claims": claims, "channel": "live_show", "uid": 7, "role": "subscriber"})
    );
    assert_eq!(asked[0].head[0], format!("post {PATH} http/1.1"));
    let has = |line: &str| asked[0].head.iter().any(|found| found == line);
    assert!(has("content-type: application/json"));
    let told = asked[1].json();
    assert_eq!(told["account"], "ada@home");
    assert_eq!(told["role"], "publisher");
    assert_eq!(told.get("uid"), None);
    assert_eq!(lookups(&renewd, "miss"), 2);
}

#[test]
fn a_yes_may_shorten_the_lifetime_and_never_prolongs_it() {
    let (hook, renewd) = start("");
    for (said, lifetime) in [
        ("", 3600),
        (r#"{"lifetime":"30m"}"#, 1800),
        (r#"{"lifetime":90}"#, 90),
        (r#"{"lifetime":1}"#, 60),
        (r#"{"lifetime":"10h"}"#, 3600),
    ] {
        hook.answer(200, said);
        let answer = viewer("ada").send(&renewd).json();
        assert_eq!(answer["data"]["expiresIn"], lifetime, "{said}");
    }
}

#[test]
fn a_no_is_policy_in_the_backends_words_but_never_a_suspension() {
    let (hook, renewd) = start("");
    let denied = Row::new(403, "policy_denied", "subscriber", "denied");
    for status in [402, 403] {
        hook.answer(status, r#"{"message":"No credits left\n"}"#);
        let (answer, _) = denied.holds_for(&renewd, &viewer("ada"));
        assert_eq!(message(&answer), "No credits left");
    }
    hook.answer(403, r#"{"message":"Account Suspended"}"#);
    let (answer, _) = denied.holds_for(&renewd, &viewer("ada"));
    assert_eq!(message(&answer), "Not allowed");
    // Holders are refused too, because a refusal is an answer.
    hook.answer(200, "");
    assert_eq!(viewer("bob").send(&renewd).status, 200);
    hook.answer(402, "");
    denied
        .refreshing()
        .holds_for(&renewd, &Ask::viewer("bob", 7));
    assert_eq!(up(&renewd), 1);
}

#[test]
fn the_hook_is_asked_last() {
    let (hook, renewd) = start("");
    for (ask, status) in [
        (viewer("").bearer("nonsense"), 401),
        (Ask::text("ada", "{}"), 400),
        (viewer("troll"), 403),
        (
            Ask::new(
                "ada",
                &json!({"channelName": "live_show", "uid": 7, "role": "publisher"}),
            ),
            403,
        ),
        (
            Ask::new(
                "ada",
                &json!({"channelName": "other", "uid": 7, "role": "subscriber"}),
            ),
            404,
        ),
        (viewer("").bearer(&jwt(&json!({"sub": "ada"}))), 403),
    ] {
        assert_eq!(ask.send(&renewd).status, status, "{ask:?}");
    }
    assert!(hook.asked().is_empty());
}

/// The name of a fault, and the change that gives a hook this fault.
type Silence = (&'static str, fn(&Scripted));

/// Every reply that counts as no answer.
const SILENCES: [Silence; 10] = [
    ("500", |hook| hook.answer(500, r#"{"message":"no"}"#)),
    ("404", |hook| hook.answer(404, r#"{"message":"no"}"#)),
    ("429", |hook| hook.answer(429, r#"{"message":"no"}"#)),
    ("401", |hook| hook.answer(401, r#"{"message":"no"}"#)),
    ("a redirect", |hook| {
        hook.bytes("HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n");
    }),
    ("garbage", |hook| hook.bytes("SSH-2.0-x\r\n\r\n")),
    ("a huge answer", |hook| {
        hook.answer(200, &" ".repeat(100_000));
    }),
    ("an unreadable lifetime", |hook| {
        hook.answer(200, r#"{"lifetime":"soon"}"#);
    }),
    ("a closed connection", Scripted::close),
    ("silence", Scripted::silence),
];

#[test]
fn no_answer_is_503_for_strangers_and_holders_ride_through() {
    let (hook, renewd) = start("");
    assert_eq!(viewer("holder").send(&renewd).status, 200);
    for (what, become_silent) in SILENCES {
        become_silent(&hook);
        unavailable().answers(&Ask::viewer("stranger", 8).send(&renewd));
        assert_eq!(up(&renewd), 0, "{what}");
        let answer = viewer("holder").refresh().send(&renewd);
        assert_eq!(answer.status, 200, "{what}");
        // A holder of another role doesn't count as a holder of this role.
        let body = json!({"channelName": "live_show", "uid": 9, "role": "publisher"});
        assert_eq!(Ask::new("owner", &body).send(&renewd).status, 503, "{what}");
        hook.answer(200, "");
        renewd.eventually("the hook is asked again", |renewd| {
            viewer("holder").send(renewd);
            up(renewd) == 1
        });
    }
    assert!(lookups(&renewd, "stale") >= 10);
    assert!(lookups(&renewd, "error") >= 20);
}

#[test]
fn riding_through_ends_with_stale_if_error() {
    let (hook, renewd) = start("stale_if_error = \"0s\"");
    assert_eq!(viewer("holder").send(&renewd).status, 200);
    hook.answer(500, "");
    unavailable()
        .refreshing()
        .holds_for(&renewd, &viewer("holder"));
}

#[test]
fn on_error_allow_lets_everybody_in_whom_the_other_rows_let_in() {
    let (hook, renewd) = start("on_error = \"allow\"");
    hook.answer(500, "");
    Row::new(200, "ok", "subscriber", "ok").holds_for(&renewd, &viewer("ada"));
    Row::new(403, "viewer_banned", "subscriber", "denied").holds_for(&renewd, &viewer("troll"));
    hook.answer(403, "");
    Row::new(403, "policy_denied", "subscriber", "denied")
        .answers(&Ask::viewer("bob", 8).send(&renewd));
}

#[test]
fn a_dead_hook_costs_its_timeout_a_few_times_only() {
    let (hook, renewd) = start("timeout = \"300ms\"");
    hook.silence();
    let started = renewd::terms::clock::Clock::system();
    for _ in 0..50 {
        assert_eq!(viewer("ada").send(&renewd).status, 503);
    }
    let took = started.elapsed();
    let asked = u64::try_from(hook.asked().len()).unwrap();
    // The daemon asks three times, then once a second.
    assert!(asked <= 4 + took.as_secs(), "{asked} in {took:?}");
    assert!(took < DEADLINE / 2, "{took:?}");
}

#[test]
fn the_hook_of_the_backend_is_closed_to_the_outside() {
    let backend = Scripted::start();
    backend.answer(200, "{}");
    let hook = settings(&backend, "");
    let renewd = Renewd::start(&Settings {
        backend: Some(backend.address),
        ..hook.clone()
    });
    let status = |target: &str| {
        let request =
            format!("POST {target} HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n\r\n");
        renewd.client().send(request.as_bytes()).unwrap().status
    };
    for target in [PATH, "/Internal//Authorize/", "/internal/%61uthorize?x"] {
        assert_eq!(status(target), 404, "{target}");
    }
    assert!(backend.asked().is_empty());
    assert_eq!(status("/internal/other"), 200);
    assert_eq!(viewer("ada").send(&renewd).status, 200);
    assert_eq!(backend.asked().len(), 2);
    // Without the hook, requests for its path are forwarded like any others.
    reconfigure(
        &renewd,
        &Settings {
            backend: Some(backend.address),
            ..Settings::default()
        },
    );
    assert_eq!(status(PATH), 200);
    assert!(!renewd.metrics().contains("source=\"authorize\""));
}

#[test]
fn a_reload_forgets_no_outage() {
    let (hook, renewd) = start("");
    hook.answer(500, "");
    assert_eq!(viewer("ada").send(&renewd).status, 503);
    reconfigure(&renewd, &settings(&hook, "timeout = \"1s\""));
    assert_eq!(up(&renewd), 0);
    let ready: Value = {
        let answer = support::raw::Client::new(renewd.admin)
            .send(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .unwrap();
        assert_eq!(answer.status, 200);
        answer.json()
    };
    assert!(ready.to_string().contains("authorize"), "{ready}");
}
