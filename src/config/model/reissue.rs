//! `[reissue]` after validation: in which answers tokens are looked for.

use std::time::Duration;

use crate::http::pattern::{Pattern, Target};

/// `[reissue]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reissue {
    /// Replace, observe or off; without effect as long as there are no rules.
    pub mode: ReissueMode,
    /// In the file's order: the first rule that matches a reading of a request applies.
    pub rules: Vec<ReissueRule>,
    /// In the file's order, as `rules`.
    pub sockets: Vec<SocketRule>,
}

impl Reissue {
    /// The metrics' `route` labels of all rules, and then of all sockets.
    pub(crate) fn routes(&self) -> impl Iterator<Item = &str> {
        let rules = self.rules.iter().map(|rule| &*rule.route);
        rules.chain(self.sockets.iter().map(|rule| &*rule.route))
    }
}

/// `reissue.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReissueMode {
    /// Long tokens are replaced.
    Replace,
    /// Tokens are counted, answers stay as they are.
    Observe,
    /// Answers aren't looked at.
    Off,
}

/// One of `[[reissue.rule]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReissueRule {
    /// `path` as written: the metrics' `route` label.
    pub route: String,
    /// The requests that the rule is about.
    pub(crate) target: Target,
    /// Paths that the rule leaves out although `target` matches them.
    pub(crate) except: Vec<Pattern>,
    /// In place of `token.lifetime`, within the same bounds.
    pub lifetime: Option<Duration>,
    /// Tokens are withheld from requests without a valid JWT.
    pub require_auth: bool,
    /// While a source gives no answer, a valid JWT is enough for a publisher's token.
    pub trust_publisher: bool,
    /// The replacement of a publisher's token for users other than the stream's owner and co-hosts.
    pub publisher_for_others: PublisherForOthers,
    /// The value in a withheld token's place.
    pub withheld: Withheld,
}

/// `reissue.rule.publisher_for_others`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublisherForOthers {
    /// The token is withheld.
    Withhold,
    /// A token that lets them watch.
    Subscriber,
}

/// `reissue.rule.withheld`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// JSON's `null`, where a value may be `null`; else an empty string.
    Null,
    /// An empty string.
    Empty,
}

/// One of `[[reissue.socket]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketRule {
    /// `socket` and `path` as written: the metrics' `route` label.
    pub route: String,
    /// The handshakes that the rule is about, and the requests of transports without a WebSocket.
    pub(crate) target: Target,
    /// Tokens are withheld from sockets without a valid JWT.
    pub require_auth: bool,
    /// Where the login of a socket is looked for.
    pub login: Vec<SocketLoginPlace>,
    /// What becomes of tokens for channels that are no stream, such as calls.
    pub unknown_channel: UnknownChannel,
    /// The replacement of a publisher's token for users other than the stream's owner and co-hosts.
    pub publisher_for_others: PublisherForOthers,
    /// Whether bytes are searched too.
    pub binary: bool,
}

/// An element of `reissue.socket.login`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketLoginPlace {
    /// `Authorization` of the handshake, or the cookie of `[auth.jwt]`.
    Handshake,
    /// A parameter of the handshake's query.
    Query(String),
    /// `auth.token` of socket.io's `CONNECT`.
    SocketIo,
}

/// `reissue.socket.unknown_channel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownChannel {
    /// The token's lifetime is cut.
    Shorten,
    /// The token is withheld.
    Withhold,
}

impl ReissueRule {
    /// Whether `except` matches this reading of a request.
    pub(crate) fn excepts(&self, reading: &[u8]) -> bool {
        self.except.iter().any(|path| path.matches(reading))
    }
}
