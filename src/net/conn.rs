//! One client connection from its first byte to its last: HTTP/1.1, sleep between requests, tunnel after an upgrade.
//!
//! Keeps true: hyper's connection exists only while there is something for it to do; asleep, a connection is its socket
//! and a timer. Nothing that was read is lost on the way in or out. Every deadline and every stage of a stop is
//! honoured in each state.
//! Must not know: what a request means.

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::call::{Call, Session, Tunnel};
use super::http2;
use super::linger::{close, linger_then_close};
use super::open::{self, FRESH, Opened};
use super::refusal;
use super::stall::{Cause, QUIET, Waits, Watch, WatchedIo};
use super::stop::{Stage, Stop};
use super::{Event, Observer, ParseError};
use crate::clock::timer_now;
use crate::config::model::Limits;
use crate::deadline::Deadline;
use crate::forward::tunnel;
use crate::http::exchange::{Answer, Connection};
use crate::transport::{Transport, Upgraded};

/// Bytes buffered each way towards a client. More gains nothing on bodies; `max_header_size` bounds headers by itself.
const BUFFER: usize = 64 * 1024;

/// What hyper allows without a setting of its own; any other number costs it an allocation per request.
const USUAL_HEADER_FIELDS: usize = 100;

/// Serves one connection to its end, and drops `open` after it. Must be a task of its own.
///
/// Not an `async fn`: that keeps its arguments twice, and there is one such future for every idle connection.
#[allow(clippy::manual_async_fn)] // smaller by a third
pub fn serve<S: Answer>(
    transport: Transport,
    mut connection: Connection,
    service: Rc<S>,
    stop: Rc<Stop>,
    observer: Arc<dyn Observer>,
    open: impl Sized,
) -> impl Future<Output = ()> {
    async move {
        let _open = &open;
        let tell = |event| observer.observe(connection.listener, event);
        let _registration = stop.register().await;
        let opened = match service.tls(connection.listener) {
            Some(config) => {
                connection.tls = true;
                let limit = service.timeouts().tls_handshake;
                Box::pin(open::handshake(transport, config, limit, &stop)).await
            }
            None if service.h2c() => {
                Box::pin(open::peek(transport, &service.timeouts(), &stop)).await
            }
            None => Ok(Opened::http1(transport)),
        };
        let Opened {
            mut transport,
            mut ahead,
            ..
        } = match opened {
            Ok(opened) if opened.http2 => {
                let observer = observer.clone();
                Box::pin(http2::serve(opened, connection, service, &stop, observer)).await;
                return;
            }
            Ok(opened) => opened,
            Err(event) => {
                if let Some(event) = event {
                    tell(event);
                }
                return;
            }
        };
        let mut deadline = Deadline::default();
        let mut fresh = true;
        loop {
            if ahead.is_empty() {
                let since = timer_now();
                let idle = service.timeouts().idle;
                let awake = poll_fn(|context| {
                    poll_asleep(
                        &mut transport,
                        &mut deadline,
                        since,
                        idle,
                        fresh,
                        stop.stage(),
                        context,
                    )
                });
                let Some(read) = awake.await else {
                    Box::pin(close_asleep(transport, stop.stage())).await;
                    return;
                };
                ahead = read;
            }
            fresh = false;
            let mut active = Box::new(Active::new(transport, ahead, connection, &service, &stop));
            let end = poll_fn(|context| active.poll(&mut deadline, stop.stage(), context)).await;
            if let End::TimedOut(cause) = &end {
                // Before what follows drops the exchange, and with it the backend's connection.
                tell(Event::TimedOut(*cause));
            }
            let watch = active.session.watch.clone();
            let unread;
            (transport, unread) = active.take_apart();
            let End::Quiet = end else {
                // Boxed, for it is large, and most connections are asleep.
                Box::pin(part(end, transport, unread, watch, service, &stop, &tell)).await;
                return;
            };
            // An empty line after a body is an old client's habit (RFC 9112 §2.2).
            tell(Event::Slept);
            let nothing = unread.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
            ahead = if nothing { Bytes::new() } else { unread };
        }
    }
}

