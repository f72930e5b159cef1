//! Logins as they are remembered: as keyed hashes, with the logins and subjects that the accounts source refused.
//!
//! Keeps true: a refusal stands until the source says otherwise, whatever is granted meanwhile; without the key, a
//! hash says nothing of a login; every spelling of one login has the same hash; memory is bounded by `SHARDS` times
//! `MOST_IN_SHARD`.
//! Must not know: sources, channels, where key and refusals are written down.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use hmac::{Hmac, KeyInit as _, Mac as _};
use parking_lot::{Mutex, MutexGuard};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::jwt::JwtClaims;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
}

/// The remembered refusals, and the key of the hashes.
#[derive(Debug)]
pub struct Logins {
    key: ArcSwap<LoginKey>,
    shards: [Mutex<HashMap<Login, u32>>; SHARDS],
    /// How many refusals there are: most of the time there is none to look for.
    count: AtomicUsize,
    changes: Mutex<LoginChanges>,
}

struct LoginKey {
    bytes: Zeroizing<[u8; KEY]>,
    keyed: Hmac<Sha256>,
}

/// The changes to write down.
#[derive(Debug, Default)]
struct LoginChanges {
    /// Whether changes are written down.
    kept: bool,
    waiting: Vec<RefusedLogin>,
    overflowed: bool,
}

// === impl LoginKey ===

impl LoginKey {
    fn new(bytes: [u8; KEY]) -> Self {
        // HMAC fills a shorter key up with zeros to its block (RFC 2104).
        let mut block = Zeroizing::new([0; 64]);
        block[..KEY].copy_from_slice(&bytes);
        let keyed = Hmac::new((&*block).into());
        Self {
            bytes: Zeroizing::new(bytes),
            keyed,
        }
    }

    /// A random key of 128 bits from the system, as the hash tables of this process have.
    fn drawn() -> Self {
        let mut bytes = [0; KEY];
        let hasher = RandomState::new();
        for (number, part) in bytes.chunks_exact_mut(8).enumerate() {
            part.copy_from_slice(&hasher.hash_one(number).to_le_bytes());
        }
        Self::new(bytes)
    }

    fn hash(&self, kind: u8, parts: [&str; 2]) -> Login {
        let mut mac = self.keyed.clone();
        mac.update(&[kind]);
        for part in parts {
            let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
            mac.update(&length.to_le_bytes());
            mac.update(part.as_bytes());
        }
        let hash = mac.finalize().into_bytes();
        let first = hash
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Login(NonZeroU64::new(first).unwrap_or(NonZeroU64::MAX))
    }
}

impl std::fmt::Debug for LoginKey {
    /// Leaves the key out.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("LoginKey").finish_non_exhaustive()
    }
}

// === impl Logins ===

impl Default for Logins {
    /// No refusals, and a key of this process.
    fn default() -> Self {
        Self {
            key: ArcSwap::from_pointee(LoginKey::drawn()),
            shards: Default::default(),
            count: AtomicUsize::new(0),
            changes: Mutex::default(),
        }
    }
}

impl Logins {
    /// The session that a login names; `None` where it names none.
    pub(crate) fn session(&self, claims: &JwtClaims) -> Option<Login> {
        let session = claims.session.as_deref()?;
        Some(self.key.load().hash(b's', [&claims.subject, session]))
    }

    /// Whether the accounts source refused this login, or its subject, and has not accepted it since.
    pub(crate) fn refuses(&self, claims: &JwtClaims, now: u64) -> bool {
        !self.is_empty()
            && Whom::ALL
                .into_iter()
                .any(|whom| self.is_refused(self.name(claims, whom), now))
    }

    /// Whether the accounts source refused this subject, and has not accepted it since.
    pub(crate) fn refuses_subject(&self, subject: &str, now: u64) -> bool {
        !self.is_empty() && self.is_refused(self.subject(subject), now)
    }

    /// Remembers that the accounts source refused a login, or its subject.
    pub(crate) fn refuse(&self, claims: &JwtClaims, whom: Whom, now: u64) {
        let refused = RefusedLogin {
            login: self.name(claims, whom),
            until: until(claims, whom, now),
        };
        if self.put_back(refused, now) {
            self.changed(refused);
        }
    }

    /// Forgets the refusals of a login and of its subject: the accounts source accepted them.
    pub(crate) fn accept(&self, claims: &JwtClaims) {
        if self.is_empty() {
            return;
        }
        for whom in Whom::ALL {
            let login = self.name(claims, whom);
            if self.shard(login).remove(&login).is_some() {
                self.count.fetch_sub(1, Ordering::Relaxed);
                self.changed(RefusedLogin { login, until: 0 });
            }
        }
    }

    /// The key, to be written down.
    pub(crate) fn key(&self) -> Zeroizing<[u8; KEY]> {
        self.key.load().bytes.clone()
    }

