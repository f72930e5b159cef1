//! A limited number of sockets: taken at once while there are plenty, waited for in turn otherwise.
//!
//! Keeps true: no slot is given beyond the limit of the moment; while there are plenty, taking and giving back cost
//! one atomic operation each. The last quarter is given in small parts: one client may have a quarter of what is free
//! of it at any time, so that another client finds some however many sockets the first one holds.
//! Must not know: what a socket is for.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::Claimant;
use super::queue::{Party, Queue};

/// The part of the budget that is held back for clients that have few sockets: the last of so many.
const HELD_BACK: usize = 4;

/// How much of what is free one client may have of the part that is held back: one of so many parts. With as many
/// greedy clients, half of it stays free.
const PART: usize = 4;

/// The sockets of one kind that the process may have.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicUsize,
    used: AtomicUsize,
    /// Waiters in the queue. A waiter raises this before it looks whether a slot is free, and a slot lowers `used`
    /// before it looks whether a waiter is there, so that one of the two sees the other.
    waiting: AtomicUsize,
    refused: AtomicU64,
    demand: Mutex<BudgetDemand>,
    shortage: Notify,
}

/// The state that is needed only when there aren't plenty.
#[derive(Debug, Default)]
struct BudgetDemand {
    queue: Queue<oneshot::Sender<SocketSlot>>,
    /// How many slots of the part that is held back each party has.
    held: HashMap<Party, usize>,
}

/// One socket's place. Dropping it gives the place back.
#[derive(Debug)]
pub struct SocketSlot {
    /// `None` when the place was given back already.
    budget: Option<Arc<Budget>>,
    /// The party that the place counts for, if it is of the part that is held back.
    client: Option<Party>,
}

impl Budget {
    /// `limit` sockets.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(limit),
            used: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            demand: Mutex::default(),
            shortage: Notify::new(),
        })
    }

    /// Changes the limit for sockets to come.
    pub(crate) fn set_limit(self: &Arc<Self>, limit: usize) {
        self.limit.store(limit, SeqCst);
        self.serve(&mut self.demand.lock());
    }

    /// How many sockets there may be.
    pub(crate) fn limit(&self) -> usize {
        self.limit.load(SeqCst)
    }

    /// How many sockets there are.
    pub(crate) fn used(&self) -> usize {
        self.used.load(SeqCst)
    }

    /// How many requests waited in vain.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(SeqCst)
    }

    /// Whether there aren't plenty, so that idle sockets should be closed rather than kept.
    pub(crate) fn is_short(&self) -> bool {
        self.used() >= plenty(self.limit())
    }

    /// Whether a request waits, so that idle sockets have to be closed.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.load(SeqCst) > 0
    }

    /// Ready when a request begins to wait.
    pub(crate) fn shortage(&self) -> Notified<'_> {
        self.shortage.notified()
    }

    /// A slot, if there are plenty.
    fn take(self: &Arc<Self>) -> Option<SocketSlot> {
        if self.is_wanted() {
            return None;
        }
        let plenty = plenty(self.limit());
        let raise = |used| (used < plenty).then_some(used + 1);
        self.used
            .try_update(SeqCst, SeqCst, raise)
            .is_ok()
            .then(|| SocketSlot::new(self, None))
    }

    /// A slot, at once or when it is the claimant's turn; `None` if that takes longer than `patience`.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        claimant: Claimant,
        patience: Duration,
    ) -> Option<SocketSlot> {
        if let Some(slot) = self.take() {
            return Some(slot);
        }
        let (sender, receiver) = oneshot::channel();
        let _waiting = self.join(claimant, sender);
        if self.is_wanted() {
            self.shortage.notify_waiters();
        }
        if let Ok(Ok(slot)) = timeout(patience, receiver).await {
            return Some(slot);
        }
        self.refused.fetch_add(1, SeqCst);
        None
    }

    fn join(
        self: &Arc<Self>,
        claimant: Claimant,
        sender: oneshot::Sender<SocketSlot>,
    ) -> Waiter<'_> {
        let mut demand = self.demand.lock();
        let ticket = demand.queue.join(claimant, sender);
        self.waiting.fetch_add(1, SeqCst);
        self.serve(&mut demand);
        Waiter {
            budget: self,
            claimant,
            ticket,
        }
    }

    /// Gives what is free to those whose turn it is.
    fn serve(self: &Arc<Self>, demand: &mut BudgetDemand) {
        while self.is_wanted() {
            let BudgetDemand { queue, held } = demand;
            let limit = self.limit();
            let raise = |used| (used < limit).then_some(used + 1);
            let Ok(used) = self.used.try_update(SeqCst, SeqCst, raise) else {
                return;
            };
            let of_plenty = used < plenty(limit);
            let most = ((limit - used) / PART).max(1);
            let may =
                |client: &Party| of_plenty || held.get(client).copied().unwrap_or_default() < most;
            let Some((client, sender)) = queue.next(may) else {
                self.used.fetch_sub(1, SeqCst);
                return;
            };
            self.waiting.fetch_sub(1, SeqCst);
            let client = (!of_plenty).then_some(client);
            if let Some(client) = client {
                *held.entry(client).or_default() += 1;
            }
            // A waiter that has just given up doesn't take the slot. It must not be dropped here, where the lock is
            // held.
            if let Err(mut slot) = sender.send(SocketSlot::new(self, client)) {
                slot.budget = None;
                self.used.fetch_sub(1, SeqCst);
                demand.give_back(client);
            }
        }
    }
}

