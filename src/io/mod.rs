//! Sockets and everything around them: connecting, TLS, deadlines, descriptors, and renewd's own requests.
//!
//! Must not know: why a connection exists, or what is sent on it, except for `fetch`, which speaks HTTP.

pub(crate) mod connect;
pub(crate) mod deadline;
pub mod descriptors;
pub mod fetch;
pub mod tls;
pub mod transport;
pub(crate) mod wait;
