//! Keeps sessions, refused logins, the key of the logins' hashes, and the proofs of source configurations over a
//! restart: reads them at the start, and writes them every few seconds and once more at the end.
//!
//! Keeps true: no request waits for a disk; a crash loses the grants since the last batch, a few seconds; a directory
//! that can't be written has no other effect, and is tried again until it can be written.
//! Must not know: what a session means.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::doubled;
use super::finishing::FinishingTask;
use crate::daemon::state::{DaemonState, StatePart};
use crate::logins::remembered::{KEY, Logins, ToldOf};
use crate::sessions::{Records, SessionIdentity, SessionRecord, Sessions};
use crate::snapshot::Shared;
use crate::state::directory::StateDirectory;
use crate::state::journal::{Batch, Journal};

/// The key's file in the state directory.
const KEY_FILE: &str = "logins.key";

/// The file of the key before the replicas agreed on this one.
const FORMER_KEY_FILE: &str = "logins.key.former";

/// The file of proofs: a line for each part of a source's configuration that an answer has shown to be right.
const PROVEN: &str = "proven-sources";

/// The time between two batches. A crash loses less than 10 s, even with a disk that syncs slowly.
const BATCH: Duration = Duration::from_secs(2);

/// The longest time between a failure and the next attempt.
const LONGEST: Duration = Duration::from_secs(30);

/// Writes the sessions to the state directory.
#[derive(Debug)]
pub(crate) struct SessionJournal {
    state: Arc<DaemonState>,
    shared: Arc<Shared>,
    sessions: Arc<Sessions>,
    logins: Arc<Logins>,
    /// The name of the key that is in the state directory.
    key_kept: Option<u32>,
    journal: Option<Journal>,
    /// Batches in a row that couldn't be written.
    failures: u32,
    /// When the next attempt is due, on the clock's monotonic scale.
    due: Duration,
}

// === impl SessionJournal ===

impl SessionJournal {
    /// Restores what the last process wrote. `None` without a configured state directory. Blocks on file IO: call it
    /// before the first request is served.
    pub(crate) fn load(state: &Arc<DaemonState>, shared: &Arc<Shared>) -> Option<Self> {
        if !state.is_configured() {
            return None;
        }
        let snapshot = shared.current.load();
        let (sessions, logins) = (Arc::clone(&snapshot.sessions), Arc::clone(&snapshot.logins));
        sessions.keep();
        logins.keep(ToldOf::Journal);
        let mut journal = Self {
            state: Arc::clone(state),
            shared: Arc::clone(shared),
            sessions,
            logins,
            key_kept: None,
            journal: None,
            failures: 0,
            due: Duration::ZERO,
        };
        if let Some(directory) = state.directory() {
            journal.take_up(directory);
        }
        Some(journal)
    }

    /// Starts the task that writes batches, and a last one at the stop.
    pub(crate) fn start(self) -> FinishingTask {
        FinishingTask::start(|stopped| run(self, stopped))
    }

    /// Restores the content of a directory, and writes to it from now on. Sessions in memory are newer than the
    /// directory's.
    fn take_up(&mut self, directory: &Arc<StateDirectory>) {
        self.take_up_key(directory);
        let mut records = Records::new(self.logins.key_name());
        let now = self.shared.clock.unix_seconds();
        let sessions = &self.sessions;
        let mut without_room = 0_u64;
        let granted_since: HashSet<SessionIdentity> = (0..Sessions::PARTS)
            .flat_map(|part| sessions.write_down(part, true))
            .map(|kept| kept.identity)
            .collect();
        let is_newer = |identity: &SessionIdentity| granted_since.contains(identity);
        let journal = self.state.restore(StatePart::Sessions, directory, |bytes| {
            match records.decode(bytes) {
                Some(SessionRecord::Session(kept)) if is_newer(&kept.identity) => {}
                Some(SessionRecord::Session(kept)) if kept.matters(now) => {
                    without_room += u64::from(!sessions.put_back(&kept, now));
                }
                Some(SessionRecord::Session(kept)) => sessions.strike_out(&kept.identity),
                Some(SessionRecord::Forgotten(identity)) if is_newer(&identity) => {}
                Some(SessionRecord::Forgotten(identity)) => sessions.strike_out(&identity),
                Some(SessionRecord::Refused(refused)) => {
                    self.logins.put_back(refused, now);
                }
                Some(SessionRecord::Unknown) => {}
                None => return false,
            }
            true
        });
        sessions.put_back_links();
        if without_room > 0 {
            tracing::warn!(
                without_room,
                "sessions.max is too small for all sessions of the session journal"
            );
        }
        self.journal = Some(journal);
        match directory.read(PROVEN) {
            Ok(text) => {
                let text = String::from_utf8_lossy(text.as_deref().unwrap_or_default());
                self.shared.current.load().proven.put_back(&text);
            }
            // The first answer of each source proves its configuration again.
            Err(error) => tracing::warn!(%error, "can't read the proofs of source configurations"),
        }
    }

