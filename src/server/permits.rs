//! How many connections are open, and how many may be, over all workers.
//!
//! Keeps true: a permit counts from before its connection is served until it is dropped; the limit may change while
//! connections are open; near the limit a new connection replaces one without a request.
//! Must not know: what a connection is.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::seats::{Seated, Seats};

/// A new connection replaces another in the last of so many parts of the limit: above 95 %.
const NEARLY_FULL: usize = 20;

/// How often a connection that can make room is looked for at the limit.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The counter.
#[derive(Debug)]
pub(crate) struct Permits {
    limit: AtomicUsize,
    used: AtomicUsize,
    acceptors: AtomicUsize,
    seats: Seats,
    freed: Notify,
    emptied: Notify,
}

/// One open connection.
#[derive(Debug)]
pub(crate) struct Permit {
    permits: Arc<Permits>,
    place: Seated,
}

/// One running accept loop, which may still bring connections.
#[derive(Debug)]
pub(crate) struct Running(Arc<Permits>);

impl Permits {
    /// Up to `limit` connections.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(limit),
            used: AtomicUsize::new(0),
            acceptors: AtomicUsize::new(0),
            seats: Seats::default(),
            freed: Notify::new(),
            emptied: Notify::new(),
        })
    }

    /// Changes the limit for connections to come.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Release);
        self.freed.notify_waiters();
    }

    /// Open connections.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    /// A permit for a connection from `peer`, if there is one now. Above `NEARLY_FULL` another connection is asked to
    /// leave for it.
    pub(crate) fn try_acquire(self: &Arc<Self>, peer: Option<IpAddr>) -> Option<Permit> {
        self.make_room();
        let limit = self.limit.load(Ordering::Acquire);
        let raise = |used| (used < limit).then_some(used + 1);
        let raised = self
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, raise);
        raised.is_ok().then(|| self.permit(peer))
    }

    /// The same, as soon as there is one.
    pub(crate) async fn acquire(self: &Arc<Self>, peer: Option<IpAddr>) -> Permit {
        loop {
            let mut freed = pin!(self.freed.notified());
            // Registers before looking, so that no release is missed in between.
            freed.as_mut().enable();
            if let Some(permit) = self.try_acquire(peer) {
                return permit;
            }
            // A connection that can't be asked to leave now may be soon.
            let _ = timeout(LOOK_AGAIN, freed).await;
        }
    }

    /// A permit above the limit, for a connection that exists already and would be reset otherwise.
    pub(crate) fn exceed(self: &Arc<Self>, peer: Option<IpAddr>) -> Permit {
        self.used.fetch_add(1, Ordering::AcqRel);
        self.permit(peer)
    }

    fn permit(self: &Arc<Self>, peer: Option<IpAddr>) -> Permit {
        Permit {
            permits: self.clone(),
            place: self.seats.take(peer),
        }
    }

    /// Asks a connection to leave if the limit is near. Those that were asked already count as gone.
    fn make_room(&self) {
        let limit = self.limit.load(Ordering::Acquire);
        let staying = self.used().saturating_sub(self.seats.leaving());
        if staying >= limit - limit / NEARLY_FULL {
            self.seats.ask_one_to_leave();
        }
    }

    /// Counts an accept loop until the guard is dropped.
    pub(crate) fn acceptor(self: &Arc<Self>) -> Running {
        self.acceptors.fetch_add(1, Ordering::AcqRel);
        Running(self.clone())
    }

    /// Ready when no accept loop runs and no connection is open.
    pub(crate) async fn empty(&self) {
        loop {
            let mut emptied = pin!(self.emptied.notified());
            emptied.as_mut().enable();
            if self.acceptors.load(Ordering::Acquire) == 0 && self.used() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

impl Permit {
    /// Registers the calling task: it is woken when the connection must leave.
    pub(super) async fn register(&self) {
        poll_fn(|context| {
            self.place.set_owner(context.waker());
            Poll::Ready(())
        })
        .await;
    }

    /// Notes whose connection this is: a PROXY header names another address than the peer's.
    pub(super) fn is_of(&self, client: IpAddr) {
        self.place.is_of(client);
    }

    /// Notes that bytes have come, and no request yet.
    pub(super) fn spoke(&self) {
        self.permits.seats.spoke(&self.place);
    }

    /// Notes that a request has come.
    pub(super) fn busy(&self) {
        self.permits.seats.busy(&self.place);
    }

    /// Notes that the connection has no request since then.
    pub(super) fn quiet(&self, since: Instant) {
        self.permits.seats.quiet(&self.place, since);
    }

    /// Whether the connection has to make room for another.
    pub(super) fn must_leave(&self) -> bool {
        self.place.must_leave()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Self { permits, place } = self;
        permits.seats.leave(place);
        let before = permits.used.fetch_sub(1, Ordering::AcqRel);
        permits.freed.notify_one();
        if before == 1 {
            permits.emptied.notify_waiters();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.acceptors.fetch_sub(1, Ordering::AcqRel);
        self.0.emptied.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_limit_holds_and_may_be_raised_while_a_connection_waits() {
        let permits = Permits::new(1);
        let first = permits.acquire(None).await;
        first.busy();
        let mut second = Box::pin(permits.acquire(None));
        let waits = poll_fn(|context| Poll::Ready(second.as_mut().poll(context).is_pending()));
        assert!(waits.await);
        permits.set_limit(2);
        let second = second.await;
        assert_eq!(permits.used(), 2);
        drop((first, second));
        permits.empty().await;
    }

    #[tokio::test]
    async fn a_released_permit_goes_to_the_connection_that_waits() {
        let permits = Permits::new(1);
        let first = permits.acquire(None).await;
        let (second, ()) = tokio::join!(permits.acquire(None), async { drop(first) });
        assert_eq!(permits.used(), 1);
        drop(second);
        assert_eq!(permits.used(), 0);
    }

    #[tokio::test]
    async fn above_95_in_a_hundred_each_new_connection_replaces_a_silent_one() {
        let permits = Permits::new(40);
        let mut open = Vec::new();
        for _ in 0..38 {
            open.push(permits.acquire(None).await);
        }
        let must_leave = |open: &[Permit]| open.iter().filter(|one| one.must_leave()).count();
        assert_eq!(must_leave(&open), 0);
        open.push(permits.acquire(None).await);
        assert_eq!(must_leave(&open), 1);
        assert!(open[0].must_leave(), "the oldest");
        open.push(permits.acquire(None).await);
        assert_eq!(must_leave(&open), 2);
        let (_next, ()) = tokio::join!(permits.acquire(None), async {
            drop(open.remove(0));
        });
    }

    #[tokio::test]
    async fn empty_waits_for_accept_loops_too() {
        let permits = Permits::new(1);
        let acceptor = permits.acceptor();
        let connection = permits.exceed(None);
        let ((), ()) = tokio::join!(permits.empty(), async {
            drop(connection);
            drop(acceptor);
        });
    }
}
