//! Closing a connection whose client may still be sending.
//!
//! Must not know: why it is closed.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};

use crate::io::deadline::Deadline;
use crate::io::transport::Transport;
use crate::terms::clock::timer_now;

/// How much is read and thrown away after a response that left input unread: closing at once would reset the
/// connection, and could destroy the response.
const LINGER_BYTES: usize = 256 * 1024;
/// How long input is thrown away.
const LINGER: Duration = Duration::from_secs(1);

/// Closes renewd's side in order, as far as the client takes it. Only TLS has something to send: `close_notify`.
pub(super) async fn close(transport: Transport) {
    if transport.is_tls() {
        close_reading(transport, 0).await;
    }
}

/// Closes renewd's side, and reads for a moment what the client is still sending: closing at once would reset the
/// connection, and could destroy the response before the client has read it.
pub(super) async fn linger_then_close(transport: Transport) {
    close_reading(transport, LINGER_BYTES).await;
}

/// Closes renewd's side, and reads at most `left` bytes meanwhile. An error means that the client has gone.
async fn close_reading(mut transport: Transport, mut left: usize) {
    let mut deadline = Deadline::default();
    let due = timer_now() + LINGER;
    let mut closed = false;
    poll_fn(|context| {
        loop {
            if deadline.poll_until(due, context).is_ready() {
                return Poll::Ready(());
            }
            if !closed {
                match transport.poll_close_write(context) {
                    // Reading goes on: the client may take `close_notify` only after it has sent all of its own bytes.
                    Poll::Pending if left == 0 => return Poll::Pending,
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) if left > 0 => closed = true,
                    Poll::Ready(_) => return Poll::Ready(()),
                }
            }
            // The buffer is on the stack: at a stop thousands of connections linger at once.
            let mut chunk = [const { MaybeUninit::uninit() }; 4096];
            let mut buffer = ReadBuf::uninit(&mut chunk);
            match Pin::new(&mut transport).poll_read(context, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {
                    let length = buffer.filled().len();
                    if length == 0 || length >= left {
                        return Poll::Ready(());
                    }
                    left -= length;
                }
            }
        }
    })
    .await;
}
