//! Bytes that were read from a connection and not parsed yet.
//!
//! Keeps true: the size of reads follows what comes, up to what may be read ahead.
//! Must not know: what the bytes mean.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;

use crate::io::transport::Transport;

/// How much is read at once of a message that is likely to be small.
const READ: usize = 8 * 1024;

/// Room in the buffer that isn't worth a read.
const SCRAP: usize = 2 * 1024;

/// How much memory an idle connection may keep.
const IDLE_CAPACITY: usize = 16 * 1024;

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
        if read == room {
            self.size = wanted.saturating_mul(2).min(most);
        } else if rest.is_none() && read < self.size / 4 {
            self.size = (self.size / 2).max(READ);
        }
        Poll::Ready(Ok(read))
    }

    /// Gives back memory that only a large answer needed.
    pub(crate) fn shrink(&mut self) {
        if self.bytes.capacity() > IDLE_CAPACITY {
            self.bytes = BytesMut::from(&self.bytes[..]);
            self.reserved = 0;
        }
    }
}
