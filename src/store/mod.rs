//! The store that replicas share: one Redis or Valkey server.
//!
//! | file | what |
//! |---|---|
//! | `link` | one connection to the server, with the scripts that it knows |
//! | `limits` | the rate limits that are shared |
//! | `claims` | users and publishers' channels, each held once over all replicas |
//! | `places` | the requests to Agora that may be under way at once |
//! | `revocations` | the revocations that are shared |
//! | `sessions` | the records of sessions and refused logins that are shared |
//! | `socket_logins` | the logins of engine.io's polling sessions, sealed |
//! | `supervise` | connects, and connects again |
//!
//! Callers ask for what is kept there in the store's own words, a file for each, never by a command: `limits` is the
//! pattern. Each is one script, and the keys of all have one hash tag: there is one connection, and a cluster keeps
//! them on the server at its end.
//!
//! Keeps true: an answer comes within `redis.timeout`, or none; after the first failures no request waits, until the
//! server has shown that it answers and can be written. One attempt to connect at a time. Nothing is contacted before
//! [`supervise()`] runs. What is said of a failure holds no secret.
//! Must not know: what a decision makes of a missing answer.

mod claims;
mod limits;
mod link;
mod places;
mod revocations;
mod sessions;
mod socket_logins;
mod supervise;

use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use redis::{ErrorKind, RedisError, Value};
use tokio::sync::watch;
use tokio::time::timeout;

pub(crate) use self::claims::{ClaimAnswer, SeatHeld};
use self::link::Link;
pub(crate) use self::places::Place;
pub(crate) use self::revocations::{MOST_AT_ONCE, SetChanges, SetVersion};
pub(crate) use self::sessions::{
    EntriesAnswer, EntryChanges, MOST_ENTRIES, OtherEntry, PushedEntry,
};
pub(crate) use self::supervise::supervise;
use crate::config::model::Redis;
use crate::telemetry::metrics::{Metrics, SourceMetrics, StoreModeMetrics};
use crate::telemetry::traffic_labels::SourceLabel;
use crate::terms::clock::Clock;
use crate::terms::outcome::LookupOutcome;

/// How many answers in a row may be late before nothing is asked until the server answers again.
const MOST_SILENCES: u32 = 3;

/// The longest name of a channel or a subject that stands in a key as it is; longer ones are hashed.
const LONGEST_NAME: usize = 64;

/// The longest text about a failure.
const LONGEST_ERROR: usize = 200;

/// The store gives no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoStore;

/// One server, and whether it answers. It is shared as an `Arc`.
#[derive(Debug)]
pub(crate) struct Store {
    config: Redis,
    /// Tells this process from every other that uses the server.
    name: String,
    clock: Clock,
    metrics: Arc<SourceMetrics>,
    mode: StoreModeMetrics,
    standing: watch::Sender<StoreStanding>,
}

#[derive(Clone, Debug)]
enum StoreStanding {
    /// No attempt to connect has ended yet.
    Starting,
    Up(Arc<Link>),
    Down(StoreOutage),
}

/// An outage of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreOutage {
    /// Why it gives no answer. Holds no secret.
    pub(crate) error: String,
    /// When the first request or attempt failed, on the clock's monotonic scale.
    pub(crate) since: Duration,
}

impl Store {
    /// The store of a configuration. Only a restart changes `[redis]`: what there was `before` a reload stays.
    pub(crate) fn of(
        config: Option<&Redis>,
        before: Option<&Arc<Self>>,
        clock: &Clock,
        metrics: &Metrics,
    ) -> Option<Arc<Self>> {
        let made = || Arc::new(Self::new(config?.clone(), clock.clone(), metrics)).into();
        before.cloned().or_else(made)
    }

    /// Contacts nothing.
    fn new(config: Redis, clock: Clock, metrics: &Metrics) -> Self {
        Self {
            config,
            name: format!("{:016x}", RandomState::new().hash_one("replica")),
            clock,
            metrics: metrics.source(SourceLabel::Redis),
            mode: metrics.store_mode(),
            standing: watch::Sender::new(StoreStanding::Starting),
        }
    }

    /// Whether no attempt to connect has ended yet.
    pub(crate) fn is_starting(&self) -> bool {
        matches!(&*self.standing.borrow(), StoreStanding::Starting)
    }

    /// The longest that a request waits for an answer.
    pub(crate) fn timeout(&self) -> Duration {
        self.config.timeout
    }

    /// The outage; `None` while the store answers, and until the first attempt to connect has ended.
    pub(crate) fn outage(&self) -> Option<StoreOutage> {
        match &*self.standing.borrow() {
            StoreStanding::Down(outage) => Some(outage.clone()),
            StoreStanding::Starting | StoreStanding::Up(_) => None,
        }
    }

