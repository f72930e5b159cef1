//! How many connections are open, and how many may be, over all workers.
//!
//! Keeps true: a permit is counted from before its connection is served until it is dropped; the limit may change while
//! connections are open, and never closes one.
//! Must not know: what a connection is.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The counter.
#[derive(Debug)]
pub struct Permits {
    limit: AtomicUsize,
    used: AtomicUsize,
    acceptors: AtomicUsize,
    freed: Notify,
    emptied: Notify,
}

/// One open connection.
#[derive(Debug)]
pub struct Permit(Arc<Permits>);

/// One running accept loop, which may still bring connections.
#[derive(Debug)]
pub struct Running(Arc<Permits>);

impl Permits {
    /// Up to `limit` connections.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(limit),
            used: AtomicUsize::new(0),
            acceptors: AtomicUsize::new(0),
            freed: Notify::new(),
            emptied: Notify::new(),
        })
    }

    /// Changes the limit for connections to come.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Release);
        self.freed.notify_waiters();
    }

    /// Open connections.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    /// A permit, as soon as there is one.
    pub async fn acquire(self: &Arc<Self>) -> Permit {
        loop {
            let mut freed = pin!(self.freed.notified());
            // Registers before looking, so that no release is missed in between.
            freed.as_mut().enable();
            let limit = self.limit.load(Ordering::Acquire);
            let raise = |used| (used < limit).then_some(used + 1);
            let raised = self
                .used
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, raise);
            if raised.is_ok() {
                return Permit(self.clone());
            }
            freed.await;
        }
    }

    /// A permit above the limit, for a connection that exists already and would be reset otherwise.
    pub fn exceed(self: &Arc<Self>) -> Permit {
        self.used.fetch_add(1, Ordering::AcqRel);
        Permit(self.clone())
    }

    /// Counts an accept loop until the guard is dropped.
    pub fn acceptor(self: &Arc<Self>) -> Running {
        self.acceptors.fetch_add(1, Ordering::AcqRel);
        Running(self.clone())
    }

    /// Ready when no accept loop runs and no connection is open.
    pub async fn empty(&self) {
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

impl Drop for Permit {
    fn drop(&mut self) {
        let before = self.0.used.fetch_sub(1, Ordering::AcqRel);
        self.0.freed.notify_one();
        if before == 1 {
            self.0.emptied.notify_waiters();
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
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn the_limit_holds_and_may_be_raised_while_somebody_waits() {
        let permits = Permits::new(1);
        let first = permits.acquire().await;
        let mut second = Box::pin(permits.acquire());
        let waits = poll_fn(|context| Poll::Ready(second.as_mut().poll(context).is_pending()));
        assert!(waits.await);
        permits.set_limit(2);
        let second = second.await;
        assert_eq!(permits.used(), 2);
        drop((first, second));
        permits.empty().await;
    }

    #[tokio::test]
    async fn a_released_permit_goes_to_the_one_who_waits() {
        let permits = Permits::new(1);
        let first = permits.acquire().await;
        let (second, ()) = tokio::join!(permits.acquire(), async { drop(first) });
        assert_eq!(permits.used(), 1);
        drop(second);
        assert_eq!(permits.used(), 0);
    }

    #[tokio::test]
    async fn empty_waits_for_accept_loops_too() {
        let permits = Permits::new(1);
        let acceptor = permits.acceptor();
        let connection = permits.exceed();
        let ((), ()) = tokio::join!(permits.empty(), async {
            drop(connection);
            drop(acceptor);
        });
    }
}
