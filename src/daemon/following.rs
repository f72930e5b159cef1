//! Follows the files that the daemon reads: a change of one is a reload, and so is a request for one.
//!
//! Keeps true: files are read on threads that may block, one reading after the other; whoever awaits
//! [`Following::run`] may drop it at any time, and a reading that hangs is then left behind.
//! Must not know: how a change is noticed, or what is in a file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::reload::Reloader;
use super::watch::Watcher;
use crate::io::descriptors::Shares;
use crate::server::worker::Workers;

/// How often a refused configuration is read again although no change was reported.
const SECOND_LOOK: Duration = Duration::from_secs(5);

/// The files' follower.
pub(super) struct Following<'d> {
    pub(super) reloader: &'d Arc<Reloader>,
    /// The files to watch, as the last reload found them.
    pub(super) watched: watch::Receiver<Vec<PathBuf>>,
    pub(super) watcher: Watcher,
    pub(super) workers: &'d Workers,
    /// The limit of file descriptors.
    pub(super) descriptors: u64,
}

impl Following<'_> {
    /// Reloads whenever a file changes or `asked` is notified. Never ends.
    pub(super) async fn run(mut self, asked: &Notify) {
        self.reload_if_stale().await;
        loop {
            tokio::select! {
                () = asked.notified() => {
                    self.reload("signal").await;
                }
                changed = self.watcher.changed() => self.on_files_changed(&changed).await,
                Ok(()) = self.watched.changed() => self.watch_others().await,
                () = sleep(SECOND_LOOK) => {
                    self.retry_refused().await;
                    let state = Arc::clone(&self.reloader.state);
                    // A panic in the closure costs this attempt alone.
                    let _ = tokio::task::spawn_blocking(move || state.keep_again()).await;
                }
            }
        }
    }

    /// Watches the files that the last reload named, and divides the file descriptors as it says.
    async fn watch_others(&mut self) {
        let shared = &self.reloader.shared;
        let files = self.watched.borrow_and_update().clone();
        self.watcher.set_files(files).await;
        self.reload_if_stale().await;
        let most = shared.current.load().config.server.max_connections;
        let shares = Shares::of(self.descriptors, most);
        shared.metrics.descriptor_shares(&shares);
        shared.sockets.set(&shares);
        self.workers.set_max_connections(shares.clients);
    }

    /// Reloads if a file changed between the last reading and the start of watching.
    async fn reload_if_stale(&self) {
        self.reload_if(Reloader::is_behind).await;
    }

    /// Reads a refused configuration again if its files differ from the refused ones. The watcher reports no change
    /// of a file that was put back before the watcher read it.
    async fn retry_refused(&self) {
        let is_refused = |reloader: &Reloader| reloader.standing().errors.is_some();
        self.reload_if(move |reloader| is_refused(reloader) && reloader.is_behind())
            .await;
    }

    async fn reload_if(&self, wanted: impl FnOnce(&Reloader) -> bool + Send + 'static) {
        let reloader = Arc::clone(self.reloader);
        let looking = tokio::task::spawn_blocking(move || wanted(&reloader));
        if looking.await.unwrap_or(false) {
            self.reload("file").await;
        }
    }

    /// Reads changed files again. The streams file is reloaded by itself where the configuration is invalid: streams
    /// change during a show and must not wait until the configuration is corrected.
    async fn on_files_changed(&self, changed: &[PathBuf]) {
        let (streams, others) = self.reloader.split(changed);
        let reloaded = others && self.reload("file").await;
        if streams && !reloaded {
            let reloader = Arc::clone(self.reloader);
            // An error of the file is logged where it is read.
            let _ = tokio::task::spawn_blocking(move || reloader.reload_streams()).await;
        }
    }

    /// Whether the configuration is in force; the details are in log, metric, audit and systemd's status.
    async fn reload(&self, trigger: &'static str) -> bool {
        let reloader = Arc::clone(self.reloader);
        let reloading = tokio::task::spawn_blocking(move || reloader.reload(trigger).is_ok());
        reloading.await.unwrap_or(false)
    }
}
