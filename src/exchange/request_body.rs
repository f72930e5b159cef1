//! The body of a client's request, which also carries the request's fields while they are not in its map.
//!
//! Keeps true: once the body has ended, nothing more is read from the client. The fields are in one place, as lines or
//! in the map: [`fields_of`] finds them, and [`fields_into_map`] moves them where they are changed or decided on.
//! Must not know: how a client's bytes become frames, what a field means.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::{fmt, io};

use bytes::Bytes;
use h2::RecvStream;
use http::header::{CONTENT_LENGTH, EXPECT, TRAILER};
use http::{HeaderMap, Request};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::response_body::{length, passed_on};
use super::{Exchange, InterimResponse, ResponseSide};
use crate::http::request_fields::{FieldLines, RequestFields};
use crate::http::{hop, http2};

/// Sees a request's body on its way to the backend.
pub(crate) trait BodyObserver {
    /// Sees the next bytes; `ended` says whether no more will come. After bytes that weren't the last, it may be called
    /// with none at the end.
    fn see(&mut self, bytes: &[u8], ended: bool);
}

impl fmt::Debug for dyn BodyObserver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("BodyObserver")
    }
}

/// A request's body: first the bytes that were put back, then those that arrive, at last trailers that were put back.
#[derive(Debug)]
pub struct RequestBody {
    observer: Option<Box<dyn BodyObserver>>,
    replayed: Bytes,
    /// `None` once the body has ended.
    arrival: Option<Arrival>,
    /// Only where nothing arrives any more.
    trailers: Option<Box<HeaderMap>>,
    exchange: Rc<Exchange>,
    /// The request's fields, while they are not in its map.
    lines: Option<FieldLines>,
}

/// The fields of a request.
pub fn fields_of(request: &Request<RequestBody>) -> RequestFields<'_> {
    match &request.body().lines {
        Some(lines) => RequestFields::Lines(lines),
        None => RequestFields::Map(request.headers()),
    }
}

/// Puts the fields of a request into its map, where code that decides or that changes them looks for them.
pub fn fields_into_map(request: &mut Request<RequestBody>) -> &mut HeaderMap {
    if let Some(lines) = request.body_mut().lines.take() {
        *request.headers_mut() = lines.to_map();
    }
    request.headers_mut()
}

