//! A tunnel after an upgrade: it copies bytes both ways until both sides have closed, or nothing has moved for long.
//!
//! Keeps true: bytes that one side sent before it closed reach the other, unless an inspection keeps them; an idle
//! tunnel holds no buffer, nor what was read of either side before it began; when one side has closed and the other
//! doesn't follow, the tunnel ends all the same.
//! Must not know: WebSocket frames, why the tunnel exists.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::response_body::{Ending, Finish, Finished, length};
use crate::io::deadline::Deadline;
use crate::io::descriptors::SocketSlot;
use crate::io::transport::{Transport, Upgraded};
use crate::terms::clock::turn_now;

/// Bytes that are read at once. A thread's tunnels share one buffer for them; a tunnel has its own only for bytes that
/// couldn't be written.
const CHUNK: usize = 16 * 1024;

/// The same where they are inspected: a frame of 16 KiB is mostly whole then, and needn't be kept.
const INSPECTED_CHUNK: usize = 2 * CHUNK;

/// The most bytes that an inspection puts back before those that are read next.
const PUT_BACK: usize = 16 * 1024;

/// How long one side may be silent after the other has closed. A WebSocket endpoint answers a close at once.
const HALF_CLOSED_IDLE: Duration = Duration::from_secs(30);

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; PUT_BACK + INSPECTED_CHUNK].into_boxed_slice());
}

/// Looks at what passes through a tunnel, and changes what goes to the client.
pub trait Inspection {
    /// Bytes of the client, which pass as they are.
    fn sent(&mut self, bytes: &[u8]);

    /// Moves bytes that were kept to the end of this room, returns how many, and gets them again with the next ones of the
    /// backend: what has come in part needn't be copied whole then. All that were kept, or none.
    fn put_back(&mut self, room: &mut [u8]) -> usize;

    /// The next bytes of the backend: how many of them, from the first, pass as they are. The others are kept. Called
    /// only after [`Inspection::poll_data`] asked for more.
    fn take(&mut self, bytes: &[u8]) -> usize;

    /// Notes that the backend sends no more bytes.
    fn end(&mut self);

    /// The next bytes for the client in place of those that were kept; `None` asks for more.
    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>>;

    /// The last bytes for the backend, where the tunnel must end because the backend broke its protocol.
    fn farewell(&self) -> Option<&'static [u8]>;
}

/// Copies until both sides have closed, one has broken, nothing has moved for `idle()`, or `ended()`.
///
/// The task has to be woken when `ended` changes. `finish` is called on drop, however the tunnel ended. An `async fn` would
/// keep its arguments as well (<https://github.com/rust-lang/rust/issues/62958>), and there is one such future for every
/// idle tunnel.
pub fn run(
    client: Upgraded,
    upstream: Upgraded,
    inspection: Option<Box<dyn Inspection>>,
    idle: impl Fn() -> Duration + Unpin,
    ended: impl Fn() -> bool + Unpin,
    finish: Option<Finish>,
) -> impl Future<Output = ()> + Unpin {
    let mut tunnel = TunnelCopy {
        down: Direction::default(),
        up: Direction::default(),
        down_stage: DirectionStage::Reads,
        up_stage: DirectionStage::Reads,
        ending: Ending::Broken,
        to_client: 0,
        since: None,
        finish,
        inspection,
        client: client.transport,
        upstream: upstream.transport,
        _slot: upstream.slot,
    };
    tunnel.begin(&client.read_ahead, &upstream.read_ahead);
    let mut deadline = Deadline::default();
    poll_fn(move |context| {
        let ending = if ended() {
            Poll::Ready(Ending::Abandoned)
        } else {
            tunnel.poll_ending(&idle, &mut deadline, context)
        };
        ending.map(|ending| tunnel.ending = ending)
    })
}

