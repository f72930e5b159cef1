//! The events that a connection, or a stream of HTTP/2, waits for, and the deadline of each.
//!
//! Keeps true: a wait that makes progress begins anew.
//! Must not know: sockets, HTTP beyond "a request is in flight"; what happens when a deadline has passed.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::model::Timeouts;
use crate::io::wait::Wait;

/// A connection without a request goes to sleep after this. Long enough that the next request of a page load finds it
/// awake (waking costs an allocation or two), short enough that memory follows the load.
pub(crate) const QUIET: Duration = Duration::from_millis(500);

/// Which deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A header section was begun and not finished.
    Header,
    /// No byte of a request's body came.
    Body,
    /// The client took no byte of a response.
    Write,
    /// The client closed its sending side and the response made no progress since.
    HalfClosed,
    /// There was no request for a while. This is no fault: the connection goes to sleep, or is closed in order.
    Quiet,
}

/// The waits of one connection or stream. Each is noted after a poll.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waits {
    /// For the rest of a header section.
    pub(crate) header: Wait,
    /// For more of a request's body.
    pub(crate) body: Wait,
    /// For the client to take more.
    pub(crate) write: Wait,
    /// For a response to a client that has closed its sending side.
    pub(crate) half_closed: Wait,
    /// For a request.
    pub(crate) quiet: Wait,
}

impl Waits {
    /// The deadline that comes first; `patience` is that of [`Cause::Quiet`].
    pub(crate) fn next(&self, timeouts: &Timeouts, patience: Duration) -> Option<(Instant, Cause)> {
        let due = |(wait, limit, cause): (Wait, Duration, Cause)| {
            Some((wait.began()?.checked_add(limit)?, cause))
        };
        [
            (self.header, timeouts.header, Cause::Header),
            (self.body, timeouts.body_stall, Cause::Body),
            (self.write, timeouts.write_stall, Cause::Write),
            (self.half_closed, timeouts.write_stall, Cause::HalfClosed),
            (self.quiet, patience, Cause::Quiet),
        ]
        .into_iter()
        .filter_map(due)
        .min_by_key(|(due, _)| *due)
    }
}

/// Whether a client of HTTP/2 takes what is written to it.
#[derive(Debug, Default)]
pub(crate) struct WriteProgress {
    taken: Cell<u64>,
    blocked: Cell<bool>,
}

impl WriteProgress {
    /// Notes that the client takes no more for now.
    pub(crate) fn waits(&self) {
        self.blocked.set(true);
    }

    /// Notes that the client took something.
    pub(crate) fn takes(&self) {
        self.blocked.set(false);
        self.taken.set(self.taken.get() + 1);
    }

    /// How often the client took something.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.get()
    }

    /// The progress of a wait for the client, while it takes no more.
    pub(crate) fn awaited(&self) -> Option<u64> {
        self.blocked.get().then(|| self.taken())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::clock::timer_now;

    const TIMEOUTS: Timeouts = Timeouts {
        header: Duration::from_secs(10),
        idle: Duration::from_secs(75),
        body_stall: Duration::from_secs(30),
        write_stall: Duration::from_mins(1),
        tunnel_idle: Duration::from_hours(1),
        tls_handshake: Duration::from_secs(10),
    };

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_its_deadline_and_the_first_counts() {
        type Step = (u64, fn(&mut Waits), Option<(u64, Cause)>);
        let start = timer_now();
        let mut waits = Waits::default();
        let steps: [Step; 9] = [
            (0, |_| {}, None),
            (
                0,
                |waits| waits.quiet.note(Some(0)),
                Some((500, Cause::Quiet)),
            ),
            (
                1,
                |waits| waits.header.note(Some(0)),
                Some((500, Cause::Quiet)),
            ),
            (
                1,
                |waits| waits.quiet.note(None),
                Some((11_000, Cause::Header)),
            ),
            (
                2,
                |waits| waits.half_closed.note(Some(0)),
                Some((11_000, Cause::Header)),
            ),
            (
                3,
                |waits| waits.header.note(None),
                Some((62_000, Cause::HalfClosed)),
            ),
            (
                5,
                |waits| waits.body.note(Some(0)),
                Some((35_000, Cause::Body)),
            ),
            (
                6,
                |waits| waits.body.note(Some(1)),
                Some((36_000, Cause::Body)),
            ),
            (7, |waits| *waits = Waits::default(), None),
        ];
        for (seconds, note, expected) in steps {
            tokio::time::advance(start + Duration::from_secs(seconds) - timer_now()).await;
            note(&mut waits);
            let next = waits.next(&TIMEOUTS, QUIET);
            let expected = expected.map(|(due, cause)| (start + Duration::from_millis(due), cause));
            assert_eq!(next, expected, "after {seconds} s");
        }
        waits.write.note(Some(0));
        let due = start + Duration::from_secs(67);
        assert_eq!(waits.next(&TIMEOUTS, QUIET), Some((due, Cause::Write)));
    }
}
