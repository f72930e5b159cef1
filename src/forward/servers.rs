//! The backend's servers, and the choice between them. All workers share what is known of each, and reloads carry it
//! over.
//!
//! Keeps true: a server that took no connection is chosen again only when no better one is left, until a connection
//! to it succeeds; a single server is always chosen.
//! Must not know: how connections are made, which failed requests may be repeated.

use std::cell::LazyCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::config::model::{MOST_SERVERS, Upstream, UpstreamScheme, UpstreamServer};
use crate::io::tls::Trust;
use crate::telemetry::metrics::{Metrics, UpstreamMetrics};

/// One server, as the whole process sees it.
#[derive(Debug)]
pub(crate) struct Backend {
    /// The server as configured.
    pub server: UpstreamServer,
    /// The server's series, which are removed with the last holder.
    pub metrics: Arc<UpstreamMetrics>,
    /// The authorities that its certificate is verified by; `None` without TLS.
    pub trust: Option<Trust>,
    /// Made from its name, so that a key keeps its server over reloads and restarts.
    fingerprint: u64,
    reachable: AtomicBool,
    healthy: AtomicBool,
    /// Counts its first connection, and each connection that succeeds after one that failed.
    arrivals: AtomicUsize,
}

/// The standing of a server, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ServerStanding {
    /// The server serves, as far as is known.
    Up,
    /// The server takes connections, and fails its health checks.
    Unhealthy,
    /// The server took no connection when last tried.
    Unreachable,
}

impl Backend {
    fn new(
        server: UpstreamServer,
        metrics: Arc<UpstreamMetrics>,
        trust: Option<Trust>,
        reachable: bool,
    ) -> Self {
        metrics.up(reachable);
        Self {
            fingerprint: fingerprint(server.name.as_bytes()),
            server,
            metrics,
            trust,
            reachable: AtomicBool::new(reachable),
            healthy: AtomicBool::new(true),
            arrivals: AtomicUsize::new(0),
        }
    }

    /// A number that changes when the server takes its first connection, and when it is reachable again.
    pub(crate) fn arrivals(&self) -> usize {
        self.arrivals.load(Ordering::Relaxed)
    }

    /// The server's standing.
    pub(crate) fn standing(&self) -> ServerStanding {
        if !self.reachable() {
            ServerStanding::Unreachable
        } else if !self.healthy.load(Ordering::Relaxed) {
            ServerStanding::Unhealthy
        } else {
            ServerStanding::Up
        }
    }

    /// Whether it took a connection when last tried.
    pub(crate) fn reachable(&self) -> bool {
        self.reachable.load(Ordering::Relaxed)
    }

    /// Notes that the server has just taken a connection.
    pub(crate) fn connected(&self) {
        let back = news(&self.reachable, true);
        if back || self.arrivals() == 0 {
            self.arrivals.fetch_add(1, Ordering::Relaxed);
        }
        if back {
            self.metrics.up(self.standing() == ServerStanding::Up);
            tracing::info!(server = self.server.name, "the backend is reachable again");
        }
    }

    /// Notes that the server has just taken no connection.
    pub(crate) fn refused(&self, why: &dyn std::fmt::Display) {
        if news(&self.reachable, false) {
            self.metrics.up(false);
            tracing::error!(
                server = self.server.name,
                error = %why,
                "the backend is not reachable"
            );
        }
    }

    /// Notes the result of a health check; `Err` says what was wrong. A server without checks counts as healthy.
    pub(crate) fn checked(&self, result: Result<(), &dyn std::fmt::Display>) {
        if !news(&self.healthy, result.is_ok()) {
            return;
        }
        self.metrics.up(self.standing() == ServerStanding::Up);
        let server = &self.server.name;
        match result {
            Ok(()) => tracing::info!(server, "the backend passes its health check again"),
            Err(error) => tracing::error!(server, %error, "the backend fails its health check"),
        }
    }
}

/// Sets a flag, and says whether that changed it. An equal value isn't stored: every request reads the flags, and a
/// store would move them between the cores' caches.
fn news(flag: &AtomicBool, value: bool) -> bool {
    flag.load(Ordering::Relaxed) != value && flag.swap(value, Ordering::Relaxed) != value
}

/// `upstream.servers`, in their order.
#[derive(Debug)]
pub struct Backends {
    all: Vec<Arc<Backend>>,
    in_flight: Arc<AtomicUsize>,
}

