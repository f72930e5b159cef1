//! A tunnel after an upgrade: it copies bytes both ways until both sides have closed, or nothing has moved for long.
//!
//! Keeps true: bytes that one side sent before it closed reach the other, unless an inspection keeps them; an idle
//! tunnel holds no buffer, nor what was read of either side before it began; when one side has closed and the other doesn't follow, the tunnel ends all the same.
//! Must not know: WebSocket frames, why the tunnel exists.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::response_body::{Ending, Finish, Finished, length};
use crate::io::deadline::Deadline;
use crate::io::descriptors::SocketSlot;
use crate::io::transport::{Transport, Upgraded};
use crate::io::wait::Wait;

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

    /// Notes how things stand; ready when that is the end.
    fn note(&mut self, to_client: u64, ending: Poll<Ending>) -> Poll<()> {
        self.to_client = to_client;
        ending.map(|ending| self.ending = ending)
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
/// The task has to be woken when `ended` changes. An `async fn` would keep its arguments as well
/// (<https://github.com/rust-lang/rust/issues/62958>), and there is one such future for every idle tunnel.
pub fn run(
    client: Upgraded,
    upstream: Upgraded,
    inspection: Option<Box<dyn Inspection>>,
    idle: impl Fn() -> Duration + Unpin,
    ended: impl Fn() -> bool + Unpin,
    mut traffic: Traffic,
) -> impl Future<Output = ()> + Unpin {
    let mut tunnel = TunnelCopy {
        down: Direction::default(),
        up: Direction::default(),
        inspection,
        client: client.transport,
        upstream: upstream.transport,
        _slot: upstream.slot,
    };
    tunnel.begin(&client.read_ahead, &upstream.read_ahead);
    let mut deadline = Deadline::default();
    let mut wait = Wait::default();
    poll_fn(move |context| {
        let ending = if ended() {
            Poll::Ready(Ending::Abandoned)
        } else {
            tunnel.poll_ending(&idle, &mut wait, &mut deadline, context)
        };
        traffic.note(tunnel.down.copied, ending)
    })
}

struct TunnelCopy {
    client: Transport,
    upstream: Transport,
    up: Direction,
    down: Direction,
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
        wait: &mut Wait,
        deadline: &mut Deadline,
        context: &mut Context<'_>,
    ) -> Poll<Ending> {
        match self.poll(context) {
            Poll::Ready(Ok(())) => return Poll::Ready(Ending::Complete),
            Poll::Ready(Err(_)) => return Poll::Ready(Ending::Broken),
            Poll::Pending => {}
        }
        let patience = if self.half_closed() {
            HALF_CLOSED_IDLE.min(idle())
        } else {
            idle()
        };
        let since = wait.since(self.copied());
        deadline
            .poll_until(since + patience, context)
            .map(|()| Ending::Abandoned)
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.inspection.as_deref_mut().map(Passing::Sent);
        let up = self
            .up
            .poll(&mut self.client, &mut self.upstream, sent, context)?;
        let inspected = self.inspection.as_deref_mut().map(Passing::Inspected);
        let down = self
            .down
            .poll(&mut self.upstream, &mut self.client, inspected, context)?;
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
        self.up.closed || self.down.closed
    }

    fn copied(&self) -> u64 {
        self.up.copied.wrapping_add(self.down.copied)
    }
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
    copied: u64,
    read_all: bool,
    closed: bool,
}

impl Direction {
    /// Ready when the sender has closed, or must not go on, and the receiver's side is closed too.
    fn poll(
        &mut self,
        from: &mut Transport,
        to: &mut Transport,
        mut passing: Option<Passing<'_>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|scratch| {
            while !self.closed {
                ready!(self.poll_drain(to, context))?;
                if let Some(Passing::Inspected(inspection)) = &mut passing {
                    let data = inspection.poll_data(context);
                    if data.is_pending() {
                        let _ = Pin::new(&mut *to).poll_flush(context)?;
                    }
                    if let Some(data) = ready!(data) {
                        self.pending = Some(Box::new(data));
                        continue;
                    }
                    self.read_all |= inspection.farewell().is_some();
                }
                if self.read_all {
                    ready!(to.poll_close_write(context))?;
                    self.closed = true;
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
                    self.read_all = true;
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
                self.copied += length(written);
                self.keep(passes.get(written..).unwrap_or_default());
            }
            Poll::Ready(Ok(()))
        })
    }

    fn poll_drain(
        &mut self,
        to: &mut Transport,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(pending) = self.pending.as_mut().filter(|bytes| !bytes.is_empty()) {
            let written = ready!(Pin::new(&mut *to).poll_write(context, pending))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.copied += length(written);
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
