//! Connections to one backend server, of one worker: made, lent for one request at a time, kept while idle.
//!
//! Keeps true: a connection goes back only after a complete request and a complete response; an idle one is closed
//! before the server would close it; the last used is lent first, so that the rest can expire.
//! Must not know: which requests may be repeated, what a response means.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, timeout};

use super::link::{Link, LinkedIo};
use super::retry::{self, Progress};
use crate::clock::timer_now;
use crate::config::model::UpstreamServer;
use crate::deadline::Deadline;
use crate::error::{Kind, ProxyError, Side};
use crate::http::body::{RequestBody, Source};
use crate::transport::{Transport, Upgraded};

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
    server: UpstreamServer,
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
    pub fn new(server: UpstreamServer) -> Rc<Self> {
        Rc::new(Self {
            server,
            idle: RefCell::default(),
            swept: Cell::new(false),
        })
    }

    /// Whose connections these are.
    pub fn server(&self) -> &UpstreamServer {
        &self.server
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
    pub async fn connect(self: &Rc<Self>, limit: Duration) -> Result<Box<Lent>, ProxyError> {
        let stream = match timeout(limit, self.connect_any(limit)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(not_connected(error)),
            Err(_) => return Err(not_connected(io::ErrorKind::TimedOut.into())),
        };
        // Failing to set it costs latency, not correctness.
        let _ = stream.set_nodelay(true);
        let link = Rc::new(Link::default());
        let io = TokioIo::new(LinkedIo {
            transport: Transport::Tcp(stream),
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
            deadline: Deadline::default(),
            keep: Duration::ZERO,
            reused: false,
        }))
    }

    /// Tries every address; each gets an equal share of what is left, so that a silent first one leaves time.
    async fn connect_any(&self, limit: Duration) -> io::Result<TcpStream> {
        let due = timer_now() + limit;
        let addresses: Vec<SocketAddr> = match self.server.host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, self.server.port)],
            Err(_) => tokio::net::lookup_host((self.server.host.as_str(), self.server.port))
                .await?
                .collect(),
        };
        let mut error = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for (tried, address) in addresses.iter().enumerate() {
            let left = due.saturating_duration_since(timer_now());
            let share = u32::try_from(addresses.len() - tried).map_or(left, |count| left / count);
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(refused)) => error = refused,
                Err(_) => error = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(error)
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
async fn sweep(pool: Weak<Pool>) {
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
    home: Weak<Pool>,
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
    fn release(self: Box<Self>, complete: bool) {
        let request_done = self.link.request_done();
        self.link.exchange.replace(None);
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
