//! Publishers' tokens that the backend gives in other answers: over all daemons they claim what a token of the token
//! endpoint claims, and their answers wait for no store.

use std::time::Duration;

use renewd::agora::{RtcGrant, Signer, TokenFormat, User, rtc_token};
use renewd::config::secret::Secret;
use renewd::terms::role::Role;
use serde_json::{Value, json};

use crate::shared_claims::{publisher, settings, streams};
use crate::shared_limits::TIMEOUT;
use crate::support::ask::Ask;
use crate::support::database::timed;
use crate::support::messages::exchange;
use crate::support::redis::{LOG_ALL, Redis};
use crate::support::renewd::{APP_CERTIFICATE, APP_ID, Renewd, Settings, login, now};
use crate::support::scripted::Scripted;

/// A daemon in front of this backend, without limits.
fn start(redis: &Redis, backend: &Scripted, policy: &str) -> Renewd {
    let policy = format!("{policy}\n[[reissue.rule]]\npath = \"/answer/*\"");
    Renewd::start(&Settings {
        backend: Some(backend.address),
        streams: Some(streams(10)),
        ..settings(redis, TIMEOUT, "", &policy)
    })
}

/// The backend's token of a day.
fn token(channel: &str, uid: u32, role: Role) -> String {
    let signer = Signer::new(APP_ID, &Secret::new(APP_CERTIFICATE.into())).unwrap();
    let grant = RtcGrant {
        channel,
        user: User::Uid(uid),
        role,
        lifetime: 86_400,
        issued_at: u32::try_from(now()).unwrap(),
        salt: uid,
    };
    rtc_token(TokenFormat::V007, &signer, &grant).unwrap()
}

/// Has the backend answer the owner with this token; the one that arrives is another.
fn hand_on(renewd: &Renewd, backend: &Scripted, token: &str) {
    backend.answer(200, &json!({"token": token}).to_string());
    let given = forwarded(renewd)["token"].clone();
    let given = given.as_str().unwrap();
    assert!(given.starts_with("007") && given != token, "{given}");
}

/// The backend's answer to the owner.
fn forwarded(renewd: &Renewd) -> Value {
    let request = format!(
        "GET /answer/1 HTTP/1.1\r\nHost: app.example\r\nAuthorization: Bearer {}\r\n\r\n",
        login("owner")
    );
    let answer = exchange(renewd.public, request.as_bytes());
    assert_eq!(answer.status(), 200);
    answer.json()
}

fn viewer(subject: &str, channel: &str, uid: u32) -> Ask {
    let body = json!({"channelName": channel, "uid": uid, "role": "subscriber"});
    Ask::new(subject, &body)
}

/// Waits until a uid of `show_0` is the owner's in the store.
fn is_claimed(renewd: &Renewd, redis: &Redis, uid: u32) {
    let key = format!("renewd:{{shared}}:claims:uid:show_0:{uid}");
    renewd.eventually("the uid is claimed", |_| {
        let holder: Option<String> =
            redis::from_redis_value(redis.run(&format!("GET {key}"))).unwrap();
        holder.as_deref() == Some("=owner")
    });
    let left: i64 = redis::from_redis_value(redis.run(&format!("PTTL {key}"))).unwrap();
    assert!((3_500_000..=3_600_000).contains(&left), "{left}");
}

#[test]
fn a_uid_that_is_handed_on_is_claimed_at_once() {
    let (redis, backend) = (Redis::start(), Scripted::start());
    let [first, second] = [(); 2].map(|()| start(&redis, &backend, ""));
    for uid in 1..=10 {
        hand_on(&first, &backend, &token("show_0", uid, Role::Publisher));
        let ask = viewer(&format!("viewer-{uid}"), "show_0", uid);
        // Who comes before the claim has it taken away.
        let status = ask.send(&second).status;
        assert!([200, 409].contains(&status), "{status}");
        is_claimed(&first, &redis, uid);
        assert_eq!(ask.send(&second).json()["code"], "uid_taken");
    }
}

#[test]
fn a_stream_that_is_handed_on_counts_at_once() {
    let (redis, backend) = (Redis::start(), Scripted::start());
    let [first, second] = [(); 2].map(|()| {
        let policy = "max_streams_per_publisher = 1";
        start(&redis, &backend, policy)
    });
    hand_on(&first, &backend, &token("show_0", 7, Role::Publisher));
    is_claimed(&first, &redis, 7);
    let refused = publisher("owner", "show_1", 7).send(&second);
    assert_eq!(refused.json()["code"], "too_many_streams");
    assert_eq!(publisher("owner", "show_0", 7).send(&second).status, 200);
}

#[test]
fn a_stream_too_many_that_is_handed_on_costs_the_publisher_no_other() {
    let (redis, backend) = (Redis::with(&LOG_ALL), Scripted::start());
    let [first, second] = [(); 2].map(|()| {
        let policy = "bind_uid = false\nmax_streams_per_publisher = 1";
        start(&redis, &backend, policy)
    });
    let claims = || redis.scripts_on(":claims:channels:");
    assert_eq!(publisher("owner", "show_0", 7).send(&second).status, 200);
    assert_eq!(claims(), 1);
    // The first daemon may not know of that stream yet.
    hand_on(&first, &backend, &token("show_1", 7, Role::Publisher));
    for renewd in [&first, &second] {
        renewd.eventually("the stream that was there goes on", |renewd| {
            publisher("owner", "show_0", 7).send(renewd).status == 200
        });
        let refused = publisher("owner", "show_1", 7).send(renewd);
        assert_eq!(refused.json()["code"], "too_many_streams");
    }
}

#[test]
fn no_answer_waits_for_the_store_and_only_a_publishers_token_asks_it_anything() {
    let (redis, backend) = (Redis::with(&LOG_ALL), Scripted::start());
    let renewd = start(&redis, &backend, "");
    let claims = || redis.scripts_on(":claims:channels:");
    assert_eq!(viewer("ann", "show_0", 1).send(&renewd).status, 200);
    assert_eq!(claims(), 1);
    backend.answer(200, r#"{"token":null}"#);
    assert_eq!(forwarded(&renewd), json!({"token": null}));
    hand_on(&renewd, &backend, &token("show_0", 6, Role::Subscriber));
    // A publisher's that anybody may use claims nothing.
    hand_on(&renewd, &backend, &token("show_0", 0, Role::Publisher));
    hand_on(&renewd, &backend, &token("show_0", 7, Role::Publisher));
    is_claimed(&renewd, &redis, 7);
    assert_eq!(claims(), 2);
    redis.freeze();
    let ((), took) = timed(|| {
        hand_on(&renewd, &backend, &token("show_0", 8, Role::Publisher));
    });
    assert!(took < Duration::from_secs(5), "{took:?}");
    redis.thaw();
    is_claimed(&renewd, &redis, 8);
}
