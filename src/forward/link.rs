//! A backend connection's socket as hyper sees it, and what it shares with the request that it is lent to.
//!
//! Keeps true: notes whether anything was written and read for that request; passes a client's half-close on.
//! Must not know: pools, retries, HTTP.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::retry::Progress;
use crate::http::exchange::Exchange;
use crate::transport::{Transport, Upgraded};

/// What a connection's IO and the request that it is lent to share.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) exchange: RefCell<Option<Rc<Exchange>>>,
    pub(super) upgrade: RefCell<Option<oneshot::Sender<Upgraded>>>,
    wrote: Cell<bool>,
    received: Cell<bool>,
    unflushed: Cell<bool>,
    pub(super) write_closed: Cell<bool>,
}

impl Link {
    /// The connection is lent to this request.
    pub(super) fn begin(&self, exchange: Rc<Exchange>) {
        self.exchange.replace(Some(exchange));
        self.wrote.set(false);
        self.received.set(false);
    }

    /// How far the request has come; `given_back` says that hyper returned it.
    pub(super) fn progress(&self, given_back: bool) -> Progress {
        if given_back || !self.wrote.get() {
            Progress::NotWritten
        } else if self.received.get() {
            Progress::Responding
        } else {
            Progress::NoResponse
        }
    }

    /// Whether the request's body needs nothing more of this connection.
    pub(super) fn request_done(&self) -> bool {
        self.exchange
            .borrow()
            .as_ref()
            .is_none_or(|exchange| exchange.request_done())
    }

    /// The client has closed its sending side behind this request, and all of the request is written.
    fn should_close_write(&self, context: &Context<'_>) -> bool {
        let exchange = self.exchange.borrow();
        let Some(exchange) = exchange.as_ref() else {
            return false;
        };
        if !exchange.client_closed() {
            exchange.wake_on_client_closed(context);
            return false;
        }
        let all_written = self.wrote.get() && !self.unflushed.get() && exchange.request_done();
        all_written && !self.write_closed.get()
    }
}

/// A backend's transport.
#[derive(Debug)]
pub(super) struct LinkedIo {
    pub(super) transport: Transport,
    pub(super) link: Rc<Link>,
}

impl AsyncRead for LinkedIo {
    /// hyper reads on every turn while it waits for a response: the place to pass a client's half-close on. The backend
    /// then does what it would have done without us: answer, or give up.
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.link.should_close_write(context) {
            ready!(self.transport.poll_close_write(context))?;
            self.link.write_closed.set(true);
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.transport).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.link.received.set(true);
        }
        Poll::Ready(Ok(()))
    }
}

impl LinkedIo {
    fn wrote(&self, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.link.unflushed.set(true);
        if let Poll::Ready(Ok(_)) = &poll {
            self.link.wrote.set(true);
        }
        poll
    }
}

impl AsyncWrite for LinkedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.transport).poll_write(context, bytes);
        self.wrote(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.transport).poll_write_vectored(context, slices);
        self.wrote(poll)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper flushes only when all it had is written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.transport).poll_flush(context))?;
        self.link.unflushed.set(false);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(context)
    }
}
