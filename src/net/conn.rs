//! One client connection from its first byte to its last: HTTP/1.1, sleep between requests, tunnel after an upgrade.
//!
//! Keeps true: hyper's connection exists only while there is something for it to do; asleep, a connection is its socket
//! and a timer. Nothing that was read is lost on the way in or out. Every deadline and every stage of a stop is
//! honoured in each state.
//! Must not know: what a request means.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::stall::{Cause, Waits, Watch, WatchedIo};
use super::stop::{Stage, Stop};
use super::{Event, Observer, ParseError};
use crate::clock::timer_now;
use crate::config::model::{Limits, Timeouts};
use crate::deadline::Deadline;
use crate::forward::tunnel;
use crate::http::body::{Body, Finish, RequestBody};
use crate::http::exchange::{Answer, Connection, Exchange};
use crate::transport::{Transport, Upgraded};

/// Bytes buffered each way towards a client. More gains nothing on bodies; `max_header_size` bounds headers by itself.
const BUFFER: usize = 64 * 1024;

/// What hyper allows without a setting of its own; any other number costs it an allocation per request.
const USUAL_HEADER_FIELDS: usize = 100;

/// What is read and thrown away after an answer that left input unread, so that closing doesn't reset the answer away.
const LINGER_BYTES: usize = 256 * 1024;
/// How long that goes on.
const LINGER: Duration = Duration::from_secs(1);

/// A connection taken out of the accept queue at the start of a stop has its request on the way: it gets this long.
const FRESH: Duration = Duration::from_secs(1);

/// Serves one connection to its end. Must be a task of its own.
pub async fn serve<S: Answer>(
    mut transport: Transport,
    connection: Connection,
    service: Rc<S>,
    stop: Rc<Stop>,
    observer: Arc<dyn Observer>,
) {
    let tell = |event| observer.observe(connection.listener, event);
    let _registration = stop.register().await;
    let mut deadline = Deadline::default();
    let mut ahead = Bytes::new();
    let mut fresh = true;
    loop {
        if ahead.is_empty() {
            let since = timer_now();
            let idle = service.timeouts().idle;
            let readable = poll_fn(|context| {
                poll_asleep(
                    &transport,
                    &mut deadline,
                    since,
                    idle,
                    fresh,
                    stop.stage(),
                    context,
                )
            });
            if !readable.await {
                return;
            }
        }
        fresh = false;
        let mut active = Box::new(Active::new(transport, ahead, connection, &service));
        let end = poll_fn(|context| active.poll(&mut deadline, stop.stage(), context)).await;
        let unread;
        (transport, unread) = active.take_apart();
        match end {
            End::Quiet => {
                // An empty line after a body is an old client's habit (RFC 9112 §2.2).
                tell(Event::Slept);
                let nothing = unread.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
                ahead = if nothing { Bytes::new() } else { unread };
            }
            End::Tunnel(tunnel) => {
                tell(Event::TunnelOpened);
                let client = Upgraded {
                    transport,
                    read_ahead: unread,
                };
                Box::pin(run_tunnel(client, tunnel, service, &stop)).await;
                tell(Event::TunnelClosed);
                return;
            }
            End::Closed { linger } => {
                if linger || !unread.is_empty() {
                    Box::pin(linger_then_close(transport)).await;
                }
                return;
            }
            End::Refused(kind) => {
                tell(Event::ParseFailed(kind));
                Box::pin(linger_then_close(transport)).await;
                return;
            }
            End::TimedOut(cause) => {
                tell(Event::TimedOut(cause));
                return;
            }
            End::Broken => return,
        }
    }
}

/// Waits between requests without hyper: true when there is something to read, false when the connection should close.
fn poll_asleep(
    transport: &Transport,
    deadline: &mut Deadline,
    since: Instant,
    idle: Duration,
    fresh: bool,
    stage: Stage,
    context: &mut Context<'_>,
) -> Poll<bool> {
    if stage < Stage::Aborting && transport.poll_readable(context).is_ready() {
        return Poll::Ready(true);
    }
    let patience = match stage {
        Stage::Serving => idle,
        Stage::Draining | Stage::EndingTunnels if fresh => FRESH.min(idle),
        Stage::Draining | Stage::EndingTunnels | Stage::Aborting => Duration::ZERO,
    };
    deadline
        .poll_until(since + patience, context)
        .map(|()| false)
}

/// The backend's half of a tunnel, as soon as it is free, and the hook for its end.
type Tunnel = (oneshot::Receiver<Upgraded>, Option<Finish>);

