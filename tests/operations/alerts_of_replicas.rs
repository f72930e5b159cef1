//! Alerts about what replicas share, and about removals at Agora: a real Prometheus and the status page of a real daemon
//! say the same.

use std::time::Duration;

use serde_json::json;

use crate::prometheus::{Prometheus, agree};
use crate::support::agora_api::{AgoraApi, Reaction};
use crate::support::ejecting::{hold, revoke, settings};
use crate::support::moved_clock::MovedClock;
use crate::support::redis::Redis;
use crate::support::renewd::{Renewd, write_files};

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
    let gone = ["RenewdEjectionsFailing", "RenewdStoreLocal"];
    agree(&prometheus, &renewd, &gone);

    clock.forward(LONG);
    let stale = ["RenewdRevocationsStale"];
    agree(&prometheus, &renewd, &[&gone[..], &stale].concat());

    redis.restart();
    agree(&prometheus, &renewd, &["RenewdEjectionsFailing"]);
}
