//! Housekeeping on the control plane: sweeps in slices, and gauges.
//!
//! Keeps true: no step holds a lock for long; nothing here is needed for a request to be served.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::lapses;
use crate::access::streams::StreamSource;
use crate::role::Role;
use crate::snapshot::Shared;
use crate::telemetry::labels::Scope;

/// A slice of each table is swept this often.
const SLICE: Duration = Duration::from_millis(100);

/// Gauges are renewed every so many slices: once a second.
const SLICES_A_SECOND: usize = 10;

/// Runs until the runtime ends.
pub async fn run(shared: Arc<Shared>) {
    let mut turns = interval(SLICE);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut turn = 0_usize;
    let lapses = lapses::start(Arc::clone(&shared));
    loop {
        let _tick: Instant = turns.tick().await;
        turn = turn.wrapping_add(1);
        let snapshot = shared.current.load_full();
        lapses.add(snapshot.sessions.sweep(turn, shared.clock.unix_seconds()));
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
        shared.metrics.upkeep();
    }
}
