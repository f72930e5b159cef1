//! A decision explained step by step, for an operator.
//!
//! Must not know: how anything is decided.

use std::time::Duration;

use serde::Serialize;

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The status that a request would get, as far as can be told without its login; `None` for a token in a socket's
    /// message, which has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// `ok`, or the `code` of the failure.
    pub code: &'static str,
    /// The role that was decided on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// The rows, in the decision's order.
    pub steps: Vec<ExplainedRow>,
}

/// One row of the decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedRow {
    /// Which row.
    pub step: &'static str,
    /// The verdict of the row.
    pub verdict: RowVerdict,
    /// The reason, in words.
    pub detail: String,
    /// The origin of the verdict: a source of the configuration, or one of renewd's own tables.
    pub source: &'static str,
    /// How old the source's answer is, in milliseconds; `None` for what is read at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
}

impl ExplainedRow {
    /// A row whose source's answer is this old.
    pub(crate) fn new(
        step: &'static str,
        source: &'static str,
        age: Option<Duration>,
        verdict: RowVerdict,
        detail: String,
    ) -> Self {
        Self {
            step,
            verdict,
            detail,
            source,
            age_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

/// The verdict of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RowVerdict {
    /// The next row is asked.
    Passes,
    /// The decision ends here.
    Refuses,
    /// The source gives no answer: holders go on, all others get 503.
    NoAnswer,
    /// A holder goes on without the source's answer.
    RidesThrough,
    /// The row wasn't asked, or can't be answered without a login.
    NotChecked,
}
