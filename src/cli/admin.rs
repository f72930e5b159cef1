//! Asks a running daemon through its admin listener, as the configuration file names it.
//!
//! Keeps true: the token is sent to that listener only; an answer is bounded in size and time.
//! Must not know: what is asked.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::check::EXIT_INVALID;
use crate::config::environment::SystemEnvironment;
use crate::config::model::{Admin, Listen, UpstreamScheme, UpstreamServer};
use crate::config::{self, ConfigErrors, write_report};
use crate::io::connect::connect;

/// How long an answer may take: longer than a decision that waits for its sources.
const PATIENCE: Duration = Duration::from_secs(10);

/// The largest answer: more than a page of a thousand sessions.
const LARGEST_ANSWER: usize = 4 * 1024 * 1024;

/// Which daemon, and how to print its answer.
#[derive(Debug, clap::Args)]
pub(crate) struct DaemonArguments {
    /// The configuration file, which names the daemon's admin listener
    #[arg(long, value_name = "FILE", default_value = "/etc/renewd/config.toml")]
    pub config: PathBuf,
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The file doesn't name the admin listener.
    #[error("the configuration is invalid")]
    Configuration(ConfigErrors),
    /// There is no connection to the listener, or it broke.
    #[error("no renewd answers at {listen}: {error}")]
    Unreachable {
        /// `admin.listen`.
        listen: Listen,
        /// Why.
        error: io::Error,
    },
    /// The answer is no 200.
    #[error("{0}")]
    Refused(String),
}

/// Prints why there is no answer. Returns the exit status.
pub(crate) fn report(error: &AskError, stderr: &mut impl Write) -> u8 {
    // There is no way to report that this can't be printed.
    if let AskError::Configuration(errors) = error {
        let _ = write_report(stderr, errors.warnings.iter().chain(&errors.errors));
        return EXIT_INVALID;
    }
    let _ = writeln!(stderr, "renewd: {error}");
    1
}

/// The query of the parameters that have a value.
pub(crate) fn query(parameters: &[(&str, Option<&str>)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in parameters {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    query.finish()
}

/// Requests a path of the daemon that runs with this file. Returns the body of a 200.
pub(crate) fn get(file: &Path, path: &str) -> Result<Vec<u8>, AskError> {
    let answer = ask_daemon(file, Method::GET, path, "")?;
    if answer.status == StatusCode::OK {
        return Ok(answer.body);
    }
    Err(answer.refused())
}

/// The daemon's answer.
#[derive(Debug)]
pub(crate) struct DaemonAnswer {
    /// The answer's status.
    pub status: StatusCode,
    /// The answer's body: JSON.
    pub body: Vec<u8>,
}

impl DaemonAnswer {
    /// The answer as an error, in the daemon's own words.
    pub(crate) fn refused(&self) -> AskError {
        let said: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let message = said.get("message").and_then(serde_json::Value::as_str);
        AskError::Refused(message.map_or_else(
            || format!("the daemon answered {}", self.status),
            str::to_owned,
        ))
    }
}

/// Sends a request to the daemon that runs with this file; `body` is JSON, or empty for none.
pub(crate) fn ask_daemon(
    file: &Path,
    method: Method,
    path: &str,
    body: &str,
) -> Result<DaemonAnswer, AskError> {
    let admin = config::admin(file, &SystemEnvironment).map_err(AskError::Configuration)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let unreachable = |error| AskError::Unreachable {
        listen: admin.listen.clone(),
        error,
    };
    let runtime = runtime.map_err(unreachable)?;
    let asking = async { timeout(PATIENCE, ask(&admin, method, path, body)).await };
    runtime
        .block_on(asking)
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(unreachable)
}

async fn ask(admin: &Admin, method: Method, path: &str, body: &str) -> io::Result<DaemonAnswer> {
    let server = server(&admin.listen)?;
    let transport = connect(&server, None, PATIENCE).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(transport))
        .await
        .map_err(io::Error::other)?;
    let driving = tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, server.authority())
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .map_err(io::Error::other)?;
    if !body.is_empty() {
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(CONTENT_TYPE, json);
    }
    if let Some(token) = &admin.token {
        let bearer = [b"Bearer ", token.expose()].concat();
        let mut bearer = HeaderValue::from_bytes(&bearer).map_err(io::Error::other)?;
        bearer.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, bearer);
    }
    let response = sender
        .send_request(request)
        .await
        .map_err(io::Error::other)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LARGEST_ANSWER);
    let body = body.collect().await.map_err(io::Error::other)?;
    driving.abort();
    Ok(DaemonAnswer {
        status,
        body: body.to_bytes().to_vec(),
    })
}

/// The server to connect to. A wildcard address is reached on loopback.
fn server(listen: &Listen) -> io::Result<UpstreamServer> {
    let (scheme, host, port) = match listen {
        Listen::Tcp(address) => {
            let host = match address.ip() {
                ip if !ip.is_unspecified() => ip.to_string(),
                ip if ip.is_ipv4() => "127.0.0.1".to_owned(),
                _ => "::1".to_owned(),
            };
            (UpstreamScheme::Http, host, address.port())
        }
        Listen::Unix(path) => (
            UpstreamScheme::Unix(path.clone()),
            "localhost".to_owned(),
            0,
        ),
        Listen::Systemd(_) => return Err(io::ErrorKind::Unsupported.into()),
    };
    Ok(UpstreamServer {
        name: listen.to_string(),
        scheme,
        host,
        port,
    })
}
