//! The socket of an HTTP/2 client. The client's frames are followed on their way in, and the progress of writing is
//! noted.
//!
//! Keeps true: bytes pass unchanged, except for a flag that [`FrameFollower`] takes from malformed trailers.
//! Must not know: deadlines, streams.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::FrameFollower;
use crate::io::transport::Transport;
use crate::server::open::Opened;
use crate::server::stall::WriteProgress;

/// The socket.
#[derive(Debug)]
pub(crate) struct Framed {
    pub(super) transport: Transport,
    /// Bytes that were read already; reading gives them first.
    pub(super) ahead: Bytes,
    pub(super) frames: Rc<RefCell<FrameFollower>>,
    pub(super) sending: Rc<WriteProgress>,
}

impl Framed {
    pub(super) fn new(
        opened: Opened,
        frames: &Rc<RefCell<FrameFollower>>,
        sending: &Rc<WriteProgress>,
    ) -> Self {
        Self {
            transport: opened.transport,
            ahead: opened.ahead,
            frames: frames.clone(),
            sending: sending.clone(),
        }
    }
}

impl AsyncRead for Framed {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if this.ahead.is_empty() {
            ready!(Pin::new(&mut this.transport).poll_read(context, buffer))?;
        } else {
            let length = this.ahead.len().min(buffer.remaining());
            buffer.put_slice(&this.ahead[..length]);
            this.ahead.advance(length);
        }
        let mut frames = this.frames.borrow_mut();
        frames.push(buffer.filled_mut().get_mut(before..).unwrap_or_default());
        if frames.broken() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Framed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.transport).poll_write(context, bytes);
        wrote(&self.sending, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.transport).poll_write_vectored(context, slices);
        wrote(&self.sending, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(context)
    }
}

fn wrote(sending: &WriteProgress, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
    match &poll {
        Poll::Pending => sending.waits(),
        Poll::Ready(_) => sending.takes(),
    }
    poll
}
