//! `state.directory` while the daemon runs: the directory, once it can be had, and whether what belongs there gets there.
//!
//! Keeps true: `renewd_state_writable` is 1 only while everything that is to survive a restart does, or nothing is to.
//! Must not know: what is kept.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::state::directory::{StateDirectory, StateError};
use crate::telemetry::metrics::Metrics;

/// The daemon's state directory.
#[derive(Debug)]
pub struct State {
    /// As configured; `None`: memory only.
    path: Option<PathBuf>,
    directory: OnceLock<Arc<StateDirectory>>,
    configuration_kept: AtomicBool,
    sessions_kept: AtomicBool,
    metrics: Arc<Metrics>,
}

impl State {
    /// The directory of `state.directory` as it was opened at the start; one that couldn't be is tried again later.
    pub fn new(
        path: Option<PathBuf>,
        opened: Option<StateDirectory>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let state = Self {
            path,
            directory: opened.map(Arc::new).map(OnceLock::from).unwrap_or_default(),
            configuration_kept: AtomicBool::new(true),
            sessions_kept: AtomicBool::new(true),
            metrics: Arc::clone(metrics),
        };
        state.report();
        state
    }

    /// Whether anything is to survive a restart.
    pub fn is_configured(&self) -> bool {
        self.path.is_some()
    }

    /// The directory, if it could be opened.
    pub fn directory(&self) -> Option<&Arc<StateDirectory>> {
        self.directory.get()
    }

    /// Tries to open the directory, if it isn't. Blocks on file IO; one caller at a time.
    pub fn open(&self) -> Result<Option<&Arc<StateDirectory>>, StateError> {
        if let (None, Some(path)) = (self.directory.get(), &self.path) {
            let opened = Arc::new(StateDirectory::open(path)?);
            self.directory.get_or_init(|| opened);
            self.report();
        }
        Ok(self.directory.get())
    }

    /// Whether the configuration in force was written down.
    pub fn configuration_kept(&self, kept: bool) {
        self.configuration_kept.store(kept, Ordering::Relaxed);
        self.report();
    }

    /// Whether the sessions were written down the last time.
    pub fn sessions_kept(&self, kept: bool) {
        self.sessions_kept.store(kept, Ordering::Relaxed);
        self.report();
    }

    fn report(&self) {
        let open = self.directory.get().is_some() || self.path.is_none();
        let kept = self.configuration_kept.load(Ordering::Relaxed)
            && self.sessions_kept.load(Ordering::Relaxed);
        self.metrics.state_writable(open && kept);
    }
}
