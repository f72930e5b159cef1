//! Everything that isn't answered here goes to the backend: one request, its framing, its way through the servers, its
//! response.
//!
//! | file | what |
//! |---|---|
//! | [`connect`] | a new connection to a server |
//! | [`pool`] | connections to a server, kept |
//! | `link` | the socket of such a connection |
//! | [`retry`] | what may be tried again: a pure table |
//! | [`tunnel`] | bytes both ways after an upgrade |
//!
//! Keeps true: what leaves here is framed by us alone, whatever came in; what the backend answers is passed on only if
//! it can be framed again without guessing.
//! Must not know: routes, tokens, who the client is.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    Version, request,
};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::{Instant, sleep};

use crate::backends::{Backend, Backends, Tried};
use crate::clock::timer_now;
use crate::config::model::{Upstream, UpstreamServer};
use crate::error::{Kind, ProxyError, Retry, Side};
use crate::http::body::{Body, RequestBody};
use crate::http::exchange::Exchange;

pub mod connect;
mod link;
pub mod pool;
pub mod retry;
pub mod tunnel;

use pool::{Lent, Pool};
use retry::{Candidate, Left, Next};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// A server closes when its announced time is over; the request that we send must be there before.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(1);

/// Between two attempts to find a server for a request that waits for one.
const PAUSE: Duration = Duration::from_millis(200);

/// Told what happens towards the backend; must not block.
pub trait Observer {
    /// A request that failed at this server is made once more, there or elsewhere.
    fn retried(&self, server: &UpstreamServer);
}

/// One worker's way to the backend.
pub struct Forwarder {
    pools: RefCell<Vec<Rc<Pool>>>,
    /// Requests so far: the servers take turns.
    turns: Cell<usize>,
    observer: Rc<dyn Observer>,
}

impl Forwarder {
    /// No connections yet.
    pub fn new(observer: Rc<dyn Observer>) -> Self {
        Self {
            pools: RefCell::default(),
            turns: Cell::new(0),
            observer,
        }
    }

    /// Sends one request to the backend and returns the head of its response, the body to follow.
    ///
    /// `head` is ready to be sent but for its framing: target in origin form, `Host` set, hop-by-hop fields gone
    /// (but `Connection` and `Upgrade` for a WebSocket request, which `upgrade` announces). The response's fields are
    /// as the backend wrote them, hop-by-hop ones included, but for a `Content-Length` beside a `Transfer-Encoding`.
    pub fn forward(
        &self,
        upstream: &Upstream,
        backends: &Backends,
        head: request::Parts,
        body: RequestBody,
        upgrade: bool,
    ) -> impl Future<Output = Forwarded> {
        // Boxed before a future is made of it: each async fn that hands a request on has room for two.
        self.exchange(upstream, backends, Box::new(framed(head, body)), upgrade)
    }

    async fn exchange(
        &self,
        upstream: &Upstream,
        backends: &Backends,
        mut request: Box<Request<RequestBody>>,
        upgrade: bool,
    ) -> Forwarded {
        let Some(admission) = backends.admit(upstream.max_requests) else {
            return Forwarded::nowhere(Kind::Overloaded);
        };
        let mut course = Course::new(backends, self.turn());
        let candidate = Candidate::new(request.method(), request.body().is_end_stream());
        while let Some(server) = course.server
            && let Some(backend) = backends.all().get(server)
        {
            let asked = |result| Forwarded {
                server: Some(server),
                result,
            };
            let pool = self.pool(backend);
            // A server may treat an upgrade on a connection that it has served before differently: engine.io lets a refused
            // one hang there.
            let idle = if course.reconnect || upgrade {
                None
            } else {
                pool.take()
            };
            let connection = match idle {
                Some(connection) => Ok(connection),
                None => connect(&pool, backend, upstream.connect_timeout).await,
            };
            let (error, reused) = match connection {
                Err(error) => (error, false),
                Ok(mut connection) => {
                    let reused = connection.reused();
                    let repeatable = candidate.may_be_repeated(reused);
                    let spare = repeatable.then(|| Spare::of(&request));
                    let tunnel = upgrade.then(|| connection.expect_upgrade());
                    match connection.send(request, upstream.response_timeout).await {
                        Ok(response) => {
                            connection.admit(admission);
                            let keep = upstream.idle_timeout;
                            return asked(accepted(response, connection, keep, tunnel));
                        }
                        Err(failed) => {
                            let spare = || spare.map(|spare| Box::new(spare.into_request()));
                            request = match failed.request.or_else(spare) {
                                Some(request) => request,
                                None => return asked(Err(failed.error)),
                            };
                            (failed.error, reused)
                        }
                    }
                }
            };
            let next = retry::next(error.retry, candidate, course.left(upstream, reused));
            if next == Next::Nowhere {
                return asked(Err(error));
            }
            self.observer.retried(&backend.server);
            course.turn_to(next).await;
        }
        Forwarded::nowhere(Kind::ConnectFailed)
    }

