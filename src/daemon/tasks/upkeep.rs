//! Housekeeping on the control plane: sweeps in slices, and gauges.
//!
//! Keeps true: no step holds a lock for long; serving requests doesn't depend on it.
//! Must not know: what is done with a gauge or a lapse.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::lapses;
use crate::daemon::source_states;
use crate::daemon::source_states::source_states;
use crate::decision;
use crate::snapshot::Shared;
use crate::sources::streams::StreamSource;
use crate::terms::clock::is_plausible;
use crate::terms::outcome::Scope;
use crate::terms::role::Role;

/// How often a slice of each table is swept.
const SLICE: Duration = Duration::from_millis(100);

/// Gauges are set every so many slices: once a second.
const SLICES_A_SECOND: usize = 10;

/// How often, in seconds, gauges are set that need a look at each session.
const SECONDS_A_COUNT: usize = 5;

/// Runs until the runtime ends.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut turns = interval(SLICE);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut turn = 0_usize;
    let lapses = lapses::start(Arc::clone(&shared));
    let mut was_plausible = true;
    loop {
        let _tick: Instant = turns.tick().await;
        turn = turn.wrapping_add(1);
        let snapshot = shared.current.load_full();
        // An implausible time of day must not end sessions.
        let now = shared.clock.unix_seconds();
        let plausible = is_plausible(now);
        if plausible {
            lapses.add(snapshot.sessions.sweep(turn, now));
            snapshot.revocations.sweep(now);
        }
        if plausible != was_plausible {
            was_plausible = plausible;
            report_clock(plausible);
        }
        snapshot.limiter.sweep_slice();
        if let StreamSource::Asked(lookups) = snapshot.streams.source() {
            lookups.sweep(turn);
        }
        if let Some(lookups) = snapshot.accounts.lookups() {
            lookups.sweep(turn);
        }
        if !turn.is_multiple_of(SLICES_A_SECOND) {
            continue;
        }
        if let Some(key_set) = snapshot.verifier.key_set() {
            key_set.keep_fresh();
        }
        source_states::export(&source_states(&snapshot, &shared.clock), &shared.metrics);
        if turn.is_multiple_of(SLICES_A_SECOND * SECONDS_A_COUNT) {
            let draining = decision::draining_publishers(&snapshot, now);
            shared.metrics.draining_publishers(draining);
        }
        shared.metrics.revocations(snapshot.revocations.len());
        let age = snapshot.revocations.age(shared.clock.elapsed());
        shared.metrics.revocation_store_age(age);
        for role in Role::ALL {
            shared.metrics.sessions(role, snapshot.sessions.count(role));
        }
        for scope in Scope::ALL {
            shared
                .metrics
                .rate_limit_keys(scope, snapshot.limiter.keys(scope));
            shared
                .metrics
                .rate_limit_overflow(scope, snapshot.limiter.overflow(scope));
        }
        shared.metrics.sockets(&shared.sockets);
        shared.metrics.upkeep();
    }
}

fn report_clock(plausible: bool) {
    if plausible {
        tracing::info!("the system's clock is set; tokens are issued again");
    } else {
        tracing::error!(
            "the system's clock reads a time before 2020 or after 2100; no tokens are issued until it is set"
        );
    }
}
