//! Sends what ejections need to Agora.
//!
//! Keeps true: at most ten requests in any second, of all replicas together while their store answers, since a slot or a
//! place is used again no sooner than a second after its last request ended; no rule is asked for while a user who isn't
//! revoked has its uid, and a rule whose uid such a user gets is deleted; nothing is sent without `[agora.rest]`.
//! Must not know: who revokes, how records are kept.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::ejection_journal::EjectionLog;
use crate::config::model::AgoraRest;
use crate::ejection::backoff::{Backoff, pause_after};
use crate::ejection::kicking_rule::{self, RuleAnswer, SHORTEST_RULE};
use crate::ejection::{
    Ejection, EjectionId, EjectionRecord, EjectionResult, EjectionStage, Ejections, TakenEjection,
};
use crate::revocation::RevocationQuestion;
use crate::snapshot::{Shared, Snapshot};
use crate::store::{NoStore, Place, SeatHeld};
use crate::telemetry::traffic_labels::EjectionOutcome;
use crate::terms::user::User;

/// The requests that Agora allows in [`WINDOW`].
const SLOTS: usize = 10;
const WINDOW: Duration = Duration::from_secs(1);

/// The longest that a request and the second after it take, and some more for a slow disk.
const LEASE: Duration = Duration::from_secs(30);

/// The pause after all places were taken.
const ALL_TAKEN: Duration = Duration::from_millis(100);

/// How often the configuration and the ends of ejections are looked at.
const TURN: Duration = Duration::from_secs(1);

/// The sender of requests to Agora.
#[derive(Debug)]
pub(crate) struct EjectionSender {
    pub shared: Arc<Shared>,
    pub ejections: Arc<Ejections>,
    pub log: EjectionLog,
    /// Told when there is something new to send.
    pub wake: Arc<Notify>,
    pub backoff: Mutex<Backoff>,
}

/// A request that may be sent.
struct Sendable {
    taken: TakenEjection,
    rest: AgoraRest,
    /// The request's place among those of all replicas; `None` where there is no store, or it gives no answer.
    place: Option<Place>,
}

/// How far the rules that are made have been looked at.
#[derive(Default)]
struct RuleWatch {
    last: Option<EjectionId>,
    /// When the next ones are, on the clock's monotonic scale.
    due: Duration,
}

/// Runs until the runtime ends.
pub(crate) async fn run(sender: EjectionSender) {
    let sender = Arc::new(sender);
    sender.register();
    // The last process may have sent requests in the last second.
    sleep(WINDOW).await;
    let slots = Arc::new(Semaphore::new(SLOTS));
    let mut watch = RuleWatch::default();
    loop {
        // A slot comes first, so that the most urgent request of the moment gets it.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let sendable = sender.next(&mut watch).await;
        let sender = Arc::clone(&sender);
        tokio::spawn(async move {
            sender.act(sendable.taken, &sendable.rest).await;
            sender.leave(sendable.place, WINDOW).await;
            sleep(WINDOW).await;
            drop(slot);
        });
    }
}

impl EjectionSender {
    /// Makes the series, while `[agora.rest]` is configured.
    fn register(&self) -> Option<AgoraRest> {
        let rest = self.shared.current.load().config.agora.rest.clone()?;
        self.count(EjectionOutcome::Done, 0);
        Some(rest)
    }

    fn count(&self, outcome: EjectionOutcome, count: u64) {
        self.shared.metrics.ejections(outcome, count);
    }

    /// Waits for something that may be sent now.
    async fn next(&self, watch: &mut RuleWatch) -> Sendable {
        loop {
            self.sweep();
            self.take_back(watch).await;
            let pause = match self.sendable().await {
                Ok(sendable) => return sendable,
                Err(pause) => pause.min(TURN),
            };
            // Without a notification the turn is over just the same.
            let _ = timeout(pause, self.wake.notified()).await;
        }
    }

    fn sweep(&self) {
        let clock = &self.shared.clock;
        if clock.is_plausible() {
            let ended = self.ejections.sweep(clock.unix_seconds());
            if ended.dropped + ended.failed > 0 {
                self.count(EjectionOutcome::Dropped, ended.dropped);
                self.count(EjectionOutcome::Failed, ended.failed);
            }
        }
    }

