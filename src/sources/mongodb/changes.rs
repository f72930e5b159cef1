//! Change streams, where the server has them: what changed is asked for again at once rather than within `cache_ttl`.
//!
//! Keeps true: this only ever forgets answers; without change streams, or while they are lost, the time to live
//! applies alone. The task ends when its cache is gone.
//! Must not know: what is cached.

use std::sync::{Arc, Weak};
use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::change_stream::event::ChangeStreamEvent;
use mongodb::options::FullDocumentType;
use tokio::time::{sleep, timeout};

use super::{Database, document, kind};
use crate::sources::lookup::Lookups;

/// The time from one loss to the next try.
const AGAIN: Duration = Duration::from_secs(2);

/// The time from one try to the next where the server has no change streams: it may become a replica set.
const NOT_THERE: Duration = Duration::from_mins(1);

/// A change stream is lost when nothing came for this long.
const SILENCE: Duration = Duration::from_secs(15);

/// `$changeStream` on a server that isn't a replica set (`Location40573`), and where the command is unknown.
const UNSUPPORTED: [i32; 3] = [40573, 59, 303];

/// Follows a collection until `cache` is gone. `key` is the field whose value is the cache's key.
pub(crate) async fn follow<T: Send + Sync + 'static>(
    database: Arc<Database>,
    collection: String,
    key: String,
    cache: Weak<Lookups<T>>,
) {
    let mut known_unsupported = false;
    while cache.strong_count() > 0 {
        let pause = match watch(&database, &collection, &key, &cache).await {
            Ok(()) => AGAIN,
            Err(error) if is_unsupported(&error) => {
                if !known_unsupported {
                    tracing::info!(
                        collection,
                        "this MongoDB has no change streams: changes are seen within cache_ttl"
                    );
                }
                known_unsupported = true;
                NOT_THERE
            }
            Err(error) => {
                tracing::debug!(collection, error = %kind(&error), "the change stream is lost");
                AGAIN
            }
        };
        // What changed in between isn't known.
        if let Some(cache) = cache.upgrade() {
            cache.invalidate(None);
        }
        let mut waited = Duration::ZERO;
        while waited < pause && cache.strong_count() > 0 {
            sleep(AGAIN).await;
            waited += AGAIN;
        }
    }
}

async fn watch<T: Send + Sync + 'static>(
    database: &Database,
    collection: &str,
    key: &str,
    cache: &Weak<Lookups<T>>,
) -> mongodb::error::Result<()> {
    let Ok(collection) = database.collection(collection).await else {
        return Ok(());
    };
    // Only little of each document is asked for, because live streams are updated every few seconds.
    let mut shown = doc! { "operationType": 1, "documentKey": 1 };
    shown.insert(format!("fullDocument.{key}"), 1);
    let mut changes = collection
        .watch()
        .pipeline([doc! { "$project": shown }])
        .full_document(FullDocumentType::UpdateLookup)
        .max_await_time(Duration::from_secs(1))
        .await?
        .with_type::<ChangeStreamEvent<Document>>();
    match cache.upgrade() {
        Some(cache) => cache.invalidate(None),
        None => return Ok(()),
    }
    while changes.is_alive() {
        // The server replies at least once a second, if only to say that nothing changed: a connection that vanished
        // silently is found here sooner than by TCP.
        let next = timeout(SILENCE, changes.next_if_any()).await;
        let change = next.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
        let Some(cache) = cache.upgrade() else {
            return Ok(());
        };
        if let Some(change) = change {
            cache.invalidate(changed_key(&change, key).as_deref());
        }
    }
    Ok(())
}

/// The key of what changed; `None` where the event doesn't say, as for a removed document.
fn changed_key(change: &ChangeStreamEvent<Document>, key: &str) -> Option<Box<str>> {
    let whole = change.full_document.as_ref();
    let document = match key {
        "_id" => change.document_key.as_ref().or(whole),
        _ => whole,
    }?;
    let raw = mongodb::bson::RawDocumentBuf::try_from(document).ok()?;
    document::identifier(document::first(&raw, key)?)
}

fn is_unsupported(error: &mongodb::error::Error) -> bool {
    match &*error.kind {
        mongodb::error::ErrorKind::Command(command) => UNSUPPORTED.contains(&command.code),
        _ => false,
    }
}
