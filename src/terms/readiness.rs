//! Where this process is in its life: a latch.
//!
//! Keeps true: the life goes from starting to ready to draining and never back.
//! Must not know: what is done in each phase.

use std::sync::atomic::{AtomicU8, Ordering};

use serde::Serialize;

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Listeners aren't bound yet.
    Starting,
    /// Serving.
    #[serde(rename = "running")]
    Ready,
    /// Stopping.
    Draining,
}

/// The phase, shared by the workers, the admin listener and the daemon. The first is [`Phase::Starting`], which is 0.
#[derive(Debug, Default)]
pub struct Readiness {
    phase: AtomicU8,
}

impl Readiness {
    /// Moves to a later phase; an earlier one is ignored.
    pub(crate) fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::SeqCst);
    }

    /// Where the process is.
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// Whether the process is ready for traffic. The backend and the sources are not considered.
    pub(crate) fn is_ready(&self) -> bool {
        self.phase() == Phase::Ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_drains_is_never_ready_again() {
        let readiness = Readiness::default();
        assert!(!readiness.is_ready());
        readiness.advance(Phase::Ready);
        assert!(readiness.is_ready());
        readiness.advance(Phase::Draining);
        readiness.advance(Phase::Ready);
        assert_eq!(readiness.phase(), Phase::Draining);
    }
}
