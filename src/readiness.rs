//! Whether this process should get traffic: a latch for its life, and a flag for the backend.
//!
//! Keeps true: the life goes from starting to ready to draining and never back.
//! Must not know: who asks, or what they do with the answer.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
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
    upstream_reachable: AtomicBool,
}

impl Default for Readiness {
    /// Starting; the backend is taken to be there until a connection fails.
    fn default() -> Self {
        Self {
            phase: AtomicU8::new(Phase::Starting as u8),
            upstream_reachable: AtomicBool::new(true),
        }
    }
}

impl Readiness {
    /// Moves on; going back is ignored.
    pub fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::SeqCst);
    }

    /// Where the process is.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// What the last attempt to reach the backend came to; returns whether that is news.
    pub fn upstream(&self, reachable: bool) -> bool {
        // Read first: this runs on every forwarded request, and a store would bounce the cache line between workers.
        self.upstream_reachable.load(Ordering::Relaxed) != reachable
            && self.upstream_reachable.swap(reachable, Ordering::Relaxed) != reachable
    }

    /// Whether the backend was reachable when last tried.
    pub fn upstream_reachable(&self) -> bool {
        self.upstream_reachable.load(Ordering::Relaxed)
    }

    /// Whether a load balancer should send traffic here.
    pub fn is_ready(&self) -> bool {
        self.phase() == Phase::Ready && self.upstream_reachable()
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

    #[test]
    fn only_a_change_of_the_backends_state_is_news() {
        let readiness = Readiness::default();
        assert!(!readiness.upstream(true));
        assert!(readiness.upstream(false));
        assert!(!readiness.upstream(false));
        assert!(readiness.upstream(true));
    }
}
