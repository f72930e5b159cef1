//! The database that the backend writes: its records of streams and accounts, read with its own schema.
//!
//! Keeps true: renewd only reads, and from the primary; a client is made without a connection, so that a database
//! that is down or a name that doesn't resolve delays no start; a client that stays silent is replaced, since its
//! pool may be full of questions that get no reply.
//! Must not know: what an answer leads to.

mod accounts_collection;
mod changes;
mod document;
mod presence;
mod streams_collection;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mongodb::action::{Action as _, FindOne};
use mongodb::bson::{Document, RawDocumentBuf};
use mongodb::options::{ClientOptions, ConnectionString, ReadPreference, SelectionCriteria};
use mongodb::{Client, Collection};
use parking_lot::Mutex;

use super::http::cleaned;
use super::outage::NoAnswerReason;
use crate::config::model::Mongodb;
pub(crate) use accounts_collection::MongoAccounts;
pub(crate) use changes::follow;
pub(crate) use streams_collection::MongoStreams;

/// How many questions in a row may go without reply before the client is replaced. The circuit breaker asks a silent
/// database once a second.
const MOST_SILENCES: u32 = 8;

/// The rest of a question's time when the driver gives up choosing a server and the server gives up working: time to
/// report why, before the request stops waiting. At most a tenth of the time.
const TO_SAY_WHY: Duration = Duration::from_millis(250);

/// The code of `MaxTimeMSExpired`, which a server answers when the time for a question is over.
const TIME_IS_OVER: i32 = 50;

/// The most connections to each server; with single flight and caches few are needed.
const POOL: u32 = 32;

/// One database. It is shared as an `Arc`, since its pool is shared.
pub(crate) struct Database {
    config: Mongodb,
    state: Mutex<MongoState>,
}

#[derive(Default)]
struct MongoState {
    client: Option<Client>,
    silences: u32,
}

impl Database {
    /// Contacts nothing.
    pub(crate) fn new(config: Mongodb) -> Self {
        Self {
            config,
            state: Mutex::default(),
        }
    }

    /// The servers, without credentials: a changed password doesn't make it another database.
    pub(crate) fn hosts(&self) -> String {
        let uri = String::from_utf8_lossy(self.config.uri.expose());
        let (_scheme, rest) = uri.split_once("://").unwrap_or(("", &uri));
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let (_user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        hosts.to_owned()
    }

    /// As configured.
    pub(crate) fn config(&self) -> &Mongodb {
        &self.config
    }

    /// A collection, by a client that is made when it is first needed.
    async fn collection(&self, name: &str) -> Result<Collection<RawDocumentBuf>, NoAnswerReason> {
        let known = self.state.lock().client.clone();
        let client = if let Some(client) = known {
            client
        } else {
            let made = self.connect().await?;
            self.state.lock().client.get_or_insert(made).clone()
        };
        Ok(client.database(&self.config.database).collection(name))
    }

    /// The first document of a collection that the filter finds, in the order of `sort`, with the fields of
    /// `projection`.
    async fn find(
        &self,
        collection: &str,
        filter: Document,
        sort: Option<Document>,
        projection: Document,
    ) -> Result<Option<RawDocumentBuf>, NoAnswerReason> {
        let collection = self.collection(collection).await?;
        let found = collection
            .find_one(filter)
            .optional(sort, FindOne::sort)
            .projection(projection)
            .max_time(self.patience())
            .await?;
        self.state.lock().silences = 0;
        Ok(found)
    }

    /// Resolves `mongodb+srv://`; connections come with the first question.
    async fn connect(&self) -> Result<Client, NoAnswerReason> {
        let uri = String::from_utf8_lossy(self.config.uri.expose());
        // The errors of `ConnectionString::parse` (mongodb 3.9) may quote the string, so they are not passed on.
        let string = ConnectionString::parse(uri.as_ref())
            .map_err(|_| NoAnswerReason::Wrong("the connection string isn't valid".to_owned()))?;
        let mut options = ClientOptions::parse(string).await.map_err(|error| {
            NoAnswerReason::Silent(format!("its name can't be resolved: {}", kind(&error)))
        })?;
        let timeout = self.config.timeout;
        options.app_name.get_or_insert_with(|| "renewd".to_owned());
        options.server_selection_timeout = Some(self.patience());
        options.connect_timeout.get_or_insert(timeout);
        options.max_pool_size = Some(options.max_pool_size.unwrap_or(POOL).clamp(1, POOL));
        // The app writes to the primary; a secondary may lag behind it.
        options.selection_criteria =
            Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        Client::with_options(options).map_err(|error| {
            NoAnswerReason::Wrong(format!("no client can be made: {}", kind(&error)))
        })
    }

    /// Notes that a question got no reply in time.
    pub(crate) fn silent(&self) {
        let mut state = self.state.lock();
        state.silences += 1;
        if state.silences >= MOST_SILENCES {
            // Questions that still wait on the old client end by themselves, or never; the next question gets a new
            // client.
            *state = MongoState::default();
        }
    }

    /// How long the driver may look for a server, and the server work on one question.
    fn patience(&self) -> Duration {
        let timeout = self.config.timeout;
        timeout.saturating_sub(TO_SAY_WHY.min(timeout / 10))
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Database").finish_non_exhaustive()
    }
}

impl From<mongodb::error::Error> for NoAnswerReason {
    /// Tells a server that refuses from one that says nothing.
    fn from(error: mongodb::error::Error) -> Self {
        use mongodb::error::ErrorKind;
        match &*error.kind {
            ErrorKind::Command(refused) if refused.code == TIME_IS_OVER => {
                Self::Silent(kind(&error))
            }
            ErrorKind::Command(_)
            | ErrorKind::BsonDeserialization(_)
            | ErrorKind::InvalidResponse { .. } => Self::Wrong(kind(&error)),
            _ => Self::Silent(kind(&error)),
        }
    }
}

/// The driver's words, on one line and not too many.
fn kind(error: &mongodb::error::Error) -> String {
    const MOST: usize = 300;
    cleaned(&error.kind.to_string(), MOST).map_or_else(String::new, String::from)
}

/// The previous database where its configuration is the same, else a new one.
pub(crate) fn carried(
    config: Option<&Mongodb>,
    previous: Option<&Arc<Database>>,
) -> Option<Arc<Database>> {
    let config = config?;
    Some(match previous {
        Some(previous) if previous.config == *config => Arc::clone(previous),
        _ => Arc::new(Database::new(config.clone())),
    })
}
