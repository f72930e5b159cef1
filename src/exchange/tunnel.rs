//! A tunnel after an upgrade: it copies bytes both ways until both sides have closed, or nothing has moved for long.
//!
//! Keeps true: bytes that one side sent before it closed reach the other; an idle tunnel holds no buffer; when one
//! side has closed and the other doesn't follow, the tunnel ends all the same.
//! Must not know: WebSocket frames, why the tunnel exists.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::response_body::{Ending, Finish, Finished, length};
use crate::io::deadline::Deadline;
use crate::io::transport::{Transport, Upgraded};
use crate::terms::clock::timer_now;

/// Bytes that are read at once. A thread's tunnels share one buffer of this size; a tunnel has its own only for bytes
/// that couldn't be written.
const CHUNK: usize = 16 * 1024;

/// How long one side may be silent after the other has closed. A WebSocket endpoint answers a close at once.
const HALF_CLOSED_IDLE: Duration = Duration::from_secs(30);

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into_boxed_slice());
}

/// The bytes that went through a tunnel. The finish hook is called on drop, however the tunnel ended.
pub struct Traffic {
    to_client: u64,
    ending: Ending,
    finish: Option<Finish>,
}

impl Traffic {
    /// Nothing went through yet.
    pub fn new(finish: Option<Finish>) -> Self {
        Self {
            to_client: 0,
            ending: Ending::Broken,
            finish,
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        if let Some(finish) = self.finish.take() {
            finish(Finished {
                bytes: self.to_client,
                ending: self.ending,
            });
        }
    }
}

/// Copies until both sides have closed, one has broken, nothing has moved for `idle()`, or `ended()`.
///
/// The task has to be woken when `ended` changes.
pub async fn run(
    client: Upgraded,
    upstream: Upgraded,
    idle: impl Fn() -> Duration,
    ended: impl Fn() -> bool,
    traffic: &mut Traffic,
) {
    let mut tunnel = TunnelCopy {
        down: Direction::new(upstream.read_ahead),
        up: Direction::new(client.read_ahead),
        client: client.transport,
        upstream: upstream.transport,
    };
    let mut deadline = Deadline::default();
    let mut moved = timer_now();
    traffic.ending = poll_fn(|context| {
        if ended() {
            return Poll::Ready(Ending::Abandoned);
        }
        let before = tunnel.copied();
        let poll = tunnel.poll(context);
        traffic.to_client = tunnel.down.copied;
        match poll {
            Poll::Ready(Ok(())) => return Poll::Ready(Ending::Complete),
            Poll::Ready(Err(_)) => return Poll::Ready(Ending::Broken),
            Poll::Pending => {}
        }
        if tunnel.copied() != before {
            moved = timer_now();
        }
        let patience = if tunnel.half_closed() {
            HALF_CLOSED_IDLE.min(idle())
        } else {
            idle()
        };
        deadline
            .poll_until(moved + patience, context)
            .map(|()| Ending::Abandoned)
    })
    .await;
}

struct TunnelCopy {
    client: Transport,
    upstream: Transport,
    up: Direction,
    down: Direction,
}

impl TunnelCopy {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let up = self
            .up
            .poll(&mut self.client, &mut self.upstream, context)?;
        let down = self
            .down
            .poll(&mut self.upstream, &mut self.client, context)?;
        ready!(up);
        ready!(down);
        Poll::Ready(Ok(()))
    }

    fn half_closed(&self) -> bool {
        self.up.closed || self.down.closed
    }

    fn copied(&self) -> u64 {
        self.up.copied.wrapping_add(self.down.copied)
    }
}

/// One direction of the tunnel.
struct Direction {
    /// Read and not yet written; empty, without memory, most of the time.
    pending: BytesMut,
    copied: u64,
    read_all: bool,
    closed: bool,
}

impl Direction {
    fn new(pending: Bytes) -> Self {
        Self {
            pending: BytesMut::from(pending),
            copied: 0,
            read_all: false,
            closed: false,
        }
    }

    /// Ready when the sender has closed and the receiver's side is closed too.
    fn poll(
        &mut self,
        from: &mut Transport,
        to: &mut Transport,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|scratch| {
            while !self.closed {
                ready!(self.poll_drain(to, context))?;
                if self.read_all {
                    ready!(to.poll_close_write(context))?;
                    self.closed = true;
                    break;
                }
                // Bytes that TLS has taken may still wait for its socket, which wakes this task when it takes more.
                let _ = Pin::new(&mut *to).poll_flush(context)?;
                let mut buffer = ReadBuf::new(scratch);
                ready!(Pin::new(&mut *from).poll_read(context, &mut buffer))?;
                let read = buffer.filled();
                if read.is_empty() {
                    self.read_all = true;
                    continue;
                }
                let written = match Pin::new(&mut *to).poll_write(context, read) {
                    Poll::Ready(written) => written?,
                    Poll::Pending => 0,
                };
                self.copied += length(written);
                if let Some(rest) = read.get(written..) {
                    self.pending.extend_from_slice(rest);
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    fn poll_drain(
        &mut self,
        to: &mut Transport,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            let written = ready!(Pin::new(&mut *to).poll_write(context, &self.pending))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.copied += length(written);
            self.pending.advance(written);
        }
        // An empty buffer would keep its memory.
        self.pending = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}
