//! The requests of an HTTP/1.1 connection that is awake, one after the other.
//!
//! Keeps true: each request has its own [`Exchange`]; a response that leaves input unread announces the close; every
//! deadline and the last stages of a stop take effect in every state; a connection that is asked to make room ends
//! unless it has a request.
//! Must not know: how a request is answered; when a connection wakes, how it sleeps or closes.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body as _;

use super::body_writer::BodyWriter;
use super::socket::{ClientSocket, Lost};
use crate::exchange::response_body::{BackendTunnel, RequestBody, ResponseBody};
use crate::exchange::{Connection, Exchange, PublicService};
use crate::http1::parse_request::{HeadLimits, RequestHead, RequestParseError};
use crate::http1::write_response::ResponseHeadTerms;
use crate::io::deadline::Deadline;
use crate::io::transport::Transport;
use crate::server::permits::Permit;
use crate::server::response::withhold;
use crate::server::stall::{Cause, QUIET, Waits};
use crate::server::stop::{Stage, Stop};
use crate::terms::clock::{Turn, timer_now};

/// Why a connection is no longer awake.
pub(crate) enum AwakeEnd {
    /// There was no request for a while.
    Quiet,
    /// The connection makes room for another.
    MadeRoom,
    /// A 101 was sent.
    Tunnel(BackendTunnel),
    /// The connection ended in order; `linger` where the client may still be sending.
    Closed { linger: bool },
    /// The client sent bytes that are no request; see [`Lost::Refused`].
    Refused {
        refusal: RequestParseError,
        by_head: bool,
    },
    /// A deadline passed.
    TimedOut(Cause),
    /// The transport or the backend broke, or a stop cuts.
    Broken,
}

/// A connection that is awake.
pub(crate) struct Awake {
    client: Rc<ClientSocket>,
    requests: Pin<Box<dyn Future<Output = AwakeEnd>>>,
    waits: Waits,
    /// Requests that the permit was told of.
    told: u64,
    /// The permit counts the connection as busy.
    busy: bool,
}

impl Awake {
    /// Wakes a connection; `ahead` was read already.
    pub(crate) fn new<S: PublicService>(
        transport: Transport,
        ahead: Bytes,
        connection: Connection,
        service: &Rc<S>,
        stop: &Rc<Stop>,
    ) -> Self {
        let client = Rc::new(ClientSocket::new(transport, ahead, service.timeouts()));
        let requests = answer_all(client.clone(), connection, service.clone(), stop.clone());
        Self {
            client,
            requests: Box::pin(requests),
            waits: Waits::default(),
            told: 0,
            busy: false,
        }
    }

    /// Goes on until the connection is awake no longer.
    pub(crate) fn poll(
        &mut self,
        deadline: &mut Deadline,
        stage: Stage,
        permit: &Permit,
        context: &mut Context<'_>,
    ) -> Poll<AwakeEnd> {
        // The next response, which says `Connection: close`, or sleep does the rest of a stop: a client that wasn't
        // told may send a request at any time.
        if self.must_be_cut(stage) {
            return Poll::Ready(AwakeEnd::Broken);
        }
        let _turn = Turn::begin();
        self.client.set_owner(context);
        let poll = self.requests.as_mut().poll(context);
        self.tell_of_requests(permit);
        // Even a request that gets no response may have interim ones.
        self.client.send_interim(context);
        if let Poll::Ready(end) = poll {
            return Poll::Ready(end);
        }
        self.client.look_ahead(context);
        if self.client.failed() {
            return Poll::Ready(AwakeEnd::Broken);
        }
        self.client.note(&mut self.waits);
        if self.busy && self.waits.header.began().is_some() {
            self.busy = false;
            permit.quiet(timer_now());
        }
        if !self.busy && permit.must_leave() {
            return Poll::Ready(AwakeEnd::MadeRoom);
        }
        let timeouts = self.client.timeouts();
        let patience = QUIET.min(timeouts.idle);
        let Some((due, cause)) = self.waits.next(&timeouts, patience) else {
            return Poll::Pending;
        };
        deadline.poll_until(due, context).map(|()| match cause {
            Cause::Quiet => AwakeEnd::Quiet,
            cause => AwakeEnd::TimedOut(cause),
        })
    }

    /// A request makes a connection busy. Bytes of the next request's head don't.
    fn tell_of_requests(&mut self, permit: &Permit) {
        let requests = self.client.requests();
        if requests != self.told && !self.busy {
            self.busy = true;
            permit.busy();
        }
        self.told = requests;
    }

    /// Whether a request was understood.
    pub(crate) fn has_had_a_request(&self) -> bool {
        self.client.requests() > 0
    }

    /// The socket, and the bytes that were read and not parsed. A request that is being answered is dropped.
    pub(crate) fn take_apart(self) -> Option<(Transport, Bytes)> {
        drop(self.requests);
        self.client.take_apart()
    }

    /// Whether a stop ends the connection now: at the last stage each, and those with an event stream before.
    fn must_be_cut(&self, stage: Stage) -> bool {
        stage == Stage::Aborting
            || stage == Stage::EndingTunnels && self.client.exchange_is(Exchange::is_streaming)
    }
}

