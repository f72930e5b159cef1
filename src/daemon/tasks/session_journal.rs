//! Sessions and refused logins over a restart, and what sources have shown of their configuration: put back at the start,
//! written down every few seconds and once more at the end; and the key of the hashes that logins are remembered by.
//!
//! Keeps true: no request waits for a disk; a crash loses what was granted since the last batch, a few seconds; a
//! directory that can't be written costs nothing else, and is tried again until it can.
//! Must not know: what a session means.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::daemon::state::DaemonState;
use crate::logins::remembered::{KEY, Logins};
use crate::sessions::{Records, SessionIdentity, SessionRecord, Sessions};
use crate::snapshot::Shared;
use crate::state::directory::StateDirectory;
use crate::state::journal::{self, Batch, Journal};

/// The journal's file in the state directory.
const JOURNAL: &str = "sessions.journal";

/// The key's file in the state directory.
const KEY_FILE: &str = "logins.key";

/// The file of what sources have shown: a line for each configuration that was shown to be right.
const PROVEN: &str = "proven-sources";

/// From one batch to the next: a crash loses less than 10 s, the time that a slow disk takes to sync included.
const BATCH: Duration = Duration::from_secs(2);

/// From a failure to the next try at most.
const LONGEST: Duration = Duration::from_secs(30);

/// Writes the table of sessions down.
#[derive(Debug)]
pub(crate) struct SessionJournal {
    state: Arc<DaemonState>,
    shared: Arc<Shared>,
    sessions: Arc<Sessions>,
    logins: Arc<Logins>,
    /// Whether the key in use is the one in the state directory.
    key_kept: bool,
    journal: Option<Journal>,
    /// Batches in a row that couldn't be written.
    failures: u32,
    /// When the next try is, on the clock's monotonic scale.
    due: Duration,
}

/// The task that writes, until it is told to stop.
#[derive(Debug)]
pub(crate) struct JournalTask {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

// === impl Keeper ===

impl SessionJournal {
    /// Puts back what the last process wrote down. `None` where nothing is to survive. Blocks on file IO: call it before
    /// anything is served.
    pub(crate) fn load(state: &Arc<DaemonState>, shared: &Arc<Shared>) -> Option<Self> {
        if !state.is_configured() {
            return None;
        }
        let snapshot = shared.current.load();
        let (sessions, logins) = (Arc::clone(&snapshot.sessions), Arc::clone(&snapshot.logins));
        sessions.keep();
        logins.keep();
        let mut keeper = Self {
            state: Arc::clone(state),
            shared: Arc::clone(shared),
            sessions,
            logins,
            key_kept: false,
            journal: None,
            failures: 0,
            due: Duration::ZERO,
        };
        if let Some(directory) = state.directory() {
            keeper.take_up(directory);
        }
        Some(keeper)
    }

    /// Begins to write on a directory, after putting back what it holds. What is known already is newer.
    fn take_up(&mut self, directory: &Arc<StateDirectory>) {
        self.take_up_key(directory);
        let mut records = Records::new(self.logins.key_name());
        let now = self.shared.clock.unix_seconds();
        let sessions = &self.sessions;
        let (mut unreadable, mut without_room) = (0_u64, 0_u64);
        let granted_since: HashSet<SessionIdentity> = (0..Sessions::PARTS)
            .flat_map(|part| sessions.write_down(part, true))
            .map(|kept| kept.identity)
            .collect();
        let is_newer = |identity: &SessionIdentity| granted_since.contains(identity);
        let (reading, result) =
            journal::read(directory, JOURNAL, |bytes| match records.decode(bytes) {
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
                None => unreadable += 1,
            });
        sessions.put_back_links();
        if let Err(error) = &result {
            tracing::error!(%error, "the sessions written down can't be read to the end");
        }
        let damaged = result.is_err() || reading.damaged_bytes > 0 || unreadable > 0;
        self.shared.metrics.state_damaged(damaged);
        if damaged {
            tracing::error!(
                intact = reading.records - unreadable,
                unreadable,
                damaged_bytes = reading.damaged_bytes,
                directory = %directory.path().display(),
                "the sessions written down are damaged: what is intact was taken"
            );
        }
        if without_room > 0 {
            tracing::warn!(
                without_room,
                "sessions.max leaves no room for all that was written down"
            );
        }
        tracing::debug!(records = reading.records, "sessions put back");
        self.journal = Some(Journal::new(Arc::clone(directory), JOURNAL));
        match directory.read(PROVEN) {
            Ok(text) => {
                let text = String::from_utf8_lossy(text.as_deref().unwrap_or_default());
                self.shared.current.load().proven.put_back(&text);
            }
            // Each source shows it again with the first answer.
            Err(error) => tracing::warn!(%error, "what sources have shown can't be read"),
        }
    }

