//! The configuration after validation: every value in range, every secret read, nothing optional that must be there.
//!
//! Keeps true: built by `validate` alone (and by tests); two equal values behave equally, so reload may compare them.
//! Must not know: TOML, files, the environment.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

mod agora_rest;
mod authorize_hook;
mod channel_pattern;
mod jwt;
mod redis;
mod reissue;
mod source_tables;
mod token;
mod upstream;

pub use self::channel_pattern::ChannelPattern;
pub use self::jwt::{Jwt, JwtAlgorithm, JwtKey, KeyMaterial};
pub use self::redis::{OnStoreError, Redis};
pub use self::reissue::{
    PublisherForOthers, Reissue, ReissueMode, ReissueRule, SocketLoginPlace, SocketRule,
    UnknownChannel, Withheld,
};
pub use self::token::{Agora, DefaultRole, Services, Tier, TokenConfig, ZeroUid};
pub(crate) use self::upstream::MOST_SERVERS;
pub use self::upstream::{Affinity, HealthCheck, Upstream, UpstreamScheme, UpstreamServer};
pub use agora_rest::AgoraRest;
pub use authorize_hook::{Authorize, OnError};
pub(crate) use source_tables::{
    AccountsCollection, AccountsConfig, AccountsSource, DenyRule, HTTP_PATIENCE, Mongodb,
    StreamsCollection, StreamsConfig, StreamsHttp, StreamsSource,
};

use super::secret::Secret;
use crate::http::method_override::MethodOverride;
use crate::http::{block, cors};
use crate::terms::labels::labels;
use crate::terms::outcome::Scope;

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[server]`: the public side.
    pub server: Server,
    /// `[admin]`: the private side.
    pub admin: Admin,
    /// `[decision]`: enforce, observe or off.
    pub decision: DecisionConfig,
    /// `[upstream]`: the backend.
    pub upstream: Upstream,
    /// `[agora]`: the project whose tokens are minted.
    pub agora: Agora,
    /// `[routes]`: the owned paths.
    pub routes: Routes,
    /// `[cors]`: which origins may read renewd's own answers; `None` adds no CORS header.
    pub cors: Option<cors::CorsPolicy>,
    /// `[token]`: how tokens are made.
    pub token: TokenConfig,
    /// `auth.cookie`: the cookie that may carry the JWT; `None` for none.
    pub cookie: Option<String>,
    /// `[auth.jwt]`: how the caller's JWT is verified.
    pub jwt: Jwt,
    /// `[mongodb]`; `None` where nothing asks for it.
    pub mongodb: Option<Mongodb>,
    /// `[accounts]`: whose account is in good standing.
    pub accounts: AccountsConfig,
    /// `[streams]`: which streams are live.
    pub streams: StreamsConfig,
    /// `[reissue]`: tokens inside the backend's answers.
    pub reissue: Reissue,
    /// `[authorize]`: the hook that the backend decides by; `None` asks none.
    pub authorize: Option<Authorize>,
    /// `[policy]`: limits on what one subject may hold.
    pub policy: PolicyConfig,
    /// `[rate_limit]`.
    pub rate_limit: RateLimit,
    /// `[redis]`: the store that replicas share; `None` for a daemon by itself.
    pub redis: Option<Redis>,
    /// `[revocation]`: how old the knowledge of other replicas' revocations may be.
    pub revocation: RevocationConfig,
    /// `[sessions]`: the table of live tokens.
    pub sessions: SessionsConfig,
    /// `[state]`: where what must survive is kept; `None` is memory only.
    pub state_directory: Option<PathBuf>,
    /// `[log]`.
    pub log: Log,
}

/// `[server]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// At least one.
    pub listen: Vec<Listen>,
    /// For each of `listen`, whether it was prefixed `plain:`, so that it isn't TLS.
    pub plain: Vec<bool>,
    /// Worker threads; never 0 (the default is one per core).
    pub workers: usize,
    /// Peers whose `X-Forwarded-*` and `x-request-id` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Open client connections, all listeners together.
    pub max_connections: usize,
    /// How long a stop waits for finite requests.
    pub drain_timeout: Duration,
    /// How long a stop goes on accepting, not ready.
    pub shutdown_delay: Duration,
    /// When tunnels and event streams end during a stop.
    pub tunnel_drain_timeout: Duration,
    /// Bare readiness on the public port; `None` is off. Compared byte for byte.
    pub health_path: Option<String>,
    /// HTTP/2 by prior knowledge on listeners that aren't TLS (RFC 9113 §3.3).
    pub h2c: bool,
    /// Connections come from `trusted_proxies` alone, and begin with a PROXY header.
    pub proxy_protocol: bool,
    /// `[server.tls]`; `None` is no TLS.
    pub tls: Option<ServerTls>,
    /// `[server.timeouts]`.
    pub timeouts: Timeouts,
    /// `[server.limits]`.
    pub limits: ServerLimits,
}

