//! Claims that several daemons share: a user of a channel is held once over all of them, and a publisher's streams
//! count once.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Barrier;
use std::thread;

use serde_json::json;

use crate::shared_limits::TIMEOUT;
use crate::store_faults::{is_shared, notices, recovers};
use crate::support::ask::{Ask, change_streams};
use crate::support::redis::{LOG_ALL, Redis};
use crate::support::renewd::{Renewd, Settings, jwt};

const OFF: &str = "subject = \"off\"\naddress = \"off\"\n";

/// Daemons over this server without limits; `limits` and `policy` are further lines of these tables.
pub fn settings(redis: &Redis, lines: &str, limits: &str, policy: &str) -> Settings {
    Settings {
        tables: format!(
            "[redis]\nurl = \"{}\"\n{lines}\n[rate_limit]\n{OFF}{limits}\n[policy]\n{policy}\n",
            redis.url()
        ),
        ..Settings::default()
    }
}

pub fn publisher(subject: &str, channel: &str, uid: u32) -> Ask {
    let body = json!({"channelName": channel, "uid": uid, "role": "publisher"});
    Ask::new(subject, &body)
}

/// Streams `show_0` to `show_9` of `owner`, of which the first `live` are live.
pub fn streams(live: usize) -> String {
    (0..10).fold(String::new(), |mut text, number| {
        let live = number < live;
        let _ = write!(
            text,
            "[[stream]]\nchannel = \"show_{number}\"\nowner = \"owner\"\nlive = {live}\n"
        );
        text
    })
}

/// Sends all requests at once, in turn to the daemons; their status codes.
fn at_once(replicas: &[&Renewd], asks: &[Ask]) -> Vec<u16> {
    let start = Barrier::new(asks.len());
    thread::scope(|scope| {
        let asking = asks.iter().enumerate().map(|(number, ask)| {
            let (renewd, start) = (replicas[number % replicas.len()], &start);
            scope.spawn(move || {
                start.wait();
                ask.send(renewd).status
            })
        });
        let asking: Vec<_> = asking.collect();
        asking
            .into_iter()
            .map(|asking| asking.join().unwrap())
            .collect()
    })
}

#[test]
fn a_uid_is_held_once_whichever_daemon_is_asked() {
    let redis = Redis::start();
    let replicas = [(); 3].map(|()| Renewd::start(&settings(&redis, TIMEOUT, "", "")));
    let [first, second, third] = &replicas;
    assert_eq!(Ask::viewer("ann", 7).send(first).status, 200);
    let taken = Ask::viewer("bob", 7).send(second);
    assert_eq!(
        (taken.status, &taken.json()["code"]),
        (409, &json!("uid_taken"))
    );
    // The refused claim has taken nothing from ann, who may change her daemon as freely as her device.
    assert_eq!(Ask::viewer("ann", 7).send(second).status, 200);
    assert_eq!(Ask::viewer("bob", 8).send(third).status, 200);
    assert_eq!(Ask::viewer("ann", 8).send(first).status, 409);
    // A publisher takes it, and keeps it.
    assert_eq!(publisher("owner", "live_show", 7).send(third).status, 200);
    for renewd in &replicas {
        assert_eq!(Ask::viewer("ann", 7).send(renewd).status, 409);
    }
    assert_eq!(publisher("owner", "live_show", 7).send(first).status, 200);
    // String accounts are held alike.
    let account = |subject: &str| {
        let body = json!({"channelName": "live_show", "userAccount": "seat", "role": "subscriber"});
        Ask::new(subject, &body)
    };
    assert_eq!(account("ann").send(first).status, 200);
    assert_eq!(account("bob").send(second).status, 409);
}

#[test]
fn of_many_who_ask_for_a_uid_at_once_one_has_it() {
    let redis = Redis::start();
    let replicas = [(); 2].map(|()| Renewd::start(&settings(&redis, TIMEOUT, "", "")));
    let [first, second] = &replicas;
    for uid in 1..=20 {
        let asks: Vec<_> = (0..6)
            .map(|number| Ask::viewer(&format!("viewer-{uid}-{number}"), uid))
            .collect();
        let mut answers = at_once(&[first, second], &asks);
        answers.sort_unstable();
        assert_eq!(answers, [200, 409, 409, 409, 409, 409]);
    }
}

