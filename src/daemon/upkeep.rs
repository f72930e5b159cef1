//! Housekeeping on the control plane: sweeps in slices, gauges, and the look after a backend that went away.
//!
//! Keeps true: no step holds a lock for long; nothing here is needed for a request to be served.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::config::model::UpstreamServer;
use crate::role::Role;
use crate::snapshot::Shared;
use crate::telemetry::labels::Scope;

/// A slice of each table is swept this often.
const SLICE: Duration = Duration::from_millis(100);

/// Gauges are renewed, and a backend that went away is tried, every so many slices: once a second.
const SLICES_A_SECOND: usize = 10;

/// Runs until the runtime ends.
pub async fn run(shared: Arc<Shared>) {
    let mut turns = interval(SLICE);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut turn = 0_usize;
    loop {
        let _tick: Instant = turns.tick().await;
        turn = turn.wrapping_add(1);
        let snapshot = shared.current.load_full();
        snapshot.sessions.sweep(turn, shared.clock.unix_seconds());
        snapshot.limiter.sweep_slice();
        if !turn.is_multiple_of(SLICES_A_SECOND) {
            continue;
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
        for upstream in &snapshot.upstreams {
            // A server that a reload brought in begins as up, whatever is known.
            upstream.up(shared.readiness.upstream_reachable());
        }
        if !shared.readiness.upstream_reachable() {
            // Without traffic nothing else would notice that it is back, and a load balancer sends none.
            let upstream = &snapshot.config.upstream;
            if let Some(server) = upstream.servers.first()
                && answers(server, upstream.connect_timeout).await
                && shared.readiness.upstream(true)
            {
                snapshot.upstream_changed(true);
            }
        }
    }
}

async fn answers(server: &UpstreamServer, deadline: Duration) -> bool {
    let connecting = TcpStream::connect((server.host.as_str(), server.port));
    matches!(timeout(deadline, connecting).await, Ok(Ok(_connected)))
}