impl Server {
    /// Whether connections of the listener at this position in `listen` are TLS: with `[server.tls]`, every TCP and
    /// systemd listener is TLS, except those prefixed `plain:`.
    pub(crate) fn is_tls(&self, listener: usize) -> bool {
        let plain = self.plain.get(listener).copied().unwrap_or(false);
        let listen = self.listen.get(listener);
        let can_be = matches!(listen, Some(Listen::Tcp(_) | Listen::Systemd(_)));
        self.tls.is_some() && can_be && !plain
    }

    /// The entries of `listen` as the configuration writes them; the metrics' `listener` label.
    pub(crate) fn listener_names(&self) -> impl Iterator<Item = String> {
        let plain = self.plain.iter().copied().chain(std::iter::repeat(false));
        self.listen.iter().zip(plain).map(|(listen, plain)| {
            let prefix = if plain { "plain:" } else { "" };
            format!("{prefix}{listen}")
        })
    }
}

/// The contents of the files that `[server.tls]` names, in PEM. Validation has built an identity from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// The server's certificate, then those between that and the root.
    pub certificate: Secret,
    /// The private key of the first certificate.
    pub private_key: Secret,
    /// The authorities whose client certificates are required; `None` lets every client in.
    pub client_ca: Option<Secret>,
}

/// One entry of `server.listen`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Listen {
    /// `"[::]:3000"` (dual-stack), `"127.0.0.1:3000"`, or what `env:PORT` gave.
    Tcp(SocketAddr),
    /// `"unix:/run/renewd/public.sock"`.
    Unix(PathBuf),
    /// `"systemd:NAME"`: sockets passed in `LISTEN_FDS` under that `FileDescriptorName=`.
    Systemd(String),
}

/// The entry as the configuration writes it, without its prefix.
impl fmt::Display for Listen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(formatter, "{address}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Self::Systemd(name) => write!(formatter, "systemd:{name}"),
        }
    }
}

/// `[server.timeouts]`; all above zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From a request's first byte to the end of its header section: 10 s.
    pub header: Duration,
    /// Keep-alive without a request: 75 s.
    pub idle: Duration,
    /// A request body without a byte: 30 s.
    pub body_stall: Duration,
    /// A response that the client doesn't take: 60 s.
    pub write_stall: Duration,
    /// A tunnel without a byte either way: 1 h.
    pub tunnel_idle: Duration,
    /// A TLS handshake as a whole: 10 s.
    pub tls_handshake: Duration,
}

/// `[server.limits]`; all above zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// The header section in bytes: 16 KiB.
    pub header_bytes: usize,
    /// Header fields: 100.
    pub header_fields: usize,
    /// The request target in bytes: 8 KiB.
    pub target_bytes: usize,
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// `127.0.0.1:9464` or a unix socket; never `Systemd`.
    pub listen: Listen,
    /// The bearer token, trimmed; `None` leaves what needs it refused.
    pub token: Option<Secret>,
    /// Names under which it may be asked besides addresses and `localhost`: lower case, without a port.
    pub allowed_hosts: Vec<String>,
}

/// `[decision]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionConfig {
    /// Enforce, observe or off.
    pub mode: DecisionMode,
    /// After this a decision is 503: 3 s.
    pub timeout: Duration,
    /// 0 to 100: subjects (by hash) to whom `enforce` applies; the others are observed.
    pub enforce_percent: u8,
    /// Publishers who hold tokens from renewd renew them at renewd, even if the backend answers all other requests.
    pub drain_holders: bool,
    /// Until when a mode other than `enforce` raises no alert, in seconds since the Unix epoch.
    pub mode_ok_until: Option<u64>,
}

