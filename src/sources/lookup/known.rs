//! The knowledge of a source's keys: the last answer to each, and the question in flight.
//!
//! Must not know: when anything is asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::NoAnswer;

/// Sends the answer to the requests that wait for it.
pub(super) type Landing<T> = watch::Sender<Option<Result<Arc<T>, NoAnswer>>>;

/// The knowledge of one key.
pub(super) struct LookupEntry<T> {
    pub(super) answer: Option<KeptAnswer<T>>,
    pub(super) flight: Option<Flight<T>>,
    /// The first failure since the key's last answer.
    pub(super) failing_since: Option<Duration>,
    /// When a reply last came that was no answer.
    pub(super) failed_at: Option<Duration>,
    /// When the key was last asked for: old keys are swept.
    pub(super) touched: Duration,
}

pub(super) struct KeptAnswer<T> {
    pub(super) value: Arc<T>,
    pub(super) asked_at: Duration,
}

pub(super) struct Flight<T> {
    pub(super) asked_at: Duration,
    pub(super) landed: watch::Receiver<Option<Result<Arc<T>, NoAnswer>>>,
    /// Whether the answer may be kept: not where it may be older than a known change.
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

impl<T> Default for LookupEntry<T> {
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

/// Drops every key for which no question is in flight, whatever its age. The rest is as many as requests wait for.
pub(super) fn make_room<T>(shard: &mut HashMap<Box<str>, LookupEntry<T>>) {
    shard.retain(|_, known| known.flight.is_some());
}
