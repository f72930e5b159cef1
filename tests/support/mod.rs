//! What behaviour tests share: real servers as children, and a client that sees bytes.
#![allow(dead_code)] // each test file uses its own part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test's way to fail

pub mod express;
pub mod npm;
pub mod raw;
pub mod renewd;
