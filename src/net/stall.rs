//! What a connection waits for, and for how long: an IO wrapper that notes it, and the deadlines that follow.
//!
//! Keeps true: reading and writing set flags only; the clock is asked when a wait begins, never per byte.
//! Must not know: HTTP beyond "a request is in flight"; what happens when a deadline has passed.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::config::model::Timeouts;
use crate::http::exchange::Exchange;
use crate::pace::Paces;
use crate::transport::Transport;

/// A connection without a request goes to sleep after this. Long enough that the next request of a page load finds it
/// awake (waking costs an allocation or two), short enough that memory follows the load.
pub const QUIET: Duration = Duration::from_millis(500);

/// How much of a pipelined request is taken in while the one before it is being answered. Reading on is how a client's
/// departure is noticed.
const READ_AHEAD: usize = 8 * 1024;

/// What the wrapper noted; shared with the connection, which reads it after each poll.
#[derive(Debug, Default)]
pub struct Watch {
    exchange: RefCell<Option<Rc<Exchange>>>,
    requests: Cell<u64>,
    received: Cell<bool>,
    read_blocked: Cell<bool>,
    sent: Cell<bool>,
    write_blocked: Cell<bool>,
    unflushed: Cell<bool>,
    end_seen: Cell<bool>,
    failed: Cell<bool>,
    /// Every request was answered, so that what is written now is no answer to any.
    settled: Cell<bool>,
    refusal: RefCell<Vec<u8>>,
    paces: Rc<Paces>,
    /// Something was received when there was nothing to be said.
    spoke_last: Cell<bool>,
}

impl Watch {
    /// Of an HTTP/1.1 connection before its first request: what the parser writes by itself is kept back.
    pub fn keeping_refusals() -> Self {
        let watch = Self::default();
        watch.settled.set(true);
        watch
    }

    /// What the parser wrote by itself, in place of an answer.
    pub fn take_refusal(&self) -> Vec<u8> {
        self.refusal.take()
    }

    /// A request has been understood and is being answered.
    pub fn begin(&self, exchange: Rc<Exchange>) {
        self.exchange.replace(Some(exchange));
        self.requests.set(self.requests.get() + 1);
        self.received.set(false);
        self.settled.set(false);
        // A pipelined request says nothing of the answer before it.
        self.paces.download.begin(self.spoke_last.take());
        self.paces.upload.begin(true);
    }

    /// How bodies are taken, on this connection.
    pub fn paces(&self) -> &Rc<Paces> {
        &self.paces
    }

    /// The request in flight, or the last one.
    pub fn exchange(&self) -> Option<Rc<Exchange>> {
        self.exchange.borrow().clone()
    }

    /// Whether no request is in flight and everything is written.
    pub fn idle(&self) -> bool {
        let between = self
            .exchange
            .borrow()
            .as_ref()
            .is_none_or(|exchange| exchange.request_done() && exchange.response_done());
        between && !self.unflushed.get() && !self.write_blocked.get()
    }

    /// Whether a response to the last request is still to be finished.
    pub fn answering(&self) -> bool {
        self.exchange
            .borrow()
            .as_ref()
            .is_some_and(|exchange| !exchange.response_done())
    }

    /// Whether the last request's body was not read to its end.
    pub fn request_unfinished(&self) -> bool {
        self.exchange
            .borrow()
            .as_ref()
            .is_some_and(|exchange| !exchange.request_done())
    }

    /// Requests seen so far.
    pub fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// Whether anything was written since the last call.
    pub fn take_sent(&self) -> bool {
        self.sent.replace(false)
    }

    /// Whether the transport takes no more for now.
    pub fn write_blocked(&self) -> bool {
        self.write_blocked.get()
    }

    /// How many bytes of what the client sends may be read at once.
    fn read_ahead(&self) -> usize {
        if self.request_unfinished() {
            self.paces.upload.ahead()
        } else {
            usize::MAX
        }
    }

    /// Whether the last request gets no answer.
    pub fn unanswered(&self) -> bool {
        self.exchange
            .borrow()
            .as_ref()
            .is_some_and(|exchange| exchange.unanswered())
    }

    /// Whether the transport broke while nobody was reading from it.
    pub fn failed(&self) -> bool {
        self.failed.get()
    }

    /// All that was to be said to the requests so far is flushed.
    fn note_settled(&self) {
        let answered = self
            .exchange
            .borrow()
            .as_ref()
            .is_some_and(|exchange| exchange.request_done() && exchange.response_done());
        if answered {
            self.settled.set(true);
        }
    }

    /// A complete request is being answered, so that nothing but a pipelined request or the end can be read.
    fn may_look_ahead(&self) -> bool {
        self.exchange
            .borrow()
            .as_ref()
            .is_some_and(|exchange| exchange.request_done() && !exchange.response_done())
    }
}

/// A client's transport with its watch.
#[derive(Debug)]
pub struct WatchedIo {
    transport: Transport,
    ahead: BytesMut,
    watch: Rc<Watch>,
}

