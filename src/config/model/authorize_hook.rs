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
    /// What no answer means for who isn't a holder.
    pub on_error: OnError,
    /// How long holders may refresh while the hook gives no answer: 1 h.
    pub stale_if_error: Duration,
}

/// `authorize.on_error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// 503.
    Unavailable,
    /// Yes.
    Allow,
}