impl Backends {
    /// The knowledge of a server is kept while its URL stays the same. A new server is taken to be reachable, unless
    /// none of the previous ones was.
    pub fn new(upstream: &Upstream, previous: Option<&Self>, metrics: &Metrics) -> Self {
        let optimism = previous.is_none_or(Self::reachable);
        let carried = |server: &UpstreamServer| {
            let known = previous?.all.iter().find(|known| known.server == *server)?;
            Some(Arc::clone(known))
        };
        // Read when a server needs it, so that a reload sees the system's present authorities.
        let trust = LazyCell::new(|| match Trust::of_the_system() {
            Ok(trust) => Some(trust),
            Err(error) => {
                tracing::error!(%error, "https:// servers can't be reached");
                None
            }
        });
        let all = upstream.servers.iter().map(|server| {
            carried(server).unwrap_or_else(|| {
                let metrics = metrics.upstream(&server.name);
                let trust = (server.scheme == UpstreamScheme::Https)
                    .then(|| trust.clone())
                    .flatten();
                Arc::new(Backend::new(server.clone(), metrics, trust, optimism))
            })
        });
        Self {
            all: all.collect(),
            in_flight: previous.map_or_else(Arc::default, |previous| previous.in_flight.clone()),
        }
    }

    /// All servers.
    pub(crate) fn all(&self) -> &[Arc<Backend>] {
        &self.all
    }

    /// Whether any takes connections.
    pub(crate) fn reachable(&self) -> bool {
        self.all.iter().any(|backend| backend.reachable())
    }

    /// The server for a request: one of those that are up, otherwise one of the others. `None` if all were tried.
    pub(crate) fn choose(&self, preference: Preference, tried: Tried) -> Option<usize> {
        if let ([_], Tried(0)) = (self.all.as_slice(), tried) {
            return Some(0);
        }
        let servers = self.all.iter();
        let servers = servers.map(|backend| (backend.standing(), backend.fingerprint));
        choose(servers, preference, tried)
    }

    /// Room for one more request; `None` where `most` are in flight. 0 is no limit, and nothing is counted.
    pub(crate) fn admit(&self, most: usize) -> Option<ServerAdmission> {
        if most == 0 {
            return Some(ServerAdmission(None));
        }
        let admitted = self
            .in_flight
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < most).then_some(count + 1)
            });
        admitted
            .is_ok()
            .then(|| ServerAdmission(Some(self.in_flight.clone())))
    }
}

/// A request's place among those in flight; dropping it makes room.
#[derive(Debug)]
pub(crate) struct ServerAdmission(Option<Arc<AtomicUsize>>);

