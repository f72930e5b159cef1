//! The logins of sockets: the handshake's, and those of socket.io's namespaces; for engine.io's polling transport, by
//! the id of the session.
//!
//! Keeps true: a namespace has the login of its latest `CONNECT`, or the handshake's where that carried none; what all
//! sockets of a process keep is bounded. Logins are verified whenever a token passes, and not before: a login may end,
//! and a key may come, while the socket is open.
//! Must not know: verdicts, transports, packets.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// The most namespaces whose logins are kept. Further ones have the login of the handshake.
const NAMESPACES: usize = 16;

/// The most bytes of logins that all sockets together keep. Beyond, a `CONNECT`'s login isn't kept.
const BYTES: usize = 64 * 1024 * 1024;

/// The most sessions of one generation, of which two are kept.
const SESSIONS: usize = 50_000;

/// How long a generation lasts: much longer than any client waits with its next poll.
const GENERATION: Duration = Duration::from_mins(10);

/// The longest session id that is kept. engine.io's have 20 characters.
const LONGEST_ID: usize = 128;

/// The logins of one socket, unverified.
#[derive(Default)]
pub(crate) struct SocketLogins {
    handshake: Option<Box<str>>,
    namespaces: Mutex<Vec<(Box<str>, Box<str>)>>,
    kept: KeptBytes,
}

/// The bytes that one socket keeps, counted with those of all others.
#[derive(Default)]
struct KeptBytes {
    own: AtomicUsize,
    all: Arc<AtomicUsize>,
}

/// The sessions of the polling transport.
#[derive(Default)]
pub(crate) struct SocketSessions {
    generations: Mutex<Generations>,
    bytes: Arc<AtomicUsize>,
}

/// The sessions that were asked about lately, and those before. Dropping the older ones costs no search.
#[derive(Default)]
struct Generations {
    young: HashMap<Box<str>, Arc<SocketLogins>>,
    old: HashMap<Box<str>, Arc<SocketLogins>>,
    began: Duration,
}

// === impl SocketLogins ===

impl SocketLogins {
    /// Notes a client's `CONNECT` to a namespace, with its login.
    pub(crate) fn connect(&self, namespace: &str, login: Option<&str>) {
        let mut namespaces = self.namespaces.lock();
        namespaces.retain(|(name, _)| **name != *namespace);
        if let Some(login) = login
            && namespaces.len() < NAMESPACES
            && self.kept.add(namespace.len() + login.len())
        {
            namespaces.push((namespace.into(), login.into()));
        }
    }

    /// The login that counts for a message of this namespace.
    pub(crate) fn of(&self, namespace: &str) -> Option<Box<str>> {
        let namespaces = self.namespaces.lock();
        let own = namespaces.iter().find(|(name, _)| **name == *namespace);
        own.map(|(_, login)| login)
            .or(self.handshake.as_ref())
            .cloned()
    }
}

impl fmt::Debug for SocketLogins {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SocketLogins")
            .finish_non_exhaustive()
    }
}

// === impl KeptBytes ===

impl KeptBytes {
    /// Counts bytes that are to be kept. What a socket has replaced counts until it ends, so that nobody gains by
    /// replacing.
    fn add(&self, bytes: usize) -> bool {
        if self.all.fetch_add(bytes, Ordering::Relaxed) + bytes > BYTES {
            self.all.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.own.fetch_add(bytes, Ordering::Relaxed);
        true
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
        let handshake = handshake.filter(|login| kept.add(login.len()));
        Arc::new(SocketLogins {
            handshake: handshake.map(Into::into),
            namespaces: Mutex::default(),
            kept,
        })
    }

    /// Remembers the logins of a session. `now` is on the clock's monotonic scale.
    pub(crate) fn remember(&self, id: &str, logins: &Arc<SocketLogins>, now: Duration) {
        if id.len() <= LONGEST_ID {
            let mut generations = self.generations.lock();
            generations.turn(now);
            generations.young.insert(id.into(), Arc::clone(logins));
        }
    }

    /// The logins of a session; `None` for one that isn't remembered.
    pub(crate) fn find(&self, id: &str, now: Duration) -> Option<Arc<SocketLogins>> {
        let mut generations = self.generations.lock();
        generations.turn(now);
        if let Some(found) = generations.young.get(id) {
            return Some(Arc::clone(found));
        }
        let found = generations.old.remove(id)?;
        generations.young.insert(id.into(), Arc::clone(&found));
        Some(found)
    }
}

impl fmt::Debug for SocketSessions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SocketSessions")
            .finish_non_exhaustive()
    }
}

impl Generations {
    fn turn(&mut self, now: Duration) {
        if self.young.len() >= SESSIONS || now.saturating_sub(self.began) >= GENERATION {
            self.old = std::mem::take(&mut self.young);
            self.began = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    #[test]
    fn a_login_belongs_to_its_namespace_and_the_handshakes_to_all_others() {
        let sessions = SocketSessions::default();
        let logins = sessions.begin(Some("handshake"));
        logins.connect("/a", Some("a"));
        logins.connect("/b", None);
        assert_eq!(logins.of("/a").as_deref(), Some("a"));
        for namespace in ["/", "/b", "/c"] {
            assert_eq!(logins.of(namespace).as_deref(), Some("handshake"));
        }
        logins.connect("/a", Some("a2"));
        assert_eq!(logins.of("/a").as_deref(), Some("a2"));
        logins.connect("/a", None);
        assert_eq!(logins.of("/a").as_deref(), Some("handshake"));
    }

    #[test]
    fn all_sockets_together_keep_a_bounded_number_of_bytes() {
        let sessions = SocketSessions::default();
        let logins = sessions.begin(None);
        for number in 0..100 {
            logins.connect(&format!("/{number}"), Some("x"));
        }
        assert_eq!(logins.namespaces.lock().len(), NAMESPACES);
        assert_eq!(logins.of("/99"), None);
        let long = "x".repeat(16 * 1024);
        let many: Vec<_> = (0..5000).map(|_| sessions.begin(Some(&long))).collect();
        assert!(sessions.bytes.load(Ordering::Relaxed) <= BYTES);
        assert_eq!(many.last().unwrap().of("/"), None);
        drop((logins, many));
        assert_eq!(sessions.bytes.load(Ordering::Relaxed), 0);
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
        assert!(sessions.find("a", now + 2 * GENERATION).is_none());
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
}
