//! The stage of tests of ejections: a daemon that has `[agora.rest]`, tokens, revocations, and how far their ejections
//! are.

#![allow(dead_code)] // each test file uses its own part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // what fails here fails a test

use std::time::Duration;

use serde_json::{Value, json};

use super::agora_api::AgoraApi;
use super::renewd::{Renewd, Settings, login, write_files};

/// Two live streams of the same owner.
const STREAMS: &str = r#"
[[stream]]
channel = "live_show"
owner = "owner"
live = true

[[stream]]
channel = "live_other"
owner = "owner"
live = true
"#;

pub fn settings(tables: String) -> Settings {
    Settings {
        streams: Some(STREAMS.to_owned()),
        token: "zero_uid = \"allow\"".to_owned(),
        tables,
        ..Settings::default()
    }
}

pub fn start_with(agora: &AgoraApi, tables: String) -> Renewd {
    let directory = tempfile::tempdir().unwrap();
    write_files(directory.path(), &settings(tables));
    Renewd::start_in(directory, &[], |command| agora.is_trusted_by(command))
}

pub fn start(agora: &AgoraApi) -> Renewd {
    start_with(agora, agora.table())
}

/// Takes a token, which must be granted.
pub fn hold(renewd: &Renewd, subject: &str, channel: &str, uid: u32) {
    let body = json!({"channelName": channel, "uid": uid}).to_string();
    let answer = renewd.post("/api/live/token", &login(subject), &body);
    assert_eq!(answer.status, 200, "{}", answer.json());
}

pub fn revoke(renewd: &Renewd, body: &Value) -> Value {
    let mut body = body.clone();
    if body.get("for").is_none() {
        body["for"] = json!("2h");
    }
    let answer = renewd.ask_admin("POST", "/v1/revocations", &body.to_string());
    assert_eq!(answer.status, 201, "{}", answer.json());
    answer.json()
}

pub fn lift(renewd: &Renewd, told: &Value) {
    let id = told["id"].as_str().expect("an id");
    let answer = renewd.ask_admin("DELETE", &format!("/v1/revocations/{id}"), "");
    assert_eq!(answer.status, 200);
}

/// How far the ejections of a revocation are.
pub fn state(renewd: &Renewd, told: &Value) -> Value {
    let id = told["id"].as_str().expect("an id");
    let answer = renewd.ask_admin("GET", &format!("/v1/revocations/{id}"), "");
    assert_eq!(answer.status, 200);
    answer.json()["ejections"].clone()
}

pub fn counts(pending: u64, done: u64, failed: u64, not_possible: u64, dropped: u64) -> Value {
    json!({
        "pending": pending, "done": done, "failed": failed, "not_possible": not_possible, "dropped": dropped,
    })
}

pub fn until_state(renewd: &Renewd, told: &Value, expected: &Value) {
    let mut last = Value::Null;
    for _ in 0..3 {
        // A rule may have to wait for the pause after a failure.
        for _ in 0..1000 {
            last = state(renewd, told);
            if last == *expected {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
    panic!("never {expected}: {last}");
}

/// Waits until so many rules that were made are written down: a crash before that forgets their ids.
pub fn until_written(renewd: &Renewd, count: usize) {
    renewd.eventually("the rules are written down", |renewd| {
        let journal = std::fs::read(renewd.file("state/ejections.journal")).unwrap_or_default();
        let made = br#""stage":"made""#;
        let written = journal.windows(made.len()).filter(|window| window == made);
        written.count() >= count
    });
}
