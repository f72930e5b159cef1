//! The parts that the data plane's tests share: a proxy on free ports, a backend played by hand, raw sockets with
//! deadlines.

#![allow(dead_code)] // each test file uses its own part
#![allow(clippy::unwrap_used, clippy::panic)] // what fails here fails a test

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::{CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use renewd::config::model::{
    Affinity, Listen, ServerLimits, Timeouts, Upstream, UpstreamScheme, UpstreamServer,
};
use renewd::exchange::response_body::{Finished, RequestBody, ResponseBody, fields_into_map};
use renewd::exchange::{Connection, ProxyProtocol, PublicService, Unanswered};
use renewd::forward::Forwarder;
use renewd::forward::servers::Backends;
use renewd::http::forwarded::{ClientScheme as HttpScheme, ForwardingClaims, Origin};
use renewd::http::hop::RequestChanges;
use renewd::io::descriptors::{Budgets, Claimant, Shares};
use renewd::io::tls::ServerIdentity;
use renewd::io::transport::Transport;
use renewd::server::listen::{BoundListeners, ListenAddress};
use renewd::server::worker::Workers;
use renewd::server::{Event, ServerObserver};
use renewd::telemetry::line_writer::DropCounter;
use renewd::telemetry::metrics::Metrics;
use renewd::terms::clock::Clock;
use renewd::terms::proxy_error::ProxyErrorKind;
use socket2::Socket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longer than anything takes here, shorter than a test runner's patience.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The future's result, or a panic that says what didn't happen.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(result) = tokio::time::timeout(PATIENCE, future).await else {
        panic!("not within {PATIENCE:?}: {what}");
    };
    result
}

/// The settings that a test can change.
#[derive(Clone)]
pub struct Setup {
    pub timeouts: Timeouts,
    pub limits: ServerLimits,
    pub workers: usize,
    pub connect_timeout: Duration,
    pub response_timeout: Duration,
    pub idle_timeout: Duration,
    pub max_connections: usize,
    pub listen: Listen,
    pub tls: Option<ServerIdentity>,
    pub h2c: bool,
    pub proxy_protocol: ProxyProtocol,
    pub shares: Shares,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            timeouts: Timeouts {
                header: PATIENCE,
                idle: PATIENCE,
                body_stall: PATIENCE,
                write_stall: PATIENCE,
                tunnel_idle: PATIENCE,
                tls_handshake: PATIENCE,
            },
            limits: ServerLimits {
                header_bytes: 16 * 1024,
                header_fields: 100,
                target_bytes: 8 * 1024,
            },
            workers: 1,
            connect_timeout: Duration::from_secs(2),
            response_timeout: PATIENCE,
            idle_timeout: Duration::from_secs(4),
            max_connections: 1000,
            listen: Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))),
            tls: None,
            h2c: false,
            proxy_protocol: ProxyProtocol::Off,
            shares: Shares::of(65_536, 1000),
        }
    }
}

/// All reports of the proxy.
#[derive(Default)]
pub struct Log {
    pub events: Mutex<Vec<Event>>,
    pub finished: Mutex<Vec<Finished>>,
    changed: tokio::sync::Notify,
}

impl Log {
    /// Waits until `seen` is satisfied.
    pub async fn wait(&self, what: &str, seen: impl Fn(&Self) -> bool) {
        within(what, async {
            loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                changed.as_mut().enable();
                if seen(self) {
                    return;
                }
                changed.await;
            }
        })
        .await;
    }

    pub fn count(&self, event: Event) -> usize {
        let events = self.events.lock().unwrap();
        events.iter().filter(|seen| **seen == event).count()
    }
}

impl ServerObserver for Log {
    fn observe(&self, _listener: usize, event: Event) {
        self.events.lock().unwrap().push(event);
        self.changed.notify_waiters();
    }
}

