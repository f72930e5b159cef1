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

impl ReissueRule {
    /// Whether `except` matches this reading of a request.
    pub(crate) fn excepts(&self, reading: &[u8]) -> bool {
        self.except.iter().any(|path| path.matches(reading))
    }
}
