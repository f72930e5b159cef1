//! Finds out whether clients can reach the backend without renewd. Express (`app.listen(port)`) listens on every
//! address unless it is given one, and then its port also serves the paths that renewd guards.
//!
//! Keeps true: only addresses of this host are ever connected to, and no byte is sent; each change is logged once.
//! Must not know: what the backend answers. This detects a firewall only if its rule also holds for the host's own
//! connections, which use the loopback interface; `upstream.exposed_ok` is for other firewalls.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::config::model::{UpstreamScheme, UpstreamServer};
use crate::snapshot::Shared;

/// How often the addresses are checked without a reason: addresses change, but not often.
const EVERY: Duration = Duration::from_hours(1);

/// How long a connection may take: this host answers itself at once, or a firewall drops the packets.
const CONNECT: Duration = Duration::from_millis(500);

/// Where the kernel lists this network namespace's addresses. `getifaddrs(3)` uses netlink, which the unit's sandbox
/// denies.
const IPV4: &str = "/proc/self/net/fib_trie";
const IPV6: &str = "/proc/self/net/if_inet6";

/// How often arrivals of backends are looked for: a backend may not listen yet when renewd starts.
const ARRIVALS: Duration = Duration::from_secs(1);

/// Checks at start, when a backend takes its first connection or is back, after each reload and every hour, until the
/// runtime ends. `own` are the addresses that renewd listens on.
pub(crate) async fn run(
    shared: Arc<Shared>,
    own: Vec<SocketAddr>,
    mut reloaded: watch::Receiver<Vec<PathBuf>>,
) {
    let mut known = BTreeMap::new();
    let mut hours = interval(EVERY);
    let mut seconds = interval(ARRIVALS);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut arrivals = 0;
    loop {
        tokio::select! {
            _ = hours.tick() => {}
            Ok(()) = reloaded.changed() => {}
            _ = seconds.tick() => {
                let now = arrivals_of_all(&shared);
                if now == arrivals {
                    continue;
                }
                arrivals = now;
            }
        }
        known = look(&shared, &own, &known).await;
    }
}

/// The addresses where each backend server answers without renewd, by its name.
type ExposedAddresses = BTreeMap<String, Vec<SocketAddr>>;

fn arrivals_of_all(shared: &Shared) -> usize {
    let snapshot = shared.current.load();
    let arrivals = snapshot.backends.all().iter().map(|one| one.arrivals());
    arrivals.fold(0, usize::wrapping_add)
}

async fn look(shared: &Shared, own: &[SocketAddr], before: &ExposedAddresses) -> ExposedAddresses {
    let addresses = host_addresses();
    let snapshot = shared.current.load_full();
    let acknowledged = snapshot.config.upstream.exposed_ok;
    let mut found = ExposedAddresses::new();
    for backend in snapshot.backends.all() {
        let server = &backend.server;
        let mut answering = Vec::new();
        if is_local(server) && !acknowledged {
            for address in &addresses {
                let mut address = *address;
                address.set_port(server.port);
                if !is_own(own, address) && answers(address).await {
                    answering.push(address);
                }
            }
        }
        backend.metrics.exposed(!answering.is_empty());
        let former = before.get(&server.name).map_or(&[][..], Vec::as_slice);
        if former != answering {
            report(server, &answering);
        }
        found.insert(server.name.clone(), answering);
    }
    found
}

fn report(server: &UpstreamServer, answering: &[SocketAddr]) {
    let UpstreamServer { name, port, .. } = server;
    if answering.is_empty() {
        tracing::info!(
            server = name,
            "clients can no longer reach the backend without renewd, or upstream.exposed_ok allows it"
        );
        return;
    }
    let addresses: Vec<String> = answering.iter().map(ToString::to_string).collect();
    tracing::warn!(
        server = name,
        addresses = addresses.join(", "),
        "clients can reach the backend without renewd, on these addresses: let it listen on 127.0.0.1 alone, as in \
         listen({port}, '127.0.0.1'), or set upstream.exposed_ok = true if a firewall keeps them out"
    );
}

async fn answers(address: SocketAddr) -> bool {
    matches!(
        timeout(CONNECT, TcpStream::connect(address)).await,
        Ok(Ok(_connected))
    )
}

/// Whether the server's configured address can be reached from this host alone.
fn is_local(server: &UpstreamServer) -> bool {
    if matches!(server.scheme, UpstreamScheme::Unix(_)) {
        return false;
    }
    let here = |address: IpAddr| address.to_canonical().is_loopback() || address.is_unspecified();
    server.host.eq_ignore_ascii_case("localhost") || server.host.parse().is_ok_and(here)
}

