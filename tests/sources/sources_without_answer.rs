//! A streams source that gives no answer is never a yes to a stranger, and never a no to a publisher on air.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail

use crate::support::ask::{Ask, Row, change_streams, counted, reconfigure, reload};
use crate::support::raw::Client;
use crate::support::renewd::{
    Renewd, STREAMS, Settings, configuration, private_file, spawn, write_files,
};
use serde_json::json;

fn up(renewd: &Renewd) -> bool {
    counted(renewd, r#"renewd_source_up{source="streams"}"#) == 1
}

fn lookups(renewd: &Renewd, outcome: &str) -> u64 {
    counted(
        renewd,
        &format!(r#"renewd_source_lookups_total{{source="streams",outcome="{outcome}"}}"#),
    )
}

fn goes_down(renewd: &Renewd) {
    renewd.eventually("the source is down", |renewd| !up(renewd));
}

fn readyz(renewd: &Renewd) -> (u16, String) {
    let answer = Client::new(renewd.admin)
        .send(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    (answer.status, String::from_utf8(answer.body).unwrap())
}

fn remove(renewd: &Renewd) {
    std::fs::remove_file(renewd.file("streams.toml")).unwrap();
    goes_down(renewd);
}

fn refresh(subject: &str, uid: u32) -> Ask {
    Ask::viewer(subject, uid).refresh()
}

const GRANTED: (u16, &str) = (200, "ok");

fn viewer_row((status, code): (u16, &'static str), class: &'static str) -> Row {
    Row::new(status, code, "subscriber", class).refreshing()
}

#[test]
fn a_file_that_is_missing_at_the_start_delays_no_port_and_is_503_for_everyone() {
    let directory = tempfile::tempdir().unwrap();
    write_files(directory.path(), &Settings::default());
    std::fs::remove_file(directory.path().join("streams.toml")).unwrap();
    let config = directory.path().join("config.toml");
    let arguments = ["run", "--config", config.to_str().unwrap()];
    let (child, log) = spawn(&arguments, |_| {});
    let renewd = Renewd::ready(child, log, directory);
    assert!(!up(&renewd));
    for (subject, role) in [
        ("owner", "publisher"),
        ("viewer", "subscriber"),
        ("troll", "subscriber"),
    ] {
        let body = json!({"channelName": "live_show", "uid": 7, "role": role});
        let row = Row::new(503, "unavailable", role, "failed");
        row.holds_for(&renewd, &Ask::new(subject, &body));
    }
    assert_eq!(lookups(&renewd, "error"), 3);
    // The site still works, and no load balancer shall take the daemon out.
    let (status, body) = readyz(&renewd);
    assert_eq!(status, 200);
    assert!(body.contains("streams"), "{body}");

    private_file(&renewd.file("streams.toml"), STREAMS);
    renewd.eventually("the source is up", up);
    Row::new(200, "ok", "subscriber", "ok").holds_for(&renewd, &Ask::viewer("viewer", 7));
    assert!(!readyz(&renewd).1.contains("streams"));
}

#[test]
fn while_the_file_is_gone_holders_renew_and_strangers_wait() {
    let renewd = Renewd::start(&Settings::default());
    let publish = json!({"channelName": "live_show", "uid": 1, "role": "publisher"});
    let nothing_said = json!({"channelName": "live_show", "uid": 1});
    assert_eq!(Ask::new("owner", &publish).send(&renewd).status, 200);
    assert_eq!(Ask::viewer("viewer", 7).send(&renewd).status, 200);
    remove(&renewd);
    let (hits, stale) = (lookups(&renewd, "hit"), lookups(&renewd, "stale"));

    let publisher = Row::new(200, "ok", "publisher", "ok").refreshing();
    publisher.holds_for(&renewd, &Ask::new("owner", &publish).refresh());
    // The granted role is renewed, whether the request names it or not.
    publisher.holds_for(&renewd, &Ask::new("owner", &nothing_said));
    viewer_row(GRANTED, "ok").holds_for(&renewd, &Ask::viewer("viewer", 7));
    viewer_row(GRANTED, "ok").holds_for(&renewd, &refresh("viewer", 7));
    assert_eq!(lookups(&renewd, "stale"), stale + 4);
    assert_eq!(lookups(&renewd, "hit"), hits);

    let unavailable = |role| Row::new(503, "unavailable", role, "failed");
    unavailable("subscriber").holds_for(&renewd, &Ask::viewer("stranger", 8));
    // These callers hold a token in another role or for another channel, or were never let in.
    unavailable("publisher").holds_for(&renewd, &Ask::new("viewer", &publish));
    let elsewhere = json!({"channelName": "another", "uid": 7, "role": "subscriber"});
    unavailable("subscriber").holds_for(&renewd, &Ask::new("viewer", &elsewhere));
    unavailable("subscriber").holds_for(&renewd, &Ask::viewer("troll", 9));
    // Refusals that need no source go on.
    viewer_row((409, "uid_taken"), "denied").holds_for(&renewd, &refresh("viewer", 1));

    private_file(&renewd.file("streams.toml"), STREAMS);
    renewd.eventually("the source is up", up);
    Row::new(200, "ok", "subscriber", "ok").holds_for(&renewd, &Ask::viewer("stranger", 8));
    Row::new(403, "viewer_banned", "subscriber", "denied")
        .holds_for(&renewd, &Ask::viewer("troll", 9));
    assert_eq!(lookups(&renewd, "stale"), stale + 5);
}

#[test]
fn a_file_that_turns_invalid_leaves_the_last_valid_streams_in_force() {
    let renewd = Renewd::start(&Settings::default());
    for invalid in [
        "",
        "[[stream]]\nchannel = \"live_sh",
        "[[stream]]\nchannel = 7\n",
    ] {
        private_file(&renewd.file("next.toml"), invalid);
        std::fs::rename(renewd.file("next.toml"), renewd.file("streams.toml")).unwrap();
        goes_down(&renewd);
        for (subject, uid, status) in [("viewer", 7, 200), ("troll", 8, 403)] {
            assert_eq!(Ask::viewer(subject, uid).send(&renewd).status, status);
        }
        change_streams(&renewd, STREAMS);
        assert!(up(&renewd));
    }
    assert_eq!(lookups(&renewd, "error"), 0);
}

#[test]
fn a_file_that_comes_back_invalid_is_still_no_answer() {
    let renewd = Renewd::start(&Settings::default());
    remove(&renewd);
    private_file(&renewd.file("streams.toml"), "[[stream]]\nchannel = 7\n");
    renewd.log().wait("the invalid file", |line| {
        let message = line["msg"].as_str()?;
        message.contains("streams file is invalid").then_some(())
    });
    assert!(!up(&renewd));
    assert_eq!(Ask::viewer("viewer", 7).send(&renewd).status, 503);
    change_streams(&renewd, STREAMS);
    assert_eq!(Ask::viewer("viewer", 7).send(&renewd).status, 200);
}

#[test]
fn after_stale_if_error_holders_wait_too_and_reloads_prolong_nothing() {
    let settings = |stale: &str| Settings {
        streams_table: format!("stale_if_error = \"{stale}\""),
        tables: "[rate_limit]\nsubject = \"off\"\n".to_owned(),
        ..Settings::default()
    };
    let renewd = Renewd::start(&settings("1h"));
    assert_eq!(Ask::viewer("viewer", 7).send(&renewd).status, 200);
    remove(&renewd);
    viewer_row(GRANTED, "ok").holds_for(&renewd, &refresh("viewer", 7));
    // A reload of the configuration reads the file again, and finds nothing again: the hour began with the first
    // failure.
    let without_file = |stale| {
        let config = configuration(&settings(stale));
        private_file(&renewd.file("config.toml"), &config);
        assert_eq!(reload(&renewd).status, 200);
    };
    without_file("1ms");
    viewer_row((503, "unavailable"), "failed").holds_for(&renewd, &refresh("viewer", 7));
    without_file("1h");
    viewer_row(GRANTED, "ok").holds_for(&renewd, &refresh("viewer", 7));
    // A second apart from the first failure by now, whatever was reloaded since.
    without_file("1s");
    renewd.eventually("the holder waits", |renewd| {
        refresh("viewer", 7).send(renewd).status == 503
    });
    without_file("1s");
    assert_eq!(refresh("viewer", 7).send(&renewd).status, 503);
    reconfigure(&renewd, &settings("1h"));
    viewer_row(GRANTED, "ok").holds_for(&renewd, &refresh("viewer", 7));
}
