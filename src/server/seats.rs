//! Which open connection makes room for a new one when nearly all places are taken.
//!
//! Keeps true: a connection that has a request, a tunnel or a stream is never asked to leave. Others are asked in
//! this order: those that never sent a byte, then those that never finished a request's head, the oldest of each
//! first; then those that have been idle for a while, of the address with most connections the longest idle one; at
//! last those whose first head is still young. All connections are looked at once for many that leave.
//! Must not know: how a connection ends.

use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::terms::clock::timer_now;

/// A connection that has been idle for less is probably used again.
const IDLE: Duration = Duration::from_secs(5);

/// How long a first request's head may take, its TLS handshake included, before the connection makes room ahead of
/// idle ones. Without this, new connections would cut each other off during the handshake while idle ones stay.
const YOUNG: Duration = Duration::from_secs(1);

/// How many connections are chosen at once, and how long a choice of idle ones holds, or an empty one.
const BATCH: usize = 64;
const HOLDS: Duration = Duration::from_millis(250);

/// The kinds of a connection's state, in the lowest bits. The other bits say since when.
const BUSY: u64 = 0;
const SILENT: u64 = 1;
/// Bytes have come, and no request so far: an empty line, half a head, a handshake, a preface.
const UNFINISHED: u64 = 2;
const QUIET: u64 = 3;
const LEAVING: u64 = 4;
const KIND: u64 = 7;
const KIND_BITS: u32 = 3;

/// All open connections.
#[derive(Debug)]
pub(super) struct Seats {
    /// Times are counted from here.
    start: Instant,
    /// Connections that never sent a byte.
    silent: AtomicUsize,
    /// Connections that were asked to leave and haven't left.
    leaving: AtomicUsize,
    house: Mutex<House>,
}

#[derive(Debug, Default)]
struct House {
    seats: Vec<Option<Arc<Seat>>>,
    free: Vec<usize>,
    chosen: VecDeque<Chosen>,
    chosen_at: Option<Instant>,
}

/// One connection, as others see it.
#[derive(Debug)]
struct Seat {
    /// The client's address; `None` on a unix socket. It changes once at most, with a PROXY header.
    address: Mutex<Option<IpAddr>>,
    state: AtomicU64,
    /// Wakes its task.
    task: OnceLock<Waker>,
}

/// A connection that may be asked to leave, if its state is still the same.
#[derive(Debug)]
struct Chosen {
    seat: Arc<Seat>,
    state: u64,
}

/// A connection's place among the others.
#[derive(Debug)]
pub(super) struct Seated {
    index: usize,
    seat: Arc<Seat>,
}

impl Default for Seats {
    fn default() -> Self {
        Self {
            start: timer_now(),
            silent: AtomicUsize::new(0),
            leaving: AtomicUsize::new(0),
            house: Mutex::default(),
        }
    }
}

impl Seats {
    /// A place for a new connection, which hasn't sent a byte yet.
    pub(super) fn take(&self, address: Option<IpAddr>) -> Seated {
        let seat = Arc::new(Seat {
            address: Mutex::new(address.map(|address| address.to_canonical())),
            state: AtomicU64::new(self.at(SILENT, timer_now())),
            task: OnceLock::new(),
        });
        self.silent.fetch_add(1, SeqCst);
        let mut house = self.house.lock();
        let index = house.free.pop().unwrap_or(house.seats.len());
        let entry = Some(Arc::clone(&seat));
        match house.seats.get_mut(index) {
            Some(place) => *place = entry,
            None => house.seats.push(entry),
        }
        Seated { index, seat }
    }

    /// Gives the place of a connection that has ended back.
    pub(super) fn leave(&self, place: &Seated) {
        self.turn(place, BUSY);
        let mut house = self.house.lock();
        if let Some(seat) = house.seats.get_mut(place.index) {
            *seat = None;
        }
        house.free.push(place.index);
    }

    /// Notes that a silent connection has sent bytes, and no request yet. Its age still counts from its beginning.
    pub(super) fn spoke(&self, place: &Seated) {
        let state = &place.seat.state;
        let silent = state.load(SeqCst);
        let unfinished = silent & !KIND | UNFINISHED;
        // A connection that was asked to leave meanwhile has sent nothing that would keep it.
        if silent & KIND == SILENT
            && state
                .compare_exchange(silent, unfinished, SeqCst, SeqCst)
                .is_ok()
        {
            self.silent.fetch_sub(1, SeqCst);
        }
    }

    /// Notes that a connection has a request.
    pub(super) fn busy(&self, place: &Seated) {
        self.turn(place, BUSY);
    }

    /// Notes that a connection has no request since then.
    pub(super) fn quiet(&self, place: &Seated, since: Instant) {
        self.turn(place, self.at(QUIET, since));
    }

