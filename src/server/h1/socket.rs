//! An HTTP/1.1 client's socket while it is awake: both buffers, how far its request is read, and the waits of the
//! connection.
//!
//! Keeps true: no byte that was read is lost; a request's body is read when its reader polls it, and the bytes between
//! requests by the connection; a client that leaves while it is being answered is noticed.
//! Must not know: what a request means; what happens when a deadline has passed.

use std::cell::{Ref, RefCell};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::response;
use http_body::Frame;
use tokio::io::{AsyncRead, ReadBuf};

use super::outflow::Outflow;
use crate::config::model::Timeouts;
use crate::exchange::pace::Paces;
use crate::exchange::raw_fields::RawFieldLines;
use crate::exchange::response_body::Inlet;
use crate::exchange::{Exchange, RequestSide, ResponseSide};
use crate::http1::decode::{Decoder, NextPart};
use crate::http1::input::Input;
use crate::http1::output::Output;
use crate::http1::parse_request::{HeadLimits, RequestHead, RequestParseError, begun, take_head};
use crate::http1::write_response::{
    AnnouncedFraming, ResponseHeadTerms, write_head, write_interim,
};
use crate::io::transport::Transport;
use crate::server::stall::Waits;

/// How much of a pipelined request is read while the request before it is being answered. Only reading shows that a
/// client has left.
const READ_AHEAD: usize = 8 * 1024;

/// How much is read at once between requests, where the length of what comes is unknown.
const HEAD_AHEAD: usize = 64 * 1024;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Why there is no other request.
#[derive(Debug)]
pub(crate) enum Lost {
    /// The bytes are no request. `by_head` says whether they begin as HEAD does, so that the response has no body.
    Refused {
        refusal: RequestParseError,
        by_head: bool,
    },
    /// The transport broke, or ended within a head.
    Broken,
}

/// The client's socket, shared with the body of its request.
#[derive(Debug)]
pub(crate) struct ClientSocket {
    io: RefCell<Io>,
    exchange: RefCell<Option<Rc<Exchange>>>,
    paces: Rc<Paces>,
    timeouts: RefCell<Timeouts>,
    /// Wakes the connection's own task, since another task may read the body.
    task: RefCell<Waker>,
}

/// What the client's side of the socket is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientSide {
    /// The client may send.
    Open,
    /// The client has closed its sending side.
    Ended,
    /// The transport broke while no body was being read.
    Broken,
}

#[derive(Debug)]
struct Io {
    /// `None` when the socket was taken out.
    transport: Option<Transport>,
    input: Input,
    outflow: Outflow,
    client: ClientSide,
    /// How many requests were parsed.
    requests: u64,
    /// How often something of a body was received.
    received: u64,
    /// Bytes came while there was nothing to write.
    spoke_last: bool,
    /// Bytes of a head that were parsed in vain.
    known: usize,
    decoder: Decoder,
    expects_continue: bool,
}

impl ClientSocket {
    /// A connection between requests; the bytes of `ahead` were read already.
    pub(crate) fn new(transport: Transport, ahead: Bytes, timeouts: Timeouts) -> Self {
        Self {
            io: RefCell::new(Io {
                transport: Some(transport),
                input: Input::from(ahead),
                outflow: Outflow::default(),
                client: ClientSide::Open,
                requests: 0,
                received: 0,
                spoke_last: false,
                known: 0,
                decoder: Decoder::Over,
                expects_continue: false,
            }),
            exchange: RefCell::default(),
            paces: Rc::default(),
            timeouts: RefCell::new(timeouts),
            task: RefCell::new(Waker::noop().clone()),
        }
    }

    /// The socket, and the bytes that were read and not parsed. Bodies that are still held can't be read any more.
    pub(crate) fn take_apart(&self) -> Option<(Transport, Bytes)> {
        let mut io = self.io.borrow_mut();
        let transport = io.transport.take()?;
        // An empty part of the buffer would keep the buffer's memory.
        let unread = Some(io.input.bytes().split().freeze()).filter(|bytes| !bytes.is_empty());
        Some((transport, unread.unwrap_or_default()))
    }

