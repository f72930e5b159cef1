//! Users who are removed from their channels where several daemons share the revocations: each rule is asked for once,
//! and is deleted wherever its revocation is lifted.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::shared_limits::TIMEOUT;
use crate::store_faults::is_shared;
use crate::support::agora_api::AgoraApi;
use crate::support::ejecting::{
    counts, hold, lift, revoke, start_with, state, until_state, until_written,
};
use crate::support::redis::Redis;
use crate::support::renewd::Renewd;

fn start(redis: &Redis, agora: &AgoraApi) -> Renewd {
    let url = redis.url();
    start_with(
        agora,
        format!("[redis]\nurl = \"{url}\"\n{TIMEOUT}\n{}", agora.table()),
    )
}

fn is_known(renewd: &Renewd, told: &Value) {
    let id = told["id"].as_str().expect("an id");
    renewd.eventually("the revocation is known", |renewd| {
        let answer = renewd.ask_admin("GET", &format!("/v1/revocations/{id}"), "");
        answer.status == 200
    });
}

#[test]
fn the_daemon_that_was_asked_makes_the_rules_and_deletes_them_wherever_the_revocation_is_lifted() {
    let (redis, agora) = (Redis::start(), AgoraApi::start());
    let [first, second] = [(); 2].map(|()| start(&redis, &agora));
    for renewd in [&first, &second] {
        hold(renewd, "ann", "live_show", 7);
    }
    let told = revoke(&first, &json!({"subject": "ann"}));
    until_state(&first, &told, &counts(0, 1, 0, 0, 0));
    is_known(&second, &told);
    // Whatever the second one would send is sent before this.
    hold(&second, "bob", "live_show", 8);
    let other = revoke(&second, &json!({"subject": "bob"}));
    until_state(&second, &other, &counts(0, 1, 0, 0, 0));
    assert_eq!(agora.requests().len(), 2);
    // It doesn't pretend to know.
    assert_eq!(state(&second, &told), Value::Null);

    lift(&second, &told);
    is_known(&first, &other);
    lift(&first, &other);
    first.eventually("both rules are deleted", |_| agora.rules().is_empty());
    assert_eq!(agora.requests().len(), 4);
}

#[test]
fn a_daemon_that_was_down_deletes_its_rules_when_it_is_back() {
    let (redis, agora) = (Redis::start(), AgoraApi::start());
    let [mut first, second] = [(); 2].map(|()| start(&redis, &agora));
    hold(&first, "ann", "live_show", 7);
    let told = revoke(&first, &json!({"subject": "ann"}));
    until_state(&first, &told, &counts(0, 1, 0, 0, 0));
    until_written(&first, 1);
    is_known(&second, &told);
    first.signal(Signal::KILL);
    first.wait();
    lift(&second, &told);
    assert_eq!(agora.rules().len(), 1);
    let directory = std::mem::replace(&mut first.directory, tempfile::tempdir().unwrap());
    let first = Renewd::start_in(directory, &[], |command| agora.is_trusted_by(command));
    first.eventually("the rule is deleted", |_| agora.rules().is_empty());
}

#[test]
fn all_daemons_together_send_no_more_than_one_would() {
    let (redis, agora) = (Redis::start(), AgoraApi::start());
    let replicas = [(); 2].map(|()| start(&redis, &agora));
    for renewd in &replicas {
        renewd.eventually("it is shared", is_shared);
    }
    let channels = ["live_show", "live_other"];
    let both = || replicas.iter().zip(channels);
    for (renewd, channel) in both() {
        for uid in 100..115 {
            hold(renewd, &format!("viewer-{uid}"), channel, uid);
        }
    }
    let told: Vec<_> = both()
        .map(|(renewd, channel)| revoke(renewd, &json!({"channel": channel})))
        .collect();
    for (renewd, told) in replicas.iter().zip(&told) {
        until_state(renewd, told, &counts(0, 15, 0, 0, 0));
        // A daemon whose store is gone would have gone on alone.
        let outage = "the shared store gives no answer; rate_limit.on_store_error decides";
        let log = renewd.log().lines();
        assert!(log.iter().all(|line| line["msg"] != outage), "{log:#?}");
    }
    // The stand-in holds all requests to ten a second; each daemon by itself would send as many of its own.
    assert_eq!(agora.requests().len(), 30);
}

#[test]
fn a_user_who_took_the_uid_over_on_another_daemon_is_not_removed() {
    let (redis, agora) = (Redis::start(), AgoraApi::start());
    let [first, second] = [(); 2].map(|()| start(&redis, &agora));
    hold(&first, "viewer", "live_show", 7);
    hold(&second, "owner", "live_show", 7);
    let told = revoke(&first, &json!({"subject": "viewer"}));
    until_state(&first, &told, &counts(0, 0, 0, 0, 1));
    assert_eq!(agora.requests().len(), 0);
    // Nor by a rule that is made already.
    hold(&first, "other", "live_show", 8);
    let told = revoke(&first, &json!({"subject": "other"}));
    until_state(&first, &told, &counts(0, 1, 0, 0, 0));
    hold(&second, "owner", "live_show", 8);
    until_state(&first, &told, &counts(0, 0, 0, 0, 1));
    assert_eq!(agora.rules().len(), 0);
}

#[test]
fn a_token_that_another_daemon_gave_when_it_knew_of_no_revocation_becomes_a_rule_too() {
    let (mut redis, agora) = (Redis::start(), AgoraApi::start());
    let [first, second] = [(); 2].map(|()| start(&redis, &agora));
    hold(&first, "ann", "live_show", 7);
    redis.kill();
    hold(&second, "ann", "live_show", 8);
    let told = revoke(&first, &json!({"subject": "ann"}));
    assert_eq!(told["outstanding"]["count"], 1);
    hold(&second, "ann", "live_other", 9);
    redis.restart();
    until_state(&first, &told, &counts(0, 3, 0, 0, 0));
    let rules = agora.rules();
    let uids: BTreeSet<_> = rules.values().map(|rule| rule["uid"].as_u64()).collect();
    assert_eq!(uids, [7, 8, 9].map(Some).into());
    lift(&second, &told);
    first.eventually("the rules are deleted", |_| agora.rules().is_empty());
}

#[test]
fn while_there_is_no_store_each_daemon_goes_on_by_itself() {
    let (mut redis, agora) = (Redis::start(), AgoraApi::start());
    let renewd = start(&redis, &agora);
    hold(&renewd, "ann", "live_show", 7);
    redis.kill();
    let told = revoke(&renewd, &json!({"subject": "ann"}));
    until_state(&renewd, &told, &counts(0, 1, 0, 0, 0));
    lift(&renewd, &told);
    renewd.eventually("the rule is deleted", |_| agora.rules().is_empty());
}
