//! Revoked users are removed from their channels by rules at Agora: which rules, in what order, how fast, and what
//! happens when Agora doesn't take them.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::agora_api::{AgoraApi, CUSTOMER, CUSTOMER_SECRET, Reaction, RuleRequest};
use crate::support::commands::command;
use crate::support::ejecting::{
    counts, hold, lift, revoke, settings, start, start_with, state, until_state,
};
use crate::support::ports::free;
use crate::support::renewd::{Renewd, login};

fn outcome(renewd: &Renewd, outcome: &str) -> u64 {
    renewd.whole(&format!("renewd_ejections_total{{outcome=\"{outcome}\"}}"))
}

fn answered(requests: &[RuleRequest], count: usize) -> bool {
    let answers = requests.iter().filter(|request| request.status != 0);
    answers.count() >= count
}

/// The time between each two requests.
fn gaps(requests: &[RuleRequest]) -> Vec<Duration> {
    let pairs = requests.windows(2);
    pairs
        .map(|pair| pair[1].at.saturating_sub(pair[0].at))
        .collect()
}

#[test]
fn each_token_of_a_revoked_user_becomes_a_rule_that_ends_with_the_token() {
    let agora = AgoraApi::start();
    let renewd = start(&agora);
    assert_eq!(outcome(&renewd, "done"), 0);
    assert!(
        renewd
            .metrics()
            .contains("renewd_ejections_total{outcome=\"unauthorized\"} 0")
    );
    for (subject, channel, uid) in [
        ("ann", "live_show", 7),
        ("ann", "live_other", 4_000_000_000),
        ("bob", "live_show", 8),
    ] {
        hold(&renewd, subject, channel, uid);
    }
    let told = revoke(&renewd, &json!({"subject": "ann"}));
    assert_eq!(told["ejections"], counts(2, 0, 0, 0, 0));
    until_state(&renewd, &told, &counts(0, 2, 0, 0, 0));
    let mut rules: Vec<_> = agora.rules().into_values().collect();
    rules.sort_by_key(|rule| rule["uid"].as_u64());
    for (rule, (channel, uid)) in rules
        .iter()
        .zip([("live_show", 7_u32), ("live_other", 4_000_000_000)])
    {
        assert_eq!(
            (&rule["cname"], &rule["uid"]),
            (&json!(channel), &json!(uid))
        );
        let time = rule["time_in_seconds"].as_u64().unwrap();
        assert!((3500..=3600).contains(&time), "{time}");
    }
    assert_eq!(outcome(&renewd, "done"), 2);
    let listed = renewd.ask_admin("GET", "/v1/revocations", "").json();
    assert_eq!(listed["revocations"][0]["ejections"], counts(0, 2, 0, 0, 0));
    let (status, printed, _) = command(&renewd, &["revocations"]);
    assert!(status == 0 && printed.contains("2 done"), "{printed}");

    lift(&renewd, &told);
    renewd.eventually("the rules are deleted", |_| agora.rules().is_empty());
    renewd.eventually("that is counted", |renewd| outcome(renewd, "deleted") == 2);
    assert_eq!(agora.requests().len(), 4);
}

#[test]
fn no_rule_outlasts_its_revocation() {
    let agora = AgoraApi::start();
    let renewd = start(&agora);
    hold(&renewd, "ann", "live_show", 7);
    let told = revoke(&renewd, &json!({"subject": "ann", "for": "10m"}));
    until_state(&renewd, &told, &counts(0, 1, 0, 0, 0));
    let time = agora.requests()[0].body["time_in_seconds"]
        .as_u64()
        .unwrap();
    assert!((500..=600).contains(&time), "{time}");
    revoke(&renewd, &json!({"subject": "ann", "for": "5s"}));
    renewd.eventually("there is too little time for another", |renewd| {
        outcome(renewd, "dropped") == 1
    });
    assert_eq!(agora.requests().len(), 1);
}

#[test]
fn of_fifty_tokens_the_publishers_is_first_and_no_more_than_ten_a_second_are_sent() {
    let agora = AgoraApi::start();
    let renewd = start(&agora);
    for uid in 100..150 {
        hold(&renewd, &format!("viewer-{uid}"), "live_show", uid);
    }
    hold(&renewd, "owner", "live_show", 1);
    let told = revoke(&renewd, &json!({"channel": "live_show"}));
    assert_eq!(told["outstanding"]["count"], 51);
    until_state(&renewd, &told, &counts(0, 51, 0, 0, 0));
    let requests = agora.requests();
    // The network decides which of the requests that are sent together comes first.
    let place = requests.iter().position(|request| request.body["uid"] == 1);
    assert!(place.is_some_and(|place| place < 10), "{place:?}");
    let time = requests[50].at.saturating_sub(requests[0].at);
    println!("51 rules in {time:?}");
    assert!(time >= Duration::from_secs(5), "{time:?}");
}

