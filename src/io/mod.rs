//! Sockets and what they need: connecting, TLS, deadlines, descriptors, tunnels, and requests of our own.
//!
//! Must not know: what travels over a connection, and why.

pub(crate) mod connect;
pub(crate) mod deadline;
pub mod descriptors;
pub mod fetch;
pub mod tls;
pub mod transport;