    /// Goes on with the key that was written down, if there is one.
    fn take_up_key(&mut self, directory: &StateDirectory) {
        match directory.read(KEY_FILE) {
            Ok(Some(bytes)) => match <[u8; KEY]>::try_from(bytes) {
                Ok(key) => {
                    if key != *self.logins.key() {
                        self.logins.adopt(key);
                        self.sessions.forget_logins();
                    }
                    self.key_kept = true;
                }
                Err(bytes) => tracing::error!(
                    file = KEY_FILE,
                    bytes = bytes.len(),
                    "the key of remembered logins is damaged: it is drawn anew, and what was remembered of logins is forgotten"
                ),
            },
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, file = KEY_FILE, "the key of remembered logins can't be read");
            }
        }
    }

    /// Writes down what has changed, unless a failure is too recent. Blocks on file IO.
    fn turn(&mut self) {
        // By a time that can't be true, no session would be worth keeping.
        if self.shared.clock.elapsed() >= self.due && self.shared.clock.is_plausible() {
            self.write();
        }
    }

    fn write(&mut self) {
        let written = self
            .journal_at_hand()
            .and_then(|()| self.batch())
            .and_then(|()| self.proven());
        self.state.sessions_kept(written.is_ok());
        match written {
            Ok(()) => {
                if self.failures > 0 {
                    tracing::info!("sessions are written down again");
                }
                self.failures = 0;
            }
            Err(error) => {
                let pause = pause(self.failures);
                self.failures = self.failures.saturating_add(1);
                self.due = self.shared.clock.elapsed() + pause;
                if self.failures == 1 {
                    tracing::error!(%error, "sessions can't be written down: they are in memory only for now");
                } else {
                    tracing::debug!(%error, failures = self.failures, "sessions still can't be written down");
                }
            }
        }
    }

    /// Opens the directory that couldn't be opened at the start.
    fn journal_at_hand(&mut self) -> io::Result<()> {
        if self.journal.is_some() {
            return Ok(());
        }
        let state = Arc::clone(&self.state);
        match state.open() {
            Ok(Some(directory)) => {
                self.take_up(directory);
                Ok(())
            }
            Ok(None) => Err(io::ErrorKind::NotFound.into()),
            Err(error) => Err(io::Error::other(error)),
        }
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

    fn batch(&mut self) -> io::Result<()> {
        if let Some(directory) = self.state.directory()
            && !self.key_kept
        {
            directory.write_atomically(KEY_FILE, &*self.logins.key())?;
            self.key_kept = true;
        }
        let Some(journal) = &mut self.journal else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let now = self.shared.clock.unix_seconds();
        // Before the table is looked at: a session taken away and granted again must be in it, after its striking out.
        let forgotten = self.sessions.take_forgotten();
        let refused = self.logins.take_changes();
        let whole = forgotten.is_none() || refused.is_none() || journal.must_be_whole();
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

/// A batch that begins with its first record: where nothing has changed the disk is left alone.
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
        // A subject of more than 64 KiB fits in no request's header section: such a record has no bytes.
        for bytes in self.records.encode(record) {
            if let Some(batch) = &mut self.batch {
                batch.write(&bytes)?;
            }
        }
        Ok(())
    }
}

/// The pause after so many failures before this one: twice as long each time.
fn pause(failures: u32) -> Duration {
    let doubled = 1_u32.checked_shl(failures);
    doubled
        .and_then(|times| BATCH.checked_mul(times))
        .map_or(LONGEST, |pause| pause.min(LONGEST))
}

// === impl Keeping ===

impl JournalTask {
    /// Writes from now on, on the control plane.
    pub(crate) fn start(keeper: SessionJournal) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self {
            stop,
            task: tokio::spawn(run(keeper, stopped)),
        }
    }

    /// Writes a last batch; `false` where that takes longer than `deadline`.
    pub(crate) async fn finish(self, deadline: Duration) -> bool {
        // It may have ended by itself.
        let _ = self.stop.send(());
        timeout(deadline, self.task).await.is_ok()
    }
}

async fn run(mut keeper: SessionJournal, mut stopped: oneshot::Receiver<()>) {
    let mut batches = interval(BATCH);
    batches.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let last = tokio::select! {
            _ = batches.tick() => false,
            _ = &mut stopped => true,
        };
        let writing = spawn_blocking(move || {
            if last {
                keeper.write();
            } else {
                keeper.turn();
            }
            keeper
        });
        match writing.await {
            Ok(back) if !last => keeper = back,
            Ok(_) => return,
            Err(error) => {
                tracing::error!(%error, "sessions are written down no more");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_thirty_seconds() {
        let pauses = [0, 1, 2, 3, 4, 31, 32, u32::MAX].map(|failures| pause(failures).as_secs());
        assert_eq!(pauses, [2, 4, 8, 16, 30, 30, 30, 30]);
    }
}
