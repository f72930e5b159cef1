//! One client connection from its first byte to its last: HTTP/1.1, sleep between requests, tunnel after an upgrade.
//!
//! Keeps true: a sleeping connection is a socket and a timer, without buffers. No byte that was read is lost when it
//! falls asleep or wakes. Every deadline and every stage of a stop takes effect in each state. Only a request
//! restarts the time between requests, and keeps a connection from making room for another: neither an empty line nor
//! half a head does.
//! Must not know: what a request means.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::refusal;
use super::requests::{Awake, AwakeEnd};
use crate::config::model::Timeouts;
use crate::exchange::response_body::BackendTunnel;
use crate::exchange::tunnel;
use crate::exchange::{Connection, ProxyProtocol, PublicService};
use crate::io::deadline::Deadline;
use crate::io::transport::{Transport, Upgraded};
use crate::server::h2::connection as http2;
use crate::server::linger::{close, linger_then_close};
use crate::server::open;
use crate::server::open::{NEW_CONNECTION_DRAIN_GRACE, Opened};
use crate::server::permits::Permit;
use crate::server::proxy_header;
use crate::server::stall::QUIET;
use crate::server::stop::{Stage, Stop};
use crate::server::{Event, ServerObserver};
use crate::telemetry::traffic_labels::ParseErrorKind;
use crate::terms::clock::timer_now;

/// Serves one connection to its end, then drops `open`. The future must be a task of its own.
///
/// An `async fn` would keep its arguments twice (<https://github.com/rust-lang/rust/issues/62958>), and there is one
/// such future for every idle connection.
#[allow(clippy::manual_async_fn)] // smaller by a third
pub(crate) fn serve<S: PublicService>(
    transport: Transport,
    mut connection: Connection,
    service: Rc<S>,
    stop: Rc<Stop>,
    observer: Arc<dyn ServerObserver>,
    open: impl AsRef<Permit>,
) -> impl Future<Output = ()> {
    async move {
        let permit = open.as_ref();
        permit.register().await;
        let listener = connection.listener;
        let tell = |event| observer.observe(listener, event);
        let _registration = stop.register().await;
        let opened = match opening(transport, &mut connection, &*service, &stop, permit) {
            Opening::Reads(reading) => reading.await,
            Opening::Done(opened) => Ok(opened),
        };
        let opened = match opened {
            Ok(opened) if opened.http2 => {
                let observer = observer.clone();
                let serving = http2::serve(opened, connection, service, &stop, permit, observer);
                return Box::pin(serving).await;
            }
            Ok(opened) => opened,
            Err(event) => return event.into_iter().for_each(tell),
        };
        let (mut transport, mut ahead) = (opened.transport, opened.ahead);
        let mut deadline = Deadline::default();
        let mut asleep = Asleep::fresh(timer_now());
        loop {
            if ahead.is_empty() {
                let limit = asleep.limit(&service.timeouts());
                let waking = asleep.wake(&mut transport, &mut deadline, limit, &stop, permit);
                let Some(read) = waking.await else {
                    break;
                };
                ahead = read;
            }
            permit.spoke();
            let mut awake = Box::new(Awake::new(transport, ahead, connection, &service, &stop));
            let end = poll_fn(|context| awake.poll(&mut deadline, stop.stage(), permit, context));
            let end = end.await;
            if let AwakeEnd::TimedOut(cause) = &end {
                // Reported before the exchange is dropped, and with it the backend's connection.
                tell(Event::TimedOut(*cause));
            }
            let answered = awake.has_had_a_request();
            let Some((socket, unread)) = awake.take_apart() else {
                return;
            };
            transport = socket;
            let AwakeEnd::Quiet = end else {
                part(end, transport, unread, service, &stop, &tell).await;
                return;
            };
            tell(Event::Slept);
            ahead = unread;
            let now = timer_now();
            if answered {
                asleep = Asleep::between_requests(now);
                permit.quiet(now);
            } else if now >= asleep.since + asleep.limit(&service.timeouts()) {
                break;
            }
        }
        Box::pin(close_asleep(transport, stop.stage())).await;
    }
}