    /// Something that may be sent now; otherwise how long there is surely nothing, unless something new comes.
    async fn sendable(&self) -> Result<Sendable, Duration> {
        let rest = self.register().ok_or(TURN)?;
        let clock = &self.shared.clock;
        if !clock.is_plausible() {
            return Err(TURN);
        }
        let due = self.ejections.due(clock.elapsed()).ok_or(TURN)?;
        if !due.is_zero() {
            return Err(due);
        }
        self.backoff.lock().may_send(&rest, clock.elapsed())?;
        let place = self.place().await?;
        let Some(taken) = self.take().await else {
            self.leave(place, Duration::ZERO).await;
            return Err(TURN);
        };
        self.backoff.lock().begins(&rest, clock.elapsed());
        Ok(Sendable { taken, rest, place })
    }

    /// The most urgent ejection that is still needed.
    async fn take(&self) -> Option<TakenEjection> {
        loop {
            let taken = self.ejections.take(self.shared.clock.elapsed())?;
            if self.is_needed(&taken.ejection).await {
                return Some(taken);
            }
            // The metric comes first, as everywhere: who sees the state may ask for the number.
            self.count(EjectionOutcome::Dropped, 1);
            let needless = EjectionResult::Needless;
            let record = self.ejections.finish(taken.ejection.id, needless);
            if let Some(record) = record {
                self.write(record).await;
            }
        }
    }

    /// A place among the requests of all replicas; otherwise how long to wait before the next question.
    async fn place(&self) -> Result<Option<Place>, Duration> {
        let Some(store) = self.shared.current.load().store.clone() else {
            return Ok(None);
        };
        match store.take_place(SLOTS, LEASE).await {
            Ok(Some(place)) => Ok(Some(place)),
            Err(NoStore) if store.outage().is_some() => Ok(None),
            // A late answer may have given a place, which the lease frees.
            Ok(None) | Err(NoStore) => Err(ALL_TAKEN),
        }
    }

    async fn leave(&self, place: Option<Place>, after: Duration) {
        let store = self.shared.current.load().store.clone();
        if let (Some(store), Some(place)) = (store, place) {
            store.leave_place(place, after).await;
        }
    }

    /// Whether the request would still do what it is for, and that only.
    async fn is_needed(&self, ejection: &Ejection) -> bool {
        if let EjectionStage::Lifting { .. } = ejection.stage {
            return true;
        }
        let now = self.shared.clock.unix_seconds();
        if ejection.until < now + SHORTEST_RULE {
            return false;
        }
        let snapshot = self.shared.current.load_full();
        if snapshot.config.policy.bind_uid {
            let hits = hit_others(&snapshot, std::slice::from_ref(ejection), now);
            return hits.await.is_empty();
        }
        let (channel, user) = (ejection.channel.clone(), User::Uid(ejection.uid));
        let looking = spawn_blocking(move || {
            let holders = snapshot.sessions.holders(&channel, &user, now);
            let mut holders = holders.iter();
            holders.all(|holder| is_revoked(&snapshot, holder, &channel, &user, now))
        });
        looking.await.unwrap_or(false)
    }

    /// Has the rules deleted that keep out a user who got the uid after the rule was made, once a turn.
    async fn take_back(&self, watch: &mut RuleWatch) {
        let elapsed = self.shared.clock.elapsed();
        let snapshot = self.shared.current.load_full();
        if elapsed < watch.due || !snapshot.config.policy.bind_uid {
            return;
        }
        watch.due = elapsed + TURN;
        let made = self.ejections.made_after(watch.last);
        watch.last = made.last().map(|last| last.id);
        let now = self.shared.clock.unix_seconds();
        let wrong = hit_others(&snapshot, &made, now).await;
        for record in self.ejections.take_back(&wrong) {
            self.write(record).await;
        }
    }

