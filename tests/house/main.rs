//! The source itself: layers, conventions, and documentation that keeps its promises.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod architecture;
mod benches;
mod conventions;
mod documentation;
mod layering;
mod links;
mod reference;
#[path = "../support/mod.rs"]
mod support;
