//! Revocations that several daemons share: in force on all of them within a second, and caught up with after a gap.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::shared_limits::{TIMEOUT, over};
use crate::support::ask::Ask;
use crate::support::database::timed;
use crate::support::raw::Client;
use crate::support::redis::Redis;
use crate::support::renewd::{Renewd, Settings, login, spawn, write_files};

/// Off, so that the store is asked by nothing but the revocations.
const NO_LIMITS: &str = "subject = \"off\"\naddress = \"off\"\n";

/// A change has to be in force everywhere within a second; a busy machine may take longer to say so.
const AT_MOST: Duration = Duration::from_secs(5);

fn settings(redis: &Redis) -> Settings {
    over(&redis.url(), TIMEOUT, NO_LIMITS)
}

fn start(redis: &Redis) -> Renewd {
    Renewd::start(&settings(redis))
}

pub fn revoke(renewd: &Renewd, subject: &str) -> Value {
    let body = json!({"subject": subject, "for": "1h"}).to_string();
    let answer = renewd.ask_admin("POST", "/v1/revocations", &body);
    assert_eq!(answer.status, 201);
    answer.json()
}

fn lift(renewd: &Renewd, told: &Value) {
    let path = format!("/v1/revocations/{}", told["id"].as_str().unwrap());
    assert_eq!(renewd.ask_admin("DELETE", &path, "").status, 200);
}

fn set<const N: usize>(subjects: [&str; N]) -> BTreeSet<String> {
    subjects.map(str::to_owned).into()
}

fn have(renewd: &Renewd, expected: &BTreeSet<String>) {
    renewd.eventually("the revocations are the same", |renewd| {
        renewd.revoked_subjects() == *expected
    });
}

fn status(renewd: &Renewd, subject: &str) -> u16 {
    let body = r#"{"channelName":"live_show","uid":7}"#;
    renewd.post("/api/live/token", &login(subject), body).status
}

#[test]
fn a_revocation_and_its_end_are_in_force_on_every_replica_at_once() {
    let redis = Redis::start();
    let replicas = [(); 3].map(|()| start(&redis));
    let [first, second, third] = &replicas;
    let told = revoke(first, "ann");
    let ((), took) = timed(|| {
        for renewd in [second, third] {
            renewd.eventually("ann is refused", |renewd| status(renewd, "ann") == 403);
        }
    });
    assert!(took < AT_MOST, "{took:?}");
    lift(second, &told);
    let ((), took) = timed(|| {
        for renewd in [first, third] {
            renewd.eventually("ann is served", |renewd| status(renewd, "ann") == 200);
        }
    });
    assert!(took < AT_MOST, "{took:?}");
}

#[test]
fn a_replica_that_comes_later_has_them_all_and_keeps_them_without_the_store() {
    let mut redis = Redis::start();
    let first = start(&redis);
    for number in 0..500 {
        revoke(&first, &format!("subject-{number}"));
    }
    let everything = first.revoked_subjects();
    assert_eq!(everything.len(), 500);
    let mut second = start(&redis);
    have(&second, &everything);
    redis.kill();
    second.eventually("they are written down", |renewd| {
        let journal = renewd.file("state/revocations.journal");
        let text = fs::read(journal).unwrap_or_default();
        let written = text
            .windows(12)
            .filter(|window| window == b"\"subject\":\"s");
        written.count() >= 500
    });
    second.signal(Signal::KILL);
    second.wait();
    let directory = std::mem::replace(&mut second.directory, tempfile::tempdir().unwrap());
    let second = Renewd::start_in(directory, &[], |_| {});
    assert_eq!(second.revoked_subjects(), everything);
}

#[test]
fn a_replica_that_was_cut_off_catches_up_and_gives_what_it_was_told_meanwhile() {
    let mut redis = Redis::start();
    let (first, second) = (start(&redis), start(&redis));
    let before = revoke(&first, "before");
    have(&second, &set(["before"]));
    redis.freeze();
    revoke(&first, "first");
    revoke(&second, "second");
    lift(&second, &before);
    redis.thaw();
    for renewd in [&first, &second] {
        have(renewd, &set(["first", "second"]));
    }
    // The same, with connections that break.
    redis.kill();
    revoke(&first, "third");
    revoke(&second, "fourth");
    redis.restart();
    for renewd in [&first, &second] {
        have(renewd, &set(["first", "second", "third", "fourth"]));
    }
}

#[test]
fn a_store_that_comes_back_empty_is_given_everything_and_nothing_that_was_lifted() {
    let mut redis = Redis::start();
    let (first, second) = (start(&redis), start(&redis));
    revoke(&first, "ann");
    let bob = revoke(&second, "bob");
    for renewd in [&first, &second] {
        have(renewd, &set(["ann", "bob"]));
    }
    redis.kill();
    lift(&second, &bob);
    redis.restart();
    // Both give what they have: the first one still has bob's.
    for renewd in [&first, &second] {
        have(renewd, &set(["ann"]));
    }
    drop(first);
    let third = start(&redis);
    have(&third, &set(["ann"]));
}

