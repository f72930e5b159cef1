//! The table of live tokens: who holds which, since when, until when.
//!
//! A session is (channel, subject, user). Keeps true: bounded by `max` sessions; nothing expired is ever reported. Locks
//! are taken in the order publishing, channels, one shard of each at most.
//! Must not know: how a token looks, or why one was refused.

mod channel;

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::channel::{Channel, Session};
use crate::role::Role;

/// Shards: enough that workers seldom meet, few enough that a sweep of one is short.
const SHARDS: usize = 64;

/// Who a token is for, in Agora's terms.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum User {
    /// A numeric user id; 0 lets anyone use the token and is never bound.
    Uid(u32),
    /// A string user account.
    Account(Box<str>),
}

impl User {
    fn is_bindable(&self) -> bool {
        *self != Self::Uid(0)
    }
}

/// What a grant asks for.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The channel's name.
    pub channel: &'a str,
    /// The JWT's subject.
    pub subject: &'a str,
    /// Who in the channel.
    pub user: &'a User,
    /// What they may do there.
    pub role: Role,
}

/// Which rules a claim must pass.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A user belongs to its subscriber while their token lives.
    pub bind_uid: bool,
    /// Distinct channels a publisher may hold; 0 is off.
    pub max_streams_per_publisher: u32,
    /// From the subject's first token for the channel; zero is off.
    pub max_session: Duration,
}

/// Why a claim was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Someone else holds the user.
    UidTaken,
    /// The publisher holds too many channels.
    TooManyStreams,
    /// The session has lasted its full length.
    SessionTooLong,
}

/// What an allowed claim is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The longest lifetime that `max_session` leaves; `None` is unlimited. At least a minute.
    pub at_most: Option<Duration>,
}

/// The table. Times are Unix seconds.
#[derive(Debug)]
pub struct Sessions {
    shards: Vec<Mutex<Channels>>,
    publishing: Vec<Mutex<Publishing>>,
    hasher: RandomState,
    total: AtomicUsize,
    by_role: [AtomicUsize; 2],
    max: AtomicUsize,
}

type Channels = HashMap<Box<str>, Channel>;

/// Which channels a subject holds publisher tokens for, and until when.
type Publishing = HashMap<Box<str>, Vec<(Box<str>, u64)>>;

// === impl Sessions ===

