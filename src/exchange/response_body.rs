//! The body of a response to a client.
//!
//! Keeps true: frames pass through uncopied and one at a time; a body calls its finish hook exactly once, at its end
//! or when it is dropped, and marks its [`Exchange`] then.
//! Must not know: where a forwarded body comes from, beyond a [`BodySource`] to release.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::{fmt, io};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::Exchange;
use super::raw_fields::RawFieldLines;
pub use super::request_body::{Inlet, RequestBody, fields_into_map};
use super::rewrite::{Rewrite, Rewritten};
use super::tunnel::Inspection;
use crate::http::hop;
use crate::io::transport::Upgraded;

/// The frame; trailers without the fields that may not be trailers.
pub(super) fn passed_on<E>(frame: Result<Frame<Bytes>, E>) -> Result<Frame<Bytes>, E> {
    frame.map(|frame| match frame.into_trailers() {
        Ok(trailers) => Frame::trailers(hop::trailers(trailers)),
        Err(frame) => frame,
    })
}

/// How a response body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The body's last byte was handed to the connection.
    Complete,
    /// The client left or stalled, or a stop cut the response.
    Abandoned,
    /// The backend broke off.
    Broken,
}

/// The result that the finish hook gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Body bytes handed to the connection; for a tunnel, bytes sent to the client.
    pub bytes: u64,
    /// How it ended.
    pub ending: Ending,
}

/// Called once when a response has ended.
pub(crate) type Finish = Box<dyn FnOnce(Finished)>;

/// The source of a forwarded body, released once when the body is not read any more.
pub(crate) trait BodySource: fmt::Debug {
    /// The next frame.
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>>;

    /// Whether the last frame was read.
    fn is_end_stream(&self) -> bool;

    /// The number of bytes to come, as far as it is known.
    fn size_hint(&self) -> SizeHint;

    /// Gives the source back; `complete` says that the body was read to its end.
    fn release(self: Box<Self>, complete: bool);
}

/// A response's body.
pub struct ResponseBody {
    content: BodyContent,
    bytes: u64,
    ended: Option<Ending>,
    /// An error waits here for one poll, so that the bytes before it are flushed.
    error: Option<io::Error>,
    finish: Option<Finish>,
    exchange: Option<Rc<Exchange>>,
    raw_fields: Option<RawFieldLines>,
    inspection: Option<Box<dyn Inspection>>,
}

/// The backend's half of a tunnel.
pub(crate) struct BackendTunnel {
    pub(crate) upstream: Box<Upgraded>,
    /// Looks at what passes.
    pub(crate) inspection: Option<Box<dyn Inspection>>,
    /// The hook for the tunnel's end.
    pub(crate) finish: Option<Finish>,
}

#[derive(Debug)]
enum BodyContent {
    /// Empty when it is over.
    Full(Bytes),
    /// `None` when it is over.
    Forwarded(Option<Box<dyn BodySource>>),
    Upgrade(Option<Box<Upgraded>>),
}

