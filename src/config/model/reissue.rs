//! `[reissue]` after validation: in which answers tokens are looked for.

use std::time::Duration;

use crate::http::pattern::{Pattern, Target};

/// `[reissue]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reissue {
    /// Replace, observe or off; without effect as long as there are no rules.
    pub mode: ReissueMode,
    /// In the file's order: the first that means a reading of a request counts for it.
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
    /// Which requests it means.
    pub(crate) target: Target,
    /// Paths that it doesn't mean though `target` does.
    pub(crate) except: Vec<Pattern>,
    /// In place of `token.lifetime`, within the same bounds.
    pub lifetime: Option<Duration>,
    /// Without a verifying JWT, tokens are withheld.
    pub require_auth: bool,
    /// While a source gives no answer, a verifying JWT is enough for a publisher's token.
    pub trust_publisher: bool,
    /// What others than its owner and co-hosts get of a stream's publisher's token.
    pub publisher_for_others: PublisherForOthers,
    /// What stands in a withheld token's place.
    pub withheld: Withheld,
}

/// `reissue.rule.publisher_for_others`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublisherForOthers {
    /// Nothing.
    Withhold,
    /// A token that lets them watch.
    Subscriber,
}

/// `reissue.rule.withheld`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// JSON's `null`, where a value may be one; else nothing between its quotes.
    Null,
    /// Nothing between its quotes.
    Empty,
}

impl ReissueRule {
    /// Whether an exception is made for a request that is read so.
    pub(crate) fn excepts(&self, reading: &[u8]) -> bool {
        self.except.iter().any(|path| path.matches(reading))
    }
}
