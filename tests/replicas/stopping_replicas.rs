//! A daemon that is told to stop while others go on: what it has granted and revoked to the last is known to them, and
//! no store that is gone holds it up.

use std::time::Duration;

use rustix::process::Signal;

use crate::shared_revocations::revoke;
use crate::shared_sessions::{has, start, with};
use crate::store_faults::{SHORT, is_shared, notices};
use crate::support::ask::Ask;
use crate::support::database::timed;
use crate::support::redis::Redis;
use crate::support::renewd::Renewd;

/// Tells it to stop, and says how long it took.
fn stop(renewd: &mut Renewd) -> Duration {
    renewd.signal(Signal::TERM);
    let (status, took) = timed(|| renewd.wait());
    assert_eq!(status.code(), Some(0));
    took
}

#[test]
fn the_last_grants_and_revocations_reach_the_others() {
    let redis = Redis::start();
    let (first, mut second) = (start(&redis), start(&redis));
    assert_eq!(Ask::viewer("viewer-0", 100).send(&second).status, 200);
    let mut known = vec!["viewer-0".to_owned()];
    has(&first, &["viewer-0"]);
    // A single round could pass by chance, if the record happened to be sent just before the stop.
    for round in 1..=4 {
        let subject = format!("viewer-{round}");
        assert_eq!(Ask::viewer(&subject, 100 + round).send(&second).status, 200);
        let revoked = format!("revoked-{round}");
        revoke(&second, &revoked);
        stop(&mut second);
        known.push(subject);
        has(
            &first,
            &known.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        first.eventually("the revocation is known", |first| {
            first.revoked_subjects().contains(&revoked)
        });
        second = second.again();
    }
}

#[test]
fn a_store_that_is_down_holds_up_no_stop() {
    let mut redis = Redis::start();
    let (mut stopped, other) = (start(&redis), start(&redis));
    assert_eq!(Ask::viewer("ann", 7).send(&stopped).status, 200);
    has(&other, &["ann"]);
    redis.kill();
    notices(&stopped);
    assert_eq!(Ask::viewer("bob", 8).send(&stopped).status, 200);
    let took = stop(&mut stopped);
    assert!(took < Duration::from_secs(8), "{took:?}");
    redis.restart();
    other.eventually("it is shared again", is_shared);
    let _stopped = stopped.again();
    other.eventually("what was granted without the store is known", |other| {
        let target = "/v1/sessions?subject=bob";
        let answer = other.ask_admin("GET", target, "").json();
        answer["sessions"]
            .as_array()
            .is_some_and(|found| found.len() == 1)
    });
}

#[test]
fn a_store_that_is_silent_holds_up_a_stop_no_longer_than_a_request() {
    let redis = Redis::start();
    let mut renewd = Renewd::start(&with(&redis, SHORT));
    assert_eq!(Ask::viewer("ann", 7).send(&renewd).status, 200);
    redis.freeze();
    let took = stop(&mut renewd);
    assert!(took < Duration::from_secs(8), "{took:?}");
    redis.thaw();
    let renewd = renewd.again();
    has(&renewd, &["ann"]);
}