/// A running proxy that forwards everything.
pub struct Proxy {
    pub workers: Workers,
    pub address: ListenAddress,
    pub log: Arc<Log>,
    metrics: Arc<Metrics>,
}

impl Proxy {
    pub fn start(backend: SocketAddr, setup: Setup) -> Self {
        Self::start_inheriting(backend, setup, Vec::new())
    }

    pub fn start_inheriting(
        backend: SocketAddr,
        setup: Setup,
        inherited: Vec<(String, Socket)>,
    ) -> Self {
        let listen = std::slice::from_ref(&setup.listen);
        let listeners = BoundListeners::bind(listen, setup.workers, inherited).unwrap();
        let address = listeners.addresses()[0].clone();
        let log = Arc::new(Log::default());
        let service_log = log.clone();
        let metrics = Metrics::new(&Clock::system(), DropCounter::default());
        let service_metrics = metrics.clone();
        let max_connections = setup.max_connections;
        let workers = Workers::start(
            listeners,
            max_connections,
            &tokio::runtime::Handle::current(),
            log.clone(),
            move |_| {
                let upstream = upstream(backend, &setup);
                Rc::new(Service {
                    backends: Backends::new(&upstream, None, &service_metrics),
                    upstream: Arc::new(upstream),
                    setup: setup.clone(),
                    forwarder: Forwarder::new(Budgets::new(&setup.shares)),
                    log: service_log.clone(),
                })
            },
        )
        .unwrap();
        Self {
            workers,
            address,
            log,
            metrics,
        }
    }

    /// How many requests were made once more.
    pub fn retries(&self) -> u64 {
        let exposition = self.metrics.render();
        let mut lines = exposition.lines();
        let line = lines.find(|line| line.starts_with("renewd_upstream_retries_total{"));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value.map_or(0, |value| value.parse().unwrap())
    }

    pub fn tcp(&self) -> SocketAddr {
        match &self.address {
            ListenAddress::Tcp(address) => *address,
            ListenAddress::Unix(path) => panic!("listens on {}", path.display()),
        }
    }

    pub async fn connect(&self) -> Wire {
        let stream = within("connecting to the proxy", TcpStream::connect(self.tcp())).await;
        Wire::new(stream.unwrap())
    }
}

fn upstream(backend: SocketAddr, setup: &Setup) -> Upstream {
    Upstream {
        servers: vec![UpstreamServer {
            name: format!("http://{backend}"),
            scheme: UpstreamScheme::Http,
            host: backend.ip().to_string(),
            port: backend.port(),
        }],
        connect_timeout: setup.connect_timeout,
        response_timeout: setup.response_timeout,
        idle_timeout: setup.idle_timeout,
        try_duration: Duration::ZERO,
        exposed_ok: false,
        max_requests: 0,
        affinity: Affinity::Off,
        health: None,
    }
}

struct Service {
    upstream: Arc<Upstream>,
    backends: Backends,
    setup: Setup,
    forwarder: Forwarder,
    log: Arc<Log>,
}

impl PublicService for Service {
    fn timeouts(&self) -> Timeouts {
        self.setup.timeouts.clone()
    }

    fn limits(&self) -> ServerLimits {
        self.setup.limits.clone()
    }

    fn tls(&self, _listener: usize) -> Option<Arc<rustls::ServerConfig>> {
        let identity = self.setup.tls.as_ref()?;
        Some(identity.config().clone())
    }

    fn h2c(&self) -> bool {
        self.setup.h2c
    }

    fn proxy_protocol(&self, _peer: Option<IpAddr>) -> ProxyProtocol {
        self.setup.proxy_protocol
    }

    fn proxy_header_refused(&self, _peer: Option<IpAddr>, _asked: ProxyProtocol) {}

