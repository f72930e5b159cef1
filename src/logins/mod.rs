//! Logins: JSON Web Tokens, the keys that verify them, which logins the accounts source refused, and those of sockets.
//!
//! Keeps true: a caller is named only by a token that a known key verifies.
//! Must not know: what a caller may do.

pub mod jwt;
mod login_key;
pub(crate) mod login_seals;
pub mod remembered;
pub(crate) mod socket_logins;
pub(crate) mod socket_sessions;
