//! Whether a collection is the one that is meant: what isn't found in it is only then not there.
//!
//! Keeps true: "there is none" is an answer only of a collection in which something was found under the present
//! configuration, and which isn't empty: a name mistyped, another database or a collection dropped would else refuse
//! everybody at once.
//! Must not know: what a document says.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mongodb::bson::doc;

use super::Database;
use crate::sources::outage::NoAnswerReason;
use crate::sources::proven::Proof;
use crate::terms::clock::Clock;

/// How long a collection counts as empty: it fills when the app starts, or its backup is restored.
const EMPTY: Duration = Duration::from_secs(5);

/// How long it counts as not empty, unless something is found in the meantime: then what isn't may be the first that is
/// missing.
const NOT_EMPTY: Duration = Duration::from_mins(1);

/// What is known of one collection.
#[derive(Debug)]
pub(super) struct Presence {
    collection: String,
    /// With its database, for the log.
    place: String,
    /// By what documents are found.
    field: String,
    found: Proof,
    clock: Clock,
    looked: Mutex<Option<CollectionLook>>,
}

/// A look at the whole collection.
#[derive(Clone, Copy, Debug)]
struct CollectionLook {
    empty: bool,
    /// When it began, on the clock's monotonic scale.
    at: Duration,
}

impl Presence {
    /// The presence of a collection whose documents are found by `field`; `found` is what finding one shows.
    pub(super) fn new(
        database: &Database,
        collection: &str,
        field: &str,
        found: Proof,
        clock: Clock,
    ) -> Self {
        Self {
            collection: collection.to_owned(),
            place: format!("{}.{collection}", database.config().database),
            field: field.to_owned(),
            found,
            clock,
            looked: Mutex::default(),
        }
    }

    /// Something was found.
    pub(super) fn found(&self) {
        self.found.give();
        self.looked().take();
    }

    /// Nothing was found: whether that is an answer. Call it after the question, for it asks another.
    pub(super) async fn not_found(&self, database: &Database) -> Result<(), NoAnswerReason> {
        if self.is_empty(database).await? {
            let place = &self.place;
            let message = format!("the collection {place} is empty, or there is none of that name");
            return Err(NoAnswerReason::Wrong(message));
        }
        self.shown()
    }

    /// Whether anything was ever found.
    pub(super) fn shown(&self) -> Result<(), NoAnswerReason> {
        if self.found.holds() {
            return Ok(());
        }
        Err(NoAnswerReason::Wrong(format!(
            "nothing has ever been found in {} by its {}: it may be another database, collection or field than the backend's",
            self.place, self.field
        )))
    }

    async fn is_empty(&self, database: &Database) -> Result<bool, NoAnswerReason> {
        let now = self.clock.elapsed();
        let known = *self.looked();
        if let Some(known) = known {
            let holds = if known.empty { EMPTY } else { NOT_EMPTY };
            if now.saturating_sub(known.at) < holds {
                return Ok(known.empty);
            }
        }
        let any = database.find(&self.collection, doc! {}, None, doc! { "_id": 1 });
        let empty = any.await?.is_none();
        *self.looked() = Some(CollectionLook { empty, at: now });
        Ok(empty)
    }

    fn looked(&self) -> MutexGuard<'_, Option<CollectionLook>> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