/// How many slots are given without a queue.
fn plenty(limit: usize) -> usize {
    limit - limit / HELD_BACK
}

impl BudgetDemand {
    fn give_back(&mut self, client: Option<Party>) {
        let Some(client) = client else {
            return;
        };
        if let Some(count) = self.held.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.held.remove(&client);
            }
        }
    }
}

/// A place in the queue. Dropping it leaves the queue.
struct Waiter<'budget> {
    budget: &'budget Budget,
    claimant: Claimant,
    ticket: u64,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut demand = self.budget.demand.lock();
        if demand.queue.leave(self.claimant, self.ticket) {
            self.budget.waiting.fetch_sub(1, SeqCst);
        }
    }
}

impl SocketSlot {
    fn new(budget: &Arc<Budget>, client: Option<Party>) -> Self {
        Self {
            budget: Some(Arc::clone(budget)),
            client,
        }
    }

    /// Notes that the socket is kept idle, so that it counts for no client.
    pub(crate) fn disown(&mut self) {
        let client = self.client.take();
        if client.is_some()
            && let Some(budget) = &self.budget
        {
            budget.demand.lock().give_back(client);
        }
    }
}

impl Drop for SocketSlot {
    fn drop(&mut self) {
        let Some(budget) = self.budget.take() else {
            return;
        };
        budget.used.fetch_sub(1, SeqCst);
        if self.client.is_some() || budget.is_wanted() {
            let mut demand = budget.demand.lock();
            demand.give_back(self.client);
            budget.serve(&mut demand);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(2);

    fn client(number: u8, connection: u64) -> Claimant {
        Claimant {
            address: Some([192, 0, 2, number].into()),
            connection,
        }
    }

    async fn take_all(budget: &Arc<Budget>, claimant: Claimant) -> Vec<SocketSlot> {
        let mut slots = Vec::new();
        while let Some(slot) = budget.acquire(claimant, Duration::ZERO).await {
            slots.push(slot);
        }
        slots
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_may_have_most_and_another_still_finds_some() {
        let budget = Budget::new(160);
        let greedy = take_all(&budget, client(1, 1)).await;
        // The address gets 120, and a fifth of the last 40: no more than a quarter of the sockets that it leaves free.
        assert_eq!(greedy.len(), 128);
        let other = budget.acquire(client(2, 2), Duration::ZERO).await;
        assert!(other.is_some());
        assert_eq!((budget.used(), budget.refused()), (129, 1));
        drop((greedy, other));
        assert_eq!(budget.used(), 0);
        assert!(budget.demand.lock().held.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_are_greedy_one_more_is_served() {
        let budget = Budget::new(512);
        let mut held = Vec::new();
        for number in 1..=17 {
            held.push(take_all(&budget, client(number, u64::from(number))).await);
        }
        assert!(budget.is_short() && budget.used() < 512);
        for _ in 0..20 {
            let slot = budget.acquire(client(100, 100), Duration::ZERO).await;
            assert!(slot.is_some());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_is_given_back_goes_to_the_waiting_claimants_in_turn() {
        let budget = Budget::new(1);
        let slot = budget.acquire(client(1, 1), PATIENCE).await;
        let order = Mutex::new(Vec::new());
        let wait = async |claimant, name| {
            let slot = budget.acquire(claimant, PATIENCE).await;
            order.lock().push(name);
            drop(slot);
        };
        tokio::join!(
            biased;
            wait(client(1, 1), "first of one"),
            wait(client(1, 1), "second of one"),
            wait(client(2, 2), "other"),
            async {
                assert!(budget.is_wanted());
                drop(slot);
            }
        );
        assert_eq!(*order.lock(), ["first of one", "other", "second of one"]);
        assert_eq!((budget.used(), budget.refused()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_patience_and_with_the_claimant() {
        let budget = Budget::new(1);
        let slot = budget.acquire(client(1, 1), PATIENCE).await;
        assert!(budget.acquire(client(2, 2), PATIENCE).await.is_none());
        assert_eq!(budget.refused(), 1);
        let gone = timeout(
            Duration::from_millis(1),
            budget.acquire(client(2, 2), PATIENCE),
        );
        assert!(gone.await.is_err());
        assert!(!budget.is_wanted());
        drop(slot);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_raised_limit_reaches_waiting_claimants_and_a_lowered_one_closes_nothing() {
        let budget = Budget::new(1);
        let first = budget.acquire(client(1, 1), PATIENCE).await;
        let (second, ()) = tokio::join!(biased; budget.acquire(client(2, 2), PATIENCE), async {
            budget.set_limit(2);
        });
        assert!(first.is_some() && second.is_some());
        budget.set_limit(1);
        assert_eq!(budget.used(), 2);
        drop(first);
        assert!(budget.acquire(client(3, 3), PATIENCE).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_is_kept_counts_for_no_claimant() {
        let budget = Budget::new(4);
        let mut slots = take_all(&budget, client(1, 1)).await;
        assert_eq!(slots.len(), 4);
        for slot in &mut slots {
            slot.disown();
        }
        assert!(budget.demand.lock().held.is_empty());
        assert_eq!(budget.used(), 4);
    }
}