/// How a connection finds out its protocol.
enum Opening<'a> {
    /// From the client's bytes. Boxed, since the future is large and most connections are asleep.
    Reads(Pin<Box<dyn Future<Output = Result<Opened, Option<Event>>> + 'a>>),
    /// Without them.
    Done(Opened),
}

fn opening<'a, S: PublicService>(
    transport: Transport,
    connection: &'a mut Connection,
    service: &'a S,
    stop: &'a Stop,
    permit: &'a Permit,
) -> Opening<'a> {
    match service.proxy_protocol(connection.peer.map(|peer| peer.ip())) {
        ProxyProtocol::Off => protocol(transport, connection, service, stop, permit),
        asked => Opening::Reads(Box::pin(behind_proxy(
            transport, asked, connection, service, stop, permit,
        ))),
    }
}

/// Reads the PROXY header, then what follows.
async fn behind_proxy<S: PublicService>(
    mut transport: Transport,
    asked: ProxyProtocol,
    connection: &mut Connection,
    service: &S,
    stop: &Stop,
    permit: &Permit,
) -> Result<Opened, Option<Event>> {
    let limit = service.timeouts().header;
    let client = if asked == ProxyProtocol::Untrusted {
        Err(Some(Event::ParseFailed(ParseErrorKind::ProxyUntrusted)))
    } else {
        proxy_header::read(&mut transport, limit, stop, permit).await
    };
    let peer = connection.peer.map(|peer| peer.ip());
    match client {
        Ok(None) => connection.nameless = true,
        Ok(Some(client)) => {
            connection.peer = Some(client);
            permit.is_of(client.ip());
        }
        Err(event) => {
            if let Some(Event::ParseFailed(_)) = event {
                service.proxy_header_refused(peer, asked);
            }
            return Err(event);
        }
    }
    match protocol(transport, connection, service, stop, permit) {
        Opening::Reads(reading) => reading.await,
        Opening::Done(opened) => Ok(opened),
    }
}

fn protocol<'a, S: PublicService>(
    transport: Transport,
    connection: &mut Connection,
    service: &S,
    stop: &'a Stop,
    permit: &'a Permit,
) -> Opening<'a> {
    match service.tls(connection.listener) {
        Some(config) => {
            connection.tls = true;
            let limit = service.timeouts().tls_handshake;
            Opening::Reads(Box::pin(open::handshake(
                transport, config, limit, stop, permit,
            )))
        }
        None if service.h2c() => {
            let timeouts = service.timeouts();
            Opening::Reads(Box::pin(async move {
                open::peek(transport, &timeouts, stop, permit).await
            }))
        }
        None => Opening::Done(Opened::http1(transport)),
    }
}

/// What becomes of a connection on which no further request is read. Boxed, since these futures are large and most
/// connections are asleep; a tunnel's by itself, since it stays.
fn part<'a, S: PublicService>(
    end: AwakeEnd,
    transport: Transport,
    unread: Bytes,
    service: Rc<S>,
    stop: &'a Stop,
    tell: &'a impl Fn(Event),
) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
    let AwakeEnd::Tunnel(backend) = end else {
        return Box::pin(finish(end, transport, unread, service, stop, tell));
    };
    tell(Event::TunnelOpened);
    let mut tunnel = tunnel(transport, unread, backend, service, stop);
    Box::pin(poll_fn(move |context| {
        let over = Pin::new(&mut tunnel).poll(context);
        over.map(|()| tell(Event::TunnelClosed))
    }))
}

/// Ends a connection.
async fn finish<S: PublicService>(
    end: AwakeEnd,
    mut transport: Transport,
    unread: Bytes,
    service: Rc<S>,
    stop: &Stop,
    tell: &impl Fn(Event),
) {
    match end {
        AwakeEnd::Closed { linger } if linger || !unread.is_empty() => {
            linger_then_close(transport).await;
        }
        AwakeEnd::Closed { .. } => close(transport).await,
        AwakeEnd::MadeRoom => close_asleep(transport, stop.stage()).await,
        AwakeEnd::Refused { refusal, by_head } => {
            tell(Event::ParseFailed(refusal.into()));
            refusal::answer(refusal, by_head, &mut transport, &*service).await;
            linger_then_close(transport).await;
        }
        AwakeEnd::Quiet | AwakeEnd::Tunnel(_) | AwakeEnd::TimedOut(_) | AwakeEnd::Broken => {}
    }
}

