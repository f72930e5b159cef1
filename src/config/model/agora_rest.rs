//! `[agora.rest]` after validation: how Agora's REST API is asked.
//!
//! Must not know: what is asked there.

use crate::config::secret::Secret;
use crate::http::url::Url;

/// `[agora.rest]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgoraRest {
    /// The user name of Basic authentication: no colon, no control characters.
    pub customer_id: String,
    /// The password of Basic authentication.
    pub customer_secret: Secret,
    /// The server; `https`, or `http` on this machine. Its path, if it has one, comes before that of the API.
    pub base_url: Url,
}
