//! `[authorize]` after validation: the backend's last word on a grant.
//!
//! Must not know: what is asked.

use std::time::Duration;

use crate::http::url::Url;

/// `[authorize]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorize {
    /// Where the question is posted.
    pub url: Url,
    /// How long one answer may take: 500 ms.
    pub timeout: Duration,
    /// The decision for a user without a token if the hook doesn't answer.
    pub on_error: OnError,
    /// How long holders may refresh while the hook gives no answer: 1 h.
    pub stale_if_error: Duration,
}

/// `authorize.on_error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The request is answered with 503.
    Unavailable,
    /// The request is granted.
    Allow,
}
