//! One request and its response, as the connection, the service and the forwarder share it.
//!
//! An [`Exchange`] has two sides, each in one state. Each moves by itself: a response may be over before its request.
//!
//! ```text
//! RequestSide                                    ResponseSide
//!
//!            more is asked for                   Answering ───────────────────────┐
//!            ────────────────▶                       │ the head is on its way     │ the backend's response
//!  Arriving  a frame was taken  Awaited              ▼                            ▼ is an event stream
//!     │      ◀────────────────     │             Responding                   Streaming
//!     ├───────────────┬────────────┘                 │                            │
//!     │ read to       │ the body is                  │ the body is handed out,    │
//!     ▼ its end       ▼ dropped                      ▼ or dropped                 │
//!  Complete          Cut                            Done ◀────────────────────────┘
//!     │ the client closes
//!     ▼ its side
//!  Closed
//! ```
//!
//! | state | what follows from it |
//! |---|---|
//! | awaited | the deadline for more of the body runs: the client is the one that doesn't go on |
//! | complete, closed, cut | the client's socket is read ahead, to see whether the client leaves |
//! | complete, closed | another request may follow on a connection of HTTP/1.1 |
//! | closed | the backend is told; if it gives up then, there is no response ([`Unanswered`]) |
//! | answering | interim responses are passed on; a stream of HTTP/2 that ends now was abandoned |
//! | streaming | a stop cuts the response early |
//!
//! Keeps true: an [`Exchange`] belongs to one request; neither of its sides ever goes back, except from
//! [`RequestSide::Awaited`] to [`RequestSide::Arriving`].
//! Must not know: timers, or how the service decides.

pub(crate) mod pace;
pub(crate) mod raw_fields;
pub(crate) mod request_body;
pub(crate) mod respond;
pub mod response_body;
pub(crate) mod rewrite;
pub mod tunnel;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use http::{Request, Response, StatusCode, response};
use rustls::ServerConfig;

use crate::config::model::{ServerLimits, Timeouts};
use pace::Paces;
use raw_fields::RawFieldLines;
use response_body::{RequestBody, ResponseBody};

/// The most interim responses of one request that reach the client. A backend that works for hours and says so every
/// minute stays below.
const MOST_INTERIM: u32 = 1000;

/// The most bytes of interim responses that wait for a client that takes none.
const INTERIM_BYTES: usize = 32 * 1024;

/// The facts of a client connection that are known before its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Unique within this process.
    pub number: u64,
    /// The peer's address, or the one that a PROXY header names in its place; `None` on a unix socket.
    pub peer: Option<SocketAddr>,
    /// There is a PROXY header that names no client: the peer's address may not be the client's.
    pub nameless: bool,
    /// Position of the listener in `server.listen`.
    pub listener: usize,
    /// Whether it uses TLS.
    pub tls: bool,
}

/// The beginning that a connection must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// With the client's own bytes.
    Off,
    /// With a PROXY header.
    Expected,
    /// With a PROXY header, which isn't believed from this peer: the connection is refused.
    Untrusted,
}

/// The service as a connection sees it: the settings in force, and a response to each request.
pub trait PublicService: 'static {
    /// The deadlines in force, read at each request, so that a reload reaches open connections.
    fn timeouts(&self) -> Timeouts;

    /// The limits in force, read each time a connection wakes.
    fn limits(&self) -> ServerLimits;

    /// The TLS configuration of the listener at this position, if it has one; read for each new connection.
    fn tls(&self, listener: usize) -> Option<Arc<ServerConfig>>;

    /// Whether clients may speak HTTP/2 without TLS; read for each new connection.
    fn h2c(&self) -> bool;

    /// Whether a connection from this peer begins with a PROXY header; asked for each new connection.
    fn proxy_protocol(&self, peer: Option<IpAddr>) -> ProxyProtocol;

    /// A connection from this peer is refused because of what [`PublicService::proxy_protocol`] asks of it.
    fn proxy_header_refused(&self, peer: Option<IpAddr>, asked: ProxyProtocol);

    /// The response to bytes that were refused with this status before they became a request.
    fn refuse(&self, status: StatusCode) -> Response<ResponseBody>;

    /// Answers one request, or says that the client gets no response. The future is dropped when the client has left.
    ///
    /// Request and response are boxed, since every future between here and the socket would hold them twice and be moved
    /// with them.
    fn answer(
        self: Rc<Self>,
        connection: Connection,
        request: Box<Request<RequestBody>>,
    ) -> impl Future<Output = Result<Box<Response<ResponseBody>>, Unanswered>> + 'static;
}

