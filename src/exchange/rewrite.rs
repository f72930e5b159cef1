//! A forwarded body whose bytes are changed on their way.
//!
//! Keeps true: the backend is read only when no bytes are left for the client, so that a slow client slows the
//! backend; trailers come last.
//! Must not know: which bytes are changed, or why.

use std::task::{Context, Poll, ready};
use std::{fmt, io};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::response_body::BodySource;

/// Changes the bytes of a body.
pub(crate) trait Rewrite {
    /// The next bytes from the backend. Called only after [`Rewrite::poll_data`] asked for more.
    fn take(&mut self, data: Bytes);

    /// Notes that no more bytes will come.
    fn end(&mut self);

    /// The next bytes for the client. `None` asks for more of the body, or after [`Rewrite::end`] means that there
    /// are no more.
    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>>;

    /// The trailers that are still true of the changed body.
    fn trailers(&mut self, trailers: HeaderMap) -> HeaderMap;

    /// Whether as many bytes come out as go in.
    fn keeps_length(&self) -> bool;
}

/// The backend's body, and the rewriting.
pub(crate) struct Rewritten {
    incoming: Box<dyn BodySource>,
    rewrite: Box<dyn Rewrite>,
    trailers: Option<HeaderMap>,
    /// The backend's last frame was read.
    ended: bool,
    /// The client's last frame was handed on.
    over: bool,
}

impl Rewritten {
    pub(crate) fn new(incoming: Box<dyn BodySource>, rewrite: Box<dyn Rewrite>) -> Self {
        Self {
            incoming,
            rewrite,
            trailers: None,
            ended: false,
            over: false,
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.rewrite.end();
    }
}

impl BodySource for Rewritten {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            if let Some(data) = ready!(self.rewrite.poll_data(context)) {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if self.ended {
                self.over = true;
                let trailers = self.trailers.take();
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
            }
            let frame = match ready!(self.incoming.poll_frame(context)) {
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => frame,
                None => {
                    self.end();
                    continue;
                }
            };
            match frame.into_data() {
                Ok(data) => self.rewrite.take(data),
                Err(frame) => {
                    let trailers = frame.into_trailers().ok();
                    self.trailers = trailers.map(|trailers| self.rewrite.trailers(trailers));
                    self.end();
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // The rewriting may hold bytes back after the backend's end.
        self.over
    }

    fn release(self: Box<Self>, complete: bool) {
        self.incoming.release(complete);
    }

    fn size_hint(&self) -> SizeHint {
        if self.rewrite.keeps_length() {
            self.incoming.size_hint()
        } else {
            SizeHint::default()
        }
    }
}

impl fmt::Debug for Rewritten {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Rewritten")
            .field("incoming", &self.incoming)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
