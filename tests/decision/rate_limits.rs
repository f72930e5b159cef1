//! The limits on subjects, on channels and on all requests together: which requests they refuse, and how a reload
//! changes debts.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail

use crate::support::ask::{Ask, counted, reconfigure};
use crate::support::raw::Response;
use crate::support::renewd::{Renewd, STREAMS, Settings};
use serde_json::json;

fn limits(lines: &str) -> Settings {
    Settings {
        streams: Some(format!(
            "{STREAMS}\n[[stream]]\nchannel = \"second_show\"\nowner = \"owner\"\nlive = true\n"
        )),
        tables: format!("[rate_limit]\n{lines}\n"),
        ..Settings::default()
    }
}

fn in_channel(channel: &str, subject: &str, uid: u32) -> Ask {
    Ask::new(
        subject,
        &json!({"channelName": channel, "uid": uid, "role": "subscriber"}),
    )
}

fn number(answer: &Response, name: &str) -> u64 {
    answer.header(name).unwrap().parse().unwrap()
}

#[test]
fn a_subject_has_a_burst_and_then_waits() {
    let renewd = Renewd::start(&limits(
        r#"subject = { requests = 60, per = "1h", burst = 5 }"#,
    ));
    for _ in 0..5 {
        assert_eq!(Ask::viewer("viewer", 7).send(&renewd).status, 200);
    }
    let limited = Ask::viewer("viewer", 7).send(&renewd);
    assert_eq!(limited.status, 429);
    assert_eq!(limited.json()["code"], "rate_limited");
    assert_eq!(number(&limited, "ratelimit-limit"), 5);
    assert_eq!(number(&limited, "ratelimit-remaining"), 0);
    // One request comes back each minute, five in five minutes.
    assert!((40..=60).contains(&number(&limited, "retry-after")));
    assert!((280..=300).contains(&number(&limited, "ratelimit-reset")));
    // The same subject is refused from another address too; another subject isn't.
    assert_eq!(Ask::viewer("viewer", 7).refresh().send(&renewd).status, 429);
    assert_eq!(Ask::viewer("another", 8).send(&renewd).status, 200);
}

#[test]
fn the_default_lets_a_subject_ask_20_times_from_rest() {
    let renewd = Renewd::start(&Settings::default());
    let statuses: Vec<_> = (0..20)
        .map(|_| Ask::viewer("viewer", 7).send(&renewd).status)
        .collect();
    assert_eq!(statuses, [200; 20]);
    // On a slow machine one or two requests came back meanwhile.
    let limited = (0..20).any(|_| Ask::viewer("viewer", 7).send(&renewd).status == 429);
    assert!(limited);
}

#[test]
fn a_channels_limit_holds_newcomers_back_and_no_holder() {
    let renewd = Renewd::start(&limits(
        r#"channel = { requests = 1, per = "1h", burst = 2 }"#,
    ));
    let ask = |subject, uid| in_channel("live_show", subject, uid);
    assert_eq!(ask("first", 1).send(&renewd).status, 200);
    assert_eq!(ask("second", 2).send(&renewd).status, 200);
    assert_eq!(ask("third", 3).send(&renewd).status, 429);
    // A request for a first token at the refresh path is limited too.
    assert_eq!(ask("third", 3).refresh().send(&renewd).status, 429);
    for _ in 0..5 {
        assert_eq!(ask("first", 1).send(&renewd).status, 200);
        assert_eq!(ask("second", 2).refresh().send(&renewd).status, 200);
    }
    // A holder of one role counts as a newcomer to the other.
    let publish = json!({"channelName": "live_show", "uid": 9, "role": "publisher"});
    assert_eq!(Ask::new("first", &publish).send(&renewd).status, 429);
    assert_eq!(
        in_channel("second_show", "third", 3).send(&renewd).status,
        200
    );
    let limited = |scope: &str| {
        counted(
            &renewd,
            &format!(r#"renewd_rate_limited_total{{scope="{scope}"}}"#),
        )
    };
    assert_eq!((limited("channel"), limited("global")), (3, 0));
}

#[test]
fn the_global_limit_holds_newcomers_back_in_every_channel() {
    let renewd = Renewd::start(&limits(
        r#"global = { requests = 1, per = "1h", burst = 1 }"#,
    ));
    assert_eq!(
        in_channel("live_show", "first", 1).send(&renewd).status,
        200
    );
    assert_eq!(
        in_channel("second_show", "second", 2).send(&renewd).status,
        429
    );
    for _ in 0..5 {
        assert_eq!(
            in_channel("live_show", "first", 1).send(&renewd).status,
            200
        );
    }
}

#[test]
fn what_one_limit_refuses_costs_nothing_at_the_others() {
    let renewd = Renewd::start(&limits(
        "subject = { requests = 1, per = \"1h\", burst = 3 }\nchannel = { requests = 1, per = \"1h\", burst = 1 }",
    ));
    assert_eq!(
        in_channel("live_show", "first", 1).send(&renewd).status,
        200
    );
    for _ in 0..10 {
        let refused = in_channel("live_show", "second", 2).send(&renewd);
        assert_eq!(number(&refused, "ratelimit-limit"), 1);
    }
    // Ten refusals later the subject has its three.
    assert_eq!(
        in_channel("second_show", "second", 2).send(&renewd).status,
        200
    );
    for _ in 0..2 {
        assert_eq!(
            in_channel("second_show", "second", 2).send(&renewd).status,
            200
        );
    }
    let spent = in_channel("second_show", "second", 2).send(&renewd);
    assert_eq!((spent.status, number(&spent, "ratelimit-limit")), (429, 3));
}

#[test]
fn a_changed_limit_applies_at_once_and_forgives_no_debt() {
    let of = |requests: u32, burst: u32| {
        limits(&format!(
            r#"subject = {{ requests = {requests}, per = "1h", burst = {burst} }}"#
        ))
    };
    let renewd = Renewd::start(&of(1, 3));
    let ask = || Ask::viewer("viewer", 7).send(&renewd);
    for _ in 0..3 {
        assert_eq!(ask().status, 200);
    }
    assert_eq!(ask().status, 429);
    reconfigure(&renewd, &of(1, 2));
    let limited = ask();
    assert_eq!(
        (limited.status, number(&limited, "ratelimit-limit")),
        (429, 2)
    );
    // A burst that is larger by two gives two more requests, not five.
    reconfigure(&renewd, &of(1, 5));
    assert_eq!([ask().status, ask().status, ask().status], [200, 200, 429]);
}

#[test]
fn the_keys_that_limits_remember_are_bounded_and_counted() {
    let renewd = Renewd::start(&limits(
        "max_keys = 3\nsubject = { requests = 1, per = \"1h\", burst = 2 }",
    ));
    let statuses: Vec<_> = (1..=6)
        .map(|uid| {
            Ask::viewer(&format!("viewer-{uid}"), uid)
                .send(&renewd)
                .status
        })
        .collect();
    // Three subjects have a bucket of their own, and two requests fit into the bucket for all others.
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429]);
    renewd.eventually("the gauges are renewed", |renewd| {
        counted(renewd, r#"renewd_rate_limit_keys{scope="subject"}"#) == 3
            && counted(
                renewd,
                r#"renewd_rate_limit_overflow_total{scope="subject"}"#,
            ) == 2
    });
    // A subject that was known before still has the rest of its requests.
    assert_eq!(Ask::viewer("viewer-1", 1).send(&renewd).status, 200);
}
