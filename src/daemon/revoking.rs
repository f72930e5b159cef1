//! Revokes and lifts, as the admin listener asks.
//!
//! Keeps true: a revocation is in force before it is written, and written before it is answered; each change is
//! counted and audited once.
//! Must not know: how an answer is written, how a record is kept.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::sleep;

use super::ejecting::{CoveredTokens, Ejector};
use super::tasks::change_journal::Durability;
use super::tasks::finishing::FinishingTask;
use super::tasks::revocation_journal::RevocationLog;
use super::tasks::revocation_sharing::RevocationShare;
use crate::admin::{
    Lifted, ListQuery, OutstandingToken, OutstandingTokens, RevocationEntry, RevocationPage,
    RevocationsResult, RevokeError, Revoked,
};
use crate::decision::RevocationRequest;
use crate::revocation::{
    Revocation, RevocationFilter, RevocationId, RevocationRecord, RevocationTarget,
};
use crate::sessions::{Filter, Held, Sessions};
use crate::snapshot::Shared;
use crate::store::Store;
use crate::telemetry::audit::{RevocationChange, RevocationEvent};
use crate::terms::timestamp;
use crate::terms::user::User;

/// Outstanding tokens that an answer names.
const NAMED: usize = 100;

/// Holders of one uid that a revocation covers. Where `policy.bind_uid` is on, a uid has one.
const MOST_HOLDERS: usize = 16;

/// Sessions that are looked at under one set of locks.
const PAGE: usize = 1000;

/// The pauses before the sessions are looked through again. Replicas tell each other of sessions and revocations within
/// a second; those that come late to a store that is back have the second pause.
const LATE_LOOKS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(10)];

/// Changes the revocations.
#[derive(Clone, Debug)]
pub(crate) struct Revoker {
    /// The state that the workers serve from.
    pub shared: Arc<Shared>,
    /// The log to which changes are written.
    log: RevocationLog,
    /// Where other replicas learn of them.
    share: RevocationShare,
    /// The part that removes users from their channels.
    ejector: Ejector,
    /// Held while the sessions are looked through a second time: many may have to be when the store is back.
    looking_again: Arc<Mutex<()>>,
}