impl Drop for ServerAdmission {
    fn drop(&mut self) {
        if let Some(in_flight) = &self.0 {
            in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Which server to choose among several in the same standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preference {
    /// The servers take turns by the request's number at its worker.
    Turn(usize),
    /// The same server each time for this key (rendezvous hashing). If that server is lost, its keys are spread over
    /// the others, and they return with it; no other key moves.
    Key(u64),
}

/// A hash that is the same in every process and build, and each bit of which depends on all bytes: FNV-1a, stirred. A
/// client that chooses the bytes can choose the number, and gains no more than the choice of a server.
pub(crate) fn fingerprint(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    stir(fnv)
}

/// The last steps of splitmix64.
fn stir(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The servers that one request was tried on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tried(u64);

impl Tried {
    /// These servers and this one.
    #[must_use]
    pub(crate) fn and(self, server: usize) -> Self {
        Self(self.0 | bit(server))
    }

    fn has(self, server: usize) -> bool {
        self.0 & bit(server) != 0
    }
}

fn bit(server: usize) -> u64 {
    u32::try_from(server)
        .ok()
        .and_then(|server| 1_u64.checked_shl(server))
        .unwrap_or(0)
}

/// Chooses by the preference among the best of the servers that weren't tried, so that a failing server's share goes
/// to all others. Each server is given by its standing and its fingerprint.
fn choose(
    servers: impl Iterator<Item = (ServerStanding, u64)> + Clone,
    preference: Preference,
    tried: Tried,
) -> Option<usize> {
    let left = servers
        .take(MOST_SERVERS)
        .enumerate()
        .filter(|(server, _)| !tried.has(*server));
    let best = left.clone().map(|(_, (standing, _))| standing).min()?;
    let mut candidates = left
        .filter(|(_, (standing, _))| *standing == best)
        .map(|(server, (_, fingerprint))| (server, fingerprint));
    let chosen = match preference {
        Preference::Turn(turn) => {
            let count = candidates.clone().count();
            candidates.nth(turn % count)
        }
        Preference::Key(key) => candidates.max_by_key(|(_, fingerprint)| stir(key ^ fingerprint)),
    };
    chosen.map(|(server, _)| server)
}

#[cfg(test)]
mod tests {
    use super::ServerStanding::{Unhealthy, Unreachable, Up};
    use super::*;

    fn tried(servers: &[usize]) -> Tried {
        servers
            .iter()
            .fold(Tried::default(), |tried, server| tried.and(*server))
    }

    #[test]
    fn the_best_take_turns_and_the_worst_are_the_last_resort() {
        /// Rows of standings, the tried servers, and the choice of four turns.
        type Row<'a> = (&'a [ServerStanding], &'a [usize], [Option<usize>; 4]);
        let table: [Row<'_>; 11] = [
            (&[Up], &[], [Some(0); 4]),
            (&[Unreachable], &[], [Some(0); 4]),
            (&[Unreachable], &[0], [None; 4]),
            (&[Up, Up], &[], [Some(0), Some(1), Some(0), Some(1)]),
            (&[Up, Up, Up], &[1], [Some(0), Some(2), Some(0), Some(2)]),
            (
                &[Up, Unreachable, Up],
                &[],
                [Some(0), Some(2), Some(0), Some(2)],
            ),
            (&[Up, Unhealthy, Unreachable], &[], [Some(0); 4]),
            (&[Up, Unhealthy, Unreachable], &[0], [Some(1); 4]),
            (&[Up, Unhealthy, Unreachable], &[0, 1], [Some(2); 4]),
            (&[Up, Unhealthy, Unreachable], &[0, 1, 2], [None; 4]),
            (
                &[Unhealthy, Unhealthy],
                &[],
                [Some(0), Some(1), Some(0), Some(1)],
            ),
        ];
        for (standings, already, expected) in table {
            let servers = standings.iter().map(|standing| (*standing, 0));
            let turn = |turn| choose(servers.clone(), Preference::Turn(turn), tried(already));
            let chosen = [0, 1, 2, 3].map(turn);
            assert_eq!(chosen, expected, "{standings:?} without {already:?}");
        }
    }

    #[test]
    fn no_server_beyond_the_last_is_chosen_or_remembered() {
        let many = std::iter::repeat_n((Up, 0), MOST_SERVERS + 1);
        let turn = Preference::Turn(MOST_SERVERS);
        assert_eq!(choose(many, turn, Tried::default()), Some(0));
        assert_eq!(tried(&[MOST_SERVERS]), Tried::default());
    }

    #[test]
    fn a_key_stays_on_its_server_whatever_becomes_of_the_others() {
        let names = ["http://a:1", "http://b:1", "http://c:1", "http://d:1"];
        let all = names.map(|name| (Up, fingerprint(name.as_bytes())));
        let on = |servers: &[(ServerStanding, u64)], key: u64, tried| {
            let chosen = choose(servers.iter().copied(), Preference::Key(key), tried);
            chosen.map(|server| servers[server].1)
        };
        let keys: Vec<u64> = (0..4000_u32)
            .map(|number| fingerprint(&number.to_be_bytes()))
            .collect();
        let mut shares = [0; 4];
        for key in &keys {
            let home = on(&all, *key, Tried::default());
            let at = all.iter().position(|one| Some(one.1) == home).unwrap();
            shares[at] += 1;
            // The order of the configuration means nothing.
            let mut reversed = all;
            reversed.reverse();
            assert_eq!(on(&reversed, *key, Tried::default()), home);
            for (lost, standing) in [0, 1, 2, 3]
                .into_iter()
                .zip([Unreachable, Unhealthy, Up, Up])
            {
                let mut others = all;
                others[lost].0 = standing;
                let found = on(&others, *key, Tried::default());
                assert_eq!(found == home, lost != at || standing == Up);
            }
            // The next is the same whether the first was lost before or refuses now.
            let mut without = all;
            without[at].0 = Unreachable;
            let next = on(&without, *key, Tried::default());
            assert_eq!(on(&all, *key, tried(&[at])), next);
            assert_eq!(on(&all, *key, tried(&[0, 1, 2, 3])), None);
        }
        assert!(
            shares.iter().all(|share| (850..1150).contains(share)),
            "{shares:?}"
        );
    }

    #[test]
    fn a_fingerprint_is_the_same_in_every_build() {
        assert_eq!(fingerprint(b""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(fingerprint(b"a"), 0x02c0_bdbf_4814_20f8);
    }

    #[test]
    fn room_is_made_when_a_request_is_over() {
        let backends = Backends {
            all: Vec::new(),
            in_flight: Arc::default(),
        };
        let first = backends.admit(2).unwrap();
        let second = backends.admit(2).unwrap();
        assert!(backends.admit(2).is_none());
        assert!(backends.admit(0).is_some(), "0 is no limit");
        drop(first);
        assert!(backends.admit(2).is_some());
        drop(second);
        assert_eq!(backends.in_flight.load(Ordering::Relaxed), 0);
    }
}
