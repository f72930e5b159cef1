//! Which subjects were handed tokens in a list, for which channels and until when: 56 bytes a subject, however long
//! the lists are.
//!
//! Subjects that ask at about the same time are handed the same list. Each list is kept once, and subjects refer to
//! it.
//!
//! Keeps true: bounded by `sessions.max` subjects, by [`LISTS`] lists of each, and by [`MOST_ENTRIES`] channels in
//! all lists; a list for which there is no room counts as not handed out; nothing expired counts. Locks are taken in
//! the order subjects, lists, and no other lock is taken meanwhile.
//! Must not know: how a token looks, what is granted by a decision.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::shards::Shards;
use super::{Ground, Resting, Sessions, seconds};
use crate::logins::remembered::Login;

/// Lists of one subject that are remembered: the pages that a client reads one after another, and the last ones
/// before a change. The list that ends first makes room.
const LISTS: usize = 4;

/// Channels that are remembered of those in which sources refused one subject; where there are more, no renewal rests
/// on any of the subject's lists.
const REFUSED: usize = 2;

/// Channels of one list that are remembered.
const MOST_CHANNELS: usize = 1024;

/// Channels in all lists together, of 8 bytes each. There are as many lists as changes within a token's lifetime, and
/// more where each subject has a list of their own.
pub(super) const MOST_ENTRIES: usize = 2 * 1024 * 1024;

/// A channel in a list, by its keyed hash, and whether the streams source said yes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listed(u64);

