//! Stopping: readiness ends first, then accepting, then tunnels, then all connections.
//!
//! Keeps true: finite requests get `drain_timeout`; a second signal ends the waiting; no connection is closed before
//! its stage; a shared store that is silent is waited for no longer than a request would wait, and one that is down not
//! at all.
//! Must not know: how a worker ends a connection.

use std::time::Duration;

use tokio::time::timeout;

use super::signals::{Request, Signals};
use super::systemd::Notifier;
use super::tasks::finishing::FinishingTask;
use super::{FLUSH, LAST_BATCH};
use crate::server::worker::Workers;
use crate::snapshot::Shared;
use crate::terms::readiness::Phase;

/// How long the last sessions may take to be given to a shared store that answers: some hundred exchanges.
const LAST_SHARE: Duration = Duration::from_secs(1);

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
        server.shutdown_delay
            + server.drain_timeout
            + FLUSH * 2
            + LAST_BATCH.max(last_share(shared)),
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

/// Writes down the last sessions.
pub(crate) async fn write_last(journal: Option<FinishingTask>) {
    if let Some(journal) = journal
        && !journal.finish(LAST_BATCH).await
    {
        tracing::error!("writing the last sessions to the state directory takes too long");
    }
}

/// Gives the other replicas the last sessions and revocations. The tasks end by themselves where the store is down or
/// an answer is late.
pub(crate) async fn share_last(sharing: Vec<FinishingTask>, shared: &Shared) {
    let deadline = last_share(shared);
    let finishing = sharing
        .into_iter()
        .map(|task| tokio::spawn(task.finish(deadline)));
    for finished in finishing.collect::<Vec<_>>() {
        if !finished.await.unwrap_or(false) {
            tracing::warn!(
                "giving the last changes to the other replicas takes too long; they get them after the restart"
            );
        }
    }
}

/// The longest that the last changes may take to be given to the shared store.
fn last_share(shared: &Shared) -> Duration {
    let snapshot = shared.current.load();
    let redis = snapshot.config.redis.as_ref();
    redis.map_or(Duration::ZERO, |redis| redis.timeout.max(LAST_SHARE))
}