impl ResponseBody {
    /// A body without bytes.
    pub(crate) fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// A body of these bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::new(BodyContent::Full(bytes.into()))
    }

    /// The backend's body.
    pub(crate) fn forwarded(source: Box<dyn BodySource>) -> Self {
        Self::new(BodyContent::Forwarded(Some(source)))
    }

    /// The body of a 101: the backend's socket.
    pub(crate) fn upgrade(upstream: Upgraded) -> Self {
        Self::new(BodyContent::Upgrade(Some(Box::new(upstream))))
    }

    /// Has the backend's body changed on its way. A body without bytes, or one of renewd's own, stays as it is.
    #[must_use]
    pub(crate) fn rewritten(mut self, rewrite: Box<dyn Rewrite>) -> Self {
        if let BodyContent::Forwarded(source) = &mut self.content
            && let Some(incoming) = source.take_if(|source| !source.is_end_stream())
        {
            *source = Some(Box::new(Rewritten::new(incoming, rewrite)));
        }
        self
    }

    fn new(content: BodyContent) -> Self {
        Self {
            content,
            bytes: 0,
            ended: None,
            error: None,
            finish: None,
            exchange: None,
            raw_fields: None,
            inspection: None,
        }
    }

    /// Sets the raw fields of this body's response. The response's map has the others.
    #[must_use]
    pub(crate) fn with_raw_fields(mut self, fields: Option<RawFieldLines>) -> Self {
        self.raw_fields = fields;
        self
    }

    /// The raw fields, to append to or to take out.
    pub(crate) fn raw_fields_mut(&mut self) -> &mut Option<RawFieldLines> {
        &mut self.raw_fields
    }

    /// Calls `finish` when this body has ended: handed out, or dropped before.
    pub fn on_finish(&mut self, finish: Finish) {
        self.finish = Some(finish);
    }

    /// Marks `exchange` when this body has ended.
    pub(crate) fn on_exchange(&mut self, exchange: Rc<Exchange>) {
        self.exchange = Some(exchange);
    }

    /// Has what passes through the tunnel inspected.
    pub(crate) fn on_tunnel(&mut self, inspection: Box<dyn Inspection>) {
        self.inspection = Some(inspection);
    }

    /// The tunnel that a 101 leads to; `None` for every other body.
    pub(crate) fn take_upgrade(&mut self) -> Option<BackendTunnel> {
        match &mut self.content {
            BodyContent::Upgrade(upstream) => upstream.take().map(|upstream| BackendTunnel {
                upstream,
                inspection: self.inspection.take(),
                finish: self.finish.take(),
            }),
            _ => None,
        }
    }

    /// Drops the bytes of a response that is sent without them (HEAD, 204, 304). The body then counts as complete.
    pub(crate) fn withhold(&mut self) {
        if let BodyContent::Full(bytes) = &mut self.content {
            bytes.clear();
        }
    }

    fn over(&mut self, ending: Ending) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(ending);
        if let BodyContent::Forwarded(source) = &mut self.content
            && let Some(source) = source.take()
        {
            source.release(ending == Ending::Complete);
        }
        if let Some(exchange) = self.exchange.take() {
            exchange.response_ends();
        }
        if let Some(finish) = self.finish.take() {
            finish(Finished {
                bytes: self.bytes,
                ending,
            });
        }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if let Some(error) = this.error.take() {
            this.over(Ending::Broken);
            return Poll::Ready(Some(Err(error)));
        }
        let frame = match &mut this.content {
            BodyContent::Upgrade(_) | BodyContent::Forwarded(None) => None,
            BodyContent::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)))
            }
            BodyContent::Forwarded(Some(source)) => ready!(source.poll_frame(context)),
        };
        match frame {
            None => {
                this.over(Ending::Complete);
                Poll::Ready(None)
            }
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.bytes += length(data.len());
                    return Poll::Ready(Some(Ok(frame)));
                }
                // Trailers are the last frame, after which no poll follows.
                this.over(Ending::Complete);
                Poll::Ready(Some(passed_on(Ok(frame))))
            }
            Some(Err(error)) => {
                this.error = Some(error);
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            BodyContent::Upgrade(_) | BodyContent::Forwarded(None) => true,
            BodyContent::Full(bytes) => bytes.is_empty(),
            BodyContent::Forwarded(Some(source)) => self.error.is_none() && source.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            BodyContent::Upgrade(_) | BodyContent::Forwarded(None) => SizeHint::with_exact(0),
            BodyContent::Full(bytes) => SizeHint::with_exact(length(bytes.len())),
            BodyContent::Forwarded(Some(source)) => source.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let ending = if self.error.is_some() {
            Ending::Broken
        } else if self.is_end_stream() {
            Ending::Complete
        } else {
            Ending::Abandoned
        };
        self.over(ending);
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Body")
            .field("content", &self.content)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

pub(super) fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    type Calls = Rc<RefCell<Vec<Finished>>>;

    fn recorded(mut body: ResponseBody) -> (ResponseBody, Calls) {
        let calls: Calls = Rc::default();
        let sink = calls.clone();
        body.on_finish(Box::new(move |finished| sink.borrow_mut().push(finished)));
        (body, calls)
    }

    #[test]
    fn a_body_read_to_its_end_finishes_once_with_its_bytes() {
        let (mut body, calls) = recorded(ResponseBody::full("hello"));
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(
            Pin::new(&mut body).poll_frame(&mut context),
            Poll::Ready(Some(Ok(_)))
        ));
        assert!(body.is_end_stream());
        drop(body);
        assert_eq!(
            *calls.borrow(),
            [Finished {
                bytes: 5,
                ending: Ending::Complete
            }]
        );
    }

    #[test]
    fn a_body_dropped_before_its_end_is_abandoned() {
        let (body, calls) = recorded(ResponseBody::full("hello"));
        drop(body);
        assert_eq!(
            *calls.borrow(),
            [Finished {
                bytes: 0,
                ending: Ending::Abandoned
            }]
        );
    }

    #[test]
    fn a_withheld_body_is_complete_with_no_bytes() {
        let (mut body, calls) = recorded(ResponseBody::full("hello"));
        body.withhold();
        drop(body);
        assert_eq!(
            *calls.borrow(),
            [Finished {
                bytes: 0,
                ending: Ending::Complete
            }]
        );
    }
}
