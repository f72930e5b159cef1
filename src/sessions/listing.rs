//! The table as a list, a page at a time.
//!
//! Keeps true: a page holds no lock over more than one shard and is never longer than asked; a session that is there
//! from the first page to the last is on exactly one of them, whatever else comes and goes.
//! Must not know: how a page is shown.

use std::collections::HashSet;
use std::fmt;
use std::hash::BuildHasher as _;

use super::session::Session;
use super::shards::{SHARDS, Shard, shard_of};
use super::subject::SubjectSessions;
use super::{SessionUser, Sessions, seconds};
use crate::terms::role::Role;

/// Which sessions to list.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filter<'a> {
    /// Only sessions of this channel.
    pub channel: Option<&'a str>,
    /// Only sessions of this subject.
    pub subject: Option<&'a str>,
}

/// A session that holds a live token. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// The channel's name.
    pub channel: String,
    /// The JWT's subject.
    pub subject: String,
    /// The user in the channel.
    pub user: SessionUser,
    /// The role of the last token.
    pub role: Role,
    /// When the subject got their first token for the channel in an unbroken row.
    pub first_issued: u64,
    /// When the last token expires.
    pub expires: u64,
    /// Tokens after the first, up to 65 535.
    pub refreshes: u16,
}

/// A page of the list of sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedSessions {
    /// At most as many as were asked for. Their order has no meaning.
    pub sessions: Vec<Held>,
    /// Where the next page starts; `None` on the last page.
    pub next: Option<Cursor>,
}

/// The place of a session in the list. It depends on keys that are drawn anew with every table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    shard: u16,
    /// Tells the sessions of a shard apart.
    session: u64,
    /// Tells this table's cursors from another's.
    table: u32,
}

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            shard,
            session,
            table,
        } = self;
        write!(formatter, "{table:08x}{shard:04x}{session:016x}")
    }
}

impl Cursor {
    fn parse(text: &str) -> Option<Self> {
        if text.len() != 28 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        Some(Self {
            table: u32::from_str_radix(text.get(..8)?, 16).ok()?,
            shard: u16::from_str_radix(text.get(8..12)?, 16).ok()?,
            session: u64::from_str_radix(text.get(12..)?, 16).ok()?,
        })
    }
}

impl Filter<'_> {
    fn takes(&self, held: &SubjectSessions) -> bool {
        self.channel.is_none_or(|channel| held.channel.is(channel))
            && self.subject.is_none_or(|subject| held.subject.is(subject))
    }
}

impl Sessions {
    /// A cursor out of the text it was shown as; `None` for any other text, and for one of another process.
    pub(crate) fn cursor(&self, text: &str) -> Option<Cursor> {
        Cursor::parse(text).filter(|cursor| cursor.table == self.table_name())
    }

    /// At most `limit` of the sessions that the filter takes, after a cursor or from the beginning.
    pub(crate) fn page(
        &self,
        filter: Filter<'_>,
        after: Option<Cursor>,
        limit: usize,
        now: u64,
    ) -> ListedSessions {
        let now = seconds(now);
        let sole = filter
            .channel
            .zip(filter.subject)
            .map(|(channel, subject)| shard_of(self.key(channel, subject)));
        let mut page = ListedSessions {
            sessions: Vec::new(),
            next: None,
        };
        let mut last = None;
        let first = after.map_or(0, |after| usize::from(after.shard));
        for position in first..SHARDS {
            if sole.is_some_and(|sole| sole != position) {
                continue;
            }
            let shard = self.table.lock_at(position);
            for (cursor, held, session) in self.in_order(&shard, position, filter, after, now) {
                if page.sessions.len() >= limit {
                    page.next = last;
                    return page;
                }
                page.sessions.push(Held::of(held, session));
                last = Some(cursor);
            }
        }
        page
    }

    /// How many subjects hold a publisher's live token, of those that `takes` is true for: each counts once, in
    /// however many channels and under however many uids.
    pub(crate) fn publishers(&self, takes: impl Fn(&str) -> bool, now: u64) -> usize {
        let now = seconds(now);
        let mut publishers = HashSet::new();
        for shard in self.table.iter() {
            for held in shard.values() {
                let publishes =
                    |session: &Session| session.role == Role::Publisher && session.is_live(now);
                if held.sessions.iter().any(publishes) {
                    let subject = held.subject.text();
                    if takes(&subject) {
                        publishers.insert(self.publisher(&subject));
                    }
                }
            }
        }
        publishers.len()
    }

    fn in_order<'a>(
        &self,
        shard: &'a Shard<Box<SubjectSessions>>,
        position: usize,
        filter: Filter<'_>,
        after: Option<Cursor>,
        now: u32,
    ) -> Vec<(Cursor, &'a SubjectSessions, &'a Session)> {
        let table = self.table_name();
        let mut taken = Vec::new();
        for held in shard.values().filter(|held| filter.takes(held)) {
            for session in held.sessions.iter().filter(|session| session.is_live(now)) {
                let name = (&held.channel, &held.subject, &session.user);
                let cursor = Cursor {
                    shard: u16::try_from(position).unwrap_or(u16::MAX),
                    session: self.hasher.hash_one(name),
                    table,
                };
                if after.is_none_or(|after| cursor > after) {
                    taken.push((cursor, &**held, session));
                }
            }
        }
        taken.sort_unstable_by_key(|(cursor, ..)| *cursor);
        taken
    }

    /// Tells this table's cursors from another's.
    fn table_name(&self) -> u32 {
        u32::try_from(self.hasher.hash_one("cursor") >> 32).unwrap_or(0)
    }
}

impl Held {
    fn of(held: &SubjectSessions, session: &Session) -> Self {
        Self {
            channel: held.channel.text(),
            subject: held.subject.text(),
            user: session.user.clone(),
            role: session.role,
            first_issued: session.first_issued.into(),
            expires: session.last_expiry().into(),
            refreshes: session.refreshes,
        }
    }
}
