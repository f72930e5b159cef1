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
        self.known_or(async || {
            let any = database.find(&self.collection, doc! {}, None, doc! { "_id": 1 });
            Ok(any.await?.is_none())
        })
        .await
    }

    /// Whether the collection is empty, by the last look while that counts, else by `look`.
    async fn known_or(
        &self,
        look: impl AsyncFnOnce() -> Result<bool, NoAnswerReason>,
    ) -> Result<bool, NoAnswerReason> {
        let now = self.clock.elapsed();
        let known = *self.looked.lock();
        if let Some(known) = known {
            let holds = if known.empty { EMPTY } else { NOT_EMPTY };
            if now.saturating_sub(known.at) < holds {
                return Ok(known.empty);
            }
        }
        let empty = look().await?;
        *self.looked.lock() = Some(CollectionLook { empty, at: now });
        Ok(empty)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sources::proven::Proven;

    fn presence(clock: &Clock) -> Presence {
        Presence {
            collection: "astrologers".to_owned(),
            place: "live.astrologers".to_owned(),
            field: "_id".to_owned(),
            found: Arc::new(Proven::default()).proof(&["found"]),
            clock: clock.clone(),
            looked: Mutex::default(),
        }
    }

    /// What is said of the collection when a look would find it so; whether there was a look.
    async fn said(presence: &Presence, empty: bool) -> (bool, bool) {
        let mut looked = false;
        let said = presence.known_or(async || {
            looked = true;
            Ok(empty)
        });
        (said.await.unwrap(), looked)
    }

    #[tokio::test]
    async fn empty_is_believed_for_five_seconds_and_not_empty_for_a_minute() {
        for (empty, seconds) in [(true, 5), (false, 60)] {
            let clock = Clock::manual(1_800_000_000);
            let presence = presence(&clock);
            assert_eq!(said(&presence, empty).await, (empty, true));
            clock.advance(Duration::from_millis(seconds * 1000 - 1));
            assert_eq!(said(&presence, !empty).await, (empty, false));
            clock.advance(Duration::from_millis(1));
            assert_eq!(said(&presence, !empty).await, (!empty, true));
        }
    }

    #[tokio::test]
    async fn a_document_that_is_found_and_a_look_without_an_answer_leave_nothing_known() {
        let presence = presence(&Clock::manual(1_800_000_000));
        assert_eq!(said(&presence, false).await, (false, true));
        presence.found();
        let silent = async || Err(NoAnswerReason::Silent("no reply".to_owned()));
        assert!(presence.known_or(silent).await.is_err());
        assert_eq!(said(&presence, true).await, (true, true));
    }
}
