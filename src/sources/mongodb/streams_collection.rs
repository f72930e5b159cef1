//! `streams.source = "mongodb"`: of a channel's documents, the newest that is live, or else the newest.
//!
//! Keeps true: a ban or an owner that can't be read never lets a caller in.
//! Must not know: which request asks.

use std::sync::Arc;

use mongodb::bson::{Document, RawDocument, RawDocumentBuf, doc};

use super::presence::Presence;
use super::{Database, document};
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
    fields: StreamsCollection,
    presence: Presence,
    /// Whether its documents have ever said whose a stream is.
    owners: Owners,
    /// Fields that a document may rightly lack.
    optional: Fields,
}

impl MongoStreams {
    /// Contacts nothing. `found` is the proof that a live stream was ever found.
    pub(crate) fn new(
        database: Arc<Database>,
        fields: StreamsCollection,
        found: Proof,
        owners: Owners,
        optional: Fields,
        clock: Clock,
    ) -> Self {
        let by = format!("{} and {}", fields.channel_field, fields.live_field);
        Self {
            presence: Presence::new(&database, &fields.collection, &by, found, clock),
            database,
            fields,
            owners,
            optional,
        }
    }

    /// The newest document that the filter finds: an `ObjectId` begins with the time it was made at.
    async fn newest(&self, filter: Document) -> Result<Option<RawDocumentBuf>, NoAnswerReason> {
        let (collection, projection) = (&self.fields.collection, projection(&self.fields));
        let newest_first = Some(doc! { "_id": -1 });
        self.database
            .find(collection, filter, newest_first, projection)
            .await
    }

    fn read(
        &self,
        document: &RawDocument,
        is_over: bool,
    ) -> Result<Arc<StreamState>, NoAnswerReason> {
        let mut stream = stream(document, &self.fields, is_over)?;
        self.owners.see(&mut stream);
        self.optional.read(|field| document::has(document, field));
        Ok(Arc::new(stream))
    }
}

impl LookupSource<Option<Arc<StreamState>>> for MongoStreams {
    fn ask(self: Arc<Self>, channel: Box<str>) -> LookupQuestion<Option<Arc<StreamState>>> {
        Box::pin(async move {
            // Streams reuse a channel's name: of its documents the newest that is live counts. `isLive` may
            // be a number where another writer than mongoose keeps it.
            let of_channel = doc! { &self.fields.channel_field: &*channel };
            let mut live = of_channel.clone();
            live.insert(&self.fields.live_field, doc! { "$in": [true, 1] });
            if let Some(document) = self.newest(live).await? {
                self.presence.found();
                return self.read(&document, false).map(Some);
            }
            // A channel whose streams are all over still belongs to a stream: its tokens are the owner's.
            let Some(document) = self.newest(of_channel).await? else {
                self.presence.not_found(&self.database).await?;
                return Ok(None);
            };
            // Where no stream was ever found live, `live_field` may be wrong, and "over" would refuse every caller.
            self.presence.shown()?;
            self.read(&document, true).map(Some)
        })
    }

    fn silent(&self) {
        self.database.silent();
    }

    fn doubt(&self) -> Option<String> {
        self.owners.doubt().or_else(|| self.optional.doubt())
    }
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

/// `is_over`: the database said that the stream isn't live, so that a value which is neither true nor false says so
/// too.
fn stream(
    found: &RawDocument,
    fields: &StreamsCollection,
    is_over: bool,
) -> Result<StreamState, NoAnswerReason> {
    if !document::is_sound(found) {
        let message = "a stream's document is damaged";
        return Err(NoAnswerReason::Wrong(message.to_owned()));
    }
    let live = document::first(found, &fields.live_field).and_then(document::boolean);
    let live = live.or(is_over.then_some(false)).ok_or_else(|| {
        let field = &fields.live_field;
        NoAnswerReason::Wrong(format!("a stream's {field} is neither true nor false"))
    })?;
    let cohosts = fields.cohosts_field.as_deref();
    let banned_viewers = fields.banned_viewers_field.as_deref();
    Ok(StreamState {
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
    })
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
            assert!(stream(&found, &fields(), false).is_err(), "{found:?}");
        }
    }

    #[test]
    fn odd_documents_let_no_subject_in_that_they_should_keep_out() {
        let date = DateTime::from_millis(0);
        let found = rawdoc! {
            "isLive": 1_i64, "astrologerId": date, "isBanned": date, "guests": ["eve"],
            "bannedViewers": ["ann", { "userId": "bob" }, { "userId": null }, 7],
        };
        let stream = stream(&found, &fields(), false).unwrap();
        assert!(stream.live && stream.banned);
        assert_eq!(stream.owner, None);
        // Only the configured path counts: a subject that is named elsewhere isn't a host.
        assert!(stream.cohosts.is_empty());
        for viewer in ["ann", "bob", "7"] {
            assert!(stream.bans(viewer), "{viewer}");
        }
    }
}
