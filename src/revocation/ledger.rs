//! Revocations by their names and by their ends, and the names of those that were lifted.
//!
//! Keeps true: both orders hold the same revocations; one that was lifted is remembered until it would have ended, so
//! that no other replica and no older record brings it back; a page is never longer than asked; a sweep removes a
//! bounded number.
//! Must not know: what a revocation refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::{MOST, Revocation, RevocationId};

/// Revocations that one sweep removes at most: a fraction of a millisecond.
const SWEPT_AT_ONCE: usize = 500;

/// Which revocations to list: those of which all of this is true.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RevocationFilter<'a> {
    /// The target names this subject, or it held the target's user.
    pub subject: Option<&'a str>,
    /// The target names this channel.
    pub channel: Option<&'a str>,
}

/// A page of the list of revocations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListedRevocations {
    /// At most as many as were asked for, the latest first.
    pub revocations: Vec<Arc<Revocation>>,
    /// The last one's name, where the list goes on.
    pub next: Option<RevocationId>,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    by_name: BTreeMap<RevocationId, Arc<Revocation>>,
    by_end: BTreeSet<(u64, RevocationId)>,
    /// When each of those that were lifted would have ended, in Unix seconds.
    lifted: BTreeMap<RevocationId, u64>,
}

impl RevocationFilter<'_> {
    fn takes(self, revocation: &Revocation) -> bool {
        let target = &revocation.target;
        let names = |subject: &str| {
            let mut holders = revocation.holders.iter();
            target.subject() == Some(subject) || holders.any(|holder| **holder == *subject)
        };
        self.subject.is_none_or(names)
            && self
                .channel
                .is_none_or(|channel| target.channel() == Some(channel))
    }
}

impl Ledger {
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn get(&self, id: RevocationId) -> Option<Arc<Revocation>> {
        self.by_name.get(&id).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Revocation>> {
        self.by_name.values().cloned().collect()
    }

    pub(super) fn is_lifted(&self, id: RevocationId) -> bool {
        self.lifted.contains_key(&id)
    }

    /// Remembers that a revocation was lifted, which may not be known here. Above the bound the oldest is forgotten.
    pub(super) fn mark_lifted(&mut self, id: RevocationId, until: u64) {
        self.lifted.insert(id, until);
        if self.lifted.len() > MOST {
            self.lifted.pop_first();
        }
    }

    /// The names of those that were lifted, and when they would have ended.
    pub(super) fn lifted(&self) -> impl Iterator<Item = (RevocationId, u64)> {
        self.lifted.iter().map(|(id, until)| (*id, *until))
    }

    pub(super) fn add(&mut self, revocation: Arc<Revocation>) {
        self.by_end.insert((revocation.until, revocation.id));
        self.by_name.insert(revocation.id, revocation);
    }

    pub(super) fn remove(&mut self, id: RevocationId) -> Option<Arc<Revocation>> {
        let removed = self.by_name.remove(&id)?;
        self.by_end.remove(&(removed.until, id));
        Some(removed)
    }

    /// Removes some of those that are over.
    pub(super) fn take_over(&mut self, now: u64) -> Vec<Arc<Revocation>> {
        // Most lifted ones are few; they are looked through whole.
        self.lifted.retain(|_, until| *until > now);
        let mut over = Vec::new();
        while over.len() < SWEPT_AT_ONCE {
            let Some((_, id)) = self.by_end.first().filter(|(until, _)| *until <= now) else {
                break;
            };
            let id = *id;
            over.extend(self.remove(id));
        }
        over
    }

    pub(super) fn page(
        &self,
        filter: RevocationFilter<'_>,
        after: Option<RevocationId>,
        limit: usize,
        now: u64,
    ) -> ListedRevocations {
        let end = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut page = ListedRevocations::default();
        let listed = self.by_name.range((Bound::Unbounded, end)).rev();
        for (_, revocation) in listed {
            if revocation.until <= now || !filter.takes(revocation) {
                continue;
            }
            if page.revocations.len() >= limit {
                page.next = page.revocations.last().map(|last| last.id);
                break;
            }
            page.revocations.push(Arc::clone(revocation));
        }
        page
    }
}