    fn refuse(&self, status: StatusCode) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::full("refused"));
        *response.status_mut() = status;
        response
    }

    async fn answer(
        self: Rc<Self>,
        connection: Connection,
        mut request: Box<Request<RequestBody>>,
    ) -> Result<Box<Response<ResponseBody>>, Unanswered> {
        fields_into_map(&mut request);
        let headers = request.headers();
        let named = headers.get(HOST).cloned();
        let origin = Origin {
            client_ip: None,
            host: None,
            scheme: HttpScheme::Http,
            claims: ForwardingClaims::None,
        };
        let changes = RequestChanges {
            host: &named.unwrap_or(HeaderValue::from_static("localhost")),
            origin: &origin,
            request_id: b"id-1",
            upgrade: headers
                .get(UPGRADE)
                .is_some_and(|value| value == "websocket"),
            chunked: request.body().is_unannounced(headers),
            keeps_method: false,
        };
        let claimant = Claimant {
            address: connection.peer.map(|peer| peer.ip()),
            connection: connection.number,
        };
        let forwarded =
            self.forwarder
                .forward(&self.upstream, &self.backends, request, &changes, claimant);
        let mut response = match forwarded.await.result {
            Ok(mut response) => {
                let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
                let headers = std::mem::take(response.headers_mut());
                *response.headers_mut() = end_to_end(headers, switching);
                response
            }
            // A refusal keeps its own `Connection: close`, which isn't a field of the backend.
            Err(error) => Box::new(refusal(error.kind)),
        };
        let log = self.log.clone();
        response.body_mut().on_finish(Box::new(move |finished| {
            log.finished.lock().unwrap().push(finished);
            log.changed.notify_waiters();
        }));
        Ok(response)
    }
}

fn refusal(kind: ProxyErrorKind) -> Response<ResponseBody> {
    let status = match kind {
        ProxyErrorKind::ResponseTimeout => StatusCode::GATEWAY_TIMEOUT,
        ProxyErrorKind::ClientGone => StatusCode::BAD_REQUEST,
        ProxyErrorKind::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        ProxyErrorKind::ConnectFailed
        | ProxyErrorKind::ConnectionLost
        | ProxyErrorKind::BadResponse => StatusCode::BAD_GATEWAY,
    };
    let mut response = Response::new(ResponseBody::full(format!("{kind:?}")));
    *response.status_mut() = status;
    if kind == ProxyErrorKind::ClientGone {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}

fn end_to_end(headers: HeaderMap, upgrade: bool) -> HeaderMap {
    let keep_alive = HeaderName::from_static("keep-alive");
    let mut kept = HeaderMap::new();
    let mut current: Option<HeaderName> = None;
    for (name, value) in headers {
        current = name.or(current);
        let Some(name) = &current else { continue };
        let hop = *name == keep_alive
            || *name == TRANSFER_ENCODING
            || (!upgrade && (*name == CONNECTION || *name == UPGRADE));
        if !hop {
            kept.append(name.clone(), value);
        }
    }
    kept
}

/// A backend whose every byte the test writes.
pub struct Backend {
    listener: TcpListener,
}

impl Backend {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        Self { listener }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub async fn accept(&self) -> Wire {
        let accepted = within("the backend being connected to", self.listener.accept()).await;
        Wire::new(accepted.unwrap().0)
    }

    /// A connection on which the head of a request has come, whatever it says.
    pub async fn accept_request(&self) -> Wire {
        let mut server = self.accept().await;
        server.head().await;
        server
    }

    /// A connection whose first request is answered with `body`, which the client has read.
    pub async fn answer(&self, client: &mut Wire, body: &str) -> Wire {
        let mut server = self.accept().await;
        server.answer(client, body).await;
        server
    }

    /// The same on the connection in `kept`, which is accepted the first time.
    pub async fn answer_on(&self, kept: &mut Option<Wire>, client: &mut Wire, body: &str) {
        let server = match kept {
            None => kept.insert(self.accept().await),
            Some(server) => server,
        };
        server.answer(client, body).await;
    }

    /// Whether a connection is waiting now.
    pub async fn is_untouched(&self) -> bool {
        let mut accept = std::pin::pin!(self.listener.accept());
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(accept.as_mut().poll(context).is_pending())
        })
        .await
    }
}

