//! Pure functions on HTTP types.
//!
//! Must not know: sockets, configuration files, what a route does.

pub mod block;
pub mod cors;
pub mod forwarded;
pub mod hop;
pub(crate) mod http2;
pub(crate) mod media;
pub(crate) mod method_override;
pub(crate) mod pattern;
pub mod readings;
pub mod request_fields;
pub mod sanity;
pub mod target;
mod trailers;
pub mod url;
