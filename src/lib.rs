//! renewd: a sidecar that answers Agora token requests and forwards everything else.
//!
//! The map, from the outside in; imports go one way, top to bottom (`tests/house/layering.rs` holds it):
//!
//! | module | what |
//! |---|---|
//! | [`cli`] | one file a command |
//! | [`daemon`] | composition root: build, bind, READY, wait, reload, drain |
//! | [`admin`] | the admin listener |
//! | [`net`] | sockets: accept, deadlines, one connection |
//! | [`service`] | one request: route, answer, finish exactly once |
//! | [`live`] | the token endpoints: wire format and the ordered decision |
//! | [`forward`] | everything else: pool, retry, tunnel |
//! | [`reissue`] | tokens inside the backend's answers: found, judged, made shorter |
//! | [`snapshot`] | everything hot, immutable, swapped whole on reload |
//! | [`access`] | may they? JWTs, accounts, streams, sessions; where each is looked up |
//! | [`limit`] | rate limits |
//! | [`state`] | what survives a restart: whole files, a journal of records |
//! | [`agora`] | token bytes |
//! | [`backends`] | the servers behind us: what is known of each, and the choice |
//! | [`config`] | TOML as written → every error at once → validated model |
//! | [`http`] | pure functions on HTTP types |
//! | `http1` | HTTP/1.1 as bytes |
//! | [`telemetry`] | metrics, access log, audit |
//! | [`fetch`] | requests of our own to sources, on the control plane |
//! | [`descriptors`] | what file descriptors are for; who gets the next socket to the backend |
//! | [`connect`], [`transport`], [`tls`], [`deadline`], [`pace`] | a new connection; a connected socket; what makes it TLS; a timer that is cheap to move; how fast somebody reads |
//! | [`public_key`], [`der`] | keys that verify signatures; the bytes they come in |
//! | [`context`], [`error`], [`role`], [`clock`], [`readiness`] | shared vocabulary |

// Nothing that comes from outside may end the process. Here, not in Cargo.toml: a test fails by panicking.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod access;
pub mod admin;
pub mod agora;
pub mod backends;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connect;
pub mod context;
pub mod daemon;
pub mod deadline;
pub mod der;
pub mod descriptors;
pub mod error;
pub mod fetch;
pub mod forward;
pub mod http;
mod http1;
pub mod limit;
pub mod live;
pub mod net;
pub mod pace;
pub mod public_key;
pub mod readiness;
pub mod reissue;
pub mod role;
pub mod service;
pub mod snapshot;
pub mod state;
pub mod telemetry;
pub mod tls;
pub mod transport;
