//! `[upstream]` after validation: the backend's servers, and how they are treated.
//!
//! Must not know: what is known of a server at run time.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;

/// The most servers: `forward` remembers those it tried in the bits of a `u64`.
pub(crate) const MOST_SERVERS: usize = 64;

/// `[upstream]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// 1 to [`MOST_SERVERS`], no two alike.
    pub servers: Vec<UpstreamServer>,
    /// TCP connect, name resolution included: 2 s.
    pub connect_timeout: Duration,
    /// From the request's end to the response's header section: 60 s.
    pub response_timeout: Duration,
    /// Idle connections are closed after this: 4 s, below Node's 5 (`server.keepAliveTimeout`).
    pub idle_timeout: Duration,
    /// How long a request that no server has read waits for a server that takes it; zero is off.
    pub try_duration: Duration,
    /// Whether the backend's port may be reachable without renewd; then the check for that is off.
    pub exposed_ok: bool,
    /// Requests in flight in this process, all servers together; 0 is no limit.
    pub max_requests: usize,
    /// How a client is kept on one server.
    pub affinity: Affinity,
    /// `upstream.health`; `None` leaves it at what requests show.
    pub health: Option<HealthCheck>,
}

/// `upstream.affinity`: what a request's server is chosen by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// No affinity: the servers take turns.
    Off,
    /// The client's address.
    Address,
    /// The value of the cookie of this name; the client's address where there is none.
    Cookie(String),
}

/// `upstream.health`: a `GET` that is to be answered with 2xx or 3xx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Target in origin form.
    pub path: String,
    /// From one check of a server to the next: 5 s.
    pub interval: Duration,
}

/// One server: `http://host:port`, `https://host:port` or `unix:path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamServer {
    /// As written in the configuration; the metrics' `server` label.
    pub name: String,
    /// How it is reached.
    pub scheme: UpstreamScheme,
    /// Host name or address without brackets; `localhost` for a unix socket.
    pub host: String,
    /// Port; 80 or 443 when the URL has none; 0 for a unix socket.
    pub port: u16,
}

impl Upstream {
    /// The `Host` of a request that came without one (HTTP/1.0 allows that): the first server's, for all servers.
    pub(crate) fn host(&self) -> HeaderValue {
        let first = self.servers.first();
        first
            .and_then(|server| HeaderValue::try_from(server.authority()).ok())
            .unwrap_or(HeaderValue::from_static("localhost"))
    }
}

impl UpstreamServer {
    /// For a `Host` field.
    pub(crate) fn authority(&self) -> String {
        match self.scheme {
            UpstreamScheme::Unix(_) => self.host.clone(),
            UpstreamScheme::Http | UpstreamScheme::Https if self.host.contains(':') => {
                format!("[{}]:{}", self.host, self.port)
            }
            UpstreamScheme::Http | UpstreamScheme::Https => format!("{}:{}", self.host, self.port),
        }
    }
}

/// How a server is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamScheme {
    /// TCP.
    Http,
    /// TLS on TCP; the certificate must be `host`'s.
    Https,
    /// A unix stream socket at this path.
    Unix(PathBuf),
}