    /// Runs one script, and counts the answer. `ask` sends it on the connection.
    async fn ask(
        &self,
        ask: impl AsyncFnOnce(&Link) -> Result<Value, RedisError>,
    ) -> Result<Value, NoStore> {
        let before = self.clock.elapsed();
        let answer = self.within_timeout(ask).await;
        let outcome = match answer {
            Ok(_) => LookupOutcome::Miss,
            Err(NoStore) => LookupOutcome::Error,
        };
        let took = self.clock.elapsed().saturating_sub(before);
        self.metrics.lookup(outcome, took);
        answer
    }

    async fn within_timeout(
        &self,
        ask: impl AsyncFnOnce(&Link) -> Result<Value, RedisError>,
    ) -> Result<Value, NoStore> {
        let link = self.link().await?;
        match timeout(self.config.timeout, ask(&link)).await {
            Ok(Ok(value)) => {
                link.has_answered();
                Ok(value)
            }
            Ok(Err(error)) => {
                self.give_up(&link, &said(&error));
                Err(NoStore)
            }
            Err(_late) => {
                if link.was_silent() >= MOST_SILENCES {
                    let limit = humantime::format_duration(self.config.timeout);
                    self.give_up(&link, &format!("no answer within {limit} (redis.timeout)"));
                }
                Err(NoStore)
            }
        }
    }

    /// The connection. Only while the first attempt to connect runs is there a wait.
    async fn link(&self) -> Result<Arc<Link>, NoStore> {
        let now = self.standing.borrow().clone();
        let standing = match now {
            StoreStanding::Starting => {
                let mut standing = self.standing.subscribe();
                let started =
                    |standing: &StoreStanding| !matches!(standing, StoreStanding::Starting);
                let waiting = timeout(self.config.timeout, standing.wait_for(started));
                let settled = waiting.await.map_err(|_late| NoStore)?;
                settled.map_err(|_closed| NoStore)?.clone()
            }
            settled => settled,
        };
        match standing {
            StoreStanding::Up(link) => Ok(link),
            StoreStanding::Starting | StoreStanding::Down(_) => Err(NoStore),
        }
    }

    /// Whether this is the connection in use.
    fn uses(&self, link: &Arc<Link>) -> bool {
        matches!(&*self.standing.borrow(), StoreStanding::Up(used) if Arc::ptr_eq(used, link))
    }

    /// Takes a connection into use: the server has answered on it.
    fn took_up(&self, link: Arc<Link>) {
        let mut before = StoreStanding::Up(link);
        self.standing.send_modify(|standing| {
            std::mem::swap(standing, &mut before);
            self.export(true);
        });
        match before {
            StoreStanding::Down(outage) => {
                let lasted = self.clock.elapsed().saturating_sub(outage.since);
                tracing::info!(
                    server = self.config.server.name,
                    seconds = lasted.as_secs(),
                    "the shared store answers again"
                );
            }
            StoreStanding::Starting | StoreStanding::Up(_) => {
                tracing::info!(server = self.config.server.name, "the shared store answers");
            }
        }
    }

    /// Ends a connection. All requests that wait on it end with it.
    fn give_up(&self, link: &Arc<Link>, error: &str) {
        let now = self.clock.elapsed();
        let ended = self.standing.send_if_modified(|standing| {
            let is_it = matches!(standing, StoreStanding::Up(used) if Arc::ptr_eq(used, link));
            if is_it {
                *standing = StoreStanding::Down(StoreOutage {
                    error: error.to_owned(),
                    since: now,
                });
                self.export(false);
            }
            is_it
        });
        if ended {
            link.end();
            self.warn(error);
        }
    }

    /// An attempt to connect failed.
    fn could_not_connect(&self, error: &str) {
        let now = self.clock.elapsed();
        let is_news = self.standing.send_if_modified(|standing| {
            let (since, is_news) = match standing {
                StoreStanding::Down(outage) => (outage.since, outage.error != error),
                StoreStanding::Starting | StoreStanding::Up(_) => (now, true),
            };
            *standing = StoreStanding::Down(StoreOutage {
                error: error.to_owned(),
                since,
            });
            self.export(false);
            is_news
        });
        if is_news {
            self.warn(error);
        }
    }

    /// Must be called while `standing` is locked: a connection may break while another thread takes the next one up.
    fn export(&self, up: bool) {
        self.metrics.up(up);
        self.mode.set(up);
    }

    fn warn(&self, error: &str) {
        tracing::warn!(
            server = self.config.server.name,
            error,
            "the shared store gives no answer; rate_limit.on_store_error decides"
        );
    }
}

/// Bytes as two lower-case digits each.
fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string never fails.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The driver's or the server's words, on one line and not too many.
fn said(error: &RedisError) -> String {
    let said = if error.is_connection_dropped() || error.is_timeout() {
        "the connection broke".to_owned()
    } else {
        match (error.code(), error.detail()) {
            (Some(code), Some(detail)) => format!("it answered {code} {detail}"),
            _ if error.kind() == ErrorKind::AuthenticationFailed => {
                "it refuses the login: the user or the password is wrong".to_owned()
            }
            _ => error.to_string(),
        }
    };
    let visible = said.chars().map(|character| {
        if character.is_control() {
            ' '
        } else {
            character
        }
    });
    visible.take(LONGEST_ERROR).collect()
}
