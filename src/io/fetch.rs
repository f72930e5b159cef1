//! renewd's own requests to sources and hooks: HTTP/1.1 on the control plane, callable from every thread.
//!
//! Keeps true: a response comes within its limits of time and size, or an error says why not; an error quotes neither
//! headers nor a body. Redirects are returned and never followed, so that credentials go to no other server than the
//! configured one. Nothing is decompressed. A caller that stops waiting breaks no connection. A `GET` that fails on a
//! connection which the server closed while it was idle is sent again on another.
//! Must not know: what a response means.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, USER_AGENT,
};
use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tower_service::Service;

use super::connect::connect;
use super::tls::Trust;
use super::transport::Transport;
use crate::config::model::{UpstreamScheme, UpstreamServer};
use crate::http::url::Url;

/// How long a connection is kept idle: Node closes idle connections after 5 s (`server.keepAliveTimeout`).
const IDLE: Duration = Duration::from_secs(4);

/// How many idle connections are kept for each server: more than single-flight lookups use at once.
const MOST_IDLE: usize = 64;

/// How long connecting may take. Every request has a deadline of its own besides.
const CONNECT: Duration = Duration::from_secs(5);

/// The limits of a response's header section: 32 KiB, and more fields than any response has.
const HEADER_BYTES: usize = 32 * 1024;
const HEADER_FIELDS: usize = 256;

/// How much one request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchLimits {
    /// From the call to the last byte of the response.
    pub time: Duration,
    /// Bytes of the response's body.
    pub body: usize,
}

/// A server's response, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedResponse {
    /// The status, which may be 3xx.
    pub status: StatusCode,
    /// The fields as received.
    pub headers: HeaderMap,
    /// The complete body.
    pub body: Bytes,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server takes no connection, or its certificate can't be verified.
    #[error("no connection: {0}")]
    Connect(String),
    /// The response didn't come, or wasn't complete, in time.
    #[error("no answer within {0:?}")]
    Slow(Duration),
    /// The connection ended before the response did.
    #[error("the connection broke before the answer was complete")]
    Broken,
    /// The response isn't HTTP/1.1.
    #[error("the answer isn't HTTP")]
    Garbled,
    /// The body is larger than its limit.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// This process is stopping.
    #[error("shutting down")]
    Stopping,
}

type FetchPool = Client<Connector, Full<Bytes>>;

/// Sends requests to servers. All clones share their connections.
#[derive(Clone, Debug)]
pub struct Fetcher {
    pool: FetchPool,
    runtime: Handle,
}

impl Fetcher {
    /// Runs every request on `runtime`. `trust` verifies `https://` servers; `None` stands for the system's
    /// authorities, which are read when they are first needed.
    pub fn new(runtime: Handle, trust: Option<Trust>) -> Self {
        let connector = Connector {
            trust: Arc::new(OnceCell::new_with(trust)),
        };
        let pool = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MOST_IDLE)
            .http1_max_buf_size(HEADER_BYTES)
            .http1_max_headers(HEADER_FIELDS)
            .build(connector);
        Self { pool, runtime }
    }

    /// `GET`s a URL.
    pub async fn get(
        &self,
        url: &Url,
        headers: HeaderMap,
        limits: FetchLimits,
    ) -> Result<FetchedResponse, FetchError> {
        self.send(Method::GET, url, headers, Bytes::new(), limits)
            .await
    }

    /// `POST`s `body`, whose `Content-Type` is among `headers`.
    pub async fn post(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
        limits: FetchLimits,
    ) -> Result<FetchedResponse, FetchError> {
        self.send(Method::POST, url, headers, body, limits).await
    }

    /// Sends a `DELETE` with `body`, whose `Content-Type` is among `headers`.
    pub(crate) async fn delete(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
        limits: FetchLimits,
    ) -> Result<FetchedResponse, FetchError> {
        self.send(Method::DELETE, url, headers, body, limits).await
    }

    /// Runs a task of the caller's on the runtime of the requests.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
        limits: FetchLimits,
    ) -> Result<FetchedResponse, FetchError> {
        let request = request(method, url.uri().clone(), headers, body);
        let exchange = exchange(self.pool.clone(), request, limits.body);
        // A connection is driven by the runtime that made it, and a worker's runtime must not be used for that.
        let timed = async move { timeout(limits.time, exchange).await };
        let task = self.runtime.spawn(timed);
        match task.await {
            Ok(Ok(result)) => result,
            Ok(Err(_elapsed)) => Err(FetchError::Slow(limits.time)),
            Err(_stopped) => Err(FetchError::Stopping),
        }
    }
}

