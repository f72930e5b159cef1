//! The status page: one document that holds no data and fetches `/v1/status`.
//!
//! Keeps true: the content security policy names the hashes of its script and its style, so that no other runs.
//! Must not know: what the status is.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::CONTENT_SECURITY_POLICY;
use http::{HeaderValue, StatusCode};
use sha2::{Digest as _, Sha256};

use super::respond::{self, AdminResponse};

const DOCUMENT: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("page.js");
const STYLE: &str = include_str!("page.css");

static PAGE: LazyLock<Bytes> = LazyLock::new(|| {
    let page = DOCUMENT
        .replace("/*STYLE*/", STYLE)
        .replace("/*SCRIPT*/", SCRIPT);
    Bytes::from(page)
});

static POLICY: LazyLock<Option<HeaderValue>> = LazyLock::new(|| {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    );
    HeaderValue::from_str(&policy).ok()
});

/// The page.
pub(crate) fn answer() -> AdminResponse {
    let mut answer = respond::answer(StatusCode::OK, "text/html; charset=utf-8", PAGE.clone());
    if let Some(policy) = POLICY.as_ref() {
        answer
            .headers_mut()
            .insert(CONTENT_SECURITY_POLICY, policy.clone());
    }
    answer
}
