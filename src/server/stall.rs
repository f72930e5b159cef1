//! The events that a connection waits for, and the deadline of each.
//!
//! Keeps true: the clock is read when a wait begins, never per byte.
//! Must not know: sockets, HTTP beyond "a request is in flight"; what happens when a deadline has passed.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::model::Timeouts;

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
    /// There was no request for [`QUIET`]. This is no fault: the connection goes to sleep.
    Quiet,
}

/// The waits of a connection after a poll, and its progress since the last poll.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // independent of each other, each with a wait of its own
pub(crate) struct ConnectionWait {
    /// Requests seen so far.
    pub requests: u64,
    /// No request is in flight and everything is written.
    pub idle: bool,
    /// The connection is idle, and some bytes of the next request's head have come.
    pub begun: bool,
    /// A task waits for more of a request's body.
    pub awaited: bool,
    /// Some of a request's body came.
    pub received: bool,
    /// The client takes no more for now.
    pub write_blocked: bool,
    /// The client took some bytes.
    pub sent: bool,
    /// The client has closed its sending side, and is being answered.
    pub half_closed: bool,
}

/// When each wait of one connection began.
#[derive(Debug, Default)]
pub(crate) struct ConnectionWaits {
    requests: u64,
    header: Option<Instant>,
    body: Option<Instant>,
    write: Option<Instant>,
    half_closed: Option<Instant>,
    quiet: Option<Instant>,
}

impl ConnectionWaits {
    /// Notes after a poll which waits have begun, gone on or ended.
    pub(crate) fn note(&mut self, standing: ConnectionWait, now: impl Fn() -> Instant) {
        if self.requests != standing.requests {
            // The connection now waits for another request's head.
            self.requests = standing.requests;
            self.header = None;
            self.quiet = None;
        }
        let quiet = standing.idle && !standing.begun;
        let (sent, received) = (standing.sent, standing.received);
        keep(&mut self.write, standing.write_blocked, sent, &now);
        keep(&mut self.header, standing.begun, false, &now);
        keep(&mut self.quiet, quiet, false, &now);
        keep(&mut self.body, standing.awaited, received, &now);
        keep(&mut self.half_closed, standing.half_closed, sent, &now);
    }

    /// The deadline that comes first.
    pub(crate) fn next(&self, timeouts: &Timeouts) -> Option<(Instant, Cause)> {
        first_due([
            (self.header, timeouts.header, Cause::Header),
            (self.body, timeouts.body_stall, Cause::Body),
            (self.write, timeouts.write_stall, Cause::Write),
            (self.half_closed, timeouts.write_stall, Cause::HalfClosed),
            (self.quiet, QUIET.min(timeouts.idle), Cause::Quiet),
        ])
    }
}

/// The deadline that comes first. Each wait has its beginning, if it has begun, its limit and its name.
pub(crate) fn first_due<C, const N: usize>(
    waits: [(Option<Instant>, Duration, C); N],
) -> Option<(Instant, C)> {
    let due =
        |(since, limit, cause): (Option<Instant>, _, _)| Some((since?.checked_add(limit)?, cause));
    waits
        .into_iter()
        .filter_map(due)
        .min_by_key(|(due, _)| *due)
}

/// Starts, restarts or ends a wait.
pub(crate) fn keep(
    since: &mut Option<Instant>,
    waiting: bool,
    progress: bool,
    now: &impl Fn() -> Instant,
) {
    if !waiting {
        *since = None;
    } else if since.is_none() || progress {
        *since = Some(now());
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

    const IDLE: ConnectionWait = ConnectionWait {
        requests: 0,
        idle: true,
        begun: false,
        awaited: false,
        received: false,
        write_blocked: false,
        sent: false,
        half_closed: false,
    };

    const BEGUN: ConnectionWait = ConnectionWait {
        begun: true,
        ..IDLE
    };

    const ANSWERING: ConnectionWait = ConnectionWait {
        requests: 1,
        idle: false,
        ..IDLE
    };

    /// The deadline that comes first, in milliseconds from the start.
    type Next = Option<(u128, Cause)>;

    /// Asserts the deadline that comes next after each standing, in seconds from the start.
    fn assert_waits(table: &[(u64, ConnectionWait, Next)]) {
        let start = timer_now();
        let mut waits = ConnectionWaits::default();
        for (seconds, standing, expected) in table {
            waits.note(*standing, || start + Duration::from_secs(*seconds));
            let next = waits.next(&TIMEOUTS);
            let next = next.map(|(due, cause)| ((due - start).as_millis(), cause));
            assert_eq!(next, *expected, "{standing:?}");
        }
    }

    #[test]
    fn each_state_of_a_connection_has_its_deadline() {
        let awaited = ConnectionWait {
            awaited: true,
            ..ANSWERING
        };
        let received = ConnectionWait {
            received: true,
            ..awaited
        };
        let blocked = ConnectionWait {
            write_blocked: true,
            ..ANSWERING
        };
        let sent = ConnectionWait {
            sent: true,
            ..blocked
        };
        let half_closed = ConnectionWait {
            half_closed: true,
            ..ANSWERING
        };
        let over = ConnectionWait {
            requests: 1,
            ..IDLE
        };
        assert_waits(&[
            (0, IDLE, Some((500, Cause::Quiet))),
            (1, BEGUN, Some((11_000, Cause::Header))),
            (5, BEGUN, Some((11_000, Cause::Header))),
            (6, awaited, Some((36_000, Cause::Body))),
            (7, awaited, Some((36_000, Cause::Body))),
            (8, received, Some((38_000, Cause::Body))),
            // A complete request is being answered: nothing is waited for.
            (9, ANSWERING, None),
            (10, blocked, Some((70_000, Cause::Write))),
            (20, sent, Some((80_000, Cause::Write))),
            (21, half_closed, Some((81_000, Cause::HalfClosed))),
            (22, over, Some((22_500, Cause::Quiet))),
        ]);
    }

    #[test]
    fn the_time_of_a_head_begins_when_the_request_before_it_is_over() {
        let next = ConnectionWait {
            requests: 1,
            ..BEGUN
        };
        assert_waits(&[
            (0, BEGUN, Some((10_000, Cause::Header))),
            // All of one request and some of the next came at once.
            (5, next, Some((15_000, Cause::Header))),
        ]);
    }
}