impl Revoker {
    /// Changes what is served from, writes each change to this log, and has users removed from their channels. The
    /// task tells the other replicas.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        log: RevocationLog,
        ejector: Ejector,
    ) -> (Self, Option<FinishingTask>) {
        let (share, sharing) = RevocationShare::start(shared, log.clone(), ejector.clone());
        let revoker = Self {
            shared: Arc::clone(shared),
            log,
            share,
            ejector,
            looking_again: Arc::default(),
        };
        (revoker, sharing)
    }

    /// A page of the revocations in force.
    pub(crate) fn page(&self, query: &ListQuery) -> RevocationsResult {
        let after = match &query.cursor {
            Some(cursor) => {
                let id = RevocationId::parse(cursor);
                Some(id.ok_or("cursor: not one that a page before this one gave")?)
            }
            None => None,
        };
        let filter = RevocationFilter {
            subject: query.subject.as_deref(),
            channel: query.channel.as_deref(),
        };
        let now = self.shared.clock.unix_seconds();
        let revocations = &self.shared.current.load().revocations;
        let page = revocations.page(filter, after, query.limit, now);
        Ok(RevocationPage {
            revocations: page
                .revocations
                .iter()
                .map(|each| self.entry(each))
                .collect(),
            cursor: page.next.map(|next| next.to_string()),
        })
    }

    /// The revocation of this id, if it is in force.
    pub(crate) fn get(&self, id: &str) -> Option<RevocationEntry> {
        let now = self.shared.clock.unix_seconds();
        let revocations = &self.shared.current.load().revocations;
        let revocation = revocations.get(RevocationId::parse(id)?)?;
        (revocation.until > now).then(|| self.entry(&revocation))
    }

    /// Revokes what the body of a request asks for.
    pub(crate) async fn revoke(&self, body: &[u8]) -> Result<Revoked, RevokeError> {
        let clock = &self.shared.clock;
        if !clock.is_plausible() {
            let message = "the system's clock can't be right, so no end can be set; set the clock";
            return Err(RevokeError::Failed(message.to_owned()));
        }
        let now = clock.unix_seconds();
        let asked = RevocationRequest::from_json(body, now).map_err(RevokeError::Invalid)?;
        let id = RevocationId::new(clock.unix_millis(), self.shared.entropy)
            .map_err(|error| RevokeError::Failed(error.to_string()))?;
        let snapshot = self.shared.current.load_full();
        let sessions = Arc::clone(&snapshot.sessions);
        let target = asked.target.clone();
        let holders = looked(move || holders(&sessions, &target, now)).await?;
        let revocation = Revocation {
            id,
            target: asked.target,
            holders,
            created: now,
            until: asked.until,
            reason: asked.reason.into(),
            others: BTreeMap::new(),
        };
        let added = snapshot.revocations.add(revocation.clone());
        added.map_err(|full| RevokeError::Full(full.to_string()))?;
        let record = RevocationRecord::Made(revocation.clone());
        let written = self.log.write(record.clone()).await;
        self.share.give(record);
        // Only now: a token that was granted before the revocation was in force is recorded by now.
        let (sessions, revoked) = (Arc::clone(&snapshot.sessions), revocation.clone());
        let listing = looked(move || outstanding(&sessions, &revoked, now));
        let (outstanding, covered) = listing.await?;
        let planned = self.ejector.plan(&revocation, covered).await;
        let written = written.and_then(|durability| planned.map(|_| durability));
        let durable = written == Ok(Durability::Synced);
        self.report(RevocationChange::Made, &revocation, durable);
        if let Some(store) = snapshot
            .store
            .clone()
            .filter(|_| self.ejector.is_configured())
        {
            let sessions = Arc::clone(&snapshot.sessions);
            tokio::spawn(self.clone().look_again(revocation.clone(), sessions, store));
        }
        Ok(Revoked {
            revocation: self.entry(&revocation),
            durable,
            outstanding,
            not_written: written.err(),
        })
    }

    /// Has the users removed whose tokens other replicas granted when the revocation was not in force there yet. While
    /// the store gives no answer, those tokens are not known here.
    async fn look_again(self, revocation: Revocation, sessions: Arc<Sessions>, store: Arc<Store>) {
        for pause in LATE_LOOKS {
            loop {
                let was_down = store.outage().is_some();
                sleep(pause).await;
                if !was_down && store.outage().is_none() {
                    break;
                }
            }
            let _turn = self.looking_again.lock().await;
            let now = self.shared.clock.unix_seconds();
            let (sessions, revoked) = (Arc::clone(&sessions), revocation.clone());
            let listing = looked(move || outstanding(&sessions, &revoked, now));
            if let Ok((_, covered)) = listing.await {
                self.ejector.plan_late(&revocation, covered).await;
            }
        }
    }

    /// Lifts a revocation; `None` where none of that id is in force.
    pub(crate) async fn lift(&self, id: &str) -> Option<Lifted> {
        let snapshot = self.shared.current.load_full();
        let revocation = snapshot.revocations.lift(RevocationId::parse(id)?)?;
        if revocation.until <= self.shared.clock.unix_seconds() {
            return None;
        }
        let record = RevocationRecord::Lifted {
            id: revocation.id,
            until: revocation.until,
        };
        let written = self.log.write(record.clone()).await;
        self.share.give(record);
        let lifted = self.ejector.lift(revocation.id).await;
        let written = written.and_then(|durability| lifted.map(|_| durability));
        let durable = written == Ok(Durability::Synced);
        self.report(RevocationChange::Lifted, &revocation, durable);
        Some(Lifted {
            revocation: self.entry(&revocation),
            durable,
            not_written: written.err(),
        })
    }

    fn entry(&self, revocation: &Revocation) -> RevocationEntry {
        let target = &revocation.target;
        let user = target.user();
        RevocationEntry {
            id: revocation.id.to_string(),
            subject: target.subject().map(str::to_owned),
            channel: target.channel().map(str::to_owned),
            uid: user.as_ref().and_then(User::uid),
            account: user.as_ref().and_then(User::account).map(str::to_owned),
            holders: revocation.holders.iter().map(ToString::to_string).collect(),
            created: timestamp::from_seconds(revocation.created),
            until: timestamp::from_seconds(revocation.until),
            reason: revocation.reason.to_string(),
            ejections: self.ejector.status(revocation.id),
        }
    }

    fn report(&self, change: RevocationChange, revocation: &Revocation, durable: bool) {
        let snapshot = self.shared.current.load();
        self.shared.metrics.revocations(snapshot.revocations.len());
        let id = revocation.id.to_string();
        let target = &revocation.target;
        snapshot.audit.revocation(&RevocationEvent {
            change,
            id: &id,
            subject: target.subject(),
            channel: target.channel(),
            user: target.user(),
            until: revocation.until,
            reason: &revocation.reason,
            durable,
        });
    }
}

