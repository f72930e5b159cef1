//! A timer that may be moved at every request without touching the runtime's timer wheel.
//!
//! Keeps true: the wheel holds at most one entry for each timer, due no later than the deadline; an entry that comes
//! due too early is armed again, so that moving a deadline away costs nothing until then.
//! Must not know: what is being timed.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::terms::clock::timer_now;

/// One reusable timer.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    sleep: Option<Pin<Box<Sleep>>>,
    /// The waker that the wheel has.
    waker: Option<Waker>,
}

impl Deadline {
    /// Ready once `due` has passed. The task may be woken earlier, and then has to poll again.
    pub(crate) fn poll_until(&mut self, due: Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if due < sleep.deadline() {
            sleep.as_mut().reset(due);
        } else if !sleep.is_elapsed()
            && let Some(waker) = &self.waker
            && waker.will_wake(context.waker())
        {
            // The entry is still right. Most polls have another cause, and polling the entry takes the wheel's lock.
            return Poll::Pending;
        }
        self.waker = Some(context.waker().clone());
        loop {
            // Without `unconstrained`, a task that has used up its cooperative budget would get `Pending` without an
            // entry in the wheel (tokio 1.54, `Sleep::poll_elapsed`;
            // <https://github.com/tokio-rs/tokio/issues/2542>), and the branch above relies on the entry.
            ready!(pin!(unconstrained(sleep.as_mut())).poll(context));
            if timer_now() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::task::consume_budget;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_first_asked_for_at_the_end_of_a_turn_is_kept() {
        let start = timer_now();
        let due = start + Duration::from_secs(1);
        let mut deadline = Deadline::default();
        let mut first = true;
        let waiting = poll_fn(|context| {
            // The turn is spent, as after a connection that moved much.
            if std::mem::take(&mut first) {
                while pin!(consume_budget()).poll(context).is_ready() {}
            }
            deadline.poll_until(due, context)
        });
        // A deadline that would be missed otherwise is caught a second later.
        let late = tokio::time::timeout(Duration::from_secs(2), waiting).await;
        assert!(late.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_moved_away_and_back_is_kept_to_the_millisecond() {
        let start = timer_now();
        let mut deadline = Deadline::default();
        let mut polls = 0;
        poll_fn(|context| {
            polls += 1;
            // The first look asks for one second, every later one for three.
            let due = start + Duration::from_secs(if polls == 1 { 1 } else { 3 });
            deadline.poll_until(due, context)
        })
        .await;
        assert_eq!(start.elapsed().as_millis(), 3000);
        assert_eq!(
            polls, 3,
            "the first look, one at the entry that came too early, one at the deadline"
        );

        let due = start + Duration::from_secs(4);
        poll_fn(|context| deadline.poll_until(due, context)).await;
        assert_eq!(start.elapsed().as_millis(), 4000);

        let far = start + Duration::from_mins(1);
        let near = start + Duration::from_secs(5);
        let mut first = true;
        poll_fn(|context| {
            let due = if std::mem::take(&mut first) {
                far
            } else {
                near
            };
            let poll = deadline.poll_until(due, context);
            if due == far {
                context.waker().wake_by_ref();
            }
            poll
        })
        .await;
        assert_eq!(start.elapsed().as_millis(), 5000);
    }
}
