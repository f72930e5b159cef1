//! The response to bytes that are no request. Its body and its fields are those of every refusal.
//!
//! Keeps true: a client that doesn't read the response delays nothing else.
//! Must not know: why the bytes were refused.

use std::time::Duration;

use http::{Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::exchange::PublicService;
use crate::exchange::response_body::ResponseBody;
use crate::http1::parse_request::RequestParseError;
use crate::http1::write_response::{ResponseHeadTerms, write_head};
use crate::io::transport::Transport;
use crate::server::response::withhold;
use crate::telemetry::traffic_labels::ParseErrorKind;

/// How long writing a few hundred bytes into a socket's buffer may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Sends the last response of a connection; `by_head` says whether the refused request began as HEAD does.
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
        // An HTTP/2 client can't read a response of HTTP/1.1.
        RequestParseError::Http2 => return,
    };
    let bytes = serialized(service.refuse(status), by_head).await;
    // A client that is gone, or doesn't read, has no use for the response.
    let _ = timeout(PATIENCE, async {
        transport.write_all(&bytes).await?;
        transport.flush().await
    })
    .await;
}

impl From<RequestParseError> for ParseErrorKind {
    fn from(refusal: RequestParseError) -> Self {
        match refusal {
            RequestParseError::Malformed => Self::Malformed,
            RequestParseError::TooLarge | RequestParseError::TargetTooLong => Self::HeadersTooLarge,
            RequestParseError::Http2 => Self::Version,
        }
    }
}

async fn serialized(mut response: Response<ResponseBody>, by_head: bool) -> Vec<u8> {
    withhold(&mut response, by_head);
    let (head, body) = response.into_parts();
    let terms = ResponseHeadTerms {
        version: Version::HTTP_11,
        to_head_request: by_head,
        length: body.size_hint().exact(),
        keep_alive: false,
    };
    let mut bytes = Vec::new();
    write_head(&head, None, terms, &mut bytes);
    // The body is in memory, so that collecting it can't fail.
    if let Ok(body) = body.collect().await {
        bytes.extend_from_slice(&body.to_bytes());
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
