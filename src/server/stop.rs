//! The stages of stopping, as the connections of one worker see them.
//!
//! Keeps true: stages only go forward, and every registered task is woken at each stage.
//! Must not know: what a connection does at a stage, or when the next stage comes.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// How far a stop has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Not stopping.
    #[default]
    Serving,
    /// No connection is accepted. Those without a request close; each request that is served is the last of its
    /// connection.
    Draining,
    /// Tunnels and event streams end too.
    EndingTunnels,
    /// Every connection ends now.
    Aborting,
}

/// One worker's stage, and the tasks to wake at the next.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    stage: Cell<Stage>,
    tasks: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
}

impl Stop {
    /// The present stage.
    pub(crate) fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// Goes on to `stage` and wakes every task. A stage that has passed changes nothing.
    pub(crate) fn advance(&self, stage: Stage) {
        if stage <= self.stage.get() {
            return;
        }
        self.stage.set(stage);
        for waker in self.tasks.borrow().iter().flatten() {
            waker.wake_by_ref();
        }
    }

    /// Has the calling task woken at each stage until the registration is dropped. The registration must stay in that
    /// task, since the waker is stored once.
    pub(crate) async fn register(&self) -> Registration<'_> {
        poll_fn(|context| {
            let waker = context.waker().clone();
            let mut tasks = self.tasks.borrow_mut();
            let index = self.free.borrow_mut().pop().unwrap_or(tasks.len());
            if let Some(slot) = tasks.get_mut(index) {
                *slot = Some(waker);
            } else {
                tasks.push(Some(waker));
            }
            Poll::Ready(Registration { stop: self, index })
        })
        .await
    }
}

/// Keeps a task registered with its [`Stop`].
#[derive(Debug)]
pub(crate) struct Registration<'stop> {
    stop: &'stop Stop,
    index: usize,
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.stop.tasks.borrow_mut().get_mut(self.index) {
            *slot = None;
        }
        self.stop.free.borrow_mut().push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stages_never_go_back_and_slots_are_reused() {
        let stop = Stop::default();
        let first = stop.register().await;
        let second = stop.register().await;
        drop(first);
        let third = stop.register().await;
        assert_eq!((second.index, third.index), (1, 0));
        stop.advance(Stage::EndingTunnels);
        stop.advance(Stage::Draining);
        assert_eq!(stop.stage(), Stage::EndingTunnels);
    }
}
