//! One worker's connections to one backend server: opened, used for one request at a time, kept while idle.
//!
//! Keeps true: a connection returns to the pool only after a complete request and a complete response, and only if
//! `PooledConnection::keep` was set; an idle connection is closed before the server would close it; the last used is
//! taken first, so that the others can expire; no more are kept than were in use at once lately; none is kept while
//! sockets are short, and idle ones are closed when a request waits for a socket.
//! Must not know: which requests may be repeated, what a response means.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::{self, Rc};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Frame, SizeHint};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::Instant;

use super::connection::{BackendConnection, Fault};
use super::demand::ServerDemand;
use super::retry::{self, AttemptProgress};
use super::servers::{Backend, ServerAdmission};
use crate::exchange::response_body::{BodySource, RequestBody};
use crate::http::hop::RequestChanges;
use crate::http1::parse_response::ResponseHead;
use crate::io::connect::connect;
use crate::io::deadline::Deadline;
use crate::io::descriptors::{Budget, SocketSlot};
use crate::io::transport::Upgraded;
use crate::io::wait::Wait;
use crate::terms::clock::{timer_now, turn_now};
use crate::terms::proxy_error::{AnotherAttempt, ProxyError, ProxyErrorKind};

/// How often expired connections are looked for. Being late costs no more than a retry on a connection that was
/// closed.
const SWEEP: Duration = Duration::from_secs(1);

/// The connections of one worker to one server.
#[derive(Debug)]
pub(crate) struct ConnectionPool {
    /// Weak, so that a server which a reload removed is dropped with its last snapshot, and its series with it.
    backend: Weak<Backend>,
    budget: Arc<Budget>,
    idle: RefCell<VecDeque<Idle>>,
    demand: Cell<ServerDemand>,
    /// When the present period of `demand` ends. A period is as long as connections are kept.
    period_ends: Cell<Option<Instant>>,
    swept: Cell<bool>,
    /// Wakes the sweeping task.
    sweeper: RefCell<Option<Waker>>,
}

#[derive(Debug)]
struct Idle {
    connection: Box<PooledConnection>,
    expires: Instant,
}

impl ConnectionPool {
    /// No connections yet. Idle connections count in `budget`.
    pub(crate) fn new(backend: &Arc<Backend>, budget: &Arc<Budget>) -> Rc<Self> {
        Rc::new(Self {
            backend: Arc::downgrade(backend),
            budget: Arc::clone(budget),
            idle: RefCell::default(),
            demand: Cell::default(),
            period_ends: Cell::new(None),
            swept: Cell::new(false),
            sweeper: RefCell::new(None),
        })
    }

    /// Whether this is the pool of that server.
    pub(crate) fn is_for(&self, backend: &Arc<Backend>) -> bool {
        std::ptr::eq(self.backend.as_ptr(), Arc::as_ptr(backend))
    }

    /// Whether a snapshot that is still in use has the server.
    pub(crate) fn is_wanted(&self) -> bool {
        self.backend.strong_count() > 0
    }

    /// Counts a request to this server until the place is dropped.
    pub(crate) fn begin(self: &Rc<Self>) -> InFlight {
        self.change(ServerDemand::begin);
        InFlight(self.clone())
    }

    fn change(&self, change: impl FnOnce(&mut ServerDemand)) {
        let mut demand = self.demand.get();
        change(&mut demand);
        self.demand.set(demand);
    }

    /// An idle connection that still looks alive.
    pub(crate) fn take(&self) -> Option<Box<PooledConnection>> {
        let mut idle = self.idle.borrow_mut();
        let mut now = None;
        while let Some(Idle {
            mut connection,
            expires,
        }) = idle.pop_back()
        {
            let now = *now.get_or_insert_with(turn_now);
            if now < expires && connection.is_open(Waker::noop()) {
                connection.reused = true;
                return Some(connection);
            }
        }
        None
    }

    /// A new connection within `limit`, name resolution and all addresses included. `slot` is its place in a budget.
    pub(crate) async fn connect(
        self: &Rc<Self>,
        backend: &Backend,
        slot: SocketSlot,
        limit: Duration,
    ) -> Result<Box<PooledConnection>, ProxyError> {
        let transport = match connect(&backend.server, backend.trust.as_ref(), limit).await {
            Ok(transport) => transport,
            Err(error) => {
                backend.refused(&error);
                return Err(ProxyError {
                    kind: ProxyErrorKind::ConnectFailed,
                    retry: retry::allowed(AttemptProgress::NotConnected),
                    source: Some(Box::new(error)),
                });
            }
        };
        backend.connected();
        Ok(Box::new(PooledConnection {
            backend: Rc::new(RefCell::new(BackendConnection::new(transport))),
            upload: None,
            home: Rc::downgrade(self),
            slot: Some(slot),
            admission: None,
            in_flight: None,
            deadline: Deadline::default(),
            keep: Duration::ZERO,
            reused: false,
        }))
    }

