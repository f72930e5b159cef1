//! What a client sends.
//!
//! Keeps true: once it has ended, nothing is read from the client any more.
//! Must not know: how a client's bytes become frames.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::{length, passed_on};
use crate::http::exchange::Exchange;

/// A request's body.
#[derive(Debug)]
pub struct RequestBody {
    content: RequestContent,
    exchange: Rc<Exchange>,
}

#[derive(Debug)]
enum RequestContent {
    Empty,
    Full(Bytes),
    Incoming(Arrival),
    Prefixed(Bytes, Arrival),
}

/// What a client sends of a body, as its connection reads it.
pub trait Inlet: fmt::Debug {
    /// The next frame.
    fn poll_frame(&self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>>;

    /// Whether nothing more will come.
    fn is_end_stream(&self) -> bool;

    /// Bytes to come, as far as is known.
    fn expected(&self) -> Option<u64>;
}

/// Where a body comes from.
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
    pub fn http1(inlet: Rc<dyn Inlet>, exchange: Rc<Exchange>) -> Self {
        Self::arriving(Arrival::Http1(inlet), exchange)
    }

    /// A body that comes from an HTTP/2 client.
    pub fn http2(incoming: Incoming, exchange: Rc<Exchange>) -> Self {
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
    pub fn exchange(&self) -> &Rc<Exchange> {
        &self.exchange
    }

    /// Whether there is a body whose length these, the request's fields, don't announce: it goes on in chunks.
    pub fn is_unannounced(&self, headers: &HeaderMap) -> bool {
        !self.is_end_stream()
            && (self.size_hint().exact().is_none() || !headers.contains_key(CONTENT_LENGTH))
    }

    /// Puts bytes that were read from this body back in front of it, to be read again.
    #[must_use]
    pub fn replay(mut self, read: Bytes) -> Self {
        if read.is_empty() {
            return self;
        }
        self.content = match std::mem::replace(&mut self.content, RequestContent::Empty) {
            RequestContent::Incoming(rest) => RequestContent::Prefixed(read, rest),
            RequestContent::Empty => RequestContent::Full(read),
            RequestContent::Full(rest) => RequestContent::Full([read, rest].concat().into()),
            RequestContent::Prefixed(second, rest) => {
                RequestContent::Prefixed([read, second].concat().into(), rest)
            }
        };
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
            RequestContent::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.content = RequestContent::Empty;
                Some(Ok(Frame::data(bytes)))
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
        // Trailers are the last frame; nobody asks for another.
        let trailers = matches!(&frame, Some(Ok(frame)) if frame.is_trailers());
        if frame.is_none() || trailers || this.is_end_stream() {
            // What comes after it on the connection is another request's.
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
            RequestContent::Full(_) | RequestContent::Prefixed(..) => false,
            RequestContent::Incoming(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            RequestContent::Empty => SizeHint::with_exact(0),
            RequestContent::Full(bytes) => SizeHint::with_exact(length(bytes)),
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
}