    fn turn(&self, place: &Seated, state: u64) {
        let before = place.seat.state.swap(state, SeqCst);
        if let Some(counted) = self.counted(before) {
            counted.fetch_sub(1, SeqCst);
        }
    }

    /// The count of connections in this state, where there is one.
    fn counted(&self, state: u64) -> Option<&AtomicUsize> {
        match state & KIND {
            SILENT => Some(&self.silent),
            LEAVING => Some(&self.leaving),
            _ => None,
        }
    }

    /// Connections that were asked to leave and haven't left.
    pub(super) fn leaving(&self) -> usize {
        self.leaving.load(SeqCst)
    }

    /// Asks one connection to leave. Says whether there was one.
    pub(super) fn ask_one_to_leave(&self) -> bool {
        let mut house = self.house.lock();
        let now = timer_now();
        let holds = house.chosen_at.is_some_and(|at| now < at + HOLDS);
        // Connections that came meanwhile and sent nothing go before all others.
        let of_others = house
            .chosen
            .front()
            .is_none_or(|chosen| chosen.state & KIND != SILENT);
        if !holds || of_others && self.silent.load(SeqCst) > 0 {
            self.choose(&mut house, now);
        }
        let mut chosen_anew = !holds;
        loop {
            let Some(Chosen { seat, state }) = house.chosen.pop_front() else {
                if chosen_anew {
                    return false;
                }
                chosen_anew = true;
                self.choose(&mut house, now);
                continue;
            };
            let leaving = self.at(LEAVING, now);
            let asked = seat.state.compare_exchange(state, leaving, SeqCst, SeqCst);
            if asked.is_err() {
                continue;
            }
            self.leaving.fetch_add(1, SeqCst);
            if let Some(counted) = self.counted(state) {
                counted.fetch_sub(1, SeqCst);
            }
            if let Some(task) = seat.task.get() {
                task.wake_by_ref();
            }
            return true;
        }
    }

    fn choose(&self, house: &mut House, now: Instant) {
        house.chosen_at = Some(now);
        let seats = house.seats.iter().flatten();
        let before = |age| now.checked_sub(age).map(|then| self.since(then));
        house.chosen = choose(seats, before(YOUNG), before(IDLE));
    }

    fn at(&self, kind: u64, since: Instant) -> u64 {
        self.since(since) << KIND_BITS | kind
    }

    /// Milliseconds from the start.
    fn since(&self, when: Instant) -> u64 {
        let since = when.saturating_duration_since(self.start);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX >> KIND_BITS)
    }
}

impl Seated {
    /// Sets the task that is woken when the connection is asked to leave. Later calls change nothing.
    pub(super) fn set_owner(&self, task: &Waker) {
        self.seat.task.get_or_init(|| task.clone());
    }

    /// Sets the client's address, where it isn't the peer's.
    pub(super) fn is_of(&self, client: IpAddr) {
        *self.seat.address.lock() = Some(client.to_canonical());
    }

    /// Whether the connection was asked to leave, and has sent no request since.
    pub(super) fn must_leave(&self) -> bool {
        self.seat.state.load(SeqCst) & KIND == LEAVING
    }
}

/// Up to [`BATCH`] connections in the order in which they leave: the silent ones, and those whose first head began at
/// `grown` or before; if there are none, those that are quiet since `ripe` or before; if there are none, those that
/// never had a request.
fn choose<'s>(
    seats: impl Iterator<Item = &'s Arc<Seat>> + Clone,
    grown: Option<u64>,
    ripe: Option<u64>,
) -> VecDeque<Chosen> {
    let states = seats.map(|seat| (seat.state.load(SeqCst), seat));
    let is_since =
        |state: u64, then: Option<u64>| then.is_some_and(|then| state >> KIND_BITS <= then);
    let first = oldest(states.clone().filter(|(state, _)| match state & KIND {
        SILENT => true,
        UNFINISHED => is_since(*state, grown),
        _ => false,
    }));
    if !first.is_empty() {
        return first;
    }
    let idle = of_most(states.clone(), |state| {
        state & KIND == QUIET && is_since(state, ripe)
    });
    if !idle.is_empty() {
        return idle;
    }
    oldest(states.filter(|(state, _)| matches!(state & KIND, SILENT | UNFINISHED)))
}

/// The silent connections first, then the others; the oldest of each first.
fn oldest<'s>(states: impl Iterator<Item = (u64, &'s Arc<Seat>)>) -> VecDeque<Chosen> {
    let mut states: Vec<_> = states.collect();
    states.sort_unstable_by_key(|(state, _)| (state & KIND, *state));
    states.into_iter().take(BATCH).map(Chosen::from).collect()
}

