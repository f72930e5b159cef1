//! The logins of engine.io's polling sessions, in the store that replicas share: a session's requests may come to any of
//! them.
//!
//! Keeps true: nothing that is forwarded waits for the store, but a message that holds what looks like a token, within
//! `redis.timeout`; while the store gives no answer, what is known here counts. Of what waits to be told to the store
//! there is a bounded number, and what isn't told is told at the session's next use.
//!
//! A `CONNECT` is on its way to the store before the backend has all of it, but its answer isn't awaited. So another
//! replica may judge a message before the login is there: where it knows none for the namespace, it looks again a few
//! times. Where it knows a former one of the same client, that one counts for the message.
//! Must not know: how logins are sealed and kept, verdicts, packets.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::logins::socket_logins::SocketLogins;
use crate::logins::socket_sessions::REMEMBERED;
use crate::snapshot::{Shared, Snapshot};
use crate::store::{NoStore, Store};

/// How long the store needs not hear that a session lives: a quarter of the time after which it forgets it.
const SESSION_TOLD: Duration = Duration::from_mins(5);

/// How long a session rests of which the store could not be told.
const NOT_TOLD: Duration = Duration::from_secs(1);

/// The pauses before the store is asked again for what may be on its way from another replica. A message waits for them
/// within `redis.timeout`.
const ON_ITS_WAY: [Duration; 3] = [
    Duration::from_millis(3),
    Duration::from_millis(9),
    Duration::from_millis(27),
];

/// Shares logins.
#[derive(Clone)]
pub(super) struct LoginSharing {
    shared: Arc<Shared>,
    store: Arc<Store>,
}

impl LoginSharing {
    /// Where replicas have a store.
    pub(super) fn of(shared: &Arc<Shared>, snapshot: &Snapshot) -> Option<Self> {
        Some(Self {
            store: Arc::clone(snapshot.store.as_ref()?),
            shared: Arc::clone(shared),
        })
    }

    /// The session that a client names.
    pub(super) fn meet(&self, id: &str, logins: &Arc<SocketLogins>) {
        let now = self.shared.clock.elapsed();
        logins.share(id, false, now + SESSION_TOLD);
        self.attend_if_due(logins);
    }

    /// The session that the backend has opened.
    pub(super) fn open(&self, id: &str, logins: &Arc<SocketLogins>) {
        logins.share(id, true, Duration::ZERO);
        self.attend(logins);
    }

    /// Tells the store that the session lives, if it is time.
    pub(super) fn attend_if_due(&self, logins: &Arc<SocketLogins>) {
        if logins.is_due(self.shared.clock.elapsed()) {
            self.attend(logins);
        }
    }

    /// Tells the store what it lacks of a shared session, and takes what others told. Nobody waits for it.
    pub(super) fn attend(&self, logins: &Arc<SocketLogins>) {
        if !logins.begin_attending() {
            return;
        }
        let Some(place) = self.shared.socket_sessions.attend() else {
            logins.end_attending(self.shared.clock.elapsed() + NOT_TOLD, false);
            return;
        };
        let (sharing, logins) = (self.clone(), Arc::clone(logins));
        self.shared.control.runtime.spawn(async move {
            loop {
                let told = sharing.tell(&logins).await;
                let rest = if told { SESSION_TOLD } else { NOT_TOLD };
                let due = sharing.shared.clock.elapsed() + rest;
                if logins.end_attending(due, told) {
                    break;
                }
            }
            drop(place);
        });
    }

    /// Whether the store was told. It may hear of the session's beginning only now, from another replica.
    async fn tell(&self, logins: &SocketLogins) -> bool {
        for pause in ON_ITS_WAY {
            match self.exchange(logins).await {
                Ok(true) => return true,
                Ok(false) => sleep(pause).await,
                Err(NoStore) => return false,
            }
        }
        self.exchange(logins).await == Ok(true)
    }

    /// Learns what other replicas know of the session, for a message of this namespace.
    pub(super) async fn learn(self, logins: Arc<SocketLogins>, namespace: Box<str>) {
        let learning = async {
            for pause in ON_ITS_WAY {
                let asked = self.exchange(&logins).await;
                if asked.is_err() || !logins.may_be_late(&namespace) {
                    return;
                }
                sleep(pause).await;
            }
            let _ = self.exchange(&logins).await;
        };
        let _late = timeout(self.store.timeout(), learning).await;
    }

    /// Tells the store what it lacks, and takes what it has; whether it has the session.
    async fn exchange(&self, logins: &SocketLogins) -> Result<bool, NoStore> {
        let turn = logins.turn().ok_or(NoStore)?;
        let _turn = turn.lock().await;
        let shared = &self.shared;
        let may_put = |bytes| {
            let now = shared.clock.elapsed();
            shared.socket_sessions.may_put(bytes, now)
        };
        let seals = shared.current.load().login_seals.clone();
        let outgoing = logins
            .outgoing(&seals, shared.entropy, may_put)
            .ok_or(NoStore)?;
        let (name, put) = (&outgoing.seal.name, &outgoing.logins[..]);
        let asking = self
            .store
            .exchange_socket_logins(name, outgoing.may_begin, REMEMBERED, put);
        let held = asking.await?;
        logins.incoming(&outgoing, held.as_deref());
        Ok(held.is_some())
    }
}
