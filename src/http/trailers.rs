//! Which fields may be trailers (RFC 9110 §6.5.1).
//!
//! Must not know: how trailers are framed, which of them concern one hop.

use http::HeaderName;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    COOKIE, EXPECT, HOST, MAX_FORWARDS, SET_COOKIE, TE, TRAILER,
};

/// Whether a field is allowed as a trailer: none that frames, routes, authenticates or says how to read the body.
pub(super) fn may_be_trailer(name: &HeaderName) -> bool {
    ![
        AUTHORIZATION,
        CACHE_CONTROL,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        COOKIE,
        EXPECT,
        HOST,
        MAX_FORWARDS,
        SET_COOKIE,
        TE,
        TRAILER,
    ]
    .contains(name)
}