async fn answer_all<S: PublicService>(
    client: Rc<ClientSocket>,
    connection: Connection,
    service: Rc<S>,
    stop: Rc<Stop>,
) -> AwakeEnd {
    let limits = service.limits();
    let limits = HeadLimits {
        bytes: limits.header_bytes,
        fields: limits.header_fields,
    };
    loop {
        // The head and the response are not kept while something is waited for: this future is as large as what lives
        // across its waits, and there is one for each connection that is awake.
        let head = poll_fn(|context| client.poll_head(limits, context));
        let (request, asked, exchange) = match next_request(head.await, &client, &*service) {
            Ok(next) => next,
            Err(end) => return end,
        };
        let answering = service.clone().answer(connection, request);
        let sending = answering
            .await
            .map(|response| SendingResponse::begin(&client, response, asked, exchange, &stop));
        let Ok(mut sending) = sending else {
            return AwakeEnd::Closed { linger: false };
        };
        let sent = poll_fn(|context| sending.body.poll(&client, context)).await;
        if let Some(end) = sending.end(sent) {
            return end;
        }
    }
}

/// Begins the exchange of the next request.
#[allow(clippy::type_complexity)] // taken apart at once
fn next_request<S: PublicService>(
    head: Result<Option<RequestHead>, Lost>,
    client: &Rc<ClientSocket>,
    service: &S,
) -> Result<(Box<Request<RequestBody>>, ResponseTerms, Rc<Exchange>), AwakeEnd> {
    let head = match head {
        Ok(Some(head)) => head,
        Ok(None) => return Err(AwakeEnd::Closed { linger: false }),
        Err(Lost::Refused { refusal, by_head }) => {
            return Err(AwakeEnd::Refused { refusal, by_head });
        }
        Err(Lost::Broken) => return Err(AwakeEnd::Broken),
    };
    let exchange = Rc::new(Exchange::at(client.paces().clone()));
    client.begin(exchange.clone(), service.timeouts());
    let (request, asked) = asked(head, client, &exchange);
    Ok((request, asked, exchange))
}

/// The parts of a request that its response depends on.
#[derive(Clone, Copy)]
struct ResponseTerms {
    terms: ResponseHeadTerms,
    takes_trailers: bool,
}

fn asked(
    head: RequestHead,
    client: &Rc<ClientSocket>,
    exchange: &Rc<Exchange>,
) -> (Box<Request<RequestBody>>, ResponseTerms) {
    let asked = ResponseTerms {
        terms: ResponseHeadTerms {
            version: head.parts.version,
            to_head_request: head.parts.method == Method::HEAD,
            length: None,
            keep_alive: head.keep_alive,
        },
        takes_trailers: head.takes_trailers,
    };
    let body = RequestBody::http1(client.clone(), exchange.clone(), head.fields);
    let request = Box::new(Request::from_parts(head.parts, body));
    (request, asked)
}

/// A response that is being sent.
struct SendingResponse {
    body: BodyWriter,
    tunnel: Option<BackendTunnel>,
    keep_alive: bool,
    /// The response began before the request's end.
    early: bool,
}

impl SendingResponse {
    /// Queues the head.
    fn begin(
        client: &ClientSocket,
        mut response: Box<Response<ResponseBody>>,
        asked: ResponseTerms,
        exchange: Rc<Exchange>,
        stop: &Stop,
    ) -> Self {
        let tunnel = response.body_mut().take_upgrade();
        // The rest of an unfinished request could be mistaken for the next request.
        let early = !exchange.request().is_complete();
        let mut terms = asked.terms;
        if tunnel.is_none() {
            withhold(&mut response, terms.to_head_request);
            terms.keep_alive &= stop.stage() == Stage::Serving && !early;
        }
        let (head, mut body) = response.into_parts();
        body.on_exchange(exchange);
        terms.length = body.size_hint().exact();
        let raw_fields = body.raw_fields_mut().take();
        let announced = client.write_head(&head, raw_fields.as_ref(), terms);
        Self {
            body: BodyWriter {
                body: Some(body),
                encoder: announced.encoder,
                takes_trailers: asked.takes_trailers,
            },
            tunnel,
            keep_alive: announced.keep_alive,
            early,
        }
    }

    /// What becomes of the connection. `None` where another request may follow.
    fn end(self, sent: io::Result<()>) -> Option<AwakeEnd> {
        if let Err(error) = sent {
            tracing::debug!(%error, "a response broke off");
            return Some(AwakeEnd::Broken);
        }
        match self.tunnel {
            Some(tunnel) => Some(AwakeEnd::Tunnel(tunnel)),
            None if self.keep_alive => None,
            None => Some(AwakeEnd::Closed { linger: self.early }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::service::WorkerService;

    /// The size of the future that a function makes.
    fn size<A, F>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_future_of_an_awake_connection_stays_small() {
        let future = size(|(client, connection, service, stop)| {
            answer_all::<WorkerService>(client, connection, service, stop)
        });
        // There is one for each connection that is awake, and each request touches it.
        assert!(future <= 2048, "{future}");
    }
}
