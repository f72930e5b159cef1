//! How fast a receiver, client or backend, takes bytes, and so how much may be read ahead for it.
//!
//! Keeps true: as much is read ahead as the receiver has been seen to take, and the most for one that took more than
//! systems buffer; a receiver that makes renewd wait costs little memory from then on. The clock is read when a wait
//! begins or ends, never per byte.
//! Must not know: sockets, HTTP, which side the receiver is.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

use crate::terms::clock::timer_now;

/// How much is read ahead of a body's first bytes: most bodies are no larger than 64 KiB, and need one read, their
/// heads included.
const FIRST: usize = 72 * 1024;

/// How much is read at once for a receiver that hasn't shown its pace. With what the connection itself holds, a
/// receiver that takes nothing costs about 100 KiB.
const LEAST: usize = 16 * 1024;

/// A wait that is longer than this is slow. Most waits across continents are, but large reads save nothing at the
/// rates that such a distance allows.
const PROMPT: Duration = Duration::from_millis(100);

/// How many bytes without a slow wait show a receiver that keeps up: more than systems buffer of their own accord
/// (Linux: 4 MiB on renewd's side, and little on the other before its process reads).
const PROOF: usize = 8 * 1024 * 1024;

/// The paces of one client's requests and responses.
#[derive(Debug)]
pub(crate) struct Paces {
    /// How fast the client takes responses.
    pub download: Pace,
    /// How fast the backend takes requests' bodies.
    pub upload: Pace,
}

impl Paces {
    /// Paces with the most bytes that are ever read at once of a response, and of a request's body.
    pub(crate) fn up_to(download: usize, upload: usize) -> Self {
        Self {
            download: Pace::up_to(download),
            // The first bytes of a request's body are read with its head.
            upload: Pace {
                first: 0,
                ..Pace::up_to(upload)
            },
        }
    }
}

impl Default for Paces {
    /// Bounded by the size at which larger reads stop being faster: a large response that is read by less than 256
    /// KiB is a tenth to a quarter slower.
    fn default() -> Self {
        Self::up_to(256 * 1024, FIRST)
    }
}

/// The pace of one direction.
#[derive(Debug)]
pub(crate) struct Pace {
    most: usize,
    first: usize,
    /// How much may be read at once while nothing waits.
    trusted: Cell<usize>,
    blocked_since: Cell<Option<Instant>>,
    /// Bytes that were taken of the present message.
    taken: Cell<usize>,
    /// Bytes of it that were taken since the last slow wait.
    smoothly: Cell<usize>,
}

impl Pace {
    fn up_to(most: usize) -> Self {
        Self {
            most,
            first: FIRST,
            trusted: Cell::new(LEAST),
            blocked_since: Cell::new(None),
            taken: Cell::new(0),
            smoothly: Cell::new(0),
        }
    }

    /// Notes that another message begins. If the one before is known to have `arrived`, and had no slow wait, as much
    /// may be read at once from now on.
    pub(crate) fn begin(&self, arrived: bool) {
        let taken = self.taken.replace(0);
        if self.smoothly.replace(0) == taken && arrived {
            self.trusted.set(self.trusted.get().max(taken));
        }
    }

    /// Notes that bytes were taken.
    pub(crate) fn takes(&self, bytes: usize) {
        self.taken.set(self.taken.get().saturating_add(bytes));
        let since = self.blocked_since.take();
        if since.is_some_and(|since| timer_now() > since + PROMPT) {
            self.trusted.set(LEAST);
            self.smoothly.set(0);
            return;
        }
        let smoothly = self.smoothly.get().saturating_add(bytes);
        self.smoothly.set(smoothly);
        if smoothly >= PROOF {
            self.trusted.set(self.most);
        }
    }

    /// Notes that no more bytes are taken for now.
    pub(crate) fn waits(&self) {
        if self.blocked_since.get().is_none() {
            self.blocked_since.set(Some(timer_now()));
        }
    }

    /// How many bytes may be read at once for the receiver.
    pub(crate) fn ahead(&self) -> usize {
        let ahead = if self.blocked_since.get().is_some() {
            LEAST
        } else if self.taken.get() < self.first {
            self.trusted.get().max(FIRST)
        } else {
            self.trusted.get()
        };
        ahead.min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 4 * FIRST;

    #[test]
    fn little_is_read_for_a_peer_that_has_shown_nothing() {
        let pace = Pace::up_to(MOST);
        assert_eq!(pace.ahead(), FIRST);
        pace.takes(FIRST);
        assert_eq!(pace.ahead(), LEAST);
        pace.takes(PROOF / 2);
        assert_eq!(pace.ahead(), LEAST, "systems may have it all");
        pace.takes(PROOF / 2);
        assert_eq!(pace.ahead(), MOST);
    }

    #[test]
    fn a_peer_that_was_given_a_message_and_asks_for_the_next_has_taken_it() {
        let pace = Pace::up_to(MOST);
        pace.takes(1);
        pace.begin(true);
        assert_eq!(pace.ahead(), FIRST);
        pace.takes(3 * FIRST);
        assert_eq!(pace.ahead(), LEAST);
        pace.begin(true);
        assert_eq!(pace.ahead(), 3 * FIRST);
        pace.takes(2 * MOST);
        pace.begin(false);
        pace.takes(2 * MOST);
        assert_eq!(pace.ahead(), 3 * FIRST);
        pace.begin(true);
        assert_eq!(pace.ahead(), MOST);
        pace.takes(1);
        pace.begin(true);
        assert_eq!(pace.ahead(), MOST, "small ones say nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_makes_renewd_wait_is_trusted_no_more_until_it_keeps_up_again() {
        let pace = Pace::up_to(MOST);
        pace.takes(PROOF);
        pace.waits();
        assert_eq!(pace.ahead(), LEAST);
        tokio::time::advance(PROMPT).await;
        pace.takes(1);
        assert_eq!(pace.ahead(), MOST, "a short wait is none");
        pace.waits();
        tokio::time::advance(PROMPT).await;
        pace.waits();
        tokio::time::advance(PROMPT).await;
        pace.takes(PROOF);
        assert_eq!(pace.ahead(), LEAST);
        pace.takes(MOST);
        pace.begin(true);
        assert_eq!(pace.ahead(), FIRST, "the message had a slow wait in it");
        pace.takes(MOST);
        pace.begin(true);
        assert_eq!(pace.ahead(), MOST);
    }

    #[test]
    fn no_peer_gets_more_than_the_bound() {
        let pace = Pace::up_to(FIRST / 2);
        assert_eq!(pace.ahead(), FIRST / 2);
        pace.takes(PROOF);
        assert_eq!(pace.ahead(), FIRST / 2);
    }
}
