//! The reply to one request over HTTP/2: interim responses, the response's head, its body, its trailers.
//!
//! Keeps true: a piece of the body waits for the client's window before the next is asked for, so that a slow client
//! slows the backend; a stream that the client has reset ends at once, and a body that breaks resets its stream.
//! Must not know: deadlines, what a request means.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Body as _;

use super::streams::RequestStream;
use crate::exchange::response_body::ResponseBody;
use crate::exchange::{Exchange, InterimResponse, Unanswered};
use crate::http::{hop, http2 as fields};
use crate::http1::write_response::is_bodyless;

/// How much of a body is sent at once: a DATA frame, so that each shows that the client takes bytes.
const PIECE: usize = 16 * 1024;

/// The client has reset the stream, the connection has ended, or there is no response: there is nobody to tell.
struct Gone;

impl From<Unanswered> for Gone {
    fn from(_: Unanswered) -> Self {
        Self
    }
}

/// Sends the response when it is ready, and interim ones before.
pub(super) async fn reply(
    mut sending: SendResponse<Bytes>,
    response: impl Future<Output = Result<Box<Response<ResponseBody>>, Unanswered>>,
    stream: Rc<RequestStream>,
) {
    let Ok(response) = response_or_gone(&mut sending, response, stream.exchange()).await else {
        return;
    };
    stream.exchange().response_begins();
    let (mut head, body) = response.into_parts();
    // A 304 is the only response without a body that may tell the length of its representation (RFC 9110 §8.6).
    let may_say_length = !is_bodyless(head.status) || head.status == StatusCode::NOT_MODIFIED;
    fields::strip_for_http2(&mut head.headers, may_say_length);
    fields::leave_id_unindexed(&mut head.headers);
    let ends = body.is_end_stream();
    // A length that is said twice, or in a list, is malformed (RFC 9113 §8.1.1).
    let is_said_once =
        fields::join_lengths(&mut head.headers) && head.headers.contains_key(CONTENT_LENGTH);
    if !ends
        && !is_said_once
        && let Some(length) = body.size_hint().exact()
    {
        head.headers
            .insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    let Ok(body_stream) = sending.send_response(Response::from_parts(head, ()), ends) else {
        sending.send_reset(Reason::INTERNAL_ERROR);
        return;
    };
    if !ends {
        let mut body = BodySending {
            body,
            rest: Bytes::new(),
            piece: None,
            sending: body_stream,
            stream: &stream,
        };
        let _ = poll_fn(|context| body.poll(context)).await;
    }
}

/// Waits for the response, and for the client to reset the stream.
async fn response_or_gone(
    sending: &mut SendResponse<Bytes>,
    response: impl Future<Output = Result<Box<Response<ResponseBody>>, Unanswered>>,
    exchange: &Exchange,
) -> Result<Box<Response<ResponseBody>>, Gone> {
    let mut response = pin!(response);
    poll_fn(|context| {
        let poll = response.as_mut().poll(context);
        while let Some(interim) = exchange.next_interim() {
            send_interim(sending, interim);
        }
        if let Poll::Ready(response) = poll {
            return Poll::Ready(response.map_err(Gone::from));
        }
        let _ = ready!(sending.poll_reset(context));
        Poll::Ready(Err(Gone))
    })
    .await
}

fn send_interim(sending: &mut SendResponse<Bytes>, interim: InterimResponse) {
    let InterimResponse {
        mut parts,
        raw_fields,
    } = interim;
    if let Some(raw_fields) = raw_fields {
        parts.headers = raw_fields.into_map();
    }
    let mut headers = HeaderMap::with_capacity(parts.headers.len());
    for (name, value) in hop::interim_fields(&parts.headers) {
        headers.append(name, value.clone());
    }
    parts.headers = headers;
    // One that h2 refuses to send is no loss: the final response follows.
    let _ = sending.send_informational(Response::from_parts(parts, ()));
}

/// A body on its way.
struct BodySending<'s> {
    body: ResponseBody,
    /// The rest of the body's last frame.
    rest: Bytes,
    /// The piece that waits for the client's window, and whether it is the last.
    piece: Option<(Bytes, bool)>,
    sending: SendStream<Bytes>,
    stream: &'s RequestStream,
}

impl BodySending<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        loop {
            if self.sending.poll_reset(context).is_ready() {
                return Poll::Ready(Err(Gone));
            }
            if self.piece.is_some() {
                ready!(self.poll_window(context))?;
            }
            if let Some((piece, last)) = self.piece.take() {
                self.stream.sending().takes();
                self.send(piece, last)?;
                if last {
                    return Poll::Ready(Ok(()));
                }
            }
            if !self.rest.is_empty() {
                let piece = self.rest.split_to(self.rest.len().min(PIECE));
                let last = self.rest.is_empty() && self.body.is_end_stream();
                // A claim on the smallest window: h2 raises it to the piece's length when it is sent, and a larger one
                // would keep other streams of the connection from theirs.
                self.sending.reserve_capacity(1);
                self.stream.sending().waits();
                self.piece = Some((piece, last));
                continue;
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => self.rest = data,
                    Ok(_) if !self.body.is_end_stream() => {}
                    Ok(_) => return Poll::Ready(self.send(Bytes::new(), true)),
                    Err(frame) => return Poll::Ready(self.end(frame.into_trailers().ok())),
                },
                Some(Err(_)) => {
                    self.sending.send_reset(Reason::INTERNAL_ERROR);
                    return Poll::Ready(Err(Gone));
                }
                None => return Poll::Ready(self.end(None)),
            }
        }
    }

    /// Waits until the client takes a byte.
    fn poll_window(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        while self.sending.capacity() == 0 {
            match ready!(self.sending.poll_capacity(context)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(Gone)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, data: Bytes, last: bool) -> Result<(), Gone> {
        self.sending.send_data(data, last).map_err(|_| Gone)
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Gone> {
        match trailers {
            Some(trailers) => {
                // The window that was claimed and isn't needed goes back.
                self.sending.reserve_capacity(0);
                self.sending.send_trailers(trailers).map_err(|_| Gone)
            }
            None => self.send(Bytes::new(), true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Answering = Pin<Box<dyn Future<Output = Result<Box<Response<ResponseBody>>, Unanswered>>>>;

    /// The size of the future that a function makes.
    fn size<A, F>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_future_of_a_reply_stays_small() {
        let future = size(|(sending, answering, stream): (_, Answering, _)| {
            reply(sending, answering, stream)
        });
        // There is one for each stream. Unboxed, it would hold the answer's future twice.
        assert!(future <= 1024, "{future}");
    }
}
