//! The table of live tokens: who holds which, since when, until when.
//!
//! A session is (channel, subject, user). Keeps true: bounded by `max` sessions, and by `USERS_PER_SUBJECT` for one
//! subject in one channel; a bound user belongs to one subject; nothing expired is ever reported.
//! Must not know: how a token looks, or why one was refused.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::role::Role;

/// Shards: enough that workers seldom meet, few enough that a sweep of one is short.
const SHARDS: usize = 64;

/// Users (uids, accounts) one subject may hold in one channel. A person has a few devices; without a bound one login
/// could take every uid of a channel and lock its viewers out.
const USERS_PER_SUBJECT: usize = 8;

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

/// Shortest token worth having; what is left of a session below it is not.
const SHORTEST: Duration = Duration::from_mins(1);

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

#[derive(Debug, Default)]
struct Channel {
    subjects: HashMap<Box<str>, Vec<Session>>,
    holders: HashMap<User, Box<str>>,
}

#[derive(Debug)]
struct Session {
    user: User,
    role: Role,
    first_issued: u64,
    /// When the token of each role expires; 0: none.
    expires: [u64; 2],
}

impl Session {
    fn expires(&self) -> u64 {
        self.expires[0].max(self.expires[1])
    }
}

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
        let sessions = channels.get(channel)?.subjects.get(subject)?;
        let holds = |role: Role| {
            sessions
                .iter()
                .any(|session| session.expires[role.index()] > now)
        };
        match role {
            Some(role) => holds(role).then_some(role),
            None => Role::ALL.into_iter().find(|role| holds(*role)),
        }
    }

    /// Whether the claim would pass now; changes nothing.
    pub fn check(&self, claim: Claim<'_>, rules: Rules, now: u64) -> Result<Allowed, Refused> {
        let allowed = {
            let Some(channels) = lock(&self.shards, self.shard(claim.channel)) else {
                return Ok(Allowed { at_most: None });
            };
            match channels.get(claim.channel) {
                Some(channel) => channel.check(claim, rules, now)?,
                None => Allowed {
                    at_most: fresh_session(rules),
                },
            }
        };
        self.check_streams(claim, rules, now)?;
        Ok(allowed)
    }

    /// Records a grant that expires at `expires`, checked again under the lock: another worker may have been faster.
    pub fn grant(
        &self,
        claim: Claim<'_>,
        rules: Rules,
        now: u64,
        expires: u64,
    ) -> Result<(), Refused> {
        self.check_streams(claim, rules, now)?;
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
        if claim.role == Role::Publisher {
            self.record_publishing(claim, now, expires);
        }
        Ok(())
    }

    /// Forgets what has expired in one of the `SHARDS`; call with a counter, a shard at a time, so that no sweep is long.
    pub fn sweep(&self, turn: usize, now: u64) {
        if let Some(mut channels) = lock(&self.shards, turn % SHARDS) {
            channels.retain(|_, channel| {
                channel.forget_expired(self, now);
                !channel.subjects.is_empty()
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

    fn check_streams(&self, claim: Claim<'_>, rules: Rules, now: u64) -> Result<(), Refused> {
        if rules.max_streams_per_publisher == 0 || claim.role != Role::Publisher {
            return Ok(());
        }
        let Some(publishing) = lock(&self.publishing, self.shard(claim.subject)) else {
            return Ok(());
        };
        let others = publishing.get(claim.subject).map_or(0, |channels| {
            channels
                .iter()
                .filter(|(channel, expires)| *expires > now && **channel != *claim.channel)
                .count()
        });
        if u32::try_from(others).unwrap_or(u32::MAX) >= rules.max_streams_per_publisher {
            return Err(Refused::TooManyStreams);
        }
        Ok(())
    }

    fn record_publishing(&self, claim: Claim<'_>, now: u64, expires: u64) {
        let Some(mut publishing) = lock(&self.publishing, self.shard(claim.subject)) else {
            return;
        };
        if !publishing.contains_key(claim.subject) {
            publishing.insert(claim.subject.into(), Vec::new());
        }
        let Some(channels) = publishing.get_mut(claim.subject) else {
            return;
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

    fn added(&self, role: Role) {
        self.total.fetch_add(1, Ordering::Relaxed);
        self.by_role[role.index()].fetch_add(1, Ordering::Relaxed);
    }

    fn removed(&self, session: &Session) {
        self.total.fetch_sub(1, Ordering::Relaxed);
        self.by_role[session.role.index()].fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(shards: &[Mutex<T>], index: usize) -> Option<MutexGuard<'_, T>> {
    // A panic while a shard was held leaves every entry in it whole: each change is a single insert or remove.
    shards
        .get(index)
        .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner))
}

fn fresh_session(rules: Rules) -> Option<Duration> {
    (!rules.max_session.is_zero()).then_some(rules.max_session)
}

// === impl Channel ===

impl Channel {
    fn knows(&self, claim: Claim<'_>) -> bool {
        self.subjects
            .get(claim.subject)
            .is_some_and(|sessions| sessions.iter().any(|session| session.user == *claim.user))
    }

    fn check(&self, claim: Claim<'_>, rules: Rules, now: u64) -> Result<Allowed, Refused> {
        let taken = rules.bind_uid
            && claim.role == Role::Subscriber
            && self
                .holder(claim.user, now)
                .is_some_and(|holder| holder != claim.subject);
        if taken {
            return Err(Refused::UidTaken);
        }
        if rules.max_session.is_zero() {
            return Ok(Allowed { at_most: None });
        }
        let lasted = self
            .first_issued(claim.subject, now)
            .map_or(0, |first| now.saturating_sub(first));
        let left = rules
            .max_session
            .saturating_sub(Duration::from_secs(lasted));
        if left < SHORTEST {
            return Err(Refused::SessionTooLong);
        }
        Ok(Allowed {
            at_most: Some(left),
        })
    }

    fn holder(&self, user: &User, now: u64) -> Option<&str> {
        let subject = self.holders.get(user)?;
        let sessions = self.subjects.get(subject)?;
        sessions
            .iter()
            .any(|session| session.user == *user && session.expires() > now)
            .then_some(subject)
    }

    fn first_issued(&self, subject: &str, now: u64) -> Option<u64> {
        let sessions = self.subjects.get(subject)?;
        sessions
            .iter()
            .filter(|session| session.expires() > now)
            .map(|session| session.first_issued)
            .min()
    }

    fn record(&mut self, table: &Sessions, claim: Claim<'_>, rules: Rules, now: u64, expires: u64) {
        if rules.bind_uid && claim.user.is_bindable() {
            let former = self
                .holders
                .insert(claim.user.clone(), claim.subject.into());
            if let Some(former) = former.filter(|former| **former != *claim.subject) {
                self.remove(table, &former, claim.user);
            }
        }
        let sessions = match self.subjects.entry(claim.subject.into()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Vec::with_capacity(1)),
        };
        let first_issued = sessions
            .iter()
            .filter(|session| session.expires() > now)
            .map(|session| session.first_issued)
            .min()
            .unwrap_or(now);
        // Clients join with uid 0 and renew with the uid that the SDK assigned: the same session under its real name.
        let known = sessions
            .iter()
            .position(|session| session.user == *claim.user)
            .or_else(|| {
                sessions
                    .iter()
                    .position(|session| session.user == User::Uid(0))
            });
        if let Some(session) = known.and_then(|index| sessions.get_mut(index)) {
            if session.role != claim.role {
                table.by_role[session.role.index()].fetch_sub(1, Ordering::Relaxed);
                table.by_role[claim.role.index()].fetch_add(1, Ordering::Relaxed);
                session.role = claim.role;
            }
            session.user = claim.user.clone();
            let until = &mut session.expires[claim.role.index()];
            *until = (*until).max(expires);
            return;
        }
        let mut token_expires = [0; 2];
        token_expires[claim.role.index()] = expires;
        sessions.push(Session {
            user: claim.user.clone(),
            role: claim.role,
            first_issued,
            expires: token_expires,
        });
        table.added(claim.role);
        if sessions.len() > USERS_PER_SUBJECT {
            let soonest = sessions
                .iter()
                .enumerate()
                .min_by_key(|(_, session)| session.expires())
                .map(|(index, _)| index);
            if let Some(index) = soonest {
                let dropped = sessions.swap_remove(index);
                table.removed(&dropped);
                self.holders.remove(&dropped.user);
            }
        }
    }

    fn remove(&mut self, table: &Sessions, subject: &str, user: &User) {
        let Some(sessions) = self.subjects.get_mut(subject) else {
            return;
        };
        if let Some(index) = sessions.iter().position(|session| session.user == *user) {
            table.removed(&sessions.swap_remove(index));
        }
        if sessions.is_empty() {
            self.subjects.remove(subject);
        }
    }

    fn forget_expired(&mut self, table: &Sessions, now: u64) {
        let holders = &mut self.holders;
        self.subjects.retain(|subject, sessions| {
            sessions.retain(|session| {
                let alive = session.expires() > now;
                if !alive {
                    table.removed(session);
                    if holders
                        .get(&session.user)
                        .is_some_and(|holder| holder == subject)
                    {
                        holders.remove(&session.user);
                    }
                }
                alive
            });
            !sessions.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
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
}
