//! All ejections that are not over.
//!
//! Keeps true: at most [`MOST`] ejections at once; publishers come before rules to delete, and both before viewers;
//! an ejection that is taken is handed out once until it is finished; a rule whose revocation was lifted is deleted,
//! even if it is made after that.
//! Must not know: where records are kept, how many requests a second are allowed.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeInclusive};
use std::time::Duration;

use parking_lot::Mutex;

use super::table::{EjectionTable, Entry};
use super::{
    Ejection, EjectionId, EjectionRecord, EjectionResult, EjectionStage, EjectionTally,
    EjectionTarget, EndedEjections, MOST, TakenEjection,
};
use crate::revocation::RevocationId;

/// Ejections whose users are looked up at once.
const LOOKED_AT: usize = 1000;

/// The names of a revocation's ejections.
fn all_of(revocation: RevocationId) -> RangeInclusive<EjectionId> {
    let of = |number| EjectionId { revocation, number };
    of(0)..=of(u32::MAX)
}

/// All ejections that are not over.
#[derive(Debug, Default)]
pub(crate) struct Ejections(Mutex<EjectionTable>);

impl Ejections {
    /// Takes in the ejections of a new revocation, the publishers first as far as there is room, and gives their
    /// records.
    pub(crate) fn add(
        &self,
        revocation: RevocationId,
        until: u64,
        app_id: &str,
        mut targets: Vec<EjectionTarget>,
        not_possible: u64,
    ) -> Vec<EjectionRecord> {
        targets.sort_by_key(|target| target.role);
        let mut table = self.0.lock();
        let room = MOST.saturating_sub(table.entries.len());
        let without_room = targets.len().saturating_sub(room);
        let counted = EjectionTally {
            failed: u64::try_from(without_room).unwrap_or(u64::MAX),
            not_possible,
            error: (without_room > 0)
                .then(|| format!("more than {MOST} ejections are under way").into()),
            ..EjectionTally::default()
        };
        table.open_account(revocation, until, counted.clone(), BTreeMap::new());
        let mut records = vec![EjectionRecord::Tally {
            revocation,
            until,
            tally: counted,
            others: BTreeMap::new(),
        }];
        for (number, target) in (0..).zip(targets.into_iter().take(room)) {
            let id = EjectionId { revocation, number };
            records.push(table.plan(id, app_id, target, until));
        }
        records
    }

    /// Takes in tokens of a revocation that became known after it was made, and gives the records of those for which no
    /// ejection lasts as long. Nothing where the revocation was lifted.
    pub(crate) fn add_late(
        &self,
        revocation: RevocationId,
        until: u64,
        app_id: &str,
        targets: Vec<EjectionTarget>,
    ) -> Vec<EjectionRecord> {
        let mut table = self.0.lock();
        if !table.accounts.contains_key(&revocation) {
            return Vec::new();
        }
        let of_it = || table.entries.range(all_of(revocation));
        let known: BTreeMap<_, _> = of_it()
            .map(|(_, Entry { ejection, .. })| {
                let held = (&*ejection.channel, &*ejection.subject, ejection.uid);
                (held, ejection.until)
            })
            .collect();
        let is_news = |target: &EjectionTarget| {
            let held = (&*target.channel, &*target.subject, target.uid);
            let lasts = known.get(&held);
            lasts.is_none_or(|lasts| *lasts < target.expires.min(until))
        };
        let targets: Vec<_> = targets.into_iter().filter(is_news).collect();
        let last = of_it().next_back().map(|(id, _)| id.number);
        let first = last.map_or(0, |last| last.saturating_add(1));
        let room = MOST.saturating_sub(table.entries.len());
        let numbered = (first..).zip(targets.into_iter().take(room));
        let added = numbered.map(|(number, target)| {
            let id = EjectionId { revocation, number };
            table.plan(id, app_id, target, until)
        });
        added.collect()
    }

    /// Puts back what was written down. Ejections of revocations that are not in force are lifted.
    pub(crate) fn restore(
        &self,
        records: Vec<EjectionRecord>,
        now: u64,
        is_in_force: impl Fn(RevocationId) -> bool,
    ) {
        let mut table = self.0.lock();
        let mut last = BTreeMap::new();
        for record in records {
            match record {
                EjectionRecord::Ejection(ejection) => {
                    last.insert(ejection.id, ejection);
                }
                EjectionRecord::Tally {
                    revocation,
                    until,
                    tally,
                    others,
                } => {
                    if until > now && is_in_force(revocation) {
                        table.open_account(revocation, until, tally, others);
                    }
                }
                EjectionRecord::Later(_) => {}
            }
        }
        let ejections = last.into_values();
        for ejection in ejections.filter(|ejection| ejection.stage != EjectionStage::Over) {
            let (id, ended) = (ejection.id, ejection.until <= now);
            table.insert(ejection);
            if ended {
                table.end(id);
            } else if !is_in_force(id.revocation) {
                table.lift(id);
            }
        }
    }

