//! `streams.source = "mongodb"`: the newest live document of a channel, else the newest.
//!
//! Must not know: who asks.

use std::sync::Arc;

use mongodb::bson::{Document, RawDocument, RawDocumentBuf, doc};

use super::presence::Presence;
use super::{Database, document, failure};
use crate::config::model::StreamsCollection;
use crate::sources::lookup::{LookupQuestion, LookupSource};
use crate::sources::observed_fields::Fields;
use crate::sources::outage::NoAnswerReason;
use crate::sources::proven::Proof;
use crate::sources::streams::{Owners, StreamState};
use crate::terms::clock::Clock;

/// A collection of streams.
#[derive(Debug)]
pub(crate) struct MongoStreams {
    database: Arc<Database>,
    fields: Arc<StreamsCollection>,
    presence: Arc<Presence>,
    read: Arc<FieldsSeen>,
}

/// What the documents have shown of their fields.
#[derive(Debug)]
pub(crate) struct FieldsSeen {
    /// Whose streams are.
    pub owners: Owners,
    /// Fields that may be missing by right.
    pub optional: Fields,
}

impl MongoStreams {
    /// Contacts nothing. `found` is what it shows that a live stream is found, `read` what its fields show.
    pub(crate) fn new(
        database: Arc<Database>,
        fields: StreamsCollection,
        found: Proof,
        read: FieldsSeen,
        clock: Clock,
    ) -> Self {
        let by = format!("{} and {}", fields.channel_field, fields.live_field);
        let presence = Presence::new(&database, &fields.collection, &by, found, clock);
        Self {
            database,
            fields: Arc::new(fields),
            presence: Arc::new(presence),
            read: Arc::new(read),
        }
    }
}

impl LookupSource<Option<Arc<StreamState>>> for MongoStreams {
    fn ask(&self, channel: &str) -> LookupQuestion<Option<Arc<StreamState>>> {
        let (database, fields) = (Arc::clone(&self.database), Arc::clone(&self.fields));
        let (presence, read) = (Arc::clone(&self.presence), Arc::clone(&self.read));
        let channel = channel.to_owned();
        Box::pin(async move {
            let found = newest_live(&database, &fields, &channel).await;
            if found.is_ok() {
                database.spoke();
            }
            if let Some(document) = found? {
                presence.found();
                return Ok(Some(read.look(&document, stream(&document, &fields)?)));
            }
            // A channel whose streams are all over is a stream's all the same: its tokens are its owner's.
            let over = newest(&database, &fields, doc! { &fields.channel_field: channel }).await?;
            let Some(document) = over else {
                presence.not_found(&database).await?;
                return Ok(None);
            };
            // "Over" is as good as "not there": where none was ever live, the field may be another.
            presence.shown()?;
            Ok(Some(read.look(&document, over_stream(&document, &fields)?)))
        })
    }

    fn silent(&self) {
        self.database.silent();
    }

    fn doubt(&self) -> Option<String> {
        let read = &self.read;
        read.owners.doubt().or_else(|| read.optional.doubt())
    }
}

impl FieldsSeen {
    fn look(&self, document: &RawDocument, mut stream: StreamState) -> Arc<StreamState> {
        self.owners.see(&mut stream);
        self.optional.read(|field| document::has(document, field));
        Arc::new(stream)
    }
}

/// A channel's name returns from stream to stream: of its documents the newest that is live counts. An `ObjectId` begins
/// with the time it was made at.
async fn newest_live(
    database: &Database,
    fields: &StreamsCollection,
    channel: &str,
) -> Result<Option<RawDocumentBuf>, NoAnswerReason> {
    // Not only `true`: another writer than mongoose may keep a number.
    let mut filter = doc! { &fields.channel_field: channel };
    filter.insert(&fields.live_field, doc! { "$in": [true, 1] });
    newest(database, fields, filter).await
}

