//! How long something has been waited for without progress.
//!
//! Keeps true: the clock is read when a wait begins, and when it begins anew, never per byte.
//! Must not know: what is waited for; what happens when that takes too long.

use tokio::time::Instant;

use crate::terms::clock::turn_now;

/// One wait: its beginning, and the progress that was seen then.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wait(Option<(Instant, u64)>);

impl Wait {
    /// Notes how things stand. `progress` is a number that grows with what is waited for, and each growth begins the
    /// wait anew; `None` ends it.
    pub(crate) fn note(&mut self, progress: Option<u64>) {
        match progress {
            Some(progress) => {
                self.since(progress);
            }
            None => self.0 = None,
        }
    }

    /// Notes the progress of something that is always waited for. Returns since when there was none.
    pub(crate) fn since(&mut self, progress: u64) -> Instant {
        match self.0 {
            Some((since, seen)) if seen == progress => since,
            _ => {
                let now = turn_now();
                self.0 = Some((now, progress));
                now
            }
        }
    }

    /// Begins the wait anew without progress.
    pub(crate) fn restart(&mut self) {
        if let Some((since, _)) = &mut self.0 {
            *since = turn_now();
        }
    }

    /// Since when there was no progress; `None` while nothing is waited for.
    pub(crate) fn began(&self) -> Option<Instant> {
        Some(self.0?.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::terms::clock::timer_now;

    #[tokio::test(start_paused = true)]
    async fn a_wait_begins_anew_with_each_progress_and_ends_when_nothing_is_waited_for() {
        let start = timer_now();
        let mut wait = Wait::default();
        for (progress, began) in [
            (None, None),
            (Some(0), Some(1)),
            (Some(0), Some(1)),
            (Some(1), Some(3)),
            (None, None),
            (Some(1), Some(5)),
        ] {
            wait.note(progress);
            let since = wait.began().map(|since| (since - start).as_secs());
            assert_eq!(since, began, "{progress:?}");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        wait.restart();
        assert_eq!((wait.since(1) - start).as_secs(), 6);
    }
}