#[test]
fn a_store_that_has_lost_a_part_or_is_older_is_given_everything() {
    let redis = Redis::start();
    let (first, second) = (start(&redis), start(&redis));
    revoke(&first, "ann");
    have(&second, &set(["ann"]));
    let keys = redis.keys();
    let of_the_set: Vec<&String> = keys
        .iter()
        .filter(|key| key.contains("{shared}:revocations"))
        .collect();
    assert_eq!(of_the_set.len(), 4, "{keys:?}");
    for (number, key) in of_the_set.into_iter().enumerate() {
        redis.run(&format!("DEL {key}"));
        let third = start(&redis);
        have(&third, &first.revoked_subjects());
        drop(third);
        revoke(&second, &format!("then-{number}"));
        first.eventually("the set goes on", |renewd| {
            renewd.revoked_subjects().len() == number + 2
        });
    }
    // As a backup would bring it: the set is what it was some changes ago.
    let about = keys.iter().find(|key| key.ends_with(":about")).unwrap();
    redis.run(&format!("HSET {about} version 1"));
    revoke(&first, "after");
    have(&second, &first.revoked_subjects());
    let third = start(&redis);
    have(&third, &first.revoked_subjects());
}

#[test]
fn a_replica_that_starts_gives_no_token_before_it_knows_what_is_revoked() {
    let redis = Redis::start();
    let first = start(&redis);
    revoke(&first, "ann");
    for _ in 0..5 {
        let directory = tempfile::tempdir().unwrap();
        write_files(directory.path(), &settings(&redis));
        let config = directory.path().join("config.toml");
        let (child, log) = spawn(&["run", "--config", config.to_str().unwrap()], |_| {});
        let public: SocketAddr = log.wait("the port", |line| {
            let is_it = line["msg"] == "listening";
            line["address"].as_str().filter(|_| is_it)?.parse().ok()
        });
        let ask = Ask::viewer("ann", 7).bytes();
        let answers = (0..).map(|_| Client::new(public).send(&ask).map(|answer| answer.status));
        let statuses: BTreeSet<_> = answers.take(50).filter_map(Result::ok).collect();
        assert!(
            statuses.contains(&403) && !statuses.contains(&200),
            "{statuses:?}"
        );
        Renewd::ready(child, log, directory);
    }
}

/// The number of the last change that the store has.
fn version(redis: &Redis) -> u64 {
    let about = "renewd:{shared}:revocations:about";
    redis::from_redis_value(redis.run(&format!("HGET {about} version"))).unwrap()
}

#[test]
fn a_store_that_is_older_is_given_everything_whoever_changes_it_first() {
    let mut redis = Redis::start();
    let (first, second) = (start(&redis), start(&redis));
    revoke(&first, "ann");
    have(&second, &set(["ann"]));
    redis.run("SAVE");
    // The store has heard of this when it is lost, and the second one has not.
    second.signal(Signal::STOP);
    revoke(&first, "bob");
    first.eventually("the store has it", |_| version(&redis) == 2);
    first.signal(Signal::STOP);
    redis.restart();
    assert_eq!(version(&redis), 1);
    second.signal(Signal::CONT);
    revoke(&second, "cid");
    second.eventually("the store goes on", |_| version(&redis) == 2);
    first.signal(Signal::CONT);
    for renewd in [&first, &second] {
        have(renewd, &set(["ann", "bob", "cid"]));
    }
}

#[test]
fn what_is_not_known_for_too_long_is_told_and_denies_where_that_is_asked_for() {
    let redis = Redis::start();
    let lines = |on_stale: &str| {
        let settings = settings(&redis);
        let stale = format!("[revocation]\nmax_stale = \"1s\"\non_stale = \"{on_stale}\"\n");
        Settings {
            tables: settings.tables + &stale,
            ..settings
        }
    };
    let (serving, denying) = (
        Renewd::start(&lines("serve")),
        Renewd::start(&lines("deny")),
    );
    for renewd in [&serving, &denying] {
        // A busy machine may not hear from the store for a second.
        renewd.eventually("it serves", |renewd| status(renewd, "viewer") == 200);
        assert!(renewd.metric("renewd_revocation_store_age_seconds") < 5.0);
    }
    redis.freeze();
    denying.eventually("it denies", |renewd| status(renewd, "viewer") == 503);
    denying.eventually("the age is told", |renewd| {
        renewd.metric("renewd_revocation_store_age_seconds") > 1.0
    });
    assert_eq!(status(&serving, "viewer"), 200);
    redis.thaw();
    denying.eventually("it serves again", |renewd| status(renewd, "viewer") == 200);
}
