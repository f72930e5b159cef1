//! Everything that isn't answered here goes to the backend: one request, its framing, its retry, its response.
//!
//! | file | what |
//! |---|---|
//! | [`pool`] | connections to a server |
//! | `link` | the socket of such a connection |
//! | [`retry`] | what may be tried again: a pure table |
//! | [`tunnel`] | bytes both ways after an upgrade |
//!
//! Keeps true: what leaves here is framed by us alone, whatever came in; what the backend answers is passed on only if
//! it can be framed again without guessing.
//! Must not know: routes, tokens, who the client is.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    Version, request,
};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use crate::config::model::{Upstream, UpstreamServer};
use crate::error::{Kind, ProxyError, Retry, Side};
use crate::http::body::{Body, RequestBody};
use crate::http::exchange::Exchange;

mod link;
pub mod pool;
pub mod retry;
pub mod tunnel;

use pool::{Lent, Pool};
use retry::Candidate;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// A server closes when its announced time is over; the request that we send must be there before.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(1);

/// Told what happens towards the backend; must not block.
pub trait Observer {
    /// A request to this server is made a second time.
    fn retried(&self, server: &UpstreamServer);
}

/// One worker's way to the backend.
pub struct Forwarder {
    pools: RefCell<Vec<Rc<Pool>>>,
    observer: Rc<dyn Observer>,
}

impl Forwarder {
    /// No connections yet.
    pub fn new(observer: Rc<dyn Observer>) -> Self {
        Self {
            pools: RefCell::default(),
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
        head: request::Parts,
        body: RequestBody,
        upgrade: bool,
    ) -> impl Future<Output = Result<Response<Body>, ProxyError>> {
        // Boxed before a future is made of it: each async fn that hands a request on has room for two.
        self.exchange(upstream, Box::new(framed(head, body)), upgrade)
    }

    async fn exchange(
        &self,
        upstream: &Upstream,
        mut request: Box<Request<RequestBody>>,
        upgrade: bool,
    ) -> Result<Response<Body>, ProxyError> {
        let server = upstream.servers.first().ok_or(ProxyError {
            kind: Kind::ConnectFailed,
            side: Side::Internal,
            retry: Retry::Never,
            source: None,
        })?;
        let pool = self.pool(server);
        let candidate = Candidate::new(request.method(), request.body().is_end_stream());
        let mut connection = match pool.take() {
            Some(connection) => connection,
            None => connect(&pool, upstream).await?,
        };
        loop {
            let reused = connection.reused();
            let spare =
                retry::again(Retry::IfReused, candidate, reused).then(|| Spare::of(&request));
            let tunnel = upgrade.then(|| connection.expect_upgrade());
            let failed = match connection.send(request, upstream.response_timeout).await {
                Ok(response) => {
                    let keep = upstream.idle_timeout;
                    return accepted(response, connection, keep, tunnel);
                }
                Err(failed) => failed,
            };
            if !retry::again(failed.error.retry, candidate, reused) {
                return Err(failed.error);
            }
            request = match failed
                .request
                .or_else(|| spare.map(|spare| Box::new(spare.into_request())))
            {
                Some(request) => request,
                None => return Err(failed.error),
            };
            self.observer.retried(server);
            connection = connect(&pool, upstream).await?;
        }
    }

    /// Idle connections to all servers.
    pub fn idle_connections(&self) -> usize {
        self.pools.borrow().iter().map(|pool| pool.idle()).sum()
    }

    fn pool(&self, server: &UpstreamServer) -> Rc<Pool> {
        let mut pools = self.pools.borrow_mut();
        if let Some(pool) = pools.iter().find(|pool| pool.server() == server) {
            return pool.clone();
        }
        let pool = Pool::new(server.clone());
        pools.push(pool.clone());
        pool
    }
}

/// Boxed, for it is rare and large: inlined, it would make every request's future as large.
fn connect(
    pool: &Rc<Pool>,
    upstream: &Upstream,
) -> Pin<Box<dyn Future<Output = Result<Box<Lent>, ProxyError>>>> {
    let pool = pool.clone();
    let limit = upstream.connect_timeout;
    Box::pin(async move { pool.connect(limit).await })
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