impl WatchedIo {
    /// Reading gives `ahead` first.
    pub fn new(transport: Transport, ahead: Bytes, watch: Rc<Watch>) -> Self {
        watch.received.set(!ahead.is_empty());
        Self {
            transport,
            ahead: BytesMut::from(ahead),
            watch,
        }
    }

    /// The transport, and what was read ahead of HTTP.
    pub fn into_parts(self) -> (Transport, Bytes) {
        (self.transport, self.ahead.freeze())
    }

    /// Finds out whether the client is still there while HTTP isn't reading.
    fn look_ahead(&mut self, context: &mut Context<'_>) {
        while self.ahead.len() < READ_AHEAD && !self.watch.end_seen.get() {
            let mut chunk = [const { std::mem::MaybeUninit::uninit() }; 2048];
            let mut buffer = ReadBuf::uninit(&mut chunk);
            match Pin::new(&mut self.transport).poll_read(context, &mut buffer) {
                Poll::Pending => return,
                Poll::Ready(Err(_)) => {
                    self.watch.failed.set(true);
                    return;
                }
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    self.watch.end_seen.set(true);
                    if let Some(exchange) = self.watch.exchange() {
                        exchange.mark_client_closed();
                    }
                }
                Poll::Ready(Ok(())) => self.ahead.extend_from_slice(buffer.filled()),
            }
        }
    }
}

impl AsyncRead for WatchedIo {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let watch = &this.watch;
        if !this.ahead.is_empty() {
            let length = this.ahead.len().min(buffer.remaining());
            buffer.put_slice(&this.ahead[..length]);
            this.ahead.advance(length);
            watch.received.set(true);
            watch.read_blocked.set(false);
            return Poll::Ready(Ok(()));
        }
        if watch.end_seen.get() {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let transport = Pin::new(&mut this.transport);
        let ahead = watch.read_ahead();
        let poll = if buffer.remaining() > ahead {
            poll_read_up_to(ahead, transport, context, buffer)
        } else {
            transport.poll_read(context, buffer)
        };
        watch.read_blocked.set(poll.is_pending());
        if let Poll::Ready(Ok(())) = &poll {
            if buffer.filled().len() == before {
                watch.end_seen.set(true);
            } else {
                watch.received.set(true);
                if watch.settled.get() {
                    watch.spoke_last.set(true);
                }
            }
        }
        poll
    }
}

/// Reads no more than `most` bytes.
fn poll_read_up_to(
    most: usize,
    transport: Pin<&mut Transport>,
    context: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
    ready!(transport.poll_read(context, &mut part))?;
    let read = part.filled().len();
    buffer.advance(read);
    Poll::Ready(Ok(()))
}

impl WatchedIo {
    /// hyper answers what it can't parse before anybody is asked, and with nothing to go by.
    fn keep_back(&self, slices: &[IoSlice<'_>]) -> usize {
        let mut refusal = self.watch.refusal.borrow_mut();
        let before = refusal.len();
        for slice in slices {
            refusal.extend_from_slice(slice);
        }
        refusal.len() - before
    }

    fn wrote(&self, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.watch.unflushed.set(true);
        self.watch.write_blocked.set(poll.is_pending());
        match &poll {
            Poll::Ready(Ok(written)) => {
                self.watch.sent.set(true);
                self.watch.paces.download.takes(*written);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.watch.paces.download.waits(),
        }
        poll
    }
}

impl AsyncWrite for WatchedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.watch.settled.get() {
            return Poll::Ready(Ok(self.keep_back(&[IoSlice::new(bytes)])));
        }
        let poll = Pin::new(&mut self.transport).poll_write(context, bytes);
        self.wrote(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.watch.settled.get() {
            return Poll::Ready(Ok(self.keep_back(slices)));
        }
        let poll = Pin::new(&mut self.transport).poll_write_vectored(context, slices);
        self.wrote(poll)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper flushes on every turn, and only when all it had is written: the place to note that nothing is left, and
    /// to look whether the client has gone.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.transport).poll_flush(context))?;
        self.watch.unflushed.set(false);
        self.watch.note_settled();
        if self.watch.may_look_ahead() {
            self.look_ahead(context);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(context)
    }
}

/// Which deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A header section was begun and not finished.
    Header,
    /// A request's body brought no byte.
    Body,
    /// The client took no byte of a response.
    Write,
    /// The client closed its sending side and the response made no progress since.
    HalfClosed,
    /// No request for [`QUIET`]: not a fault, the connection goes to sleep.
    Quiet,
}

/// When each wait of one connection began.
#[derive(Debug, Default)]
pub struct Waits {
    requests: u64,
    header: Option<Instant>,
    body: Option<Instant>,
    write: Option<Instant>,
    half_closed: Option<Instant>,
    quiet: Option<Instant>,
}

impl Waits {
    /// Notes after a poll which waits have begun, gone on or ended.
    pub fn note(&mut self, watch: &Watch, now: impl Fn() -> Instant) {
        let sent = watch.sent.replace(false);
        let received = watch.received.get();
        if self.requests != watch.requests.get() {
            // What was received belongs to that request, not to the head of the next.
            self.requests = watch.requests.get();
            self.header = None;
            self.quiet = None;
            if watch.idle() {
                watch.received.set(false);
            }
        }
        keep(&mut self.write, watch.write_blocked.get(), sent, &now);
        if watch.idle() {
            self.body = None;
            self.half_closed = None;
            let begun = watch.received.get();
            keep(&mut self.header, begun, false, &now);
            keep(&mut self.quiet, !begun, false, &now);
            return;
        }
        watch.received.set(false);
        self.header = None;
        self.quiet = None;
        let awaited = watch.request_unfinished() && watch.read_blocked.get();
        keep(&mut self.body, awaited, received, &now);
        let half_closed = watch.end_seen.get() && watch.answering();
        keep(&mut self.half_closed, half_closed, sent, &now);
    }