/// Ends a connection on which no request will be read any more.
async fn part<S: Answer>(
    end: End,
    transport: Transport,
    unread: Bytes,
    watch: Rc<Watch>,
    service: Rc<S>,
    stop: &Stop,
    tell: &impl Fn(Event),
) {
    match end {
        End::Tunnel(tunnel) => {
            tell(Event::TunnelOpened);
            let client = Upgraded {
                transport,
                read_ahead: unread,
            };
            run_tunnel(client, tunnel, service, stop).await;
            tell(Event::TunnelClosed);
        }
        End::Closed { linger } if linger || !unread.is_empty() => {
            linger_then_close(transport).await;
        }
        End::Closed { .. } => close(transport).await,
        End::Refused(kind) => {
            tell(Event::ParseFailed(kind));
            refuse(transport, &*service, &watch, &unread).await;
        }
        End::Quiet | End::TimedOut(_) | End::Broken => {}
    }
}

/// Closes a connection that has no request.
async fn close_asleep(transport: Transport, stage: Stage) {
    if stage == Stage::Serving {
        close(transport).await;
    } else {
        // Whose request is on its way all the same sees an end, not a reset.
        linger_then_close(transport).await;
    }
}

/// Answers in the parser's place, if it had an answer, and closes.
async fn refuse(mut transport: Transport, service: &impl Answer, watch: &Watch, unread: &[u8]) {
    if let Some(status) = refusal::status(&watch.take_refusal()) {
        let head = unread.starts_with(b"HEAD ");
        refusal::write(&mut transport, service.refuse(status), head).await;
    }
    linger_then_close(transport).await;
}

/// Waits between requests without hyper: until something was read, which is returned, or `None` when the connection
/// should close.
fn poll_asleep(
    transport: &mut Transport,
    deadline: &mut Deadline,
    since: Instant,
    idle: Duration,
    fresh: bool,
    stage: Stage,
    context: &mut Context<'_>,
) -> Poll<Option<Bytes>> {
    if stage < Stage::Aborting
        && let Poll::Ready(read) = transport.poll_wake(context)
    {
        return Poll::Ready(read.ok().filter(|bytes| !bytes.is_empty()));
    }
    let patience = match stage {
        Stage::Serving => idle,
        Stage::Draining | Stage::EndingTunnels if fresh => FRESH.min(idle),
        // Asleep, it has been quiet for as long already.
        Stage::Draining | Stage::EndingTunnels => QUIET.min(idle),
        Stage::Aborting => Duration::ZERO,
    };
    deadline
        .poll_until(since + patience, context)
        .map(|()| None)
}

/// Why hyper's connection is taken down.
enum End {
    /// Nothing to do for a while.
    Quiet,
    /// A 101 was sent.
    Tunnel(Tunnel),
    /// Over, in order; `linger` where the client may still be sending.
    Closed { linger: bool },
    /// Not a request.
    Refused(ParseError),
    /// A deadline passed.
    TimedOut(Cause),
    /// The transport or the backend broke, or a stop cuts.
    Broken,
}

/// A connection with hyper at work on it.
struct Active<S: Answer> {
    http: http1::Connection<TokioIo<WatchedIo>, Call<S>>,
    session: Rc<Session>,
    waits: Waits,
}

impl<S: Answer> Active<S> {
    fn new(
        transport: Transport,
        ahead: Bytes,
        connection: Connection,
        service: &Rc<S>,
        stop: &Rc<Stop>,
    ) -> Self {
        let session = Session::new(service.timeouts());
        let io = TokioIo::new(WatchedIo::new(transport, ahead, session.watch.clone()));
        let call = Call {
            service: service.clone(),
            connection,
            session: session.clone(),
            stop: stop.clone(),
        };
        Self {
            http: builder(&service.limits()).serve_connection(io, call),
            session,
            waits: Waits::default(),
        }
    }

    fn poll(
        &mut self,
        deadline: &mut Deadline,
        stage: Stage,
        context: &mut Context<'_>,
    ) -> Poll<End> {
        // What else a stop asks is left to the next response, which says `Connection: close`, and to sleep: a client that
        // hasn't been told may be sending at any time.
        if self.must_be_cut(stage) {
            return Poll::Ready(End::Broken);
        }
        if let Poll::Ready(result) = self.http.poll_without_shutdown(context) {
            return Poll::Ready(self.end(result));
        }
        let watch = &self.session.watch;
        if watch.failed() {
            return Poll::Ready(End::Broken);
        }
        if watch.unanswered() {
            return Poll::Ready(End::Closed { linger: false });
        }
        self.waits.note(watch, timer_now);
        let Some((due, cause)) = self.waits.next(&self.session.timeouts.borrow()) else {
            return Poll::Pending;
        };
        deadline.poll_until(due, context).map(|()| match cause {
            Cause::Quiet => End::Quiet,
            cause => End::TimedOut(cause),
        })
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
    tunnel::run(client, *upstream, idle, ended, &mut traffic).await;
}
