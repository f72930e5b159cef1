//! One HTTP/2 connection from its preface to its last frame.
//!
//! Keeps true: everything that a client can make renewd keep is bounded: streams, windows, header sections, resets,
//! frames that carry nothing; an idle connection is closed in order, and earlier if it never had a request; at a
//! stop, or to make room for another connection, GOAWAY is sent and requests finish. A connection that never had a
//! request ends right after GOAWAY when it has to make room.
//! The connection is h2's own: hyper's server keeps the handle to itself by which interim responses are sent
//! (`H2Stream` in `proto/h2/server.rs` of hyper 1.12; <https://github.com/hyperium/hyper/pull/4114> is open).
//! Must not know: what a request means, how one stream waits.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{self, SendResponse};
use http::{Method, Request, StatusCode};
use tokio::time::Instant;

use super::frames::FrameFollower;
use super::reply::reply;
use super::socket::Framed;
use super::streams::{RequestStreams, StreamSetting};
use crate::config::model::{ServerLimits, Timeouts};
use crate::exchange::pace::Paces;
use crate::exchange::response_body::RequestBody;
use crate::exchange::{Connection, Exchange, PublicService};
use crate::http::http2 as fields;
use crate::io::deadline::Deadline;
use crate::server::open::Opened;
use crate::server::permits::Permit;
use crate::server::response::withhold;
use crate::server::stall::{Cause, Waits, WriteProgress};
use crate::server::stop::{Stage, Stop};
use crate::server::{Event, ServerObserver};
use crate::telemetry::traffic_labels::ParseErrorKind;
use crate::terms::clock::timer_now;

/// Requests that one client may have in flight: as many as with nginx. RFC 9113 §6.5.2 recommends at least 100.
const STREAMS: u32 = 128;

/// How much a client may send of each body, and of all bodies together, before the backend takes it. 256 KiB let one
/// upload run at 20 Mbit/s over a round trip of 100 ms.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// The longest frame that a client may send: the least that a server must take.
const FRAME: u32 = 16 * 1024;

/// How much of each response is kept for a client that takes it slowly.
const SEND_BUFFER: usize = 64 * 1024;

/// How much of each body is read besides. A client may leave [`STREAMS`] of them unfinished.
const READ_AHEAD: usize = 32 * 1024;

/// How many streams the client may reset before renewd has accepted them (CVE-2023-44487), and how many renewd resets
/// for the client's mistakes (CVE-2025-8671), before the connection ends.
const RESETS: usize = 20;
const MISTAKES: usize = 128;

/// How many frames that carry nothing (SETTINGS, PING and others) a client may send within a second. A browser sends
/// a few.
const MOST_CHORES: u32 = 1000;
const CHORES_WITHIN: Duration = Duration::from_secs(1);

/// How long a connection stays open after GOAWAY and the last response, unless the client takes a byte more.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// RFC 9113 §6.5.2 adds this much to a field's name and value.
const FIELD_OVERHEAD: usize = 32;