impl DecisionConfig {
    /// How long a decision waits for one source when it has `left` of its time: the rest is enough to decide without
    /// the source's answer.
    pub(crate) fn source_budget(left: Duration) -> Duration {
        left * 4 / 5
    }

    /// Whether renewd answers the token requests of at least some subjects.
    pub(crate) fn is_enforcing(&self) -> bool {
        self.mode == DecisionMode::Enforce && self.enforce_percent > 0
    }
}

labels! {
    /// `decision.mode`.
    pub enum DecisionMode {
        /// Owned paths are answered here.
        Enforce => "enforce",
        /// Decided, counted, and forwarded.
        Observe => "observe",
        /// A pure proxy.
        Off => "off",
    }
}

/// `[routes]`: owned paths as written, each starting with `/`, in no guard-key conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    /// Where tokens are asked for.
    pub token: Vec<String>,
    /// Where they are renewed.
    pub refresh: Vec<String>,
    /// How requests for plainly spelled paths below them are answered.
    pub below: BelowOwned,
    /// Where the backend reads a method from that replaces the request's own.
    pub method_override: MethodOverride,
    /// Paths closed to clients: `[[routes.block]]`, and those that validation adds.
    pub block: Vec<block::BlockRule>,
}

/// `routes.below`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BelowOwned {
    /// Answer with 404: the backend may have mounted an owned path with everything below it.
    Refuse,
    /// Forward them to the backend.
    Forward,
}

/// `[policy]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyConfig {
    /// Distinct channels one publisher may hold live tokens for; 0 is off.
    pub max_streams_per_publisher: u32,
    /// From a subject's first token for a channel; zero is off.
    pub max_session: Duration,
    /// A uid belongs to its subscriber while their token lives.
    pub bind_uid: bool,
}

/// `[rate_limit]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Keys remembered per scope; above it new keys share one bucket.
    pub max_keys: usize,
    /// The rule that decides while the shared store gives no answer; without effect where there is no `[redis]`.
    pub on_store_error: OnStoreError,
    /// Per JWT subject.
    pub(crate) subject: Option<Quota>,
    /// Per client address, charged by refused guesses only.
    pub(crate) address: Option<Quota>,
    /// Per channel.
    pub(crate) channel: Option<Quota>,
    /// All together.
    pub(crate) global: Option<Quota>,
}

impl RateLimit {
    /// The limit of a scope; `None` where it is off.
    pub(crate) fn quota(&self, scope: Scope) -> Option<Quota> {
        match scope {
            Scope::Subject => self.subject,
            Scope::Address => self.address,
            Scope::Channel => self.channel,
            Scope::Global => self.global,
        }
    }
}

/// `{ requests, per, burst }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Quota {
    /// At least 1.
    pub requests: u32,
    /// Above zero.
    pub per: Duration,
    /// Capacity from rest, at least 1.
    pub burst: u32,
}

/// `[revocation]`: a replica that the store gives no answer about the others' revocations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationConfig {
    /// How old its knowledge may be.
    pub max_stale: Duration,
    /// The treatment of token requests after that.
    pub on_stale: OnStale,
}

labels! {
    /// `revocation.on_stale`.
    pub enum OnStale {
        /// The revocations that are known here are applied.
        Serve => "serve",
        /// 503.
        Deny => "deny",
    }
}

/// `[sessions]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionsConfig {
    /// At least 1.
    pub max: usize,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// The least level written.
    pub level: LogLevel,
    /// One line a request.
    pub access: bool,
    /// Where audit events go.
    pub audit: AuditSink,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `pretty` on a terminal, else `logfmt`.
    Auto,
    /// `key=value`.
    Logfmt,
    /// One JSON object a line.
    Json,
    /// For reading on a terminal.
    Pretty,
}

/// `log.level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something that the operator should look at.
    Warn,
    /// The daemon's own actions.
    Info,
    /// The actions of each part.
    Debug,
    /// Everything.
    Trace,
}

/// `log.audit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditSink {
    /// No audit events.
    Off,
    /// With the log.
    Stderr,
    /// `"file:PATH"`, reopened on SIGUSR1.
    File(PathBuf),
}
