//! Ejections survive a restart: what is pending is sent, and what was made can be deleted.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::agora_api::{AgoraApi, Reaction};
use crate::support::ejecting::{
    counts, hold, lift, revoke, start, state, until_state, until_written,
};
use crate::support::renewd::Renewd;

/// Kills the daemon and starts another on its directory.
fn killed(mut renewd: Renewd, agora: &AgoraApi) -> Renewd {
    renewd.signal(Signal::KILL);
    renewd.wait();
    again(renewd, agora)
}

/// Starts another on the directory of one that has ended.
fn again(mut renewd: Renewd, agora: &AgoraApi) -> Renewd {
    let directory = std::mem::replace(&mut renewd.directory, tempfile::tempdir().unwrap());
    Renewd::start_in(directory, &[], |command| agora.is_trusted_by(command))
}

#[test]
fn what_a_killed_daemon_had_pending_is_sent_by_the_next() {
    let agora = AgoraApi::start();
    let renewd = start(&agora);
    for (subject, uid) in [("ann", 7), ("bob", 8), ("cid", 9)] {
        hold(&renewd, subject, "live_show", uid);
    }
    hold(&renewd, "cid", "live_other", 0);
    agora.next([Reaction::Serve, Reaction::Fail(400, "")]);
    let first = revoke(&renewd, &json!({"subject": "ann"}));
    until_state(&renewd, &first, &counts(0, 1, 0, 0, 0));
    until_written(&renewd, 1);
    let second = revoke(&renewd, &json!({"subject": "bob"}));
    renewd.eventually("one has failed", |renewd| {
        state(renewd, &second)["failed"] == 1
    });
    agora.usually(Reaction::Hang);
    let third = revoke(&renewd, &json!({"subject": "cid"}));
    agora.wait("a request under way", |requests| requests.len() == 3);
    agora.usually(Reaction::Serve);
    let renewd = killed(renewd, &agora);
    until_state(&renewd, &third, &counts(0, 1, 0, 1, 0));
    assert_eq!(state(&renewd, &first), counts(0, 1, 0, 0, 0));
    assert_eq!(state(&renewd, &second)["failed"], 1);
    assert_eq!(agora.requests().len(), 4);
    let rules: Vec<Value> = agora.rules().into_values().collect();
    assert_eq!([&rules[0]["uid"], &rules[1]["uid"]], [&json!(7), &json!(9)]);
    assert_eq!(renewd.whole("renewd_state_damaged"), 0);
}

#[test]
fn a_rule_is_deleted_by_its_id_after_a_kill_and_a_deletion_after_another() {
    let agora = AgoraApi::start();
    let renewd = start(&agora);
    hold(&renewd, "ann", "live_show", 7);
    let told = revoke(&renewd, &json!({"subject": "ann"}));
    until_state(&renewd, &told, &counts(0, 1, 0, 0, 0));
    until_written(&renewd, 1);
    let rule = *agora.rules().keys().next().unwrap();
    let renewd = killed(renewd, &agora);
    agora.usually(Reaction::Fail(500, ""));
    lift(&renewd, &told);
    agora.wait("a deletion that fails", |requests| {
        requests.last().is_some_and(|last| last.status == 500)
    });
    agora.usually(Reaction::Serve);
    let renewd = killed(renewd, &agora);
    renewd.eventually("the rule is deleted", |_| agora.rules().is_empty());
    let requests = agora.requests();
    let last = requests.last().unwrap();
    assert_eq!((&*last.method, &last.body["id"]), ("DELETE", &json!(rule)));
}

#[test]
fn a_damaged_journal_gives_back_every_intact_record() {
    let agora = AgoraApi::start();
    let mut renewd = start(&agora);
    for (subject, uid) in [("ann", 7), ("bob", 8)] {
        hold(&renewd, subject, "live_show", uid);
    }
    let told = ["ann", "bob"].map(|subject| {
        let told = revoke(&renewd, &json!({"subject": subject}));
        until_state(&renewd, &told, &counts(0, 1, 0, 0, 0));
        told
    });
    until_written(&renewd, 2);
    renewd.signal(Signal::KILL);
    renewd.wait();
    let path = renewd.file("state/ejections.journal");
    let mut bytes = std::fs::read(&path).unwrap();
    let made = br#""stage":"made""#;
    let at = bytes.windows(made.len()).position(|window| window == made);
    bytes[at.expect("a rule")] ^= 0xff;
    std::fs::write(&path, bytes).unwrap();
    let renewd = again(renewd, &agora);
    assert_eq!(renewd.whole("renewd_state_damaged"), 1);
    // Of the damaged one only the beginning is known: the rule is asked for once more.
    assert_eq!(state(&renewd, &told[1]), counts(0, 1, 0, 0, 0));
    lift(&renewd, &told[1]);
    renewd.eventually("the rule is deleted", |_| {
        !agora.rules().values().any(|rule| rule["uid"] == 8)
    });
}
