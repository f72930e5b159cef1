//! Streams: which channels are live, whose they are, who is banned from them.
//!
//! Keeps true: immutable once built; a file that turns invalid leaves the last valid table in force, a file that can't be
//! read gives no answer at all, and since when is kept across rebuilds.
//! Must not know: who asks, or what an answer leads to.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

/// What the source says of one channel's stream.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Stream {
    /// On air now.
    pub live: bool,
    /// Taken down by the platform.
    pub banned: bool,
    /// The subject who may publish; an absent owner matches nobody.
    pub owner: Option<Box<str>>,
    /// Further subjects who may publish.
    pub cohosts: Vec<Box<str>>,
    /// Subjects who may not join.
    pub banned_viewers: Vec<Box<str>>,
}

impl Stream {
    /// Whether this subject may publish: the owner or a listed co-host.
    pub fn may_publish(&self, subject: &str) -> bool {
        self.owner.as_deref() == Some(subject)
            || self.cohosts.iter().any(|cohost| **cohost == *subject)
    }

    /// Whether this subject is banned from the stream.
    pub fn bans(&self, subject: &str) -> bool {
        self.banned_viewers
            .iter()
            .any(|viewer| **viewer == *subject)
    }

    /// Whether anyone may have a token for it.
    pub fn is_open(&self) -> bool {
        self.live && !self.banned
    }
}

/// A source's answer for one channel.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// The stream that counts for the channel.
    Found(&'a Stream),
    /// The source knows no such channel.
    NotFound,
    /// The source can't be asked; never a yes, never a 403.
    NoAnswer {
        /// On the clock's monotonic scale: the first lookup (or read) that failed.
        since: Duration,
    },
}

/// The stream table of `streams.source = "file"`.
#[derive(Debug)]
pub struct Streams {
    table: HashMap<Box<str>, Stream>,
    unavailable_since: Option<Duration>,
    intact: bool,
}

impl Streams {
    /// A table from the file's entries, in the file's order. Of several for one channel the last live one counts, else the last.
    pub fn new(entries: impl IntoIterator<Item = (Box<str>, Stream)>) -> Self {
        let mut table = HashMap::<Box<str>, Stream>::new();
        for (channel, stream) in entries {
            match table.get(&channel) {
                Some(earlier) if earlier.live && !stream.live => {}
                _ => {
                    table.insert(channel, stream);
                }
            }
        }
        Self {
            table,
            unavailable_since: None,
            intact: true,
        }
    }

    /// The source after its file turned invalid: the previous answers stay in force.
    /// Where there never were any, it gives no answer from `now` on.
    pub fn invalid(previous: Option<&Self>, now: Duration) -> Self {
        match previous {
            Some(previous) => Self {
                table: previous.table.clone(),
                unavailable_since: previous.unavailable_since,
                intact: false,
            },
            None => Self::unreadable(None, now),
        }
    }

    /// The source after its file could not be read: no answers, from the first failure on, until it is valid again.
    pub fn unreadable(previous: Option<&Self>, now: Duration) -> Self {
        Self {
            table: HashMap::new(),
            unavailable_since: Some(
                previous
                    .and_then(|previous| previous.unavailable_since)
                    .unwrap_or(now),
            ),
            intact: false,
        }
    }

    /// Whether the source's last read gave a valid table: `renewd_source_up`.
    pub fn is_up(&self) -> bool {
        self.intact
    }

    /// How many channels the table has.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether the table has no channel.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Looks a channel up. The file source answers from memory; sources that ask a database fit behind the same future.
    pub fn lookup(&self, channel: &str) -> impl Future<Output = Lookup<'_>> {
        std::future::ready(match (self.unavailable_since, self.table.get(channel)) {
            (Some(since), _) => Lookup::NoAnswer { since },
            (None, Some(stream)) => Lookup::Found(stream),
            (None, None) => Lookup::NotFound,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(owner: &str, live: bool) -> Stream {
        Stream {
            live,
            owner: Some(owner.into()),
            ..Stream::default()
        }
    }

    fn answer<'a>(streams: &'a Streams, channel: &str) -> Lookup<'a> {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(streams.lookup(channel))
    }

    #[test]
    fn the_newest_live_entry_of_a_channel_counts() {
        let streams = Streams::new([
            ("one".into(), stream("first", true)),
            ("one".into(), stream("second", true)),
            ("one".into(), stream("third", false)),
        ]);
        assert_eq!(
            answer(&streams, "one"),
            Lookup::Found(&stream("second", true))
        );
    }

    #[test]
    fn an_absent_owner_matches_nobody() {
        let ownerless = Stream {
            live: true,
            ..Stream::default()
        };
        assert!(!ownerless.may_publish(""));
        assert!(!ownerless.may_publish("anyone"));
    }

    #[test]
    fn an_invalid_file_keeps_the_last_valid_answers_and_says_so() {
        let valid = Streams::new([("one".into(), stream("first", true))]);
        let invalid = Streams::invalid(Some(&valid), Duration::from_secs(5));
        assert_eq!(
            answer(&invalid, "one"),
            Lookup::Found(&stream("first", true))
        );
        assert!(!invalid.is_up());
    }

    #[test]
    fn a_file_that_was_never_valid_gives_no_answer() {
        let streams = Streams::invalid(None, Duration::from_secs(5));
        assert_eq!(
            answer(&streams, "one"),
            Lookup::NoAnswer {
                since: Duration::from_secs(5)
            }
        );
    }

    #[test]
    fn an_unreadable_file_counts_from_its_first_failure() {
        let valid = Streams::new([("one".into(), stream("first", true))]);
        let first = Streams::unreadable(Some(&valid), Duration::from_secs(5));
        let second = Streams::unreadable(Some(&first), Duration::from_secs(9));
        assert_eq!(
            answer(&second, "one"),
            Lookup::NoAnswer {
                since: Duration::from_secs(5)
            }
        );
    }
}
