//! The streams of one HTTP/2 connection: each a task of its own with its own deadlines.
//!
//! Keeps true: a stream's end drops everything that belongs to it, here and towards the backend; a client that opens
//! streams only to abandon them is detected.
//! Must not know: frames, sockets, what a request means.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::config::model::Timeouts;
use crate::exchange::{Exchange, RequestSide, ResponseSide};
use crate::io::deadline::Deadline;
use crate::server::stall::{Cause, Waits, WriteProgress};
use crate::server::{Event, ServerObserver};
use crate::terms::clock::{Turn, timer_now};

/// Requests that a client may abandon unanswered within [`ABANDONED_WITHIN`]: as many as two large pages have. Each
/// costs the backend a connection, and resetting is cheap for the client (CVE-2023-44487).
const MOST_ABANDONED: u32 = 200;
const ABANDONED_WITHIN: Duration = Duration::from_secs(10);

/// The open streams of a connection.
#[derive(Default)]
pub(crate) struct RequestStreams {
    open: RefCell<Vec<Rc<RequestStream>>>,
    requests: Cell<u64>,
    abandoned: Cell<(u32, Option<Instant>)>,
    abused: Cell<bool>,
    connection: RefCell<Option<Waker>>,
}

impl RequestStreams {
    /// Begins a request: `reply` answers it, as a task of this worker.
    pub(crate) fn begin<F: Future<Output = ()> + 'static>(
        this: &Rc<Self>,
        exchange: Rc<Exchange>,
        setting: StreamSetting,
        reply: impl FnOnce(Rc<RequestStream>) -> F,
    ) {
        let stream = Rc::new(RequestStream {
            exchange,
            sending: WriteProgress::default(),
            cut: Cell::new(false),
            task: RefCell::new(None),
        });
        this.requests.set(this.requests.get() + 1);
        this.open.borrow_mut().push(stream.clone());
        let (streams, reply) = (this.clone(), reply(stream.clone()));
        // Boxed, since the runtime moves a task's future several times before it runs.
        spawn_local(Box::pin(async move {
            let late = run_until_late(&stream, &setting.timeouts, reply).await;
            if let Some(cause) = late {
                stream.cut.set(true);
                let event = Event::TimedOut(cause);
                setting.observer.observe(setting.listener, event);
            }
            streams.ended(&stream);
        }));
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
        let unanswered = stream.exchange.response() == ResponseSide::Answering;
        if unanswered && !stream.cut.get() {
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
    /// Whether the client's window takes the pieces of the response.
    sending: WriteProgress,
    cut: Cell<bool>,
    task: RefCell<Option<Waker>>,
}

impl RequestStream {
    /// The exchange of request and response.
    pub(crate) fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// Whether the client's window takes the pieces of the response.
    pub(crate) fn sending(&self) -> &WriteProgress {
        &self.sending
    }

    /// Notes the waits of the stream.
    fn note(&self, waits: &mut Waits) {
        let unread = !self.exchange.request().is_over();
        waits
            .body
            .note(unread.then(|| self.exchange.request_frames()));
        waits.write.note(self.sending.awaited());
    }
}

/// What a stream's task needs of its connection.
pub(crate) struct StreamSetting {
    pub(crate) timeouts: Rc<RefCell<Timeouts>>,
    pub(crate) observer: Arc<dyn ServerObserver>,
    pub(crate) listener: usize,
}

/// Runs a stream until its end, its cut, or a deadline, which is returned. Dropping the future resets the stream.
async fn run_until_late(
    stream: &RequestStream,
    timeouts: &RefCell<Timeouts>,
    future: impl Future<Output = ()>,
) -> Option<Cause> {
    let mut future = pin!(future);
    let mut deadline = Deadline::default();
    let mut waits = Waits::default();
    poll_fn(|context| {
        let _turn = Turn::begin();
        if stream.cut.get() || future.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        match &mut *stream.task.borrow_mut() {
            Some(task) => task.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        loop {
            stream.note(&mut waits);
            let timeouts = timeouts.borrow();
            let Some((due, cause)) = waits.next(&timeouts, timeouts.idle) else {
                return Poll::Pending;
            };
            ready!(deadline.poll_until(due, context));
            if cause != Cause::Body || stream.exchange.request() == RequestSide::Awaited {
                return Poll::Ready(Some(cause));
            }
            // The client isn't the cause. Another task takes the body, so that this is seen only here.
            waits.body.restart();
        }
    })
    .await
}
