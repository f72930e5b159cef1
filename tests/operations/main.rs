//! The operators' side: start, reload, stop, metrics, alerts, logs, the admin listener.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod admin_listener;
mod admin_of_the_daemon;
mod alerts;
mod alerts_of_replicas;
mod commands;
mod container;
mod dashboard;
mod demo;
mod exposure;
mod log_and_audit;
mod metrics;
mod prometheus;
mod reload;
mod reload_connections;
mod restart_under_load;
mod secrets_stay_secret;
mod start;
mod status_page;
mod stopping_the_daemon;
#[path = "../support/mod.rs"]
mod support;
mod watch;
mod ways_to_write;
