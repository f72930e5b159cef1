//! The logins of one socket: the handshake's, and those of socket.io's namespaces.
//!
//! Keeps true: a namespace has the login of its latest `CONNECT`, or the handshake's where that carried none; what a
//! socket keeps is bounded. Logins are verified whenever a token passes, and not before: a login may end, and a key may
//! come, while the socket is open.
//!
//! A session that replicas share is known in parts: what was heard here counts from the moment on, and what the store has
//! counts where this replica has heard nothing that the store lacks. Nobody orders what two replicas heard at once, or
//! while the store gave no answer: the later one to reach the store stays. Both were logins of the same client.
//! Must not know: verdicts, transports, packets, when the store is asked.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::login_seals::{LoginSeals, SealedLogin, SessionSeal};
use super::socket_sessions::{KeptBytes, LONGEST_ID};
use crate::terms::clock::Entropy;

/// The most namespaces whose logins are kept. Further ones have the login of the handshake.
pub(super) const NAMESPACES: usize = 16;

/// The longest namespace whose attachments are told from others. Those of a longer one have the login of `/`.
const LONGEST_NAMESPACE: usize = 256;

/// The handshake, among namespaces, whose names begin with a slash.
const HANDSHAKE: &str = "";

/// The logins of one socket, unverified.
#[derive(Default)]
pub(crate) struct SocketLogins {
    known: Mutex<KnownLogins>,
    kept: KeptBytes,
}

#[derive(Default)]
struct KnownLogins {
    logins: Vec<KnownLogin>,
    /// Boxed, for most sockets never have one, and all of them are many.
    shared: Option<Box<SharedSession>>,
    /// Boxed for the same reason.
    announced: Option<Box<AnnouncedAttachments>>,
}

/// The attachments of an event that haven't passed.
struct AnnouncedAttachments {
    namespace: Box<str>,
    /// At least one.
    left: usize,
}

/// A namespace's login as this replica knows it.
struct KnownLogin {
    namespace: Box<str>,
    /// `None` where the namespace was entered without one.
    login: Option<Box<str>>,
    /// The number of the change that the store lacks; 0 where it lacks none.
    change: u64,
}

impl KnownLogin {
    /// How many bytes are counted as kept.
    fn bytes(&self) -> usize {
        self.namespace.len() + self.login.as_ref().map_or(0, |login| login.len())
    }
}

/// The part of a session that replicas share.
struct SharedSession {
    /// The id, which leads to the session.
    id: Box<str>,
    /// Whether the backend has told the id to a client through this replica, or the store has it: anybody can make an
    /// id up.
    is_known: bool,
    /// The name under which the store was told. Another certificate makes another.
    name: [u8; 32],
    /// How many changes the store hasn't been told at once, counted up.
    changes: u64,
    /// Exchanges with the store take turns, so that none puts an older login in the place of a newer.
    turn: Arc<tokio::sync::Mutex<()>>,
    attendance: Attendance,
    /// When the store is to be told that the session lives, on the clock's monotonic scale.
    due: Duration,
}

/// Whether somebody sees to it that the store has what was heard here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attendance {
    Nobody,
    Attended,
    /// More was heard meanwhile.
    AttendedAgain,
}

/// What goes to the store in one exchange.
pub(crate) struct OutgoingLogins {
    /// The session's seal.
    pub seal: SessionSeal,
    /// Whether the store may make the session.
    pub may_begin: bool,
    /// The logins that the store lacks.
    pub logins: Vec<SealedLogin>,
    /// The last change among them.
    last_change: u64,
}

// === impl SocketLogins ===

impl SocketLogins {
    /// The logins of a new socket, whose handshake carried this one.
    pub(super) fn new(handshake: Option<&str>, kept: KeptBytes) -> Self {
        let logins = Self {
            known: Mutex::default(),
            kept,
        };
        if handshake.is_some_and(|login| logins.kept.add(login.len())) {
            logins.known.lock().keep(HANDSHAKE, handshake, 0);
        }
        logins
    }

    /// Notes a client's `CONNECT` to a namespace, with its login.
    pub(crate) fn connect(&self, namespace: &str, login: Option<&str>) {
        let mut known = self.known.lock();
        let change = known.next_change();
        known.put(&self.kept, namespace, login, change);
    }

    /// The login that counts for a message of this namespace.
    pub(crate) fn of(&self, namespace: &str) -> Option<Box<str>> {
        let known = self.known.lock();
        let of = |namespace| known.find(namespace).and_then(|known| known.login.clone());
        of(namespace).or_else(|| of(HANDSHAKE))
    }