    /// Uses the key in the directory, if there is one.
    fn take_up_key(&mut self, directory: &StateDirectory) {
        match directory.read(KEY_FILE) {
            Ok(Some(bytes)) => match <[u8; KEY]>::try_from(bytes) {
                Ok(key) => {
                    if key != *self.logins.key() {
                        let former = directory.read(FORMER_KEY_FILE).ok().flatten();
                        let former = former.and_then(|former| former.try_into().ok());
                        self.logins.adopt_with(key, former);
                        self.sessions.forget_logins();
                    }
                    self.key_kept = Some(self.logins.key_name());
                }
                Err(bytes) => tracing::error!(
                    file = KEY_FILE,
                    bytes = bytes.len(),
                    "the key of remembered logins is damaged; a new key is made and remembered logins are forgotten"
                ),
            },
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, file = KEY_FILE, "can't read the key of remembered logins");
            }
        }
    }

    /// Writes a batch, unless the last failure is too recent. Blocks on file IO.
    fn turn(&mut self) {
        // By an implausible time of day every session would count as expired.
        if self.shared.clock.elapsed() >= self.due && self.shared.clock.is_plausible() {
            self.write();
        }
    }

    fn write(&mut self) {
        let written = self
            .journal_at_hand()
            .and_then(|()| self.batch())
            .and_then(|()| self.proven());
        self.state.written(StatePart::Sessions, written.is_ok());
        match written {
            Ok(()) => {
                if self.failures > 0 {
                    tracing::info!("sessions are being written to the state directory again");
                }
                self.failures = 0;
            }
            Err(error) => {
                let pause = doubled(BATCH, self.failures, LONGEST);
                self.failures = self.failures.saturating_add(1);
                self.due = self.shared.clock.elapsed() + pause;
                if self.failures == 1 {
                    tracing::error!(%error, "can't write sessions to the state directory; they are in memory only");
                } else {
                    let failures = self.failures;
                    tracing::debug!(%error, failures, "still can't write sessions to the state directory");
                }
            }
        }
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

    fn proven(&self) -> io::Result<()> {
        let Some(directory) = self.state.directory() else {
            return Ok(());
        };
        let snapshot = self.shared.current.load();
        let Some(text) = snapshot.proven.take_changed() else {
            return Ok(());
        };
        let written = directory.write_atomically(PROVEN, text.as_bytes());
        written.inspect_err(|_| snapshot.proven.not_kept())
    }

    /// Writes the key down, if it isn't. Whether it was: records that name another key have to be written anew.
    fn keep_key(&mut self) -> io::Result<bool> {
        let name = Some(self.logins.key_name());
        let Some(directory) = self.state.directory().filter(|_| self.key_kept != name) else {
            return Ok(false);
        };
        if let Some(former) = self.logins.former_key() {
            directory.write_atomically(FORMER_KEY_FILE, &*former)?;
        }
        directory.write_atomically(KEY_FILE, &*self.logins.key())?;
        self.key_kept = name;
        Ok(true)
    }

    fn batch(&mut self) -> io::Result<()> {
        let is_new_key = self.keep_key()?;
        let Some(journal) = &mut self.journal else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let now = self.shared.clock.unix_seconds();
        // These are taken before the sessions are read: a session that was removed and granted again must be written
        // after the record of its removal.
        let forgotten = self.sessions.take_forgotten();
        let refused = self.logins.take_changes(ToldOf::Journal);
        let whole =
            is_new_key || forgotten.is_none() || refused.is_none() || journal.must_be_whole();
        let refused = if whole { None } else { refused };
        let mut writing = Writing {
            records: Records::new(self.logins.key_name()),
            journal: Some(journal),
            batch: None,
            whole,
        };
        if whole {
            writing.begin()?;
        } else {
            for identity in forgotten.into_iter().flatten() {
                writing.write(&SessionRecord::Forgotten(identity))?;
            }
        }
        for refused in refused.unwrap_or_else(|| self.logins.all(now)) {
            writing.write(&SessionRecord::Refused(refused))?;
        }
        for part in 0..Sessions::PARTS {
            for mut kept in self.sessions.write_down(part, whole) {
                if kept.matters(now) {
                    let subject = &kept.identity.subject;
                    kept.account_refused = self.logins.refuses_subject(subject, now);
                    writing.write(&SessionRecord::Session(kept))?;
                }
            }
        }
        match writing.batch {
            Some(batch) => batch.finish().map(|_length| ()),
            None => Ok(()),
        }
    }
}

/// A batch that begins with its first record: without a change nothing is written.
struct Writing<'a> {
    records: Records,
    journal: Option<&'a mut Journal>,
    batch: Option<Batch<'a>>,
    whole: bool,
}

impl Writing<'_> {
    fn begin(&mut self) -> io::Result<()> {
        if let Some(journal) = self.journal.take() {
            self.batch = Some(journal.begin(self.whole)?);
        }
        Ok(())
    }

    fn write(&mut self, record: &SessionRecord) -> io::Result<()> {
        self.begin()?;
        // A record of a subject above 64 KiB has no bytes. No request's header section can hold such a subject.
        for bytes in self.records.encode(record) {
            if let Some(batch) = &mut self.batch {
                batch.write(&bytes)?;
            }
        }
        Ok(())
    }
}

async fn run(mut journal: SessionJournal, mut stopped: oneshot::Receiver<()>) {
    let mut batches = interval(BATCH);
    batches.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let last = tokio::select! {
            _ = batches.tick() => false,
            _ = &mut stopped => true,
        };
        let writing = spawn_blocking(move || {
            if last {
                journal.write();
            } else {
                journal.turn();
            }
            journal
        });
        match writing.await {
            Ok(back) if !last => journal = back,
            Ok(_) => return,
            Err(error) => {
                tracing::error!(%error, "the task that writes sessions has failed; sessions are no longer written");
                return;
            }
        }
    }
}
