//! Tokens inside the backend's answers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod reissue;
mod reissue_app;
#[path = "../support/mod.rs"]
mod support;
