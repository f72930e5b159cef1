//! Limits that several daemons share: together they let through what one alone would.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::ask::{Ask, counted, reconfigure};
use crate::support::lifecycle::replace_file;
use crate::support::ports::free;
use crate::support::raw::Response;
use crate::support::redis::{LOG_ALL, Redis};
use crate::support::renewd::{Renewd, Settings, configuration};

/// The longest that may be set, which a busy machine does not reach: a late answer would make each daemon decide alone.
pub const TIMEOUT: &str = "timeout = \"10s\"";

/// These limits, over this server; `redis` are further lines of `[redis]`.
pub fn over(url: &str, redis: &str, limits: &str) -> Settings {
    Settings {
        tables: format!(
            "[redis]\nurl = \"{url}\"\n{redis}\n[rate_limit]\n{limits}\n[policy]\nbind_uid = false\n"
        ),
        ..Settings::default()
    }
}

/// A limit that gives one back every ten minutes.
pub fn burst(scope: &str, burst: u32) -> String {
    format!("{scope} = {{ requests = 6, per = \"1h\", burst = {burst} }}\n")
}

pub fn number(answer: &Response, name: &str) -> u64 {
    answer.header(name).unwrap().parse().unwrap()
}

/// How many of a subject's requests are let through before the first refusal, in turn by all of them.
pub fn passing(replicas: &[&Renewd], subject: &str) -> usize {
    let turns = replicas.iter().cycle().take(1000);
    let asked = turns.map(|renewd| Ask::viewer(subject, 7).send(renewd).status);
    asked.take_while(|status| *status == 200).count()
}

