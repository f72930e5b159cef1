//! The logins of all open sockets: how much they keep, and for engine.io's polling transport the way from a session's id
//! to its logins.
//!
//! Keeps true: what all sockets of a process keep is bounded, and what it puts into a store that replicas share; a
//! session is found by its id, by every worker, as long as it is used; what clients make up takes no session's place.
//! Must not know: which login counts, transports, packets.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::socket_logins::SocketLogins;

/// The most bytes of logins that all sockets together keep. Beyond, a `CONNECT`'s login isn't kept.
const BYTES: usize = 64 * 1024 * 1024;

/// The most bytes of logins that one socket keeps: a long one for nearly each of its namespaces.
const BYTES_OF_ONE: usize = 256 * 1024;

/// How many bytes of logins are so many that sessions are forgotten sooner.
const CROWDED: usize = BYTES / 4 * 3;

/// The most sessions of one generation, of which two are kept.
const SESSIONS: usize = 50_000;

/// How long a generation lasts: much longer than any client waits with its next poll.
const GENERATION: Duration = Duration::from_mins(10);

/// How long one lasts at least: longer than the 45 seconds after which engine.io ends a session of which it hears nothing.
const SHORT_GENERATION: Duration = Duration::from_mins(1);

/// How many claims there are at least before the dead ones are looked for.
const CLAIMS: usize = 1024;

/// The longest that a session is remembered here after its last use, and in a store.
pub(crate) const REMEMBERED: Duration = Duration::from_mins(20);

/// The longest session id that is kept. engine.io's have 20 characters.
pub(super) const LONGEST_ID: usize = 128;

/// The most bytes that go to a store while a generation lasts.
const PUT: usize = BYTES;

/// The bytes that a store takes for a session beside its logins.
const PUT_BESIDE: usize = 256;

/// The most sessions of which a store is told at once. The others wait for their next use.
const ATTENDED: usize = 256;

/// The bytes that one socket keeps, counted with those of all others.
#[derive(Default)]
pub(super) struct KeptBytes {
    own: AtomicUsize,
    all: Arc<AtomicUsize>,
}

/// The sessions of the polling transport.
#[derive(Default)]
pub(crate) struct SocketSessions {
    generations: Mutex<Generations>,
    bytes: Arc<AtomicUsize>,
    put: Mutex<PutBytes>,
    attended: Arc<AtomicUsize>,
}

/// The sessions that were asked about lately, and those before. Dropping the older ones costs no search.
#[derive(Default)]
struct Generations {
    young: HashMap<Box<str>, Arc<SocketLogins>>,
    old: HashMap<Box<str>, Arc<SocketLogins>>,
    began: Duration,
    /// The sessions that clients name in requests whose answers haven't come: anybody can make an id up.
    claims: HashMap<Box<str>, Weak<SocketLogins>>,
    /// How many claims there may be before the dead ones go.
    claims_until_sweep: usize,
}

/// The bytes that went to a store since a time.
#[derive(Default)]
struct PutBytes {
    since: Duration,
    bytes: usize,
}

/// The place of somebody who tells a store of a session.
pub(crate) struct AttendingPlace(Arc<AtomicUsize>);

// === impl KeptBytes ===

