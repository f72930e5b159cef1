//! The entries of the queue of ejections, in each order that is needed, and what is counted of each revocation.
//!
//! Keeps true: every entry is in every order that it belongs to, and counted once.
//! Must not know: who waits for an entry.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::{
    Ejection, EjectionId, EjectionRecord, EjectionResult, EjectionStage, EjectionTally,
    EjectionTarget, EndedEjections,
};
use crate::revocation::RevocationId;
use crate::terms::role::Role;

#[derive(Debug, Default)]
pub(super) struct EjectionTable {
    pub(super) entries: BTreeMap<EjectionId, Entry>,
    /// The entries that may be taken now, the most urgent first.
    pub(super) ready: BTreeSet<(Urgency, EjectionId)>,
    /// The entries that may be taken later, and when, on the clock's monotonic scale.
    pub(super) waiting: BTreeSet<(Duration, EjectionId)>,
    /// The rules that are made, each with the ejections that it was made for.
    rules: BTreeSet<(u64, EjectionId)>,
    /// Every entry by its end.
    pub(super) ends: BTreeSet<(u64, EjectionId)>,
    pub(super) accounts: BTreeMap<RevocationId, Account>,
    pub(super) account_ends: BTreeSet<(u64, RevocationId)>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) ejection: Ejection,
    pub(super) failures: u32,
    /// The revocation was lifted while the rule was being made.
    pub(super) lifted: bool,
}

/// The numbers of a revocation that is in force.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) until: u64,
    pub(super) tally: EjectionTally,
    pub(super) others: BTreeMap<String, Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    Publisher,
    Deletion,
    Subscriber,
}

impl EjectionTable {
    pub(super) fn open_account(
        &mut self,
        revocation: RevocationId,
        until: u64,
        tally: EjectionTally,
        others: BTreeMap<String, Value>,
    ) {
        self.close_account(revocation);
        self.account_ends.insert((until, revocation));
        let account = Account {
            until,
            tally,
            others,
        };
        self.accounts.insert(revocation, account);
    }

    pub(super) fn close_account(&mut self, revocation: RevocationId) {
        if let Some(account) = self.accounts.remove(&revocation) {
            self.account_ends.remove(&(account.until, revocation));
        }
    }

    /// Plans the ejection of a token's holder, and gives its record.
    pub(super) fn plan(
        &mut self,
        id: EjectionId,
        app_id: &str,
        target: EjectionTarget,
        until: u64,
    ) -> EjectionRecord {
        let ejection = Ejection {
            id,
            app_id: app_id.into(),
            channel: target.channel,
            subject: target.subject,
            uid: target.uid,
            role: target.role,
            until: target.expires.min(until),
            stage: EjectionStage::Waiting,
            others: BTreeMap::new(),
        };
        self.insert(ejection.clone());
        EjectionRecord::Ejection(ejection)
    }

    pub(super) fn insert(&mut self, ejection: Ejection) {
        let id = ejection.id;
        self.recount(id, None, Some(&ejection.stage));
        self.ends.insert((ejection.until, id));
        if let EjectionStage::Made { rule } = ejection.stage {
            self.rules.insert((rule, id));
        }
        let entry = Entry {
            ejection,
            failures: 0,
            lifted: false,
        };
        if let Some(urgency) = entry.urgency() {
            self.ready.insert((urgency, id));
        }
        self.entries.insert(id, entry);
    }

    /// Moves an ejection from one number of its tally to another.
    fn recount(
        &mut self,
        id: EjectionId,
        from: Option<&EjectionStage>,
        to: Option<&EjectionStage>,
    ) {
        let Some(account) = self.accounts.get_mut(&id.revocation) else {
            return;
        };
        if let Some(count) = from.and_then(|stage| account.tally.of(stage)) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = to.and_then(|stage| account.tally.of(stage)) {
            *count += 1;
        }
        let tally = &mut account.tally;
        if let Some(EjectionStage::Failed { error }) = to {
            tally.error = Some(error.clone());
        } else if tally.pending == 0 && tally.failed == 0 {
            tally.error = None;
        }
    }