#[test]
fn what_agora_fails_at_is_asked_again_after_pauses_that_grow() {
    let agora = AgoraApi::start();
    let renewd = start(&agora);
    hold(&renewd, "ann", "live_show", 7);
    agora.next([500, 503, 504].map(|status| Reaction::Fail(status, "")));
    let told = revoke(&renewd, &json!({"subject": "ann"}));
    agora.wait("the first answer", |requests| answered(requests, 1));
    renewd.eventually("the error is shown", |renewd| {
        state(renewd, &told)["error"] == "Agora answered 500: as scripted"
    });
    until_state(&renewd, &told, &counts(0, 1, 0, 0, 0));
    let gaps = gaps(&agora.requests());
    for (gap, least) in gaps.iter().zip([1, 2, 4]) {
        assert!(*gap >= Duration::from_secs(least), "{gaps:?}");
    }
    assert_eq!((gaps.len(), outcome(&renewd, "retried")), (3, 3));
}

#[test]
fn a_pause_that_agora_asks_for_holds_for_every_request() {
    let agora = AgoraApi::start();
    let renewd = start(&agora);
    for uid in 7..10 {
        hold(&renewd, &format!("viewer-{uid}"), "live_show", uid);
    }
    agora.next([Reaction::Fail(429, "Retry-After: 4")]);
    let told = revoke(&renewd, &json!({"subject": "viewer-7"}));
    agora.wait("the refusal", |requests| answered(requests, 1));
    renewd.eventually("it is counted", |renewd| outcome(renewd, "retried") == 1);
    let second = revoke(&renewd, &json!({"channel": "live_show"}));
    until_state(&renewd, &told, &counts(0, 1, 0, 0, 0));
    until_state(&renewd, &second, &counts(0, 3, 0, 0, 0));
    let gaps = gaps(&agora.requests());
    assert!(gaps[0] >= Duration::from_secs(4), "{gaps:?}");
}

#[test]
fn an_answer_that_does_not_come_is_given_up_after_20_seconds() {
    let agora = AgoraApi::start();
    let renewd = start(&agora);
    hold(&renewd, "ann", "live_show", 7);
    agora.next([Reaction::Hang]);
    let told = revoke(&renewd, &json!({"subject": "ann"}));
    until_state(&renewd, &told, &counts(0, 1, 0, 0, 0));
    let gaps = gaps(&agora.requests());
    let [gap] = *gaps else { panic!("{gaps:?}") };
    // The 20 s begin before the connection, and the stand-in counts from the request on.
    assert!(gap >= Duration::from_secs(15), "{gap:?}");
    println!("asked again after {gap:?}");
}

#[test]
fn a_rule_that_agora_refuses_has_failed_and_is_not_asked_for_again() {
    let agora = AgoraApi::start();
    let renewd = start(&agora);
    hold(&renewd, "ann", "live_show", 7);
    hold(&renewd, "bob", "live_show", 8);
    agora.next([Reaction::Fail(400, "")]);
    let told = revoke(&renewd, &json!({"subject": "ann"}));
    let mut failed = counts(0, 0, 1, 0, 0);
    failed["error"] = json!("Agora answered 400: as scripted");
    until_state(&renewd, &told, &failed);
    let told = revoke(&renewd, &json!({"subject": "bob"}));
    until_state(&renewd, &told, &counts(0, 1, 0, 0, 0));
    assert_eq!(agora.requests().len(), 2);
    let shown = renewd.status()["conditions"].to_string();
    assert!(shown.contains("RenewdEjectionsFailing"), "{shown}");
}

#[test]
fn no_rule_can_name_uid_0_or_a_string_account() {
    let agora = AgoraApi::start();
    let renewd = start(&agora);
    hold(&renewd, "ann", "live_show", 0);
    let body = r#"{"channelName":"live_other","account":"ann-7"}"#;
    let answer = renewd.post("/api/live/token", &login("ann"), body);
    assert_eq!(answer.status, 200, "{}", answer.json());
    let told = revoke(&renewd, &json!({"subject": "ann"}));
    assert_eq!(told["ejections"], counts(0, 0, 0, 2, 0));
    // Whatever would be sent for them is sent before this.
    hold(&renewd, "bob", "live_show", 8);
    let other = revoke(&renewd, &json!({"subject": "bob"}));
    until_state(&renewd, &other, &counts(0, 1, 0, 0, 0));
    assert_eq!(state(&renewd, &told), counts(0, 0, 0, 2, 0));
    assert_eq!(agora.requests().len(), 1);
    assert_eq!(outcome(&renewd, "not_possible"), 2);
}