    /// The deadline that comes first.
    pub fn next(&self, timeouts: &Timeouts) -> Option<(Instant, Cause)> {
        [
            (self.header, timeouts.header, Cause::Header),
            (self.body, timeouts.body_stall, Cause::Body),
            (self.write, timeouts.write_stall, Cause::Write),
            (self.half_closed, timeouts.write_stall, Cause::HalfClosed),
            (self.quiet, QUIET.min(timeouts.idle), Cause::Quiet),
        ]
        .into_iter()
        .filter_map(|(since, limit, cause)| Some((since?.checked_add(limit)?, cause)))
        .min_by_key(|(due, _)| *due)
    }
}

/// Starts, restarts or ends one wait.
fn keep(since: &mut Option<Instant>, waiting: bool, progress: bool, now: &impl Fn() -> Instant) {
    if !waiting {
        *since = None;
    } else if since.is_none() || progress {
        *since = Some(now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::timer_now;
    use crate::http::body::{Body, RequestBody};

    const TIMEOUTS: Timeouts = Timeouts {
        header: Duration::from_secs(10),
        idle: Duration::from_secs(75),
        body_stall: Duration::from_secs(30),
        write_stall: Duration::from_mins(1),
        tunnel_idle: Duration::from_hours(1),
        tls_handshake: Duration::from_secs(10),
    };

    /// What comes next, in milliseconds from `start`.
    fn next(waits: &Waits, start: Instant) -> Option<(u128, Cause)> {
        waits
            .next(&TIMEOUTS)
            .map(|(due, cause)| ((due - start).as_millis(), cause))
    }

    #[test]
    fn each_state_of_a_connection_has_its_deadline() {
        let start = timer_now();
        let at = |seconds| move || start + Duration::from_secs(seconds);
        let watch = Watch::default();
        let mut waits = Waits::default();
        waits.note(&watch, at(0));
        assert_eq!(next(&waits, start), Some((500, Cause::Quiet)));

        watch.received.set(true);
        waits.note(&watch, at(1));
        waits.note(&watch, at(5));
        assert_eq!(next(&waits, start), Some((11_000, Cause::Header)));

        // A bodiless request is being answered: nothing is waited for.
        let exchange = Rc::new(Exchange::default());
        let request = RequestBody::empty(exchange.clone());
        let mut response = Body::empty();
        response.on_exchange(exchange.clone());
        watch.begin(exchange);
        waits.note(&watch, at(6));
        assert_eq!(next(&waits, start), None);

        // The client doesn't take the response; some of it restarts the wait.
        watch.write_blocked.set(true);
        waits.note(&watch, at(7));
        assert_eq!(next(&waits, start), Some((67_000, Cause::Write)));
        watch.sent.set(true);
        waits.note(&watch, at(20));
        assert_eq!(next(&waits, start), Some((80_000, Cause::Write)));
        watch.write_blocked.set(false);

        // The client has closed its sending side.
        watch.end_seen.set(true);
        waits.note(&watch, at(21));
        assert_eq!(next(&waits, start), Some((81_000, Cause::HalfClosed)));
        drop((request, response));
        waits.note(&watch, at(22));
        assert_eq!(next(&waits, start), Some((22_500, Cause::Quiet)));
    }

    #[test]
    fn what_was_read_with_a_request_does_not_begin_the_next() {
        let start = timer_now();
        let watch = Watch::default();
        let mut waits = Waits::default();
        let exchange = Rc::new(Exchange::default());
        watch.begin(exchange.clone());
        // Its body came in a packet of its own, and all was over within one poll.
        watch.received.set(true);
        drop(RequestBody::empty(exchange.clone()));
        let mut response = Body::empty();
        response.on_exchange(exchange);
        drop(response);
        waits.note(&watch, || start);
        assert_eq!(next(&waits, start), Some((500, Cause::Quiet)));
    }
}
