//! Sockets towards clients: listen, accept, serve one connection, drain.
//!
//! | file | what |
//! |---|---|
//! | [`listen`] | binding, and accepting for ever |
//! | [`worker`] | one thread per core with its own runtime, listeners and connections |
//! | [`conn`] | one connection: HTTP/1.1, sleep, tunnel |
//! | [`permits`] | how many connections are open |
//! | [`stall`] | what a connection waits for, and for how long |
//! | [`stop`] | the stages of stopping |
//!
//! Must not know: what a request means.

pub mod conn;
pub mod listen;
pub mod permits;
pub mod stall;
pub mod stop;
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
    /// A deadline cut the connection.
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
    /// Answered 400: anything else that isn't HTTP/1.
    Malformed,
}

impl ParseError {
    /// Every kind, in order of declaration.
    pub const ALL: [Self; 3] = [Self::TooLarge, Self::Http2, Self::Malformed];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Http2 => "http2",
            Self::Malformed => "malformed",
        }
    }
}
