//! Logins as they are remembered: as keyed hashes, with the logins and subjects that the accounts source refused.
//!
//! Keeps true: a refusal stands until the source says otherwise, whatever is granted meanwhile; without the key, a
//! hash says nothing of a login; every spelling of one login has the same hash; memory is bounded by `SHARDS` times
//! `MOST_IN_SHARD`. A login goes by the hash of the former key too, so that a refusal outlasts the agreement of
//! replicas on one key.
//! Must not know: sources, channels, where key and refusals are written down.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};
use zeroize::Zeroizing;

use super::jwt::JwtClaims;
use super::login_key::LoginKey;

/// The most refusals at once are `SHARDS` times `MOST_IN_SHARD`, in some 6 MiB: a site whose users change devices ten
/// thousand times a day fills that in a month. Beyond it, the refusals that end first are forgotten.
#[cfg(test)]
const MOST_REFUSALS: usize = SHARDS * MOST_IN_SHARD;

const SHARDS: usize = 16;
const MOST_IN_SHARD: usize = 16_384;

/// How long a refusal is remembered, for a subject and for a login that never expires: any token that could be
/// renewed on that login has expired long before.
const REMEMBERED: u32 = 30 * DAY;

/// A login is remembered a day longer than it lasts: `auth.jwt.leeway` prolongs it.
const DAY: u32 = 86_400;

/// How many changes may wait to be written down; beyond, all refusals are written anew.
const MOST_CHANGES: usize = 65_536;

/// The length of a key in bytes.
pub(crate) const KEY: usize = 32;

/// A login or a subject, as its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Login(pub NonZeroU64);

/// The login or the subject that a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    /// This login alone: the same user may have another.
    Login,
    /// The subject, with all logins.
    Subject,
}

/// A refusal as it is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedLogin {
    /// Which login or subject.
    pub login: Login,
    /// Until when the refusal is remembered, in Unix seconds; 0 where the source has accepted the login since.
    pub until: u32,
    /// When the source said so, in Unix seconds; 0 where a former version wrote it down.
    pub at: u32,
}

impl RefusedLogin {
    /// Until when the others must know of this: a refusal that they may have is over by then.
    pub(crate) fn matters_until(&self) -> u32 {
        if self.until == 0 {
            self.at.saturating_add(REMEMBERED + DAY)
        } else {
            self.until
        }
    }
}

/// A refusal as it is remembered.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    until: u32,
    at: u32,
}

/// Those who are told of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToldOf {
    /// The journal.
    Journal,
    /// The other replicas.
    Replicas,
}

/// The remembered refusals, and the key of the hashes.
#[derive(Debug)]
pub struct Logins {
    keys: ArcSwap<LoginKeys>,
    shards: [Mutex<HashMap<Login, Refusal>>; SHARDS],
    /// How many refusals there are: most of the time there is none to look for.
    count: AtomicUsize,
    /// By [`ToldOf`].
    changes: [Mutex<LoginChanges>; 2],
}

#[derive(Debug)]
struct LoginKeys {
    key: LoginKey,
    /// The key before the replicas agreed on this one.
    former: Option<LoginKey>,
    /// Whether this process has drawn the key, and nobody else knows it yet.
    drawn: bool,
}

/// The changes to write down.
#[derive(Debug, Default)]
struct LoginChanges {
    /// Whether changes are written down.
    kept: bool,
    waiting: Vec<RefusedLogin>,
    overflowed: bool,
}

impl LoginKeys {
    /// The key, and the former one where there is one.
    fn iter(&self) -> impl Iterator<Item = &LoginKey> {
        std::iter::once(&self.key).chain(&self.former)
    }
}

// === impl Logins ===

impl Default for Logins {
    /// No refusals, and a key of this process.
    fn default() -> Self {
        Self {
            keys: ArcSwap::from_pointee(LoginKeys {
                key: LoginKey::drawn(),
                former: None,
                drawn: true,
            }),
            shards: Default::default(),
            count: AtomicUsize::new(0),
            changes: Default::default(),
        }
    }
}

impl Logins {
    /// The session that a login names; `None` where it names none.
    pub(crate) fn session(&self, claims: &JwtClaims) -> Option<Login> {
        session_hash(&self.keys.load().key, claims)
    }

    /// The same under the former key; `None` where there is none.
    pub(crate) fn former_session(&self, claims: &JwtClaims) -> Option<Login> {
        session_hash(self.keys.load().former.as_ref()?, claims)
    }