/// There is no response: the client has closed its sending side, and the backend gave up for that reason. The request
/// ends as without renewd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered;

/// A response that comes before the final one (RFC 9110 §15.2).
#[derive(Debug)]
pub(crate) struct InterimResponse {
    pub parts: response::Parts,
    /// The fields, where they are not in `parts`.
    pub raw_fields: Option<RawFieldLines>,
}

/// The interim responses that wait for the client, and their bytes.
#[derive(Debug, Default)]
struct InterimQueue {
    waiting: VecDeque<InterimResponse>,
    bytes: usize,
    /// How many have come, those that were sent included.
    passed: u32,
}

impl InterimResponse {
    /// 100 (Continue): the client may send the request's body.
    fn go_on() -> Self {
        let (mut parts, ()) = Response::new(()).into_parts();
        parts.status = StatusCode::CONTINUE;
        Self {
            parts,
            raw_fields: None,
        }
    }

    /// About as many bytes as it takes.
    fn bytes(&self) -> usize {
        let raw = self
            .raw_fields
            .as_ref()
            .map_or(0, |raw| raw.as_bytes().len());
        let fields = self.parts.headers.iter();
        let mapped = fields.map(|(name, value)| name.as_str().len() + value.len());
        raw + mapped.sum::<usize>() + 32
    }
}

/// The state of the request, as far as its body is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RequestSide {
    /// The body isn't over, and no task waits for it: the backend is the one that doesn't go on.
    #[default]
    Arriving,
    /// A task waits for more of the body: the client is the one that doesn't go on.
    Awaited,
    /// The body was read to its end, so that another request can follow.
    Complete,
    /// The same, and the client has closed its sending side since.
    ///
    /// The client may have left, or wait for the response. That can't be told apart, so renewd closes the backend's
    /// connection in the same way.
    Closed,
    /// The body was given up. The rest could be mistaken for the next request.
    Cut,
}

impl RequestSide {
    /// Whether nothing more of the body will be read.
    pub(crate) fn is_over(self) -> bool {
        match self {
            Self::Arriving | Self::Awaited => false,
            Self::Complete | Self::Closed | Self::Cut => true,
        }
    }

    /// Whether another request can follow.
    pub(crate) fn is_complete(self) -> bool {
        matches!(self, Self::Complete | Self::Closed)
    }
}

/// The state of the response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ResponseSide {
    /// No response has begun. Interim ones may come.
    #[default]
    Answering,
    /// The response is on its way to the client.
    Responding,
    /// The backend's response is `text/event-stream`: endless, so that a stop cuts it early.
    Streaming,
    /// The body was handed out to its end, or given up.
    Done,
}

/// How far one request and its response have come.
#[derive(Debug, Default)]
pub struct Exchange {
    request: Cell<RequestSide>,
    request_frames: Cell<u64>,
    response: Cell<ResponseSide>,
    client_waker: RefCell<Option<Waker>>,
    interim: RefCell<InterimQueue>,
    paces: Rc<Paces>,
}

impl Exchange {
    /// An exchange on a connection with these paces.
    pub(crate) fn at(paces: Rc<Paces>) -> Self {
        Self {
            paces,
            ..Self::default()
        }
    }

