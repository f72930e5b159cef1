//! Sockets towards clients: listen, accept, serve one connection, drain.
//!
//! | file | what |
//! |---|---|
//! | [`listen`] | binding, and accepting for ever |
//! | [`worker`] | one thread per core with its own runtime, listeners and connections |
//! | `open` | from a socket to a protocol: TLS handshake, ALPN, HTTP/2's preface |
//! | [`conn`] | one connection: awake, asleep, a tunnel |
//! | `http1`, `client`, `sending` | the requests of an HTTP/1.1 connection that is awake; its socket and buffers; a response on its way |
//! | `http2`, `framed`, `streams`, `frames`, `trailers` | one HTTP/2 connection; its socket; its streams; what its client sends, and ends with |
//! | [`permits`], `seats` | how many connections are open; which of them makes room for another |
//! | `response` | what a connection knows of a response and the service can't |
//! | `refusal` | the answer to what the parser refused |
//! | `linger` | closing without resetting an answer away |
//! | [`stall`] | what a connection waits for, and for how long |
//! | [`stop`] | the stages of stopping |
//!
//! Must not know: what a request means.

mod client;
pub mod conn;
mod framed;
mod frames;
mod http1;
mod http2;
mod linger;
pub mod listen;
mod open;
pub mod permits;
mod refusal;
mod response;
mod seats;
mod sending;
pub mod stall;
pub mod stop;
mod streams;
mod trailers;
pub mod worker;

/// Told what happens on the public port; called from every worker, so it must not block or allocate.
pub trait Observer: Send + Sync + 'static {
    /// Something happened on the listener at this position in `server.listen`.
    fn observe(&self, listener: usize, event: Event);
}

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A connection was accepted.
    Opened,
    /// A connection is over.
    Closed,
    /// `accept(2)` failed.
    AcceptFailed,
    /// A request was refused before anybody saw it.
    ParseFailed(ParseError),
    /// A TLS handshake failed for a fault of either side; a peer that just left is no event.
    HandshakeFailed,
    /// A TLS handshake took too long.
    HandshakeTimedOut,
    /// A deadline cut the connection, or the stream of one.
    TimedOut(stall::Cause),
    /// A quiet connection gave its memory back until it is spoken to again.
    Slept,
    /// An upgrade succeeded.
    TunnelOpened,
    /// A tunnel is over.
    TunnelClosed,
}

/// Why a request was refused by the parser; `kind` of `renewd_http_parse_errors_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParseError {
    /// Answered 431 or 414: the header section or the target is too long.
    TooLarge,
    /// An HTTP/2 preface on an HTTP/1.1 listener.
    Http2,
    /// HTTP/2 used to make work: floods of resets, or of frames that bring nothing.
    Abuse,
    /// Answered 400: anything else that isn't HTTP/1.
    Malformed,
}

impl ParseError {
    /// Every kind, in order of declaration.
    pub const ALL: [Self; 4] = [Self::TooLarge, Self::Http2, Self::Abuse, Self::Malformed];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Http2 => "http2",
            Self::Abuse => "abuse",
            Self::Malformed => "malformed",
        }
    }
}
