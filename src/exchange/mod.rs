//! One request and its response, as the connection, the service and the forwarder share it.
//!
//! Keeps true: an [`Exchange`] belongs to one request; its flags go from false to true once and never back, except for
//! `request_awaited`.
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
    /// The request is boxed, since every future between here and the socket would hold it twice and be moved with it.
    fn answer(
        self: Rc<Self>,
        connection: Connection,
        request: Box<Request<RequestBody>>,
    ) -> impl Future<Output = Result<Response<ResponseBody>, Unanswered>> + 'static;
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
}

impl InterimResponse {
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

/// How far one request and its response have come.
#[derive(Debug, Default)]
pub struct Exchange {
    request_done: Cell<bool>,
    request_cut: Cell<bool>,
    request_frames: Cell<u64>,
    request_awaited: Cell<bool>,
    response_done: Cell<bool>,
    event_stream: Cell<bool>,
    client_closed: Cell<bool>,
    client_waker: RefCell<Option<Waker>>,
    interim: RefCell<InterimQueue>,
    interims: Cell<u32>,
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

    /// Whether the request's body was read to its end, or given up.
    pub(crate) fn request_done(&self) -> bool {
        self.request_done.get()
    }

    /// Whether the request's body was read to its end, so that another request can follow.
    pub(crate) fn request_complete(&self) -> bool {
        self.request_done.get() && !self.request_cut.get()
    }

    /// The number of frames that were taken of the request's body, a sign of progress.
    pub(crate) fn request_frames(&self) -> u64 {
        self.request_frames.get()
    }

    /// Whether a task waits for more of the request's body, so that the client is the one that doesn't go on.
    pub(crate) fn request_awaited(&self) -> bool {
        self.request_awaited.get()
    }

    /// Whether the client has closed its sending side behind a complete request.
    ///
    /// The client may have left, or wait for the response. That can't be told apart, so renewd closes the backend's
    /// connection in the same way.
    pub(crate) fn client_closed(&self) -> bool {
        self.client_closed.get()
    }

    /// Wakes the task when the client closes its sending side.
    pub(crate) fn wake_on_client_closed(&self, context: &Context<'_>) {
        match &mut *self.client_waker.borrow_mut() {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }

    /// Whether the response's body was handed out to its end, or given up.
    pub(crate) fn response_done(&self) -> bool {
        self.response_done.get()
    }

    /// Whether the response is `text/event-stream`: endless, so that a stop cuts it early.
    pub(crate) fn event_stream(&self) -> bool {
        self.event_stream.get()
    }

    /// Sets [`Exchange::event_stream`].
    pub(crate) fn mark_event_stream(&self) {
        self.event_stream.set(true);
    }

    /// Sets [`Exchange::client_closed`].
    pub(crate) fn mark_client_closed(&self) {
        self.client_closed.set(true);
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
        if self.interims.get() == MOST_INTERIM || bytes > INTERIM_BYTES {
            return;
        }
        queue.bytes = bytes;
        queue.waiting.push_back(response);
        self.interims.set(self.interims.get() + 1);
    }

    /// How many interim responses have come for the client, a sign of progress.
    pub(crate) fn interims(&self) -> u32 {
        self.interims.get()
    }

    /// The next interim response that waits.
    pub(crate) fn next_interim(&self) -> Option<InterimResponse> {
        let mut queue = self.interim.borrow_mut();
        let next = queue.waiting.pop_front()?;
        queue.bytes -= next.bytes();
        Some(next)
    }

    pub(crate) fn mark_request_awaited(&self, awaited: bool) {
        self.request_awaited.set(awaited);
    }

    pub(crate) fn mark_request_frame(&self) {
        self.request_frames.set(self.request_frames.get() + 1);
    }

    pub(crate) fn mark_request_done(&self) {
        self.request_done.set(true);
    }

    /// Notes that the body is dropped. Unless it was done before, its rest will not be read.
    pub(crate) fn mark_request_dropped(&self) {
        if !self.request_done.get() {
            self.request_cut.set(true);
            self.mark_request_done();
        }
    }

    pub(crate) fn mark_response_done(&self) {
        self.response_done.set(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_a_body_is_done_before_anybody_asks() {
        let exchange = Rc::new(Exchange::default());
        let body = RequestBody::empty(exchange.clone());
        assert!(exchange.request_done());
        drop(body);
        assert!(!exchange.response_done());
    }
}
