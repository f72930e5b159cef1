//! HTTP types: pure functions on them, and the bodies and exchanges that requests are made of.
//!
//! Must not know: sockets, configuration files, what a route does.

pub mod block;
pub mod cors;
pub mod forwarded;
pub mod hop;
pub mod http2;
pub mod media;
pub mod method_override;
pub mod pattern;
pub mod readings;
pub mod sanity;
pub mod target;
pub mod url;
