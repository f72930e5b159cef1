//! The shares of this process's file descriptors, and the turns for the next socket to the backend.
//!
//! Keeps true: the shares together are no more than there are descriptors; accepting, the admin listener, files and
//! sources have a share of their own.
//! Must not know: what a socket is used for, HTTP.

mod budget;
mod queue;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

pub use budget::{Budget, SocketSlot};

/// The share of accepting, the admin listener, log and state files, sources and health checks, where there are plenty.
const RESERVE: u64 = 512;

/// How the descriptors of a process are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// All descriptors; `u64::MAX` where nothing limits them.
    pub descriptors: u64,
    /// Client connections.
    pub clients: usize,
    /// Sockets to the backend that carry requests, or wait for one.
    pub requests: usize,
    /// Sockets to the backend that carry tunnels or event streams.
    pub streams: usize,
    /// Descriptors for everything else.
    pub reserve: usize,
}

impl Shares {
    /// The shares of this many descriptors. `max_connections` is `server.max_connections`; sockets to the backend get
    /// what clients can't use.
    ///
    /// Every client connection may be a tunnel, which takes as many sockets on the other side; requests are short, and
    /// those that find no socket wait for one.
    pub fn of(descriptors: u64, max_connections: usize) -> Self {
        let reserve = RESERVE.min(descriptors / 2);
        let rest = descriptors - reserve;
        let clients = number(rest / 5 * 2).min(max_connections);
        let backend = number(rest).saturating_sub(clients);
        let requests = backend / 3;
        Self {
            descriptors,
            clients: clients.max(1),
            requests: requests.max(1),
            streams: (backend - requests).max(1),
            reserve: number(reserve),
        }
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            clients,
            requests,
            streams,
            reserve,
            ..
        } = self;
        match self.descriptors {
            u64::MAX => formatter.write_str("of unlimited file descriptors ")?,
            descriptors => write!(formatter, "of {descriptors} file descriptors ")?,
        }
        write!(
            formatter,
            "{clients} are for client connections, {requests} for requests to the backend, {streams} for tunnels and \
             event streams, {reserve} for everything else"
        )
    }
}

fn number(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// How many descriptors the process may have after raising its limit: the hard limit; `u64::MAX` for none.
pub(crate) fn limit() -> u64 {
    use rustix::process::{Resource, getrlimit};
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// Raises the soft limit of descriptors to the hard limit, and returns the limit in force.
pub(crate) fn raise_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::warn!(%error, "the limit of open files can't be raised");
            limit.current.unwrap_or(u64::MAX)
        }
    }
}

/// The budgets of the whole process' sockets to the backend.
#[derive(Clone, Debug)]
pub struct Budgets {
    /// Sockets that carry requests, or wait for one.
    pub requests: Arc<Budget>,
    /// Sockets that carry tunnels or event streams.
    pub streams: Arc<Budget>,
}

impl Budgets {
    /// Budgets as large as these shares.
    pub fn new(shares: &Shares) -> Self {
        Self {
            requests: Budget::new(shares.requests),
            streams: Budget::new(shares.streams),
        }
    }

    /// Changes the limits for sockets to come.
    pub(crate) fn set(&self, shares: &Shares) {
        self.requests.set_limit(shares.requests);
        self.streams.set_limit(shares.streams);
    }
}

/// The client that a socket to the backend is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// The client's address; `None` where the address may stand for many clients.
    pub address: Option<IpAddr>,
    /// The number of the client's connection.
    pub connection: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_no_more_than_there_is_and_leave_a_reserve() {
        // descriptors, server.max_connections; clients, requests, streams, reserve
        let table = [
            (65_536, 20_000, [20_000, 15_008, 30_016, 512]),
            (8_192, 20_000, [3_072, 1_536, 3_072, 512]),
            (2_048, 20_000, [614, 307, 615, 512]),
            (2_048, 100, [100, 478, 958, 512]),
            (600, 20_000, [120, 60, 120, 300]),
            (64, 20_000, [12, 6, 14, 32]),
        ];
        for (descriptors, connections, expected) in table {
            let shares = Shares::of(descriptors, connections);
            let found = [
                shares.clients,
                shares.requests,
                shares.streams,
                shares.reserve,
            ];
            assert_eq!(found, expected, "{descriptors}");
            let all: usize = found.iter().sum();
            assert_eq!(u64::try_from(all), Ok(descriptors));
        }
        assert_eq!(Shares::of(0, 1).requests, 1);
        assert_eq!(Shares::of(u64::MAX, 20_000).clients, 20_000);
    }
}