    /// Notes a text message of this namespace, after which as many attachments follow. What is left of an earlier one is
    /// forgotten, as socket.io's parser does it.
    pub(crate) fn announce(&self, namespace: &str, attachments: usize) {
        let is_kept = attachments > 0 && namespace.len() <= LONGEST_NAMESPACE;
        let announced = is_kept.then(|| {
            Box::new(AnnouncedAttachments {
                namespace: namespace.into(),
                left: attachments,
            })
        });
        self.known.lock().announced = announced;
    }

    /// The namespace of the next attachment; `None` where none is announced.
    pub(crate) fn of_attachment(&self) -> Option<Box<str>> {
        let known = self.known.lock();
        let announced = known.announced.as_ref()?;
        Some(announced.namespace.clone())
    }

    /// Notes that an attachment has passed.
    pub(crate) fn attached(&self) {
        let mut known = self.known.lock();
        if let Some(announced) = &mut known.announced {
            announced.left -= 1;
            if announced.left == 0 {
                known.announced = None;
            }
        }
    }

    /// Whether no login counts for a message of this namespace, though a `CONNECT` to it may have been heard elsewhere a
    /// moment ago.
    pub(crate) fn may_be_late(&self, namespace: &str) -> bool {
        let known = self.known.lock();
        let is_shared = known.shared.as_ref().is_some_and(|shared| shared.is_known);
        is_shared && known.find(namespace).is_none() && {
            let handshake = known.find(HANDSHAKE);
            handshake.is_none_or(|handshake| handshake.login.is_none())
        }
    }
}

/// The session that replicas share.
impl SocketLogins {
    /// Begins to share the session of this id. `is_open` says that the backend has told it to the client just now; from a
    /// client alone it is a claim.
    pub(crate) fn share(&self, id: &str, is_open: bool, due: Duration) {
        let mut known = self.known.lock();
        if known.shared.is_some() || id.len() > LONGEST_ID {
            return;
        }
        known.shared = Some(Box::new(SharedSession {
            id: id.into(),
            is_known: is_open,
            name: [0; 32],
            changes: 0,
            turn: Arc::default(),
            attendance: Attendance::Nobody,
            due,
        }));
        if is_open {
            // That a handshake carried no login counts too, against what later requests carry elsewhere.
            if known.find(HANDSHAKE).is_none() {
                known.put(&self.kept, HANDSHAKE, None, 0);
            }
            known.change_all();
        }
    }

    /// Whether replicas share the session.
    pub(crate) fn is_shared(&self) -> bool {
        self.known.lock().shared.is_some()
    }

