//! `streams.source = "mongodb"`: the newest live document of a channel.
//!
//! Must not know: who asks.

use std::sync::Arc;

use mongodb::bson::{Document, RawDocument, RawDocumentBuf, doc};

use super::{Database, document, failure};
use crate::access::lookup::{Question, Source};
use crate::access::outage::Failure;
use crate::access::streams::Stream;
use crate::config::model::StreamsCollection;

/// A collection of streams.
#[derive(Debug)]
pub struct MongoStreams {
    database: Arc<Database>,
    fields: Arc<StreamsCollection>,
}

impl MongoStreams {
    /// Contacts nothing.
    pub fn new(database: Arc<Database>, fields: StreamsCollection) -> Self {
        Self {
            database,
            fields: Arc::new(fields),
        }
    }
}

impl Source<Option<Arc<Stream>>> for MongoStreams {
    fn ask(&self, channel: &str) -> Question<Option<Arc<Stream>>> {
        let (database, fields) = (Arc::clone(&self.database), Arc::clone(&self.fields));
        let channel = channel.to_owned();
        Box::pin(async move {
            let found = newest_live(&database, &fields, &channel).await;
            if found.is_ok() {
                database.spoke();
            }
            Ok(found?.map(|document| Arc::new(stream(&document, &fields))))
        })
    }

    fn silent(&self) {
        self.database.silent();
    }
}

/// A channel's name returns from stream to stream: of its documents the newest that is live counts. An `ObjectId` begins
/// with the time it was made at.
async fn newest_live(
    database: &Database,
    fields: &StreamsCollection,
    channel: &str,
) -> Result<Option<RawDocumentBuf>, Failure> {
    let collection = database.collection(&fields.collection).await?;
    // Not only `true`: another writer than mongoose may keep a number.
    let mut filter = doc! { &fields.channel_field: channel };
    filter.insert(&fields.live_field, doc! { "$in": [true, 1] });
    collection
        .find_one(filter)
        .sort(doc! { "_id": -1 })
        .projection(projection(fields))
        .max_time(database.patience())
        .await
        .map_err(|error| failure(&error))
}

fn projection(fields: &StreamsCollection) -> Document {
    let optional = [
        &fields.banned_field,
        &fields.banned_viewers_field,
        &fields.cohosts_field,
    ];
    let mut projection = doc! { &fields.live_field: 1, &fields.owner_field: 1 };
    for field in optional.into_iter().flatten() {
        projection.insert(field, 1);
    }
    projection
}

fn stream(found: &RawDocument, fields: &StreamsCollection) -> Stream {
    let listed = |field: &Option<String>| {
        field
            .as_deref()
            .map(|field| document::identifiers(found, field))
            .unwrap_or_default()
    };
    Stream {
        live: document::first(found, &fields.live_field).and_then(document::boolean) == Some(true),
        banned: fields
            .banned_field
            .as_deref()
            .is_some_and(|field| document::forbids(found, field)),
        owner: document::first(found, &fields.owner_field).and_then(document::identifier),
        cohosts: listed(&fields.cohosts_field),
        banned_viewers: listed(&fields.banned_viewers_field),
    }
}