    /// Sends one request and records what has become of it.
    async fn act(&self, taken: TakenEjection, rest: &AgoraRest) {
        let TakenEjection { ejection, failures } = taken;
        let (fetcher, clock) = (&self.shared.control.fetcher, &self.shared.clock);
        let (sent, now) = (clock.elapsed(), clock.unix_seconds());
        let answer = if let EjectionStage::Lifting { rule } = ejection.stage {
            kicking_rule::delete(fetcher, rest, &ejection.app_id, rule, now).await
        } else {
            let left = ejection.until.saturating_sub(now);
            kicking_rule::make(fetcher, rest, &ejection, left, now).await
        };
        if let RuleAnswer::Refused(error) = &answer {
            tracing::error!(
                revocation = %ejection.id.revocation,
                channel = &*ejection.channel,
                uid = ejection.uid,
                error,
                "Agora refuses a rule of a revocation"
            );
        }
        let (outcome, result) = self.judge(answer, failures, rest, sent);
        self.count(outcome, 1);
        if let Some(record) = self.ejections.finish(ejection.id, result) {
            self.write(record).await;
        }
        self.wake.notify_one();
    }

    /// The meaning of an answer for its ejection, and for the requests that follow.
    fn judge(
        &self,
        answer: RuleAnswer,
        failures: u32,
        rest: &AgoraRest,
        sent: Duration,
    ) -> (EjectionOutcome, EjectionResult) {
        let now = self.shared.clock.elapsed();
        let mut backoff = self.backoff.lock();
        let (outcome, result) = match answer {
            RuleAnswer::TryAgain(error, retry_after) => {
                tracing::warn!(error, "a request to Agora is sent again later");
                backoff.failed(sent, now, retry_after);
                let result = EjectionResult::Later {
                    error,
                    due: now + pause_after(failures),
                    counts: true,
                };
                return (EjectionOutcome::Retried, result);
            }
            RuleAnswer::Unauthorized(error) => {
                if backoff.unauthorized(rest, now) {
                    tracing::error!(error, "no user can be removed from a channel");
                }
                let result = EjectionResult::Later {
                    error,
                    due: now,
                    counts: false,
                };
                return (EjectionOutcome::Unauthorized, result);
            }
            RuleAnswer::Made(rule) => (EjectionOutcome::Done, EjectionResult::Made(rule)),
            RuleAnswer::Refused(error) => (EjectionOutcome::Failed, EjectionResult::Refused(error)),
            RuleAnswer::Deleted => (EjectionOutcome::Deleted, EjectionResult::Deleted),
        };
        backoff.answered();
        (outcome, result)
    }

    async fn write(&self, record: EjectionRecord) {
        // The task that writes reports an error, and tries again.
        let _ = self.log.write(record).await;
    }
}

/// Those of the ejections whose uid has gone to another user, here or on another replica, who isn't revoked.
async fn hit_others(snapshot: &Snapshot, ejections: &[Ejection], now: u64) -> Vec<EjectionId> {
    let user = |ejection: &Ejection| User::Uid(ejection.uid);
    let users: Vec<_> = ejections.iter().map(user).collect();
    let both = || ejections.iter().zip(&users);
    let claimed = match &snapshot.store {
        Some(store) => {
            let held = both().map(|(ejection, user)| SeatHeld {
                channel: &ejection.channel,
                user,
                subject: &ejection.subject,
            });
            store.claimed_by_others(held).await.unwrap_or_default()
        }
        None => Vec::new(),
    };
    let claimed = claimed.into_iter().chain(std::iter::repeat(false));
    let hits = both().zip(claimed).filter(|((ejection, user), claimed)| {
        let (channel, subject) = (&*ejection.channel, &*ejection.subject);
        match snapshot.sessions.bound_holder(channel, user, now) {
            Some(holder) if *holder != *subject => {
                !is_revoked(snapshot, &holder, channel, user, now)
            }
            _ => *claimed,
        }
    });
    hits.map(|((ejection, _), _)| ejection.id).collect()
}

fn is_revoked(snapshot: &Snapshot, subject: &str, channel: &str, user: &User, now: u64) -> bool {
    let question = RevocationQuestion {
        subject: Some(subject),
        channel: Some(channel),
        user: Some(user.borrowed()),
    };
    snapshot.revocations.find(question, now).is_some()
}
