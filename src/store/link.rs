//! One connection to the store: opened, logged in, and shown to work before it is used.
//!
//! Keeps true: a connection that is handed out has run the scripts' own commands, a write included, so that a server
//! which can't be written is none. The server's certificate is verified where the URL asks for TLS.
//! Must not know: when to connect, what a script means.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, RedisConnectionInfo, RedisError, ServerErrorKind, Value,
};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;

use super::{claims, limits, revocations, said};
use crate::config::model::{Redis, UpstreamServer};
use crate::io::connect::connect;
use crate::io::tls::Trust;
use crate::terms::version::VERSION;

/// How long connecting, TLS and the login may take together, where one answer may not take longer.
const CONNECT: Duration = Duration::from_secs(1);

/// How many commands may wait to be written. More would be answered too late.
const MOST_WAITING: usize = 1024;

/// How often a server may name another one: a cluster's does, where another of its servers has the keys.
const MOST_REDIRECTIONS: usize = 3;

/// A connection that has shown that it works.
pub(super) struct Link {
    connection: MultiplexedConnection,
    driver: AbortHandle,
    silences: AtomicU32,
    /// By [`Script`]: the names under which the server knows the scripts.
    names: [String; Script::ALL.len()],
}

/// The scripts, a file each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    Limits,
    Claims,
    Revocations,
    Sessions,
    LoginKey,
    Lapses,
    Places,
    SocketLogins,
}

impl Script {
    const ALL: [Self; 8] = [
        Self::Limits,
        Self::Claims,
        Self::Revocations,
        Self::Sessions,
        Self::LoginKey,
        Self::Lapses,
        Self::Places,
        Self::SocketLogins,
    ];

    const fn text(self) -> &'static str {
        match self {
            Self::Limits => include_str!("limits.lua"),
            Self::Claims => include_str!("claims.lua"),
            Self::Revocations => {
                concat!(
                    include_str!("versioned_set.lua"),
                    include_str!("revocations.lua")
                )
            }
            Self::Sessions => {
                concat!(
                    include_str!("versioned_set.lua"),
                    include_str!("sessions.lua")
                )
            }
            Self::LoginKey => include_str!("login_key.lua"),
            Self::Lapses => include_str!("lapses.lua"),
            Self::Places => include_str!("places.lua"),
            Self::SocketLogins => include_str!("socket_logins.lua"),
        }
    }
}

/// Why there is no connection.
enum LinkError {
    Refused(RedisError),
    Other(String),
}

impl Link {
    /// Connects, logs in, loads the scripts and runs them once. The handle is done when the connection has ended.
    pub(super) async fn open(
        config: &Redis,
        trust: Option<&Trust>,
    ) -> Result<(Self, JoinHandle<()>), String> {
        let mut server = config.server.clone();
        for _ in 0..MOST_REDIRECTIONS {
            match Self::open_at(&server, config, trust).await {
                Ok(opened) => return Ok(opened),
                Err(LinkError::Other(error)) => return Err(error),
                Err(LinkError::Refused(error)) => match redirected(&server, &error) {
                    Some(other) => server = other,
                    None => return Err(said(&error)),
                },
            }
        }
        Err("the cluster's servers send each request to another one".to_owned())
    }

    async fn open_at(
        server: &UpstreamServer,
        config: &Redis,
        trust: Option<&Trust>,
    ) -> Result<(Self, JoinHandle<()>), LinkError> {
        let late = |limit| move |_late| LinkError::Other(too_late(limit));
        let limit = CONNECT.max(config.timeout);
        let opening = timeout(limit, Self::log_in(server, config, trust, limit));
        let (link, driver) = opening.await.map_err(late(limit))??;
        let probing = timeout(config.timeout, link.probe(&config.prefix));
        probing
            .await
            .map_err(late(config.timeout))?
            .map_err(LinkError::Refused)?;
        Ok((link, driver))
    }

