//! HTTP/2 towards clients: one connection and its streams.
//!
//! Must not know: what a request is answered with.

pub(crate) mod connection;
pub(crate) mod frames;
mod reply;
pub(crate) mod socket;
pub(crate) mod streams;
pub(crate) mod trailers;
