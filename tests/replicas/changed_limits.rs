//! A limit that changes while debts are owed over the store: each is paid at the rate that was in force at each time,
//! whether its key is asked for meanwhile or not.

use crate::shared_limits::{TIMEOUT, burst, number, over, passing};
use crate::support::ask::{Ask, reconfigure};
use crate::support::redis::Redis;
use crate::support::renewd::{Renewd, Settings};

/// Three, of which one comes back after so many milliseconds.
fn every(redis: &Redis, milliseconds: u64) -> Settings {
    let per = milliseconds * 3;
    let limit = format!("subject = {{ requests = 3, per = \"{per}ms\", burst = 3 }}");
    over(&redis.url(), TIMEOUT, &limit)
}

const HOUR: u64 = 3_600_000;

/// The server's clock, in milliseconds.
fn time(redis: &Redis) -> u64 {
    let (seconds, micros): (u64, u64) = redis::from_redis_value(redis.run("TIME")).unwrap();
    seconds * 1000 + micros / 1000
}

/// Waits until the server's clock has passed this.
fn wait_until(renewd: &Renewd, redis: &Redis, milliseconds: u64) {
    renewd.eventually("the time comes", |_| time(redis) > milliseconds);
}

#[test]
fn a_stricter_limit_forgets_no_debt_of_a_silent_key() {
    let redis = Redis::start();
    let (quick, slow) = (every(&redis, 1500), every(&redis, HOUR));
    let (one, other) = (Renewd::start(&quick), Renewd::start(&quick));
    let before = time(&redis);
    // While a busy machine asks, one may come back.
    assert!(passing(&[&one, &other], "first") >= 3);
    assert!(passing(&[&one, &other], "second") >= 3);
    let owed_until = time(&redis) + 3 * 1500;
    reconfigure(&one, &slow);
    reconfigure(&other, &slow);
    // The daemons learn of the change by themselves, the store by the first request after it.
    assert_eq!(passing(&[&other], "another"), 3);
    let paid = usize::try_from((time(&redis) - before) / 1500).unwrap();
    wait_until(&one, &redis, owed_until);
    assert!(passing(&[&one], "first") <= paid);
    assert!(passing(&[&other], "second") <= paid);
    let limited = Ask::viewer("first", 7).send(&one);
    assert_eq!(limited.status, 429);
    let wait = number(&limited, "retry-after");
    assert!((3..=3600).contains(&wait), "{wait}");
    // What is owed outlives the daemons, and costs what it costs under the limit of one that starts.
    let third = Renewd::start(&every(&redis, 2 * HOUR));
    let limited = Ask::viewer("first", 7).send(&third);
    assert_eq!(limited.status, 429);
    let doubled = number(&limited, "retry-after");
    assert!(
        (wait * 2 - 60..=wait * 2).contains(&doubled),
        "{doubled}, not {wait} twice"
    );
}

#[test]
fn a_wider_limit_pays_the_debt_of_a_silent_key() {
    let redis = Redis::start();
    let (slow, quick) = (every(&redis, HOUR), every(&redis, 1000));
    let (one, other) = (Renewd::start(&slow), Renewd::start(&slow));
    assert_eq!(passing(&[&one, &other], "viewer"), 3);
    assert_eq!(passing(&[&one, &other], "still slow"), 3);
    reconfigure(&one, &quick);
    reconfigure(&other, &quick);
    wait_until(&one, &redis, time(&redis) + 3000);
    // No request came since.
    assert!(passing(&[&one, &other], "viewer") >= 3);
}

#[test]
fn up_and_down_again_each_time_counts_at_its_own_rate() {
    let redis = Redis::start();
    let (slow, quick) = (every(&redis, HOUR), every(&redis, 1000));
    let (one, other) = (Renewd::start(&slow), Renewd::start(&slow));
    assert_eq!(passing(&[&one, &other], "viewer"), 3);
    reconfigure(&one, &quick);
    let from = time(&redis);
    // A request by another subject tells the store.
    assert_eq!(Ask::viewer("another", 8).send(&one).status, 200);
    wait_until(&one, &redis, from + 1000);
    reconfigure(&one, &slow);
    assert_eq!(Ask::viewer("another", 8).send(&one).status, 200);
    let at_most = (time(&redis) - from) / 1000 + 1;
    let through = passing(&[&one, &other], "viewer") as u64;
    assert!((1..=at_most).contains(&through), "{through} of {at_most}");
}

#[test]
fn a_daemon_that_is_not_reloaded_yet_decides_by_its_own_limit() {
    let redis = Redis::start();
    let of = |limit: &str| over(&redis.url(), TIMEOUT, limit);
    let (narrow, wide) = (of(&burst("subject", 3)), of(&burst("subject", 5)));
    let (reloaded, before) = (Renewd::start(&narrow), Renewd::start(&narrow));
    assert_eq!(passing(&[&reloaded, &before], "viewer"), 3);
    reconfigure(&reloaded, &wide);
    assert_eq!(Ask::viewer("viewer", 7).send(&before).status, 429);
    assert_eq!(passing(&[&reloaded], "viewer"), 2);
    let limited = Ask::viewer("viewer", 7).send(&before);
    assert_eq!(limited.status, 429);
    // Five are owed, and three may be: three have to come back before one passes.
    assert!((1700..=1800).contains(&number(&limited, "retry-after")));
    let limited = Ask::viewer("viewer", 7).send(&reloaded);
    assert!((500..=600).contains(&number(&limited, "retry-after")));
    // The store's list of limits grows by changes alone.
    let key = "renewd:{shared}:limits:tariffs:subject";
    let held: String = redis::from_redis_value(redis.run(&format!("GET {key}"))).unwrap();
    assert_eq!(held.lines().count(), 2, "{held}");
}