    /// A name of the key, which tells its hashes from another key's; nothing of the key can be learnt from it.
    pub fn key_name(&self) -> u32 {
        let Login(hash) = self.key.load().hash(b'k', ["", ""]);
        u32::try_from(hash.get() >> 32).unwrap_or(0)
    }

    /// Uses a key that was written down. The hashes until now mean nothing any more, so all refusals are forgotten.
    pub fn adopt(&self, key: [u8; KEY]) {
        self.key.store(LoginKey::new(key).into());
        for shard in &self.shards {
            let mut shard = shard.lock();
            self.count.fetch_sub(shard.len(), Ordering::Relaxed);
            shard.clear();
        }
    }

    /// Remembers changes from now on, until [`Self::take_changes`].
    pub(crate) fn keep(&self) {
        self.changes.lock().kept = true;
    }

    /// The changes since the last call; `None` where there were too many: all refusals have to be written anew.
    pub(crate) fn take_changes(&self) -> Option<Vec<RefusedLogin>> {
        let mut changes = self.changes.lock();
        let overflowed = std::mem::take(&mut changes.overflowed);
        let waiting = std::mem::take(&mut changes.waiting);
        (!overflowed).then_some(waiting)
    }

    /// Every refusal that is remembered.
    pub(crate) fn all(&self, now: u64) -> Vec<RefusedLogin> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let refused = shard.iter().filter(|(_, until)| **until > seconds(now));
            all.extend(refused.map(|(login, until)| RefusedLogin {
                login: *login,
                until: *until,
            }));
        }
        all
    }

    /// Restores a refusal that was written down. Whether that is news.
    pub(crate) fn put_back(&self, refused: RefusedLogin, now: u64) -> bool {
        let RefusedLogin { login, until } = refused;
        let mut shard = self.shard(login);
        let before = shard.len();
        let known = shard.get(&login).copied();
        // A difference of less than a day in a month isn't worth a write.
        if until <= seconds(now) && known.is_some() {
            shard.remove(&login);
        } else if until > seconds(now)
            && known.is_none_or(|known| known.saturating_add(DAY) < until)
        {
            if known.is_none() && shard.len() >= MOST_IN_SHARD {
                make_room(&mut shard, seconds(now));
            }
            shard.insert(login, until);
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
        let until = self.shard(login).get(&login).copied();
        until.is_some_and(|until| until > seconds(now))
    }

    /// The hash of a login or of its subject. A login without a session is hashed with all its claims, which the
    /// signature protects: the token's own text has other spellings.
    fn name(&self, claims: &JwtClaims, whom: Whom) -> Login {
        match whom {
            Whom::Subject => self.subject(&claims.subject),
            Whom::Login => self
                .session(claims)
                .unwrap_or_else(|| self.key.load().hash(b'l', [&claims.subject, &claims.all])),
        }
    }

    fn subject(&self, subject: &str) -> Login {
        self.key.load().hash(b'p', [subject, ""])
    }

    fn shard(&self, Login(hash): Login) -> MutexGuard<'_, HashMap<Login, u32>> {
        let index = usize::try_from(hash.get() % SHARDS as u64).unwrap_or(0);
        self.shards[index].lock()
    }

    fn changed(&self, refused: RefusedLogin) {
        let mut changes = self.changes.lock();
        if !changes.kept || changes.overflowed {
            return;
        }
        if changes.waiting.len() >= MOST_CHANGES {
            changes.waiting = Vec::new();
            changes.overflowed = true;
        } else {
            changes.waiting.push(refused);
        }
    }
}

impl Whom {
    const ALL: [Self; 2] = [Self::Subject, Self::Login];
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
fn make_room(shard: &mut HashMap<Login, u32>, now: u32) {
    shard.retain(|_, until| *until > now);
    if shard.len() < MOST_IN_SHARD {
        return;
    }
    let first = shard.iter().min_by_key(|(_, until)| **until);
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
        logins.accept(&new);
        assert!(logins.refuses(&old, NOW), "that was said of another login");
        logins.accept(&old);
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
        logins.accept(&other);
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
        before.keep();
        let (one, other) = (claims("ann", Some("1"), "a"), claims("bob", None, "b"));
        before.refuse(&one, Whom::Login, NOW);
        before.refuse(&other, Whom::Subject, NOW);
        // A refusal that comes again and again is written down once.
        before.refuse(&other, Whom::Subject, NOW + 60);
        let written = before.take_changes().unwrap();
        assert_eq!(written.len(), 2);
        assert_eq!(before.take_changes(), Some(Vec::new()));
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
        before.accept(&one);
        for refused in before.take_changes().unwrap() {
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
                },
                NOW,
            );
        }
        assert_eq!(logins.all(NOW).len(), MOST_REFUSALS);
        assert_eq!(logins.count.load(Ordering::Relaxed), MOST_REFUSALS);
        assert!(!logins.is_refused(hash(1), NOW) && logins.is_refused(hash(most + 1000), NOW));
    }
}
