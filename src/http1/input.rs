//! Bytes that were read from a connection and not parsed yet.
//!
//! Keeps true: the size of reads follows what comes, up to what may be read ahead. A connection without unparsed bytes
//! holds no buffer: small messages are read into one buffer of the thread, so that it stays in the processor's caches
//! however many connections there are.
//! Must not know: what the bytes mean.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, ReadBuf};

use crate::io::transport::Transport;

/// How much is read at once of a message that is likely to be small. Copying more out of the thread's buffer would take
/// longer than a buffer of the connection's own.
const READ: usize = 8 * 1024;

/// Room in the buffer that isn't worth a read.
const SCRAP: usize = 2 * 1024;

thread_local! {
    /// The buffer into which this thread's connections read small messages, one connection at a time.
    static READING: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// Takes bytes from the front. A buffer that they fill is taken itself: to divide it would take an allocation.
pub(super) fn take_front(bytes: &mut BytesMut, length: usize) -> BytesMut {
    if length == bytes.len() && bytes.capacity() - length < SCRAP {
        std::mem::take(bytes)
    } else {
        bytes.split_to(length)
    }
}

/// The buffer.
#[derive(Debug)]
pub(crate) struct Input {
    bytes: BytesMut,
    /// How many bytes to make room for at the next read, where the length of what comes is unknown.
    size: usize,
    /// The most that room was made for.
    reserved: usize,
}

impl From<Bytes> for Input {
    /// Begins with bytes that were read already.
    fn from(read: Bytes) -> Self {
        Self {
            bytes: read.into(),
            ..Self::new()
        }
    }
}

impl Input {
    pub(crate) fn new() -> Self {
        Self {
            bytes: BytesMut::new(),
            size: READ,
            reserved: 0,
        }
    }

    /// The bytes, to parse and to take from the front.
    pub(crate) fn bytes(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    pub(crate) fn into_bytes(self) -> BytesMut {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Reads at most `ahead` bytes, and returns how many came; 0 at the end. `rest` is how many are still to come, if
    /// known.
    pub(crate) fn poll_fill(
        &mut self,
        transport: &mut Transport,
        context: &mut Context<'_>,
        rest: Option<u64>,
        ahead: usize,
    ) -> Poll<io::Result<usize>> {
        let most = ahead.max(READ);
        let wanted = match rest {
            // One byte more than the rest: a read that fills the buffer would need another to tell that no more bytes
            // wait.
            Some(rest) => {
                usize::try_from(rest.saturating_add(1)).map_or(most, |rest| rest.clamp(READ, most))
            }
            None => self.size.min(most),
        };
        let read = if wanted <= READ {
            ready!(self.poll_read_shared(transport, context, wanted))?
        } else {
            ready!(self.poll_read_own(transport, context, wanted))?
        };
        if read.filled {
            self.size = wanted.saturating_mul(2).min(most);
        } else if rest.is_none() && read.bytes < self.size / 4 {
            self.size = (self.size / 2).max(READ);
        }
        Poll::Ready(Ok(read.bytes))
    }

    /// Reads into the thread's buffer, and keeps a copy of exactly what came.
    fn poll_read_shared(
        &mut self,
        transport: &mut Transport,
        context: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<io::Result<Filling>> {
        READING.with_borrow_mut(|reading| {
            let room = reading.get_mut(..wanted).unwrap_or_default();
            let mut buffer = ReadBuf::new(room);
            ready!(Pin::new(transport).poll_read(context, &mut buffer))?;
            let read = buffer.filled();
            if self.bytes.is_empty() {
                self.bytes = BytesMut::from(read);
            } else {
                self.bytes.extend_from_slice(read);
            }
            Poll::Ready(Ok(Filling {
                bytes: read.len(),
                filled: read.len() == wanted,
            }))
        })
    }

    /// Reads into a buffer of this connection's own.
    fn poll_read_own(
        &mut self,
        transport: &mut Transport,
        context: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<io::Result<Filling>> {
        let room = self.bytes.capacity() - self.bytes.len();
        if room < SCRAP.max(wanted / 4) {
            if wanted > self.reserved && self.bytes.is_empty() {
                // A grown buffer would keep the old capacity and double it.
                self.bytes = BytesMut::new();
            }
            self.bytes.reserve(wanted);
            self.reserved = self.reserved.max(wanted);
        }
        let room = (self.bytes.capacity() - self.bytes.len()).min(wanted);
        let mut buffer = (&mut self.bytes).limit(room);
        let read = ready!(pin!(transport.read_buf(&mut buffer)).poll(context))?;
        Poll::Ready(Ok(Filling {
            bytes: read,
            filled: read == room,
        }))
    }

    /// Gives memory back between messages.
    pub(crate) fn shrink(&mut self) {
        // Even an empty part of a buffer keeps all of it.
        self.bytes = BytesMut::from(&self.bytes[..]);
        self.reserved = 0;
    }
}

/// The outcome of one read.
struct Filling {
    bytes: usize,
    /// There was no room for more.
    filled: bool,
}
