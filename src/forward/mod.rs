//! Requests that renewd doesn't answer itself: each is sent to one of the backend's servers, and its response is
//! returned.
//!
//! | file | what |
//! |---|---|
//! | [`pool`] | connections to one server, kept while idle |
//! | `demand` | how many idle connections are worth keeping |
//! | `connection` | one connection: an exchange at a time |
//! | `affinity` | the key by which a server is chosen |
//! | [`retry`] | which failed requests may be tried again: a pure table |
//! | [`servers`] | the backend's servers: what is known of each, and the choice |
//!
//! Keeps true: renewd frames each request itself, whatever the client's framing was; a response is passed on only if
//! it can be framed again without guessing.
//! Must not know: routes, tokens, or anything of the client but its key and its share of the sockets.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode, Version};
use http_body::Body as _;
use tokio::time::{Instant, sleep};

use crate::config::model::Upstream;
use crate::exchange::request_body::fields_of;
use crate::exchange::response_body::{RequestBody, ResponseBody};
use crate::http::hop::RequestChanges;
use crate::http1::parse_response::ResponseHead;
use crate::io::descriptors::{Budget, Budgets, Claimant, SocketSlot};
use crate::terms::clock::timer_now;
use crate::terms::proxy_error::{ProxyError, ProxyErrorKind};
use servers::{Backend, Backends, Preference, Tried};

mod affinity;
mod connection;
mod demand;
pub(crate) mod pool;
pub(crate) mod retry;
pub mod servers;

use pool::{ConnectionPool, PooledConnection};
use retry::{Candidate, Left, NextAttempt};

/// The pause between two attempts to find a server for a request.
const PAUSE: Duration = Duration::from_millis(200);

/// One worker's way to the backend.
pub struct Forwarder {
    pools: RefCell<Vec<Rc<ConnectionPool>>>,
    /// Counts requests, so that the servers take turns.
    turns: Cell<usize>,
    sockets: Budgets,
}

impl Forwarder {
    /// No connections yet; there may be as many as `sockets` allows, all workers together.
    pub fn new(sockets: Budgets) -> Self {
        Self {
            sockets,
            pools: RefCell::default(),
            turns: Cell::new(0),
        }
    }

    /// Sends one request to the backend and returns the head of its response, the body to follow.
    ///
    /// `changes` says what becomes of the client's fields; `changes.upgrade` announces a WebSocket. `claimant` takes
    /// its turn where sockets are short. The response's fields are as the backend wrote them, except for those that
    /// concern its connection alone.
    pub async fn forward(
        &self,
        upstream: &Upstream,
        backends: &Backends,
        mut request: Box<Request<RequestBody>>,
        changes: &RequestChanges<'_>,
        claimant: Claimant,
    ) -> ForwardOutcome {
        let (upgrade, patience) = (changes.upgrade, upstream.connect_timeout);
        let Some(admission) = backends.admit(upstream.max_requests) else {
            return ForwardOutcome::nowhere(ProxyErrorKind::Overloaded);
        };
        let mut course = Course::new(backends, self.preference(upstream, &request, changes));
        let candidate = Candidate::new(request.method(), request.body().is_end_stream());
        while let Some(server) = course.server
            && let Some(backend) = backends.all().get(server)
        {
            let asked = |result| ForwardOutcome::of(server, result);
            let pool = self.pool(backend);
            // An upgrade gets a new connection, which serves no other request (`accepted`). engine.io 6.6 closes a
            // socket whose upgrade nothing handles only if `bytesWritten` is 0 (`attach` in server.ts): a used
            // connection would hang.
            let is_new = course.reconnect || upgrade;
            let idle = if is_new { None } else { pool.take() };
            let counted = pool.begin();
            let connection = if let Some(connection) = idle {
                Ok(connection)
            } else {
                let budget = self.share(upgrade);
                match connect(&pool, backend, budget, claimant, patience).await {
                    Some(connected) => connected,
                    None => return ForwardOutcome::nowhere(ProxyErrorKind::Overloaded),
                }
            };
            let (error, reused) = match connection {
                Err(error) => (error, false),
                Ok(mut connection) => {
                    connection.in_flight = Some(counted);
                    let (reused, limit) = (connection.reused, upstream.response_timeout);
                    match connection.send(request, changes, limit).await {
                        Ok(head) => {
                            connection.admission = Some(admission);
                            if !upgrade && connection.is_streaming() {
                                connection.slot = place(self.share(true), claimant, patience).await;
                                if connection.slot.is_none() {
                                    return ForwardOutcome::nowhere(ProxyErrorKind::Overloaded);
                                }
                            }
                            let keep = upstream.idle_timeout;
                            return asked(accepted(head, connection, keep, upgrade));
                        }
                        Err(failed) => {
                            request = match failed.request {
                                Some(request) => request,
                                None => return asked(Err(failed.error)),
                            };
                            (failed.error, reused)
                        }
                    }
                }
            };
            let next = course.next(upstream, candidate, reused, &error);
            if next == NextAttempt::Nowhere {
                return asked(Err(error));
            }
            backend.metrics.retry();
            course.turn_to(next).await;
        }
        ForwardOutcome::nowhere(ProxyErrorKind::ConnectFailed)
    }