/// Closes a connection that has no request.
async fn close_asleep(transport: Transport, stage: Stage) {
    if stage == Stage::Serving {
        close(transport).await;
    } else {
        // A client whose request is on its way sees the connection's end instead of a reset.
        linger_then_close(transport).await;
    }
}

/// The wait of a connection between requests.
#[derive(Clone, Copy)]
struct Asleep {
    /// The end of the last request, or the connection's beginning.
    since: Instant,
    /// No request has begun yet.
    fresh: bool,
}

impl Asleep {
    /// A connection without a request, since it began.
    fn fresh(since: Instant) -> Self {
        Self { since, fresh: true }
    }

    /// A connection whose last request ended.
    fn between_requests(since: Instant) -> Self {
        Self {
            since,
            fresh: false,
        }
    }

    /// Waits for the client's next bytes; `None` when the connection ends.
    fn wake<'a>(
        self,
        transport: &'a mut Transport,
        deadline: &'a mut Deadline,
        limit: Duration,
        stop: &'a Stop,
        permit: &'a Permit,
    ) -> impl Future<Output = Option<Bytes>> + 'a {
        poll_fn(move |context| {
            let stage = stop.stage();
            if let Poll::Ready(read) = poll_asleep(transport, stage, context) {
                return Poll::Ready(read);
            }
            if permit.must_leave() {
                return Poll::Ready(None);
            }
            let due = self.since + self.patience(limit, stage);
            deadline.poll_until(due, context).map(|()| None)
        })
    }

    /// How long the next request may take to begin. The first may take as long as a header section, so that silent
    /// clients don't keep places from others. Such a connection is closed without a response: a load balancer that
    /// opened it in advance would take a response for that of its next request.
    fn limit(self, timeouts: &Timeouts) -> Duration {
        if self.fresh {
            timeouts.header.min(timeouts.idle)
        } else {
            timeouts.idle
        }
    }

    /// The same limit, or the part of it that a stop leaves.
    fn patience(self, limit: Duration, stage: Stage) -> Duration {
        match stage {
            Stage::Serving => limit,
            Stage::Draining | Stage::EndingTunnels if self.fresh => {
                NEW_CONNECTION_DRAIN_GRACE.min(limit)
            }
            // A sleeping connection has been quiet for as long already.
            Stage::Draining | Stage::EndingTunnels => QUIET.min(limit),
            Stage::Aborting => Duration::ZERO,
        }
    }
}

/// Waits between requests without buffers. Ready with the bytes that were read, or with `None` when the connection has
/// ended.
fn poll_asleep(
    transport: &mut Transport,
    stage: Stage,
    context: &mut Context<'_>,
) -> Poll<Option<Bytes>> {
    if stage >= Stage::Aborting {
        return Poll::Pending;
    }
    let read = ready!(transport.poll_wake(context));
    Poll::Ready(read.ok().filter(|bytes| !bytes.is_empty()))
}

/// A tunnel to its end.
fn tunnel<S: PublicService>(
    transport: Transport,
    unread: Bytes,
    backend: BackendTunnel,
    service: Rc<S>,
    stop: &Stop,
) -> impl Future<Output = ()> + Unpin {
    let client = Upgraded {
        transport,
        read_ahead: unread,
        slot: None,
    };
    let BackendTunnel {
        upstream,
        inspection,
        finish,
    } = backend;
    let ended = move || stop.stage() >= Stage::EndingTunnels;
    let idle = move || service.timeouts().tunnel_idle;
    tunnel::run(client, *upstream, inspection, idle, ended, finish)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::service::WorkerService;

    /// The size of the future that a function makes.
    fn size<F>(
        _: impl FnOnce(Transport, Bytes, BackendTunnel, Rc<WorkerService>, &'static Stop) -> F,
    ) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_future_of_a_tunnel_stays_small() {
        // There is one for each open socket. With a word beside it, it just fits into what the allocator gives out.
        let future = size(tunnel);
        assert!(future <= 248, "{future}");
    }
}