/// There is one for every idle tunnel: what could be a direction's own is here, where it takes less room.
struct TunnelCopy {
    client: Transport,
    upstream: Transport,
    up: Direction,
    down: Direction,
    up_stage: DirectionStage,
    down_stage: DirectionStage,
    ending: Ending,
    /// How many bytes went to the client.
    to_client: u64,
    /// Since when nothing has moved.
    since: Option<Instant>,
    finish: Option<Finish>,
    inspection: Option<Box<dyn Inspection>>,
    /// The place of the backend's socket, given back when the tunnel ends.
    _slot: Option<SocketSlot>,
}

impl TunnelCopy {
    /// Takes what both sides sent together with their part of the upgrade.
    fn begin(&mut self, client: &[u8], upstream: &[u8]) {
        let passes = match &mut self.inspection {
            Some(inspection) => {
                inspection.sent(client);
                inspection.take(upstream)
            }
            None => upstream.len(),
        };
        self.up.keep(client);
        self.down.keep(upstream.get(..passes).unwrap_or(upstream));
    }

    /// Copies; ready when the tunnel is over.
    fn poll_ending(
        &mut self,
        idle: &impl Fn() -> Duration,
        deadline: &mut Deadline,
        context: &mut Context<'_>,
    ) -> Poll<Ending> {
        let (before, mut to_backend) = (self.to_client, 0);
        match self.poll(&mut to_backend, context) {
            Poll::Ready(Ok(())) => return Poll::Ready(Ending::Complete),
            Poll::Ready(Err(_)) => return Poll::Ready(Ending::Broken),
            Poll::Pending => {}
        }
        let patience = if self.half_closed() {
            HALF_CLOSED_IDLE.min(idle())
        } else {
            idle()
        };
        let has_moved = to_backend > 0 || self.to_client != before;
        let since = match self.since {
            Some(since) if !has_moved => since,
            _ => *self.since.insert(turn_now()),
        };
        deadline
            .poll_until(since + patience, context)
            .map(|()| Ending::Abandoned)
    }

    /// Counts the bytes that go to the backend.
    fn poll(&mut self, to_backend: &mut u64, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.inspection.as_deref_mut().map(Passing::Sent);
        let way = Way {
            from: &mut self.client,
            to: &mut self.upstream,
            stage: &mut self.up_stage,
            copied: to_backend,
        };
        let up = self.up.poll(way, sent, context)?;
        let inspected = self.inspection.as_deref_mut().map(Passing::Inspected);
        let way = Way {
            from: &mut self.upstream,
            to: &mut self.client,
            stage: &mut self.down_stage,
            copied: &mut self.to_client,
        };
        let down = self.down.poll(way, inspected, context)?;
        if let Poll::Ready(()) = down
            && let Some(farewell) = self.inspection.as_ref().and_then(|it| it.farewell())
        {
            // The backend gets it if its socket has room, and the connection's end in any case.
            let _ = Pin::new(&mut self.upstream).poll_write(context, farewell);
            let _ = self.upstream.poll_close_write(context);
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        ready!(up);
        ready!(down);
        Poll::Ready(Ok(()))
    }

    fn half_closed(&self) -> bool {
        [self.up_stage, self.down_stage].contains(&DirectionStage::Closed)
    }
}

impl Drop for TunnelCopy {
    fn drop(&mut self) {
        if let Some(finish) = self.finish.take() {
            finish(Finished {
                bytes: self.to_client,
                ending: self.ending,
            });
        }
    }
}

/// How far a direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DirectionStage {
    Reads,
    /// The sender has closed, or must not go on.
    HasRead,
    /// The receiver's side is closed too.
    Closed,
}

/// The ends of a direction, and how it stands.
struct Way<'t> {
    from: &'t mut Transport,
    to: &'t mut Transport,
    stage: &'t mut DirectionStage,
    copied: &'t mut u64,
}