/// Fields that the connection writes itself. A caller that passes a client's headers on may have them among its own.
const OWN: [HeaderName; 4] = [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING];

fn request(method: Method, uri: Uri, mut headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
    for name in OWN {
        headers.remove(name);
    }
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(USER_AGENT, HeaderValue::from_static("renewd"));
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    request
}

async fn exchange(
    pool: FetchPool,
    request: Request<Full<Bytes>>,
    most: usize,
) -> Result<FetchedResponse, FetchError> {
    let response = respond(&pool, request).await?;
    let (head, mut body) = response.into_parts();
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > most {
        return Err(FetchError::TooLarge(most));
    }
    let mut collected = BytesMut::with_capacity(announced);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&error))?;
        // Trailers carry nothing that a source is asked for.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if collected.len() + data.len() > most {
            return Err(FetchError::TooLarge(most));
        }
        collected.extend_from_slice(&data);
    }
    Ok(FetchedResponse {
        status: head.status,
        headers: head.headers,
        body: collected.freeze(),
    })
}

/// The response's head. The pool of hyper-util 0.1 repeats a request only if nothing of it was written, so that a
/// server which closes an idle connection just as a request is written fails that request
/// (<https://github.com/hyperium/hyper/issues/2136>). A `GET` is repeated here (RFC 9112 §9.3.1). A `POST` is not,
/// since a hook may count how often it is asked.
async fn respond(
    pool: &FetchPool,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, FetchError> {
    loop {
        match pool.request(request.clone()).await {
            Ok(response) => {
                if let Some(used) = response.extensions().get::<Used>() {
                    used.0.store(true, Ordering::Relaxed);
                }
                return Ok(response);
            }
            Err(error) => match why(&error) {
                FetchError::Broken if request.method() == Method::GET && was_used(&error) => {}
                cause => return Err(cause),
            },
        }
    }
}

/// Whether the connection that a request failed on had brought a response before.
fn was_used(error: &ClientError) -> bool {
    let mut extras = Extensions::new();
    if let Some(connection) = error.connect_info() {
        connection.get_extras(&mut extras);
    }
    let used = extras.get::<Used>();
    used.is_some_and(|used| used.0.load(Ordering::Relaxed))
}

/// Marks a connection that has brought a response.
#[derive(Clone, Default)]
struct Used(Arc<AtomicBool>);

fn why(error: &ClientError) -> FetchError {
    let mut cause = std::error::Error::source(error);
    if error.is_connect() {
        let cause = cause.map_or_else(|| error.to_string(), ToString::to_string);
        return FetchError::Connect(cause);
    }
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref() {
            return broken(error);
        }
        cause = error.source();
    }
    FetchError::Broken
}

fn broken(error: &hyper::Error) -> FetchError {
    if error.is_parse() {
        FetchError::Garbled
    } else {
        FetchError::Broken
    }
}

/// Makes the pool's connections.
#[derive(Clone)]
struct Connector {
    trust: Arc<OnceCell<Trust>>,
}

impl Connector {
    async fn connect(self, uri: Uri) -> io::Result<TokioIo<Transport>> {
        let url = Url::parse(&uri.to_string())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let server = UpstreamServer {
            name: String::new(),
            scheme: if url.is_secure() {
                UpstreamScheme::Https
            } else {
                UpstreamScheme::Http
            },
            host: url.host().to_owned(),
            port: url.port(),
        };
        let trust = if url.is_secure() {
            Some(self.trust.get_or_try_init(of_the_system).await?)
        } else {
            None
        };
        connect(&server, trust, CONNECT).await.map(TokioIo::new)
    }
}

async fn of_the_system() -> io::Result<Trust> {
    let read = tokio::task::spawn_blocking(Trust::of_the_system).await;
    read.map_err(io::Error::other)?.map_err(io::Error::other)
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Transport>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

impl Connection for Transport {
    fn connected(&self) -> Connected {
        Connected::new().extra(Used::default())
    }
}