/// Serves one connection to its end.
pub(crate) async fn serve<S: PublicService>(
    opened: Opened,
    connection: Connection,
    service: Rc<S>,
    stop: &Stop,
    permit: &Permit,
    observer: Arc<dyn ServerObserver>,
) {
    let listener = connection.listener;
    let frames = Rc::<RefCell<FrameFollower>>::default();
    let sending = Rc::<WriteProgress>::default();
    let streams = Rc::<RequestStreams>::default();
    let timeouts = Rc::new(RefCell::new(service.timeouts()));
    let io = Framed::new(opened, &frames, &sending);
    let limits = service.limits();
    let requests = Requests::new(service, connection, &streams, &timeouts, &observer);
    let mut http = H2Connection::new(builder(&limits).handshake(io));
    let mut deadline = Deadline::default();
    let mut waits = H2ConnectionWaits::default();
    let end = poll_fn(|context| {
        let stage = stop.stage();
        if stage == Stage::Aborting {
            return Poll::Ready(None);
        }
        if stage == Stage::EndingTunnels {
            streams.cut(Exchange::is_streaming);
        }
        let makes_room = permit.must_leave();
        if (stage != Stage::Serving || makes_room) && waits.closing.is_none() {
            waits.closing = Some(sending.taken());
            http.close();
        }
        streams.wake_connection(context);
        loop {
            if let Poll::Ready(result) = http.poll(&requests, context) {
                return Poll::Ready(ended(&result, &frames.borrow()));
            }
            if streams.abused() || waits.abused(&mut frames.borrow_mut()) {
                return Poll::Ready(Some(Event::ParseFailed(ParseErrorKind::Http2Abuse)));
            }
            if waits.note(&sending, &streams, frames.borrow().begun()) {
                waits.report(permit);
            }
            if makes_room && waits.requests == 0 {
                // GOAWAY is written as far as the client takes it. There is nothing else to wait for.
                return Poll::Ready(None);
            }
            let Some((due, cause)) = waits.next(&timeouts.borrow()) else {
                return Poll::Pending;
            };
            ready!(deadline.poll_until(due, context));
            match cause {
                Cause::Quiet if waits.closing.is_some() => return Poll::Ready(None),
                Cause::Quiet => {
                    // The connection was idle for long enough. It is closed in order first.
                    waits.closing = Some(sending.taken());
                    http.close();
                }
                cause => return Poll::Ready(Some(Event::TimedOut(cause))),
            }
        }
    })
    .await;
    if let Some(event) = end {
        observer.observe(listener, event);
    }
    drop(http);
    streams.cut(|_| true);
}

/// The event of a connection that has ended, if it is one: the client's mistakes are reported, its leaving is not.
fn ended(result: &Result<(), h2::Error>, frames: &FrameFollower) -> Option<Event> {
    let mistake = |error: &h2::Error| !error.is_io() && !error.is_remote();
    let malformed = frames.broken() || result.as_ref().is_err_and(mistake);
    malformed.then_some(Event::ParseFailed(ParseErrorKind::Malformed))
}

fn builder(limits: &ServerLimits) -> server::Builder {
    let mut builder = server::Builder::new();
    let section = limits.header_bytes + limits.header_fields * FIELD_OVERHEAD;
    builder
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(section).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(Some(MISTAKES));
    builder
}

/// h2's connection, from its preface on.
struct H2Connection {
    state: H2State,
    closing: bool,
}

enum H2State {
    Handshake(Box<server::Handshake<Framed, Bytes>>),
    Open(Box<server::Connection<Framed, Bytes>>),
}

impl H2Connection {
    fn new(handshake: server::Handshake<Framed, Bytes>) -> Self {
        Self {
            state: H2State::Handshake(Box::new(handshake)),
            closing: false,
        }
    }

    /// Sends GOAWAY, and takes no further request.
    fn close(&mut self) {
        self.closing = true;
        if let H2State::Open(open) = &mut self.state {
            open.graceful_shutdown();
        }
    }

    /// Reads and writes; each request begins a stream. Ready at the connection's end.
    fn poll<S: PublicService>(
        &mut self,
        requests: &Requests<S>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), h2::Error>> {
        loop {
            match &mut self.state {
                H2State::Handshake(handshake) => {
                    let open = ready!(Pin::new(&mut **handshake).poll(context))?;
                    self.state = H2State::Open(Box::new(open));
                    if self.closing {
                        self.close();
                    }
                }
                H2State::Open(open) => match ready!(open.poll_accept(context)) {
                    Some(accepted) => {
                        let (request, sending) = accepted?;
                        requests.begin(request, sending);
                    }
                    None => return Poll::Ready(Ok(())),
                },
            }
        }
    }
}

/// The requests of one connection, each of which is given to the public service.
struct Requests<S> {
    service: Rc<S>,
    connection: Connection,
    streams: Rc<RequestStreams>,
    timeouts: Rc<RefCell<Timeouts>>,
    observer: Arc<dyn ServerObserver>,
    paces: Rc<Paces>,
}

impl<S: PublicService> Requests<S> {
    fn new(
        service: Rc<S>,
        connection: Connection,
        streams: &Rc<RequestStreams>,
        timeouts: &Rc<RefCell<Timeouts>>,
        observer: &Arc<dyn ServerObserver>,
    ) -> Self {
        Self {
            service,
            connection,
            streams: streams.clone(),
            timeouts: timeouts.clone(),
            observer: observer.clone(),
            paces: Rc::new(Paces::up_to(READ_AHEAD, READ_AHEAD)),
        }
    }

