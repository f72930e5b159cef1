//! Sessions: kept in memory, listed, and remembered over a restart.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod session_list;
mod session_memory;
mod session_persistence;
#[path = "../support/mod.rs"]
mod support;
