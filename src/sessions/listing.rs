//! The table as a list, a page at a time.
//!
//! Keeps true: a page holds no lock over more than one bucket and is never longer than asked; a session that is there
//! from the first page to the last is on exactly one of them, whatever else comes and goes.
//! Must not know: how a page looks to who asked.

use std::collections::HashSet;
use std::fmt;
use std::hash::BuildHasher as _;

use super::bucket::Bucket;
use super::session::Session;
use super::{SessionUser, Sessions, lock, seconds};
use crate::terms::role::Role;

/// Which sessions to list.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filter<'a> {
    /// Only this channel's.
    pub channel: Option<&'a str>,
    /// Only this subject's.
    pub subject: Option<&'a str>,
}

/// A session that holds a live token. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// The channel's name.
    pub channel: String,
    /// The JWT's subject.
    pub subject: String,
    /// Who in the channel.
    pub user: SessionUser,
    /// The last token's.
    pub role: Role,
    /// The subject's first token for the channel in an unbroken row.
    pub first_issued: u64,
    /// When the last token expires.
    pub expires: u64,
    /// Tokens after the first, up to 65 535.
    pub refreshes: u16,
}

/// Some of the sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedSessions {
    /// At most as many as were asked for, in no order that means anything.
    pub sessions: Vec<Held>,
    /// Where the next page starts; `None` on the last one.
    pub next: Option<Cursor>,
}

/// The place of a session in the list. It depends on keys that are drawn anew with every table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    bucket: u16,
    tag: u32,
    /// Tells the sessions of a subject in a channel apart.
    fine: u64,
    /// Of the table that it belongs to.
    table: u32,
}

// === impl Cursor ===

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            bucket,
            tag,
            fine,
            table,
        } = self;
        write!(formatter, "{table:08x}{bucket:04x}{tag:08x}{fine:016x}")
    }
}

impl Cursor {
    fn parse(text: &str) -> Option<Self> {
        if text.len() != 36 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        Some(Self {
            table: u32::from_str_radix(text.get(..8)?, 16).ok()?,
            bucket: u16::from_str_radix(text.get(8..12)?, 16).ok()?,
            tag: u32::from_str_radix(text.get(12..20)?, 16).ok()?,
            fine: u64::from_str_radix(text.get(20..)?, 16).ok()?,
        })
    }
}

// === impl Filter ===

impl Filter<'_> {
    fn takes(&self, session: &Session) -> bool {
        self.channel
            .is_none_or(|channel| session.channel.is(channel))
            && self
                .subject
                .is_none_or(|subject| session.subject.is(subject))
    }
}

// === impl Sessions ===

impl Sessions {
    /// A cursor out of the text it was shown as; `None` for any other text, and for one of another process.
    pub(crate) fn cursor(&self, text: &str) -> Option<Cursor> {
        Cursor::parse(text).filter(|cursor| cursor.table == self.table())
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
        let sole = match filter {
            Filter {
                channel: Some(channel),
                subject: Some(subject),
            } => Some(self.key(channel, subject).bucket()),
            _ => None,
        };
        let mut page = ListedSessions {
            sessions: Vec::new(),
            next: None,
        };
        let mut last = None;
        let first = after.map_or(0, |after| usize::from(after.bucket));
        for (index, bucket) in self.buckets.iter().enumerate().skip(first) {
            if sole.is_some_and(|sole| sole != index) {
                continue;
            }
            let bucket = lock(bucket);
            for (cursor, session) in self.in_order(&bucket, index, filter, after, now) {
                if page.sessions.len() >= limit {
                    // There is more.
                    page.next = last;
                    return page;
                }
                page.sessions.push(Held::of(session));
                last = Some(cursor);
            }
        }
        page
    }

    /// How many subjects hold a publisher's live token, of those that are taken: each once, in however many channels and
    /// under however many uids.
    pub(crate) fn publishers(&self, takes: impl Fn(&str) -> bool, now: u64) -> usize {
        let now = seconds(now);
        let mut publishers = HashSet::new();
        for bucket in &self.buckets {
            let bucket = lock(bucket);
            for (_, session) in bucket.all() {
                if session.role != Role::Publisher || !session.is_live(now) {
                    continue;
                }
                let subject = session.subject.text();
                if takes(&subject) {
                    publishers.insert(self.hasher.hash_one(&*subject));
                }
            }
        }
        publishers.len()
    }

    fn in_order<'a>(
        &self,
        bucket: &'a Bucket,
        index: usize,
        filter: Filter<'_>,
        after: Option<Cursor>,
        now: u32,
    ) -> Vec<(Cursor, &'a Session)> {
        let table = self.table();
        let taken = bucket
            .all()
            .filter(|(_, session)| session.is_live(now) && filter.takes(session));
        let mut taken: Vec<_> = taken
            .map(|(tag, session)| {
                let cursor = Cursor {
                    bucket: u16::try_from(index).unwrap_or(u16::MAX),
                    tag,
                    fine: self.fine(session),
                    table,
                };
                (cursor, session)
            })
            .filter(|(cursor, _)| after.is_none_or(|after| *cursor > after))
            .collect();
        taken.sort_unstable_by_key(|(cursor, _)| *cursor);
        taken
    }

    fn fine(&self, session: &Session) -> u64 {
        let Session {
            channel,
            subject,
            user,
            ..
        } = session;
        self.hasher.hash_one((channel, subject, user))
    }

    /// Tells this table's cursors from another's.
    fn table(&self) -> u32 {
        u32::try_from(self.hasher.hash_one("cursor") >> 32).unwrap_or(0)
    }
}

impl Held {
    fn of(session: &Session) -> Self {
        Self {
            channel: session.channel.text(),
            subject: session.subject.text(),
            user: session.user.clone(),
            role: session.role,
            first_issued: session.first_issued.into(),
            expires: session.last_expiry().into(),
            refreshes: session.refreshes,
        }
    }
}
