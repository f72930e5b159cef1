//! The answer to bytes that are no request: with the body and the fields that all our refusals have.
//!
//! Keeps true: a client that doesn't read holds nobody up.
//! Must not know: why the bytes were refused.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::exchange::PublicService;
use crate::exchange::response_body::ResponseBody;
use crate::http1::parse_request::RequestParseError;
use crate::io::transport::Transport;
use crate::server::HttpParseError;

/// For a few hundred bytes into the buffer of a socket.
const PATIENCE: Duration = Duration::from_secs(1);

/// Answers in words, without a body where HEAD was asked.
pub(crate) async fn answer(
    refusal: RequestParseError,
    by_head: bool,
    transport: &mut Transport,
    service: &impl PublicService,
) {
    let status = match refusal {
        RequestParseError::Malformed => StatusCode::BAD_REQUEST,
        RequestParseError::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        RequestParseError::TargetTooLong => StatusCode::URI_TOO_LONG,
        // Who speaks HTTP/2 wouldn't understand.
        RequestParseError::Http2 => return,
    };
    write(transport, service.refuse(status), by_head).await;
}

impl From<RequestParseError> for HttpParseError {
    fn from(refusal: RequestParseError) -> Self {
        match refusal {
            RequestParseError::Malformed => Self::Malformed,
            RequestParseError::TooLarge | RequestParseError::TargetTooLong => Self::TooLarge,
            RequestParseError::Http2 => Self::Http2,
        }
    }
}

/// Writes a response that we made, the last of its connection; `head` leaves its body out.
async fn write(transport: &mut Transport, response: Response<ResponseBody>, head: bool) {
    let bytes = serialized(response, head).await;
    // Whoever is gone, or doesn't read, has no use for it.
    let _ = timeout(PATIENCE, async {
        transport.write_all(&bytes).await?;
        transport.flush().await
    })
    .await;
}

async fn serialized(response: Response<ResponseBody>, head: bool) -> Vec<u8> {
    let (mut parts, body) = response.into_parts();
    // A body of ours is complete and can't fail; an empty one would still carry the status.
    let body: Bytes = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::new(),
    };
    parts.headers.insert(CONTENT_LENGTH, body.len().into());
    parts
        .headers
        .insert(CONNECTION, HeaderValue::from_static("close"));
    let reason = parts.status.canonical_reason().unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", parts.status.as_str()).into_bytes();
    for (name, value) in &parts.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    bytes.extend_from_slice(b"\r\n");
    if !head {
        bytes.extend_from_slice(&body);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::respond;

    #[tokio::test]
    async fn a_response_is_written_with_its_length_and_the_end_of_its_connection() {
        let response = || {
            let mut response = respond::failure(StatusCode::BAD_REQUEST, "a", "b");
            response.headers_mut().remove("cache-control");
            response
        };
        let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json; charset=utf-8\r\n\
                    content-length: 42\r\nconnection: close\r\n\r\n";
        let body = r#"{"success":false,"code":"a","message":"b"}"#;
        let text = |bytes| String::from_utf8(bytes).unwrap();
        assert_eq!(
            text(serialized(response(), false).await),
            [head, body].concat()
        );
        assert_eq!(text(serialized(response(), true).await), head);
    }
}
