//! The public listeners: connections, limits, TLS, HTTP/1.1 and HTTP/2 as peers speak them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod address_limit;
mod case_file_reader;
mod certificate_reload;
mod conformance_h1;
mod connections;
mod descriptors;
mod hostile_peers;
mod hostile_requests;
mod http2;
mod http2_conformance;
mod http2_hostile;
mod hyper_traps;
mod listeners;
mod overload;
mod proxy_protocol;
mod stopping;
#[path = "../support/mod.rs"]
mod support;
mod tls;