/// Why hyper's connection is taken down.
enum End {
    /// Nothing to do for a while.
    Quiet,
    /// A 101 was sent.
    Tunnel(Tunnel),
    /// Over, in order; `linger` where the client may still be sending.
    Closed { linger: bool },
    /// The parser answered in our place.
    Refused(ParseError),
    /// A deadline passed.
    TimedOut(Cause),
    /// The transport or the backend broke, or a stop cuts.
    Broken,
}

/// What hyper's service and the connection around it share.
struct Session {
    watch: Rc<Watch>,
    timeouts: RefCell<Timeouts>,
    upgrade_requested: Cell<bool>,
    /// A response was begun before its request had ended.
    answered_early: Cell<bool>,
    tunnel: RefCell<Option<Tunnel>>,
}

/// A connection with hyper at work on it.
struct Active<S: Answer> {
    http: http1::Connection<TokioIo<WatchedIo>, Call<S>>,
    session: Rc<Session>,
    waits: Waits,
    last_request: bool,
}

impl<S: Answer> Active<S> {
    fn new(transport: Transport, ahead: Bytes, connection: Connection, service: &Rc<S>) -> Self {
        let session = Rc::new(Session {
            watch: Rc::default(),
            timeouts: RefCell::new(service.timeouts()),
            upgrade_requested: Cell::new(false),
            answered_early: Cell::new(false),
            tunnel: RefCell::new(None),
        });
        let io = TokioIo::new(WatchedIo::new(transport, ahead, session.watch.clone()));
        let call = Call {
            service: service.clone(),
            connection,
            session: session.clone(),
        };
        Self {
            http: builder(&service.limits()).serve_connection(io, call),
            session,
            waits: Waits::default(),
            last_request: false,
        }
    }

    fn poll(
        &mut self,
        deadline: &mut Deadline,
        stage: Stage,
        context: &mut Context<'_>,
    ) -> Poll<End> {
        if stage != Stage::Serving && self.must_be_cut(stage) {
            return Poll::Ready(End::Broken);
        }
        loop {
            if let Poll::Ready(result) = self.http.poll_without_shutdown(context) {
                return Poll::Ready(self.end(result));
            }
            let watch = &self.session.watch;
            if watch.failed() {
                return Poll::Ready(End::Broken);
            }
            self.waits.note(watch, timer_now);
            if stage != Stage::Serving && !self.last_request && self.may_be_the_last() {
                // hyper closes an idle connection, and announces the end with the next response otherwise.
                self.last_request = true;
                Pin::new(&mut self.http).graceful_shutdown();
                continue;
            }
            let Some((due, cause)) = self.waits.next(&self.session.timeouts.borrow()) else {
                return Poll::Pending;
            };
            return deadline.poll_until(due, context).map(|()| match cause {
                Cause::Quiet => End::Quiet,
                cause => End::TimedOut(cause),
            });
        }
    }

    /// Event streams never end by themselves; at the last stage nothing may go on.
    fn must_be_cut(&self, stage: Stage) -> bool {
        let streaming = || {
            let watch = &self.session.watch;
            watch.answering()
                && watch
                    .exchange()
                    .is_some_and(|exchange| exchange.event_stream())
        };
        stage == Stage::Aborting || stage == Stage::EndingTunnels && streaming()
    }

    /// Not in the middle of a header section, which hyper would cut, nor while an upgrade is being decided, whose
    /// `Connection: upgrade` hyper would rewrite.
    fn may_be_the_last(&self) -> bool {
        let watch = &self.session.watch;
        if watch.idle() {
            return !self.waits.header_begun();
        }
        !(self.session.upgrade_requested.get() && watch.answering())
    }

    fn end(&self, result: hyper::Result<()>) -> End {
        match result {
            Err(error) if error.is_parse_too_large() => End::Refused(ParseError::TooLarge),
            Err(error) if error.is_parse_version_h2() => End::Refused(ParseError::Http2),
            Err(error) if error.is_parse() => End::Refused(ParseError::Malformed),
            Err(_) => End::Broken,
            Ok(()) => match self.session.tunnel.take() {
                Some(tunnel) => End::Tunnel(tunnel),
                None => End::Closed {
                    linger: self.session.answered_early.get(),
                },
            },
        }
    }

