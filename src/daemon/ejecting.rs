//! Plans the ejections of a revocation, takes them back, and says how far they are.
//!
//! Keeps true: what is planned is written before the revocation is answered.
//! Must not know: when and how a rule is asked for.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::state::DaemonState;
use super::tasks::change_journal::Durability;
use super::tasks::ejection_journal::{self, EjectionLog};
use super::tasks::ejection_requests::{self, EjectionSender};
use crate::admin::EjectionStatus;
use crate::ejection::backoff::Backoff;
use crate::ejection::{EjectionTarget, Ejections, MOST};
use crate::revocation::{Revocation, RevocationId};
use crate::sessions::Held;
use crate::snapshot::Shared;
use crate::telemetry::traffic_labels::EjectionOutcome;
use crate::terms::role::Role;
use crate::terms::user::User;

/// Plans ejections.
#[derive(Clone, Debug)]
pub(crate) struct Ejector {
    shared: Arc<Shared>,
    ejections: Arc<Ejections>,
    log: EjectionLog,
    wake: Arc<Notify>,
}

/// The tokens that a revocation covers, as far as rules can be made for them.
#[derive(Debug, Default)]
pub(crate) struct CoveredTokens {
    publishers: Vec<EjectionTarget>,
    subscribers: Vec<EjectionTarget>,
    not_possible: u64,
}

impl CoveredTokens {
    /// Takes a token in. Those beyond [`MOST`] of a role would wait too long.
    pub(crate) fn add(&mut self, held: &Held) {
        let User::Uid(uid @ 1..) = held.user else {
            self.not_possible += 1;
            return;
        };
        let targets = match held.role {
            Role::Publisher => &mut self.publishers,
            Role::Subscriber => &mut self.subscribers,
        };
        // One more than there is room for shows that there are more.
        if targets.len() <= MOST {
            targets.push(EjectionTarget {
                channel: held.channel.as_str().into(),
                subject: held.subject.as_str().into(),
                uid,
                role: held.role,
                expires: held.expires,
            });
        }
    }
}

impl CoveredTokens {
    /// The publishers' first.
    fn targets(self) -> Vec<EjectionTarget> {
        let mut targets = self.publishers;
        targets.extend(self.subscribers);
        targets
    }
}

impl Ejector {
    /// Restores the ejections of the last process, and starts the tasks that write them down and act on them. Blocks
    /// on file IO: call it before the first request is served, and after the revocations are restored.
    pub(crate) fn start(state: &Arc<DaemonState>, shared: &Arc<Shared>) -> Self {
        let ejections = Arc::default();
        let ejector = Self {
            log: ejection_journal::start(state, shared, &ejections),
            shared: Arc::clone(shared),
            ejections,
            wake: Arc::default(),
        };
        tokio::spawn(ejection_requests::run(EjectionSender {
            shared: Arc::clone(shared),
            ejections: Arc::clone(&ejector.ejections),
            log: ejector.log.clone(),
            wake: Arc::clone(&ejector.wake),
            backoff: Mutex::new(Backoff::default()),
        }));
        ejector
    }

    /// Plans the ejections of a revocation that is in force. Gives whether they are written, if they have to be.
    pub(crate) async fn plan(
        &self,
        revocation: &Revocation,
        covered: CoveredTokens,
    ) -> Result<Durability, String> {
        if !self.is_configured() {
            return Ok(Durability::Synced);
        }
        let not_possible = covered.not_possible;
        let records = self.ejections.add(
            revocation.id,
            revocation.until,
            &self.shared.current.load().config.agora.app_id,
            covered.targets(),
            not_possible,
        );
        let tally = self.ejections.tally(revocation.id).unwrap_or_default();
        let metrics = &self.shared.metrics;
        metrics.ejections(EjectionOutcome::NotPossible, not_possible);
        metrics.ejections(EjectionOutcome::Failed, tally.failed);
        let written = self.log.write_all(records).await;
        // The revocation may have been lifted as soon as it was in force.
        let snapshot = self.shared.current.load_full();
        if snapshot.revocations.get(revocation.id).is_none() {
            return self.lift(revocation.id).await;
        }
        self.wake.notify_one();
        written
    }

    /// Plans the ejections of tokens that became known after the revocation was made.
    pub(crate) async fn plan_late(&self, revocation: &Revocation, covered: CoveredTokens) {
        let records = self.ejections.add_late(
            revocation.id,
            revocation.until,
            &self.shared.current.load().config.agora.app_id,
            covered.targets(),
        );
        if !records.is_empty() {
            // The task that writes reports an error, and tries again.
            let _ = self.log.write_all(records).await;
            self.wake.notify_one();
        }
    }

    /// Whether there is `[agora.rest]`.
    pub(crate) fn is_configured(&self) -> bool {
        self.shared.current.load().config.agora.rest.is_some()
    }

    /// Takes back the ejections of a revocation that was lifted. Gives whether that is written, where it has to be.
    pub(crate) async fn lift(&self, revocation: RevocationId) -> Result<Durability, String> {
        let records = self.ejections.lift(revocation);
        if records.is_empty() {
            return Ok(Durability::Synced);
        }
        let written = self.log.write_all(records).await;
        self.wake.notify_one();
        written
    }

    /// How far the ejections of a revocation are; `None` where this process has planned none.
    pub(crate) fn status(&self, revocation: RevocationId) -> Option<EjectionStatus> {
        let tally = self.ejections.tally(revocation)?;
        Some(EjectionStatus {
            pending: tally.pending,
            done: tally.done,
            failed: tally.failed,
            not_possible: tally.not_possible,
            dropped: tally.dropped,
            error: tally.error.map(String::from),
        })
    }
}
