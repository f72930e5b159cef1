//! Shares the revocations with the other replicas, through the store.
//!
//! Keeps true: a change made here is given to the store at once, and again until it has it; a change made elsewhere is
//! in force here within [`POLL`] of its arrival there, and is written to this replica's own state directory; after a
//! gap, however long, every change is caught up with; a store that has lost its set is given all that is known here;
//! at a stop it is given what it doesn't have yet, if it answers; users whom this replica has had removed from channels
//! come back when their revocation is lifted elsewhere.
//! Must not know: how the store keeps a record.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::finishing::FinishingTask;
use super::revocation_journal::RevocationLog;
use crate::daemon::ejecting::Ejector;
use crate::revocation;
use crate::revocation::{RevocationRecord, Revocations};
use crate::snapshot::Shared;
use crate::store::{MOST_AT_ONCE, SetChanges, SetVersion, Store};

/// How often the store is asked for changes.
const POLL: Duration = Duration::from_millis(250);

/// Gives changes made here to the other replicas.
#[derive(Clone, Debug)]
pub(crate) struct RevocationShare(Option<mpsc::UnboundedSender<RevocationRecord>>);

impl RevocationShare {
    /// Starts sharing where there is a store, on the control plane.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        log: RevocationLog,
        ejector: Ejector,
    ) -> (Self, Option<FinishingTask>) {
        let snapshot = shared.current.load();
        let Some(store) = snapshot.store.clone() else {
            return (Self(None), None);
        };
        let (sender, changes) = mpsc::unbounded_channel();
        let sharing = RevocationSharing {
            shared: Arc::clone(shared),
            revocations: Arc::clone(&snapshot.revocations),
            store,
            log,
            ejector,
            read: SetVersion::default(),
            to_give: VecDeque::new(),
        };
        sharing.revocations.heard(shared.clock.elapsed());
        let task = FinishingTask::start(|stopped| run(sharing, changes, stopped));
        (Self(Some(sender)), Some(task))
    }

    /// Gives a change that was made here. Never waits.
    pub(crate) fn give(&self, record: RevocationRecord) {
        if let Some(sender) = &self.0 {
            // The task lives as long as the runtime.
            let _ = sender.send(record);
        }
    }
}

struct RevocationSharing {
    shared: Arc<Shared>,
    revocations: Arc<Revocations>,
    store: Arc<Store>,
    log: RevocationLog,
    ejector: Ejector,
    read: SetVersion,
    to_give: VecDeque<RevocationRecord>,
}

async fn run(
    mut sharing: RevocationSharing,
    mut changes: mpsc::UnboundedReceiver<RevocationRecord>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut is_last = false;
    loop {
        let is_behind = sharing.turn().await;
        if !is_behind && is_last {
            return;
        }
        if !is_behind {
            tokio::select! {
                _ = &mut stopped => is_last = true,
                change = changes.recv() => match change {
                    Some(change) => sharing.to_give.push_back(change),
                    None => is_last = true,
                },
                () = sleep(POLL) => {}
            }
        }
        while let Ok(change) = changes.try_recv() {
            sharing.to_give.push_back(change);
        }
        if sharing.to_give.len() > revocation::MOST {
            // Most of them are over by now.
            sharing.give_everything();
        }
    }
}

impl RevocationSharing {
    /// One exchange with the store; whether another one is due at once.
    async fn turn(&mut self) -> bool {
        let given: Vec<_> = self.to_give.iter().take(MOST_AT_ONCE).cloned().collect();
        let exchange = self.store.exchange_revocations(&self.read, &given);
        let Ok(changes) = exchange.await else {
            if !self.store.is_starting() {
                // What is known here has to do for now.
                self.revocations.expect_no_others();
            }
            return false;
        };
        self.to_give.drain(..given.len());
        let is_new_set = changes.version.epoch != self.read.epoch;
        let is_read = !changes.more;
        self.apply(changes);
        if is_new_set {
            self.give_everything();
        } else if is_read {
            self.revocations.heard(self.shared.clock.elapsed());
            self.revocations.expect_no_others();
        }
        !is_read || is_new_set || !self.to_give.is_empty()
    }

    /// Puts in force what came, and has it written down.
    fn apply(&mut self, changes: SetChanges) {
        self.read = changes.version;
        let (mut news, mut lifted) = (Vec::new(), Vec::new());
        for record in changes.records {
            let is_news = match &record {
                RevocationRecord::Made(revocation) => {
                    let added = self.revocations.add(revocation.clone());
                    added.unwrap_or_else(|full| {
                        tracing::error!(%full, "a revocation of another replica is not in force here");
                        false
                    })
                }
                RevocationRecord::Lifted { id, until } => {
                    let was_lifted = self.revocations.is_lifted(*id);
                    self.revocations.apply_lift(*id, *until);
                    if !was_lifted {
                        lifted.push(*id);
                    }
                    !was_lifted
                }
                // A build that doesn't know what it refuses can't apply it, and the store keeps it.
                RevocationRecord::Later(_) => false,
            };
            if is_news {
                news.push(record);
            }
        }
        if news.is_empty() {
            return;
        }
        tracing::debug!(records = news.len(), "revocations came from other replicas");
        let (log, ejector) = (self.log.clone(), self.ejector.clone());
        // A task of its own: a disk that hangs must not keep what comes next from being in force.
        tokio::spawn(async move {
            // What can't be written is tried again by the journal.
            let _ = log.write_all(news).await;
            for id in lifted {
                let _ = ejector.lift(id).await;
            }
        });
    }

    fn give_everything(&mut self) {
        let now = self.shared.clock.plausible_seconds();
        self.to_give = self.revocations.records(now).into();
    }
}
