//! Whether a collection is the one that the operator means: only then is a document that isn't found in it missing.
//!
//! Keeps true: "there is none" is an answer only from a collection that isn't empty and in which something was found
//! under the present configuration: a mistyped name, another database or a dropped collection would otherwise refuse
//! every caller at once.
//! Must not know: what a document says.

use std::time::Duration;

use mongodb::bson::doc;
use parking_lot::Mutex;

use super::Database;
use crate::sources::outage::NoAnswerReason;
use crate::sources::proven::Proof;
use crate::terms::clock::Clock;

/// How long a collection counts as empty: it fills when the app starts, or when a backup is restored.
const EMPTY: Duration = Duration::from_secs(5);

/// How long a collection counts as not empty. A document that is found ends this: what isn't found afterwards may be
/// the first to be missing.
const NOT_EMPTY: Duration = Duration::from_mins(1);

/// The knowledge of one collection.
#[derive(Debug)]
pub(super) struct Presence {
    collection: String,
    /// The collection with its database, for the log.
    place: String,
    /// The field by which documents are found.
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
    /// The presence of a collection whose documents are found by `field`; `found` is the proof that one was.
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

    /// Notes that a document was found.
    pub(super) fn found(&self) {
        self.found.give();
        self.looked.lock().take();
    }

    /// Whether it is an answer that nothing was found. Call this after the question, since it asks another.
    pub(super) async fn not_found(&self, database: &Database) -> Result<(), NoAnswerReason> {
        if self.is_empty(database).await? {
            let place = &self.place;
            let message = format!("the collection {place} is empty, or there is none of that name");
            return Err(NoAnswerReason::Wrong(message));
        }
        self.shown()
    }

    /// Whether a document was ever found; the error says that none was.
    pub(super) fn shown(&self) -> Result<(), NoAnswerReason> {
        if self.found.holds() {
            return Ok(());
        }
        Err(NoAnswerReason::Wrong(format!(
            "nothing has ever been found in {} by its {}: the database, collection or field may be wrong",
            self.place, self.field
        )))
    }

    async fn is_empty(&self, database: &Database) -> Result<bool, NoAnswerReason> {
        let now = self.clock.elapsed();
        let known = *self.looked.lock();
        if let Some(known) = known {
            let holds = if known.empty { EMPTY } else { NOT_EMPTY };
            if now.saturating_sub(known.at) < holds {
                return Ok(known.empty);
            }
        }
        let any = database.find(&self.collection, doc! {}, None, doc! { "_id": 1 });
        let empty = any.await?.is_none();
        *self.looked.lock() = Some(CollectionLook { empty, at: now });
        Ok(empty)
    }
}
