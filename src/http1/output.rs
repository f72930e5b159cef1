//! Bytes that wait to be written to a connection: heads, framing and small frames gathered, one large frame uncopied
//! after them.
//!
//! Keeps true: bytes are written in the order in which they were queued. What has written everything holds no memory.
//! Must not know: what the bytes mean.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use crate::io::transport::Transport;

/// Frames up to this size are copied, which is less work than a list of slices.
const GATHERED: usize = 4 * 1024;

/// Room for most heads with a small frame.
const USUAL: usize = 2 * 1024;

/// How many buffers a thread keeps for its connections to use again: those that write at once need one.
const SPARE: usize = 4;

thread_local! {
    /// Empty buffers. The one used last is still in the processor's caches.
    static SPARES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Output {
    gathered: Vec<u8>,
    written: usize,
    data: Bytes,
    /// The bytes after `data`.
    end: &'static [u8],
}

impl Output {
    /// The buffer to append to, where [`Output::has_room`].
    pub(crate) fn gathered(&mut self) -> &mut Vec<u8> {
        if self.gathered.capacity() == 0 {
            let spare = SPARES.with_borrow_mut(Vec::pop);
            self.gathered = spare.unwrap_or_else(|| Vec::with_capacity(USUAL));
        }
        &mut self.gathered
    }

    /// Appends a frame, and `end` after it.
    pub(crate) fn push(&mut self, data: Bytes, end: &'static [u8]) {
        if data.len() <= GATHERED {
            let gathered = self.gathered();
            gathered.extend_from_slice(&data);
            gathered.extend_from_slice(end);
        } else {
            self.data = data;
            self.end = end;
        }
    }

    /// Whether more can be appended before anything is written.
    pub(crate) fn has_room(&self) -> bool {
        self.data.is_empty() && self.end.is_empty() && self.gathered.len() < GATHERED
    }

    /// Drops what wasn't written.
    pub(crate) fn clear(&mut self) {
        let mut gathered = std::mem::take(&mut self.gathered);
        if gathered.capacity() == USUAL {
            gathered.clear();
            SPARES.with_borrow_mut(|spares| {
                if spares.len() < SPARE {
                    spares.push(gathered);
                }
            });
        }
        self.written = 0;
        self.data = Bytes::new();
        self.end = b"";
    }

    /// Writes some of the bytes, and returns how many; 0 when none are left.
    pub(crate) fn poll_write(
        &mut self,
        transport: &mut Transport,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let head = self.gathered.get(self.written..).unwrap_or_default();
        let transport = Pin::new(transport);
        let written = if self.data.is_empty() && self.end.is_empty() {
            if head.is_empty() {
                self.clear();
                return Poll::Ready(Ok(0));
            }
            ready!(transport.poll_write(context, head))?
        } else {
            let slices = [head, &self.data, self.end].map(IoSlice::new);
            ready!(transport.poll_write_vectored(context, &slices))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_head = written.min(head.len());
        let of_data = (written - of_head).min(self.data.len());
        let of_end = written - of_head - of_data;
        self.written += of_head;
        self.data.advance(of_data);
        self.end = self.end.get(of_end..).unwrap_or_default();
        Poll::Ready(Ok(written))
    }
}
