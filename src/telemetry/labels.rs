//! The closed label sets of what renewd answers itself, for metrics and audit events. The names are the contract's:
//! never change one.
//!
//! Must not know: what counts them.

use crate::terms::labels::labels;

labels! {
    /// The endpoint that a token request counts under.
    pub enum Endpoint {
        /// A first token.
        Token => "token",
        /// A renewal: `routes.refresh`, or `routes.token` by a holder.
        Refresh => "refresh",
        /// A token inside another answer.
        Reissue => "reissue",
    }

    /// The part that answered a request on the public port.
    pub enum Handler {
        /// The token endpoints and their guard.
        Live => "live",
        /// The backend, through renewd.
        Forward => "forward",
        /// `server.health_path`.
        Health => "health",
        /// renewd refused it before routing: a malformed request or a refused method.
        Reject => "reject",
    }
}