/// Waits until the first of a subject's nine uids is free: a subject has at most eight in a channel.
fn frees_the_first(replicas: [&Renewd; 2], subject: &str, uids: std::ops::RangeInclusive<u32>) {
    let (first, rest) = (*uids.start(), uids.start() + 1..=*uids.end());
    let heir = format!("heir of {subject}");
    let ask = Ask::viewer(&heir, first);
    replicas[1].eventually("the first uid is free", |renewd| {
        ask.send(renewd).status == 200
    });
    for renewd in replicas {
        for uid in rest.clone() {
            let status = Ask::viewer(&heir, uid).send(renewd).status;
            assert_eq!(status, 409, "uid {uid} of {subject}");
        }
        assert_eq!(Ask::viewer("another", first).send(renewd).status, 409);
        let target = format!("/v1/sessions?subject={subject}");
        renewd.eventually("it has the other eight", |renewd| {
            let answer = renewd.ask_admin("GET", &target, "").json();
            let sessions = answer["sessions"].as_array().unwrap().iter();
            let held: BTreeSet<_> = sessions.map(|session| session["uid"].as_u64()).collect();
            held == rest.clone().map(|uid| Some(uid.into())).collect()
        });
    }
}

#[test]
fn a_ninth_uid_of_a_subject_frees_the_first_on_all_daemons() {
    let redis = Redis::start();
    let replicas = [(); 2].map(|()| Renewd::start(&settings(&redis, TIMEOUT, "", "")));
    let [first, second] = &replicas;
    for uid in 1..=8 {
        assert_eq!(Ask::viewer("ann", uid).send(first).status, 200);
    }
    assert_eq!(Ask::viewer("bob", 1).send(second).status, 409);
    assert_eq!(Ask::viewer("ann", 9).send(first).status, 200);
    frees_the_first([first, second], "ann", 1..=9);
    // Two daemons give these uids, and neither of them sees its own as the ninth when it gives one.
    for (uid, renewd) in (21..=29).zip([first, second].into_iter().cycle()) {
        assert_eq!(Ask::viewer("carl", uid).send(renewd).status, 200);
    }
    frees_the_first([first, second], "carl", 21..=29);
}

#[test]
fn streams_of_a_publisher_count_once_and_only_while_they_are_live() {
    let redis = Redis::start();
    let of = |live: usize| Settings {
        streams: Some(streams(live)),
        ..settings(&redis, TIMEOUT, "", "max_streams_per_publisher = 2")
    };
    let replicas = [(); 2].map(|()| Renewd::start(&of(10)));
    let [first, second] = &replicas;
    let asks: Vec<_> = (0..10)
        .map(|number| publisher("owner", &format!("show_{number}"), 7))
        .collect();
    let answers = at_once(&[first, second], &asks);
    let passed = answers.iter().filter(|status| **status == 200);
    assert_eq!(passed.count(), 2, "{answers:?}");
    let held: Vec<_> = (0..10).filter(|number| answers[*number] == 200).collect();
    let refused = asks[(0..10).find(|number| !held.contains(number)).unwrap()].clone();
    for renewd in &replicas {
        let answer = refused.send(renewd);
        assert_eq!(answer.json()["code"], "too_many_streams");
        // Those that are held go on.
        assert_eq!(asks[held[0]].send(renewd).status, 200);
    }
    // When the two are over, two others may begin, on whichever daemon.
    let ended = held.iter().fold(streams(10), |text, number| {
        let live = format!("\"show_{number}\"\nowner = \"owner\"\nlive = true");
        text.replace(&live, &live.replace("true", "false"))
    });
    for renewd in &replicas {
        change_streams(renewd, &ended);
    }
    let others: Vec<_> = (0..10)
        .filter(|number| !held.contains(number))
        .map(|number| asks[number].clone())
        .collect();
    let answers = at_once(&[second, first], &others);
    let passed = answers.iter().filter(|status| **status == 200);
    assert_eq!(passed.count(), 2, "{answers:?}");
}