#[test]
fn a_user_who_took_the_uid_over_is_not_removed() {
    let agora = AgoraApi::start();
    let renewd = start(&agora);
    hold(&renewd, "viewer", "live_show", 7);
    agora.usually(Reaction::Fail(500, ""));
    let told = revoke(
        &renewd,
        &json!({"channel": "live_show", "uid": 7, "for": "1h"}),
    );
    assert_eq!(told["holders"], json!(["viewer"]));
    agora.wait("a failure", |requests| answered(requests, 1));
    // Only a publisher may take a viewer's uid, and this revocation refuses the uid to everyone.
    lift(&renewd, &told);
    let told = revoke(&renewd, &json!({"subject": "viewer"}));
    hold(&renewd, "owner", "live_show", 7);
    // Agora goes on failing, so that none is made before that: only this ends it.
    until_dropped(&renewd, &told);
    assert_eq!(outcome(&renewd, "dropped"), 1);
}

#[test]
fn a_rule_is_deleted_when_another_user_takes_its_uid_over() {
    let agora = AgoraApi::start();
    let renewd = start(&agora);
    hold(&renewd, "viewer", "live_show", 7);
    hold(&renewd, "other", "live_show", 8);
    let told = revoke(&renewd, &json!({"subject": "viewer"}));
    let second = revoke(&renewd, &json!({"subject": "other"}));
    until_state(&renewd, &told, &counts(0, 1, 0, 0, 0));
    until_state(&renewd, &second, &counts(0, 1, 0, 0, 0));
    hold(&renewd, "owner", "live_show", 7);
    until_state(&renewd, &told, &counts(0, 0, 0, 0, 1));
    assert_eq!(state(&renewd, &second), counts(0, 1, 0, 0, 0));
    let uids: Vec<_> = agora.rules().into_values().collect();
    assert_eq!((uids.len(), &uids[0]["uid"]), (1, &json!(8)));
}

#[test]
fn a_rule_that_two_revocations_share_stays_until_both_are_lifted() {
    let agora = AgoraApi::start();
    agora.has_one_rule_for_each_user();
    let renewd = start(&agora);
    hold(&renewd, "ann", "live_show", 7);
    let told = ["subject", "channel"].map(|kind| {
        let name = if kind == "subject" {
            "ann"
        } else {
            "live_show"
        };
        let told = revoke(&renewd, &json!({kind: name}));
        until_state(&renewd, &told, &counts(0, 1, 0, 0, 0));
        told
    });
    assert_eq!(agora.rules().len(), 1);
    lift(&renewd, &told[0]);
    // The deletion would be sent before this.
    hold(&renewd, "bob", "live_other", 8);
    let other = revoke(&renewd, &json!({"subject": "bob"}));
    until_state(&renewd, &other, &counts(0, 1, 0, 0, 0));
    assert_eq!(agora.rules().len(), 2);
    lift(&renewd, &told[1]);
    renewd.eventually("the rule is deleted", |renewd| {
        (agora.rules().len(), outcome(renewd, "deleted")) == (1, 1)
    });
}

/// Waits until one was dropped, whatever had gone wrong before.
fn until_dropped(renewd: &Renewd, told: &Value) {
    renewd.eventually("it is dropped", |renewd| {
        let state = state(renewd, told);
        (&state["pending"], &state["dropped"]) == (&json!(0), &json!(1))
    });
}

#[test]
fn where_uids_are_not_bound_only_revoked_users_are_removed() {
    let agora = AgoraApi::start();
    let tables = format!("{}[policy]\nbind_uid = false\n", agora.table());
    let renewd = start_with(&agora, tables);
    for (subject, uid) in [("ann", 7), ("bob", 7), ("cid", 8), ("dan", 8)] {
        hold(&renewd, subject, "live_show", uid);
    }
    let told = revoke(&renewd, &json!({"subject": "ann"}));
    until_dropped(&renewd, &told);
    assert_eq!(agora.requests().len(), 0);
    let told = revoke(&renewd, &json!({"channel": "live_show"}));
    until_state(&renewd, &told, &counts(0, 4, 0, 0, 0));
}

