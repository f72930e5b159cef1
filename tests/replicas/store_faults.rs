//! A store that fails in every way: only the first few requests wait for it, `on_store_error` decides, and the daemons
//! recover by themselves.

use std::time::Duration;

use serde_json::json;

use crate::shared_limits::{TIMEOUT, burst, number, over, passing};
use crate::support::ask::{Ask, counted};
use crate::support::database::{status, timed};
use crate::support::express::{Express, Version};
use crate::support::redis::Redis;
use crate::support::renewd::{Renewd, Settings};

/// `redis.timeout` where a server is to be late.
pub const SHORT: &str = "timeout = \"200ms\"";

/// The same, with a busy machine's delay: half of what a daemon may wait that has all the time.
pub const AT_MOST: Duration = Duration::from_secs(5);

pub fn is_shared(renewd: &Renewd) -> bool {
    counted(renewd, r#"renewd_store_mode{mode="shared"}"#) == 1
}

/// Waits until the daemon knows that the store is gone, asking as subjects that no limit holds.
pub fn notices(renewd: &Renewd) {
    let mut uid = 1000;
    renewd.eventually("the store is noticed to be gone", |renewd| {
        uid += 1;
        let ask = Ask::viewer(&format!("noticing-{uid}"), uid);
        let (answer, took) = timed(|| ask.send(renewd));
        assert!([200, 503].contains(&answer.status));
        assert!(took < AT_MOST, "{took:?}");
        !is_shared(renewd)
    });
}

/// Holds that the daemon's own limits decide while the store is gone, and that the status names these words as the
/// error.
pub fn is_local(renewd: &Renewd, words: &str) {
    assert!(!is_shared(renewd));
    assert_eq!(counted(renewd, r#"renewd_store_mode{mode="local"}"#), 1);
    assert_eq!(counted(renewd, r#"renewd_source_up{source="redis"}"#), 0);
    let source = |page: &serde_json::Value| {
        let mut sources = page["sources"].as_array().unwrap().iter();
        let source = sources.find(|source| source["source"] == "redis");
        source.unwrap().clone()
    };
    // A connection that breaks is told of before the next attempt to connect fails.
    renewd.eventually("its error is told", |renewd| {
        let error = source(&status(renewd).0)["error"].clone();
        error.as_str().is_some_and(|error| error.contains(words))
    });
    let (page, ready) = status(renewd);
    assert_eq!(ready["ready"], true, "{ready}");
    assert_eq!(ready["degraded"], json!(["redis"]));
    let source = source(&page);
    assert!(source["down_since"].is_string() && source["rest_until"].is_null());
    let conditions = page["conditions"].as_array().unwrap();
    let alerts: Vec<_> = conditions
        .iter()
        .map(|condition| &condition["alert"])
        .collect();
    assert_eq!(alerts, ["RenewdStoreLocal"]);
    // No request waits any more: twenty wait no longer than two that waited would.
    let series = r#"renewd_source_lookup_duration_seconds_sum{source="redis"}"#;
    let before = renewd.metric(series);
    for uid in 1..=20 {
        let ask = Ask::viewer(&format!("unhurried-{uid}"), uid);
        assert_eq!(ask.send(renewd).status, 200);
    }
    let waited = renewd.metric(series) - before;
    assert!(waited < 0.4, "{waited} s");
}

/// Holds that the daemon recovers by itself.
pub fn recovers(renewd: &Renewd) {
    renewd.eventually("it recovers", is_shared);
    assert_eq!(status(renewd).1["degraded"], json!([]));
    assert_eq!(counted(renewd, r#"renewd_source_up{source="redis"}"#), 1);
}

fn daemon(redis: &Redis, lines: &str) -> Renewd {
    let renewd = Renewd::start(&over(&redis.url(), lines, &burst("subject", 6)));
    renewd.eventually("it is shared", is_shared);
    assert_eq!(Ask::viewer("first", 1).send(&renewd).status, 200);
    renewd
}

#[test]
fn killed_and_come_back_empty() {
    let mut redis = Redis::start();
    let (renewd, other) = (daemon(&redis, TIMEOUT), daemon(&redis, TIMEOUT));
    assert_eq!(passing(&[&renewd, &other], "viewer"), 6);
    redis.kill();
    notices(&renewd);
    is_local(&renewd, "no connection");
    // The requests that the daemon let through by itself are owed here too: three of six.
    assert_eq!(passing(&[&renewd], "viewer"), 3);
    // A subject that never asked has six requests, on each daemon.
    assert_eq!(passing(&[&renewd], "late"), 6);
    notices(&other);
    assert_eq!(passing(&[&other], "late"), 6);
    redis.restart();
    recovers(&renewd);
    recovers(&other);
    assert_eq!(passing(&[&renewd, &other], "later"), 6);
}

#[test]
fn stopped_in_its_tracks_and_going_on() {
    let redis = Redis::start();
    let renewd = daemon(&redis, SHORT);
    redis.freeze();
    // Requests that come together wait once, all of them.
    std::thread::scope(|scope| {
        for uid in 1..=10 {
            let renewd = &renewd;
            scope.spawn(move || {
                let ask = Ask::viewer(&format!("waiting-{uid}"), uid);
                let (answer, took) = timed(|| ask.send(renewd));
                assert_eq!(answer.status, 200);
                assert!(took < AT_MOST, "{took:?}");
            });
        }
    });
    notices(&renewd);
    is_local(&renewd, "no answer within");
    redis.thaw();
    recovers(&renewd);
}

#[test]
fn paused_for_its_clients() {
    let redis = Redis::start();
    let renewd = daemon(&redis, SHORT);
    // Long enough for a busy machine to notice.
    redis.run("CLIENT PAUSE 8000 ALL");
    notices(&renewd);
    is_local(&renewd, "no answer within");
    recovers(&renewd);
}

#[test]
fn out_of_memory_read_only_and_without_rights() {
    let mut redis = Redis::start();
    let renewd = daemon(&redis, TIMEOUT);
    for (fault, words, cure) in [
        ("CONFIG SET maxmemory 1", "OOM", "CONFIG SET maxmemory 0"),
        ("REPLICAOF 127.0.0.1 1", "READONLY", "REPLICAOF NO ONE"),
        (
            "ACL SETUSER default -evalsha",
            "NOPERM",
            "ACL SETUSER default +evalsha",
        ),
    ] {
        redis.run(fault);
        notices(&renewd);
        is_local(&renewd, words);
        redis.run(cure);
        recovers(&renewd);
    }
    redis.run("SCRIPT FLUSH");
    assert_eq!(passing(&[&renewd], "after a flush"), 6);
    assert!(is_shared(&renewd), "a forgotten script is no fault");
    redis.run("CONFIG SET requirepass another-password");
    redis.password = Some("another-password".to_owned());
    redis.run("CLIENT KILL TYPE normal");
    notices(&renewd);
    is_local(&renewd, "NOAUTH");
    redis.run_words(&["CONFIG", "SET", "requirepass", ""]);
    redis.password = None;
    recovers(&renewd);
}

#[test]
fn a_password_that_is_wrong_is_said_and_never_shown() {
    let mut redis = Redis::with(&["--requirepass", "the-right-one"]);
    redis.password = Some("the-wrong-one".to_owned());
    let renewd = Renewd::start(&over(&redis.url(), SHORT, &burst("subject", 2)));
    notices(&renewd);
    is_local(&renewd, "refuses the login");
    let (page, _) = status(&renewd);
    let lines = format!("{page} {:?} {}", renewd.log().lines(), renewd.metrics());
    assert!(!lines.contains("the-wrong-one"));
    redis.password = Some("the-right-one".to_owned());
    let right = daemon(&redis, TIMEOUT);
    assert_eq!(passing(&[&right], "viewer"), 6);
    assert!(is_shared(&right));
}

#[test]
fn a_start_waits_for_no_store() {
    let mut redis = Redis::start();
    let url = redis.url();
    redis.kill();
    let (renewd, took) = timed(|| Renewd::start(&over(&url, TIMEOUT, &burst("subject", 3))));
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(passing(&[&renewd], "viewer"), 3);
    notices(&renewd);
    is_local(&renewd, "no connection");
    redis.restart();
    recovers(&renewd);
}

#[test]
fn without_the_store_the_configuration_decides() {
    let mut redis = Redis::start();
    let of = |choice: &str| {
        let limits = format!("on_store_error = \"{choice}\"\n{}", burst("subject", 2));
        Renewd::start(&over(&redis.url(), TIMEOUT, &limits))
    };
    let (local, allow, deny) = (of("local"), of("allow"), of("deny"));
    for renewd in [&local, &allow, &deny] {
        renewd.eventually("it is shared", is_shared);
        assert_eq!(passing(&[renewd], &format!("viewer-{}", renewd.pid())), 2);
    }
    redis.kill();
    for renewd in [&local, &allow, &deny] {
        notices(renewd);
    }
    let ask = |renewd: &Renewd| Ask::viewer(&format!("viewer-{}", renewd.pid()), 7).send(renewd);
    assert_eq!(ask(&local).status, 429);
    for _ in 0..20 {
        assert_eq!(ask(&allow).status, 200);
    }
    let denied = ask(&deny);
    assert_eq!(denied.status, 503);
    assert_eq!(denied.json()["code"], "unavailable");
    assert!(number(&denied, "retry-after") > 0);
    redis.restart();
    for renewd in [&local, &allow, &deny] {
        recovers(renewd);
        assert_eq!(ask(renewd).status, 200);
    }
}

fn numbers(held: &str) -> [f64; 3] {
    let numbers: Vec<f64> = held.split(' ').map(|word| word.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

#[test]
fn a_clock_that_is_set_back_holds_nobody_longer_than_a_whole_debt() {
    let redis = Redis::start();
    let limit = "subject = { requests = 60, per = \"1m\", burst = 2 }";
    let renewd = Renewd::start(&over(&redis.url(), TIMEOUT, limit));
    assert_eq!(passing(&[&renewd], "viewer"), 2);
    let key = "renewd:{shared}:limits:subject:viewer";
    // The key is as a clock that is set back by a day would leave it.
    let held: String = redis::from_redis_value(redis.run(&format!("GET {key}"))).unwrap();
    let [arrival, interval, written] = numbers(&held);
    let day = 86_400_000_000.0;
    let later = format!("{:.3} {interval:.3} {:.3}", arrival + day, written + day);
    redis.run_words(&["SET", key, &later]);
    let tariffs = "renewd:{shared}:limits:tariffs:subject";
    let held: String = redis::from_redis_value(redis.run(&format!("GET {tariffs}"))).unwrap();
    let [since, interval, capacity] = numbers(&held);
    let later = format!("{:.3} {interval:.3} {capacity:.3}", since + day);
    redis.run_words(&["SET", tariffs, &later]);
    let limited = Ask::viewer("viewer", 7).send(&renewd);
    assert_eq!((limited.status, number(&limited, "retry-after")), (429, 1));
    renewd.eventually("a second later the next one passes", |renewd| {
        Ask::viewer("viewer", 7).send(renewd).status == 200
    });
    // Values that other programs left under the key's name don't count.
    redis.run("DEL renewd:{shared}:limits:subject:odd");
    redis.run("LPUSH renewd:{shared}:limits:subject:odd x");
    redis.run_words(&["SET", tariffs, "1.0 many 2.0\n\nlines"]);
    assert_eq!(Ask::viewer("odd", 8).send(&renewd).status, 200);
    assert!(is_shared(&renewd));
}

#[test]
fn no_forwarded_request_waits_for_the_store() {
    let redis = Redis::start();
    let express = Express::start(Version::Five, &[]);
    let settings = Settings {
        backend: Some(express.address),
        ..over(&redis.url(), TIMEOUT, &burst("subject", 6))
    };
    let renewd = Renewd::start(&settings);
    assert_eq!(Ask::viewer("first", 1).send(&renewd).status, 200);
    redis.freeze();
    let request = b"GET /__control/hits HTTP/1.1\r\nHost: app.example\r\n\r\n";
    let (answer, took) = timed(|| renewd.client().send(request).unwrap());
    assert_eq!(answer.status, 200);
    assert!(took < AT_MOST, "{took:?}");
    redis.thaw();
}
