//! Keeps ejections over a restart.
//!
//! Keeps true: by an implausible time of day nothing is given up.
//! Must not know: what is sent to Agora, and when.

use std::sync::Arc;

use super::change_journal::{ChangeJournal, ChangeLog, Kept};
use crate::daemon::state::{DaemonState, StatePart};
use crate::ejection::{EjectionRecord, Ejections};
use crate::snapshot::Shared;

/// Writes changes of the ejections.
pub(crate) type EjectionLog = ChangeLog<EjectionRecord>;

/// The ejections that the journal keeps.
#[derive(Debug)]
struct KeptEjections {
    ejections: Arc<Ejections>,
    shared: Arc<Shared>,
    /// Whether the revocations that the ejections belong to are restored.
    knows_revocations: bool,
}

/// Restores what the last process wrote, after the revocations are restored, and starts the task that writes changes.
/// Blocks on file IO: call it before the first request is served.
pub(crate) fn start(
    state: &Arc<DaemonState>,
    shared: &Arc<Shared>,
    ejections: &Arc<Ejections>,
) -> EjectionLog {
    let kept = KeptEjections {
        ejections: Arc::clone(ejections),
        shared: Arc::clone(shared),
        // A directory that can't be opened now gives back its revocations and its ejections in either order.
        knows_revocations: state.directory().is_some(),
    };
    ChangeJournal::load(state, kept).start()
}

impl Kept for KeptEjections {
    type Record = EjectionRecord;
    const PART: StatePart = StatePart::Ejections;
    const NAME: &'static str = "ejections";

    fn encode(record: &EjectionRecord) -> Vec<u8> {
        record.encode()
    }

    fn decode(bytes: &[u8]) -> Option<EjectionRecord> {
        EjectionRecord::decode(bytes)
    }

    fn is_later(record: &EjectionRecord) -> bool {
        matches!(record, EjectionRecord::Later(_))
    }

    fn put_back(&mut self, records: Vec<EjectionRecord>) {
        let now = self.shared.clock.plausible_seconds();
        let revocations = &self.shared.current.load().revocations;
        // A crash may have come between the lifting of a revocation and that of its ejections.
        let is_in_force = |id| !self.knows_revocations || revocations.get(id).is_some();
        self.ejections.restore(records, now, is_in_force);
    }

    fn everything(&self) -> Vec<EjectionRecord> {
        self.ejections.records()
    }
}