/// A request's body on a connection of HTTP/1.1.
pub trait Inlet: fmt::Debug {
    /// The next frame.
    fn poll_frame(&self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>>;

    /// Whether nothing more will come.
    fn is_end_stream(&self) -> bool;

    /// The number of bytes to come, if it is known.
    fn expected(&self) -> Option<u64>;
}

/// The connection that a body comes from.
#[derive(Debug)]
enum Arrival {
    Http1(Rc<dyn Inlet>),
    Http2(Box<Http2Arrival>),
}

/// A request's body on a stream of HTTP/2.
#[derive(Debug)]
struct Http2Arrival {
    stream: RecvStream,
    /// The number of bytes to come, if it is known.
    expected: Option<u64>,
    data_ended: bool,
    /// The client waits for 100 (Continue) before it sends the body.
    expects_continue: bool,
}

impl Http2Arrival {
    fn poll_frame(
        &mut self,
        exchange: &Exchange,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if !self.data_ended {
            let poll = self.stream.poll_data(context);
            // A client that has begun to send doesn't wait (RFC 9110 §10.1.1).
            let waits = std::mem::take(&mut self.expects_continue) && poll.is_pending();
            if waits && exchange.response() == ResponseSide::Answering {
                exchange.pass_interim(InterimResponse::go_on());
            }
            match ready!(poll) {
                Some(Ok(data)) => {
                    // The bytes are on their way to the backend: the client may send as many more.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    let left = |expected: u64| expected.saturating_sub(length(data.len()));
                    self.expected = self.expected.map(left);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // Whatever the reason is, NO_ERROR too: the body is incomplete, and the backend must not take it for
                // a whole one.
                Some(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
                None => self.data_ended = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(context)).map_err(io::Error::other);
        Poll::Ready(trailers.transpose().map(|trailers| {
            let mut trailers = trailers?;
            http2::trim_values(&mut trailers);
            Ok(Frame::trailers(trailers))
        }))
    }
}

impl Arrival {
    fn poll_frame(
        &mut self,
        exchange: &Exchange,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self {
            Self::Http1(inlet) => inlet.poll_frame(context),
            Self::Http2(arrival) => arrival.poll_frame(exchange, context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(inlet) => inlet.is_end_stream(),
            Self::Http2(arrival) => arrival.stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let expected = match self {
            Self::Http1(inlet) => inlet.expected(),
            Self::Http2(arrival) => arrival.expected,
        };
        expected.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl RequestBody {
    /// A body that comes from an HTTP/1.1 client.
    pub(crate) fn http1(inlet: Rc<dyn Inlet>, exchange: Rc<Exchange>, lines: FieldLines) -> Self {
        let mut body = Self::arriving(Arrival::Http1(inlet), exchange);
        body.lines = Some(lines);
        body
    }

    /// A body that comes from an HTTP/2 client, and what its header section says of it.
    pub(crate) fn http2(stream: RecvStream, fields: &HeaderMap, exchange: Rc<Exchange>) -> Self {
        let empty = stream.is_end_stream().then_some(0);
        let mut expectations = fields.get_all(EXPECT).iter();
        let arrival = Http2Arrival {
            expected: http2::announced(fields).or(empty),
            stream,
            data_ended: false,
            expects_continue: expectations.any(|value| hop::expects_continue(value.as_bytes())),
        };
        Self::arriving(Arrival::Http2(Box::new(arrival)), exchange)
    }

    fn arriving(arrival: Arrival, exchange: Rc<Exchange>) -> Self {
        let mut body = Self {
            observer: None,
            replayed: Bytes::new(),
            arrival: Some(arrival),
            trailers: None,
            exchange,
            lines: None,
        };
        if body.is_end_stream() {
            body.end();
        }
        body
    }

    /// No body.
    pub fn empty(exchange: Rc<Exchange>) -> Self {
        exchange.request_ended();
        Self {
            observer: None,
            replayed: Bytes::new(),
            arrival: None,
            trailers: None,
            exchange,
            lines: None,
        }
    }

    /// Ends the body. The next bytes on the connection belong to another request.
    fn end(&mut self) {
        self.arrival = None;
        self.exchange.request_ended();
    }

    /// The exchange that this body belongs to.
    pub(crate) fn exchange(&self) -> &Rc<Exchange> {
        &self.exchange
    }

    /// Whether the body must be sent in chunks: `fields`, the request's, don't announce its length, or
    /// trailers may follow. In HTTP/2 trailers may follow a body of announced length too.
    pub fn is_unannounced<'a>(&self, fields: impl Into<RequestFields<'a>>) -> bool {
        let fields = fields.into();
        let announces_trailers = || self.is_http2() && fields.contains(&TRAILER);
        !self.is_end_stream()
            && (self.size_hint().exact().is_none()
                || !fields.contains(&CONTENT_LENGTH)
                || announces_trailers())
    }

    fn is_http2(&self) -> bool {
        matches!(self.arrival, Some(Arrival::Http2(_)))
    }

    /// Shows this body to an observer on its way.
    pub(crate) fn observe(&mut self, observer: Box<dyn BodyObserver>) {
        self.observer = Some(observer);
    }

    /// Puts bytes that were read from this body back in front of it, to be read again.
    #[must_use]
    pub fn replay(mut self, read: Bytes) -> Self {
        self.replayed = if self.replayed.is_empty() {
            read
        } else {
            [read, std::mem::take(&mut self.replayed)].concat().into()
        };
        self
    }

    /// Puts trailers that were read from this body back behind it. They were its last frame.
    #[must_use]
    pub(crate) fn replay_trailers(mut self, trailers: HeaderMap) -> Self {
        if !trailers.is_empty() {
            self.trailers = Some(Box::new(trailers));
        }
        self
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let frame = if !this.replayed.is_empty() {
            Some(Ok(Frame::data(std::mem::take(&mut this.replayed))))
        } else if let Some(arrival) = &mut this.arrival {
            let poll = arrival.poll_frame(&this.exchange, context);
            if poll.is_pending() {
                this.exchange.request_awaited();
            }
            ready!(poll)
        } else {
            let trailers = this.trailers.take();
            trailers.map(|trailers| Ok(Frame::trailers(*trailers)))
        };
        if let Some(observer) = &mut this.observer {
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok());
            let data = data.and_then(Frame::data_ref).map_or(&[][..], |data| data);
            let ended = data.is_empty()
                || this.replayed.is_empty()
                    && this.arrival.as_ref().is_none_or(Arrival::is_end_stream);
            observer.see(data, ended);
        }
        // Trailers are the last frame, after which no poll follows.
        let trailers = matches!(&frame, Some(Ok(frame)) if frame.is_trailers());
        if frame.is_none() || trailers || this.is_end_stream() {
            this.end();
        } else {
            this.exchange.request_moved();
        }
        Poll::Ready(if trailers {
            frame.map(passed_on)
        } else {
            frame
        })
    }

    fn is_end_stream(&self) -> bool {
        let arrived = self.arrival.as_ref().is_none_or(Arrival::is_end_stream);
        arrived && self.replayed.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.trailers.is_some() {
            // A body of known length would end before its trailers.
            return SizeHint::new();
        }
        let arriving = match &self.arrival {
            Some(arrival) => arrival.size_hint().exact(),
            None => Some(0),
        };
        arriving
            .and_then(|arriving| arriving.checked_add(length(self.replayed.len())))
            .map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.exchange.request_dropped();
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use http_body_util::BodyExt;

    use super::*;
    use crate::exchange::RequestSide;

    #[tokio::test]
    async fn bytes_put_back_are_read_first_and_the_length_is_theirs() {
        let exchange = Rc::new(Exchange::default());
        let body = RequestBody::empty(exchange.clone())
            .replay(Bytes::from_static(b"lo"))
            .replay(Bytes::from_static(b"hel"));
        assert_eq!(body.size_hint().exact(), Some(5));
        let bytes = body.collect().await.unwrap().to_bytes();
        assert_eq!(bytes, "hello");
        assert_eq!(exchange.request(), RequestSide::Complete);
    }

    #[tokio::test]
    async fn trailers_put_back_come_last_and_leave_the_length_open() {
        let trailers =
            HeaderMap::from_iter([(HeaderName::from_static("x-sum"), "1".parse().unwrap())]);
        for bytes in ["", "a"] {
            let body = RequestBody::empty(Rc::default())
                .replay(bytes.into())
                .replay_trailers(trailers.clone());
            let announced = HeaderMap::from_iter([(CONTENT_LENGTH, 1.into())]);
            assert!(body.is_unannounced(&announced));
            let read = body.collect().await.unwrap();
            assert_eq!(read.trailers().map(HeaderMap::len), Some(1));
            assert_eq!(read.to_bytes(), bytes);
        }
    }
}