    /// The socket, and what was read and not understood yet.
    fn take_apart(self: Box<Self>) -> (Transport, Bytes) {
        let parts = self.http.into_parts();
        let (transport, ahead) = parts.io.into_inner().into_parts();
        let unread = if ahead.is_empty() {
            parts.read_buf
        } else if parts.read_buf.is_empty() {
            ahead
        } else {
            [parts.read_buf, ahead].concat().into()
        };
        (transport, unread)
    }
}

fn builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // A client may close its sending side and wait; `WatchedIo` sees to it that this is noticed.
        .half_close(true)
        // Idle and header deadlines are ours: see `stall`.
        .header_read_timeout(None)
        // A forwarded response has the backend's date or none; our own set theirs.
        .auto_date_header(false)
        .max_buf_size(BUFFER.max(limits.header_bytes))
        .max_header_size(limits.header_bytes);
    if limits.header_fields != USUAL_HEADER_FIELDS {
        builder.max_headers(limits.header_fields);
    }
    builder
}

/// hyper's service: hands each request to ours and makes its response fit for the wire.
struct Call<S> {
    service: Rc<S>,
    connection: Connection,
    session: Rc<Session>,
}

impl<S: Answer> hyper::service::Service<Request<Incoming>> for Call<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    // Boxed because hyper wants to move it.
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let exchange = Rc::new(Exchange::default());
        let session = self.session.clone();
        session.timeouts.replace(self.service.timeouts());
        session
            .upgrade_requested
            .set(request.headers().contains_key(UPGRADE));
        let head = request.method() == Method::HEAD;
        let request = request.map(|incoming| RequestBody::incoming(incoming, exchange.clone()));
        session.watch.begin(exchange.clone());
        let answer = self.service.clone().answer(self.connection, request);
        Box::pin(async move {
            let mut response = answer.await;
            if let Some(tunnel) = response.body_mut().take_upgrade() {
                session.tunnel.replace(Some(tunnel));
            } else {
                finish_head(&mut response, head, &exchange);
                session.answered_early.set(!exchange.request_done());
            }
            *response.version_mut() = Version::HTTP_11;
            Ok(response.map(|body| body.on_exchange(exchange)))
        })
    }
}

/// What the connection knows of a response and the service can't: whether it has a body on the wire, and whether the
/// connection can go on after it.
fn finish_head(response: &mut Response<Body>, head: bool, exchange: &Exchange) {
    let status = response.status();
    if head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        let length = response
            .body()
            .size_hint()
            .exact()
            .filter(|length| *length > 0);
        if let Some(length) = length.filter(|_| head) {
            response
                .headers_mut()
                .entry(CONTENT_LENGTH)
                .or_insert(HeaderValue::from(length));
        }
        response.body_mut().withhold();
    }
    if !exchange.request_done() {
        // Answered before the request's end: what is still to come can't be told from the next request for long.
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let streaming = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(is_event_stream);
    if streaming {
        exchange.mark_event_stream();
    }
}

fn is_event_stream(content_type: &HeaderValue) -> bool {
    let name = b"text/event-stream";
    content_type
        .as_bytes()
        .get(..name.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(name))
}

/// Runs a tunnel to its end.
async fn run_tunnel<S: Answer>(
    client: Upgraded,
    (upstream, finish): Tunnel,
    service: Rc<S>,
    stop: &Stop,
) {
    let ended = || stop.stage() >= Stage::EndingTunnels;
    let idle = || service.timeouts().tunnel_idle;
    let mut traffic = tunnel::Traffic::new(finish);
    // The driver of the backend's connection gives the socket up as soon as it has read the 101.
    if let Ok(upstream) = upstream.await {
        tunnel::run(client, upstream, idle, ended, &mut traffic).await;
    }
}

/// Closes our side, and reads for a moment what the client is still sending: closing at once would reset the connection
/// and could destroy the answer before the client has read it.
async fn linger_then_close(mut transport: Transport) {
    if transport.close_write().is_err() {
        return;
    }
    let mut deadline = Deadline::default();
    let due = timer_now() + LINGER;
    let mut left = LINGER_BYTES;
    let mut chunk = vec![0; 8 * 1024];
    poll_fn(|context| {
        loop {
            if deadline.poll_until(due, context).is_ready() {
                return Poll::Ready(());
            }
            let mut buffer = ReadBuf::new(&mut chunk);
            match Pin::new(&mut transport).poll_read(context, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {
                    let length = buffer.filled().len();
                    if length == 0 || length >= left {
                        return Poll::Ready(());
                    }
                    left -= length;
                }
            }
        }
    })
    .await;
}