    fn begin(&self, request: Request<RecvStream>, sending: SendResponse<Bytes>) {
        let exchange = Rc::new(Exchange::at(self.paces.clone()));
        self.timeouts.replace(self.service.timeouts());
        let limits = self.service.limits();
        let by_head = request.method() == Method::HEAD;
        let (mut head, stream) = request.into_parts();
        fields::trim_values(&mut head.headers);
        fields::join_cookies(&mut head.headers);
        let framed = fields::join_lengths(&mut head.headers);
        let fits = fields::fits(&head.headers, limits.header_fields, limits.header_bytes);
        let refused = if !fits {
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            Some((status, ParseErrorKind::HeadersTooLarge))
        } else if !framed {
            Some((StatusCode::BAD_REQUEST, ParseErrorKind::Malformed))
        } else {
            None
        };
        let (service, connection) = (self.service.clone(), self.connection);
        if let Some((_, error)) = refused {
            let event = Event::ParseFailed(error);
            self.observer.observe(connection.listener, event);
        }
        let body = RequestBody::http2(stream, &head.headers, exchange.clone());
        let request = Request::from_parts(head, body);
        let answered = exchange.clone();
        // Boxed, since every future between here and the stream's task would hold it twice and be moved with it.
        let response = Box::pin(async move {
            let mut response = match refused {
                None => service.answer(connection, Box::new(request)).await?,
                Some((status, _)) => Box::new(service.refuse(status)),
            };
            withhold(&mut response, by_head);
            response.body_mut().on_exchange(answered);
            Ok(response)
        });
        let setting = StreamSetting {
            timeouts: self.timeouts.clone(),
            observer: self.observer.clone(),
            listener: connection.listener,
        };
        let begin = |stream| reply(sending, response, stream);
        RequestStreams::begin(&self.streams, exchange, setting, begin);
    }
}

/// The waits of the connection itself, and what else its end depends on.
#[derive(Default)]
struct H2ConnectionWaits {
    waits: Waits,
    requests: u64,
    /// How often the client had taken something when the connection began to close.
    closing: Option<u64>,
    chores_since: Option<Instant>,
}

impl H2ConnectionWaits {
    /// Notes after a poll which waits have begun, gone on or ended. Returns whether the connection has become quiet
    /// or busy.
    fn note(&mut self, sending: &WriteProgress, streams: &RequestStreams, begun: bool) -> bool {
        self.requests = streams.requests();
        let was_quiet = self.waits.quiet.began();
        self.waits.header.note(begun.then_some(self.requests));
        self.waits.write.note(sending.awaited());
        // A response may still be on its way when its stream is over, so that sending counts once the connection
        // closes.
        let taken = self.closing.map_or(0, |before| sending.taken() - before);
        let quiet = streams.is_empty().then_some(self.requests + taken);
        self.waits.quiet.note(quiet);
        self.waits.quiet.began() != was_quiet
    }

    /// Tells the permit whether the connection may make room for another.
    fn report(&self, permit: &Permit) {
        match self.waits.quiet.began() {
            Some(since) if self.requests > 0 && self.closing.is_none() => permit.quiet(since),
            Some(_) => {}
            None => permit.busy(),
        }
    }

    /// The deadline that comes first.
    fn next(&self, timeouts: &Timeouts) -> Option<(Instant, Cause)> {
        let patience = if self.closing.is_some() {
            LAST_WORDS.min(timeouts.idle)
        } else if self.requests == 0 {
            // The same as for a connection of HTTP/1.1 that never had a request.
            timeouts.header.min(timeouts.idle)
        } else {
            timeouts.idle
        };
        self.waits.next(timeouts, patience)
    }

    /// Whether the client sends more frames that carry nothing than any client needs.
    fn abused(&mut self, frames: &mut FrameFollower) -> bool {
        if frames.chores() <= MOST_CHORES {
            return false;
        }
        let now = timer_now();
        let fast = self
            .chores_since
            .is_none_or(|since| now < since + CHORES_WITHIN);
        self.chores_since = Some(now);
        frames.forget_chores();
        fast
    }
}
