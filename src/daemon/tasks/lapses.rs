//! Lapses: tokens that nobody renewed although their streams go on; the failure that no request reports.
//!
//! Keeps true: a lapse is counted once, and only after the streams source has said, after the token's last chance, that
//! the stream is live; a source without an answer is asked again for a while, and then nothing is counted. Bounded:
//! what waits for an answer.
//! Must not know: how sessions are kept, what an alert makes of a lapse.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::{MissedTickBehavior, interval};

use crate::decision;
use crate::sessions::LapsedSession;
use crate::snapshot::{Shared, Snapshot};
use crate::sources::streams::Lookup;
use crate::telemetry::audit;
use crate::terms::role::Role;

/// How often what is still unanswered is asked again.
const RETRY: Duration = Duration::from_secs(5);

/// How long it is asked for. What a source says later says nothing of whether the stream was live then.
const GIVE_UP: Duration = Duration::from_mins(1);

/// Lapses that may wait for an answer.
const MOST_WAITING: usize = 65_536;

/// What the sweeps find, on its way to be looked into.
#[derive(Debug)]
pub(crate) struct LapseSweep {
    sender: UnboundedSender<Vec<LapsedSession>>,
    queued: Arc<AtomicUsize>,
}

impl LapseSweep {
    /// Hands over what a sweep found.
    pub(crate) fn add(&self, mut lapses: Vec<LapsedSession>) {
        if self.queued.load(Ordering::Relaxed) + lapses.len() > MOST_WAITING {
            // Publishers are few, and what the alerts are for.
            lapses.retain(|lapse| lapse.role == Role::Publisher);
            tracing::warn!(
                "tokens lapse faster than can be looked into: not all viewers' are counted"
            );
        }
        if !lapses.is_empty() {
            self.queued.fetch_add(lapses.len(), Ordering::Relaxed);
            // The other end lives as long as the runtime.
            let _ = self.sender.send(lapses);
        }
    }
}

/// Begins to look into what the sweeps find.
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

/// Lapses whose streams haven't been asked about, by channel: one question does for all of a channel's viewers.
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
    /// Takes what a sweep found at `now` (monotonic).
    pub fn add(&mut self, lapses: Vec<LapsedSession>, now: Duration) {
        for lapse in lapses {
            if self.lapses >= MOST_WAITING {
                tracing::warn!(
                    "too many tokens lapse while the streams source is silent: not all are counted"
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

    /// Asks about every channel and counts the lapses of those that are live. The first question without an answer is
    /// the last for now: others would wait as long.
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
            for lapse in suspected.lapses.iter().filter(|_| live) {
                count(shared, &snapshot, lapse);
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

/// Whether a channel's stream goes on; `None` where nobody says.
async fn is_live(snapshot: &Snapshot, channel: &str) -> Option<bool> {
    match snapshot.streams.lookup(channel).await {
        Lookup::Found(stream) => Some(stream.is_open()),
        Lookup::NotFound => Some(false),
        Lookup::NoAnswer { .. } => None,
    }
}

fn count(shared: &Shared, snapshot: &Snapshot, lapse: &LapsedSession) {
    if !decision::is_enforced(snapshot, Some(&lapse.subject)) {
        // It is the backend's to renew now: nobody was to ask us.
        return;
    }
    shared.metrics.token_lapse(lapse.role, lapse.cause);
    if lapse.role != Role::Publisher {
        // Viewers leave. Those who were refused have their refusals in the audit.
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
