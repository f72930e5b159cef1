//! A task that is told of the stop, so that it can do its last work.
//!
//! Must not know: what the work is.

use std::future::Future;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The task.
#[derive(Debug)]
pub(crate) struct FinishingTask {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl FinishingTask {
    /// Starts it on the control plane. `run` gets the word of the stop, after which it should end by itself.
    pub(crate) fn start<Run>(run: impl FnOnce(oneshot::Receiver<()>) -> Run) -> Self
    where
        Run: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        Self {
            stop,
            task: tokio::spawn(run(stopped)),
        }
    }

    /// Has it do its last work; `false` where that takes longer than `deadline`.
    pub(crate) async fn finish(self, deadline: Duration) -> bool {
        // The task may have ended already.
        let _ = self.stop.send(());
        timeout(deadline, self.task).await.is_ok()
    }
}