/// Tokens that one subject is handed at once.
#[derive(Clone, Copy, Debug)]
pub struct Handed<'a> {
    /// The subject that they are for.
    pub subject: &'a str,
    /// The session of the login that asked, where it has one.
    pub login: Option<Login>,
    /// Whether the accounts source said yes to that login.
    pub vouched: bool,
    /// The channels, in any order.
    pub channels: &'a [Listed],
    /// When the tokens expire, Unix seconds.
    pub expires: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lists {
    shards: Shards<Subject>,
    kept: Mutex<StoredLists>,
    subjects: AtomicUsize,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Subject {
    /// The latest login that accounts vouched for.
    login: Option<Login>,
    lists: [Reference; LISTS],
    /// The channels in which a source has said no since, each as [`mark`] gives it; 0: none.
    refused: [u32; REFUSED],
}

/// A subject's reference to a list.
#[derive(Clone, Copy, Debug, Default)]
struct Reference {
    /// When its tokens expire, Unix seconds; 0: there is none.
    expires: u32,
    /// The list's place, doubled, and whether accounts vouched for the login that it was handed to.
    list: u32,
}

/// The lists, each of them once.
#[derive(Debug, Default)]
struct StoredLists {
    by_hash: HashMap<u64, u32>,
    lists: Vec<List>,
    free: Vec<u32>,
    entries: usize,
}

#[derive(Debug, Default)]
struct List {
    hash: u64,
    /// Sorted.
    channels: Box<[Listed]>,
    references: u32,
}

impl Listed {
    fn is_of(self, channel: Self) -> bool {
        self.0 | 1 == channel.0 | 1
    }

    fn is_open(self) -> bool {
        self.0 & 1 == 1
    }
}

impl Reference {
    fn place(self) -> u32 {
        self.list >> 1
    }

    fn is_vouched(self) -> bool {
        self.list & 1 == 1
    }
}

impl StoredLists {
    /// Counts one more reference to a list and gives its place; `None` where there is no room.
    fn take(&mut self, hash: u64, channels: &[Listed]) -> Option<u32> {
        if let Some(place) = self.by_hash.get(&hash).copied() {
            let list = self.list(place)?;
            if *list.channels != *channels {
                return None;
            }
            list.references = list.references.checked_add(1)?;
            return Some(place);
        }
        if self.entries + channels.len() > MOST_ENTRIES {
            return None;
        }
        let list = List {
            hash,
            channels: channels.into(),
            references: 1,
        };
        let place = if let Some(place) = self.free.pop() {
            *self.list(place)? = list;
            place
        } else {
            let place = u32::try_from(self.lists.len()).ok()?;
            self.lists.push(list);
            place
        };
        self.entries += channels.len();
        self.by_hash.insert(hash, place);
        Some(place)
    }

    /// Counts one reference less, and forgets a list that has none.
    fn release(&mut self, place: u32) {
        let Some(list) = self.list(place) else {
            return;
        };
        list.references = list.references.saturating_sub(1);
        if list.references == 0 {
            let List { hash, channels, .. } = std::mem::take(list);
            self.entries -= channels.len();
            self.by_hash.remove(&hash);
            self.free.push(place);
        }
    }

    fn list(&mut self, place: u32) -> Option<&mut List> {
        self.lists.get_mut(usize::try_from(place).ok()?)
    }

    /// The channel's entry in a list.
    fn find(&self, place: u32, channel: Listed) -> Option<Listed> {
        let list = self.lists.get(usize::try_from(place).ok()?)?;
        let after = list
            .channels
            .partition_point(|entry| entry.0 < channel.0 & !1);
        let entry = list.channels.get(after).copied()?;
        entry.is_of(channel).then_some(entry)
    }
}

impl Subject {
    fn is_over(&self, now: u32) -> bool {
        self.lists.iter().all(|list| list.expires <= now)
    }

    fn is_refused(&self, channel: Listed) -> bool {
        let mark = mark(channel);
        // The greatest number stands for all channels that there was no room for.
        self.refused.contains(&mark) || self.refused[REFUSED - 1] == u32::MAX
    }
}

/// The mark of a channel in [`Subject::refused`].
fn mark(Listed(channel): Listed) -> u32 {
    let mark = u32::try_from(channel >> 32).unwrap_or(0);
    mark.clamp(1, u32::MAX - 1)
}

impl Lists {
    pub(super) fn new() -> Self {
        Self {
            shards: Shards::new(),
            kept: Mutex::default(),
            subjects: AtomicUsize::new(0),
            hasher: RandomState::new(),
        }
    }

    fn entry(&self, channel: &str, open: bool) -> Listed {
        Listed(self.hasher.hash_one(channel) & !1 | u64::from(open))
    }

    /// Calls `work` with what is known of a subject, if anything is.
    fn with<T>(&self, subject: &str, work: impl FnOnce(&mut Subject) -> T) -> Option<T> {
        if self.subjects.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let hash = self.hasher.hash_one(subject);
        self.shards.lock(hash).of_mut(hash).next().map(work)
    }

    pub(super) fn hand(&self, handed: Handed<'_>, max: usize, now: u32) {
        let mut channels = handed.channels.to_vec();
        channels.sort_unstable();
        // Where a channel stands twice, the entry without the source's yes counts.
        channels.dedup_by(|later, first| later.is_of(*first));
        channels.truncate(MOST_CHANNELS);
        let expires = seconds(handed.expires);
        if channels.is_empty() || expires <= now {
            return;
        }
        let list = self.hasher.hash_one(&channels);
        let subject = self.hasher.hash_one(handed.subject);
        let mut shard = self.shards.lock(subject);
        if shard.of(subject).next().is_none() {
            if self.subjects.load(Ordering::Relaxed) >= max {
                return;
            }
            self.subjects.fetch_add(1, Ordering::Relaxed);
            shard.push(subject, Subject::default());
        }
        let Some(known) = shard.of_mut(subject).next() else {
            return;
        };
        if handed.vouched {
            known.login = handed.login;
        }
        let mut kept = self.kept.lock();
        let Some(place) = kept.take(list, &channels) else {
            return;
        };
        let same = |list: &Reference| list.expires > now && list.place() == place;
        let slot = known.lists.iter().position(same).unwrap_or_else(|| {
            let lists = known.lists.iter().enumerate();
            let first = lists.min_by_key(|(_, list)| list.expires);
            first.map_or(0, |(slot, _)| slot)
        });
        let former = std::mem::replace(
            &mut known.lists[slot],
            Reference {
                expires,
                list: place << 1 | u32::from(handed.vouched),
            },
        );
        if former.expires != 0 {
            kept.release(former.place());
        }
    }

    /// Whether the subject was handed a token for the channel that lives.
    fn holds(&self, channel: &str, subject: &str, now: u32) -> bool {
        let channel = self.entry(channel, false);
        let holds = self.with(subject, |known| {
            let kept = self.kept.lock();
            let mut live = known.lists.iter().filter(|list| list.expires > now);
            live.any(|list| kept.find(list.place(), channel).is_some())
        });
        holds.unwrap_or(false)
    }

    fn stands(&self, channel: &str, subject: &str, ground: Ground, who: Resting, now: u32) -> bool {
        let channel = self.entry(channel, false);
        let stands = self.with(subject, |known| {
            if !who.may_rest_on(known.login) || known.is_refused(channel) {
                return false;
            }
            let kept = self.kept.lock();
            let mut live = known.lists.iter().filter(|list| list.expires > now);
            live.any(|list| {
                let entry = kept.find(list.place(), channel);
                entry.is_some_and(|entry| match ground {
                    Ground::Account => list.is_vouched(),
                    Ground::Stream => entry.is_open(),
                    // The hook isn't asked for lists.
                    Ground::Hook => false,
                })
            })
        });
        stands.unwrap_or(false)
    }

    /// Remembers that a source has said no to the subject in this channel.
    pub(super) fn refuse(&self, channel: &str, subject: &str) {
        let mark = mark(self.entry(channel, false));
        self.with(subject, |known| {
            let free = |refused: &&mut u32| **refused == 0 || **refused == mark;
            match known.refused.iter_mut().find(free) {
                Some(refused) => *refused = mark,
                None => known.refused[REFUSED - 1] = u32::MAX,
            }
        });
    }

    /// Remembers the login of a grant: renewals of an earlier login may rest on nothing any more.
    pub(super) fn settle(&self, subject: &str, login: Login) {
        self.with(subject, |known| known.login = Some(login));
    }

    /// Forgets the subjects whose lists are over, in one of `parts` parts of the shards.
    pub(super) fn sweep(&self, turn: usize, parts: usize, now: u32) {
        for mut shard in self.shards.part(turn, parts) {
            shard.retain(|_, known| {
                if !known.is_over(now) {
                    return true;
                }
                self.subjects.fetch_sub(1, Ordering::Relaxed);
                let mut kept = self.kept.lock();
                for list in known.lists.iter().filter(|list| list.expires != 0) {
                    kept.release(list.place());
                }
                false
            });
        }
    }
}

impl Sessions {
    /// A channel as a list has it; `open`: the streams source says yes to it for the subject.
    pub fn entry(&self, channel: &str, open: bool) -> Listed {
        self.lists.entry(channel, open)
    }

    /// Remembers that a subject was handed a list: they hold a subscriber's token for each channel in it.
    pub fn hand(&self, handed: Handed<'_>, now: u64) {
        let max = self.max.load(Ordering::Relaxed);
        self.lists.hand(handed, max, seconds(now));
    }

    /// Whether the subject was handed a subscriber's token for the channel in a list, and it has not expired.
    pub(crate) fn was_handed(&self, channel: &str, subject: &str, now: u64) -> bool {
        self.lists.holds(channel, subject, seconds(now))
    }

    /// Whether a renewal of such a token may rest on what this source said when it was handed out.
    pub(crate) fn handed_stands(
        &self,
        channel: &str,
        subject: &str,
        (ground, who): (Ground, Resting),
        now: u64,
    ) -> bool {
        self.lists
            .stands(channel, subject, ground, who, seconds(now))
    }

    /// Subjects whose lists are remembered.
    pub fn handed_to(&self) -> usize {
        self.lists.subjects.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    const ANYONE: Resting = Resting::Anyone;

    fn login(number: u64) -> Option<Login> {
        NonZeroU64::new(number).map(Login)
    }

    /// Hands `ann` a list that expires at `expires`.
    fn hand(
        sessions: &Sessions,
        channels: &[&str],
        login: Option<Login>,
        vouched: bool,
        expires: u64,
    ) {
        let channels: Vec<_> = channels
            .iter()
            .map(|channel| sessions.entry(channel, !channel.starts_with("closed")))
            .collect();
        let handed = Handed {
            subject: "ann",
            login,
            vouched,
            channels: &channels,
            expires,
        };
        sessions.hand(handed, 100);
    }

    fn stands(sessions: &Sessions, channel: &str, ground: Ground, who: Resting) -> bool {
        sessions.handed_stands(channel, "ann", (ground, who), 150)
    }

    #[test]
    fn each_channel_of_a_list_is_held_until_the_tokens_expire() {
        let sessions = Sessions::new(10);
        hand(&sessions, &["a", "b"], None, true, 200);
        hand(&sessions, &["c"], None, true, 300);
        for (channel, subject, now, held) in [
            ("a", "ann", 199, true),
            ("b", "ann", 199, true),
            ("b", "ann", 200, false),
            ("c", "ann", 200, true),
            ("d", "ann", 150, false),
            ("a", "bob", 150, false),
        ] {
            let found = sessions.was_handed(channel, subject, now);
            assert_eq!(found, held, "{channel} {subject} {now}");
        }
    }

    #[test]
    fn a_renewal_rests_on_the_sources_that_said_yes_and_on_that_login_alone() {
        let sessions = Sessions::new(10);
        hand(&sessions, &["a", "closed"], login(1), true, 200);
        let rests = |channel, ground| stands(&sessions, channel, ground, ANYONE);
        assert!(rests("a", Ground::Account) && rests("a", Ground::Stream));
        assert!(rests("closed", Ground::Account) && !rests("closed", Ground::Stream));
        assert!(!rests("a", Ground::Hook) && !rests("other", Ground::Account));
        let session = |number| Resting::Session(login(number));
        let of = |who| stands(&sessions, "a", Ground::Account, who);
        assert!(of(session(1)) && !of(session(2)) && !of(Resting::Session(None)));
        // A grant to another session is the latest.
        sessions
            .lists
            .settle("ann", Login(NonZeroU64::MIN.saturating_add(1)));
        assert!(!of(session(1)) && of(session(2)));
        let unknown = Sessions::new(10);
        hand(&unknown, &["a"], None, false, 200);
        assert!(!stands(&unknown, "a", Ground::Account, ANYONE));
        assert!(stands(&unknown, "a", Ground::Stream, ANYONE));
    }

    #[test]
    fn a_refusal_stands_whatever_list_is_handed_out_after_it() {
        let sessions = Sessions::new(10);
        let channels = ["a", "b", "c", "d"];
        hand(&sessions, &channels, None, true, 200);
        let standing =
            || channels.map(|channel| stands(&sessions, channel, Ground::Stream, ANYONE));
        for (refused, left) in [
            ("a", [false, true, true, true]),
            ("b", [false, false, true, true]),
            // These are more channels than are told apart.
            ("c", [false; 4]),
        ] {
            sessions.denied(refused, "ann", Ground::Stream, None, 150);
            hand(&sessions, &channels, None, true, 200);
            assert_eq!(standing(), left, "{refused}");
        }
        assert!(sessions.was_handed("d", "ann", 150));
    }

    #[test]
    fn what_is_over_leaves_nothing_and_lists_are_kept_once() {
        let sessions = Sessions::new(2);
        let kept = || {
            let kept = sessions.lists.kept.lock();
            (kept.by_hash.len(), kept.entries)
        };
        hand(&sessions, &["a", "b"], None, true, 200);
        hand(&sessions, &["b", "a", "a"], None, true, 210);
        assert_eq!(kept(), (1, 2));
        for number in 0..10_u64 {
            let channel = number.to_string();
            hand(&sessions, &[&channel], None, true, 300 + number);
        }
        assert_eq!(kept(), (LISTS, LISTS));
        assert!(!sessions.was_handed("a", "ann", 150) && sessions.was_handed("9", "ann", 150));
        // The table keeps as many subjects as it has room for.
        let entry = [sessions.entry("a", true)];
        for subject in ["bob", "cy"] {
            let handed = Handed {
                subject,
                login: None,
                vouched: true,
                channels: &entry,
                expires: 200,
            };
            sessions.hand(handed, 100);
        }
        assert!(sessions.was_handed("a", "bob", 150) && !sessions.was_handed("a", "cy", 150));
        assert_eq!(sessions.handed_to(), 2);
        for turn in 0..super::super::SWEEPS {
            sessions.sweep(turn, 400);
        }
        assert_eq!((sessions.handed_to(), kept()), (0, (0, 0)));
    }
}
