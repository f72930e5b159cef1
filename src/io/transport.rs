//! A connected byte stream to a client or a server: the one type that IO is done on.
//!
//! Keeps true: clear text and TLS are one type, so that its users need not tell them apart.
//! Must not know: HTTP, or which program is at the other end.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

use super::descriptors::SocketSlot;

/// How much is read at once when a sleeping connection wakes: mostly a request's head.
const WAKING: usize = 2048;

/// Up to this size slices are copied into one buffer instead of being gathered by the kernel.
const SHORT: usize = 2048;

/// A connected socket.
#[derive(Debug)]
pub enum Transport {
    /// TCP, in clear text.
    Tcp(TcpStream),
    /// A unix stream socket.
    Unix(UnixStream),
    /// TLS over TCP or a unix socket.
    Tls(Box<TlsStream<Transport>>),
}

/// A transport taken out of HTTP after an upgrade.
#[derive(Debug)]
pub struct Upgraded {
    /// The socket.
    pub transport: Transport,
    /// Bytes that were read behind the last HTTP message and belong to the new protocol.
    pub read_ahead: Bytes,
    /// The place of the backend's socket in a budget, given back when the tunnel ends.
    pub slot: Option<SocketSlot>,
}

impl Transport {
    /// Whether this is TLS, where closing sends `close_notify`.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Waits for bytes without holding a buffer, and returns them; none at the end of the stream.
    ///
    /// Only reading shows whether there are bytes: a new socket counts as readable until a read blocks, and a TLS
    /// connection's socket may have records without application data.
    pub(crate) fn poll_wake(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let mut chunk = [const { MaybeUninit::uninit() }; WAKING];
        let mut buffer = ReadBuf::uninit(&mut chunk);
        ready!(Pin::new(self).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
    }

    /// Ready when the other end has sent bytes, or has left. Nothing is read. Only for clear text; a unix socket may be
    /// ready too early, since tokio 1.54 takes a new one for readable (`UnixStream::poll_read_ready`).
    pub(crate) fn poll_begun(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Tcp(stream) => {
                let mut byte = [0];
                let mut buffer = ReadBuf::new(&mut byte);
                stream.poll_peek(context, &mut buffer).map(|_| ())
            }
            Self::Unix(stream) => stream.poll_read_ready(context).map(|_| ()),
            Self::Tls(_) => Poll::Ready(()),
        }
    }

    /// Tells the other end that no more bytes will come, with `close_notify` where this is TLS; reading goes on.
    pub(crate) fn poll_close_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_shutdown(context)
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => match Pin::new(&mut **stream).poll_read(context, buffer) {
                // Many clients close without `close_notify`, which rustls reports as an error
                // (<https://docs.rs/rustls/latest/rustls/manual/_03_howto/index.html#unexpected-eof>). A request
                // tells by itself where it ends (RFC 9112 §9.8). A server's response may have been cut off.
                Poll::Ready(Err(error))
                    if error.kind() == io::ErrorKind::UnexpectedEof
                        && matches!(**stream, TlsStream::Server(_)) =>
                {
                    Poll::Ready(Ok(()))
                }
                poll => poll,
            },
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // Most messages are one slice, or short. Sending one buffer is less work for the kernel than gathering it
        // from a list, and copying a few bytes takes less time than that.
        if let [only] = slices {
            return self.poll_write(context, only);
        }
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if length <= SHORT {
            let mut chunk = [const { MaybeUninit::uninit() }; SHORT];
            let mut message = ReadBuf::uninit(&mut chunk);
            for slice in slices {
                message.put_slice(slice);
            }
            return self.poll_write(context, message.filled());
        }
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(context),
        }
    }
}