impl KeptBytes {
    /// Counts bytes that are to be kept, unless the socket keeps too many, or all together do.
    pub(super) fn add(&self, bytes: usize) -> bool {
        if self.own.load(Ordering::Relaxed).saturating_add(bytes) > BYTES_OF_ONE {
            return false;
        }
        if self.all.fetch_add(bytes, Ordering::Relaxed) + bytes > BYTES {
            self.all.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.own.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// Gives back bytes that were counted and are kept no longer.
    pub(super) fn give_back(&self, bytes: usize) {
        self.own.fetch_sub(bytes, Ordering::Relaxed);
        self.all.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for KeptBytes {
    fn drop(&mut self) {
        self.all.fetch_sub(*self.own.get_mut(), Ordering::Relaxed);
    }
}

// === impl SocketSessions ===

impl SocketSessions {
    /// The logins of a new socket, whose handshake carried this one.
    pub(crate) fn begin(&self, handshake: Option<&str>) -> Arc<SocketLogins> {
        let kept = KeptBytes {
            own: AtomicUsize::new(0),
            all: Arc::clone(&self.bytes),
        };
        Arc::new(SocketLogins::new(handshake, kept))
    }

    /// Remembers the logins of a session. `now` is on the clock's monotonic scale.
    pub(crate) fn remember(&self, id: &str, logins: &Arc<SocketLogins>, now: Duration) {
        if id.len() <= LONGEST_ID {
            let mut generations = self.generations.lock();
            generations.turn(now, self.is_crowded());
            generations.claims.remove(id);
            generations.young.insert(id.into(), Arc::clone(logins));
        }
    }

    /// The logins of a session; `None` for one that isn't remembered.
    pub(crate) fn find(&self, id: &str, now: Duration) -> Option<Arc<SocketLogins>> {
        let mut generations = self.generations.lock();
        generations.turn(now, self.is_crowded());
        if let Some(found) = generations.young.get(id) {
            return Some(Arc::clone(found));
        }
        let found = generations.old.remove(id)?;
        generations.young.insert(id.into(), Arc::clone(&found));
        Some(found)
    }

    /// The logins of a session that a client names, of which nothing is known: those of its other requests, or new ones.
    /// They are forgotten together with these requests, unless an answer of the backend bears the client out.
    pub(crate) fn claim(
        &self,
        id: &str,
        begin: impl FnOnce() -> Arc<SocketLogins>,
    ) -> Arc<SocketLogins> {
        let mut generations = self.generations.lock();
        let claimed = generations.claims.get(id).and_then(Weak::upgrade);
        claimed.unwrap_or_else(|| {
            let logins = begin();
            if id.len() <= LONGEST_ID {
                generations.sweep();
                let claim = Arc::downgrade(&logins);
                generations.claims.insert(id.into(), claim);
            }
            logins
        })
    }

    fn is_crowded(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > CROWDED
    }

    /// Counts bytes of a session's logins that are to go to a store; whether they may.
    pub(crate) fn may_put(&self, bytes: usize, now: Duration) -> bool {
        let mut put = self.put.lock();
        if now.saturating_sub(put.since) >= GENERATION {
            *put = PutBytes {
                since: now,
                bytes: 0,
            };
        }
        let all = put.bytes + PUT_BESIDE + bytes;
        let may = all <= PUT;
        if may {
            put.bytes = all;
        }
        may
    }

    /// A place to tell a store of a session; `None` where all are taken.
    pub(crate) fn attend(&self) -> Option<AttendingPlace> {
        let place = AttendingPlace(Arc::clone(&self.attended));
        (self.attended.fetch_add(1, Ordering::Relaxed) < ATTENDED).then_some(place)
    }
}

impl fmt::Debug for SocketSessions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SocketSessions")
            .finish_non_exhaustive()
    }
}

impl Drop for AttendingPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Generations {
    fn turn(&mut self, now: Duration, is_crowded: bool) {
        let lasts = if is_crowded {
            SHORT_GENERATION
        } else {
            GENERATION
        };
        if self.young.len() >= SESSIONS || now.saturating_sub(self.began) >= lasts {
            self.old = std::mem::take(&mut self.young);
            self.began = now;
        }
    }

    /// Forgets the claims whose requests have ended, once there are twice as many claims as lived last time.
    fn sweep(&mut self) {
        if self.claims.len() >= self.claims_until_sweep.max(CLAIMS) {
            self.claims.retain(|_, claim| claim.strong_count() > 0);
            self.claims_until_sweep = 2 * self.claims.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    #[test]
    fn all_sockets_together_keep_a_bounded_number_of_bytes() {
        let sessions = SocketSessions::default();
        let long = "x".repeat(16 * 1024);
        let many: Vec<_> = (0..5000).map(|_| sessions.begin(Some(&long))).collect();
        assert!(sessions.bytes.load(Ordering::Relaxed) <= BYTES);
        assert_eq!(many.last().unwrap().of("/"), None);
        drop(many);
        assert_eq!(sessions.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn one_socket_leaves_room_for_all_others() {
        let sessions = SocketSessions::default();
        let long = "x".repeat(16 * 1024);
        let greedy = sessions.begin(Some(&long));
        for number in 0..10_000 {
            greedy.connect(&format!("/{}", number % 20), Some(&long));
            greedy.connect("/", Some(&long));
        }
        assert!(sessions.bytes.load(Ordering::Relaxed) <= BYTES_OF_ONE);
        assert_eq!(sessions.begin(Some("a")).of("/").as_deref(), Some("a"));
        // What is replaced makes room.
        for _ in 0..17 {
            greedy.connect("/0", Some("short"));
            assert_eq!(greedy.of("/0").as_deref(), Some("short"));
            greedy.connect("/0", None);
        }
        drop(greedy);
        assert_eq!(sessions.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_clients_make_up_is_forgotten_with_their_requests() {
        let sessions = SocketSessions::default();
        sessions.remember("real", &sessions.begin(Some("real")), NOW);
        let long = "x".repeat(16 * 1024);
        for number in 0..3 * SESSIONS {
            let id = format!("made up {number}");
            sessions.claim(&id, || sessions.begin(Some(&long)));
            assert!(sessions.find(&id, NOW).is_none());
        }
        assert!(sessions.find("real", NOW).is_some());
        assert_eq!(sessions.bytes.load(Ordering::Relaxed), "real".len());
        assert!(sessions.generations.lock().claims.len() <= CLAIMS);
        // The requests of one session know its logins while they last, and later ones once an answer has come.
        let poll = sessions.claim("a", || sessions.begin(None));
        sessions
            .claim("a", || unreachable!())
            .connect("/", Some("a"));
        assert_eq!(poll.of("/").as_deref(), Some("a"));
        sessions.remember("a", &poll, NOW);
        drop(poll);
        let known = sessions.find("a", NOW).unwrap();
        assert_eq!(known.of("/").as_deref(), Some("a"));
    }

    #[test]
    fn where_logins_are_many_a_session_that_is_not_used_makes_room_sooner() {
        let sessions = SocketSessions::default();
        let long = "x".repeat(16 * 1024);
        for number in 0..BYTES / long.len() {
            let logins = sessions.begin(Some(&long));
            sessions.remember(&number.to_string(), &logins, NOW);
        }
        let soon = NOW + SHORT_GENERATION;
        assert!(sessions.find("0", soon).is_some());
        assert!(sessions.find("0", soon + SHORT_GENERATION).is_some());
        assert!(sessions.find("1", soon + SHORT_GENERATION).is_none());
        assert!(sessions.bytes.load(Ordering::Relaxed) < CROWDED);
    }

    #[test]
    fn a_session_is_remembered_as_long_as_it_is_asked_about() {
        let sessions = SocketSessions::default();
        sessions.remember("a", &sessions.begin(Some("a")), NOW);
        let mut now = NOW;
        for _ in 0..10 {
            now += GENERATION;
            assert!(sessions.find("a", now).is_some());
        }
        assert!(sessions.find("b", now).is_none());
        sessions.find("b", now + GENERATION);
        assert!(sessions.find("a", now + REMEMBERED).is_none());
    }

    #[test]
    fn the_sessions_asked_about_longest_ago_go_first() {
        let sessions = SocketSessions::default();
        let logins = sessions.begin(None);
        for number in 0..3 * SESSIONS {
            sessions.remember(&number.to_string(), &logins, NOW);
            assert!(sessions.find("0", NOW).is_some(), "{number}");
        }
        let generations = sessions.generations.lock();
        assert!(generations.young.len() + generations.old.len() <= 2 * SESSIONS + 2);
        drop(generations);
        sessions.remember(&"x".repeat(LONGEST_ID + 1), &logins, NOW);
        assert!(sessions.find(&"x".repeat(LONGEST_ID + 1), NOW).is_none());
    }

    #[test]
    fn a_store_gets_a_bounded_number_of_bytes_and_a_bounded_number_of_sessions_at_once() {
        let sessions = SocketSessions::default();
        let put = (0..PUT).take_while(|_| sessions.may_put(1000, NOW)).count();
        assert_eq!(put, PUT / (1000 + PUT_BESIDE));
        assert!(!sessions.may_put(1000, NOW + GENERATION / 2));
        assert!(sessions.may_put(1000, NOW + GENERATION));
        let mut places: Vec<_> = (0..ATTENDED).map(|_| sessions.attend()).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(sessions.attend().is_none());
        places.pop();
        assert!(sessions.attend().is_some());
    }
}