    /// Takes an entry out of everything.
    fn remove(&mut self, id: EjectionId) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.ends.remove(&(entry.ejection.until, id));
        if let EjectionStage::Made { rule } = entry.ejection.stage {
            self.rules.remove(&(rule, id));
        }
        if let Some(urgency) = entry.urgency() {
            self.ready.remove(&(urgency, id));
        }
        Some(entry)
    }

    /// Changes an entry's stage and gives its record. One whose stage is over is removed.
    pub(super) fn advance(
        &mut self,
        id: EjectionId,
        stage: EjectionStage,
    ) -> Option<EjectionRecord> {
        let from = self.entries.get(&id)?.ejection.stage.clone();
        self.recount(id, Some(&from), Some(&stage));
        if stage == EjectionStage::Over {
            let mut entry = self.remove(id)?;
            entry.ejection.stage = stage;
            return Some(EjectionRecord::Ejection(entry.ejection));
        }
        if let EjectionStage::Made { rule } = from {
            self.rules.remove(&(rule, id));
        }
        if let EjectionStage::Made { rule } = stage {
            self.rules.insert((rule, id));
        }
        let entry = self.entries.get_mut(&id)?;
        entry.ejection.stage = stage;
        entry.failures = 0;
        let record = EjectionRecord::Ejection(entry.ejection.clone());
        if let Some(urgency) = entry.urgency() {
            self.ready.insert((urgency, id));
        }
        Some(record)
    }

    pub(super) fn finish(
        &mut self,
        id: EjectionId,
        result: EjectionResult,
    ) -> Option<EjectionRecord> {
        let entry = self.entries.get_mut(&id)?;
        let lifted = std::mem::take(&mut entry.lifted);
        match result {
            EjectionResult::Made(rule) if lifted => {
                self.advance(id, EjectionStage::Lifting { rule })
            }
            EjectionResult::Made(rule) => self.advance(id, EjectionStage::Made { rule }),
            _ if lifted => self.advance(id, EjectionStage::Over),
            EjectionResult::Deleted | EjectionResult::Needless => self.give_up(id),
            EjectionResult::Refused(_) if !self.accounts.contains_key(&id.revocation) => {
                self.advance(id, EjectionStage::Over)
            }
            EjectionResult::Refused(error) => {
                let error = error.into();
                self.advance(id, EjectionStage::Failed { error })
            }
            EjectionResult::Later { error, due, counts } => {
                entry.failures = entry.failures.saturating_add(u32::from(counts));
                self.waiting.insert((due, id));
                if let Some(account) = self.accounts.get_mut(&id.revocation) {
                    account.tally.error = Some(error.into());
                }
                None
            }
        }
    }

    /// Ends an ejection of which nothing is left to do; while its revocation is in force it goes on being counted.
    pub(super) fn give_up(&mut self, id: EjectionId) -> Option<EjectionRecord> {
        let stage = if self.accounts.contains_key(&id.revocation) {
            EjectionStage::Dropped
        } else {
            EjectionStage::Over
        };
        self.advance(id, stage)
    }

    /// Whether this rule was made for another ejection too: for equal requests the server may have one rule.
    pub(super) fn is_shared(&self, rule: u64, id: EjectionId) -> bool {
        let from = (rule, EjectionId::FIRST);
        let mut made = self
            .rules
            .range(from..)
            .take_while(|(made, _)| *made == rule);
        made.any(|(_, other)| *other != id)
    }

    /// Lifts one ejection. One that is being made is lifted when it is finished.
    pub(super) fn lift(&mut self, id: EjectionId) -> Option<EjectionRecord> {
        let entry = self.entries.get_mut(&id)?;
        match entry.ejection.stage {
            EjectionStage::Made { rule } => self.advance(id, EjectionStage::Lifting { rule }),
            EjectionStage::Lifting { .. } => None,
            EjectionStage::Waiting => {
                let is_queued = self.ready.contains(&(entry.urgency()?, id));
                // Those that wait for a later attempt are few, and are given up when they are taken.
                if is_queued {
                    return self.advance(id, EjectionStage::Over);
                }
                entry.lifted = true;
                None
            }
            _ => self.advance(id, EjectionStage::Over),
        }
    }

    /// Ends an ejection with its token or revocation.
    pub(super) fn end(&mut self, id: EjectionId) -> EndedEjections {
        let mut ended = EndedEjections::default();
        let Some(entry) = self.remove(id) else {
            return ended;
        };
        if entry.ejection.stage != EjectionStage::Waiting {
            return ended;
        }
        let tally = self.accounts.get_mut(&id.revocation);
        let Some(Account { tally, .. }) = tally else {
            return ended;
        };
        tally.pending = tally.pending.saturating_sub(1);
        if entry.failures > 0 {
            tally.failed += 1;
            ended.failed = 1;
        } else {
            tally.dropped += 1;
            ended.dropped = 1;
        }
        ended
    }
}

impl Entry {
    /// How urgent it is; `None` where nothing is to be done.
    pub(super) fn urgency(&self) -> Option<Urgency> {
        match (&self.ejection.stage, self.ejection.role) {
            (EjectionStage::Waiting, Role::Publisher) => Some(Urgency::Publisher),
            (EjectionStage::Waiting, Role::Subscriber) => Some(Urgency::Subscriber),
            (EjectionStage::Lifting { .. }, _) => Some(Urgency::Deletion),
            _ => None,
        }
    }
}
