//! renewd: a sidecar that answers Agora token requests and forwards everything else.
//!
//! The map, from the outside in. A module names only what stands further down (`tests/house/layering.rs` holds it):
//!
//! | module | what |
//! |---|---|
//! | [`cli`] | one file a command |
//! | [`daemon`] | composition root: build, bind, READY, wait, reload, drain; the tasks that run beside the requests |
//! | [`config`] | TOML as written → every error at once → validated model |
//! | [`admin`] | the admin listener |
//! | [`server`] | the public listeners: accept, deadlines, one connection (`h1`, `h2`); `service`: one request, routed, answered, finished exactly once |
//! | [`state`] | what survives a restart: whole files, a journal of records |
//! | [`decision`] | the token endpoints: wire format and the ordered decision |
//! | [`reissue`] | tokens inside the backend's answers: found, judged, made shorter |
//! | [`forward`] | everything else: the backend's servers, the connections to them, retries |
//! | `http1` | HTTP/1.1 as bytes |
//! | [`exchange`] | one request and its answer in flight: bodies, tunnels, the responses that renewd writes itself |
//! | [`snapshot`] | everything that a reload can change, immutable and swapped as a whole |
//! | [`sources`] | where accounts, streams and the authorize hook are asked, and what holds while a source gives no answer |
//! | `store` | what replicas share |
//! | [`ejection`] | the rules at Agora that remove revoked users from their channels |
//! | [`revocation`] | what an operator refuses tokens to |
//! | [`sessions`] | which subjects hold a token |
//! | [`logins`] | the identity of a caller: JSON Web Tokens and the keys that verify them |
//! | [`limit`] | rate limits |
//! | [`telemetry`] | metrics, access log, audit |
//! | [`io`] | sockets: connecting, TLS, deadlines, descriptors; the requests that renewd sends to sources |
//! | [`agora`] | token bytes |
//! | [`http`] | pure functions on HTTP types |
//! | [`pki`] | public keys, and the DER that keys and certificates come in |
//! | [`terms`] | words that all modules share |

// Input from outside must not end the process. These lints stand here rather than in Cargo.toml because tests may panic.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod admin;
pub mod agora;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod decision;
pub mod ejection;
pub mod exchange;
pub mod forward;
pub mod http;
mod http1;
pub mod io;
pub mod limit;
pub mod logins;
pub mod pki;
pub mod reissue;
pub mod revocation;
pub mod server;
pub mod sessions;
pub mod snapshot;
pub mod sources;
pub mod state;
mod store;
pub mod telemetry;
pub mod terms;
