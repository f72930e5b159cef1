//! The configuration: what is read, what is refused, and what the examples say.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod config;
mod config_example;
mod connection_strings;
mod differences;
mod encoded_secrets;
mod findings;
mod streams_beside_configuration;
#[path = "../support/mod.rs"]
mod support;