impl Sessions {
    /// An empty table for at most `max` sessions.
    pub fn new(max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            publishing: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            total: AtomicUsize::new(0),
            by_role: [AtomicUsize::new(0), AtomicUsize::new(0)],
            max: AtomicUsize::new(max),
        }
    }

    /// Changes the bound; sessions above it live out their time.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Sessions of a role: `renewd_sessions`.
    pub fn count(&self, role: Role) -> usize {
        self.by_role[role.index()].load(Ordering::Relaxed)
    }

    /// The role under which this subject holds an unexpired token for the channel: the one asked for, or, where none is
    /// asked for, whichever they hold (publisher first).
    pub fn held(&self, channel: &str, subject: &str, role: Option<Role>, now: u64) -> Option<Role> {
        let channels = lock(&self.shards, self.shard(channel))?;
        let channel = channels.get(channel)?;
        Role::ALL
            .into_iter()
            .filter(|held| role.is_none_or(|role| role == *held))
            .find(|held| channel.holds(subject, *held, now))
    }

    /// Whether the claim would pass now; changes nothing.
    pub fn check(&self, claim: Claim<'_>, rules: Rules, now: u64) -> Result<Allowed, Refused> {
        let allowed = {
            let Some(channels) = lock(&self.shards, self.shard(claim.channel)) else {
                return Ok(Allowed { at_most: None });
            };
            match channels.get(claim.channel) {
                Some(channel) => channel.check(claim, rules, now)?,
                None => Channel::default().check(claim, rules, now)?,
            }
        };
        if let Some(publishing) = self.publishing_of(claim) {
            check_streams(&publishing, claim, rules, now)?;
        }
        Ok(allowed)
    }

    /// Records a grant that expires at `expires`, checked again under the locks: another worker may have been faster.
    pub fn grant(
        &self,
        claim: Claim<'_>,
        rules: Rules,
        now: u64,
        expires: u64,
    ) -> Result<(), Refused> {
        // Held until all is recorded: the same publisher may be asking for another channel on another worker.
        let publishing = self.publishing_of(claim);
        if let Some(publishing) = &publishing {
            check_streams(publishing, claim, rules, now)?;
        }
        {
            let Some(mut channels) = lock(&self.shards, self.shard(claim.channel)) else {
                return Ok(());
            };
            if let Some(channel) = channels.get(claim.channel) {
                channel.check(claim, rules, now)?;
            }
            if self.total.load(Ordering::Relaxed) >= self.max.load(Ordering::Relaxed)
                && !channels
                    .get(claim.channel)
                    .is_some_and(|channel| channel.knows(claim))
            {
                // Full: the token is granted and not remembered. Refusing would end streams for our own bookkeeping.
                return Ok(());
            }
            let channel = match channels.entry(claim.channel.into()) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(Channel::default()),
            };
            channel.record(self, claim, rules, now, expires);
        }
        if let Some(mut publishing) = publishing {
            record_publishing(&mut publishing, claim, now, expires);
        }
        Ok(())
    }

    /// The other channels that a publisher holds tokens for: those whose streams are over are to be [`Self::ended`].
    pub fn publishing_elsewhere(&self, claim: Claim<'_>, now: u64) -> Vec<Box<str>> {
        let Some(publishing) = self.publishing_of(claim) else {
            return Vec::new();
        };
        let held = publishing.get(claim.subject).into_iter().flatten();
        held.filter(|(channel, expires)| *expires > now && **channel != *claim.channel)
            .map(|(channel, _)| channel.clone())
            .collect()
    }

    /// A publisher's stream is over: it counts no more towards `max_streams_per_publisher`, though its token may live.
    pub fn ended(&self, subject: &str, channel: &str) {
        let Some(mut publishing) = lock(&self.publishing, self.shard(subject)) else {
            return;
        };
        if let Some(channels) = publishing.get_mut(subject) {
            channels.retain(|(held, _)| **held != *channel);
        }
    }

    /// Forgets what has expired in one of the `SHARDS`; call with a counter, a shard at a time, so that no sweep is long.
    pub fn sweep(&self, turn: usize, now: u64) {
        if let Some(mut channels) = lock(&self.shards, turn % SHARDS) {
            channels.retain(|_, channel| {
                channel.forget_expired(self, now);
                !channel.is_empty()
            });
        }
        if let Some(mut publishing) = lock(&self.publishing, turn % SHARDS) {
            publishing.retain(|_, channels| {
                channels.retain(|(_, expires)| *expires > now);
                !channels.is_empty()
            });
        }
    }

    fn shard(&self, key: &str) -> usize {
        usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0)
    }

    /// The publishers of a claim's shard, locked; `None` for a claim that publishes nothing.
    fn publishing_of(&self, claim: Claim<'_>) -> Option<MutexGuard<'_, Publishing>> {
        if claim.role != Role::Publisher {
            return None;
        }
        lock(&self.publishing, self.shard(claim.subject))
    }

    fn added(&self, role: Role) {
        self.total.fetch_add(1, Ordering::Relaxed);
        self.by_role[role.index()].fetch_add(1, Ordering::Relaxed);
    }

    fn removed(&self, session: &Session) {
        self.total.fetch_sub(1, Ordering::Relaxed);
        self.by_role[session.role.index()].fetch_sub(1, Ordering::Relaxed);
    }

    fn changed(&self, from: Role, to: Role) {
        if from == to {
            return;
        }
        self.by_role[from.index()].fetch_sub(1, Ordering::Relaxed);
        self.by_role[to.index()].fetch_add(1, Ordering::Relaxed);
    }
}

fn check_streams(
    publishing: &Publishing,
    claim: Claim<'_>,
    rules: Rules,
    now: u64,
) -> Result<(), Refused> {
    if rules.max_streams_per_publisher == 0 {
        return Ok(());
    }
    let held = publishing.get(claim.subject).into_iter().flatten();
    let others = held
        .filter(|(channel, expires)| *expires > now && **channel != *claim.channel)
        .count();
    if u32::try_from(others).unwrap_or(u32::MAX) >= rules.max_streams_per_publisher {
        return Err(Refused::TooManyStreams);
    }
    Ok(())
}

