//! Streams: which channels are live, who owns them, who is banned from them.
//!
//! Keeps true: whatever the source, "no answer" differs from "no such stream"; an answer says when it was asked for.
//! Must not know: which request asks, or what an answer leads to.

mod owners;
mod table;

use std::sync::Arc;
use std::time::Duration;

use super::lookup::{Lookups, NoAnswer};
use crate::telemetry::metrics::SourceMetrics;
use crate::terms::outcome::LookupOutcome;
pub(crate) use owners::Owners;
pub(crate) use table::StreamTable;

/// The source's answer about one channel's stream.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StreamState {
    /// Whether it is live now.
    pub live: bool,
    /// Whether the platform has banned it.
    pub banned: bool,
    /// The subject who may publish; without an owner, no subject is one.
    pub owner: Option<Box<str>>,
    /// Since when owners have been missed, where none of the source's streams has ever had one, on the clock's
    /// monotonic scale.
    pub owner_unknown_since: Option<Duration>,
    /// Further subjects who may publish.
    pub cohosts: Vec<Box<str>>,
    /// Subjects who may not join.
    pub banned_viewers: Vec<Box<str>>,
}

impl StreamState {
    /// Whether this subject may publish: the owner or a listed co-host.
    pub(crate) fn may_publish(&self, subject: &str) -> bool {
        self.owner.as_deref() == Some(subject)
            || self.cohosts.iter().any(|cohost| **cohost == *subject)
    }

    /// Since when it can't be told whether this subject may publish; `None` where it can.
    pub(crate) fn doubts(&self, subject: &str) -> Option<Duration> {
        self.owner_unknown_since
            .filter(|_| !self.may_publish(subject))
    }

    /// Whether this subject is banned from the stream.
    pub(crate) fn bans(&self, subject: &str) -> bool {
        self.banned_viewers
            .iter()
            .any(|viewer| **viewer == *subject)
    }

    /// Whether the stream is live and not banned, so that tokens for it may be granted.
    pub(crate) fn is_open(&self) -> bool {
        self.live && !self.banned
    }
}

/// A source's answer for one channel: the stream that counts for it, or `None` where the source knows no such channel.
pub(crate) type Lookup = Result<Option<Arc<StreamState>>, NoAnswer>;

/// An answer, where it came from, and when it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct StreamLookup {
    /// The answer.
    pub lookup: Lookup,
    /// Whether the answer came from memory or from the source.
    pub outcome: LookupOutcome,
    /// When the question was asked, on the clock's monotonic scale; `None` for a table, which is always current.
    pub asked_at: Option<Duration>,
}

impl StreamLookup {
    /// Whether the answer may be older than a change at `moment`.
    pub(crate) fn may_predate(&self, moment: Duration) -> bool {
        self.asked_at.is_some_and(|asked_at| asked_at < moment)
    }
}

/// `[streams]`: the configured source.
#[derive(Debug)]
pub struct ConfiguredStreams {
    source: StreamSource,
    metrics: Arc<SourceMetrics>,
}

/// Where streams are looked up.
#[derive(Debug)]
pub(crate) enum StreamSource {
    /// A file, as last read.
    Table(StreamTable),
    /// A database or an endpoint of the backend. `None` is a channel without a stream.
    Asked(Arc<Lookups<Option<Arc<StreamState>>>>),
}

/// How long a lookup without a deadline of its own waits.
const PATIENCE: Duration = Duration::from_secs(3);

// === impl ConfiguredStreams ===

impl ConfiguredStreams {
    /// A source with its series.
    pub(crate) fn new(source: StreamSource, metrics: Arc<SourceMetrics>) -> Self {
        if let StreamSource::Table(table) = &source {
            metrics.up(table.is_up());
        }
        Self { source, metrics }
    }

    /// The source itself.
    pub(crate) fn source(&self) -> &StreamSource {
        &self.source
    }

    /// The source's series.
    pub(crate) fn metrics(&self) -> &SourceMetrics {
        &self.metrics
    }

    /// Why the source gives no answer; `None` while it answers. Holds no secret.
    pub(crate) fn error(&self) -> Option<String> {
        match &self.source {
            StreamSource::Table(table) => {
                (!table.is_up()).then(|| "its file can't be used; the log says why".to_owned())
            }
            StreamSource::Asked(lookups) => lookups.error(),
        }
    }

    /// Why the source's answers may be wrong although it answers.
    pub(crate) fn doubt(&self) -> Option<String> {
        match &self.source {
            StreamSource::Table(_) => None,
            StreamSource::Asked(lookups) => lookups.doubt(),
        }
    }

    /// Looks a channel up; an answer may be as old as `streams.cache_ttl`.
    pub(crate) async fn lookup(&self, channel: &str) -> Lookup {
        self.look(channel, None, PATIENCE).await.lookup
    }

    /// Looks a channel up: with `since`, the answer was asked for at or after it. Waits at most `patience`.
    pub(crate) async fn look(
        &self,
        channel: &str,
        since: Option<Duration>,
        patience: Duration,
    ) -> StreamLookup {
        let (lookup, outcome, asked_at) = match &self.source {
            StreamSource::Table(table) => (table.lookup(channel), LookupOutcome::Hit, None),
            StreamSource::Asked(lookups) => match lookups.get(channel, since, patience).await {
                Ok(answer) => {
                    let stream = (*answer.value).clone();
                    (Ok(stream), answer.outcome, Some(answer.asked_at))
                }
                Err(no_answer) => (Err(no_answer), LookupOutcome::Error, None),
            },
        };
        StreamLookup {
            lookup,
            outcome,
            asked_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_owner_matches_no_subject() {
        let ownerless = StreamState {
            live: true,
            ..StreamState::default()
        };
        assert!(!ownerless.may_publish(""));
        assert!(!ownerless.may_publish("anyone"));
    }
}
