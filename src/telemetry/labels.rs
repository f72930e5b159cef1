//! The closed label sets of metrics and audit events. Contract names: never change one.

use crate::terms::labels::labels;

labels! {
    /// Which endpoint a token request counts under.
    pub enum Endpoint {
        /// A first token.
        Token => "token",
        /// A renewal: `routes.refresh`, or `routes.token` by a holder.
        Refresh => "refresh",
        /// A token inside another answer.
        Reissue => "reissue",
    }

    /// Who answered a request on the public port.
    pub enum Handler {
        /// The token endpoints and their guard.
        Live => "live",
        /// The backend, through us.
        Forward => "forward",
        /// `server.health_path`.
        Health => "health",
        /// We did, before routing: malformed requests and refused methods.
        Reject => "reject",
    }
}