    /// Idle connections to all servers.
    pub fn idle_connections(&self) -> usize {
        self.pools.borrow().iter().map(|pool| pool.idle()).sum()
    }

    fn turn(&self) -> usize {
        let turn = self.turns.get();
        self.turns.set(turn.wrapping_add(1));
        turn
    }

    fn pool(&self, backend: &Arc<Backend>) -> Rc<Pool> {
        let mut pools = self.pools.borrow_mut();
        if let Some(pool) = pools.iter().find(|pool| pool.is_for(backend)) {
            return pool.clone();
        }
        pools.retain(|pool| pool.is_wanted());
        let pool = Pool::new(backend);
        pools.push(pool.clone());
        pool
    }
}

/// What became of a request.
#[derive(Debug)]
pub struct Forwarded {
    /// The position of the server that was asked last; `None` where none was.
    pub server: Option<usize>,
    /// The head of its response, the body to follow.
    pub result: Result<Response<Body>, ProxyError>,
}

impl Forwarded {
    fn nowhere(kind: Kind) -> Self {
        Self {
            server: None,
            result: Err(ProxyError {
                kind,
                side: Side::Internal,
                retry: Retry::Never,
                source: None,
            }),
        }
    }
}

/// One request's way through the servers.
struct Course<'a> {
    backends: &'a Backends,
    turn: usize,
    /// The server whose turn it is; `None` if there is none.
    server: Option<usize>,
    /// Idle connections won't do.
    reconnect: bool,
    tried: Tried,
    /// When waiting for a server ends; set by the first failure.
    until: Option<Instant>,
}

impl<'a> Course<'a> {
    fn new(backends: &'a Backends, turn: usize) -> Self {
        Self {
            backends,
            turn,
            server: backends.choose(turn, Tried::default()),
            reconnect: false,
            tried: Tried::default(),
            until: None,
        }
    }

    /// What can be done about a failure.
    fn left(&mut self, upstream: &Upstream, reused: bool) -> Left {
        if let Some(server) = self.server {
            self.tried = self.tried.and(server);
        }
        let now = timer_now();
        let until = *self.until.get_or_insert(now + upstream.try_duration);
        Left {
            reused,
            others: self.backends.choose(self.turn, self.tried).is_some(),
            time: now < until,
        }
    }

    async fn turn_to(&mut self, next: Next) {
        match next {
            Next::Nowhere => self.server = None,
            Next::NewConnection => {}
            Next::OtherServer => self.server = self.backends.choose(self.turn, self.tried),
            Next::Later => {
                // Boxed like connecting: rare, and large.
                Box::pin(sleep(PAUSE)).await;
                self.tried = Tried::default();
                self.server = self.backends.choose(self.turn, self.tried);
            }
        }
        self.reconnect = next == Next::NewConnection;
    }
}

/// Boxed, for it is rare and large: inlined, it would make every request's future as large.
fn connect(
    pool: &Rc<Pool>,
    backend: &Arc<Backend>,
    limit: Duration,
) -> Pin<Box<dyn Future<Output = Result<Box<Lent>, ProxyError>>>> {
    let (pool, backend) = (pool.clone(), backend.clone());
    Box::pin(async move { pool.connect(&backend, limit).await })
}

/// The request as hyper sends it faithfully.
fn framed(mut head: request::Parts, body: RequestBody) -> Request<RequestBody> {
    head.version = Version::HTTP_11;
    // Among them what the server side of hyper left there.
    head.extensions = Extensions::new();
    if !body.is_end_stream() && !head.headers.contains_key(CONTENT_LENGTH) {
        // hyper would send a GET with such a body as if it had none.
        head.headers
            .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    Request::from_parts(head, body)
}

/// A bodyless request once more, for a second attempt. Seldom used and made for most requests, so it is as little as a
/// request can be had back from: copying a `HeaderMap` takes thrice as long.
struct Spare {
    method: Method,
    target: Uri,
    fields: Vec<(HeaderName, HeaderValue)>,
    exchange: Rc<Exchange>,
}

impl Spare {
    fn of(request: &Request<RequestBody>) -> Self {
        let mut fields = Vec::with_capacity(request.headers().len());
        for (name, value) in request.headers() {
            fields.push((name.clone(), value.clone()));
        }
        Self {
            method: request.method().clone(),
            target: request.uri().clone(),
            fields,
            exchange: request.body().exchange().clone(),
        }
    }

    fn into_request(self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::empty(self.exchange));
        *request.method_mut() = self.method;
        *request.uri_mut() = self.target;
        for (name, value) in self.fields {
            request.headers_mut().append(name, value);
        }
        request
    }
}

