//! Alerts about what replicas share, and about removals at Agora: a real Prometheus and the status page of a real
//! daemon say the same.

use std::time::Duration;

use serde_json::json;

use crate::prometheus::{Prometheus, agree, expired_session, leave};
use crate::support::agora_api::{AgoraApi, Reaction};
use crate::support::ejecting::{hold, revoke, settings};
use crate::support::moved_clock::MovedClock;
use crate::support::redis::Redis;
use crate::support::renewd::{Renewd, STREAMS, Settings, now, private_file, write_files};
use renewd::terms::role::Role;

/// Above five minutes, of which the rule tells.
const LONG: Duration = Duration::from_secs(301);

#[test]
fn a_store_that_is_gone_and_removals_that_fail_are_alerted_and_shown_alike() {
    let (mut redis, agora, clock) = (Redis::start(), AgoraApi::start(), MovedClock::new());
    agora.usually(Reaction::Fail(401, ""));
    let directory = tempfile::tempdir().unwrap();
    let tables = format!("[redis]\nurl = \"{}\"\n{}", redis.url(), agora.table());
    write_files(directory.path(), &settings(tables));
    let renewd = Renewd::start_in(directory, &[], |command| {
        agora.is_trusted_by(command);
        clock.is_used_by(command);
    });
    let prometheus = Prometheus::start(renewd.admin);
    // `increase` needs to have seen the counters before they grow.
    prometheus.scraped(2);
    agree(&prometheus, &renewd, &[]);

    hold(&renewd, "ann", "live_show", 7);
    revoke(&renewd, &json!({"subject": "ann"}));
    agree(&prometheus, &renewd, &["RenewdEjectionsFailing"]);

    redis.kill();
    agree(
        &prometheus,
        &renewd,
        &["RenewdEjectionsFailing", "RenewdStoreLocal"],
    );

    clock.forward(LONG);
    agree(
        &prometheus,
        &renewd,
        &[
            "RenewdEjectionsFailing",
            "RenewdRevocationsStale",
            "RenewdStoreLocal",
        ],
    );

    redis.restart();
    agree(&prometheus, &renewd, &["RenewdEjectionsFailing"]);
}

#[test]
fn viewers_whom_replicas_lose_are_alerted_for_all_of_them_together() {
    let redis = Redis::start();
    let settings = Settings {
        tables: format!("[redis]\nurl = \"{}\"\n", redis.url()),
        ..Settings::default()
    };
    // The sessions ran out 70 s ago: at 90 s they are lost. Nine are too few for an alert, whoever has them.
    let expired = u32::try_from(now() - 70).unwrap();
    let replicas = [1..=9, 11..=19].map(|uids| {
        let directory = tempfile::tempdir().unwrap();
        write_files(directory.path(), &settings);
        std::fs::remove_file(directory.path().join("streams.toml")).unwrap();
        let refused = uids.map(|uid| expired_session(expired, Role::Subscriber, uid, true));
        leave(&directory.path().join("state"), refused);
        Renewd::start_in(directory, &[], |_| {})
    });
    let prometheus = Prometheus::start_for(&replicas.each_ref().map(|renewd| renewd.admin));
    // `increase` needs to have seen the counters before they grow. Until the source says that the stream goes on,
    // nothing is counted.
    prometheus.scraped(2);
    for renewd in &replicas {
        private_file(&renewd.file("streams.toml"), STREAMS);
    }
    let lost = "renewd_token_lapses_total{role=\"subscriber\",cause=\"refused\"}";
    replicas[0].eventually("each viewer is counted once", |_| {
        let counted = replicas.each_ref().map(|renewd| renewd.whole(lost));
        counted.iter().sum::<u64>() == 18
    });
    let labels = prometheus.wait("alerts", "the viewers", |data| {
        let alerts = data["alerts"].as_array()?;
        let of_viewers = alerts.iter().find(|alert| {
            alert["labels"]["alertname"] == "RenewdViewersLapseRefused"
                && alert["state"] == "firing"
        });
        Some(of_viewers?["labels"].clone())
    });
    assert_eq!(labels["job"], "renewd", "{labels}");
    assert!(labels["instance"].is_null(), "{labels}");
}
