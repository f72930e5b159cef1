//! Sockets towards clients: listen, accept, serve one connection, drain.
//!
//! | file | what |
//! |---|---|
//! | [`listen`] | binding listeners, and accepting from them |
//! | [`worker`] | one thread per core with its own runtime, listeners and connections |
//! | `open` | from a socket to a protocol: TLS handshake, ALPN, HTTP/2's preface |
//! | `proxy_header` | before that: the PROXY header of a load balancer that names the client |
//! | `h1` | HTTP/1.1: one connection, its requests one after the other, its sleep |
//! | `h2` | HTTP/2: one connection and its streams |
//! | [`permits`], `seats` | how many connections are open; which connection makes room for another |
//! | `response` | which responses are sent without their body |
//! | `stall`, `linger`, `stop` | deadlines of a connection; closing while the client sends; the stages of a stop |
//! | [`service`] | one request: route, answer, finish exactly once |
//!
//! Must not know: what a request means.

pub(crate) mod h1;
pub(crate) mod h2;
mod linger;
pub mod listen;
mod open;
pub(crate) mod permits;
mod proxy_header;
mod response;
mod seats;
pub(crate) mod service;
pub mod stall;
pub(crate) mod stop;
pub mod worker;

use crate::telemetry::traffic_labels::ParseErrorKind;

/// Learns what happens on the public listeners. Every worker calls it, so that it must neither block nor allocate.
pub trait ServerObserver: Send + Sync + 'static {
    /// Something happened on the listener at this position in `server.listen`.
    fn observe(&self, listener: usize, event: Event);
}

/// An event of a connection or a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A connection was accepted.
    Opened,
    /// A connection has ended.
    Closed,
    /// `accept(2)` failed.
    AcceptFailed,
    /// Bytes were refused before they became a request, or a TLS handshake failed; the kind is what is counted. A
    /// client that only leaves during its handshake is no event.
    ParseFailed(ParseErrorKind),
    /// A deadline cut the connection, or the stream of one.
    TimedOut(stall::Cause),
    /// A connection without a request gave its buffers back until the client sends again.
    Slept,
    /// An upgrade succeeded.
    TunnelOpened,
    /// A tunnel has ended.
    TunnelClosed,
}