    async fn log_in(
        server: &UpstreamServer,
        config: &Redis,
        trust: Option<&Trust>,
        limit: Duration,
    ) -> Result<(Self, JoinHandle<()>), LinkError> {
        let stream = connect(server, trust, limit)
            .await
            .map_err(|error| LinkError::Other(format!("no connection: {error}")))?;
        let mut login = RedisConnectionInfo::default()
            .set_db(config.database)
            .set_lib_name("renewd", VERSION);
        if let Some(user) = &config.user {
            login = login.set_username(user);
        }
        if let Some(password) = &config.password {
            login = login.set_password(String::from_utf8_lossy(password.expose()));
        }
        // The callers limit their time themselves.
        let settings = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_pipeline_buffer_size(MOST_WAITING);
        let opened = MultiplexedConnection::new_with_config(&login, stream, settings).await;
        let (connection, driver) = opened.map_err(LinkError::Refused)?;
        let driver = tokio::spawn(driver);
        let mut link = Self {
            connection,
            driver: driver.abort_handle(),
            silences: AtomicU32::new(0),
            names: Default::default(),
        };
        link.names = link.load_all().await.map_err(LinkError::Refused)?;
        Ok((link, driver))
    }

    /// Loads all scripts at once: each would wait for the server once more.
    async fn load_all(&self) -> Result<[String; Script::ALL.len()], RedisError> {
        let loading = Script::ALL.map(|script| self.load(script));
        let [
            limits,
            claims,
            revocations,
            sessions,
            key,
            lapses,
            places,
            logins,
        ] = loading;
        let loaded = tokio::try_join!(
            limits,
            claims,
            revocations,
            sessions,
            key,
            lapses,
            places,
            logins
        );
        loaded.map(Into::into)
    }

    /// Shows that the scripts run and may write.
    pub(super) async fn probe(&self, prefix: &str) -> Result<Value, RedisError> {
        let of_limits = limits::probe(self, prefix);
        self.run(&of_limits, Script::Limits).await?;
        let of_claims = claims::probe(self, prefix);
        self.run(&of_claims, Script::Claims).await?;
        let of_revocations = revocations::probe(self, prefix);
        self.run(&of_revocations, Script::Revocations).await
    }

    /// A command that runs a script with so many keys, which are to be added.
    pub(super) fn command(&self, script: Script, keys: usize) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.names[script as usize]).arg(keys);
        command
    }

    /// Runs a script by its name; a server that has forgotten it is told again.
    pub(super) async fn run(&self, command: &Cmd, script: Script) -> Result<Value, RedisError> {
        const FORGOTTEN: ErrorKind = ErrorKind::Server(ServerErrorKind::NoScript);
        match self.send(command).await {
            Err(error) if error.kind() == FORGOTTEN => {
                self.load(script).await?;
                self.send(command).await
            }
            answer => answer,
        }
    }

    async fn load(&self, script: Script) -> Result<String, RedisError> {
        let mut command = redis::cmd("SCRIPT");
        let answer = self.send(command.arg("LOAD").arg(script.text())).await?;
        redis::from_redis_value(answer).map_err(RedisError::from)
    }

    /// Sends one command.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Value, RedisError> {
        let mut connection = self.connection.clone();
        let answer = connection.req_packed_command(command).await?;
        answer.extract_error()
    }

    /// Notes an answer.
    pub(super) fn has_answered(&self) {
        if self.silences.load(Ordering::Relaxed) > 0 {
            self.silences.store(0, Ordering::Relaxed);
        }
    }

    /// Notes that an answer came too late; how many in a row have.
    pub(super) fn was_silent(&self) -> u32 {
        self.silences.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Closes the connection; every request that waits on it ends now.
    pub(super) fn end(&self) {
        self.driver.abort();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Link").finish_non_exhaustive()
    }
}

pub(super) fn too_late(limit: Duration) -> String {
    format!("no answer within {}", humantime::format_duration(limit))
}

/// The server of the same cluster that an error names.
fn redirected(server: &UpstreamServer, error: &RedisError) -> Option<UpstreamServer> {
    let (address, _slot) = error.redirect_node()?;
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // A server that doesn't know its own address leaves it out.
    let host = if host.is_empty() { &server.host } else { host };
    Some(UpstreamServer {
        name: address.to_owned(),
        scheme: server.scheme.clone(),
        host: host.to_owned(),
        port: port.parse().ok()?,
    })
}