/// Whether one of renewd's own listeners would answer there: the public port may be the same as the backend's, on
/// another address.
fn is_own(own: &[SocketAddr], address: SocketAddr) -> bool {
    let takes = |bound: IpAddr| match bound {
        IpAddr::V6(any) if any.is_unspecified() => true,
        IpAddr::V4(any) if any.is_unspecified() => address.is_ipv4(),
        _ => bound == address.ip(),
    };
    own.iter()
        .any(|bound| bound.port() == address.port() && takes(bound.ip()))
}

/// This host's addresses except loopback, with port 0. Empty where the kernel's lists can't be read.
fn host_addresses() -> Vec<SocketAddr> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let mut addresses = ipv4_addresses(&read(IPV4));
    addresses.extend(ipv6_addresses(&read(IPV6)));
    addresses
}

/// The `/32 host LOCAL` leaves of the kernel's routing trie.
fn ipv4_addresses(trie: &str) -> Vec<SocketAddr> {
    let mut leaf = None;
    let mut addresses = Vec::new();
    for line in trie.lines().map(str::trim_start) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = leaf
            && !address.is_loopback()
        {
            addresses.push(SocketAddr::from((address, 0)));
        }
    }
    // The main and the local table may be one table, which is then listed twice.
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Lines of address, interface index, prefix length, scope and flags in hexadecimal, and the interface's name.
fn ipv6_addresses(table: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let address = Ipv6Addr::from(u128::from_str_radix(fields.next()?, 16).ok()?);
        let interface = u32::from_str_radix(fields.next()?, 16).ok()?;
        // A link-local address needs the number of its interface.
        let scope = if address.is_unicast_link_local() {
            interface
        } else {
            0
        };
        (!address.is_loopback()).then(|| SocketAddrV6::new(address, 0, 0, scope).into())
    };
    table.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIE: &str = "\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     +-- 10.1.0.0/16 2 0 2
        |-- 10.1.0.0
           /16 link UNICAST
        |-- 10.1.2.3
           /32 host LOCAL
        |-- 10.1.255.255
           /32 link BROADCAST
Local:
     |-- 10.1.2.3
        /32 host LOCAL
     |-- 192.0.2.7
        /32 host LOCAL
";

    const INET6: &str = "\
00000000000000000000000000000001 01 80 10 80       lo
fe8000000000000000fc00fffe000001 0a 40 20 80     eth0
fd000000000000000000000000000002 0a 40 00 82     eth0
";

    fn shown(addresses: &[SocketAddr]) -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_kernels_lists_give_each_address_once_and_no_loopback() {
        assert_eq!(shown(&ipv4_addresses(TRIE)), ["10.1.2.3:0", "192.0.2.7:0"]);
        assert_eq!(
            shown(&ipv6_addresses(INET6)),
            ["[fe80::fc:ff:fe00:1%10]:0", "[fd00::2]:0"]
        );
        assert!(ipv4_addresses("").is_empty() && ipv6_addresses("x y\n\n").is_empty());
    }

    #[test]
    fn our_own_listeners_expose_nothing() {
        let own = |bound: &str, address: &str| {
            is_own(&[bound.parse().unwrap()], address.parse().unwrap())
        };
        assert!(own("10.0.0.1:3000", "10.0.0.1:3000"));
        assert!(own("0.0.0.0:3000", "10.0.0.1:3000"));
        assert!(own("[::]:3000", "10.0.0.1:3000") && own("[::]:3000", "[fd00::2]:3000"));
        assert!(!own("[::]:3000", "10.0.0.1:3001"));
        assert!(!own("10.0.0.1:3000", "10.0.0.2:3000"));
        assert!(!own("0.0.0.0:3000", "[fd00::2]:3000"));
    }

    #[test]
    fn a_backend_elsewhere_is_on_no_loopback_address() {
        let local = |host: &str| {
            is_local(&UpstreamServer {
                name: String::new(),
                scheme: UpstreamScheme::Http,
                host: host.to_owned(),
                port: 3001,
            })
        };
        for host in [
            "127.0.0.1",
            "127.1.2.3",
            "::1",
            "::ffff:127.0.0.1",
            "localhost",
            "0.0.0.0",
        ] {
            assert!(local(host), "{host}");
        }
        for host in ["10.0.0.1", "backend", "fd00::2"] {
            assert!(!local(host), "{host}");
        }
    }
}
