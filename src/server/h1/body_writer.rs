//! A response's body on its way to an HTTP/1.1 client.
//!
//! Keeps true: no frame is taken before what came before it is written, so that a slow client slows its backend.
//! Must not know: heads, sockets.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::HeaderMap;
use http_body::Body as _;

use super::socket::ClientSocket;
use crate::exchange::response_body::ResponseBody;
use crate::http1::encode::{Encoder, OtherLength};

/// The body and its framing.
#[derive(Debug)]
pub(crate) struct BodyWriter {
    /// Dropped with its last frame, so that the backend's connection is free before the client has taken all bytes.
    pub(crate) body: Option<ResponseBody>,
    pub(crate) encoder: Encoder,
    /// The client reads trailers.
    pub(crate) takes_trailers: bool,
}

impl BodyWriter {
    /// Sends what is queued, then the body.
    pub(crate) fn poll(
        &mut self,
        client: &ClientSocket,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let gathered = self.poll_gather(client, context)?;
            ready!(client.poll_flush(context))?;
            ready!(gathered);
            if self.body.is_none() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Takes frames of the body until there is enough to write. Pending when there are no more yet.
    fn poll_gather(
        &mut self,
        client: &ClientSocket,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { body, encoder, .. } = self;
        while let Some(frames) = body {
            if *encoder == Encoder::Over && frames.is_end_stream() {
                *body = None;
                break;
            }
            if !client.has_room() {
                break;
            }
            let frame = ready!(Pin::new(frames).poll_frame(context)).transpose()?;
            let trailers = match frame.map(http_body::Frame::into_data) {
                Some(Ok(data)) => {
                    client.queue(|output| encoder.push(data, output))?;
                    continue;
                }
                Some(Err(frame)) => frame.into_trailers().ok(),
                None => None,
            };
            let trailers = trailers
                .filter(|_| self.takes_trailers)
                .unwrap_or_else(HeaderMap::new);
            client.queue(|output| encoder.end(&trailers, output))?;
            *body = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl From<OtherLength> for io::Error {
    fn from(_: OtherLength) -> Self {
        let message = "the body has another length than announced";
        Self::new(io::ErrorKind::InvalidData, message)
    }
}