#[test]
fn two_and_three_daemons_let_through_what_one_would() {
    let redis = Redis::start();
    let settings = over(&redis.url(), TIMEOUT, &burst("subject", 12));
    let replicas = [(); 3].map(|()| Renewd::start(&settings));
    let [first, second, third] = &replicas;
    assert_eq!(passing(&[first, second], "both"), 12);
    assert_eq!(passing(&[first, second, third], "all"), 12);
    let limited = replicas
        .each_ref()
        .map(|renewd| Ask::viewer("all", 7).send(renewd));
    for answer in limited {
        assert_eq!(answer.status, 429);
        assert_eq!(answer.json()["code"], "rate_limited");
        assert_eq!(number(&answer, "ratelimit-limit"), 12);
        assert_eq!(number(&answer, "ratelimit-remaining"), 0);
        assert!((540..=600).contains(&number(&answer, "retry-after")));
        let reset = number(&answer, "ratelimit-reset");
        assert!((7140..=7200).contains(&reset), "{reset}");
    }
    assert_eq!(passing(&[third], "another"), 12);
    for renewd in &replicas {
        assert_eq!(counted(renewd, r#"renewd_store_mode{mode="shared"}"#), 1);
        assert_eq!(counted(renewd, r#"renewd_store_mode{mode="local"}"#), 0);
        assert_eq!(counted(renewd, r#"renewd_source_up{source="redis"}"#), 1);
    }
    let answered = r#"renewd_source_lookups_total{source="redis",outcome="miss"}"#;
    assert_eq!(counted(second, answered), 6 + 4 + 1);
}

#[test]
fn daemons_that_are_asked_at_once_share_a_rate_too() {
    let redis = Redis::start();
    let limit = "subject = \"off\"\nglobal = { requests = 60, per = \"1h\", burst = 40 }\n";
    let settings = over(&redis.url(), TIMEOUT, limit);
    let replicas = [Renewd::start(&settings), Renewd::start(&settings)];
    let through: usize = std::thread::scope(|scope| {
        let asking = (0..4_u32).map(|client| {
            let renewd = &replicas[client as usize % 2];
            scope.spawn(move || {
                let mut connection = renewd.client();
                let asked = (0..40).map(|turn| {
                    let uid = client * 100 + turn + 1;
                    let ask = Ask::viewer(&format!("viewer-{uid}"), uid);
                    ask.send_on(&mut connection).status
                });
                asked.filter(|status| *status == 200).count()
            })
        });
        let asking: Vec<_> = asking.collect();
        asking
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum()
    });
    // One comes back each minute.
    assert!((40..=41).contains(&through), "{through}");
}

#[test]
fn a_decision_is_one_script_and_a_refusal_charges_nothing() {
    let redis = Redis::with(&LOG_ALL);
    let limits = burst("subject", 3) + &burst("channel", 4) + &burst("global", 100);
    let renewd = Renewd::start(&over(&redis.url(), TIMEOUT, &limits));
    let ask = |subject: &str, uid| Ask::viewer(subject, uid).send(&renewd);
    assert_eq!(ask("first", 1).status, 200);
    let scripts = || redis.scripts_on("{shared}:limits:subject:");
    let before = scripts();
    assert_eq!(ask("second", 2).status, 200);
    assert_eq!(ask("third", 3).status, 200);
    assert_eq!(ask("fourth", 4).status, 200);
    let fifth = ask("fifth", 5);
    assert_eq!((fifth.status, number(&fifth, "ratelimit-limit")), (429, 4));
    assert_eq!(scripts() - before, 4);
    let keys: BTreeSet<String> = redis.keys().into_iter().collect();
    let of = |name: &str| format!("renewd:{{shared}}:limits:{name}");
    assert!(keys.contains(&of("subject:first")), "{keys:?}");
    assert!(keys.contains(&of("channel:live_show")) && keys.contains(&of("global")));
    assert!(
        !keys.contains(&of("subject:fifth")),
        "a refusal was charged"
    );
    let left: i64 =
        redis::from_redis_value(redis.run(&format!("PTTL {}", of("subject:first")))).unwrap();
    // A day longer than it is owed.
    assert!((540_000..=600_000).contains(&(left - 86_400_000)), "{left}");
    // Holders renew, whatever newcomers are told; their own limit counts.
    assert_eq!([ask("first", 1).status, ask("first", 1).status], [200, 200]);
    let spent = ask("first", 1);
    assert_eq!((spent.status, number(&spent, "ratelimit-limit")), (429, 3));
}

#[test]
fn names_of_any_length_make_short_keys() {
    let redis = Redis::start();
    let renewd = Renewd::start(&over(
        &redis.url(),
        &format!("prefix = \"site-1:\"\n{TIMEOUT}"),
        &burst("subject", 2),
    ));
    let long = "x".repeat(200);
    assert_eq!(passing(&[&renewd], &long), 2);
    assert_eq!(passing(&[&renewd], &(long + "y")), 2);
    for key in redis.keys() {
        assert!(key.starts_with("site-1:{") && key.len() < 120, "{key}");
    }
}

#[test]
fn a_changed_limit_forgives_no_debt_on_any_daemon() {
    let redis = Redis::start();
    let of = |requests: u32, burst: u32| {
        let limit =
            format!(r#"subject = {{ requests = {requests}, per = "1h", burst = {burst} }}"#);
        over(&redis.url(), TIMEOUT, &limit)
    };
    let renewd = Renewd::start(&of(1, 3));
    let other = Renewd::start(&of(1, 3));
    assert_eq!(passing(&[&renewd, &other], "viewer"), 3);
    for replica in [&renewd, &other] {
        reconfigure(replica, &of(1, 5));
    }
    // Two more than before is two more, not five.
    assert_eq!(passing(&[&other, &renewd], "viewer"), 2);
    // Each of the five owed costs a minute now, no longer an hour.
    reconfigure(&other, &of(60, 5));
    let limited = Ask::viewer("viewer", 7).send(&other);
    assert_eq!(limited.status, 429);
    assert!((1..=60).contains(&number(&limited, "retry-after")));
    // No key owes more than the whole capacity.
    reconfigure(&renewd, &of(60, 2));
    let limited = Ask::viewer("viewer", 7).send(&renewd);
    assert_eq!(
        (limited.status, number(&limited, "ratelimit-limit")),
        (429, 2)
    );
    assert!((50..=60).contains(&number(&limited, "retry-after")));
}

#[test]
fn what_only_observes_charges_nothing_and_explain_says_whose_limits_they_are() {
    let redis = Redis::start();
    let limits = burst("subject", 2);
    let observing = over(&redis.url(), TIMEOUT, &limits);
    let observing = Settings {
        tables: observing.tables + "[decision]\nmode = \"observe\"\n",
        ..observing
    };
    let renewd = Renewd::start(&observing);
    for _ in 0..5 {
        let _ = Ask::viewer("viewer", 7).send(&renewd);
    }
    let enforcing = Renewd::start(&over(&redis.url(), TIMEOUT, &limits));
    let explain = || {
        let target = "/v1/explain?subject=viewer&channel=live_show&role=subscriber&uid=7";
        let answer = enforcing.ask_admin("GET", target, "").json();
        let steps = answer["steps"].as_array().unwrap().clone();
        let found = steps.into_iter().find(|step| step["step"] == "limits");
        found.unwrap_or_else(|| panic!("{answer}"))
    };
    let free = explain();
    assert_eq!(
        (&free["verdict"], &free["source"]),
        (&json!("passes"), &json!("redis"))
    );
    assert_eq!(passing(&[&enforcing], "viewer"), 2);
    let spent = explain();
    assert_eq!(spent["verdict"], "refuses", "{spent}");
    assert!(spent["detail"].as_str().unwrap().contains("subject limit"));
}

#[test]
fn another_store_waits_for_a_restart_and_is_named() {
    let redis = Redis::start();
    let renewd = Renewd::start(&over(&redis.url(), TIMEOUT, &burst("subject", 3)));
    let elsewhere = over(
        &format!("redis://{}", free()),
        TIMEOUT,
        &burst("subject", 4),
    );
    replace_file(&renewd.file("config.toml"), &configuration(&elsewhere));
    let report = renewd.reload().json();
    assert_eq!(report["restart_required"], json!(["redis"]), "{report}");
    assert_eq!(counted(&renewd, "renewd_config_restart_required"), 1);
    // The limit counts, in the store that was.
    assert_eq!(passing(&[&renewd], "viewer"), 4);
    assert!(
        redis
            .keys()
            .contains(&"renewd:{shared}:limits:subject:viewer".to_owned())
    );
}
