//! Several daemons for one site, over one Redis: what they share, and what each does by itself while it is gone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod changed_limits;
mod chaos;
mod handed_on_claims;
mod kinds_of_servers;
mod rolling_restart;
mod shared_claims;
mod shared_ejections;
mod shared_limits;
mod shared_revocations;
mod shared_sessions;
mod stopping_replicas;
mod store_faults;
#[path = "../support/mod.rs"]
mod support;
