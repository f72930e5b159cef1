//! The streams of one HTTP/2 connection: each a task of its own with its own deadlines.
//!
//! Keeps true: a stream's end drops everything that belongs to it, here and towards the backend; a client that opens
//! streams only to abandon them is detected.
//! Must not know: frames, sockets, what a request means.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::config::model::Timeouts;
use crate::exchange::Exchange;
use crate::exchange::response_body::ResponseBody;
use crate::io::deadline::Deadline;
use crate::server::stall::{Cause, first_due};
use crate::server::{Event, ServerObserver};
use crate::terms::clock::timer_now;

/// Requests that a client may abandon unanswered within [`ABANDONED_WITHIN`]: as many as two large pages have. Each
/// costs the backend a connection, and resetting is cheap for the client (CVE-2023-44487).
const MOST_ABANDONED: u32 = 200;
const ABANDONED_WITHIN: Duration = Duration::from_secs(10);

/// How much is handed to hyper at once: a DATA frame. hyper 1.12 polls for more when the frame fits into the client's
/// window (`PipeToSendStream::poll` in `proto/h2/mod.rs`), so that each poll shows that the client takes bytes.
const PIECE: usize = 16 * 1024;

/// The open streams of a connection.
#[derive(Default)]
pub(crate) struct RequestStreams {
    open: RefCell<Vec<Rc<RequestStream>>>,
    /// Set by the service, and taken when hyper starts the stream's task right after.
    begun: Cell<Option<Rc<RequestStream>>>,
    requests: Cell<u64>,
    abandoned: Cell<(u32, Option<Instant>)>,
    abused: Cell<bool>,
    connection: RefCell<Option<Waker>>,
}

impl RequestStreams {
    /// Notes a request. Its task follows.
    pub(crate) fn begin(&self, exchange: Rc<Exchange>) -> Rc<RequestStream> {
        let stream = Rc::new(RequestStream {
            exchange,
            answered: Cell::new(false),
            pieces: Cell::new(0),
            handed: Cell::new(false),
            cut: Cell::new(false),
            task: RefCell::new(None),
        });
        self.requests.set(self.requests.get() + 1);
        self.begun.set(Some(stream.clone()));
        stream
    }

    /// The number of requests that have come.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// Whether no request is being answered.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.borrow().is_empty()
    }

    /// Whether the client abandons more requests than any client needs to.
    pub(crate) fn abused(&self) -> bool {
        self.abused.get()
    }

    /// Sets the task to wake when the last stream ends, and at abuse.
    pub(crate) fn wake_connection(&self, context: &Context<'_>) {
        match &mut *self.connection.borrow_mut() {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }

    /// Ends the streams that `which` names.
    pub(crate) fn cut(&self, which: impl Fn(&Exchange) -> bool) {
        for stream in self.open.borrow().iter() {
            if which(&stream.exchange) {
                stream.cut.set(true);
                if let Some(task) = stream.task.borrow().as_ref() {
                    task.wake_by_ref();
                }
            }
        }
    }

    fn ended(&self, stream: &Rc<RequestStream>) {
        self.open
            .borrow_mut()
            .retain(|open| !Rc::ptr_eq(open, stream));
        if !stream.answered.get() && !stream.cut.get() {
            self.count_abandoned();
        }
        if (self.abused.get() || self.is_empty())
            && let Some(connection) = self.connection.borrow().as_ref()
        {
            connection.wake_by_ref();
        }
    }

    fn count_abandoned(&self) {
        let now = timer_now();
        let (count, since) = match self.abandoned.get() {
            (count, Some(since)) if now < since + ABANDONED_WITHIN => (count + 1, since),
            _ => (1, now),
        };
        self.abandoned.set((count, Some(since)));
        if count > MOST_ABANDONED {
            self.abused.set(true);
        }
    }
}

/// One request and its response on a connection.
pub(crate) struct RequestStream {
    exchange: Rc<Exchange>,
    answered: Cell<bool>,
    pieces: Cell<u64>,
    /// hyper has taken a piece and not asked for another: the client's window is full.
    handed: Cell<bool>,
    cut: Cell<bool>,
    task: RefCell<Option<Waker>>,
}

impl RequestStream {
    /// Notes that the response's head is ready.
    pub(crate) fn answered(&self) {
        self.answered.set(true);
    }
}

