//! Where this process is in its life: a latch.
//!
//! Keeps true: the life goes from starting to ready to draining and never back.
//! Must not know: who asks, or what they do with the answer.

use std::sync::atomic::{AtomicU8, Ordering};

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Listeners aren't bound yet.
    Starting,
    /// Serving.
    Ready,
    /// Stopping.
    Draining,
}

/// Shared by workers, admin and daemon.
#[derive(Debug)]
pub struct Readiness {
    phase: AtomicU8,
}

impl Default for Readiness {
    /// Starting.
    fn default() -> Self {
        Self {
            phase: AtomicU8::new(Phase::Starting as u8),
        }
    }
}

impl Readiness {
    /// Moves on; going back is ignored.
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

    /// Whether a load balancer should send traffic here, as far as this process goes.
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