    /// Reads the head of the next request; `None` where the client has closed its sending side instead.
    pub(crate) fn poll_head(
        &self,
        limits: HeadLimits,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<RequestHead>, Lost>> {
        let mut io = self.io.borrow_mut();
        let io = &mut *io;
        if io.client == ClientSide::Ended && io.poll_end(context)?.is_pending() {
            return Poll::Pending;
        }
        loop {
            let waiting = begun(io.input.bytes());
            if waiting && io.input.len() > io.known {
                let by_head = io.input.bytes().starts_with(b"HEAD ");
                let head = take_head(io.input.bytes(), io.known, limits);
                let head = head.map_err(|refusal| Lost::Refused { refusal, by_head })?;
                if let Some(head) = head {
                    io.known = 0;
                    io.decoder = head.decoder.clone();
                    io.expects_continue = head.expects_continue;
                    return Poll::Ready(Ok(Some(head)));
                }
                io.known = io.input.len();
            }
            let read = if io.client == ClientSide::Ended {
                0
            } else {
                ready!(io.poll_fill(None, HEAD_AHEAD, context)).map_err(|_| Lost::Broken)?
            };
            if read == 0 {
                io.client = ClientSide::Ended;
                return Poll::Ready(if waiting { Err(Lost::Broken) } else { Ok(None) });
            }
            io.spoke_last |= !waiting && io.outflow.is_flushed();
        }
    }

    /// Notes that a request was parsed and is being answered.
    pub(crate) fn begin(&self, exchange: Rc<Exchange>, timeouts: Timeouts) {
        self.exchange.replace(Some(exchange));
        self.timeouts.replace(timeouts);
        let mut io = self.io.borrow_mut();
        io.requests += 1;
        // A pipelined request doesn't show that the client has taken the response before it.
        let arrived = std::mem::take(&mut io.spoke_last);
        self.paces.download.begin(arrived);
        self.paces.upload.begin(true);
    }

    /// How many requests were parsed.
    pub(crate) fn requests(&self) -> u64 {
        self.io.borrow().requests
    }

    /// How fast the client and the backend take bodies on this connection.
    pub(crate) fn paces(&self) -> &Rc<Paces> {
        &self.paces
    }

    /// Queues the head of a response.
    pub(crate) fn write_head(
        &self,
        head: &response::Parts,
        raw_fields: Option<&RawFieldLines>,
        terms: ResponseHeadTerms,
    ) -> AnnouncedFraming {
        if let Some(exchange) = &*self.exchange.borrow() {
            exchange.response_begins();
        }
        let mut io = self.io.borrow_mut();
        io.take_interim(&self.exchange);
        write_head(head, raw_fields, terms, io.outflow.output().gathered())
    }

    /// Whether more can be queued before anything is written.
    pub(crate) fn has_room(&self) -> bool {
        self.io.borrow().outflow.has_room()
    }

    /// Lets the caller append to the output.
    pub(crate) fn queue<T>(&self, queue: impl FnOnce(&mut Output) -> T) -> T {
        queue(self.io.borrow_mut().outflow.output())
    }

    /// Writes what is queued, and flushes it.
    pub(crate) fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write(&mut self.io.borrow_mut(), context)
    }

    fn poll_write(&self, io: &mut Io, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut io.transport {
            Some(transport) => io
                .outflow
                .poll_write(transport, &self.paces.download, context),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Sends the interim responses that wait, as far as the client takes them.
    pub(crate) fn send_interim(&self, context: &mut Context<'_>) {
        let mut io = self.io.borrow_mut();
        while self.response() == ResponseSide::Answering
            && (!io.outflow.is_flushed() || io.take_interim(&self.exchange))
        {
            match self.poll_write(&mut io, context) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return io.client = ClientSide::Broken,
            }
        }
    }

    /// Finds out whether the client is still there while a complete request is being answered. Only a pipelined
    /// request or the end can be read then.
    pub(crate) fn look_ahead(&self, context: &mut Context<'_>) {
        let exchange = self.exchange.borrow();
        let Some(exchange) = exchange.as_ref().filter(|exchange| {
            exchange.request().is_over() && exchange.response() != ResponseSide::Done
        }) else {
            return;
        };
        let mut io = self.io.borrow_mut();
        let io = &mut *io;
        let Some(transport) = &mut io.transport else {
            return;
        };
        while io.input.len() < READ_AHEAD && io.client == ClientSide::Open {
            let mut chunk = [const { MaybeUninit::uninit() }; 2048];
            let mut buffer = ReadBuf::uninit(&mut chunk);
            match Pin::new(&mut *transport).poll_read(context, &mut buffer) {
                Poll::Pending => return,
                Poll::Ready(Err(_)) => {
                    io.client = ClientSide::Broken;
                    return;
                }
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    io.client = ClientSide::Ended;
                    exchange.client_closes();
                }
                Poll::Ready(Ok(())) => io.input.bytes().extend_from_slice(buffer.filled()),
            }
        }
    }

    /// Sets the task to wake when another task reads the body.
    pub(crate) fn set_owner(&self, context: &Context<'_>) {
        self.task.borrow_mut().clone_from(context.waker());
    }

    /// Wakes the connection's task, unless it is the one that runs.
    fn wake_owner(&self, context: &Context<'_>) {
        let task = self.task.borrow();
        if !task.will_wake(context.waker()) {
            task.wake_by_ref();
        }
    }

    /// Whether this is true of the request in flight, or of the last one.
    pub(crate) fn exchange_is(&self, what: impl FnOnce(&Exchange) -> bool) -> bool {
        self.exchange.borrow().as_deref().is_some_and(what)
    }

    /// The side of the response to the request in flight, or to the last one.
    fn response(&self) -> ResponseSide {
        let exchange = self.exchange.borrow();
        exchange
            .as_ref()
            .map_or(ResponseSide::Done, |exchange| exchange.response())
    }

    /// Whether a task waits for more of the body of the request in flight.
    fn body_awaited(&self) -> bool {
        self.exchange_is(|exchange| exchange.request() == RequestSide::Awaited)
    }

