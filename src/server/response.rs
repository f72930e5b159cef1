//! What a connection knows of a response and the service can't, whichever protocol it is sent in.
//!
//! Must not know: how a request is answered, how a response is written.

use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Response};
use http_body::Body as _;

use crate::exchange::response_body::ResponseBody;
use crate::http1::write_response::is_bodyless;

/// Takes the body of a response that has none on the wire; HEAD still tells its length.
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
