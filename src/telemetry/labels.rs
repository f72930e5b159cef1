//! The closed label sets of metrics and audit events. Contract names: never change one.

/// Which endpoint a token request counts under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A first token.
    Token,
    /// A renewal: `routes.refresh`, or `routes.token` by a holder.
    Refresh,
    /// A token inside another answer.
    Reissue,
}

impl Endpoint {
    /// Every endpoint, in order of declaration.
    pub const ALL: [Self; 3] = [Self::Token, Self::Refresh, Self::Reissue];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Refresh => "refresh",
            Self::Reissue => "reissue",
        }
    }
}

/// Who answered a request on the public port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Handler {
    /// The token endpoints and their guard.
    Live,
    /// The backend, through us.
    Forward,
    /// `server.health_path`.
    Health,
    /// We did, before routing: malformed requests and refused methods.
    Reject,
}

impl Handler {
    /// Every handler, in order of declaration.
    pub(crate) const ALL: [Self; 4] = [Self::Live, Self::Forward, Self::Health, Self::Reject];

    /// The label's value.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Forward => "forward",
            Self::Health => "health",
            Self::Reject => "reject",
        }
    }
}
