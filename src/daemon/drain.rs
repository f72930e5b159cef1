//! Stopping: readiness ends first, then accepting, then tunnels, then all connections.
//!
//! Keeps true: finite requests get `drain_timeout`; a second signal ends the waiting; no connection is closed before
//! its stage.
//! Must not know: how a worker ends a connection.

use tokio::time::timeout;

use super::signals::{Request, Signals};
use super::systemd::Notifier;
use super::{FLUSH, LAST_BATCH};
use crate::server::worker::Workers;
use crate::snapshot::Shared;
use crate::terms::readiness::Phase;

/// Goes through the stages until every connection is over, time is up, or a second signal comes.
pub(crate) async fn drain(
    shared: &Shared,
    notifier: &Notifier,
    workers: &Workers,
    signals: &mut Signals,
) {
    let server = shared.current.load().config.server.clone();
    shared.readiness.advance(Phase::Draining);
    notifier.stopping(
        server.shutdown_delay + server.drain_timeout + FLUSH * 2 + LAST_BATCH,
        "draining",
    );
    tracing::info!(
        connections = workers.connections(),
        "stopping after the requests in flight are finished"
    );
    let told_again = async { while signals.next().await != Request::TerminateNow {} };
    let stages = async {
        tokio::time::sleep(server.shutdown_delay).await;
        workers.begin_drain();
        let endless = async {
            tokio::time::sleep(server.tunnel_drain_timeout).await;
            workers.end_tunnels();
            std::future::pending::<()>().await;
        };
        let finite = timeout(server.drain_timeout, workers.drained());
        tokio::select! {
            finished = finite => if finished.is_err() {
                let connections = workers.connections();
                tracing::warn!(connections, "server.drain_timeout is over; closing the remaining connections");
            },
            () = endless => {}
        }
    };
    tokio::select! {
        () = stages => {}
        () = told_again => {
            let connections = workers.connections();
            tracing::warn!(connections, "second signal to stop; closing the remaining connections");
        }
    }
}