#[test]
fn a_decision_asks_for_claims_once_and_only_where_one_can_matter() {
    let redis = Redis::with(&LOG_ALL);
    let of = |policy: &str| {
        let limits = "channel = { requests = 1000, per = \"1m\", burst = 1000 }\n";
        Settings {
            token: "zero_uid = \"allow\"".to_owned(),
            ..settings(&redis, TIMEOUT, limits, policy)
        }
    };
    let binding = Renewd::start(&of(""));
    let claims = || redis.scripts_on(":claims:channels:");
    let limits = || redis.scripts_on(":limits:channel");
    // A renewal isn't asked of the channel's limit.
    for (ask, asked, limited) in [
        (Ask::viewer("ann", 7), 1, 1),
        (Ask::viewer("ann", 0), 0, 0),
        (Ask::viewer("bob", 7), 0, 1),
        (publisher("owner", "live_show", 0), 0, 1),
        (publisher("owner", "live_show", 9), 1, 0),
    ] {
        let before = (claims(), limits());
        let _ = ask.send(&binding);
        let after = (claims() - before.0, limits() - before.1);
        assert_eq!(after, (asked, limited), "{ask:?}");
    }
    let left: i64 =
        redis::from_redis_value(redis.run("PTTL renewd:{shared}:claims:uid:live_show:7")).unwrap();
    assert!((3_500_000..=3_600_000).contains(&left), "{left}");
    let unbound = Renewd::start(&of("bind_uid = false\n"));
    let before = claims();
    assert_eq!(Ask::viewer("bob", 7).send(&unbound).status, 200);
    assert_eq!(
        publisher("owner", "live_show", 9).send(&unbound).status,
        200
    );
    assert_eq!(claims(), before);
}

#[test]
fn what_is_refused_after_the_uid_was_found_free_leaves_it_free() {
    let redis = Redis::start();
    let renewd = Renewd::start(&settings(&redis, TIMEOUT, "", ""));
    let endless = jwt(&json!({"sub": "ann"}));
    let refused = Ask::viewer("ann", 7).bearer(&endless);
    assert_eq!(refused.send(&renewd).json()["code"], "policy_denied");
    let keys = redis.keys();
    assert!(
        keys.iter().all(|key| !key.contains("claims:uid")),
        "{keys:?}"
    );
    assert_eq!(Ask::viewer("bob", 7).send(&renewd).status, 200);
    // A value that another program left under the key's name counts as none.
    let key = "renewd:{shared}:claims:uid:live_show:8";
    redis.run(&format!("LPUSH {key} x"));
    assert_eq!(Ask::viewer("carl", 8).send(&renewd).status, 200);
    assert_eq!(Ask::viewer("dora", 8).send(&renewd).status, 409);
}

#[test]
fn without_the_store_the_own_table_decides_or_nobody() {
    let mut redis = Redis::start();
    let of = |choice: &str| {
        let limits = format!("on_store_error = \"{choice}\"\n");
        Renewd::start(&settings(&redis, TIMEOUT, &limits, ""))
    };
    let (local, allow, deny) = (of("local"), of("allow"), of("deny"));
    for (renewd, uid) in [(&local, 1), (&allow, 2), (&deny, 3)] {
        renewd.eventually("it is shared", is_shared);
        assert_eq!(Ask::viewer("ann", uid).send(renewd).status, 200);
    }
    redis.kill();
    for renewd in [&local, &allow, &deny] {
        notices(renewd);
    }
    assert_eq!(Ask::viewer("bob", 1).send(&local).status, 409);
    assert_eq!(Ask::viewer("bob", 2).send(&allow).status, 409);
    for renewd in [&local, &allow] {
        assert_eq!(Ask::viewer("bob", 4).send(renewd).status, 200);
    }
    let denied = Ask::viewer("bob", 4).send(&deny);
    assert_eq!(
        (denied.status, &denied.json()["code"]),
        (503, &json!("unavailable"))
    );
    redis.restart();
    for renewd in [&local, &allow, &deny] {
        recovers(renewd);
    }
    assert_eq!(Ask::viewer("carl", 5).send(&deny).status, 200);
    assert_eq!(Ask::viewer("dora", 5).send(&local).status, 409);
}
