//! Lapses: tokens that were not renewed although their streams go on, a failure that no request reports.
//!
//! Keeps true: a lapse is counted once, and only if the streams source answers, after the token's last chance, that
//! the stream is live; a source that gives no answer is asked again for a while, and then the lapse is not counted.
//! The number of lapses that wait for an answer is bounded.
//! Must not know: how sessions are kept, or which alert a lapse causes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::{MissedTickBehavior, interval};

use crate::decision;
use crate::revocation::RevocationQuestion;
use crate::sessions::LapsedSession;
use crate::snapshot::{Shared, Snapshot};
use crate::telemetry::audit;
use crate::terms::role::Role;

/// How often an unanswered question is asked again.
const RETRY: Duration = Duration::from_secs(5);

/// How long a question is asked again. A later answer doesn't show whether the stream was live when the token lapsed.
const GIVE_UP: Duration = Duration::from_mins(1);

/// Lapses that may wait for an answer.
const MOST_WAITING: usize = 65_536;

/// Takes the lapses that sweeps find.
#[derive(Debug)]
pub(crate) struct LapseSweep {
    sender: UnboundedSender<Vec<LapsedSession>>,
    queued: Arc<AtomicUsize>,
}

impl LapseSweep {
    /// Takes the lapses that a sweep found.
    pub(crate) fn add(&self, mut lapses: Vec<LapsedSession>) {
        if self.queued.load(Ordering::Relaxed) + lapses.len() > MOST_WAITING {
            // Publishers are few, and the alerts are about them.
            lapses.retain(|lapse| lapse.role == Role::Publisher);
            tracing::warn!("too many tokens lapse at once; some viewers' lapses are not counted");
        }
        if !lapses.is_empty() {
            self.queued.fetch_add(lapses.len(), Ordering::Relaxed);
            // The receiving task lives as long as the runtime.
            let _ = self.sender.send(lapses);
        }
    }
}

/// Starts the task that confirms and counts the lapses that sweeps find.
pub(crate) fn start(shared: Arc<Shared>) -> LapseSweep {
    let (sender, found) = mpsc::unbounded_channel();
    let queued = Arc::new(AtomicUsize::new(0));
    tokio::spawn(run(shared, found, Arc::clone(&queued)));
    LapseSweep { sender, queued }
}

async fn run(
    shared: Arc<Shared>,
    mut found: UnboundedReceiver<Vec<LapsedSession>>,
    queued: Arc<AtomicUsize>,
) {
    let take = |waiting: &mut Waiting, lapses: Vec<LapsedSession>| {
        queued.fetch_sub(lapses.len(), Ordering::Relaxed);
        waiting.add(lapses, shared.clock.elapsed());
    };
    let mut waiting = Waiting::default();
    let mut retries = interval(RETRY);
    retries.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            found = found.recv() => match found {
                Some(lapses) => take(&mut waiting, lapses),
                None => return,
            },
            _ = retries.tick() => {}
        }
        while let Ok(lapses) = found.try_recv() {
            take(&mut waiting, lapses);
        }
        waiting.settle(&shared).await;
    }
}

/// Lapses that are not confirmed yet, by channel: one question serves all lapses of a channel.
#[derive(Debug, Default)]
pub struct Waiting {
    channels: HashMap<String, Suspected>,
    lapses: usize,
}

#[derive(Debug)]
struct Suspected {
    /// On the clock's monotonic scale.
    since: Duration,
    lapses: Vec<LapsedSession>,
}

impl Waiting {
    /// Takes the lapses that a sweep found at `now` (monotonic).
    pub fn add(&mut self, lapses: Vec<LapsedSession>, now: Duration) {
        for lapse in lapses {
            if self.lapses >= MOST_WAITING {
                tracing::warn!(
                    "too many tokens lapse while the streams source gives no answer; some are not counted"
                );
                return;
            }
            self.lapses += 1;
            let suspected = self.channels.entry(lapse.channel.clone());
            let suspected = suspected.or_insert_with(|| Suspected {
                since: now,
                lapses: Vec::new(),
            });
            suspected.lapses.push(lapse);
        }
    }

