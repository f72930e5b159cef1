//! The logins of one socket: the handshake's, and those of socket.io's namespaces.
//!
//! Keeps true: a namespace has the login of its latest `CONNECT`, or the handshake's where that carried none; a bounded
//! number of them is kept. They are verified whenever a token passes, and not before: a login may end, and a key may
//! come, while the socket is open.
//! Must not know: verdicts, transports.

use std::fmt;

use parking_lot::Mutex;

use super::packet::ConnectPacket;

/// The most namespaces whose logins are kept. Further ones have the login of the handshake.
const NAMESPACES: usize = 16;

/// The logins of one socket, unverified.
#[derive(Default)]
pub(crate) struct SocketLogins {
    handshake: Option<Box<str>>,
    namespaces: Mutex<Vec<(Box<str>, Box<str>)>>,
}

impl SocketLogins {
    /// The logins of a socket whose handshake carried this one.
    pub(crate) fn new(handshake: Option<Box<str>>) -> Self {
        Self {
            handshake,
            namespaces: Mutex::default(),
        }
    }

    /// Notes a client's `CONNECT`.
    pub(crate) fn connect(&self, packet: ConnectPacket) {
        let ConnectPacket { namespace, token } = packet;
        let mut namespaces = self.namespaces.lock();
        namespaces.retain(|(name, _)| *name != namespace);
        if let Some(token) = token
            && namespaces.len() < NAMESPACES
        {
            namespaces.push((namespace, token));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(logins: &SocketLogins, namespace: &str, token: Option<&str>) {
        logins.connect(ConnectPacket {
            namespace: namespace.into(),
            token: token.map(Into::into),
        });
    }

    #[test]
    fn a_login_belongs_to_its_namespace_and_the_handshakes_to_all_others() {
        let logins = SocketLogins::new(Some("handshake".into()));
        connect(&logins, "/a", Some("a"));
        connect(&logins, "/b", None);
        assert_eq!(logins.of("/a").as_deref(), Some("a"));
        for namespace in ["/", "/b", "/c"] {
            assert_eq!(logins.of(namespace).as_deref(), Some("handshake"));
        }
        connect(&logins, "/a", Some("a2"));
        assert_eq!(logins.of("/a").as_deref(), Some("a2"));
        connect(&logins, "/a", None);
        assert_eq!(logins.of("/a").as_deref(), Some("handshake"));
    }

    #[test]
    fn a_client_can_have_only_so_many_logins_kept() {
        let logins = SocketLogins::default();
        for number in 0..100 {
            connect(&logins, &format!("/{number}"), Some("x"));
        }
        assert_eq!(logins.namespaces.lock().len(), NAMESPACES);
        assert_eq!(logins.of("/99"), None);
    }
}