    fn put(self: &Rc<Self>, mut connection: Box<PooledConnection>) {
        if self.budget.is_short() {
            return;
        }
        if let Some(slot) = &mut connection.slot {
            slot.disown();
        }
        let now = turn_now();
        let expires = now + connection.keep;
        if self.period_ends.get().is_none_or(|end| now >= end) {
            self.period_ends.set(Some(expires));
            self.change(ServerDemand::turn);
        }
        let sweeper = self.sweeper.borrow();
        if !connection.is_open(sweeper.as_ref().unwrap_or(Waker::noop())) {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        idle.push_back(Idle {
            connection,
            expires,
        });
        // The connection that has been idle for longest is closed first.
        while idle.len() > self.demand.get().idle_wanted() {
            idle.pop_front();
        }
        if !self.swept.replace(true) {
            spawn_local(sweep(Rc::downgrade(self)));
        }
    }

    /// Closes idle connections, the longest idle first, while a request waits for a socket.
    fn make_room(&self) {
        while self.budget.is_wanted() {
            let longest_idle = self.idle.borrow_mut().pop_front();
            if longest_idle.is_none() {
                return;
            }
        }
    }

    /// Drops the idle connections that are closed or have waited long enough; whether none is left.
    fn clean(&self, waker: &Waker) -> bool {
        self.sweeper.replace(Some(waker.clone()));
        let now = timer_now();
        let mut idle = self.idle.borrow_mut();
        idle.retain(|entry| entry.expires > now && entry.connection.is_open(waker));
        idle.is_empty()
    }
}

/// Drops idle connections that expire, that the server closes, or whose sockets are wanted, until none is left.
async fn sweep(pool: rc::Weak<ConnectionPool>) {
    let Some(budget) = pool.upgrade().map(|pool| Arc::clone(&pool.budget)) else {
        return;
    };
    let mut shortage = pin!(budget.shortage());
    let mut turn = pin!(tokio::time::sleep(SWEEP));
    poll_fn(|context| {
        let Some(pool) = pool.upgrade() else {
            return Poll::Ready(());
        };
        while shortage.as_mut().poll(context).is_ready() {
            shortage.set(budget.shortage());
        }
        pool.make_room();
        if pool.clean(context.waker()) {
            pool.swept.set(false);
            pool.sweeper.replace(None);
            return Poll::Ready(());
        }
        while turn.as_mut().poll(context).is_ready() {
            turn.as_mut().reset(timer_now() + SWEEP);
        }
        Poll::Pending
    })
    .await;
}

/// A request's place among those that its worker has in flight at a server.
#[derive(Debug)]
pub(crate) struct InFlight(Rc<ConnectionPool>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.change(ServerDemand::end);
    }
}

/// A connection that serves one request. Dropping it closes it; [`BodySource::release`] may return it to its pool.
#[derive(Debug)]
pub(crate) struct PooledConnection {
    /// Shared with the task that sends the rest of a request whose response has begun, and with nothing else.
    backend: Rc<RefCell<BackendConnection>>,
    upload: Option<AbortHandle>,
    home: rc::Weak<ConnectionPool>,
    /// The socket's place in a budget. An event stream's is not that of connections which are kept. `None` where the
    /// socket has left with it.
    pub(super) slot: Option<SocketSlot>,
    /// The request's place among those in flight at all servers, held until its response is over.
    pub(super) admission: Option<ServerAdmission>,
    /// The request's place among those in flight at this server, held as long. `None` while the connection is idle:
    /// the place would keep the pool that holds it.
    pub(super) in_flight: Option<InFlight>,
    deadline: Deadline,
    /// How long the connection may wait for the next request; zero closes it.
    pub(super) keep: Duration,
    /// The connection has served a request before.
    pub(super) reused: bool,
}

/// A request that got no response.
#[derive(Debug)]
pub(crate) struct FailedAttempt {
    /// Why.
    pub error: ProxyError,
    /// The request, if it was never begun.
    pub request: Option<Box<Request<RequestBody>>>,
}

impl PooledConnection {
    /// Whether its response is an event stream, and not over.
    pub(crate) fn is_streaming(&self) -> bool {
        self.backend.borrow().is_streaming()
    }

