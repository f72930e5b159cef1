//! What behaviour tests share: real servers as children, and a client that sees bytes.
#![allow(dead_code)] // each test file uses its own part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test's way to fail

pub mod app;
pub mod ask;
pub mod conversation;
pub mod database;
pub mod express;
pub mod lifecycle;
pub mod machine;
pub mod messages;
pub mod mongo;
pub mod node;
pub mod npm;
pub mod python;
pub mod raw;
pub mod renewd;
pub mod scripted;
pub mod spellings;
pub mod targets;
pub mod timed;
pub mod wire;