    /// Whether the accounts source refused this login, or its subject, and has not accepted it since.
    pub(crate) fn refuses(&self, claims: &JwtClaims, now: u64) -> bool {
        if self.is_empty() {
            return false;
        }
        let keys = self.keys.load();
        let mut names = keys
            .iter()
            .flat_map(|key| Whom::ALL.map(|whom| name(key, claims, whom)));
        names.any(|name| self.is_refused(name, now))
    }

    /// Whether the accounts source refused this subject, and has not accepted it since.
    pub(crate) fn refuses_subject(&self, subject: &str, now: u64) -> bool {
        if self.is_empty() {
            return false;
        }
        let keys = self.keys.load();
        let mut keys = keys.iter();
        keys.any(|key| self.is_refused(key.subject(subject), now))
    }

    /// Remembers that the accounts source refused a login, or its subject.
    pub(crate) fn refuse(&self, claims: &JwtClaims, whom: Whom, now: u64) {
        let refused = RefusedLogin {
            login: name(&self.keys.load().key, claims, whom),
            until: until(claims, whom, now),
            at: seconds(now),
        };
        if self.put_back(refused, now) {
            self.changed(refused, ToldOf::ALL);
        }
    }

    /// Forgets the refusals of a login and of its subject: the accounts source accepted them.
    pub(crate) fn accept(&self, claims: &JwtClaims, now: u64) {
        if self.is_empty() {
            return;
        }
        for key in self.keys.load().iter() {
            for whom in Whom::ALL {
                let login = name(key, claims, whom);
                if self.remove(login) {
                    let (until, at) = (0, seconds(now));
                    self.changed(RefusedLogin { login, until, at }, ToldOf::ALL);
                }
            }
        }
    }

    /// Takes what another replica has said of a login. Gives this process' own word where that counts more: the later
    /// one, and of two at once the refusal.
    pub(crate) fn merge(&self, told: RefusedLogin, now: u64) -> Option<RefusedLogin> {
        let known = self.shard(told.login).get(&told.login).copied();
        let known = known.map(|Refusal { until, at }| RefusedLogin { until, at, ..told });
        if let Some(known) = known {
            let is_older = if told.until == 0 {
                known.at >= told.at
            } else {
                // A difference of less than a day isn't worth telling.
                told.until.saturating_add(DAY) < known.until
            };
            if is_older {
                return Some(known);
            }
        }
        let is_news = if told.until == 0 {
            self.remove(told.login)
        } else {
            self.put_back(told, now)
        };
        if is_news {
            self.changed(told, &[ToldOf::Journal]);
        }
        None
    }

    /// The key, to be written down.
    pub(crate) fn key(&self) -> Zeroizing<[u8; KEY]> {
        self.keys.load().key.bytes.clone()
    }

    /// The key before the replicas agreed on this one, to be written down.
    pub(crate) fn former_key(&self) -> Option<Zeroizing<[u8; KEY]>> {
        let keys = self.keys.load();
        keys.former.as_ref().map(|former| former.bytes.clone())
    }

    /// Whether this process has drawn the key, and nobody else knows it yet.
    pub(crate) fn has_own_key(&self) -> bool {
        self.keys.load().drawn
    }

    /// A name of the key, which tells its hashes from another key's; nothing of the key can be learnt from it.
    pub fn key_name(&self) -> u32 {
        let Login(hash) = self.keys.load().key.hash(b'k', ["", ""]);
        u32::try_from(hash.get() >> 32).unwrap_or(0)
    }

    /// Uses a key that was written down. The hashes until now mean nothing any more, so all refusals are forgotten.
    pub fn adopt(&self, key: [u8; KEY]) {
        self.adopt_with(key, None);
    }

    /// The same, with the key before it.
    pub(crate) fn adopt_with(&self, key: [u8; KEY], former: Option<[u8; KEY]>) {
        self.keys.store(Arc::new(LoginKeys {
            key: LoginKey::new(key),
            former: former.map(LoginKey::new),
            drawn: false,
        }));
        for shard in &self.shards {
            let mut shard = shard.lock();
            self.count.fetch_sub(shard.len(), Ordering::Relaxed);
            shard.clear();
        }
    }