/// Starts hyper's future of a stream as a task of this worker.
#[derive(Clone)]
pub(crate) struct Spawner {
    pub(crate) streams: Rc<RequestStreams>,
    pub(crate) timeouts: Rc<RefCell<Timeouts>>,
    pub(crate) observer: Arc<dyn ServerObserver>,
    pub(crate) listener: usize,
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, future: F) {
        // hyper 1.12 starts a second task for an accepted CONNECT alone (`execute_upgrade` in `proto/h2/server.rs`),
        // and none is accepted.
        let Some(stream) = self.streams.begun.take() else {
            return;
        };
        self.streams.open.borrow_mut().push(stream.clone());
        spawn_local(self.clone().run(stream, future));
    }
}

impl Spawner {
    async fn run<F: Future<Output = ()>>(self, stream: Rc<RequestStream>, future: F) {
        let late = run_until_late(&stream, &self.timeouts, future).await;
        if let Some(cause) = late {
            stream.cut.set(true);
            self.observer.observe(self.listener, Event::TimedOut(cause));
        }
        self.streams.ended(&stream);
    }
}

/// Runs a stream until its end, its cut, or a deadline, which is returned. Dropping the future resets the stream.
async fn run_until_late(
    stream: &RequestStream,
    timeouts: &RefCell<Timeouts>,
    future: impl Future<Output = ()>,
) -> Option<Cause> {
    let mut future = pin!(future);
    let mut deadline = Deadline::default();
    let mut waits = StreamWaits::default();
    poll_fn(|context| {
        if stream.cut.get() || future.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        stream.task.replace(Some(context.waker().clone()));
        loop {
            let now = timer_now;
            let Some((due, cause)) = waits.next(stream, &timeouts.borrow(), now) else {
                return Poll::Pending;
            };
            ready!(deadline.poll_until(due, context));
            if waits.confirmed(stream, cause, now) {
                return Poll::Ready(Some(cause));
            }
        }
    })
    .await
}

/// Since when a stream has made no progress, in each direction.
#[derive(Default)]
struct StreamWaits {
    body: Option<(Instant, u64)>,
    write: Option<(Instant, u64)>,
}

impl StreamWaits {
    /// The deadline that comes first, if nothing moves until then.
    fn next(
        &mut self,
        stream: &RequestStream,
        timeouts: &Timeouts,
        now: impl Fn() -> Instant,
    ) -> Option<(Instant, Cause)> {
        let exchange = &stream.exchange;
        let body = keep(
            &mut self.body,
            !exchange.request_done(),
            exchange.request_frames(),
            &now,
        );
        let write = keep(
            &mut self.write,
            stream.handed.get(),
            stream.pieces.get(),
            &now,
        );
        first_due([
            (body, timeouts.body_stall, Cause::Body),
            (write, timeouts.write_stall, Cause::Write),
        ])
    }

    /// Whether the client is the cause of the wait. If not, the wait begins anew. Another task takes the body, so
    /// that its progress is seen only here.
    fn confirmed(
        &mut self,
        stream: &RequestStream,
        cause: Cause,
        now: impl Fn() -> Instant,
    ) -> bool {
        if cause != Cause::Body {
            return true;
        }
        let exchange = &stream.exchange;
        let unmoved = self
            .body
            .is_some_and(|(_, frames)| frames == exchange.request_frames());
        if unmoved && exchange.request_awaited() && !exchange.request_done() {
            return true;
        }
        self.body = Some((now(), exchange.request_frames()));
        false
    }
}

/// Starts, restarts or ends a wait, and returns its beginning.
fn keep(
    wait: &mut Option<(Instant, u64)>,
    waiting: bool,
    progress: u64,
    now: &impl Fn() -> Instant,
) -> Option<Instant> {
    if !waiting {
        *wait = None;
        return None;
    }
    match wait {
        Some((since, seen)) if *seen == progress => Some(*since),
        _ => {
            let since = now();
            *wait = Some((since, progress));
            Some(since)
        }
    }
}

/// A response's body in pieces, each of which shows progress.
pub(crate) struct BodyPieces {
    pub(super) body: ResponseBody,
    /// The rest of the body's last frame.
    pub(super) rest: Bytes,
    pub(super) stream: Rc<RequestStream>,
}

impl HttpBody for BodyPieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        this.stream.handed.set(false);
        if this.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            match frame.into_data() {
                Ok(data) => this.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE));
        this.stream.handed.set(true);
        this.stream.pieces.set(this.stream.pieces.get() + 1);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // hyper 1.12 asks before the first frame (`H2Stream::poll2` in `proto/h2/server.rs`), when nothing is left
        // over.
        self.body.size_hint()
    }
}
