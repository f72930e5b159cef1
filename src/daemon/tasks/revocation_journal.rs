//! Keeps revocations over a restart: reads them at the start, and writes each change before it is acknowledged.
//!
//! Keeps true: a change that was reported as written survives a crash and a power cut; what can't be written is tried
//! again until it is; a revocation that was lifted stays lifted, whatever the order of the records; records of later
//! builds are kept.
//! Must not know: who revokes, what a revocation refuses.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use crate::daemon::state::{DaemonState, StatePart};
use crate::revocation::{RevocationRecord, Revocations};
use crate::snapshot::Shared;
use crate::state::directory::StateDirectory;
use crate::state::journal::Journal;
use crate::terms::clock::{Clock, is_plausible};

/// Changes that may wait to be written. A caller beyond them waits until there is room.
const QUEUE: usize = 1024;

/// Records of later builds that are kept.
const MOST_LATER: usize = 100_000;

/// How often what couldn't be written is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Reads and writes the journal.
#[derive(Debug)]
pub(crate) struct RevocationJournal {
    state: Arc<DaemonState>,
    revocations: Arc<Revocations>,
    clock: Clock,
    journal: Option<Journal>,
    /// Records of later builds, as they were read.
    later: Vec<RevocationRecord>,
    /// Whether the last batch failed.
    failed: bool,
}

/// Writes changes of the revocations.
#[derive(Clone, Debug)]
pub(crate) struct RevocationLog(mpsc::Sender<Change>);

/// A change that was written, or has nowhere to be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The change survives a crash.
    Synced,
    /// No state directory is configured.
    MemoryOnly,
}

#[derive(Debug)]
struct Change {
    records: Vec<RevocationRecord>,
    written: oneshot::Sender<Result<Durability, String>>,
}

impl RevocationLog {
    /// Writes a change that is in force already. The error says why it couldn't be written; it is then tried again,
    /// and lost only if the process ends before.
    pub(crate) async fn write(&self, record: RevocationRecord) -> Result<Durability, String> {
        self.write_all(vec![record]).await
    }

    /// Writes several changes as one.
    pub(crate) async fn write_all(
        &self,
        records: Vec<RevocationRecord>,
    ) -> Result<Durability, String> {
        let (written, done) = oneshot::channel();
        let gone = || "the task that writes revocations has ended".to_owned();
        let change = Change { records, written };
        self.0.send(change).await.map_err(|_| gone())?;
        done.await.map_err(|_| gone())?
    }
}

impl RevocationJournal {
    /// Restores what the last process wrote. Blocks on file IO: call it before the first request is served.
    pub(crate) fn load(state: &Arc<DaemonState>, shared: &Shared) -> Self {
        let mut journal = Self {
            state: Arc::clone(state),
            revocations: Arc::clone(&shared.current.load().revocations),
            clock: shared.clock.clone(),
            journal: None,
            later: Vec::new(),
            failed: false,
        };
        if let Some(directory) = state.directory() {
            journal.take_up(directory);
        }
        shared.metrics.revocations(journal.revocations.len());
        journal
    }

    /// Starts the task on the control plane. It ends with the last of its logs.
    pub(crate) fn start(self) -> RevocationLog {
        let (sender, changes) = mpsc::channel(QUEUE);
        tokio::spawn(run(self, changes));
        RevocationLog(sender)
    }

    /// Restores the content of a directory, and writes to it from now on. What was revoked before is in memory and
    /// stays.
    fn take_up(&mut self, directory: &Arc<StateDirectory>) {
        let mut made = Vec::new();
        let revocations = Arc::clone(&self.revocations);
        let later = &mut self.later;
        let journal = self
            .state
            .restore(StatePart::Revocations, directory, |bytes| {
                match RevocationRecord::decode(bytes) {
                    Some(RevocationRecord::Made(revocation)) => made.push(revocation),
                    Some(RevocationRecord::Lifted { id, until }) => {
                        revocations.apply_lift(id, until);
                    }
                    Some(record @ RevocationRecord::Later(_)) if later.len() < MOST_LATER => {
                        later.push(record);
                    }
                    Some(RevocationRecord::Later(_)) | None => return false,
                }
                true
            });
        let mut without_room = 0_u64;
        for revocation in made.into_iter().filter(|made| made.until > self.now()) {
            without_room += u64::from(self.revocations.add(revocation).is_err());
        }
        if !self.later.is_empty() {
            tracing::warn!(
                records = self.later.len(),
                "some revocations were written by a later renewd and are not applied by this one; they are kept"
            );
        }
        if without_room > 0 {
            tracing::error!(without_room, "too many revocations to apply them all");
        }
        self.journal = Some(journal);
    }

    /// The time of day in Unix seconds; an implausible one counts as the first, by which nothing is over.
    fn now(&self) -> u64 {
        let now = self.clock.unix_seconds();
        if is_plausible(now) { now } else { 0 }
    }

    /// Writes these changes, or everything where that is necessary. Blocks on file IO.
    fn write(&mut self, changes: &[RevocationRecord]) -> Result<Durability, String> {
        if !self.state.is_configured() {
            return Ok(Durability::MemoryOnly);
        }
        let written = self.journal_at_hand().and_then(|()| self.batch(changes));
        self.state.written(StatePart::Revocations, written.is_ok());
        match (&written, self.failed) {
            (Err(error), false) => {
                tracing::error!(%error, "can't write revocations to the state directory; they are in memory only");
            }
            (Ok(()), true) => {
                tracing::info!("revocations are written to the state directory again");
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

    fn batch(&mut self, changes: &[RevocationRecord]) -> io::Result<()> {
        let now = self.now();
        let journal = self.journal.as_mut().ok_or(io::ErrorKind::NotFound)?;
        let whole = journal.must_be_whole();
        let mut batch = journal.begin(whole)?;
        let everything;
        let (changes, later) = if whole {
            everything = self.revocations.records(now);
            (&*everything, &*self.later)
        } else {
            (changes, &[][..])
        };
        for record in later.iter().chain(changes) {
            batch.write(&record.encode())?;
        }
        batch.finish().map(|_length| ())
    }
}

async fn run(mut journal: RevocationJournal, mut changes: mpsc::Receiver<Change>) {
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
        let records = records.concat();
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
                tracing::error!(%error, "the task that writes revocations has failed; they are no longer written");
                return;
            }
        }
    }
}
