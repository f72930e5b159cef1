//! `state.directory` while the daemon runs: the directory, once it can be opened, and whether it can be written.
//!
//! Keeps true: `renewd_state_writable` is 1 only while everything that must survive a restart has been written, or
//! nothing has to survive one.
//! Must not know: what is kept.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::files;
use crate::state::directory::{StateDirectory, StateError};
use crate::state::journal::{self, Journal};
use crate::telemetry::metrics::Metrics;

/// The daemon's state directory.
#[derive(Debug)]
pub(crate) struct DaemonState {
    /// As configured; `None` where state is kept in memory only.
    path: Option<PathBuf>,
    directory: OnceLock<Arc<StateDirectory>>,
    /// Held while the directory is opened: a second opening would find the lock of the first.
    opening: Mutex<()>,
    /// The text of the configuration in force, while it couldn't be written.
    unkept: Mutex<Option<Zeroizing<Vec<u8>>>>,
    /// By [`StatePart`]: whether what was last to be written of it is not written.
    unwritten: [AtomicBool; StatePart::COUNT],
    /// By [`StatePart`]: whether part of what was in the directory couldn't be read.
    damaged: [AtomicBool; StatePart::COUNT],
    metrics: Arc<Metrics>,
}

/// The data that must survive a restart, beside the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatePart {
    /// The sessions and the refused logins.
    Sessions,
    /// The revocations.
    Revocations,
    /// The ejections.
    Ejections,
}

impl StatePart {
    const COUNT: usize = 3;

    /// The journal's file in the state directory, and what messages call it.
    const fn journal(self) -> (&'static str, &'static str) {
        match self {
            Self::Sessions => ("sessions.journal", "session journal"),
            Self::Revocations => ("revocations.journal", "revocation journal"),
            Self::Ejections => ("ejections.journal", "ejection journal"),
        }
    }
}

impl DaemonState {
    /// `opened` is the directory as it was opened at the start; `None` where that failed or no directory is
    /// configured.
    pub(crate) fn new(
        path: Option<PathBuf>,
        opened: Option<StateDirectory>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let state = Self {
            path,
            directory: opened.map(Arc::new).map(OnceLock::from).unwrap_or_default(),
            opening: Mutex::new(()),
            unkept: Mutex::new(None),
            unwritten: Default::default(),
            damaged: Default::default(),
            metrics: Arc::clone(metrics),
        };
        state.report();
        state
    }

    /// Whether state is kept in a directory.
    pub(crate) fn is_configured(&self) -> bool {
        self.path.is_some()
    }

    /// The directory, if it has been opened.
    pub(crate) fn directory(&self) -> Option<&Arc<StateDirectory>> {
        self.directory.get()
    }

    /// Opens the directory, if it isn't open. Blocks on file IO.
    pub(crate) fn open(&self) -> Result<Option<&Arc<StateDirectory>>, StateError> {
        let _opening = self.opening.lock();
        if let (None, Some(path)) = (self.directory.get(), &self.path) {
            let opened = Arc::new(StateDirectory::open(path)?);
            self.directory.get_or_init(|| opened);
            self.report();
        }
        Ok(self.directory.get())
    }

    /// Writes the configuration in force; a text that can't be written is held for [`Self::keep_again`]. Blocks on
    /// file IO.
    pub(crate) fn keep(&self, text: Zeroizing<Vec<u8>>) {
        if self.is_configured() {
            let kept = self
                .directory
                .get()
                .is_some_and(|directory| files::keep(directory, &text));
            *self.unkept.lock() = (!kept).then_some(text);
            self.report();
        }
    }

    /// Writes a held configuration again. Blocks on file IO.
    pub(crate) fn keep_again(&self) {
        let unkept = self.unkept.lock().take();
        if let Some(text) = unkept {
            self.keep(text);
        }
    }

    /// Reports whether the last batch of this was written.
    pub(crate) fn written(&self, part: StatePart, written: bool) {
        self.unwritten[part as usize].store(!written, Ordering::Relaxed);
        self.report();
    }

    /// Reports whether part of this couldn't be read.
    fn damaged(&self, part: StatePart, damaged: bool) {
        self.damaged[part as usize].store(damaged, Ordering::Relaxed);
        let mut damaged = self.damaged.iter();
        let any = damaged.any(|damaged| damaged.load(Ordering::Relaxed));
        self.metrics.state_damaged(any);
    }

    /// Reads the journal of a part record by record, and reports what is wrong with it; `each` says whether it could
    /// read its record. Returns the journal to write to from now on.
    pub(crate) fn restore(
        &self,
        part: StatePart,
        directory: &Arc<StateDirectory>,
        mut each: impl FnMut(&[u8]) -> bool,
    ) -> Journal {
        let (file, name) = part.journal();
        let mut unreadable = 0_u64;
        let (reading, result) = journal::read(directory, file, |record| {
            unreadable += u64::from(!each(record));
        });
        if let Err(error) = &result {
            tracing::error!(%error, "can't read the {name} to its end");
        }
        let damaged = result.is_err() || reading.damaged_bytes > 0 || unreadable > 0;
        self.damaged(part, damaged);
        if damaged {
            tracing::error!(
                intact = reading.records - unreadable,
                unreadable,
                damaged_bytes = reading.damaged_bytes,
                directory = %directory.path().display(),
                "the {name} is damaged; all intact records were restored"
            );
        }
        tracing::debug!(records = reading.records, "the {name} is restored");
        Journal::new(Arc::clone(directory), file)
    }

    fn report(&self) {
        let open = self.directory.get().is_some() || self.path.is_none();
        let mut unwritten = self.unwritten.iter();
        let kept = self.unkept.lock().is_none()
            && unwritten.all(|unwritten| !unwritten.load(Ordering::Relaxed));
        self.metrics.state_writable(open && kept);
    }
}
