//! Connections to one backend server, of one worker: made, lent for one request at a time, kept while idle.
//!
//! Keeps true: a connection goes back only after a complete request and a complete response; an idle one is closed
//! before the server would close it; the last used is lent first, so that the rest can expire.
//! Must not know: which requests may be repeated, what a response means.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::{self, Rc};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::Instant;

use super::connect::connect;
use super::link::{Link, LinkedIo};
use super::retry::{self, Progress};
use crate::backends::{Admission, Backend};
use crate::clock::timer_now;
use crate::deadline::Deadline;
use crate::error::{Kind, ProxyError, Side};
use crate::http::body::{RequestBody, Source};
use crate::transport::Upgraded;

/// Bytes buffered each way towards a backend; 64 KiB here would cost a tenth to a quarter of the speed of large bodies.
const BUFFER: usize = 256 * 1024;

/// Fields of a response's header section: hyper's own 100 is less than what Node sends without a word.
const MAX_RESPONSE_FIELDS: usize = 512;

/// Idle connections kept per worker and server. More than a worker has in flight under any load that one core carries.
const MAX_IDLE: usize = 256;

/// How often expired connections are looked for; the only cost of being late is a refused request being made again.
const SWEEP: Duration = Duration::from_secs(1);

/// The connections of one worker to one server.
#[derive(Debug)]
pub struct Pool {
    /// Weak: a server that a reload removed must go with its last snapshot, and its series with it.
    backend: Weak<Backend>,
    idle: RefCell<VecDeque<Idle>>,
    swept: Cell<bool>,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Lent>,
    expires: Instant,
}

impl Pool {
    /// No connections yet.
    pub fn new(backend: &Arc<Backend>) -> Rc<Self> {
        Rc::new(Self {
            backend: Arc::downgrade(backend),
            idle: RefCell::default(),
            swept: Cell::new(false),
        })
    }

    /// Whether these are this server's connections.
    pub fn is_for(&self, backend: &Arc<Backend>) -> bool {
        std::ptr::eq(self.backend.as_ptr(), Arc::as_ptr(backend))
    }

    /// Whether its server is still configured, or was when a request began that is still served.
    pub fn is_wanted(&self) -> bool {
        self.backend.strong_count() > 0
    }

    /// Connections that wait for a request.
    pub fn idle(&self) -> usize {
        self.idle.borrow().len()
    }

    /// An idle connection that still looks alive.
    pub fn take(&self) -> Option<Box<Lent>> {
        let mut idle = self.idle.borrow_mut();
        let mut now = None;
        while let Some(Idle {
            mut connection,
            expires,
        }) = idle.pop_back()
        {
            let now = *now.get_or_insert_with(timer_now);
            if now < expires && connection.sender.is_ready() && !connection.sender.is_closed() {
                connection.reused = true;
                return Some(connection);
            }
        }
        None
    }

    /// A new connection within `limit`, name resolution and all addresses included.
    pub async fn connect(
        self: &Rc<Self>,
        backend: &Backend,
        limit: Duration,
    ) -> Result<Box<Lent>, ProxyError> {
        let transport = match connect(&backend.server, backend.trust.as_ref(), limit).await {
            Ok(transport) => transport,
            Err(error) => {
                backend.refused(&error);
                return Err(not_connected(error));
            }
        };
        backend.connected();
        let link = Rc::new(Link::default());
        let io = TokioIo::new(LinkedIo {
            transport,
            link: link.clone(),
        });
        let (sender, mut connection) = http1::Builder::new()
            .max_buf_size(BUFFER)
            .max_headers(MAX_RESPONSE_FIELDS)
            .handshake(io)
            .await
            .map_err(|error| not_connected(io::Error::other(error)))?;
        let upgrades = link.clone();
        let driver = spawn_local(async move {
            let result = poll_fn(|context| connection.poll_without_shutdown(context)).await;
            if result.is_ok()
                && let Some(upgrade) = upgrades.upgrade.take()
            {
                let parts = connection.into_parts();
                // Nobody waits for it unless the answer was 101.
                let _ = upgrade.send(Upgraded {
                    transport: parts.io.into_inner().transport,
                    read_ahead: parts.read_buf,
                });
            }
        });
        Ok(Box::new(Lent {
            sender,
            driver: Some(driver.abort_handle()),
            link,
            home: Rc::downgrade(self),
            admission: None,
            deadline: Deadline::default(),
            keep: Duration::ZERO,
            reused: false,
        }))
    }

    fn put(self: &Rc<Self>, connection: Box<Lent>) {
        let expires = timer_now() + connection.keep;
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= MAX_IDLE {
            idle.pop_front();
        }
        idle.push_back(Idle {
            connection,
            expires,
        });
        if !self.swept.replace(true) {
            spawn_local(sweep(Rc::downgrade(self)));
        }
    }
}

