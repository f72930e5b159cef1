//! The answer to bytes that the parser didn't take for a request.
//!
//! hyper answers them itself, bare and before anybody else is asked; `stall` keeps that back where it can be told from a
//! response, and it is written anew here: with the body and the fields that all our refusals have.
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

use crate::http::body::Body;
use crate::transport::Transport;

/// For a few hundred bytes into the buffer of a socket.
const PATIENCE: Duration = Duration::from_secs(1);

/// The status of an HTTP/1.1 response that begins with these bytes.
pub(super) fn status(written: &[u8]) -> Option<StatusCode> {
    let code = written.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    StatusCode::from_bytes(code).ok()
}

/// Writes a response that we made, the last of its connection; `head` leaves its body out.
pub(super) async fn write(transport: &mut Transport, response: Response<Body>, head: bool) {
    let bytes = serialized(response, head).await;
    // Whoever is gone, or doesn't read, has no use for it.
    let _ = timeout(PATIENCE, async {
        transport.write_all(&bytes).await?;
        transport.flush().await
    })
    .await;
}

async fn serialized(response: Response<Body>, head: bool) -> Vec<u8> {
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
    use crate::http::respond;

    #[test]
    fn the_status_is_read_from_a_status_line_and_from_nothing_else() {
        assert_eq!(
            status(b"HTTP/1.1 431 Request"),
            Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
        );
        for other in [
            &b""[..],
            b"HTTP/1.1 43",
            b"HTTP/1.0 400 Bad",
            b"HTTP/1.1 abc",
        ] {
            assert_eq!(status(other), None);
        }
    }

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