    fn preference(
        &self,
        upstream: &Upstream,
        request: &Request<RequestBody>,
        changes: &RequestChanges<'_>,
    ) -> Preference {
        let (affinity, client) = (&upstream.affinity, changes.origin.client_ip);
        let fixed = affinity::preference(affinity, fields_of(request), client);
        fixed.unwrap_or_else(|| {
            let turn = self.turns.get();
            self.turns.set(turn.wrapping_add(1));
            Preference::Turn(turn)
        })
    }

    /// The share of the sockets from which a new connection takes its place.
    fn share(&self, upgrade: bool) -> &Arc<Budget> {
        if upgrade {
            &self.sockets.streams
        } else {
            &self.sockets.requests
        }
    }

    fn pool(&self, backend: &Arc<Backend>) -> Rc<ConnectionPool> {
        let mut pools = self.pools.borrow_mut();
        if let Some(pool) = pools.iter().find(|pool| pool.is_for(backend)) {
            return pool.clone();
        }
        pools.retain(|pool| pool.is_wanted());
        let pool = ConnectionPool::new(backend, &self.sockets.requests);
        pools.push(pool.clone());
        pool
    }
}

/// The outcome of a forwarded request.
#[derive(Debug)]
pub struct ForwardOutcome {
    /// The position of the server that was asked last; `None` where none was.
    pub server: Option<usize>,
    /// The head of its response, the body to follow.
    pub result: Result<Box<Response<ResponseBody>>, ProxyError>,
}

impl ForwardOutcome {
    fn of(server: usize, result: Result<Box<Response<ResponseBody>>, ProxyError>) -> Self {
        Self {
            server: Some(server),
            result,
        }
    }

    fn nowhere(kind: ProxyErrorKind) -> Self {
        Self {
            server: None,
            result: Err(kind.into()),
        }
    }
}

/// One request's way through the servers.
struct Course<'a> {
    backends: &'a Backends,
    preference: Preference,
    /// The server to ask next; `None` if there is none.
    server: Option<usize>,
    /// The next attempt needs a new connection.
    reconnect: bool,
    tried: Tried,
    /// When waiting for a server ends. The first failure sets it.
    until: Option<Instant>,
}

impl<'a> Course<'a> {
    fn new(backends: &'a Backends, preference: Preference) -> Self {
        Self {
            backends,
            preference,
            server: backends.choose(preference, Tried::default()),
            reconnect: false,
            tried: Tried::default(),
            until: None,
        }
    }

