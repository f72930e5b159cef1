//! Who is calling: JSON Web Tokens and the keys that verify them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

#[path = "../jwt/compare.rs"]
mod compare;
mod jwks;
mod jwt_parity;
mod jwt_public_keys;
#[path = "../jwt/key_server.rs"]
mod key_server;
mod key_sets;
mod login_cookie;
#[path = "../jwt/pairs.rs"]
mod pairs;
#[path = "../support/mod.rs"]
mod support;
#[path = "../jwt/table.rs"]
mod table;
#[path = "../jwt/tokens.rs"]
mod tokens;