#[test]
fn lifting_gives_up_what_is_pending_and_deletes_what_is_made_meanwhile() {
    let agora = AgoraApi::start();
    let renewd = start(&agora);
    for (subject, uid) in [("ann", 7), ("bob", 8), ("cid", 9)] {
        hold(&renewd, subject, "live_show", uid);
    }
    agora.next([Reaction::Fail(500, ""), Reaction::Hold]);
    let pending = revoke(&renewd, &json!({"subject": "ann"}));
    agora.wait("a failure", |requests| answered(requests, 1));
    lift(&renewd, &pending);
    let held = revoke(&renewd, &json!({"subject": "bob"}));
    agora.wait("a request under way", |requests| requests.len() == 2);
    lift(&renewd, &held);
    agora.release();
    renewd.eventually("the rule is deleted", |renewd| {
        outcome(renewd, "deleted") == 1
    });
    let other = revoke(&renewd, &json!({"subject": "cid"}));
    until_state(&renewd, &other, &counts(0, 1, 0, 0, 0));
    let asked: Vec<_> = agora
        .requests()
        .iter()
        .map(|request| (request.method.clone(), request.body["uid"].clone()))
        .collect();
    let post = |uid: u32| ("POST".to_owned(), json!(uid));
    let delete = ("DELETE".to_owned(), Value::Null);
    assert_eq!(asked, [post(7), post(8), delete, post(9)]);
    assert_eq!(agora.rules().len(), 1);
}

#[test]
fn refused_credentials_are_alerted_and_tried_again_when_they_have_changed() {
    let agora = AgoraApi::start();
    let wrong = "hunter2-the-wrong-secret";
    let renewd = start_with(&agora, agora.table_with(wrong));
    for uid in 100..130 {
        hold(&renewd, &format!("viewer-{uid}"), "live_show", uid);
    }
    let told = revoke(&renewd, &json!({"channel": "live_show"}));
    renewd.eventually("the condition is shown", |renewd| {
        let shown = renewd.status()["conditions"].to_string();
        shown.contains("Agora refuses customer_id or customer_secret")
    });
    let error = state(&renewd, &told)["error"].to_string();
    assert!(
        error.contains("401") && !error.contains("hunter2"),
        "{error}"
    );
    renewd.configure(&settings(agora.table()));
    assert_eq!(renewd.reload().status, 200);
    until_state(&renewd, &told, &counts(0, 30, 0, 0, 0));
    let refused = agora.requests().into_iter();
    let refused = refused.filter(|request| request.status == 401).count();
    println!("{refused} requests with the wrong secret");
    assert!((1..=10).contains(&refused), "{refused}");
    assert_eq!(outcome(&renewd, "unauthorized"), refused as u64);
    let listed = renewd.ask_admin("GET", "/v1/revocations", "").json();
    let log = renewd.log().lines().into_iter();
    let pages = [listed, renewd.status(), renewd.metrics().into()];
    for shown in log.chain(pages).map(|shown| shown.to_string()) {
        for secret in [wrong, CUSTOMER_SECRET] {
            let encoded = STANDARD.encode(format!("{CUSTOMER}:{secret}"));
            assert!(!shown.contains(secret), "{shown}");
            assert!(!shown.contains(&encoded), "{shown}");
        }
    }
}

#[test]
fn while_agora_cannot_be_reached_revoking_works_and_what_is_pending_waits() {
    let agora = AgoraApi::start();
    let closed = free();
    let elsewhere = agora
        .table()
        .replace(&agora.address.to_string(), &closed.to_string());
    let renewd = start_with(&agora, elsewhere);
    hold(&renewd, "ann", "live_show", 7);
    let told = revoke(&renewd, &json!({"subject": "ann"}));
    renewd.eventually("the error is shown", |renewd| {
        let error = state(renewd, &told)["error"].to_string();
        error.contains("no connection")
    });
    assert_eq!(state(&renewd, &told)["pending"], 1);
    renewd.configure(&settings(agora.table()));
    assert_eq!(renewd.reload().status, 200);
    until_state(&renewd, &told, &counts(0, 1, 0, 0, 0));
}

#[test]
fn without_the_table_nothing_is_sent_and_nothing_is_shown() {
    let agora = AgoraApi::start();
    let renewd = start_with(&agora, String::new());
    hold(&renewd, "ann", "live_show", 7);
    let told = revoke(&renewd, &json!({"subject": "ann"}));
    assert_eq!(told["ejections"], Value::Null);
    assert!(!renewd.metrics().contains("renewd_ejections_total"));
    // Nor does it begin when the table comes.
    renewd.configure(&settings(agora.table()));
    assert_eq!(renewd.reload().status, 200);
    hold(&renewd, "bob", "live_show", 8);
    let other = revoke(&renewd, &json!({"subject": "bob"}));
    until_state(&renewd, &other, &counts(0, 1, 0, 0, 0));
    assert_eq!(state(&renewd, &told), Value::Null);
    assert_eq!(agora.requests().len(), 1);
}
