//! Words that all modules share: time, roles, a request's identity, what can go wrong with it, the process's phase.
//!
//! Keeps true: each is a value, or a handle to one; the only IO is reading the clock and the system's random
//! generator.
//! Must not know: any other module.

pub mod clock;
pub mod context;
pub mod explanation;
pub(crate) mod labels;
pub mod outcome;
pub mod proxy_error;
pub mod readiness;
pub mod role;
pub(crate) mod timestamp;
pub mod user;
pub mod version;