    /// A record of everything that a restart needs.
    pub(crate) fn records(&self) -> Vec<EjectionRecord> {
        let table = self.0.lock();
        let mut tallies: BTreeMap<_, _> = table
            .accounts
            .iter()
            .map(|(revocation, account)| (*revocation, account.tally.clone()))
            .collect();
        // The tally's record doesn't count an ejection that has a record of its own.
        for entry in table.entries.values() {
            if let Some(tally) = tallies.get_mut(&entry.ejection.id.revocation)
                && let Some(count) = tally.of(&entry.ejection.stage)
            {
                *count = count.saturating_sub(1);
            }
        }
        let tallies = tallies.into_iter().filter_map(|(revocation, tally)| {
            let account = table.accounts.get(&revocation)?;
            Some(EjectionRecord::Tally {
                revocation,
                until: account.until,
                tally,
                others: account.others.clone(),
            })
        });
        let entries = table.entries.values();
        tallies
            .chain(entries.map(|entry| EjectionRecord::Ejection(entry.ejection.clone())))
            .collect()
    }

    /// How far the ejections of a revocation are; `None` where it has none.
    pub(crate) fn tally(&self, revocation: RevocationId) -> Option<EjectionTally> {
        let table = self.0.lock();
        let account = table.accounts.get(&revocation)?;
        Some(account.tally.clone())
    }

    /// How long until something can be taken; `None` where nothing is there to be taken.
    pub(crate) fn due(&self, elapsed: Duration) -> Option<Duration> {
        let table = self.0.lock();
        if !table.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let (due, _) = table.waiting.first()?;
        Some(due.saturating_sub(elapsed))
    }

    /// Hands out the most urgent ejection. Give it back by [`Self::finish`].
    pub(crate) fn take(&self, elapsed: Duration) -> Option<TakenEjection> {
        let mut table = self.0.lock();
        while let Some((due, id)) = table.waiting.first().copied()
            && due <= elapsed
        {
            table.waiting.pop_first();
            if let Some(urgency) = table.entries.get(&id).and_then(Entry::urgency) {
                table.ready.insert((urgency, id));
            }
        }
        loop {
            let (_, id) = table.ready.pop_first()?;
            let Some(entry) = table.entries.get(&id) else {
                continue;
            };
            match entry.ejection.stage {
                _ if entry.lifted => {
                    table.advance(id, EjectionStage::Over);
                }
                EjectionStage::Lifting { rule } if table.is_shared(rule, id) => {
                    table.give_up(id);
                }
                _ => {
                    return Some(TakenEjection {
                        ejection: entry.ejection.clone(),
                        failures: entry.failures,
                    });
                }
            }
        }
    }

    /// Some of the ejections whose rules are made, from the one after this on.
    pub(crate) fn made_after(&self, after: Option<EjectionId>) -> Vec<Ejection> {
        let table = self.0.lock();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = table.entries.range((from, Bound::Unbounded));
        let ejections = entries.map(|(_, entry)| &entry.ejection);
        let made = ejections.filter(|one| matches!(one.stage, EjectionStage::Made { .. }));
        made.take(LOOKED_AT).cloned().collect()
    }

    /// Has the rules of these deleted, as far as they are made. Gives the records of the changes.
    pub(crate) fn take_back(&self, ids: &[EjectionId]) -> Vec<EjectionRecord> {
        let mut table = self.0.lock();
        let taken_back = ids.iter().filter_map(|id| {
            let EjectionStage::Made { rule } = table.entries.get(id)?.ejection.stage else {
                return None;
            };
            table.advance(*id, EjectionStage::Lifting { rule })
        });
        taken_back.collect()
    }

    /// Records what has become of an ejection that was taken; gives the record of a change that must survive a
    /// restart.
    pub(crate) fn finish(&self, id: EjectionId, result: EjectionResult) -> Option<EjectionRecord> {
        self.0.lock().finish(id, result)
    }

    /// Gives up what is left to do for a revocation that was lifted, and has its rules deleted.
    pub(crate) fn lift(&self, revocation: RevocationId) -> Vec<EjectionRecord> {
        let mut table = self.0.lock();
        table.close_account(revocation);
        let all = table.entries.range(all_of(revocation));
        let ids: Vec<_> = all.map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| table.lift(id)).collect()
    }

    /// Forgets ejections whose token or revocation is over, and the tallies of revocations that are over.
    pub(crate) fn sweep(&self, now: u64) -> EndedEjections {
        let mut table = self.0.lock();
        let mut ended = EndedEjections::default();
        while let Some((until, id)) = table.ends.first().copied()
            && until <= now
        {
            let one = table.end(id);
            ended.dropped += one.dropped;
            ended.failed += one.failed;
        }
        while let Some((until, revocation)) = table.account_ends.first().copied()
            && until <= now
        {
            table.close_account(revocation);
        }
        ended
    }
}
