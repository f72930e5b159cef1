//! The body of a client's request.
//!
//! Keeps true: once the body has ended, nothing more is read from the client.
//! Must not know: how a client's bytes become frames.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::{fmt, io};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, TRAILER};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::Exchange;
use super::response_body::{length, passed_on};

/// A request's body.
#[derive(Debug)]
pub struct RequestBody {
    content: RequestContent,
    exchange: Rc<Exchange>,
}

#[derive(Debug)]
enum RequestContent {
    Empty,
    /// Bytes that were read already, and the trailers after them.
    Full(Bytes, Option<Box<HeaderMap>>),
    Incoming(Arrival),
    Prefixed(Bytes, Arrival),
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
    Http2(Incoming),
}

impl Arrival {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self {
            Self::Http1(inlet) => inlet.poll_frame(context),
            Self::Http2(incoming) => {
                let frame = Pin::new(incoming).poll_frame(context);
                frame.map(|frame| frame.map(|frame| frame.map_err(io::Error::other)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(inlet) => inlet.is_end_stream(),
            Self::Http2(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(inlet) => inlet
                .expected()
                .map_or_else(SizeHint::new, SizeHint::with_exact),
            Self::Http2(incoming) => incoming.size_hint(),
        }
    }
}

impl RequestBody {
    /// A body that comes from an HTTP/1.1 client.
    pub(crate) fn http1(inlet: Rc<dyn Inlet>, exchange: Rc<Exchange>) -> Self {
        Self::arriving(Arrival::Http1(inlet), exchange)
    }

    /// A body that comes from an HTTP/2 client.
    pub(crate) fn http2(incoming: Incoming, exchange: Rc<Exchange>) -> Self {
        Self::arriving(Arrival::Http2(incoming), exchange)
    }

    fn arriving(arrival: Arrival, exchange: Rc<Exchange>) -> Self {
        if arrival.is_end_stream() {
            return Self::empty(exchange);
        }
        Self {
            content: RequestContent::Incoming(arrival),
            exchange,
        }
    }

    /// No body.
    pub fn empty(exchange: Rc<Exchange>) -> Self {
        exchange.mark_request_done();
        Self {
            content: RequestContent::Empty,
            exchange,
        }
    }

    /// The exchange that this body belongs to.
    pub(crate) fn exchange(&self) -> &Rc<Exchange> {
        &self.exchange
    }

    /// Whether the body must be sent in chunks: `headers`, the request's fields, don't announce its length, or
    /// trailers may follow. In HTTP/2 trailers may follow a body of announced length too.
    pub fn is_unannounced(&self, headers: &HeaderMap) -> bool {
        let announces_trailers = || self.is_http2() && headers.contains_key(TRAILER);
        !self.is_end_stream()
            && (self.size_hint().exact().is_none()
                || !headers.contains_key(CONTENT_LENGTH)
                || announces_trailers())
    }

    fn is_http2(&self) -> bool {
        matches!(
            self.content,
            RequestContent::Incoming(Arrival::Http2(_))
                | RequestContent::Prefixed(_, Arrival::Http2(_))
        )
    }

    /// Puts bytes that were read from this body back in front of it, to be read again.
    #[must_use]
    pub fn replay(mut self, read: Bytes) -> Self {
        if read.is_empty() {
            return self;
        }
        self.content = match std::mem::replace(&mut self.content, RequestContent::Empty) {
            RequestContent::Incoming(rest) => RequestContent::Prefixed(read, rest),
            RequestContent::Empty => RequestContent::Full(read, None),
            RequestContent::Full(rest, trailers) => {
                RequestContent::Full([read, rest].concat().into(), trailers)
            }
            RequestContent::Prefixed(second, rest) => {
                RequestContent::Prefixed([read, second].concat().into(), rest)
            }
        };
        self
    }

    /// Puts trailers that were read from this body back behind it. They were its last frame.
    #[must_use]
    pub(crate) fn replay_trailers(mut self, trailers: HeaderMap) -> Self {
        if trailers.is_empty() {
            return self;
        }
        let trailers = Some(Box::new(trailers));
        match &mut self.content {
            RequestContent::Empty => self.content = RequestContent::Full(Bytes::new(), trailers),
            RequestContent::Full(_, last) => *last = trailers,
            RequestContent::Incoming(_) | RequestContent::Prefixed(..) => {}
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
        let frame = match &mut this.content {
            RequestContent::Empty => None,
            RequestContent::Full(bytes, trailers) => {
                let bytes = std::mem::take(bytes);
                let trailers = trailers.take();
                let (frame, rest) = match trailers {
                    Some(trailers) if bytes.is_empty() => (Frame::trailers(*trailers), None),
                    trailers => (Frame::data(bytes), trailers),
                };
                this.content = rest.map_or(RequestContent::Empty, |trailers| {
                    RequestContent::Full(Bytes::new(), Some(trailers))
                });
                Some(Ok(frame))
            }
            RequestContent::Incoming(incoming) => {
                let poll = incoming.poll_frame(context);
                this.exchange.mark_request_awaited(poll.is_pending());
                ready!(poll)
            }
            RequestContent::Prefixed(prefix, _) => {
                let prefix = std::mem::take(prefix);
                let prefixed = std::mem::replace(&mut this.content, RequestContent::Empty);
                if let RequestContent::Prefixed(_, rest) = prefixed {
                    this.content = RequestContent::Incoming(rest);
                }
                Some(Ok(Frame::data(prefix)))
            }
        };
        // Trailers are the last frame, after which no poll follows.
        let trailers = matches!(&frame, Some(Ok(frame)) if frame.is_trailers());
        if frame.is_none() || trailers || this.is_end_stream() {
            // The next bytes on the connection belong to another request.
            this.content = RequestContent::Empty;
            this.exchange.mark_request_done();
        } else {
            this.exchange.mark_request_frame();
        }
        Poll::Ready(if trailers {
            frame.map(passed_on)
        } else {
            frame
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            RequestContent::Empty => true,
            RequestContent::Full(..) | RequestContent::Prefixed(..) => false,
            RequestContent::Incoming(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            RequestContent::Empty => SizeHint::with_exact(0),
            RequestContent::Full(bytes, None) => SizeHint::with_exact(length(bytes)),
            // A body of known length would end before its trailers.
            RequestContent::Full(_, Some(_)) => SizeHint::new(),
            RequestContent::Incoming(incoming) => incoming.size_hint(),
            RequestContent::Prefixed(prefix, rest) => rest
                .size_hint()
                .exact()
                .and_then(|rest| rest.checked_add(length(prefix)))
                .map_or_else(SizeHint::new, SizeHint::with_exact),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.exchange.mark_request_dropped();
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn bytes_put_back_are_read_first_and_the_length_is_theirs() {
        let exchange = Rc::new(Exchange::default());
        let body = RequestBody::empty(exchange.clone())
            .replay(Bytes::from_static(b"lo"))
            .replay(Bytes::from_static(b"hel"));
        assert_eq!(body.size_hint().exact(), Some(5));
        let bytes = body.collect().await.unwrap().to_bytes();
        assert_eq!(bytes, "hello");
        assert!(exchange.request_done());
    }

    #[tokio::test]
    async fn trailers_put_back_come_last_and_leave_the_length_open() {
        let trailers = HeaderMap::from_iter([(TRAILER, "x".parse().unwrap())]);
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