fn record_publishing(publishing: &mut Publishing, claim: Claim<'_>, now: u64, expires: u64) {
    let channels = match publishing.entry(claim.subject.into()) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(Vec::with_capacity(1)),
    };
    channels.retain(|(_, expires)| *expires > now);
    match channels
        .iter_mut()
        .find(|(channel, _)| **channel == *claim.channel)
    {
        Some((_, until)) => *until = (*until).max(expires),
        None => channels.push((claim.channel.into(), expires)),
    }
}

fn lock<T>(shards: &[Mutex<T>], index: usize) -> Option<MutexGuard<'_, T>> {
    // A panic while a shard was held leaves every entry in it whole: each change is a single insert or remove.
    shards
        .get(index)
        .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use super::channel::USERS_PER_SUBJECT;
    use super::*;

    const RULES: Rules = Rules {
        bind_uid: true,
        max_streams_per_publisher: 0,
        max_session: Duration::ZERO,
    };
    const SEVEN: User = User::Uid(7);
    const ZERO: User = User::Uid(0);

    fn claim<'a>(subject: &'a str, user: &'a User, role: Role) -> Claim<'a> {
        Claim {
            channel: "show",
            subject,
            user,
            role,
        }
    }

    fn viewer<'a>(subject: &'a str, user: &'a User) -> Claim<'a> {
        claim(subject, user, Role::Subscriber)
    }

    fn host<'a>(subject: &'a str, user: &'a User) -> Claim<'a> {
        claim(subject, user, Role::Publisher)
    }

    #[test]
    fn a_subject_holds_what_was_granted_until_it_expires() {
        let sessions = Sessions::new(10);
        sessions
            .grant(viewer("ann", &SEVEN), RULES, 100, 200)
            .unwrap();
        assert_eq!(
            sessions.held("show", "ann", None, 199),
            Some(Role::Subscriber)
        );
        assert_eq!(
            sessions.held("show", "ann", Some(Role::Publisher), 199),
            None
        );
        assert_eq!(sessions.held("show", "bob", None, 199), None);
        assert_eq!(sessions.held("other", "ann", None, 199), None);
        assert_eq!(sessions.held("show", "ann", None, 200), None);
    }

    #[test]
    fn a_uid_belongs_to_its_subscriber_while_their_token_lives() {
        let sessions = Sessions::new(10);
        sessions
            .grant(viewer("ann", &SEVEN), RULES, 100, 200)
            .unwrap();
        assert_eq!(
            sessions.check(viewer("bob", &SEVEN), RULES, 199),
            Err(Refused::UidTaken)
        );
        assert_eq!(
            sessions.grant(viewer("bob", &SEVEN), RULES, 199, 300),
            Err(Refused::UidTaken)
        );
        assert!(sessions.check(viewer("ann", &SEVEN), RULES, 199).is_ok());
        assert!(sessions.check(viewer("bob", &SEVEN), RULES, 200).is_ok());
    }

    #[test]
    fn a_publisher_takes_a_uid_over_and_the_former_holder_holds_nothing() {
        let sessions = Sessions::new(10);
        sessions
            .grant(viewer("ann", &SEVEN), RULES, 100, 200)
            .unwrap();
        sessions
            .grant(host("owner", &SEVEN), RULES, 110, 210)
            .unwrap();
        assert_eq!(sessions.held("show", "ann", None, 120), None);
        assert_eq!(
            sessions.held("show", "owner", None, 120),
            Some(Role::Publisher)
        );
        assert_eq!(
            sessions.check(viewer("ann", &SEVEN), RULES, 120),
            Err(Refused::UidTaken)
        );
        assert_eq!(
            (
                sessions.count(Role::Subscriber),
                sessions.count(Role::Publisher)
            ),
            (0, 1)
        );
    }

    #[test]
    fn uid_zero_is_never_bound() {
        let sessions = Sessions::new(10);
        sessions
            .grant(viewer("ann", &ZERO), RULES, 100, 200)
            .unwrap();
        assert!(
            sessions
                .grant(viewer("bob", &ZERO), RULES, 100, 200)
                .is_ok()
        );
    }

    #[test]
    fn unbound_uids_may_be_shared() {
        let sessions = Sessions::new(10);
        let rules = Rules {
            bind_uid: false,
            ..RULES
        };
        sessions
            .grant(viewer("ann", &SEVEN), rules, 100, 200)
            .unwrap();
        assert!(
            sessions
                .grant(viewer("bob", &SEVEN), rules, 100, 200)
                .is_ok()
        );
    }

    #[test]
    fn the_first_refresh_with_a_uid_takes_over_the_zero_uid_session() {
        let sessions = Sessions::new(10);
        sessions
            .grant(viewer("ann", &ZERO), RULES, 100, 200)
            .unwrap();
        sessions
            .grant(viewer("ann", &SEVEN), RULES, 150, 250)
            .unwrap();
        assert_eq!(sessions.count(Role::Subscriber), 1);
        assert_eq!(
            sessions.check(viewer("bob", &SEVEN), RULES, 160),
            Err(Refused::UidTaken)
        );
    }

    #[test]
    fn a_subject_changes_devices_freely_but_cannot_take_every_uid() {
        let sessions = Sessions::new(100);
        for uid in 1..=20 {
            let user = User::Uid(uid);
            sessions
                .grant(viewer("ann", &user), RULES, 100, 200 + u64::from(uid))
                .unwrap();
        }
        assert_eq!(sessions.count(Role::Subscriber), USERS_PER_SUBJECT);
        assert!(
            sessions
                .check(viewer("bob", &User::Uid(1)), RULES, 150)
                .is_ok()
        );
        assert_eq!(
            sessions.check(viewer("bob", &User::Uid(20)), RULES, 150),
            Err(Refused::UidTaken)
        );
    }

    #[test]
    fn a_publisher_holds_only_so_many_channels() {
        let sessions = Sessions::new(10);
        let rules = Rules {
            max_streams_per_publisher: 1,
            ..RULES
        };
        let second = Claim {
            channel: "second",
            ..host("owner", &SEVEN)
        };
        sessions
            .grant(host("owner", &SEVEN), rules, 100, 200)
            .unwrap();
        assert!(sessions.check(host("owner", &SEVEN), rules, 150).is_ok());
        assert_eq!(
            sessions.check(second, rules, 150),
            Err(Refused::TooManyStreams)
        );
        assert!(sessions.check(second, rules, 200).is_ok());
    }

    #[test]
    fn a_session_has_a_full_length_across_uids() {
        let sessions = Sessions::new(10);
        let rules = Rules {
            max_session: Duration::from_mins(10),
            ..RULES
        };
        let at_most = |seconds| {
            Ok(Allowed {
                at_most: Some(Duration::from_secs(seconds)),
            })
        };
        assert_eq!(
            sessions.check(viewer("ann", &SEVEN), rules, 100),
            at_most(600)
        );
        sessions
            .grant(viewer("ann", &SEVEN), rules, 100, 700)
            .unwrap();
        let other = User::Uid(8);
        assert_eq!(
            sessions.check(viewer("ann", &other), rules, 500),
            at_most(200)
        );
        sessions
            .grant(viewer("ann", &other), rules, 500, 700)
            .unwrap();
        assert_eq!(
            sessions.check(viewer("ann", &other), rules, 650),
            Err(Refused::SessionTooLong)
        );
    }

    #[test]
    fn a_sweep_forgets_what_has_expired_and_nothing_else() {
        let sessions = Sessions::new(10);
        sessions
            .grant(viewer("ann", &SEVEN), RULES, 100, 200)
            .unwrap();
        sessions
            .grant(host("owner", &User::Uid(1)), RULES, 100, 300)
            .unwrap();
        for turn in 0..SHARDS {
            sessions.sweep(turn, 250);
        }
        assert_eq!(
            (
                sessions.count(Role::Subscriber),
                sessions.count(Role::Publisher)
            ),
            (0, 1)
        );
        assert!(sessions.check(viewer("bob", &SEVEN), RULES, 150).is_ok());
    }

    #[test]
    fn a_full_table_still_grants_and_renews() {
        let sessions = Sessions::new(1);
        sessions
            .grant(viewer("ann", &SEVEN), RULES, 100, 200)
            .unwrap();
        assert!(
            sessions
                .grant(viewer("bob", &User::Uid(8)), RULES, 100, 200)
                .is_ok()
        );
        assert_eq!(sessions.held("show", "bob", None, 150), None);
        sessions
            .grant(viewer("ann", &SEVEN), RULES, 150, 250)
            .unwrap();
        assert_eq!(
            sessions.held("show", "ann", None, 240),
            Some(Role::Subscriber)
        );
    }

    #[test]
    fn what_expired_gives_a_new_session_nothing_of_its_age_though_unswept() {
        let sessions = Sessions::new(10);
        let rules = Rules {
            max_session: Duration::from_mins(10),
            ..RULES
        };
        sessions
            .grant(viewer("ann", &SEVEN), rules, 100, 700)
            .unwrap();
        sessions
            .grant(viewer("ann", &SEVEN), rules, 701, 1301)
            .unwrap();
        assert_eq!(
            sessions.check(viewer("ann", &SEVEN), rules, 801),
            Ok(Allowed {
                at_most: Some(Duration::from_secs(500))
            })
        );
    }

    #[test]
    fn an_account_is_not_the_zero_uid_under_another_name() {
        let sessions = Sessions::new(10);
        let account = User::Account("ann".into());
        sessions
            .grant(viewer("ann", &ZERO), RULES, 100, 200)
            .unwrap();
        sessions
            .grant(viewer("ann", &account), RULES, 100, 200)
            .unwrap();
        assert_eq!(sessions.count(Role::Subscriber), 2);
    }

    #[test]
    fn the_newest_of_too_many_users_is_kept_however_short() {
        let sessions = Sessions::new(100);
        for uid in 1..=20 {
            let user = User::Uid(uid);
            sessions
                .grant(viewer("ann", &user), RULES, 100, 300 - u64::from(uid))
                .unwrap();
            assert_eq!(
                sessions.check(viewer("bob", &user), RULES, 150),
                Err(Refused::UidTaken)
            );
        }
    }

    #[test]
    fn a_dropped_session_frees_no_uid_that_is_somebody_elses() {
        let sessions = Sessions::new(100);
        let unbound = Rules {
            bind_uid: false,
            ..RULES
        };
        sessions
            .grant(viewer("bob", &SEVEN), RULES, 100, 300)
            .unwrap();
        sessions
            .grant(viewer("ann", &SEVEN), unbound, 100, 101)
            .unwrap();
        for uid in 11..=20 {
            let user = User::Uid(uid);
            sessions
                .grant(viewer("ann", &user), RULES, 100, 300)
                .unwrap();
        }
        assert_eq!(
            sessions.check(viewer("eve", &SEVEN), RULES, 150),
            Err(Refused::UidTaken)
        );
    }

    #[test]
    fn two_workers_cannot_give_a_publisher_two_streams_at_once() {
        let rules = Rules {
            max_streams_per_publisher: 1,
            ..RULES
        };
        for _ in 0..200 {
            let sessions = Sessions::new(10);
            let granted = std::thread::scope(|scope| {
                let ask = |channel| {
                    let claim = Claim {
                        channel,
                        ..host("owner", &SEVEN)
                    };
                    let sessions = &sessions;
                    scope.spawn(move || sessions.grant(claim, rules, 100, 200).is_ok())
                };
                let asked = [ask("first"), ask("second")];
                asked.map(|asked| usize::from(asked.join().unwrap()))
            });
            assert_eq!(granted.iter().sum::<usize>(), 1);
        }
    }

    #[test]
    fn a_stream_that_ended_counts_no_more() {
        let sessions = Sessions::new(10);
        let rules = Rules {
            max_streams_per_publisher: 1,
            ..RULES
        };
        let second = Claim {
            channel: "second",
            ..host("owner", &SEVEN)
        };
        sessions
            .grant(host("owner", &SEVEN), rules, 100, 200)
            .unwrap();
        assert_eq!(
            sessions.publishing_elsewhere(second, 150),
            ["show".into()] as [Box<str>; 1]
        );
        sessions.ended("owner", "show");
        assert!(sessions.grant(second, rules, 150, 250).is_ok());
    }
}