/// Drops expired connections until none is left.
async fn sweep(pool: rc::Weak<Pool>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(pool) = pool.upgrade() else { return };
        let now = timer_now();
        let mut idle = pool.idle.borrow_mut();
        idle.retain(|entry| entry.expires > now && !entry.connection.sender.is_closed());
        if idle.is_empty() {
            pool.swept.set(false);
            return;
        }
    }
}

fn not_connected(error: io::Error) -> ProxyError {
    ProxyError {
        kind: Kind::ConnectFailed,
        side: Side::Upstream,
        retry: retry::allowed(Progress::NotConnected),
        source: Some(Box::new(error)),
    }
}

/// A connection lent to one request; dropping it closes it, [`Source::release`] may give it back.
#[derive(Debug)]
pub struct Lent {
    sender: SendRequest<RequestBody>,
    /// The task that drives hyper's connection; `None` once the socket belongs to a tunnel.
    driver: Option<AbortHandle>,
    link: Rc<Link>,
    home: rc::Weak<Pool>,
    admission: Option<Admission>,
    deadline: Deadline,
    keep: Duration,
    reused: bool,
}

/// A request that got no response.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: ProxyError,
    /// The request, if it was never begun.
    pub request: Option<Box<Request<RequestBody>>>,
}

impl Lent {
    /// Whether it has served a request before.
    pub fn reused(&self) -> bool {
        self.reused
    }

    /// How long it may wait for the next request; zero closes it.
    pub fn keep_for(&mut self, keep: Duration) {
        self.keep = keep;
    }

    /// Holds the request's place until its response is over.
    pub fn admit(&mut self, admission: Admission) {
        self.admission = Some(admission);
    }

    /// The socket itself, should the backend answer 101 to the next request.
    pub fn expect_upgrade(&mut self) -> oneshot::Receiver<Upgraded> {
        let (sender, receiver) = oneshot::channel();
        self.link.upgrade.replace(Some(sender));
        receiver
    }

    /// Leaves the connection to whoever holds the receiver of [`Lent::expect_upgrade`].
    pub fn surrender(mut self) {
        self.driver = None;
    }

    /// Sends a request and waits for the head of its response, at most `limit` after the last of its body was sent
    /// (or taken, while it is still being sent).
    pub async fn send(
        &mut self,
        request: Box<Request<RequestBody>>,
        limit: Duration,
    ) -> Result<Response<Incoming>, Failed> {
        let exchange = request.body().exchange().clone();
        self.link.begin(exchange.clone());
        let mut response = pin!(self.sender.try_send_request(*request));
        let mut seen = None;
        let mut since = timer_now();
        let deadline = &mut self.deadline;
        let outcome = poll_fn(|context| {
            if let Poll::Ready(outcome) = response.as_mut().poll(context) {
                return Poll::Ready(Some(outcome));
            }
            let progress = (exchange.request_frames(), exchange.request_done());
            if !exchange.request_done() {
                exchange.wake_on_request(context);
            }
            if seen != Some(progress) {
                if seen.is_some() {
                    since = timer_now();
                }
                seen = Some(progress);
            }
            deadline.poll_until(since + limit, context).map(|()| None)
        })
        .await;
        match outcome {
            Some(Ok(response)) => Ok(response),
            Some(Err(mut error)) => {
                let request = error.take_message().map(Box::new);
                let progress = self.link.progress(request.is_some());
                Err(Failed {
                    error: failure(error.into_error(), progress),
                    request,
                })
            }
            None => Err(Failed {
                error: ProxyError {
                    kind: Kind::ResponseTimeout,
                    side: Side::Upstream,
                    retry: crate::error::Retry::Never,
                    source: None,
                },
                request: None,
            }),
        }
    }
}

fn failure(error: hyper::Error, progress: Progress) -> ProxyError {
    let (kind, side) = if error.is_user() {
        // The only thing of ours that hyper runs is the request's body.
        (Kind::ClientGone, Side::Downstream)
    } else if error.is_parse() {
        (Kind::BadResponse, Side::Upstream)
    } else {
        (Kind::ConnectionLost, Side::Upstream)
    };
    ProxyError {
        kind,
        side,
        retry: if kind == Kind::ConnectionLost {
            retry::allowed(progress)
        } else {
            crate::error::Retry::Never
        },
        source: Some(Box::new(error)),
    }
}

impl Source for Lent {
    fn release(mut self: Box<Self>, complete: bool) {
        let request_done = self.link.request_done();
        self.link.exchange.replace(None);
        self.admission = None;
        if complete
            && request_done
            && !self.keep.is_zero()
            && !self.link.write_closed.get()
            && !self.sender.is_closed()
            && let Some(home) = self.home.upgrade()
        {
            home.put(self);
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // hyper would wait for the rest of a request's body, or of a response's.
        if let Some(driver) = &self.driver {
            driver.abort();
        }
    }
}
