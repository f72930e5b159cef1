//! Keeps revocations over a restart.
//!
//! Keeps true: a revocation that was lifted stays lifted, whatever the order of the records.
//! Must not know: who revokes, what a revocation refuses.

use std::sync::Arc;

use super::change_journal::{ChangeJournal, ChangeLog, Kept};
use crate::daemon::state::{DaemonState, StatePart};
use crate::revocation::{RevocationRecord, Revocations};
use crate::snapshot::Shared;
use crate::terms::clock::Clock;

/// Writes changes of the revocations.
pub(crate) type RevocationLog = ChangeLog<RevocationRecord>;

/// The revocations that the journal keeps.
#[derive(Debug)]
struct KeptRevocations {
    revocations: Arc<Revocations>,
    clock: Clock,
}

/// Restores what the last process wrote, and starts the task that writes changes. Blocks on file IO: call it before the
/// first request is served.
pub(crate) fn start(state: &Arc<DaemonState>, shared: &Shared) -> RevocationLog {
    let revocations = Arc::clone(&shared.current.load().revocations);
    let kept = KeptRevocations {
        revocations: Arc::clone(&revocations),
        clock: shared.clock.clone(),
    };
    let journal = ChangeJournal::load(state, kept);
    shared.metrics.revocations(revocations.len());
    journal.start()
}

impl Kept for KeptRevocations {
    type Record = RevocationRecord;
    const PART: StatePart = StatePart::Revocations;
    const NAME: &'static str = "revocations";

    fn encode(record: &RevocationRecord) -> Vec<u8> {
        record.encode()
    }

    fn decode(bytes: &[u8]) -> Option<RevocationRecord> {
        RevocationRecord::decode(bytes)
    }

    fn is_later(record: &RevocationRecord) -> bool {
        matches!(record, RevocationRecord::Later(_))
    }

    fn put_back(&mut self, records: Vec<RevocationRecord>) {
        let mut made = Vec::new();
        for record in records {
            match record {
                RevocationRecord::Made(revocation) => made.push(revocation),
                RevocationRecord::Lifted { id, until } => {
                    self.revocations.apply_lift(id, until);
                }
                RevocationRecord::Later(_) => {}
            }
        }
        let now = self.clock.plausible_seconds();
        let mut without_room = 0_u64;
        for revocation in made.into_iter().filter(|made| made.until > now) {
            without_room += u64::from(self.revocations.add(revocation).is_err());
        }
        if without_room > 0 {
            tracing::error!(without_room, "too many revocations to apply them all");
        }
    }

    fn everything(&self) -> Vec<RevocationRecord> {
        self.revocations.records(self.clock.plausible_seconds())
    }
}