/// Looks through the sessions: a filter may have to look at each of a million.
async fn looked<T: Send + 'static>(
    look: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RevokeError> {
    let looking = tokio::task::spawn_blocking(look);
    looking
        .await
        .map_err(|error| RevokeError::Failed(error.to_string()))
}

/// The subjects that hold the target's user. Every client may hold uid 0.
fn holders(sessions: &Sessions, target: &RevocationTarget, now: u64) -> Vec<Box<str>> {
    let Some(user) = target.user().filter(|user| *user != User::Uid(0)) else {
        return Vec::new();
    };
    let mut holders = HashSet::new();
    for_each_session(sessions, target, now, |held| {
        if held.user.borrowed() == user && holders.len() < MOST_HOLDERS {
            holders.insert(Box::from(held.subject));
        }
    });
    holders.into_iter().collect()
}

/// The tokens that a revocation covers and that are valid until they expire.
fn outstanding(
    sessions: &Sessions,
    revocation: &Revocation,
    now: u64,
) -> (OutstandingTokens, CoveredTokens) {
    let Revocation {
        target, holders, ..
    } = revocation;
    let user = target.user();
    let mut tokens = CoveredTokens::default();
    let (mut count, mut last) = (0_u64, None);
    let mut named: Vec<Held> = Vec::new();
    for_each_session(sessions, target, now, |held| {
        let covered = user.is_none_or(|user| {
            held.user.borrowed() == user || holders.iter().any(|holder| **holder == *held.subject)
        });
        if covered {
            tokens.add(&held);
            count += 1;
            last = last.max(Some(held.expires));
            if named.len() < NAMED {
                named.push(held);
            }
        }
    });
    named.sort_by_key(|held| Reverse(held.expires));
    let outstanding = OutstandingTokens {
        count,
        last_expires: last.map(timestamp::from_seconds),
        tokens: named.into_iter().map(token).collect(),
    };
    (outstanding, tokens)
}

fn token(held: Held) -> OutstandingToken {
    OutstandingToken {
        subject: held.subject,
        channel: held.channel,
        uid: held.user.uid(),
        account: held.user.account().map(str::to_owned),
        role: held.role.as_str(),
        expires: timestamp::from_seconds(held.expires),
    }
}

/// Goes through the live sessions of the target's subject and channel.
fn for_each_session(
    sessions: &Sessions,
    target: &RevocationTarget,
    now: u64,
    mut each: impl FnMut(Held),
) {
    let filter = Filter {
        channel: target.channel(),
        subject: target.subject(),
    };
    let mut after = None;
    loop {
        let page = sessions.page(filter, after, PAGE, now);
        page.sessions.into_iter().for_each(&mut each);
        after = page.next;
        if after.is_none() {
            return;
        }
    }
}
