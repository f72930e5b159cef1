//! Shares sessions and refused logins with the other replicas, through the store.
//!
//! Keeps true: a change made here is given to the store within [`POLL`], and again until it has it; a change made
//! elsewhere is known here within as much; what follows from two changes of one session doesn't depend on their order;
//! a store that has lost its set is given all that is known here and not there; what waits to be given is bounded,
//! since the table itself knows which of its sessions wait. At a stop the store is given what it doesn't have yet, if
//! it answers. No request waits for any of this.
//! Must not know: how the store keeps an entry, what a session's fields mean.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use super::finishing::FinishingTask;
use crate::logins::remembered::{Logins, RefusedLogin, ToldOf};
use crate::sessions::{MergedState, SessionRecord, Sessions, SharedEntry};
use crate::snapshot::Shared;
use crate::store::{
    EntriesAnswer, EntryChanges, MOST_ENTRIES, OtherEntry, PushedEntry, SetVersion, Store,
};
use crate::terms::clock::is_plausible;

/// How often the store is asked for changes.
const POLL: Duration = Duration::from_millis(250);

/// How often a replica that has drawn its own key of the logins' hashes waits for another's, before it gives its own
/// to the store. A store that has lost the key gets it from those who have it already.
const WAITS_FOR_KEY: u32 = 8;

/// Starts sharing where there is a store, on the control plane.
pub(crate) fn start(shared: &Arc<Shared>) -> Option<FinishingTask> {
    let snapshot = shared.current.load();
    let store = snapshot.store.clone()?;
    let (sessions, logins) = (Arc::clone(&snapshot.sessions), Arc::clone(&snapshot.logins));
    sessions.share();
    logins.keep(ToldOf::Replicas);
    let sharing = SessionSharing {
        shared: Arc::clone(shared),
        sessions,
        logins,
        store,
        read: SetVersion::default(),
        key_agreed: false,
        waited: 0,
        is_behind: true,
        from: 0,
        to_give: VecDeque::new(),
        without_room: 0,
    };
    Some(FinishingTask::start(|stopped| run(sharing, stopped)))
}

struct SessionSharing {
    shared: Arc<Shared>,
    sessions: Arc<Sessions>,
    logins: Arc<Logins>,
    store: Arc<Store>,
    read: SetVersion,
    key_agreed: bool,
    /// How often this replica has waited for another's key.
    waited: u32,
    /// Whether there is more to read. Until all is read, nothing is given: the store may have it already.
    is_behind: bool,
    /// The position in the table from which on sessions are given.
    from: usize,
    to_give: VecDeque<Given>,
    /// Sessions of others for which there was no room.
    without_room: u64,
}

/// An entry to be given, with the version that was seen of it.
#[derive(Debug)]
struct Given {
    entry: SharedEntry,
    seen: u64,
}

impl Given {
    fn new(record: SessionRecord, until: u32) -> Self {
        Self {
            entry: SharedEntry::new(record, until),
            seen: 0,
        }
    }

    fn refused(refused: RefusedLogin) -> Self {
        Self::new(SessionRecord::Refused(refused), refused.matters_until())
    }
}

async fn run(mut sharing: SessionSharing, mut stopped: oneshot::Receiver<()>) {
    let mut is_last = false;
    loop {
        // By an implausible time of day every session would count as expired.
        let now = sharing.shared.clock.unix_seconds();
        let goes_on = is_plausible(now) && sharing.turn(now).await;
        if goes_on {
            continue;
        }
        if is_last {
            return;
        }
        tokio::select! {
            _ = &mut stopped => is_last = true,
            () = sleep(POLL) => {}
        }
    }
}

