//! hyper's service on a client connection: hands requests on, and makes responses fit for the wire.
//!
//! Keeps true: each request has its own [`Exchange`]; a response that leaves input unread announces the close.
//! Must not know: how a request is answered, when the connection wakes or sleeps.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;

use super::stall::Watch;
use super::stop::{Stage, Stop};
use crate::config::model::Timeouts;
use crate::http::body::{Body, Finish, RequestBody};
use crate::http::exchange::{Answer, Connection, Exchange};
use crate::transport::Upgraded;

/// The backend's half of a tunnel, and the hook for its end.
pub(super) type Tunnel = (Box<Upgraded>, Option<Finish>);

/// What hyper's service and the connection around it share.
pub(super) struct Session {
    /// What its IO noted.
    pub(super) watch: Rc<Watch>,
    /// The deadlines in force.
    pub(super) timeouts: RefCell<Timeouts>,
    /// A response was begun before its request had been read to its end.
    pub(super) answered_early: Cell<bool>,
    /// Where the last response, a 101, leads.
    pub(super) tunnel: RefCell<Option<Tunnel>>,
}

impl Session {
    /// Before the first request.
    pub(super) fn new(timeouts: Timeouts) -> Rc<Self> {
        Rc::new(Self {
            watch: Rc::new(Watch::keeping_refusals()),
            timeouts: RefCell::new(timeouts),
            answered_early: Cell::new(false),
            tunnel: RefCell::new(None),
        })
    }
}

/// hyper's service: hands each request to ours and makes its response fit for the wire.
pub(super) struct Call<S> {
    pub(super) service: Rc<S>,
    pub(super) connection: Connection,
    pub(super) session: Rc<Session>,
    pub(super) stop: Rc<Stop>,
}

impl<S: Answer> hyper::service::Service<Request<Incoming>> for Call<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    // Boxed because hyper wants to move it.
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let session = self.session.clone();
        let exchange = Rc::new(Exchange::at(session.watch.paces().clone()));
        session.timeouts.replace(self.service.timeouts());
        let head = request.method() == Method::HEAD;
        let request =
            Box::new(request.map(|incoming| RequestBody::incoming(incoming, exchange.clone())));
        session.watch.begin(exchange.clone());
        let (service, connection) = (self.service.clone(), self.connection);
        let stop = self.stop.clone();
        Box::pin(async move {
            // Made in here: a future that is captured and then awaited is kept twice.
            let mut response = service.answer(connection, request).await;
            if let Some(tunnel) = response.body_mut().take_upgrade() {
                session.tunnel.replace(Some(tunnel));
            } else {
                let last = stop.stage() != Stage::Serving || !exchange.request_complete();
                finish_head(&mut response, head, last, &exchange);
                session.answered_early.set(!exchange.request_complete());
            }
            *response.version_mut() = Version::HTTP_11;
            response.body_mut().on_exchange(exchange);
            Ok(response)
        })
    }
}

/// What the connection knows of a response and the service can't: whether it has a body on the wire, and whether it is
/// the `last` one, because we stop, or because it comes before the request's end: what is still to come can't be told
/// from the next request for long.
fn finish_head(response: &mut Response<Body>, head: bool, last: bool, exchange: &Exchange) {
    withhold(response, head);
    if last {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    mark_event_stream(response, exchange);
}

/// Takes the body of a response that has none on the wire; HEAD still tells its length.
pub(super) fn withhold(response: &mut Response<Body>, head: bool) {
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
}

/// Tells a stop that this response won't end by itself.
pub(super) fn mark_event_stream(response: &Response<Body>, exchange: &Exchange) {
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
