//! Streams, accounts and hooks: real servers that answer, answer wrongly, or don't answer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod express_sources;
mod fetch;
mod http_sources;
mod lapses;
mod mongodb_faults;
mod mongodb_hostile;
mod mongodb_sources;
mod reloaded_sources;
mod riding_through;
mod sources_without_answer;
#[path = "../support/mod.rs"]
mod support;