    /// How fast its bodies are taken.
    pub(crate) fn paces(&self) -> &Paces {
        &self.paces
    }

    /// What the request's side is doing.
    pub(crate) fn request(&self) -> RequestSide {
        self.request.get()
    }

    /// The number of frames that were taken of the request's body, its end among them.
    pub(crate) fn request_frames(&self) -> u64 {
        self.request_frames.get()
    }

    /// A number that grows with each frame of the request's body and each interim response.
    pub(crate) fn progress(&self) -> u64 {
        self.request_frames.get() + u64::from(self.interim.borrow().passed)
    }

    /// Wakes the task when the client closes its sending side.
    pub(crate) fn wake_on_client_closed(&self, context: &Context<'_>) {
        match &mut *self.client_waker.borrow_mut() {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }

    /// What the response's side is doing.
    pub(crate) fn response(&self) -> ResponseSide {
        self.response.get()
    }

    /// Whether the response is an event stream, and not over.
    pub(crate) fn is_streaming(&self) -> bool {
        self.response.get() == ResponseSide::Streaming
    }

    /// Notes that the backend's response is an event stream.
    pub(crate) fn response_streams(&self) {
        if self.response.get() != ResponseSide::Done {
            self.response.set(ResponseSide::Streaming);
        }
    }

    /// Notes that the response's head is on its way to the client.
    pub(crate) fn response_begins(&self) {
        if self.response.get() == ResponseSide::Answering {
            self.response.set(ResponseSide::Responding);
        }
    }

    /// Notes that the response's body was handed out to its end, or given up.
    fn response_ends(&self) {
        self.response.set(ResponseSide::Done);
    }

    /// Notes that the client has closed its sending side. Behind a request that isn't complete this says nothing.
    pub(crate) fn client_closes(&self) {
        if self.request.get() != RequestSide::Complete {
            return;
        }
        self.request.set(RequestSide::Closed);
        // Taken out first: waking may run code that registers again.
        let waker = self.client_waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Queues an interim response for the client. One that is beyond the bounds is dropped.
    pub(crate) fn pass_interim(&self, response: InterimResponse) {
        let mut queue = self.interim.borrow_mut();
        let bytes = queue.bytes + response.bytes();
        if queue.passed == MOST_INTERIM || bytes > INTERIM_BYTES {
            return;
        }
        queue.bytes = bytes;
        queue.passed += 1;
        queue.waiting.push_back(response);
    }

    /// The next interim response that waits.
    pub(crate) fn next_interim(&self) -> Option<InterimResponse> {
        let mut queue = self.interim.borrow_mut();
        let next = queue.waiting.pop_front()?;
        queue.bytes -= next.bytes();
        Some(next)
    }

    /// Notes that a task waits for more of the request's body.
    fn request_awaited(&self) {
        self.leave_open(RequestSide::Awaited);
    }

    /// Notes that a frame of the request's body was taken.
    fn request_moved(&self) {
        self.leave_open(RequestSide::Arriving);
        self.request_frames.set(self.request_frames.get() + 1);
    }

    /// Notes that the request's body was read to its end.
    fn request_ended(&self) {
        self.request_moved();
        self.leave_open(RequestSide::Complete);
    }

    /// Notes that the request's body is dropped. Unless it was over before, its rest will not be read.
    fn request_dropped(&self) {
        self.leave_open(RequestSide::Cut);
    }

    /// Enters a state, unless the body is over.
    fn leave_open(&self, next: RequestSide) {
        if !self.request.get().is_over() {
            self.request.set(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_a_body_is_done_before_anybody_asks() {
        let exchange = Rc::new(Exchange::default());
        let body = RequestBody::empty(exchange.clone());
        assert_eq!(exchange.request(), RequestSide::Complete);
        drop(body);
        assert_eq!(exchange.response(), ResponseSide::Answering);
    }
}
