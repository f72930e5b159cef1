//! Ejections: for each outstanding token that a revocation covers, a rule at Agora that removes its user from the
//! channel and keeps them out until the token expires or the revocation is over.
//!
//! | file | what |
//! |---|---|
//! | `queue` | all ejections: taken in, handed out, finished, lifted, ended |
//! | `table` | the queue's entries in each order that is needed, and what is counted of each revocation |
//! | `record` | an ejection as it is written down |
//! | `backoff` | when the next request may be sent |
//! | `kicking_rule` | the requests, and the meaning of their answers |
//!
//! Must not know: where records are kept, when a request is sent.

pub(crate) mod backoff;
pub(crate) mod kicking_rule;
mod queue;
mod record;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::revocation::RevocationId;
use crate::terms::role::Role;
pub(crate) use queue::Ejections;
pub use record::EjectionRecord;

/// The most ejections at once. At ten a second they take three hours, which is longer than tokens should live.
pub const MOST: usize = 100_000;

/// An ejection's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EjectionId {
    /// The revocation that it is part of.
    pub revocation: RevocationId,
    /// Tells the ejections of one revocation apart.
    pub number: u32,
}

impl EjectionId {
    /// The least name.
    const FIRST: Self = Self {
        revocation: RevocationId::FIRST,
        number: 0,
    };
}

/// One ejection.
#[derive(Clone, Debug, PartialEq)]
pub struct Ejection {
    /// The ejection's name.
    pub id: EjectionId,
    /// The project that the token is of.
    pub app_id: Box<str>,
    /// The channel's name.
    pub channel: Box<str>,
    /// The subject that holds the token.
    pub subject: Box<str>,
    /// The uid that the token is for; never 0.
    pub uid: u32,
    /// The token's role.
    pub role: Role,
    /// The first second at which the token or the revocation is over, in Unix seconds.
    pub until: u64,
    /// How far it is.
    pub stage: EjectionStage,
    /// Members of its record that a newer build has written and this one doesn't know.
    pub(crate) others: BTreeMap<String, Value>,
}

/// How far an ejection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EjectionStage {
    /// The rule is to be made.
    Waiting,
    /// The rule is made.
    Made {
        /// Agora's name for it.
        rule: u64,
    },
    /// Agora refuses the rule.
    Failed {
        /// Why.
        error: Box<str>,
    },
    /// The rule is not needed any more.
    Dropped,
    /// The revocation is lifted; the rule is to be deleted.
    Lifting {
        /// Agora's name for it.
        rule: u64,
    },
    /// Nothing is left to do.
    Over,
}

/// How far the ejections of a revocation are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EjectionTally {
    /// Rules that are to be made.
    pub pending: u64,
    /// Rules that were made.
    pub done: u64,
    /// Rules that Agora refused, or that it took in no time that would still have helped.
    pub failed: u64,
    /// Tokens for uid 0 or a string user account, which no rule can name.
    pub not_possible: u64,
    /// Rules that were not needed any more: the token expired, or somebody else has its uid now.
    pub dropped: u64,
    /// The last error.
    pub error: Option<Box<str>>,
}

/// A token whose holder is to be ejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EjectionTarget {
    pub channel: Box<str>,
    pub subject: Box<str>,
    pub uid: u32,
    pub role: Role,
    /// When the token expires, in Unix seconds.
    pub expires: u64,
}

/// The outcome of an ejection that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EjectionResult {
    /// The rule is made.
    Made(u64),
    /// The rule is deleted.
    Deleted,
    /// The rule isn't needed.
    Needless,
    /// To be tried again from `due` on.
    Later {
        error: String,
        due: Duration,
        /// Whether the attempt counts for the length of the next pause.
        counts: bool,
    },
    /// Refused for good.
    Refused(String),
}

/// An ejection to be acted on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TakenEjection {
    pub ejection: Ejection,
    /// Attempts that failed before.
    pub failures: u32,
}

/// Ejections that ended unfinished with their tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EndedEjections {
    /// Those that were never tried.
    pub dropped: u64,
    /// Those that had failed until then.
    pub failed: u64,
}

impl EjectionTally {
    /// The number that an ejection at this stage counts in.
    fn of(&mut self, stage: &EjectionStage) -> Option<&mut u64> {
        match stage {
            EjectionStage::Waiting => Some(&mut self.pending),
            EjectionStage::Made { .. } => Some(&mut self.done),
            EjectionStage::Failed { .. } => Some(&mut self.failed),
            EjectionStage::Dropped => Some(&mut self.dropped),
            EjectionStage::Lifting { .. } | EjectionStage::Over => None,
        }
    }
}
