//! One connection to a backend: a request written to it, its response read from it, one exchange after the other.
//!
//! Keeps true: nothing is read before it is asked for; no frame of a body is taken before the ones before it are
//! written. Each task polls the connection with its own context, so that the socket wakes the task that waits.
//! Must not know: pools, deadlines, retries, what a response means.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::{Body as _, Frame};
use tokio::io::{AsyncWrite as _, ReadBuf};

use super::retry::AttemptProgress;
use crate::exchange::response_body::RequestBody;
use crate::exchange::{Exchange, InterimResponse, RequestSide};
use crate::http::hop::RequestChanges;
use crate::http1::Malformed;
use crate::http1::decode::{Decoder, NextPart};
use crate::http1::encode::{Encoder, OtherLength};
use crate::http1::input::Input;
use crate::http1::output::Output;
use crate::http1::parse_response::{RequestFacts, ResponseHead, take_head};
use crate::http1::write_request::write_head;
use crate::io::descriptors::SocketSlot;
use crate::io::transport::{Transport, Upgraded};

/// A fault on a connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The request's body broke.
    #[error("{0}")]
    Request(io::Error),
    /// The request's body isn't as long as it was announced to be.
    #[error("the request's body has another length than announced")]
    RequestCut,
    #[error("{0}")]
    Response(#[from] Malformed),
    #[error("{0}")]
    Connection(#[from] io::Error),
}

impl From<OtherLength> for Fault {
    fn from(_: OtherLength) -> Self {
        Self::RequestCut
    }
}

/// How far the request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upload {
    UnderWay,
    /// All of it is written.
    Sent,
    /// All of it is written, and renewd's side of the connection is closed, as the client's is.
    Closed,
    /// Nothing more can be written. What the backend sent before may still be read.
    Broken,
}

/// A connection to a backend.
#[derive(Debug)]
pub(super) struct BackendConnection {
    transport: Transport,
    input: Input,
    output: Output,
    /// Kept until its response begins, so that it can be taken back, or until it is sent.
    request: Option<Box<Request<RequestBody>>>,
    sending: Encoder,
    /// A frame of the request's body was taken.
    body_begun: bool,
    upload: Upload,
    progress: AttemptProgress,
    /// Bytes of the response's head that were parsed in vain.
    known: usize,
    asked: RequestFacts,
    receiving: Decoder,
    keep_alive: bool,
    exchange: Option<Rc<Exchange>>,
    /// The task that reads the response, while another task sends the request.
    reader: Option<Waker>,
    /// Why the sending failed, for the reader.
    failed: Option<Fault>,
}

impl BackendConnection {
    pub(super) fn new(transport: Transport) -> Self {
        Self {
            transport,
            input: Input::new(),
            output: Output::default(),
            request: None,
            sending: Encoder::Over,
            body_begun: false,
            upload: Upload::Sent,
            progress: AttemptProgress::NotWritten,
            known: 0,
            asked: RequestFacts {
                by_head: false,
                for_http1: false,
                takes_interim: false,
            },
            receiving: Decoder::Over,
            keep_alive: true,
            exchange: None,
            reader: None,
            failed: None,
        }
    }

    /// Begins an exchange; the connection must be [reusable](BackendConnection::reusable).
    pub(super) fn begin(
        &mut self,
        request: Box<Request<RequestBody>>,
        changes: &RequestChanges<'_>,
    ) {
        self.output.clear();
        self.sending = write_head(&request, changes, self.output.gathered());
        self.body_begun = false;
        self.upload = Upload::UnderWay;
        self.progress = AttemptProgress::NotWritten;
        self.known = 0;
        self.asked = RequestFacts {
            by_head: request.method() == http::Method::HEAD,
            for_http1: request.version() <= http::Version::HTTP_11,
            takes_interim: request.version() >= http::Version::HTTP_11,
        };
        self.keep_alive = false;
        self.exchange = Some(request.body().exchange().clone());
        self.request = Some(request);
    }

