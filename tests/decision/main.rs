//! The token endpoints: which callers get a token, and the answers that all others get.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod authorize_hook;
mod decision_modes;
mod decision_order;
mod decision_rows;
mod ejections;
mod ejections_kept;
mod explain;
mod main_job;
mod malformed_input;
mod rate_limit_waits;
mod rate_limits;
mod renewals;
mod revocations;
mod revocations_kept;
#[path = "../support/mod.rs"]
mod support;
mod token_answers;
mod token_bodies;