impl SessionSharing {
    /// One exchange with the store; whether another one is due at once.
    async fn turn(&mut self, now: u64) -> bool {
        if !self.key_agreed && !self.agree_on_key().await {
            return false;
        }
        let gathers = !self.is_behind;
        if gathers {
            self.gather(now);
        }
        let key = self.logins.key_name();
        let mut pushed = Vec::new();
        let mut given = Vec::new();
        while pushed.len() < MOST_ENTRIES
            && let Some(next) = self.to_give.pop_front()
        {
            // A text above 64 KiB has no bytes. No request's header section can hold one.
            if let (Some(name), Some(bytes)) = (next.entry.name(), next.entry.encode(key)) {
                pushed.push(PushedEntry {
                    name,
                    until: next.entry.until,
                    seen: next.seen,
                    bytes,
                });
                given.push(next);
            }
        }
        match self.store.exchange_sessions(&self.read, &pushed).await {
            Ok(EntriesAnswer::Changes(changes)) => {
                self.release(&given).await;
                self.take(changes, &given, key, now);
                // More may wait where there was enough for a whole exchange.
                let was_full = pushed.len() >= MOST_ENTRIES;
                !gathers || self.is_behind || was_full || !self.to_give.is_empty()
            }
            Ok(EntriesAnswer::NoLoginKey) => {
                self.key_agreed = false;
                self.give_again(given);
                true
            }
            // The push may have arrived all the same: the store knows an entry that it has.
            Err(_) => {
                self.give_again(given);
                false
            }
        }
    }

    /// Gives up what was claimed for the sessions that were taken away here, where nobody else has claimed it since.
    async fn release(&self, given: &[Given]) {
        for given in given {
            if let SessionRecord::Forgotten(identity) = &given.entry.record {
                // Without an answer the claim ends with its token.
                let _ = self.store.release(identity).await;
            }
        }
    }

    fn give_again(&mut self, given: Vec<Given>) {
        for given in given.into_iter().rev() {
            self.to_give.push_front(given);
        }
    }

    /// Uses the replicas' key of the logins' hashes, or gives them this one's.
    async fn agree_on_key(&mut self) -> bool {
        let own = self.logins.key();
        let waits = self.logins.has_own_key() && self.waited < WAITS_FOR_KEY;
        match self.store.login_key((!waits).then_some(&*own)).await {
            Ok(Some(key)) => {
                if self.logins.agree(key) {
                    tracing::info!(
                        "logins are remembered by the key of the other replicas from now on; what was remembered \
                         before still counts"
                    );
                }
                self.key_agreed = true;
                true
            }
            Ok(None) => {
                self.waited += 1;
                false
            }
            Err(_) => false,
        }
    }

    /// Gathers what the others haven't been told of, until there is enough for one exchange.
    fn gather(&mut self, now: u64) {
        if self.to_give.len() >= MOST_ENTRIES {
            return;
        }
        for struck in self.sessions.take_struck() {
            let record = SessionRecord::Forgotten(struck.identity);
            self.to_give.push_back(Given::new(record, struck.until));
        }
        let refused = self.logins.take_changes(ToldOf::Replicas);
        let refused = refused.unwrap_or_else(|| self.logins.all(now));
        self.to_give.extend(refused.into_iter().map(Given::refused));
        let Some(wanted) = MOST_ENTRIES.checked_sub(self.to_give.len()) else {
            return;
        };
        for kept in self.sessions.take_unshared(&mut self.from, wanted) {
            if kept.matters(now) {
                let until = kept.last_expiry();
                self.to_give
                    .push_back(Given::new(SessionRecord::Session(kept), until));
            }
        }
    }

    /// Takes the store's answer to what was given.
    fn take(&mut self, changes: EntryChanges, given: &[Given], key: u32, now: u64) {
        if changes.version.epoch != self.read.epoch {
            // All that the set doesn't turn out to have is given.
            self.sessions.share_all();
            let refused = self.logins.all(now).into_iter().map(Given::refused);
            self.to_give.extend(refused);
        }
        self.is_behind = changes.more;
        self.read = changes.version;
        for bytes in changes.entries {
            self.apply(SharedEntry::decode(&bytes, key), now);
        }
        for OtherEntry {
            position,
            version,
            bytes,
        } in changes.others
        {
            let other = SharedEntry::decode(&bytes, key);
            if let Some(given) = given.get(position) {
                let follows = follows(&given.entry, &other);
                self.apply(other, now);
                if let Some(entry) = follows {
                    let seen = version;
                    self.to_give.push_front(Given { entry, seen });
                }
            }
        }
    }