async fn newest(
    database: &Database,
    fields: &StreamsCollection,
    filter: Document,
) -> Result<Option<RawDocumentBuf>, NoAnswerReason> {
    let collection = database.collection(&fields.collection).await?;
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
    let paths = [&fields.live_field, &fields.owner_field];
    let paths = paths.into_iter().chain(optional.into_iter().flatten());
    document::projection(paths.map(String::as_str))
}

fn stream(found: &RawDocument, fields: &StreamsCollection) -> Result<StreamState, NoAnswerReason> {
    let Some(live) = live(found, fields)? else {
        let message = format!("a stream's {} is neither true nor false", fields.live_field);
        return Err(NoAnswerReason::Wrong(message));
    };
    Ok(described(found, fields, live))
}

/// One of which the database said that it isn't live. What it may have become since is no news: who needs to know asks again.
fn over_stream(
    found: &RawDocument,
    fields: &StreamsCollection,
) -> Result<StreamState, NoAnswerReason> {
    let live = live(found, fields)?.unwrap_or(false);
    Ok(described(found, fields, live))
}

fn live(found: &RawDocument, fields: &StreamsCollection) -> Result<Option<bool>, NoAnswerReason> {
    if !document::is_sound(found) {
        return Err(NoAnswerReason::Wrong(
            "a stream's document is damaged".to_owned(),
        ));
    }
    Ok(document::first(found, &fields.live_field).and_then(document::boolean))
}

fn described(found: &RawDocument, fields: &StreamsCollection, live: bool) -> StreamState {
    let cohosts = fields.cohosts_field.as_deref();
    let banned_viewers = fields.banned_viewers_field.as_deref();
    StreamState {
        live,
        banned: fields
            .banned_field
            .as_deref()
            .is_some_and(|field| document::forbids(found, field)),
        owner: document::first(found, &fields.owner_field).and_then(document::identifier),
        owner_unknown_since: None,
        cohosts: cohosts.map_or_else(Vec::new, |field| document::identifiers(found, field)),
        banned_viewers: banned_viewers
            .map_or_else(Vec::new, |field| document::forbidden(found, field)),
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{DateTime, rawdoc};

    use super::*;

    fn fields() -> StreamsCollection {
        StreamsCollection {
            collection: "livestreams".into(),
            channel_field: "agoraChannelName".into(),
            live_field: "isLive".into(),
            owner_field: "astrologerId".into(),
            banned_field: Some("isBanned".into()),
            banned_viewers_field: Some("bannedViewers.userId".into()),
            cohosts_field: Some("guests.who".into()),
        }
    }

    #[test]
    fn fields_are_asked_for_whole() {
        let asked: Vec<String> = projection(&fields()).keys().cloned().collect();
        let whole = [
            "_id",
            "isLive",
            "astrologerId",
            "isBanned",
            "bannedViewers",
            "guests",
        ];
        assert_eq!(asked, whole);
    }

    #[test]
    fn a_stream_of_which_it_can_not_be_read_whether_it_is_live_is_no_answer() {
        let date = DateTime::from_millis(0);
        for found in [
            rawdoc! {},
            rawdoc! { "isLive": date },
            rawdoc! { "isLive": "perhaps" },
            rawdoc! { "isLive": f64::NAN },
            rawdoc! { "isLive": [] },
        ] {
            assert!(stream(&found, &fields()).is_err(), "{found:?}");
        }
    }

    #[test]
    fn what_is_odd_lets_nobody_in_whom_it_should_keep_out() {
        let date = DateTime::from_millis(0);
        let found = rawdoc! {
            "isLive": 1_i64, "astrologerId": date, "isBanned": date, "guests": ["eve"],
            "bannedViewers": ["ann", { "userId": "bob" }, { "userId": null }, 7],
        };
        let stream = stream(&found, &fields()).unwrap();
        assert!(stream.live && stream.banned);
        assert_eq!(stream.owner, None);
        // Only where the path leads: to be named elsewhere makes nobody a host.
        assert!(stream.cohosts.is_empty());
        for viewer in ["ann", "bob", "7"] {
            assert!(stream.bans(viewer), "{viewer}");
        }
    }
}
