//! The requests that wait for a socket, and their turns: round robin by client, then by connection, then in order.
//!
//! Keeps true: a client that waits with a thousand requests delays another by one.
//! Must not know: how many sockets there are, what is done with them.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

use super::Claimant;

/// The bits of an IPv6 address that name a network: providers give each customer at least a /64.
const NETWORK: u128 = !0 << 64;

/// The unit that takes a turn: all requests from one address, or of one connection where the address tells nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Party {
    /// An IPv4 address, or an IPv6 /64.
    Address(IpAddr),
    /// A connection.
    Connection(u64),
}

impl From<Claimant> for Party {
    fn from(claimant: Claimant) -> Self {
        match claimant.address.map(|address| address.to_canonical()) {
            None => Self::Connection(claimant.connection),
            Some(IpAddr::V6(address)) => {
                Self::Address(Ipv6Addr::from_bits(address.to_bits() & NETWORK).into())
            }
            Some(address) => Self::Address(address),
        }
    }
}

/// The waiters, each with a `T` by which it is reached.
#[derive(Debug)]
pub(super) struct Queue<T> {
    turns: VecDeque<Party>,
    waiting: HashMap<Party, VecDeque<Row<T>>>,
    tickets: u64,
}

/// The waiters of one connection.
#[derive(Debug)]
struct Row<T> {
    connection: u64,
    waiting: VecDeque<(u64, T)>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            turns: VecDeque::new(),
            waiting: HashMap::new(),
            tickets: 0,
        }
    }
}

impl<T> Queue<T> {
    /// Adds a waiter. The ticket is for [`Queue::leave`].
    pub(super) fn join(&mut self, claimant: Claimant, waiter: T) -> u64 {
        self.tickets += 1;
        let client = Party::from(claimant);
        let rows = self.waiting.entry(client).or_insert_with(|| {
            self.turns.push_back(client);
            VecDeque::new()
        });
        let connection = claimant.connection;
        let entry = (self.tickets, waiter);
        match rows.iter_mut().find(|row| row.connection == connection) {
            Some(row) => row.waiting.push_back(entry),
            None => rows.push_back(Row {
                connection,
                waiting: VecDeque::from([entry]),
            }),
        }
        self.tickets
    }

    /// Removes a waiter. Says whether it was still there.
    pub(super) fn leave(&mut self, claimant: Claimant, ticket: u64) -> bool {
        let client = Party::from(claimant);
        let Some(rows) = self.waiting.get_mut(&client) else {
            return false;
        };
        let mut left = false;
        rows.retain_mut(|row| {
            if row.connection == claimant.connection {
                let before = row.waiting.len();
                row.waiting.retain(|(other, _)| *other != ticket);
                left = row.waiting.len() < before;
            }
            !row.waiting.is_empty()
        });
        if rows.is_empty() {
            self.waiting.remove(&client);
            self.turns.retain(|turn| *turn != client);
        }
        left
    }

    /// The next waiter whose party `may` have a slot. The party's next turn comes after those of all others.
    pub(super) fn next(&mut self, may: impl Fn(&Party) -> bool) -> Option<(Party, T)> {
        let at = self.turns.iter().position(may)?;
        // The parties before it keep their places, and are asked first the next time.
        let client = self.turns.remove(at)?;
        let rows = self.waiting.get_mut(&client)?;
        let mut row = rows.pop_front()?;
        let (_, waiter) = row.waiting.pop_front()?;
        if !row.waiting.is_empty() {
            rows.push_back(row);
        }
        if rows.is_empty() {
            self.waiting.remove(&client);
        } else {
            self.turns.push_back(client);
        }
        Some((client, waiter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str, connection: u64) -> Claimant {
        Claimant {
            address: address.parse().ok(),
            connection,
        }
    }

    fn order(queue: &mut Queue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.next(|_| true))
            .map(|(_, waiter)| waiter)
            .collect()
    }

    #[test]
    fn clients_take_turns_then_their_connections_then_their_requests() {
        let mut queue = Queue::default();
        for (address, connection, name) in [
            ("192.0.2.1", 1, "a1 first"),
            ("192.0.2.1", 1, "a1 second"),
            ("192.0.2.1", 1, "a1 third"),
            ("192.0.2.1", 2, "a2"),
            ("192.0.2.2", 3, "b"),
            ("2001:db8::1", 4, "c1"),
            ("2001:db8::2", 5, "c2, of the same network"),
            ("", 6, "one connection"),
            ("", 7, "another"),
        ] {
            queue.join(from(address, connection), name);
        }
        assert_eq!(
            order(&mut queue),
            [
                "a1 first",
                "b",
                "c1",
                "one connection",
                "another",
                "a2",
                "c2, of the same network",
                "a1 second",
                "a1 third",
            ]
        );
        assert!(queue.turns.is_empty() && queue.waiting.is_empty());
    }

    #[test]
    fn a_claimant_that_leaves_is_forgotten_and_one_that_may_not_keeps_its_place() {
        let mut queue = Queue::default();
        let (greedy, modest) = (from("192.0.2.1", 1), from("192.0.2.2", 2));
        let first = queue.join(greedy, "greedy");
        let second = queue.join(greedy, "greedy still");
        let third = queue.join(modest, "modest");
        let client = Party::from(greedy);
        let next = queue.next(|other| *other != client);
        assert_eq!(next.map(|(_, waiter)| waiter), Some("modest"));
        assert!(queue.next(|other| *other != client).is_none());
        assert!(!queue.leave(modest, third), "it was served");
        assert!(queue.leave(greedy, first));
        assert!(!queue.leave(greedy, first));
        assert_eq!(order(&mut queue), ["greedy still"]);
        assert!(!queue.leave(greedy, second));
        assert!(queue.turns.is_empty() && queue.waiting.is_empty());
    }
}
