//! All other traffic: the backend sees what clients send, and clients see what the backend answers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod affinity;
mod backend_deploy;
mod backend_faults;
mod block;
mod client_identity;
mod cors;
mod fidelity;
mod fidelity_express;
mod fidelity_streams;
mod forwarding;
mod forwarding_differential;
mod forwarding_failures;
mod forwarding_streams;
mod interim_answers;
mod node_backend;
mod spellings;
mod spellings_through_renewd;
#[path = "../support/mod.rs"]
mod support;
mod tunnels;
mod upstreams;
mod websocket_conformance;
mod websockets;
