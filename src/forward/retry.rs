//! Which failed attempts may be made again: the whole policy as one pure function.
//!
//! Keeps true: a request that the backend may have seen is repeated only if repeating it changes nothing.
//! Must not know: connections, servers, errors; only what is known of an attempt.

use http::Method;

use crate::error::Retry;

/// How far a failed attempt had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// No connection: refused, unreachable, too slow.
    NotConnected,
    /// Connected, and not a byte of the request was written.
    NotWritten,
    /// Bytes were written, and not a byte of a response was read.
    NoResponse,
    /// A response had begun.
    Responding,
}

/// What is known of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// It has no body at all.
    pub bodyless: bool,
    /// Repeating it changes nothing (RFC 9110 §9.2.2).
    pub idempotent: bool,
}

impl Candidate {
    /// From a request's method and whether it has a body.
    pub fn new(method: &Method, bodyless: bool) -> Self {
        Self {
            bodyless,
            idempotent: method.is_idempotent(),
        }
    }
}

/// What an attempt that came this far allows, for [`crate::error::ProxyError::retry`].
pub fn allowed(progress: Progress) -> Retry {
    match progress {
        // There is one server, and it has just refused.
        Progress::NotConnected | Progress::Responding => Retry::Never,
        Progress::NotWritten => Retry::Always,
        Progress::NoResponse => Retry::IfReused,
    }
}

/// Whether a second attempt is made, on a new connection. There is never a third.
pub fn again(retry: Retry, candidate: Candidate, reused: bool) -> bool {
    match retry {
        Retry::Never => false,
        // A new connection on which nothing could be written won't do better a second time.
        Retry::Always => reused,
        Retry::IfReused => reused && candidate.bodyless && candidate.idempotent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_backend_cannot_have_acted_on_is_repeated() {
        use Progress::{NoResponse, NotConnected, NotWritten, Responding};
        // progress, method, bodyless, reused connection, repeated
        let table = [
            (NotConnected, Method::GET, true, false, false),
            (NotConnected, Method::POST, false, false, false),
            (NotWritten, Method::GET, true, true, true),
            (NotWritten, Method::POST, false, true, true),
            (NotWritten, Method::POST, false, false, false),
            (NoResponse, Method::GET, true, true, true),
            (NoResponse, Method::HEAD, true, true, true),
            (NoResponse, Method::OPTIONS, true, true, true),
            (NoResponse, Method::PUT, true, true, true),
            (NoResponse, Method::DELETE, true, true, true),
            (NoResponse, Method::PUT, false, true, false),
            (NoResponse, Method::GET, false, true, false),
            (NoResponse, Method::POST, true, true, false),
            (NoResponse, Method::POST, false, true, false),
            (NoResponse, Method::PATCH, true, true, false),
            (NoResponse, Method::GET, true, false, false),
            (Responding, Method::GET, true, true, false),
            (Responding, Method::POST, false, true, false),
        ];
        for (progress, method, bodyless, reused, expected) in table {
            let candidate = Candidate::new(&method, bodyless);
            assert_eq!(
                again(allowed(progress), candidate, reused),
                expected,
                "{progress:?} {method} bodyless={bodyless} reused={reused}"
            );
        }
    }
}
