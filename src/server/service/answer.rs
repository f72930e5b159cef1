//! A backend's response, made fit to travel on.
//!
//! Must not know: what is in its body.

use http::Response;

use crate::exchange::response_body::ResponseBody;
use crate::http::hop::{self, X_REQUEST_ID};
use crate::terms::context::RequestId;

/// Leaves what is for the client, and adds our `x-request-id`; see [`hop::response_headers`]. Of lines, only those that
/// travel were written.
pub(crate) fn finish(response: &mut Response<ResponseBody>, id: &RequestId, switched: bool) {
    if let Some(fields) = response.body_mut().raw_fields_mut() {
        fields.push(X_REQUEST_ID.as_str().as_bytes(), id.value().as_bytes());
        return;
    }
    let headers = std::mem::take(response.headers_mut());
    *response.headers_mut() = hop::response_headers(headers, id.header(), switched);
}

/// The same response with all its fields in its map, to be looked at.
pub(crate) fn mapped(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    if let Some(fields) = response.body_mut().raw_fields_mut().take() {
        *response.headers_mut() = fields.into_map();
    }
    response
}