    /// The deadlines in force.
    pub(crate) fn timeouts(&self) -> Ref<'_, Timeouts> {
        self.timeouts.borrow()
    }

    /// Whether the transport broke while no body was being read.
    pub(crate) fn failed(&self) -> bool {
        self.io.borrow().client == ClientSide::Broken
    }

    /// Notes the waits of the connection.
    pub(crate) fn note(&self, waits: &mut Waits) {
        let io = self.io.borrow();
        let exchange = self.exchange.borrow();
        let (request, response) = match exchange.as_deref() {
            Some(exchange) => (exchange.request(), exchange.response()),
            None => (RequestSide::Complete, ResponseSide::Done),
        };
        let answering = response != ResponseSide::Done;
        let idle = !answering && request.is_over() && io.outflow.is_flushed();
        let begun = idle && io.input.len() > 0;
        let half_closed = answering && io.client == ClientSide::Ended;
        waits.header.note(begun.then_some(io.requests));
        waits.quiet.note((idle && !begun).then_some(io.requests));
        let awaited = request == RequestSide::Awaited;
        waits.body.note(awaited.then_some(io.received));
        waits.write.note(io.outflow.awaited());
        let taken = io.outflow.taken();
        waits.half_closed.note(half_closed.then_some(taken));
    }
}

impl Inlet for ClientSocket {
    fn poll_frame(&self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut io = self.io.borrow_mut();
        let io = &mut *io;
        if self.response() == ResponseSide::Answering {
            if std::mem::take(&mut io.expects_continue) {
                let output = io.outflow.output();
                output.gathered().extend_from_slice(CONTINUE);
            }
            if !io.outflow.is_flushed()
                && let Poll::Ready(Err(error)) = self.poll_write(io, context)
            {
                return Poll::Ready(Some(Err(error)));
            }
        }
        // The connection's task has to know that a wait has begun, or begun anew.
        let mut news = !self.body_awaited();
        loop {
            let frame = match io.decoder.next(io.input.bytes()) {
                Ok(NextPart::Starved) => None,
                Ok(NextPart::Data(data)) => Some(Frame::data(data)),
                Ok(NextPart::Trailers(trailers)) => Some(Frame::trailers(trailers)),
                Ok(NextPart::End) => {
                    self.wake_owner(context);
                    return Poll::Ready(None);
                }
                Err(malformed) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, malformed);
                    return Poll::Ready(Some(Err(error)));
                }
            };
            if frame.is_some() {
                if io.decoder == Decoder::Over {
                    self.wake_owner(context);
                }
                return Poll::Ready(frame.map(Ok));
            }
            if io.client == ClientSide::Ended {
                return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
            }
            let rest = io.decoder.expected();
            match io.poll_fill(rest, self.paces.upload.ahead(), context) {
                Poll::Ready(Ok(0)) => io.client = ClientSide::Ended,
                Poll::Ready(Ok(_)) => {
                    news = true;
                    io.received += 1;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                Poll::Pending => {
                    if news {
                        self.wake_owner(context);
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.io.borrow().decoder == Decoder::Over
    }

    fn expected(&self) -> Option<u64> {
        self.io.borrow().decoder.expected()
    }
}

impl Io {
    /// Queues the interim responses that wait; whether there were any.
    fn take_interim(&mut self, exchange: &RefCell<Option<Rc<Exchange>>>) -> bool {
        let exchange = exchange.borrow();
        let Some(exchange) = &*exchange else {
            return false;
        };
        let mut any = false;
        while let Some(interim) = exchange.next_interim() {
            write_interim(&interim, self.outflow.output().gathered());
            any = true;
        }
        any
    }

    /// Finds out whether a client that has closed its sending side has left altogether, so that its pipelined
    /// requests need no response. Only reading shows that it didn't take the last response.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        let mut byte = [0];
        let Some(transport) = &mut self.transport else {
            return Poll::Ready(Err(Lost::Broken));
        };
        let read = Pin::new(transport).poll_read(context, &mut ReadBuf::new(&mut byte));
        read.map_err(|_| Lost::Broken)
    }

    /// Reads what is there; 0 at the end.
    fn poll_fill(
        &mut self,
        rest: Option<u64>,
        ahead: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Some(transport) => self.input.poll_fill(transport, context, rest, ahead),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_goes_to_sleep_leaves_its_buffer_behind() {
        let minute = Duration::from_mins(1);
        let timeouts = Timeouts {
            header: minute,
            idle: minute,
            body_stall: minute,
            write_stall: minute,
            tunnel_idle: minute,
            tls_handshake: minute,
        };
        let limits = HeadLimits {
            bytes: 1000,
            fields: 100,
        };
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let client = ClientSocket::new(Transport::Unix(ours), Bytes::new(), timeouts);
        let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        theirs.write_all(request).await.unwrap();
        let head = poll_fn(|context| client.poll_head(limits, context)).await;
        drop(head);
        let (_, unread) = client.take_apart().unwrap();
        // A part of a buffer, even an empty one, keeps the whole buffer alive.
        assert!(unread.is_empty() && !unread.is_unique());
    }
}