    /// Whether all of the request is written.
    pub(super) fn sent(&self) -> bool {
        matches!(self.upload, Upload::Sent | Upload::Closed)
    }

    /// How far the exchange has come.
    pub(super) fn progress(&self) -> AttemptProgress {
        self.progress
    }

    /// Whether the backend was told that the client has closed its sending side. If it gives up then, the cause is the
    /// client.
    pub(super) fn closed(&self) -> bool {
        self.upload == Upload::Closed
    }

    /// The request, if nothing of its body was taken.
    pub(super) fn take_back(&mut self) -> Option<Box<Request<RequestBody>>> {
        self.request.take_if(|_| !self.body_begun)
    }

    /// Writes the request, as far as its body has come.
    pub(super) fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if self.upload != Upload::UnderWay {
            return Poll::Ready(Ok(()));
        }
        loop {
            let gathered = self.poll_gather(context);
            if let Poll::Ready(Err(fault)) = gathered {
                // The backend sees a request that breaks off, as it would without renewd, instead of none at all.
                let _ = self.poll_write(context);
                return Poll::Ready(Err(fault));
            }
            if let Err(error) = ready!(self.poll_write(context)) {
                // A server that refuses a request may answer and close before all of it has arrived.
                tracing::debug!(%error, "the backend takes no more of a request");
                self.upload = Upload::Broken;
                self.request.take_if(|_| self.body_begun);
                return Poll::Ready(Ok(()));
            }
            if self.sending == Encoder::Over {
                self.upload = Upload::Sent;
                return Poll::Ready(Ok(()));
            }
            if gathered.is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Takes frames of the body until there is enough to write. Pending while the client sends nothing.
    fn poll_gather(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        while self.sending != Encoder::Over && self.output.has_room() {
            let Some(request) = &mut self.request else {
                self.sending = Encoder::Over;
                break;
            };
            let frame = ready!(Pin::new(request.body_mut()).poll_frame(context));
            self.body_begun = true;
            match frame {
                None => self.sending.end(&HeaderMap::new(), &mut self.output)?,
                Some(Err(error)) => return Poll::Ready(Err(Fault::Request(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.sending.push(data, &mut self.output)?,
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        self.sending.end(&trailers, &mut self.output)?;
                    }
                },
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is queued, and flushes it.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let poll = self.output.poll_write(&mut self.transport, context);
            if let Some(exchange) = &self.exchange {
                let pace = &exchange.paces().upload;
                match &poll {
                    Poll::Ready(Ok(written)) => pace.takes(*written),
                    Poll::Ready(Err(_)) => {}
                    Poll::Pending => pace.waits(),
                }
            }
            if ready!(poll)? == 0 {
                break;
            }
            if self.progress == AttemptProgress::NotWritten {
                self.progress = AttemptProgress::NoResponse;
            }
        }
        Pin::new(&mut self.transport).poll_flush(context)
    }

    /// Reads the head of the response.
    pub(super) fn poll_head(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Box<ResponseHead>, Fault>> {
        loop {
            if self.input.len() > self.known {
                let mut fields = self.recycled_fields();
                let (input, known) = (self.input.bytes(), self.known);
                let head = take_head(input, known, self.asked, &mut fields)?;
                if let Some(head) = head {
                    if head.is_interim() {
                        if let Some(exchange) = &self.exchange {
                            let ResponseHead {
                                parts, raw_fields, ..
                            } = *head;
                            exchange.pass_interim(InterimResponse { parts, raw_fields });
                        }
                        self.known = 0;
                        continue;
                    }
                    self.keep_alive = head.keep_alive;
                    self.receiving = head.decoder.clone();
                    self.receiving.begin(self.input.bytes())?;
                    return Poll::Ready(Ok(head));
                }
                self.known = self.input.len();
            }
            if ready!(self.poll_fill(context))? == 0 {
                return Poll::Ready(Err(Fault::Connection(io::ErrorKind::UnexpectedEof.into())));
            }
        }
    }

    /// A map for the response's fields: the request's own, since a request can't be taken back once its response has
    /// begun.
    fn recycled_fields(&mut self) -> HeaderMap {
        let sent = self.sent();
        let request = self.request.take_if(|_| sent);
        let mut fields =
            request.map_or_else(HeaderMap::new, |request| request.into_parts().0.headers);
        fields.clear();
        fields
    }

    /// Reads the next frame of the response's body.
    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        loop {
            match self.receiving.next(self.input.bytes()) {
                Ok(NextPart::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(NextPart::Trailers(trailers)) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(NextPart::End) => return Poll::Ready(None),
                Ok(NextPart::Starved) => {}
                Err(malformed) => return self.give_up(malformed.into()),
            }
            if let Some(fault) = self.failed.take() {
                return self.give_up(fault);
            }
            match self.poll_fill(context) {
                Poll::Ready(Ok(0)) if self.receiving == Decoder::UntilClose => {
                    self.receiving = Decoder::Over;
                }
                Poll::Ready(Ok(0)) => {
                    return self.give_up(Fault::Connection(io::ErrorKind::UnexpectedEof.into()));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return self.give_up(error.into()),
                Poll::Pending => {
                    if self.upload == Upload::UnderWay {
                        self.reader = Some(context.waker().clone());
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn give_up(&mut self, fault: Fault) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.receiving = Decoder::Over;
        self.keep_alive = false;
        Poll::Ready(Some(Err(fault)))
    }

    /// The rest of the response's body, if its length is known.
    pub(super) fn expected(&self) -> Option<u64> {
        self.receiving.expected()
    }

    /// Whether the response is an event stream, and not over.
    pub(super) fn is_streaming(&self) -> bool {
        let exchange = self.exchange.as_deref();
        exchange.is_some_and(Exchange::is_streaming) && !self.received()
    }

    /// Whether the response is read to its end.
    pub(super) fn received(&self) -> bool {
        self.receiving == Decoder::Over
    }

    /// Sends the rest of a request whose response has begun. If that fails, the reader of the response is woken.
    pub(super) fn poll_upload(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Err(fault) = ready!(self.poll_send(context)) {
            self.failed = Some(fault);
            self.upload = Upload::Broken;
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
        }
        self.request = None;
        Poll::Ready(())
    }

    /// Reads what is there, after passing on that the client has closed its sending side. The backend then does what
    /// it would have done without renewd: it answers or gives up.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Some(exchange) = &self.exchange {
            if exchange.request() != RequestSide::Closed {
                exchange.wake_on_client_closed(context);
            } else if self.upload == Upload::Sent {
                ready!(self.transport.poll_close_write(context))?;
                self.upload = Upload::Closed;
            }
        }
        let rest = match self.receiving {
            Decoder::Sized(rest) => Some(rest),
            _ => None,
        };
        let ahead = |exchange: &Rc<Exchange>| exchange.paces().download.ahead();
        let ahead = self.exchange.as_ref().map_or(0, ahead);
        let fill = self
            .input
            .poll_fill(&mut self.transport, context, rest, ahead);
        let read = ready!(fill)?;
        if read > 0 {
            self.progress = AttemptProgress::Responding;
        }
        Poll::Ready(Ok(read))
    }

    /// Ends an exchange; whether another one may follow on this connection.
    pub(super) fn reusable(&mut self) -> bool {
        self.exchange = None;
        self.request = None;
        self.reader = None;
        self.input.shrink();
        self.keep_alive
            && self.upload == Upload::Sent
            && self.receiving == Decoder::Over
            && self.input.len() == 0
    }

    /// Ready when the backend closes an idle connection, or sends something without a request.
    pub(super) fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        tokio::io::AsyncRead::poll_read(Pin::new(&mut self.transport), context, &mut buffer)
            .map(|_| ())
    }

    /// The socket, after a 101, with its place in a budget.
    pub(super) fn into_upgraded(self, slot: Option<SocketSlot>) -> Upgraded {
        Upgraded {
            transport: self.transport,
            read_ahead: self.input.into_bytes().freeze(),
            slot,
        }
    }
}