/// Takes the longest quiet connection of the address with most connections, again and again.
fn of_most<'s>(
    states: impl Iterator<Item = (u64, &'s Arc<Seat>)>,
    takes: impl Fn(u64) -> bool,
) -> VecDeque<Chosen> {
    let mut all: HashMap<Option<IpAddr>, usize> = HashMap::new();
    let mut quiet: HashMap<Option<IpAddr>, Vec<(u64, &Arc<Seat>)>> = HashMap::new();
    for (state, seat) in states {
        let address = *seat.address.lock();
        *all.entry(address).or_default() += 1;
        if takes(state) {
            quiet.entry(address).or_default().push((state, seat));
        }
    }
    for quiet in quiet.values_mut() {
        // The longest quiet connection is taken from the end.
        quiet.sort_unstable_by_key(|(state, _)| std::cmp::Reverse(*state));
    }
    let mut most: BinaryHeap<_> = quiet
        .keys()
        .map(|address| (all.get(address).copied().unwrap_or_default(), *address))
        .collect();
    let mut leaving = VecDeque::new();
    while leaving.len() < BATCH
        && let Some((count, address)) = most.pop()
    {
        let longest_quiet = quiet.get_mut(&address).and_then(Vec::pop);
        if let Some(one) = longest_quiet {
            leaving.push_back(one.into());
            most.push((count.saturating_sub(1), address));
        }
    }
    leaving
}

impl From<(u64, &Arc<Seat>)> for Chosen {
    fn from((state, seat): (u64, &Arc<Seat>)) -> Self {
        Self {
            seat: Arc::clone(seat),
            state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    fn leavers(seats: &Seats, places: &[(&'static str, Seated)]) -> Vec<&'static str> {
        let mut left = Vec::new();
        while seats.ask_one_to_leave() {
            let asked = places
                .iter()
                .find(|(name, place)| !left.contains(name) && place.must_leave());
            left.push(asked.unwrap().0);
        }
        left
    }

    #[tokio::test(start_paused = true)]
    async fn the_silent_go_first_then_the_unfinished_then_the_idle_of_whom_has_most_and_the_busy_never()
     {
        let seats = Seats::default();
        let mut places = Vec::new();
        let mut come = async |name, number| {
            places.push((name, seats.take(Some(address(number)))));
            tokio::time::advance(Duration::from_secs(1)).await;
        };
        come("silent, the oldest", 1).await;
        come("alone and idle for long", 2).await;
        come("busy", 3).await;
        come("idle of many", 3).await;
        come("idle of many for longer", 3).await;
        come("just idle, of many", 3).await;
        come("half a head, the oldest", 1).await;
        come("half a head, the newest", 1).await;
        come("silent, the newest", 1).await;
        let now = timer_now();
        let ago = |seconds| now - Duration::from_secs(seconds);
        for (place, since) in [(1, 6), (3, 5), (4, 6), (5, 4)] {
            seats.quiet(&places[place].1, ago(since));
        }
        seats.busy(&places[2].1);
        places.push(("half a head, just begun", seats.take(None)));
        for place in [9, 7, 6] {
            seats.spoke(&places[place].1);
        }
        assert_eq!(
            leavers(&seats, &places),
            [
                "silent, the oldest",
                "silent, the newest",
                "half a head, the oldest",
                "half a head, the newest",
                "idle of many for longer",
                "idle of many",
                "alone and idle for long",
                "half a head, just begun",
            ]
        );
        assert_eq!(seats.leaving(), 8);
        tokio::time::advance(HOLDS + Duration::from_secs(1)).await;
        assert_eq!(leavers(&seats, &places).len(), 1, "it is idle for 5 s now");
        for (_, place) in &places {
            seats.leave(place);
        }
        assert_eq!((seats.leaving(), seats.silent.load(SeqCst)), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_a_request_when_asked_to_leave_stays_and_one_with_half_a_head_does_not() {
        let seats = Seats::default();
        let place = seats.take(None);
        assert!(seats.ask_one_to_leave());
        seats.spoke(&place);
        assert!(place.must_leave());
        seats.busy(&place);
        assert!(!place.must_leave());
        assert_eq!(seats.leaving(), 0);
        assert!(!seats.ask_one_to_leave());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_new_connection_goes_before_idle_ones_that_were_chosen_already() {
        let seats = Seats::default();
        let places: Vec<_> = (0..3).map(|_| seats.take(None)).collect();
        let long_ago = timer_now();
        tokio::time::advance(Duration::from_secs(10)).await;
        for place in &places {
            seats.quiet(place, long_ago);
        }
        assert!(seats.ask_one_to_leave());
        let silent = seats.take(None);
        assert!(seats.ask_one_to_leave());
        assert!(silent.must_leave());
    }
}
