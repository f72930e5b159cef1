//! Streams and accounts told by the backend over HTTP: the app's own routes, and a server that misbehaves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test's way to fail

use crate::support;

use std::process::Command;
use std::time::Duration;

use crate::support::app::{ASTROLOGER, CHANNEL, VIEWER};
use crate::support::ask::{Ask, counted};
use crate::support::database::{DATABASE, Site, ask, status, timed};
use crate::support::express::Express;
use crate::support::mongo::Mongo;
use crate::support::renewd::{Renewd, Settings, jwt, now};
use crate::support::scripted::Scripted;
use serde_json::{Value, json};

const JWT: &str = "subject_claim = \"astrologerId\"\nsession_claim = \"sessionId\"";
const UNLIMITED: &str = "[rate_limit]\nsubject = \"off\"\naddress = \"off\"\n";

fn tables(accounts: &str, streams: &str, lines: &str) -> String {
    format!(
        "[accounts]\nsource = \"http\"\nurl = \"{accounts}\"\n{lines}\n\n[streams]\nsource = \"http\"\nurl = \"{streams}\"\n\
         live_pointer = \"/data/isLive\"\nowner_pointer = \"/data/astrologerId\"\nbanned_pointer = \"/data/isBanned\"\n\
         banned_viewers_pointer = \"/data/bannedViewers\"\nheaders = [{{ name = \"x-internal-key\", value = \"hunter2\" }}]\n{lines}\n\n"
    )
}

/// The app with its database, asked over HTTP.
fn site() -> Site {
    let mongo = Mongo::with(&["--standalone"]);
    let express = Express::with_database(&mongo.uri(DATABASE));
    let accounts = format!("http://{}/internal/account", express.address);
    let streams = format!("http://{}/internal/streams/{{channel}}", express.address);
    let renewd = Renewd::start(&Settings {
        backend: Some(express.address),
        jwt: JWT.to_owned(),
        sources: Some(tables(&accounts, &streams, "")),
        tables: UNLIMITED.to_owned(),
        ..Settings::default()
    });
    Site {
        mongo,
        express,
        renewd,
    }
}

fn code((status, answer): (u16, Value)) -> (u16, String) {
    let code = answer["code"].as_str().unwrap_or("ok").to_owned();
    (status, code)
}

fn said(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[test]
fn the_app_says_which_accounts_are_in_good_standing_and_which_streams_are_live() {
    let site = site();
    let owner = site.login(ASTROLOGER, &json!({}));
    let viewer = site.login(VIEWER, &json!({}));
    let as_viewer = || site.ask(&viewer, 7, "subscriber");
    assert_eq!(code(as_viewer()), said(404, "stream_not_live"));
    site.stream(&json!({}));
    assert_eq!(
        code(as_viewer()),
        said(200, "ok"),
        "a moment after its start"
    );
    assert_eq!(code(site.ask(&owner, 1, "publisher")), said(200, "ok"));
    assert_eq!(
        code(site.ask(&viewer, 8, "publisher")),
        said(403, "not_owner")
    );

    site.channel(&json!({"bannedViewers": [{"userId": VIEWER}]}));
    site.renewd.eventually("the ban counts", |_| {
        code(as_viewer()) == said(403, "viewer_banned")
    });
    site.channel(&json!({"bannedViewers": []}));
    assert_eq!(code(as_viewer()), said(200, "ok"));

    // 401 and 403 in the app's own words.
    site.account(
        VIEWER,
        &json!({"isSuspended": true, "suspensionReason": "Spam", "suspendedAt": "2026-11-01"}),
    );
    let mut suspended = Value::Null;
    site.renewd.eventually("the suspension counts", |_| {
        suspended = as_viewer().1;
        suspended["code"] == "account_suspended"
    });
    assert_eq!(suspended["message"], "Your account has been suspended");
    assert_eq!(suspended["reason"], "Spam");
    assert_eq!(suspended["suspendedAt"], "2026-11-01T00:00:00.000Z");
    site.account(VIEWER, &json!({"isSuspended": false}));
    assert_eq!(code(as_viewer()), said(200, "ok"));
    site.login(VIEWER, &json!({}));
    site.renewd.eventually("the other device counts", |_| {
        let (status, answer) = as_viewer();
        status == 401 && answer["message"] == "Logged in on another device"
    });

    // The routes that renewd asks are closed to clients, in whatever spelling.
    for path in [
        "/internal/account",
        "/Internal//account/",
        &format!("/internal/%73treams/{CHANNEL}"),
    ] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: app.example\r\nAuthorization: Bearer {owner}\r\n\r\n"
        );
        let answer = site.renewd.client().send(request.as_bytes()).unwrap();
        assert_eq!(answer.status, 404, "{path}");
    }
}