/// One end of a connection, byte by byte.
pub struct Wire {
    pub stream: Transport,
    read: Vec<u8>,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self::over(Transport::Tcp(stream))
    }

    pub fn over(stream: Transport) -> Self {
        Self {
            stream,
            read: Vec::new(),
        }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = within("sending", self.stream.write_all(bytes.as_ref())).await;
        sent.unwrap();
    }

    /// Says that no more will be sent.
    pub async fn half_close(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Everything up to and with `end`.
    pub async fn until(&mut self, end: &str) -> String {
        loop {
            let found = self
                .read
                .windows(end.len())
                .position(|window| window == end.as_bytes());
            if let Some(position) = found {
                let rest = self.read.split_off(position + end.len());
                let text = std::mem::replace(&mut self.read, rest);
                return String::from_utf8(text).unwrap();
            }
            let mut chunk = [0; 4096];
            let length = within(&format!("{end:?} after {:?}", self.text()), async {
                self.stream.read(&mut chunk).await
            })
            .await;
            match length {
                Ok(0) | Err(_) => panic!("closed before {end:?}, after {:?}", self.text()),
                Ok(length) => self.read.extend_from_slice(&chunk[..length]),
            }
        }
    }

    /// A header section.
    pub async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// Acts as a backend: reads a request's head, answers with `body`, and has the client read that.
    pub async fn answer(&mut self, client: &mut Self, body: &str) {
        self.head().await;
        self.finish(client, body).await;
    }

    /// The same for a request whose head has been read; gives all that the client reads.
    pub async fn finish(&mut self, client: &mut Self, body: &str) -> String {
        self.send(ok(body)).await;
        client.until(&format!("\r\n\r\n{body}")).await
    }

    /// Acts as a client: reads an answer of the proxy's own, and holds it to this status and this reason.
    pub async fn assert_error(&mut self, status: u16, reason: &str) {
        let answer = self.until(reason).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer:?}"
        );
    }

    /// The next header section, however long it takes to come; `None` if the connection ends before.
    pub async fn next_head(&mut self) -> Option<String> {
        loop {
            if self.read.windows(4).any(|window| window == b"\r\n\r\n") {
                return Some(self.head().await);
            }
            let mut chunk = [0; 4096];
            let length = self.stream.read(&mut chunk).await.ok()?;
            self.read
                .extend_from_slice(chunk.get(..length).filter(|_| length > 0)?);
        }
    }

    /// Exactly so many bytes.
    pub async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            let mut chunk = vec![0; 64 * 1024];
            let what = format!("{length} bytes, {} so far", self.read.len());
            match within(&what, self.stream.read(&mut chunk)).await {
                Ok(0) | Err(_) => panic!("closed before {what}"),
                Ok(read) => self.read.extend_from_slice(&chunk[..read]),
            }
        }
        let rest = self.read.split_off(length);
        std::mem::replace(&mut self.read, rest)
    }

    /// Whether the other side's next word is an end in order: for TLS, `close_notify`.
    pub async fn ends_in_order(&mut self) -> bool {
        let mut chunk = [0; 1];
        let read = within("the end", self.stream.read(&mut chunk)).await;
        self.read.is_empty() && matches!(read, Ok(0))
    }

    /// Everything until the other side closes or resets.
    pub async fn rest(&mut self) -> String {
        within("the connection's end", async {
            let mut chunk = vec![0; 64 * 1024];
            while let Ok(length @ 1..) = self.stream.read(&mut chunk).await {
                self.read.extend_from_slice(&chunk[..length]);
            }
        })
        .await;
        String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }
}

/// A `GET` as a client writes it.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: example.test\r\n\r\n")
}

/// A sized response as a backend writes it.
pub fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