    /// Whether the store should hear of the session again. `now` is on the clock's monotonic scale.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        let known = self.known.lock();
        known
            .shared
            .as_ref()
            .is_some_and(|shared| shared.attendance == Attendance::Nobody && now >= shared.due)
    }

    /// Whether the caller is to attend to the session, and then calls [`Self::end_attending`]. Whoever does it already
    /// goes on otherwise.
    pub(crate) fn begin_attending(&self) -> bool {
        let mut known = self.known.lock();
        let Some(shared) = &mut known.shared else {
            return false;
        };
        let begins = shared.attendance == Attendance::Nobody;
        shared.attendance = if begins {
            Attendance::Attended
        } else {
            Attendance::AttendedAgain
        };
        begins
    }

    /// Ends attending until `due`; false where more was heard meanwhile, and the caller `may_go_on`.
    pub(crate) fn end_attending(&self, due: Duration, may_go_on: bool) -> bool {
        let mut known = self.known.lock();
        let Some(shared) = &mut known.shared else {
            return true;
        };
        shared.due = due;
        let goes_on = may_go_on && shared.attendance == Attendance::AttendedAgain;
        shared.attendance = if goes_on {
            Attendance::Attended
        } else {
            Attendance::Nobody
        };
        !goes_on
    }

    /// The turn of an exchange, which is held until the answer has been taken in.
    pub(crate) fn turn(&self) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let known = self.known.lock();
        let shared = known.shared.as_ref()?;
        Some(Arc::clone(&shared.turn))
    }

    /// What the store lacks. Under another certificate than before it lacks all. `may_put` is asked whether so many bytes
    /// may be put.
    pub(crate) fn outgoing(
        &self,
        seals: &LoginSeals,
        entropy: Entropy,
        may_put: impl FnOnce(usize) -> bool,
    ) -> Option<OutgoingLogins> {
        let mut known = self.known.lock();
        let shared = known.shared.as_mut()?;
        let seal = seals.session(&shared.id)?;
        let may_begin = shared.is_known;
        if std::mem::replace(&mut shared.name, seal.name) != seal.name && may_begin {
            known.change_all();
        }
        let lacking = known.logins.iter().filter(|login| login.change > 0);
        let sealed = lacking.map(|known| {
            let login = known.login.as_deref();
            seal.seal(&known.namespace, login, entropy)
        });
        let sealed: Option<Vec<_>> = sealed.collect();
        let bytes = |sealed: &Vec<SealedLogin>| sealed.iter().map(|login| login.bytes.len()).sum();
        let put = sealed.filter(|sealed| sealed.is_empty() || may_put(bytes(sealed)));
        let changes = known.shared.as_ref()?.changes;
        Some(OutgoingLogins {
            last_change: put.as_ref().map_or(0, |_| changes),
            logins: put.unwrap_or_default(),
            seal,
            may_begin,
        })
    }

    /// Takes in what the store has of the session; `None` where it doesn't have it. Nothing that can't be opened counts.
    pub(crate) fn incoming(&self, outgoing: &OutgoingLogins, held: Option<&[SealedLogin]>) {
        let Some(held) = held else {
            return;
        };
        let mut known = self.known.lock();
        let known = &mut *known;
        let Some(shared) = &mut known.shared else {
            return;
        };
        if shared.name != outgoing.seal.name {
            // The certificate has changed since.
            return;
        }
        let was_known = std::mem::replace(&mut shared.is_known, true);
        let is_there = |known: &KnownLogin| {
            let field = outgoing.seal.field(&known.namespace);
            held.iter().any(|login| login.field == field)
        };
        let mut logins = known.logins.iter();
        let is_lost = was_known
            && held.len() <= outgoing.logins.len()
            && logins.any(|login| login.change == 0 && !is_there(login));
        for login in &mut known.logins {
            if login.change <= outgoing.last_change {
                login.change = 0;
            }
        }
        if is_lost {
            // The store came back empty: it is told everything again.
            shared.due = Duration::ZERO;
            if shared.attendance == Attendance::Attended {
                shared.attendance = Attendance::AttendedAgain;
            }
            known.change_all();
            return;
        }
        for sealed in held {
            if let Some((namespace, login)) = outgoing.seal.open(&sealed.field, &sealed.bytes) {
                known.learn(&self.kept, &namespace, login.as_deref());
            }
        }
    }
}

impl fmt::Debug for SocketLogins {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SocketLogins")
            .finish_non_exhaustive()
    }
}

// === impl KnownLogins ===

impl KnownLogins {
    fn find(&self, namespace: &str) -> Option<&KnownLogin> {
        let mut logins = self.logins.iter();
        logins.find(|known| *known.namespace == *namespace)
    }

    /// The number of the next change; 0 where the store is told none.
    fn next_change(&mut self) -> u64 {
        self.shared.as_mut().map_or(0, |shared| {
            shared.changes += 1;
            shared.changes
        })
    }

    /// The store lacks everything.
    fn change_all(&mut self) {
        let change = self.next_change();
        for login in &mut self.logins {
            login.change = change;
        }
    }

    /// Puts a namespace's login in the place of its former one.
    fn put(&mut self, kept: &KeptBytes, namespace: &str, login: Option<&str>, change: u64) {
        if let Some(former) = self.find(namespace) {
            kept.give_back(former.bytes());
            self.logins.retain(|known| *known.namespace != *namespace);
        }
        if login.is_none() && self.shared.is_none() {
            return;
        }
        let is_namespace = |known: &KnownLogin| *known.namespace != *HANDSHAKE;
        let namespaces = self.logins.iter().filter(|known| is_namespace(known));
        if namespace != HANDSHAKE && namespaces.count() >= NAMESPACES {
            // A namespace that was entered without a login makes room.
            let empty = |known: &KnownLogin| is_namespace(known) && known.login.is_none();
            let Some(empty) = self.logins.iter().position(empty) else {
                return;
            };
            let empty = self.logins.remove(empty);
            kept.give_back(empty.bytes());
        }
        if kept.add(namespace.len() + login.map_or(0, str::len)) {
            self.keep(namespace, login, change);
        }
    }

    fn keep(&mut self, namespace: &str, login: Option<&str>, change: u64) {
        // Most sockets have one login, and a vector begins with room for four.
        self.logins.reserve_exact(1);
        self.logins.push(KnownLogin {
            namespace: namespace.into(),
            login: login.map(Into::into),
            change,
        });
    }

