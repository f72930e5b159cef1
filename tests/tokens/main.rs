//! Agora tokens: read, written, shown on the command line.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod agora_parser;
mod agora_vectors;
#[path = "../support/mod.rs"]
mod support;
mod token_command;
mod token_inspect;
mod token_profiles;
mod token_shapes;
