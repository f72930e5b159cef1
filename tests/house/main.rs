//! The source itself: layers, conventions, and a README that keeps its promises.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod architecture;
mod conventions;
mod layering;
mod readme;
#[path = "../support/mod.rs"]
mod support;
