//! HTTP/1.1 towards clients: one connection, its requests one after the other, and its sleep between them.
//!
//! Must not know: what a request is answered with.

pub(crate) mod body_writer;
pub(crate) mod connection;
mod outflow;
pub(crate) mod refusal;
pub(crate) mod requests;
pub(crate) mod socket;