    /// Takes what another replica has said.
    fn apply(&mut self, entry: SharedEntry, now: u64) {
        match entry.record {
            SessionRecord::Session(kept) if kept.matters(now) => {
                if self.sessions.merge(&kept, now) == MergedState::NoRoom {
                    if self.without_room == 0 {
                        tracing::warn!(
                            "sessions.max is too small for all sessions of all replicas; some of the others' are \
                             not known here"
                        );
                    }
                    self.without_room += 1;
                }
            }
            SessionRecord::Forgotten(identity) => {
                self.sessions.strike(&identity, entry.until);
            }
            SessionRecord::Refused(refused) => {
                if let Some(own) = self.logins.merge(refused, now) {
                    self.to_give.push_back(Given::refused(own));
                }
            }
            // A later version's entry stays where that version has put it.
            SessionRecord::Session(_) | SessionRecord::Unknown => {}
        }
    }
}

/// The entry that follows from one that was given and the one that is in its place; `None` where the latter stays.
fn follows(given: &SharedEntry, other: &SharedEntry) -> Option<SharedEntry> {
    use SessionRecord::{Forgotten, Refused, Session};
    let later = other.later.clone();
    match (&given.record, &other.record) {
        (Session(own), Session(theirs)) => {
            let both = own.merged(theirs);
            (both != *theirs).then(|| SharedEntry {
                until: both.last_expiry(),
                record: Session(both),
                later,
            })
        }
        (Session(_), Forgotten(_)) => (given.until > other.until).then(|| given.clone()),
        (Forgotten(_), Session(theirs)) => {
            (given.until >= theirs.last_expiry()).then(|| given.clone())
        }
        (Forgotten(_), Forgotten(_)) => (given.until > other.until).then(|| given.clone()),
        (Refused(own), Refused(theirs)) => {
            // The later word counts, and of two at once the refusal.
            let order = |refused: &RefusedLogin| (refused.at, refused.until);
            (order(own) > order(theirs)).then(|| given.clone())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::logins::remembered::Login;
    use crate::sessions::{Grounds, SessionIdentity, SessionUser, StoredSession};
    use crate::terms::role::Role;

    fn identity() -> SessionIdentity {
        SessionIdentity {
            channel: "show".to_owned(),
            subject: "ann".to_owned(),
            user: SessionUser::Uid(7),
        }
    }

    fn session(expires: u32, lacks: Grounds) -> SharedEntry {
        let kept = StoredSession {
            identity: identity(),
            role: Role::Subscriber,
            first_issued: 100,
            expires: [0, expires],
            refreshes: 0,
            refused: false,
            ended: false,
            lacks,
            login: None,
            settled: 100,
            account_refused: false,
        };
        SharedEntry::new(SessionRecord::Session(kept), expires)
    }

    fn struck(until: u32) -> SharedEntry {
        SharedEntry::new(SessionRecord::Forgotten(identity()), until)
    }

    fn refused(until: u32, at: u32) -> SharedEntry {
        let login = Login(NonZeroU64::MIN);
        let refused = RefusedLogin { login, until, at };
        SharedEntry::new(SessionRecord::Refused(refused), 500)
    }

    #[test]
    fn what_follows_from_two_entries_has_no_order() {
        let unknown = SharedEntry::new(SessionRecord::Unknown, 0);
        for (one, other, expected) in [
            (
                session(200, Grounds::NONE),
                session(300, Grounds::NONE),
                session(300, Grounds::NONE),
            ),
            (
                session(200, Grounds::ALL),
                session(300, Grounds::NONE),
                session(300, Grounds::ALL),
            ),
            (session(300, Grounds::NONE), struck(300), struck(300)),
            (
                session(301, Grounds::NONE),
                struck(300),
                session(301, Grounds::NONE),
            ),
            (struck(200), struck(300), struck(300)),
            (refused(900, 100), refused(0, 101), refused(0, 101)),
            (refused(900, 101), refused(0, 101), refused(900, 101)),
        ] {
            for (given, held) in [(&one, &other), (&other, &one)] {
                let result = follows(given, held).unwrap_or_else(|| held.clone());
                assert_eq!(result, expected, "{given:?} {held:?}");
            }
        }
        for given in [session(200, Grounds::NONE), struck(200), refused(900, 100)] {
            assert_eq!(follows(&given, &unknown), None);
        }
    }
}