/// How an inspection takes part in a direction.
enum Passing<'i> {
    /// The client's bytes are shown to it.
    Sent(&'i mut (dyn Inspection + 'static)),
    /// The backend's bytes go through it.
    Inspected(&'i mut (dyn Inspection + 'static)),
}

impl Passing<'_> {
    /// Shows bytes to the inspection; returns those that pass as they are.
    fn look<'r>(&mut self, read: &'r [u8]) -> &'r [u8] {
        match self {
            Self::Sent(inspection) => {
                inspection.sent(read);
                read
            }
            Self::Inspected(inspection) => {
                let passes = inspection.take(read);
                read.get(..passes).unwrap_or(read)
            }
        }
    }
}

/// One direction of the tunnel.
#[derive(Default)]
struct Direction {
    /// Read and not yet written: mostly nothing, which takes no memory. Boxed, for most tunnels are idle.
    pending: Option<Box<Bytes>>,
}

impl Direction {
    /// Ready when the sender has closed, or must not go on, and the receiver's side is closed too.
    fn poll(
        &mut self,
        Way {
            from,
            to,
            stage,
            copied,
        }: Way<'_>,
        mut passing: Option<Passing<'_>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|scratch| {
            while *stage != DirectionStage::Closed {
                ready!(self.poll_drain(to, copied, context))?;
                if let Some(Passing::Inspected(inspection)) = &mut passing {
                    let data = inspection.poll_data(context);
                    if data.is_pending() {
                        let _ = Pin::new(&mut *to).poll_flush(context)?;
                    }
                    if let Some(data) = ready!(data) {
                        self.pending = Some(Box::new(data));
                        continue;
                    }
                    if inspection.farewell().is_some() {
                        *stage = DirectionStage::HasRead;
                    }
                }
                if *stage == DirectionStage::HasRead {
                    ready!(to.poll_close_write(context))?;
                    *stage = DirectionStage::Closed;
                    break;
                }
                // Bytes that TLS has taken may still wait for its socket, which wakes this task when it takes more.
                let _ = Pin::new(&mut *to).poll_flush(context)?;
                let (room, chunk) = scratch.split_at_mut(PUT_BACK);
                let chunk = match &passing {
                    Some(Passing::Inspected(_)) => chunk,
                    _ => chunk.get_mut(..CHUNK).unwrap_or_default(),
                };
                let mut buffer = ReadBuf::new(chunk);
                ready!(Pin::new(&mut *from).poll_read(context, &mut buffer))?;
                let end = PUT_BACK + buffer.filled().len();
                if end == PUT_BACK {
                    *stage = DirectionStage::HasRead;
                    if let Some(Passing::Inspected(inspection)) = &mut passing {
                        inspection.end();
                    }
                    continue;
                }
                let put_back = match &mut passing {
                    Some(Passing::Inspected(inspection)) => inspection.put_back(room),
                    _ => 0,
                };
                let read = scratch.get(PUT_BACK - put_back..end).unwrap_or_default();
                let passes = passing.as_mut().map_or(read, |passing| passing.look(read));
                if passes.is_empty() {
                    continue;
                }
                let written = match Pin::new(&mut *to).poll_write(context, passes) {
                    Poll::Ready(written) => written?,
                    Poll::Pending => 0,
                };
                *copied += length(written);
                self.keep(passes.get(written..).unwrap_or_default());
            }
            Poll::Ready(Ok(()))
        })
    }

    fn poll_drain(
        &mut self,
        to: &mut Transport,
        copied: &mut u64,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(pending) = self.pending.as_mut().filter(|bytes| !bytes.is_empty()) {
            let written = ready!(Pin::new(&mut *to).poll_write(context, pending))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *copied += length(written);
            pending.advance(written);
        }
        // An empty buffer would keep its memory.
        self.pending = None;
        Poll::Ready(Ok(()))
    }

    /// Keeps bytes until they can be written, where none are kept.
    fn keep(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.pending = Some(Box::new(Bytes::copy_from_slice(bytes)));
        }
    }
}