type UpgradedSocket = tokio::sync::oneshot::Receiver<crate::transport::Upgraded>;

/// Checks that a response can be passed on, and binds its connection to its body.
fn accepted(
    response: Response<Incoming>,
    mut connection: Box<Lent>,
    keep: Duration,
    tunnel: Option<UpgradedSocket>,
) -> Result<Response<Body>, ProxyError> {
    let (mut head, body) = response.into_parts();
    head.version = Version::HTTP_11;
    head.extensions.remove::<OnUpgrade>();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        let tunnel = tunnel.ok_or_else(|| bad_response("101 without having been asked"))?;
        connection.surrender();
        return Ok(Response::from_parts(head, Body::upgrade(tunnel)));
    }
    let mut keep = announced(&head.headers).map_or(keep, |announced| keep.min(announced));
    if head.headers.contains_key(TRANSFER_ENCODING) {
        if !is_chunked(&head.headers) {
            return Err(bad_response("a Transfer-Encoding other than chunked"));
        }
        if head.headers.contains_key(CONTENT_LENGTH) {
            // RFC 9112 §6.3: chunked wins, the other goes, and such a peer isn't trusted with another request.
            head.headers = without(head.headers, &CONTENT_LENGTH);
            keep = Duration::ZERO;
        }
    }
    connection.keep_for(keep);
    Ok(Response::from_parts(
        head,
        Body::forwarded(body, connection),
    ))
}

/// Exactly one coding, `chunked`.
fn is_chunked(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(TRANSFER_ENCODING).iter();
    let first = values.next();
    values.next().is_none()
        && first.is_some_and(|value| {
            value
                .as_bytes()
                .trim_ascii()
                .eq_ignore_ascii_case(b"chunked")
        })
}

/// How long `Keep-Alive: timeout=N` lets an idle connection wait, less a margin.
fn announced(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(KEEP_ALIVE)?
        .to_str()
        .ok()?
        .split(',')
        .find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim()
                .eq_ignore_ascii_case("timeout")
                .then(|| value.trim().trim_matches('"').parse().ok())?
        })?;
    Some(Duration::from_secs(seconds).saturating_sub(KEEP_ALIVE_MARGIN))
}

/// The same fields in the same order but for one name; `HeaderMap::remove` would reorder them.
fn without(headers: HeaderMap, unwanted: &HeaderName) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(headers.len());
    let mut current = None;
    for (name, value) in headers {
        if name.is_some() {
            current = name;
        }
        if let Some(name) = &current
            && name != unwanted
        {
            kept.append(name.clone(), value);
        }
    }
    kept
}

fn bad_response(what: &'static str) -> ProxyError {
    ProxyError {
        kind: Kind::BadResponse,
        side: Side::Upstream,
        retry: Retry::Never,
        source: Some(what.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        map
    }

    #[test]
    fn an_announced_keep_alive_time_is_read_with_a_second_to_spare() {
        let table = [
            ("timeout=5", Some(4)),
            ("timeout=5, max=100", Some(4)),
            ("max=100, Timeout = \"72\"", Some(71)),
            ("timeout=1", Some(0)),
            ("timeout=0", Some(0)),
            ("timeout", None),
            ("timeout=soon", None),
            ("max=5", None),
        ];
        for (value, expected) in table {
            let announced = announced(&headers(&[("keep-alive", value)]));
            assert_eq!(announced.map(|time| time.as_secs()), expected, "{value}");
        }
    }

    #[test]
    fn only_a_single_chunked_coding_can_be_framed_again() {
        let table: [(&[(&str, &str)], bool); 5] = [
            (&[("transfer-encoding", "chunked")], true),
            (&[("transfer-encoding", "Chunked ")], true),
            (&[("transfer-encoding", "gzip, chunked")], false),
            (&[("transfer-encoding", "gzip")], false),
            (
                &[
                    ("transfer-encoding", "chunked"),
                    ("transfer-encoding", "chunked"),
                ],
                false,
            ),
        ];
        for (fields, expected) in table {
            assert_eq!(is_chunked(&headers(fields)), expected, "{fields:?}");
        }
    }

    #[test]
    fn dropping_one_field_leaves_the_others_in_order() {
        let all = headers(&[
            ("a", "1"),
            ("content-length", "5"),
            ("b", "2"),
            ("set-cookie", "x"),
            ("set-cookie", "y"),
            ("c", "3"),
        ]);
        let kept: Vec<_> = without(all, &CONTENT_LENGTH)
            .iter()
            .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
            .collect();
        assert_eq!(kept, ["a=1", "b=2", "set-cookie=x", "set-cookie=y", "c=3"]);
    }
}
