//! The stream table of `streams.source = "file"`.
//!
//! Keeps true: a table never changes; a file that turns invalid leaves the last valid table in force, and a file that
//! can't be read gives no answer at all; the start of an outage is kept across rebuilds.
//! Must not know: which request asks, or what an answer leads to.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Lookup, StreamState};
use crate::sources::lookup::NoAnswer;

/// The stream table of `streams.source = "file"`.
#[derive(Debug)]
pub(crate) struct StreamTable {
    channels: HashMap<Box<str>, Arc<StreamState>>,
    unavailable_since: Option<Duration>,
    /// When the file was first found to be invalid.
    down_since: Option<Duration>,
}

impl StreamTable {
    /// A table of the file's entries, in the file's order. Of several entries for one channel, the last live one
    /// counts, else the last.
    pub(crate) fn new(entries: impl IntoIterator<Item = (Box<str>, StreamState)>) -> Self {
        let mut table = HashMap::<Box<str>, Arc<StreamState>>::new();
        for (channel, stream) in entries {
            match table.get(&channel) {
                Some(earlier) if earlier.live && !stream.live => {}
                _ => {
                    table.insert(channel, Arc::new(stream));
                }
            }
        }
        Self {
            channels: table,
            unavailable_since: None,
            down_since: None,
        }
    }

    /// The table after its file turned invalid: the previous answers stay in force. Without previous answers, it
    /// gives none from `now` on.
    pub(crate) fn invalid(previous: Option<&Self>, now: Duration) -> Self {
        match previous {
            Some(previous) => Self {
                channels: previous.channels.clone(),
                unavailable_since: previous.unavailable_since,
                down_since: previous.down_since.or(Some(now)),
            },
            None => Self::unreadable(None, now),
        }
    }

    /// The table after its file could not be read: it gives no answers, from the first failure on, until the file is
    /// valid again.
    pub(crate) fn unreadable(previous: Option<&Self>, now: Duration) -> Self {
        let since = |time: fn(&Self) -> Option<Duration>| previous.and_then(time).or(Some(now));
        Self {
            channels: HashMap::new(),
            unavailable_since: since(|table| table.unavailable_since),
            down_since: since(|table| table.down_since),
        }
    }

    /// Whether the last read gave a valid table: `renewd_source_up`.
    pub(crate) fn is_up(&self) -> bool {
        self.down_since.is_none()
    }

    /// When the file was first found to be invalid, on the clock's monotonic scale; `None` while it is valid.
    pub(crate) fn down_since(&self) -> Option<Duration> {
        self.down_since
    }

    /// How many channels the table has.
    pub(crate) fn len(&self) -> usize {
        self.channels.len()
    }

    /// Looks a channel up.
    pub(crate) fn lookup(&self, channel: &str) -> Lookup {
        match self.unavailable_since {
            Some(since) => Err(NoAnswer { since }),
            None => Ok(self.channels.get(channel).cloned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(owner: &str, live: bool) -> StreamState {
        StreamState {
            live,
            owner: Some(owner.into()),
            ..StreamState::default()
        }
    }

    #[test]
    fn the_newest_live_entry_of_a_channel_counts() {
        let streams = StreamTable::new([
            ("one".into(), stream("first", true)),
            ("one".into(), stream("second", true)),
            ("one".into(), stream("third", false)),
        ]);
        assert_eq!(
            streams.lookup("one"),
            Ok(Some(Arc::new(stream("second", true))))
        );
    }

    #[test]
    fn an_invalid_file_keeps_the_last_valid_answers_and_says_so() {
        let valid = StreamTable::new([("one".into(), stream("first", true))]);
        let invalid = StreamTable::invalid(Some(&valid), Duration::from_secs(5));
        assert_eq!(
            invalid.lookup("one"),
            Ok(Some(Arc::new(stream("first", true))))
        );
        assert!(!invalid.is_up());
    }

    #[test]
    fn a_file_that_was_never_valid_gives_no_answer() {
        let streams = StreamTable::invalid(None, Duration::from_secs(5));
        assert_eq!(
            streams.lookup("one"),
            Err(NoAnswer {
                since: Duration::from_secs(5)
            })
        );
    }

    #[test]
    fn an_unreadable_file_counts_from_its_first_failure() {
        let valid = StreamTable::new([("one".into(), stream("first", true))]);
        let first = StreamTable::unreadable(Some(&valid), Duration::from_secs(5));
        let second = StreamTable::unreadable(Some(&first), Duration::from_secs(9));
        assert_eq!(
            second.lookup("one"),
            Err(NoAnswer {
                since: Duration::from_secs(5)
            })
        );
    }
}
