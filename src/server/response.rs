//! Responses that are sent without their body, in either protocol.
//!
//! Must not know: how a request is answered, how a response is written.

use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Response};
use http_body::Body as _;

use crate::exchange::response_body::ResponseBody;
use crate::http1::write_response::is_bodyless;

/// Drops the body of a response that must not have one. The response to HEAD still tells the body's length.
pub(super) fn withhold(response: &mut Response<ResponseBody>, head: bool) {
    if head || is_bodyless(response.status()) {
        let length = response
            .body()
            .size_hint()
            .exact()
            .filter(|length| *length > 0);
        if let Some(length) = length.filter(|_| head) {
            response
                .headers_mut()
                .entry(CONTENT_LENGTH)
                .or_insert(HeaderValue::from(length));
        }
        response.body_mut().withhold();
    }
}
