//! renewd under systemd: its protocol, its units, and booted systems.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod by_hand;
mod package;
#[path = "../support/mod.rs"]
mod support;
mod systemd_booted;
mod systemd_daemon;
mod systemd_protocol;
mod systemd_units;