#[test]
fn ten_thousand_refreshes_of_one_channel_are_a_handful_of_questions() {
    let site = site();
    let owner = site.login(ASTROLOGER, &json!({}));
    site.stream(&json!({}));
    assert_eq!(code(site.ask(&owner, 1, "publisher")), said(200, "ok"));
    let body = tempfile::NamedTempFile::new().unwrap();
    let asked = json!({"channelName": CHANNEL, "uid": 1, "role": "publisher"});
    std::fs::write(body.path(), asked.to_string()).unwrap();
    let before = site.express.hits();
    let (output, took) = timed(|| {
        Command::new("h2load")
            .args(["--h1", "-n", "10000", "-c", "50", "-t", "1", "-d"])
            .arg(body.path())
            .args(["-H", &format!("authorization: Bearer {owner}")])
            .args(["-H", "content-type: application/json"])
            .arg(format!(
                "http://{}/api/live/refresh-token",
                site.renewd.public
            ))
            .output()
            .expect("h2load (nghttp2-client)")
    });
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.contains("10000 2xx"), "{output}");
    let after = site.express.hits();
    for path in ["internal/streams", "internal/account"] {
        let asked = after[path] - before[path];
        // The source gets one request each time the answer is older than `cache_ttl`, 2 s.
        let most = took.as_secs() / 2 + 2;
        assert!(asked <= most, "{path}: {asked} questions in {took:?}");
    }
}

/// renewd with two sources that say what the test wants; the astrologer's stream is live.
struct Told {
    accounts: Scripted,
    streams: Scripted,
    renewd: Renewd,
    holder: String,
    stranger: String,
}

impl Told {
    /// The astrologer holds a token.
    fn new() -> Self {
        let told = Self::without_accounts();
        told.all_is_well();
        assert_eq!(told.as_holder(), said(200, "ok"));
        told
    }

    /// Holds that no source was asked yet.
    fn without_accounts() -> Self {
        let (accounts, streams) = (Scripted::start(), Scripted::start());
        let sources = tables(
            &accounts.url("/me"),
            &streams.url("/streams?of={channel}"),
            "cache_ttl = \"0s\"",
        );
        let renewd = Renewd::start(&Settings {
            jwt: JWT.to_owned(),
            sources: Some(sources),
            tables: UNLIMITED.to_owned(),
            ..Settings::default()
        });
        let login =
            |user: &str| jwt(&json!({"astrologerId": user, "sessionId": "s", "exp": now() + 600}));
        Self {
            accounts,
            streams,
            renewd,
            holder: login(ASTROLOGER),
            stranger: login(VIEWER),
        }
    }

    fn all_is_well(&self) {
        let live = json!({"data": {"isLive": true, "astrologerId": ASTROLOGER}});
        self.accounts.answer(200, "");
        self.streams.answer(200, &live.to_string());
    }

    fn as_holder(&self) -> (u16, String) {
        code(ask(&self.renewd, &self.holder, 1, "publisher"))
    }

    fn as_stranger(&self) -> (u16, String) {
        code(ask(&self.renewd, &self.stranger, 2, "subscriber"))
    }

    /// Holds that holders go on while one of the sources gives no answer, and that renewd recovers then.
    fn rides_through(&self, which: &str, what: &str) {
        let (stranger, took) = timed(|| self.as_stranger());
        assert_eq!(stranger, said(503, "unavailable"), "{which}: {what}");
        assert!(took < Duration::from_secs(10), "{which}: {what}: {took:?}");
        assert_eq!(self.as_holder(), said(200, "ok"), "{which}: {what}");
        let (status, ready) = status(&self.renewd);
        assert_eq!(ready["degraded"], json!([which]), "{what}: {ready}");
        assert!(!status.to_string().contains("hunter2"));
        self.all_is_well();
        let up = format!("renewd_source_up{{source=\"{which}\"}}");
        self.renewd.eventually("it recovers", |renewd| {
            self.as_holder() == said(200, "ok") && counted(renewd, &up) == 1
        });
    }
}