    /// The socket itself, after a 101; `None` while the request is still being sent.
    pub(crate) fn into_upgraded(mut self) -> Option<Upgraded> {
        let backend = Rc::clone(&self.backend);
        let slot = self.slot.take();
        drop(self);
        let backend = Rc::into_inner(backend)?.into_inner();
        backend.sent().then(|| backend.into_upgraded(slot))
    }

    /// Whether the backend still holds an idle connection open; `waker` is woken when it doesn't any more.
    fn is_open(&self, waker: &Waker) -> bool {
        let mut context = Context::from_waker(waker);
        self.backend
            .borrow_mut()
            .poll_over(&mut context)
            .is_pending()
    }

    /// Sends a request and waits for the head of its response: at most `limit` after the last byte of its body was
    /// sent, or after the last frame was taken while the body is still being sent.
    pub(super) async fn send(
        &mut self,
        request: Box<Request<RequestBody>>,
        changes: &RequestChanges<'_>,
        limit: Duration,
    ) -> Result<Box<ResponseHead>, FailedAttempt> {
        let exchange = request.body().exchange().clone();
        self.backend.borrow_mut().begin(request, changes);
        let (backend, deadline) = (&*self.backend, &mut self.deadline);
        let mut wait = Wait::default();
        let outcome = poll_fn(|context| {
            if let Poll::Ready(outcome) = poll_exchange(&mut backend.borrow_mut(), context) {
                return Poll::Ready(Some(outcome));
            }
            let since = wait.since(exchange.progress());
            deadline.poll_until(since + limit, context).map(|()| None)
        })
        .await;
        match outcome {
            Some(Ok(head)) => {
                if head.is_event_stream() {
                    exchange.response_streams();
                }
                if !self.backend.borrow().sent() {
                    self.send_the_rest();
                }
                Ok(head)
            }
            Some(Err(fault)) => {
                let mut backend = self.backend.borrow_mut();
                Err(FailedAttempt {
                    error: failure(fault, &backend),
                    request: backend.take_back(),
                })
            }
            None => Err(FailedAttempt {
                error: ProxyErrorKind::ResponseTimeout.into(),
                request: None,
            }),
        }
    }

    /// Sends the rest of the request in a task of its own: a client that doesn't read may go on sending, and that
    /// must not wait for the response.
    fn send_the_rest(&mut self) {
        let backend = Rc::downgrade(&self.backend);
        let task = spawn_local(poll_fn(move |context| {
            let Some(backend) = backend.upgrade() else {
                return Poll::Ready(());
            };
            backend.borrow_mut().poll_upload(context)
        }));
        self.upload = Some(task.abort_handle());
    }
}

/// Sends while there is something to send, and reads the head of the response meanwhile.
fn poll_exchange(
    backend: &mut BackendConnection,
    context: &mut Context<'_>,
) -> Poll<Result<Box<ResponseHead>, Fault>> {
    if let Poll::Ready(Err(fault)) = backend.poll_send(context) {
        return Poll::Ready(Err(fault));
    }
    backend.poll_head(context)
}

fn failure(fault: Fault, backend: &BackendConnection) -> ProxyError {
    let (kind, retry) = match fault {
        Fault::Connection(_) if backend.closed() => {
            (ProxyErrorKind::ClientGone, AnotherAttempt::Never)
        }
        Fault::Request(_) | Fault::RequestCut => {
            (ProxyErrorKind::ClientGone, AnotherAttempt::Never)
        }
        Fault::Response(_) => (ProxyErrorKind::BadResponse, AnotherAttempt::Never),
        // The backend broke off in the middle of a head.
        Fault::Connection(_) if backend.progress() == AttemptProgress::Responding => {
            (ProxyErrorKind::BadResponse, AnotherAttempt::Never)
        }
        Fault::Connection(_) => (
            ProxyErrorKind::ConnectionLost,
            retry::allowed(backend.progress()),
        ),
    };
    ProxyError {
        kind,
        retry,
        source: Some(Box::new(fault)),
    }
}

impl BodySource for PooledConnection {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = self.backend.borrow_mut().poll_frame(context);
        frame.map(|frame| frame.map(|frame| frame.map_err(io::Error::other)))
    }

    fn is_end_stream(&self) -> bool {
        self.backend.borrow().received()
    }

    fn size_hint(&self) -> SizeHint {
        let expected = self.backend.borrow().expected();
        expected.map_or_else(SizeHint::new, SizeHint::with_exact)
    }

    fn release(mut self: Box<Self>, complete: bool) {
        self.admission = None;
        self.in_flight = None;
        if self.backend.borrow_mut().reusable()
            && complete
            && !self.keep.is_zero()
            && let Some(home) = self.home.upgrade()
        {
            self.upload = None;
            home.put(self);
        }
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.abort();
        }
    }
}
