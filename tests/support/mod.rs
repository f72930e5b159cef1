//! The parts that behaviour tests share: real servers as children, and a client that sees bytes.
#![allow(dead_code)] // each test file uses its own part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test's way to fail

pub mod agora_api;
pub mod app;
pub mod ask;
pub mod case_files;
pub mod commands;
pub mod conversation;
pub mod database;
pub mod ejecting;
pub mod environment;
pub mod express;
pub mod frames;
pub mod hostile_mongo;
pub mod key_pairs;
pub mod lifecycle;
pub mod machine;
pub mod messages;
pub mod mongo;
pub mod moved_clock;
pub mod node;
pub mod npm;
pub mod pages;
pub mod plane;
pub mod ports;
pub mod python;
pub mod random;
pub mod raw;
pub mod raw_exchange;
pub mod redis;
pub mod renewd;
pub mod scripted;
pub mod service_manager;
pub mod source;
pub mod spellings;
pub mod talkers;
pub mod targets;
pub mod timed;
pub mod tls;
pub mod topology;
pub mod web_sockets;
pub mod wire;
pub mod written_frames;

/// The name by which the test harness knows a test function of the module with this `module_path!()`: a test that
/// starts its own program again has to ask for itself by it.
pub fn test_name(module: &str, test: &str) -> String {
    let (_, module) = module.split_once("::").expect("a module of a test program");
    format!("{module}::{test}")
}
