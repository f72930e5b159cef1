//! renewd: a sidecar that answers Agora token requests and forwards everything else.
//!
//! The map, from the outside in; imports go one way, top to bottom (`tests/layering.rs` holds it):
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
//! | [`snapshot`] | everything hot, immutable, swapped whole on reload |
//! | [`access`] | may they? JWTs, streams, sessions |
//! | [`limit`] | rate limits |
//! | [`agora`] | token bytes |
//! | [`config`] | TOML as written → every error at once → validated model |
//! | [`http`] | pure functions on HTTP types |
//! | [`telemetry`] | metrics, access log, audit |
//! | [`context`], [`error`], [`role`], [`clock`] | shared vocabulary |

pub mod access;
pub mod agora;
pub mod clock;
pub mod config;
pub mod context;
pub mod error;
pub mod http;
pub mod role;
pub mod telemetry;