    /// Uses the key that replicas have agreed on. Hashes until now are those of the former key, by which logins still
    /// go too. Whether the key is another one.
    pub(crate) fn agree(&self, key: [u8; KEY]) -> bool {
        let before = self.keys.load_full();
        let is_other = *before.key.bytes != key;
        if is_other || before.drawn {
            self.keys.store(Arc::new(LoginKeys {
                key: LoginKey::new(key),
                former: if is_other {
                    Some(before.key.clone())
                } else {
                    before.former.clone()
                },
                drawn: false,
            }));
        }
        is_other
    }

    /// Remembers changes from now on, until [`Self::take_changes`].
    pub(crate) fn keep(&self, reader: ToldOf) {
        self.changes[reader as usize].lock().kept = true;
    }

    /// The changes since the last call; `None` where there were too many: all refusals have to be told anew.
    pub(crate) fn take_changes(&self, reader: ToldOf) -> Option<Vec<RefusedLogin>> {
        let mut changes = self.changes[reader as usize].lock();
        let overflowed = std::mem::take(&mut changes.overflowed);
        let waiting = std::mem::take(&mut changes.waiting);
        (!overflowed).then_some(waiting)
    }

    /// Every refusal that is remembered.
    pub(crate) fn all(&self, now: u64) -> Vec<RefusedLogin> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let refused = shard
                .iter()
                .filter(|(_, refusal)| refusal.until > seconds(now));
            all.extend(refused.map(|(login, refusal)| RefusedLogin {
                login: *login,
                until: refusal.until,
                at: refusal.at,
            }));
        }
        all
    }

    /// Restores a refusal that was written down. Whether that is news.
    pub(crate) fn put_back(&self, refused: RefusedLogin, now: u64) -> bool {
        let RefusedLogin { login, until, at } = refused;
        let mut shard = self.shard(login);
        let before = shard.len();
        let known = shard.get(&login).copied();
        if let Some(known) = shard.get_mut(&login) {
            known.at = known.at.max(at);
        }
        // A difference of less than a day in a month isn't worth a write.
        if until <= seconds(now) && known.is_some() {
            shard.remove(&login);
        } else if until > seconds(now)
            && known.is_none_or(|known| known.until.saturating_add(DAY) < until)
        {
            if known.is_none() && shard.len() >= MOST_IN_SHARD {
                make_room(&mut shard, seconds(now));
            }
            shard.insert(login, Refusal { until, at });
        } else {
            return false;
        }
        // Making room may have removed more refusals than were added.
        self.count.fetch_add(shard.len(), Ordering::Relaxed);
        self.count.fetch_sub(before, Ordering::Relaxed);
        true
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    fn is_refused(&self, login: Login, now: u64) -> bool {
        let refusal = self.shard(login).get(&login).copied();
        refusal.is_some_and(|refusal| refusal.until > seconds(now))
    }

    /// Forgets a refusal; whether there was one.
    fn remove(&self, login: Login) -> bool {
        let was_there = self.shard(login).remove(&login).is_some();
        if was_there {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        was_there
    }

    fn shard(&self, Login(hash): Login) -> MutexGuard<'_, HashMap<Login, Refusal>> {
        let index = usize::try_from(hash.get() % SHARDS as u64).unwrap_or(0);
        self.shards[index].lock()
    }

    fn changed(&self, refused: RefusedLogin, readers: &[ToldOf]) {
        for reader in readers {
            let mut changes = self.changes[*reader as usize].lock();
            if !changes.kept || changes.overflowed {
                continue;
            }
            if changes.waiting.len() >= MOST_CHANGES {
                changes.waiting = Vec::new();
                changes.overflowed = true;
            } else {
                changes.waiting.push(refused);
            }
        }
    }
}

impl ToldOf {
    const ALL: &'static [Self] = &[Self::Journal, Self::Replicas];
}

impl Whom {
    const ALL: [Self; 2] = [Self::Subject, Self::Login];
}

fn session_hash(key: &LoginKey, claims: &JwtClaims) -> Option<Login> {
    let session = claims.session.as_deref()?;
    Some(key.hash(b's', [&claims.subject, session]))
}

/// The hash of a login or of its subject. A login without a session is hashed with all its claims, which the
/// signature protects: the token's own text has other spellings.
fn name(key: &LoginKey, claims: &JwtClaims, whom: Whom) -> Login {
    match whom {
        Whom::Subject => key.subject(&claims.subject),
        Whom::Login => session_hash(key, claims)
            .unwrap_or_else(|| key.hash(b'l', [&claims.subject, &claims.all])),
    }
}