    /// Takes a login from the store, unless something was heard here that the store lacks.
    fn learn(&mut self, kept: &KeptBytes, namespace: &str, login: Option<&str>) {
        let own = self.find(namespace);
        let stays = own.is_some_and(|own| own.change > 0 || own.login.as_deref() == login);
        if !stays {
            self.put(kept, namespace, login, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::Secret;

    fn socket(handshake: Option<&str>) -> SocketLogins {
        SocketLogins::new(handshake, KeptBytes::default())
    }

    #[test]
    fn a_login_belongs_to_its_namespace_and_the_handshakes_to_all_others() {
        let logins = socket(Some("handshake"));
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
    fn what_a_socket_without_logins_keeps_stays_small() {
        // There is one for every open socket. With its counts it just fits into what the allocator gives out.
        assert!(size_of::<SocketLogins>() + 2 * size_of::<usize>() <= 80);
    }

    #[test]
    fn a_socket_keeps_the_logins_of_so_many_namespaces() {
        for is_shared in [false, true] {
            let logins = socket(None);
            if is_shared {
                logins.share("id", true, Duration::ZERO);
            }
            for number in 0..100 {
                logins.connect(&format!("/empty{number}"), None);
                logins.connect(&format!("/{number}"), Some("x"));
            }
            let kept = (0..100).filter(|number| logins.of(&format!("/{number}")).is_some());
            assert_eq!(kept.count(), NAMESPACES, "{is_shared}");
        }
    }

    /// A store that keeps what is put, and replicas that share it.
    struct SharedStore {
        seals: LoginSeals,
        held: Option<Vec<SealedLogin>>,
    }

    impl SharedStore {
        fn new() -> Self {
            Self {
                seals: LoginSeals::new(&Secret::new(b"certificate".to_vec())),
                held: None,
            }
        }

        fn put(&mut self, outgoing: &OutgoingLogins) {
            if self.held.is_none() && !outgoing.may_begin {
                return;
            }
            let held = self.held.get_or_insert_default();
            for login in &outgoing.logins {
                held.retain(|held| held.field != login.field);
                held.push(login.clone());
            }
        }

        fn outgoing(&self, logins: &SocketLogins) -> OutgoingLogins {
            let may_put = |_| true;
            logins
                .outgoing(&self.seals, Entropy::System, may_put)
                .unwrap()
        }

        /// How many logins a replica has put.
        fn exchange(&mut self, logins: &SocketLogins) -> usize {
            let outgoing = self.outgoing(logins);
            self.put(&outgoing);
            logins.incoming(&outgoing, self.held.as_deref());
            outgoing.logins.len()
        }
    }

    fn opened(handshake: Option<&str>) -> SocketLogins {
        let logins = socket(handshake);
        logins.share("id", true, Duration::ZERO);
        logins
    }

    fn met(handshake: Option<&str>) -> SocketLogins {
        let logins = socket(handshake);
        logins.share("id", false, Duration::ZERO);
        logins
    }

    fn of(logins: &SocketLogins, namespace: &str) -> String {
        logins.of(namespace).unwrap_or_default().into()
    }

    #[test]
    fn attachments_are_of_the_namespace_that_announced_them() {
        let logins = socket(None);
        let of = || logins.of_attachment().map(String::from);
        logins.attached();
        assert_eq!(of(), None);
        logins.announce("/a", 2);
        for _ in 0..2 {
            assert_eq!(of().as_deref(), Some("/a"));
            logins.attached();
        }
        assert_eq!(of(), None);
        // A message ends the announcement before it.
        logins.announce("/a", usize::MAX);
        logins.announce("/b", 1);
        assert_eq!(of().as_deref(), Some("/b"));
        logins.announce("/", 0);
        assert_eq!(of(), None);
        logins.announce(&format!("/{}", "x".repeat(LONGEST_NAMESPACE)), 1);
        assert_eq!(of(), None);
    }

    #[test]
    fn a_session_has_the_same_logins_on_every_replica() {
        let mut store = SharedStore::new();
        let (here, there) = (opened(Some("handshake")), met(None));
        here.connect("/a", Some("a"));
        assert_eq!(store.exchange(&here), 2);
        assert_eq!(store.exchange(&here), 0);
        assert_eq!(of(&there, "/a"), "");
        assert_eq!(store.exchange(&there), 0);
        assert_eq!(
            (of(&there, "/a"), of(&there, "/")),
            ("a".into(), "handshake".into())
        );
        // A later CONNECT counts for both, and so does one without a login.
        there.connect("/a", Some("a2"));
        assert_eq!(store.exchange(&there), 1);
        store.exchange(&here);
        assert_eq!(of(&here, "/a"), "a2");
        here.connect("/a", None);
        store.exchange(&here);
        store.exchange(&there);
        assert_eq!(of(&there, "/a"), "handshake");
    }

    #[test]
    fn the_handshake_counts_that_opened_the_session() {
        for handshake in [None, Some("first")] {
            let mut store = SharedStore::new();
            store.exchange(&opened(handshake));
            let there = met(Some("another"));
            assert_eq!(of(&there, "/"), "another");
            store.exchange(&there);
            assert_eq!(of(&there, "/"), handshake.unwrap_or_default());
        }
    }

    #[test]
    fn a_session_that_nobody_has_opened_is_not_made() {
        let mut store = SharedStore::new();
        let claimed = met(Some("handshake"));
        claimed.connect("/", Some("a"));
        assert_eq!(store.exchange(&claimed), 1);
        assert_eq!(store.held, None);
        assert_eq!(of(&claimed, "/"), "a");
        // The store hears of it once there is one.
        store.exchange(&opened(None));
        assert_eq!(store.exchange(&claimed), 1);
        assert_eq!(store.exchange(&claimed), 0);
    }

    #[test]
    fn what_was_heard_here_counts_until_the_store_has_it() {
        let mut store = SharedStore::new();
        let (here, there) = (opened(None), met(None));
        store.exchange(&here);
        here.connect("/", Some("old"));
        store.exchange(&here);
        // The answer to an exchange comes after the next CONNECT.
        there.connect("/", Some("new"));
        let outgoing = store.outgoing(&there);
        there.connect("/", Some("newer"));
        store.put(&outgoing);
        there.incoming(&outgoing, store.held.as_deref());
        assert_eq!(of(&there, "/"), "newer");
        assert_eq!(store.exchange(&there), 1);
        store.exchange(&here);
        assert_eq!(of(&here, "/"), "newer");
    }

    #[test]
    fn a_store_that_comes_back_empty_is_told_everything_again() {
        let mut store = SharedStore::new();
        let (here, there) = (opened(Some("handshake")), met(None));
        here.connect("/a", Some("a"));
        store.exchange(&here);
        store.exchange(&there);
        store.held = None;
        // What was learnt counts meanwhile.
        there.connect("/b", Some("b"));
        assert_eq!(store.exchange(&there), 1);
        assert_eq!(
            (of(&there, "/a"), of(&there, "/b")),
            ("a".into(), "b".into())
        );
        assert!(there.is_due(Duration::ZERO));
        assert_eq!(store.exchange(&there), 3);
        let third = met(None);
        store.exchange(&third);
        assert_eq!(
            (of(&third, "/a"), of(&third, "/")),
            ("a".into(), "handshake".into())
        );
    }

    #[test]
    fn another_certificate_makes_all_of_a_session_known_anew() {
        let mut store = SharedStore::new();
        let here = opened(Some("handshake"));
        store.exchange(&here);
        let mut rotated = SharedStore {
            seals: LoginSeals::new(&Secret::new(b"another".to_vec())),
            held: None,
        };
        let there = met(None);
        rotated.held.clone_from(&store.held);
        rotated.exchange(&there);
        assert_eq!(of(&there, "/"), "");
        rotated.held = None;
        assert_eq!(rotated.exchange(&here), 1);
        rotated.exchange(&there);
        assert_eq!(of(&there, "/"), "handshake");
    }

    #[test]
    fn only_a_namespace_of_which_nothing_is_known_may_be_late() {
        let mut store = SharedStore::new();
        let (here, there) = (opened(None), met(None));
        assert!(!there.may_be_late("/"));
        store.exchange(&here);
        store.exchange(&there);
        assert!(there.may_be_late("/"));
        here.connect("/", None);
        store.exchange(&here);
        store.exchange(&there);
        assert!(!there.may_be_late("/"));
        assert!(!opened(Some("handshake")).may_be_late("/"));
        assert!(!socket(None).may_be_late("/"));
    }

    #[test]
    fn one_attends_to_a_session_and_goes_on_where_more_was_heard() {
        let logins = opened(None);
        let (now, later) = (Duration::from_secs(1), Duration::from_secs(2));
        assert!(logins.is_due(now));
        assert!(logins.begin_attending());
        assert!(!logins.is_due(now));
        assert!(!logins.begin_attending());
        assert!(!logins.end_attending(later, true));
        assert!(logins.end_attending(later, true));
        assert!(!logins.is_due(now));
        assert!(logins.is_due(later));
        assert!(logins.begin_attending());
        assert!(!logins.begin_attending());
        assert!(logins.end_attending(later, false));
    }
}