#[test]
fn each_source_is_asked_with_what_is_for_it_alone() {
    let told = Told::new();
    let question = told.streams.asked()[0].head.join("\n");
    let line = format!("get /streams?of={CHANNEL} http/1.1");
    assert!(question.starts_with(&line), "{question}");
    assert!(question.contains("x-internal-key: hunter2"), "{question}");
    assert!(!question.contains("authorization"), "{question}");
    let question = told.accounts.asked()[0].head.join("\n");
    let login = format!("authorization: bearer {}", told.holder.to_lowercase());
    assert!(question.contains(&login), "{question}");
    assert!(!question.contains("x-internal-key"), "{question}");
    let odd = json!({"channelName": "a &b?c#d", "uid": 1});
    Ask::new("", &odd).bearer(&told.holder).send(&told.renewd);
    let question = told.streams.asked().last().unwrap().head[0].clone();
    assert!(question.contains("of=a%20%26b%3fc%23d "), "{question}");
}

#[test]
fn what_is_no_answer_lets_no_new_caller_in_and_ends_no_holders_stream() {
    let told = Told::new();
    for (which, source) in [("streams", &told.streams), ("accounts", &told.accounts)] {
        for status in [400, 429, 500, 503] {
            source.answer(status, "{}");
            told.rides_through(which, &status.to_string());
        }
        let elsewhere = source.url("/elsewhere");
        source.bytes(&format!(
            "HTTP/1.1 302 Found\r\nLocation: {elsewhere}\r\nContent-Length: 0\r\n\r\n"
        ));
        told.rides_through(which, "redirect");
        let followed = |asked: &support::scripted::Asked| asked.head[0].contains("elsewhere");
        assert!(!source.asked().iter().any(followed));
        source.close();
        told.rides_through(which, "closed");
        source.bytes("rubbish\r\n\r\n");
        told.rides_through(which, "garbage");
        source.silence();
        told.rides_through(which, "silence");
        source.answer(200, &"x".repeat(2_000_000));
        told.rides_through(which, "huge");
    }
    for body in ["", "[]", "{\"data\":{}}", "{\"data\":{\"isLive\":\"yes\"}}"] {
        told.streams.answer(200, body);
        told.rides_through("streams", body);
    }
    told.accounts.answer(404, "");
    told.rides_through("accounts", "404 says nothing of an account");
}

#[test]
fn what_is_an_answer_is_taken_at_its_word() {
    let told = Told::new();
    told.streams.answer(404, "");
    assert_eq!(told.as_holder(), said(404, "stream_not_live"));
    told.all_is_well();
    told.accounts
        .answer(401, "{\"message\":\"Sign in,\\nplease\"}");
    let (status, answer) = ask(&told.renewd, &told.stranger, 2, "subscriber");
    assert_eq!(
        (status, &answer["message"]),
        (401, &json!("Sign in, please"))
    );
    told.accounts.answer(403, "");
    assert_eq!(told.as_holder(), said(403, "account_suspended"));
}

#[test]
fn an_owner_pointer_that_leads_nowhere_refuses_no_publisher() {
    let told = Told::without_accounts();
    told.accounts.answer(200, "");
    let elsewhere = json!({"data": {"isLive": true, "owner": ASTROLOGER}});
    told.streams.answer(200, &elsewhere.to_string());
    for _ in 0..2 {
        assert_eq!(told.as_holder(), said(503, "unavailable"));
        assert_eq!(told.as_stranger(), said(200, "ok"));
    }
    told.renewd.log().wait("the pointer", |line| {
        let line = line.to_string();
        let named = line.contains("/data/astrologerId") && line.contains("streams.owner_pointer");
        named.then_some(())
    });
    // After an owner was seen, a stream without one belongs to no subject.
    told.all_is_well();
    assert_eq!(told.as_holder(), said(200, "ok"));
    told.streams.answer(200, &elsewhere.to_string());
    assert_eq!(told.as_holder(), said(403, "not_owner"));
}