    /// Asks the streams source about every channel and counts the lapses of those that are live. Stops at the first
    /// question without an answer, because the others would wait as long.
    pub async fn settle(&mut self, shared: &Shared) {
        let now = shared.clock.elapsed();
        let snapshot = shared.current.load_full();
        self.channels
            .retain(|_, suspected| now.saturating_sub(suspected.since) < GIVE_UP);
        let channels: Vec<String> = self.channels.keys().cloned().collect();
        for channel in channels {
            let Some(live) = is_live(&snapshot, &channel).await else {
                break;
            };
            let Some(suspected) = self.channels.remove(&channel) else {
                continue;
            };
            if !live {
                continue;
            }
            for lapse in counted_here(&snapshot, suspected.lapses).await {
                count(shared, &snapshot, &lapse);
            }
        }
        let waiting = self.channels.values();
        self.lapses = waiting.map(|suspected| suspected.lapses.len()).sum();
    }

    /// How many are not settled.
    pub fn len(&self) -> usize {
        self.lapses
    }

    /// Whether all are settled.
    pub fn is_empty(&self) -> bool {
        self.lapses == 0
    }
}

/// Whether a channel's stream is live; `None` where the source gives no answer.
async fn is_live(snapshot: &Snapshot, channel: &str) -> Option<bool> {
    let stream = snapshot.streams.lookup(channel).await.ok()?;
    Some(stream.is_some_and(|stream| stream.is_open()))
}

/// The lapses that this replica counts: those that no other one has. While nobody can be asked, it counts those of its
/// own tokens.
async fn counted_here(snapshot: &Snapshot, lapses: Vec<LapsedSession>) -> Vec<LapsedSession> {
    let Some(store) = &snapshot.store else {
        return lapses;
    };
    let names: Vec<_> = lapses.iter().map(LapsedSession::name).collect();
    let first = store.first_to_count(&names).await;
    let first = first.unwrap_or_else(|_| lapses.iter().map(|lapse| lapse.granted_here).collect());
    let both = lapses.into_iter().zip(first);
    both.filter_map(|(lapse, first)| first.then_some(lapse))
        .collect()
}

fn count(shared: &Shared, snapshot: &Snapshot, lapse: &LapsedSession) {
    if !decision::is_enforced(snapshot, Some(&lapse.subject)) {
        // The backend answers this subject's requests, so its renewals don't come to renewd.
        return;
    }
    let question = RevocationQuestion {
        subject: Some(&lapse.subject),
        channel: Some(&lapse.channel),
        user: Some(lapse.user.borrowed()),
    };
    let now = shared.clock.unix_seconds();
    if snapshot.revocations.find(question, now).is_some() {
        // The operator has ended this one on purpose.
        return;
    }
    shared.metrics.token_lapse(lapse.role, lapse.cause);
    if lapse.role != Role::Publisher {
        // Viewers who left lapse too. A refused viewer has an audit event for the refusal.
        return;
    }
    snapshot.audit.lapse(&audit::LapseEvent {
        subject: &lapse.subject,
        channel: &lapse.channel,
        user: lapse.user.borrowed(),
        role: lapse.role,
        cause: lapse.cause,
        expired: lapse.expired,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::outcome::LapseCause;
    use crate::terms::user::User;

    fn lapses(count: usize, role: Role) -> Vec<LapsedSession> {
        let lapse = LapsedSession {
            channel: "show".to_owned(),
            subject: "ann".to_owned(),
            user: User::Uid(7),
            role,
            cause: LapseCause::Silent,
            expired: 100,
            granted_here: true,
        };
        vec![lapse; count]
    }

    #[test]
    fn when_too_many_wait_viewers_are_left_out_and_publishers_are_not() {
        let (sender, mut found) = mpsc::unbounded_channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let lapsed = LapseSweep { sender, queued };
        lapsed.add(lapses(MOST_WAITING, Role::Subscriber));
        lapsed.add(lapses(1, Role::Subscriber));
        let mut both = lapses(10, Role::Subscriber);
        both.extend(lapses(2, Role::Publisher));
        lapsed.add(both);
        assert_eq!(found.try_recv().unwrap().len(), MOST_WAITING);
        assert_eq!(found.try_recv().unwrap(), lapses(2, Role::Publisher));
        assert!(found.try_recv().is_err());
    }
}
