//! A backend's response, prepared for the client.
//!
//! Must not know: what is in its body.

use http::Response;

use crate::exchange::response_body::ResponseBody;
use crate::http::hop::{self, X_REQUEST_ID};
use crate::terms::context::RequestId;

/// Leaves the fields that are for the client and adds `x-request-id`; see [`hop::response_headers`]. Raw fields hold
/// only what is for the client.
pub(crate) fn finish(response: &mut Response<ResponseBody>, id: &RequestId, switched: bool) {
    if let Some(fields) = response.body_mut().raw_fields_mut() {
        fields.push(X_REQUEST_ID.as_str().as_bytes(), id.as_bytes());
        return;
    }
    let headers = std::mem::take(response.headers_mut());
    *response.headers_mut() = hop::response_headers(headers, id.header(), switched);
}

/// The same response with its raw fields in its map, so that they can be read.
pub(crate) fn mapped(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    if let Some(fields) = response.body_mut().raw_fields_mut().take() {
        *response.headers_mut() = fields.into_map();
    }
    response
}
