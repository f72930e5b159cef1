//! What is known of a source's keys: the last answer to each, and the question in flight.
//!
//! Must not know: when anything is asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::NoAnswer;

/// Tells those who wait.
pub(super) type Landing<T> = watch::Sender<Option<Result<Arc<T>, NoAnswer>>>;

/// What is known of one key.
pub(super) struct KnownAnswer<T> {
    pub(super) answer: Option<KnownAnswers<T>>,
    pub(super) flight: Option<Flight<T>>,
    /// The first failure since the key's last answer.
    pub(super) failing_since: Option<Duration>,
    /// When something last came that is no answer.
    pub(super) failed_at: Option<Duration>,
    /// When it was last touched: what is old is swept.
    pub(super) touched: Duration,
}

pub(super) struct KnownAnswers<T> {
    pub(super) value: Arc<T>,
    pub(super) asked_at: Duration,
}

pub(super) struct Flight<T> {
    pub(super) asked_at: Duration,
    pub(super) landed: watch::Receiver<Option<Result<Arc<T>, NoAnswer>>>,
    /// Cleared where what it brings may be older than a change that is known of.
    pub(super) keep: bool,
}

impl<T> Clone for Flight<T> {
    fn clone(&self) -> Self {
        Self {
            asked_at: self.asked_at,
            landed: self.landed.clone(),
            keep: self.keep,
        }
    }
}

impl<T> Default for KnownAnswer<T> {
    fn default() -> Self {
        Self {
            answer: None,
            flight: None,
            failing_since: None,
            failed_at: None,
            touched: Duration::ZERO,
        }
    }
}

/// Drops what nobody waits for, whatever its age; where that isn't enough, there are as many waiting.
pub(super) fn make_room<T>(shard: &mut HashMap<Box<str>, KnownAnswer<T>>) {
    shard.retain(|_, known| known.flight.is_some());
}
