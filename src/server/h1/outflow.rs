//! The bytes on their way to an HTTP/1.1 client, and whether the client takes them.
//!
//! Must not know: what the bytes are, deadlines.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use crate::exchange::pace::Pace;
use crate::http1::output::Output;
use crate::io::transport::Transport;

/// The output, how far it is written, and how often the client took some of it.
#[derive(Debug, Default)]
pub(super) struct Outflow {
    output: Output,
    state: OutflowState,
    taken: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum OutflowState {
    /// All is written and flushed.
    #[default]
    Flushed,
    /// Some is to be written or flushed.
    Queued,
    /// The client takes no more for now.
    Blocked,
}

impl Outflow {
    /// The output, to append to.
    pub(super) fn output(&mut self) -> &mut Output {
        if self.is_flushed() {
            self.state = OutflowState::Queued;
        }
        &mut self.output
    }

    /// Whether more can be queued before anything is written.
    pub(super) fn has_room(&self) -> bool {
        self.output.has_room()
    }

    /// Whether all is written and flushed.
    pub(super) fn is_flushed(&self) -> bool {
        self.state == OutflowState::Flushed
    }

    /// How often the client took something.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// The progress of a wait for the client, while it takes no more.
    pub(super) fn awaited(&self) -> Option<u64> {
        (self.state == OutflowState::Blocked).then_some(self.taken)
    }

    /// Writes what is queued, and flushes it.
    pub(super) fn poll_write(
        &mut self,
        transport: &mut Transport,
        pace: &Pace,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let poll = self.output.poll_write(transport, context);
            let Poll::Ready(written) = poll else {
                self.state = OutflowState::Blocked;
                pace.waits();
                return Poll::Pending;
            };
            self.state = OutflowState::Queued;
            let written = written?;
            if written == 0 {
                break;
            }
            self.taken += 1;
            pace.takes(written);
        }
        ready!(Pin::new(transport).poll_flush(context))?;
        self.state = OutflowState::Flushed;
        Poll::Ready(Ok(()))
    }
}