/// Until when a refusal is remembered.
fn until(claims: &JwtClaims, whom: Whom, now: u64) -> u32 {
    let ends = match whom {
        Whom::Login => claims.expires_at.filter(|ends| *ends < f64::from(u32::MAX)),
        Whom::Subject => None,
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // in range by the filter, and saturating
    let ends = ends.map(|ends| (ends as u32).saturating_add(DAY));
    ends.unwrap_or_else(|| seconds(now).saturating_add(REMEMBERED))
}

/// Forgets what has ended; where that isn't enough, what ends first.
fn make_room(shard: &mut HashMap<Login, Refusal>, now: u32) {
    shard.retain(|_, refusal| refusal.until > now);
    if shard.len() < MOST_IN_SHARD {
        return;
    }
    let first = shard.iter().min_by_key(|(_, refusal)| refusal.until);
    if let Some(login) = first.map(|(login, _)| *login) {
        shard.remove(&login);
    }
}

fn seconds(unix: u64) -> u32 {
    u32::try_from(unix).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn claims(subject: &str, session: Option<&str>, all: &str) -> JwtClaims {
        JwtClaims {
            subject: subject.into(),
            session: session.map(Into::into),
            expires_at: Some(1_800_100_000.0),
            all: all.into(),
        }
    }

    #[test]
    fn a_refused_login_takes_its_session_with_it_and_leaves_the_subject_their_other_ones() {
        let logins = Logins::default();
        let (old, new) = (claims("ann", Some("1"), "a"), claims("ann", Some("2"), "b"));
        logins.refuse(&old, Whom::Login, NOW);
        assert!(logins.refuses(&old, NOW));
        // This login is the same session, renewed.
        assert!(logins.refuses(&claims("ann", Some("1"), "c"), NOW));
        // The login service may number sessions by subject.
        for other in [
            &new,
            &claims("bob", Some("1"), "a"),
            &claims("ann", None, "a"),
        ] {
            assert!(!logins.refuses(other, NOW), "{other:?}");
        }
        assert!(!logins.refuses_subject("ann", NOW));
        logins.accept(&new, NOW);
        assert!(logins.refuses(&old, NOW), "that was said of another login");
        logins.accept(&old, NOW);
        assert!(!logins.refuses(&old, NOW));
    }

    #[test]
    fn without_a_session_a_login_goes_by_all_that_it_says() {
        let logins = Logins::default();
        let (one, other) = (claims("ann", None, "one"), claims("ann", None, "other"));
        assert_eq!(logins.session(&one), None);
        logins.refuse(&one, Whom::Login, NOW);
        assert!(logins.refuses(&one, NOW) && !logins.refuses(&other, NOW));
    }

    #[test]
    fn a_refused_subject_is_refused_with_every_login_until_one_is_accepted() {
        let logins = Logins::default();
        let (one, other) = (claims("ann", Some("1"), "a"), claims("ann", None, "b"));
        logins.refuse(&one, Whom::Subject, NOW);
        assert!(logins.refuses(&one, NOW) && logins.refuses(&other, NOW));
        assert!(logins.refuses_subject("ann", NOW) && !logins.refuses_subject("bob", NOW));
        logins.accept(&other, NOW);
        assert!(!logins.refuses(&one, NOW) && !logins.refuses_subject("ann", NOW));
    }

    #[test]
    fn a_refusal_is_remembered_as_long_as_the_login_may_last() {
        let logins = Logins::default();
        let ends = claims("ann", Some("1"), "a");
        let endless = JwtClaims {
            expires_at: None,
            ..claims("bob", Some("1"), "a")
        };
        for login in [&ends, &endless] {
            logins.refuse(login, Whom::Login, NOW);
        }
        let day = u64::from(DAY);
        for (later, first, second) in [
            (99_999, true, true),
            (2 * day + day, false, true),
            (31 * day, false, false),
        ] {
            assert_eq!(logins.refuses(&ends, NOW + later), first, "{later}");
            assert_eq!(logins.refuses(&endless, NOW + later), second, "{later}");
        }
    }

    #[test]
    fn what_was_written_down_is_taken_up_under_the_same_key_and_means_nothing_under_another() {
        let (before, after, stranger) = (Logins::default(), Logins::default(), Logins::default());
        before.keep(ToldOf::Journal);
        let (one, other) = (claims("ann", Some("1"), "a"), claims("bob", None, "b"));
        before.refuse(&one, Whom::Login, NOW);
        before.refuse(&other, Whom::Subject, NOW);
        // A refusal that comes again and again is written down once.
        before.refuse(&other, Whom::Subject, NOW + 60);
        let written = before.take_changes(ToldOf::Journal).unwrap();
        assert_eq!(written.len(), 2);
        assert_eq!(before.take_changes(ToldOf::Journal), Some(Vec::new()));
        assert_eq!(before.all(NOW).len(), 2);
        after.adopt(*before.key());
        assert_eq!(after.key_name(), before.key_name());
        assert_ne!(after.key_name(), stranger.key_name());
        for refused in written {
            assert!(after.put_back(refused, NOW));
            stranger.put_back(refused, NOW);
        }
        assert_eq!(after.session(&one), before.session(&one));
        for login in [&one, &other] {
            assert!(after.refuses(login, NOW));
            assert!(!stranger.refuses(login, NOW));
        }
        before.accept(&one, NOW);
        for refused in before.take_changes(ToldOf::Journal).unwrap() {
            assert_eq!(refused.until, 0);
            after.put_back(refused, NOW);
        }
        assert!(!after.refuses(&one, NOW) && after.refuses(&other, NOW));
        // Where there is another key already, refusals under the first one are forgotten.
        after.adopt([7; KEY]);
        assert!(after.all(NOW).is_empty() && after.is_empty());
    }

    #[test]
    fn they_are_bounded_and_those_that_end_first_go_first() {
        let logins = Logins::default();
        let hash = |number: u64| Login(NonZeroU64::new(number).unwrap());
        let most = u64::try_from(MOST_REFUSALS).unwrap();
        for number in 1..=most + 1000 {
            let until = u32::try_from(NOW + 1000 + number).unwrap();
            logins.put_back(
                RefusedLogin {
                    login: hash(number),
                    until,
                    at: 0,
                },
                NOW,
            );
        }
        assert_eq!(logins.all(NOW).len(), MOST_REFUSALS);
        assert_eq!(logins.count.load(Ordering::Relaxed), MOST_REFUSALS);
        assert!(!logins.is_refused(hash(1), NOW) && logins.is_refused(hash(most + 1000), NOW));
    }

    #[test]
    fn replicas_agree_on_a_key_and_remember_what_was_refused_before() {
        let (first, second) = (Logins::default(), Logins::default());
        let (old, new) = (claims("ann", Some("1"), "a"), claims("ann", Some("2"), "b"));
        second.refuse(&old, Whom::Login, NOW);
        let before = second.session(&old);
        assert!(first.has_own_key() && second.has_own_key());
        assert!(!first.agree(*first.key()) && second.agree(*first.key()));
        assert!(!first.has_own_key() && !second.agree(*first.key()));
        assert_eq!(second.session(&old), first.session(&old));
        assert_eq!(second.former_session(&old), before);
        assert_eq!(first.former_session(&old), None);
        assert!(second.refuses(&old, NOW) && !second.refuses(&new, NOW));
        // Also after a restart.
        let third = Logins::default();
        third.adopt_with(*second.key(), second.former_key().map(|key| *key));
        for refused in second.all(NOW) {
            third.put_back(refused, NOW);
        }
        assert!(third.refuses(&old, NOW));
        third.accept(&old, NOW);
        assert!(!third.refuses(&old, NOW));
    }

    #[test]
    fn the_later_word_counts_and_of_two_at_once_the_refusal() {
        let (here, there) = (Logins::default(), Logins::default());
        here.keep(ToldOf::Replicas);
        there.adopt(*here.key());
        let ann = claims("ann", Some("1"), "a");
        let told = || here.take_changes(ToldOf::Replicas).unwrap();
        here.refuse(&ann, Whom::Login, NOW);
        for refused in told() {
            assert_eq!(there.merge(refused, NOW), None);
        }
        assert!(there.refuses(&ann, NOW));
        here.accept(&ann, NOW + 10);
        let accepted = told()[0];
        // Refused again meanwhile, which is no news.
        there.refuse(&ann, Whom::Login, NOW + 10);
        let stands = there.merge(accepted, NOW + 10).unwrap();
        assert!(stands.until > 0 && there.refuses(&ann, NOW + 10));
        assert_eq!(here.merge(stands, NOW + 10), None);
        assert!(here.refuses(&ann, NOW + 10));
        here.accept(&ann, NOW + 11);
        assert_eq!(there.merge(told()[0], NOW + 11), None);
        assert!(!there.refuses(&ann, NOW + 11));
    }
}
