//! From an accepted socket to a protocol: the TLS handshake and its ALPN, or the first bytes in clear text.
//!
//! Keeps true: each step has a deadline, and a stop shortens it; a connection that is asked to make room ends within a
//! step; bytes that were read to recognise the protocol are handed on.
//! Must not know: what follows in the protocol.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::Event;
use super::permits::Permit;
use super::stop::{Stage, Stop};
use crate::config::model::Timeouts;
use crate::io::deadline::Deadline;
use crate::io::tls;
use crate::io::transport::Transport;
use crate::telemetry::traffic_labels::ParseErrorKind;
use crate::terms::clock::timer_now;

/// How long a connection may take for its first request after a stop has begun. The request of a connection that was
/// accepted then is probably on its way.
pub(super) const NEW_CONNECTION_DRAIN_GRACE: Duration = Duration::from_secs(1);

/// The bytes that an HTTP/2 client sends first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that is ready to be served.
pub(crate) struct Opened {
    pub(super) transport: Transport,
    /// Bytes that were read already.
    pub(super) ahead: Bytes,
    pub(super) http2: bool,
}

impl Opened {
    /// Clear text and HTTP/1.1, whatever the client sends.
    pub(super) fn http1(transport: Transport) -> Self {
        Self {
            transport,
            ahead: Bytes::new(),
            http2: false,
        }
    }
}

/// Does the TLS handshake. An error means that the connection has ended, with the event to report, if any.
pub(super) async fn handshake(
    mut transport: Transport,
    config: Arc<ServerConfig>,
    limit: Duration,
    stop: &Stop,
    permit: &Permit,
) -> Result<Opened, Option<Event>> {
    let mut deadline = Deadline::default();
    let since = timer_now();
    let mut poll_over = |context: &mut Context<'_>| {
        if permit.must_leave() {
            return Poll::Ready(None);
        }
        let late = Event::ParseFailed(ParseErrorKind::TlsHandshakeTimeout);
        poll_patience(&mut deadline, since, limit, stop, context).map(|()| Some(late))
    };
    let begun = poll_fn(|context| {
        if transport.poll_begun(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        poll_over(context).map(Err)
    });
    begun.await?;
    permit.spoke();
    let mut accepting = pin!(TlsAcceptor::from(config).accept(transport));
    let shaken = poll_fn(|context| {
        if let Poll::Ready(shaken) = accepting.as_mut().poll(context) {
            return Poll::Ready(shaken.map_err(|error| Event::of_handshake(&error)));
        }
        poll_over(context).map(Err)
    });
    let stream = shaken.await?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(tls::HTTP2);
    Ok(Opened {
        transport: Transport::Tls(Box::new(stream.into())),
        ahead: Bytes::new(),
        http2,
    })
}

impl Event {
    /// A client that leaves during its handshake is a health check or a port scan, and no event.
    fn of_handshake(error: &io::Error) -> Option<Self> {
        let left = matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
        );
        (!left).then_some(Self::ParseFailed(ParseErrorKind::TlsHandshake))
    }
}

/// Reads until it is clear whether a client without TLS speaks HTTP/2. An error is the same as [`handshake`]'s.
pub(super) async fn peek(
    mut transport: Transport,
    timeouts: &Timeouts,
    stop: &Stop,
    permit: &Permit,
) -> Result<Opened, Option<Event>> {
    let mut read = BytesMut::new();
    let mut deadline = Deadline::default();
    let mut since = timer_now();
    let http2 = poll_fn(|context| {
        loop {
            if read == PREFACE {
                return Poll::Ready(Ok(true));
            }
            if !PREFACE.starts_with(&read) {
                return Poll::Ready(Ok(false));
            }
            let mut chunk = [0; PREFACE.len()];
            let left = chunk.get_mut(read.len()..).unwrap_or_default();
            let mut buffer = ReadBuf::new(left);
            match Pin::new(&mut transport).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    if read.is_empty() {
                        since = timer_now();
                        permit.spoke();
                    }
                    read.extend_from_slice(buffer.filled());
                }
                Poll::Ready(_) => return Poll::Ready(Err(None)),
                Poll::Pending => break,
            }
        }
        if permit.must_leave() {
            return Poll::Ready(Err(None));
        }
        let (limit, event) = if read.is_empty() {
            (timeouts.header.min(timeouts.idle), None)
        } else {
            let late = Event::TimedOut(super::stall::Cause::Header);
            (timeouts.header, Some(late))
        };
        poll_patience(&mut deadline, since, limit, stop, context).map(|()| Err(event))
    })
    .await?;
    Ok(Opened {
        transport,
        ahead: read.freeze(),
        http2,
    })
}

/// Ready when `limit` has passed, or the part of it that a stop leaves.
pub(super) fn poll_patience(
    deadline: &mut Deadline,
    since: Instant,
    limit: Duration,
    stop: &Stop,
    context: &mut Context<'_>,
) -> Poll<()> {
    let limit = match stop.stage() {
        Stage::Serving => limit,
        Stage::Draining | Stage::EndingTunnels => limit.min(NEW_CONNECTION_DRAIN_GRACE),
        Stage::Aborting => Duration::ZERO,
    };
    deadline.poll_until(since + limit, context)
}
