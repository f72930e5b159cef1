//! The callers' logins: JSON Web Tokens and the keys that verify them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod compare;
mod jwks;
mod jwt_parity;
mod jwt_public_keys;
mod key_server;
mod key_sets;
mod login_cookie;
#[path = "../support/mod.rs"]
mod support;
mod table;
mod tokens;
