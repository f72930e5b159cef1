//! One client connection from its first byte to its last: HTTP/1.1, sleep between requests, tunnel after an upgrade.
//!
//! Keeps true: hyper's connection exists only while there is something for it to do; asleep, a connection is its socket
//! and a timer. Nothing that was read is lost on the way in or out. Every deadline and every stage of a stop is
//! honoured in each state.
//! Must not know: what a request means.

use std::future::poll_fn;
use std::pin::Pin;
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
use super::stall::{Cause, Waits, WatchedIo};
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

/// Serves one connection to its end. Must be a task of its own.
pub async fn serve<S: Answer>(
    transport: Transport,
    mut connection: Connection,
    service: Rc<S>,
    stop: Rc<Stop>,
    observer: Arc<dyn Observer>,
) {
    let tell = |event| observer.observe(connection.listener, event);
    let _registration = stop.register().await;
    let opened = match service.tls(connection.listener) {
        Some(config) => {
            connection.tls = true;
            let limit = service.timeouts().tls_handshake;
            Box::pin(open::handshake(transport, config, limit, &stop)).await
        }
        None if service.h2c() => Box::pin(open::peek(transport, &service.timeouts(), &stop)).await,
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
            let readable = poll_fn(|context| {
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
            let Some(read) = readable.await else {
                close(transport).await;
                return;
            };
            ahead = read;
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
                } else {
                    close(transport).await;
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

/// Waits between requests without hyper: until there is something to read (what was read to find out is returned), or
/// `None` when the connection should close.
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
        && let Poll::Ready(readable) = transport.poll_readable(context)
    {
        return Poll::Ready(readable.ok());
    }
    let patience = match stage {
        Stage::Serving => idle,
        Stage::Draining | Stage::EndingTunnels if fresh => FRESH.min(idle),
        Stage::Draining | Stage::EndingTunnels | Stage::Aborting => Duration::ZERO,
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
    /// The parser answered in our place.
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
    last_request: bool,
}

impl<S: Answer> Active<S> {
    fn new(transport: Transport, ahead: Bytes, connection: Connection, service: &Rc<S>) -> Self {
        let session = Session::new(service.timeouts());
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
        if stage != Stage::Serving {
            if self.must_be_cut(stage) {
                return Poll::Ready(End::Broken);
            }
            if !self.session.watch.idle() {
                // Before the response may be written by the poll below.
                self.announce_the_last();
            }
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
            // After the poll above, which takes in a request that has just arrived.
            if stage != Stage::Serving && self.announce_the_last() {
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

    /// Has hyper close the connection if it is idle, and announce the end with the next response otherwise; says whether
    /// that is news.
    fn announce_the_last(&mut self) -> bool {
        if self.last_request || !self.may_be_the_last() {
            return false;
        }
        self.last_request = true;
        Pin::new(&mut self.http).graceful_shutdown();
        true
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