    /// The attempts that are left after a failure. A request with a key leaves its server only if that takes no
    /// connection.
    fn left(&mut self, upstream: &Upstream, reused: bool, why: ProxyErrorKind) -> Left {
        if let Some(server) = self.server {
            self.tried = self.tried.and(server);
        }
        let now = timer_now();
        let until = *self.until.get_or_insert(now + upstream.try_duration);
        let stays =
            matches!(self.preference, Preference::Key(_)) && why != ProxyErrorKind::ConnectFailed;
        Left {
            reused,
            others: !stays && self.choose().is_some(),
            time: now < until,
        }
    }

    fn next(
        &mut self,
        upstream: &Upstream,
        candidate: Candidate,
        reused: bool,
        error: &ProxyError,
    ) -> NextAttempt {
        let left = self.left(upstream, reused, error.kind);
        retry::next(error.retry, candidate, left)
    }

    fn choose(&self) -> Option<usize> {
        self.backends.choose(self.preference, self.tried)
    }

    async fn turn_to(&mut self, next: NextAttempt) {
        match next {
            NextAttempt::Nowhere => self.server = None,
            NextAttempt::NewConnection => {}
            NextAttempt::OtherServer => self.server = self.choose(),
            NextAttempt::Later => {
                // Boxed for the same reason as `connect`.
                Box::pin(sleep(PAUSE)).await;
                self.tried = Tried::default();
                self.server = self.choose();
            }
        }
        self.reconnect = next == NextAttempt::NewConnection;
    }
}

type Boxed<T> = Pin<Box<dyn Future<Output = T>>>;

/// Waits for a socket's place for at most `limit`, then connects within `limit`. `None` where there is no place.
///
/// Boxed, since this is rare and large: inlined, it would make every request's future as large.
fn connect(
    pool: &Rc<ConnectionPool>,
    backend: &Arc<Backend>,
    budget: &Arc<Budget>,
    claimant: Claimant,
    limit: Duration,
) -> Boxed<Option<Result<Box<PooledConnection>, ProxyError>>> {
    let (pool, backend, budget) = (pool.clone(), backend.clone(), budget.clone());
    Box::pin(async move {
        let slot = budget.acquire(claimant, limit).await?;
        Some(pool.connect(&backend, slot, limit).await)
    })
}

/// A place among the streams for an event stream, whose connection has a request's place so far.
fn place(budget: &Arc<Budget>, claimant: Claimant, limit: Duration) -> Boxed<Option<SocketSlot>> {
    let budget = budget.clone();
    Box::pin(async move { budget.acquire(claimant, limit).await })
}

/// Checks that a response can be passed on, and binds its connection to its body.
fn accepted(
    head: Box<ResponseHead>,
    mut connection: Box<PooledConnection>,
    keep: Duration,
    upgrade: bool,
) -> Result<Box<Response<ResponseBody>>, ProxyError> {
    let ResponseHead {
        mut parts,
        raw_fields,
        keep_alive_for,
        ..
    } = *head;
    parts.version = Version::HTTP_11;
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        if !upgrade {
            return Err(bad_response("101 without having been asked"));
        }
        let upgraded = connection
            .into_upgraded()
            .ok_or_else(|| bad_response("101 before the end of the request"))?;
        let body = ResponseBody::upgrade(upgraded);
        return Ok(Box::new(Response::from_parts(parts, body)));
    }
    // A server may hand the socket of an upgrade to other code for good (Node's `upgrade` event does), so that HTTP
    // no longer says what happens to another request on it. A place among the streams is not for connections that
    // wait.
    connection.keep = if upgrade || connection.is_streaming() {
        Duration::ZERO
    } else {
        keep.min(keep_alive_for.unwrap_or(keep))
    };
    let body = ResponseBody::forwarded(connection).with_raw_fields(raw_fields);
    Ok(Box::new(Response::from_parts(parts, body)))
}

fn bad_response(what: &'static str) -> ProxyError {
    ProxyError {
        source: Some(what.into()),
        ..ProxyErrorKind::BadResponse.into()
    }
}
