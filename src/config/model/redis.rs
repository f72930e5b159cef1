//! `[redis]` and `rate_limit.on_store_error` after validation: the store that replicas share.
//!
//! Must not know: what is kept in the store.

use std::time::Duration;

use super::{Secret, UpstreamServer};
use crate::terms::labels::labels;

/// `[redis]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// How the server is reached. Its name holds no credentials.
    pub server: UpstreamServer,
    /// The user of Redis' access control list; `None` is its default user.
    pub user: Option<String>,
    /// `None` where the server asks for none.
    pub password: Option<Secret>,
    /// The number of the database; 0 is the first.
    pub database: i64,
    /// The beginning of every key: `renewd:`.
    pub prefix: String,
    /// How long a decision waits for one answer: 50 ms.
    pub timeout: Duration,
}

labels! {
    /// `rate_limit.on_store_error`: what becomes of a token request while the store gives no answer.
    pub enum OnStoreError {
        /// This replica's own limits decide.
        Local => "local",
        /// The limits on subject, channel and all requests are off.
        Allow => "allow",
        /// 503.
        Deny => "deny",
    }
}
