//! Tokens inside the backend's answers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod reissue;
mod reissue_app;
mod socket_bytes;
mod socket_calls;
mod socket_evasions;
mod socket_frames;
mod socket_jsonp;
mod socket_replicas;
mod socket_versions;
#[path = "../support/mod.rs"]
mod support;
