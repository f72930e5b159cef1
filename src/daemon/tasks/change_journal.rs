//! Keeps records of changes over a restart: reads them at the start, and writes each change before it is acknowledged.
//!
//! Keeps true: a change that was reported as written survives a crash and a power cut; what can't be written is tried
//! again until it is; records of later builds are kept.
//! Must not know: what a record says.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use crate::daemon::state::{DaemonState, StatePart};
use crate::state::directory::StateDirectory;
use crate::state::journal::Journal;

/// Changes that may wait to be written. A caller beyond them waits until there is room.
const QUEUE: usize = 1024;

/// Records of later builds that are kept.
const MOST_LATER: usize = 100_000;

/// How often what couldn't be written is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The part of the state whose changes a journal keeps.
pub(crate) trait Kept: Debug + Send + 'static {
    /// A record of a change.
    type Record: Debug + Send + Sync + 'static;
    /// The part.
    const PART: StatePart;
    /// The word for the records in messages.
    const NAME: &'static str;

    /// A record's bytes.
    fn encode(record: &Self::Record) -> Vec<u8>;
    /// Reads a record; `None` where the bytes are none.
    fn decode(bytes: &[u8]) -> Option<Self::Record>;
    /// Whether a later build has written the record, and this one can't know what it says.
    fn is_later(record: &Self::Record) -> bool;
    /// Puts back what a directory holds. What changed before is in memory and stays.
    fn put_back(&mut self, records: Vec<Self::Record>);
    /// A record of everything that a restart needs.
    fn everything(&self) -> Vec<Self::Record>;
}

/// Reads and writes the journal of one part.
#[derive(Debug)]
pub(crate) struct ChangeJournal<K: Kept> {
    state: Arc<DaemonState>,
    kept: K,
    journal: Option<Journal>,
    /// Records of later builds, as they were read.
    later: Vec<K::Record>,
    /// Whether the last batch failed.
    failed: bool,
}

/// Writes changes to the journal.
#[derive(Debug)]
pub(crate) struct ChangeLog<R>(mpsc::Sender<Change<R>>);

/// A change that was written, or has nowhere to be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The change survives a crash.
    Synced,
    /// No state directory is configured.
    MemoryOnly,
}

#[derive(Debug)]
struct Change<R> {
    records: Vec<R>,
    written: oneshot::Sender<Result<Durability, String>>,
}

impl<R> Clone for ChangeLog<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<R> ChangeLog<R> {
    /// Writes a change that is in force already. The error says why it couldn't be written; it is then tried again,
    /// and lost only if the process ends before.
    pub(crate) async fn write(&self, record: R) -> Result<Durability, String> {
        self.write_all(vec![record]).await
    }

    /// Writes several changes as one.
    pub(crate) async fn write_all(&self, records: Vec<R>) -> Result<Durability, String> {
        let (written, done) = oneshot::channel();
        let gone = || "the task that writes changes has ended".to_owned();
        let change = Change { records, written };
        self.0.send(change).await.map_err(|_| gone())?;
        done.await.map_err(|_| gone())?
    }
}

impl<K: Kept> ChangeJournal<K> {
    /// Restores what the last process wrote. Blocks on file IO: call it before the first request is served.
    pub(crate) fn load(state: &Arc<DaemonState>, kept: K) -> Self {
        let mut journal = Self {
            state: Arc::clone(state),
            kept,
            journal: None,
            later: Vec::new(),
            failed: false,
        };
        if let Some(directory) = state.directory() {
            journal.take_up(directory);
        }
        journal
    }

    /// Starts the task on the control plane. It ends with the last of its logs.
    pub(crate) fn start(self) -> ChangeLog<K::Record> {
        let (sender, changes) = mpsc::channel(QUEUE);
        tokio::spawn(run(self, changes));
        ChangeLog(sender)
    }

    /// Restores the content of a directory, and writes to it from now on.
    fn take_up(&mut self, directory: &Arc<StateDirectory>) {
        let mut records = Vec::new();
        let later = &mut self.later;
        let journal = self.state.restore(K::PART, directory, |bytes| {
            match K::decode(bytes) {
                Some(record) if !K::is_later(&record) => records.push(record),
                Some(record) if later.len() < MOST_LATER => later.push(record),
                Some(_) | None => return false,
            }
            true
        });
        if !self.later.is_empty() {
            tracing::warn!(
                records = self.later.len(),
                "some {} were written by a later renewd and are not applied by this one; they are kept",
                K::NAME
            );
        }
        self.kept.put_back(records);
        self.journal = Some(journal);
    }

    /// Writes these changes, or everything where that is necessary. Blocks on file IO.
    fn write(&mut self, changes: &[K::Record]) -> Result<Durability, String> {
        if !self.state.is_configured() {
            return Ok(Durability::MemoryOnly);
        }
        let written = self.journal_at_hand().and_then(|()| self.batch(changes));
        self.state.written(K::PART, written.is_ok());
        let name = K::NAME;
        match (&written, self.failed) {
            (Err(error), false) => {
                tracing::error!(%error, "can't write {name} to the state directory; they are in memory only");
            }
            (Ok(()), true) => {
                tracing::info!("{name} are written to the state directory again");
            }
            _ => {}
        }
        self.failed = written.is_err();
        written
            .map(|()| Durability::Synced)
            .map_err(|error| error.to_string())
    }

    /// Opens the directory, if it couldn't be opened at the start.
    fn journal_at_hand(&mut self) -> io::Result<()> {
        if self.journal.is_some() {
            return Ok(());
        }
        let state = Arc::clone(&self.state);
        let directory = state.open().map_err(io::Error::other)?;
        self.take_up(directory.ok_or(io::ErrorKind::NotFound)?);
        Ok(())
    }

    fn batch(&mut self, changes: &[K::Record]) -> io::Result<()> {
        let journal = self.journal.as_mut().ok_or(io::ErrorKind::NotFound)?;
        let whole = journal.must_be_whole();
        let mut batch = journal.begin(whole)?;
        let everything;
        let (changes, later) = if whole {
            everything = self.kept.everything();
            (&*everything, &*self.later)
        } else {
            (changes, &[][..])
        };
        for record in later.iter().chain(changes) {
            batch.write(&K::encode(record))?;
        }
        batch.finish().map(|_length| ())
    }
}

async fn run<K: Kept>(
    mut journal: ChangeJournal<K>,
    mut changes: mpsc::Receiver<Change<K::Record>>,
) {
    let mut retries = interval(RETRY);
    retries.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            // Changes that came meanwhile are written together and synced once.
            count = changes.recv_many(&mut batch, QUEUE) => if count == 0 {
                return;
            },
            _ = retries.tick() => if !journal.failed {
                continue;
            },
        }
        let (records, waiting): (Vec<Vec<_>>, Vec<_>) = batch
            .into_iter()
            .map(|change| (change.records, change.written))
            .unzip();
        let records: Vec<_> = records.into_iter().flatten().collect();
        let writing = spawn_blocking(move || {
            let written = journal.write(&records);
            (journal, written)
        });
        match writing.await {
            Ok((back, written)) => {
                journal = back;
                for waits in waiting {
                    // The caller may have gone.
                    let _ = waits.send(written.clone());
                }
            }
            Err(error) => {
                let name = K::NAME;
                tracing::error!(%error, "the task that writes {name} has failed; they are no longer written");
                return;
            }
        }
    }
}
