//! Builds the sources of one configuration.
//!
//! Keeps true: a source whose own part of the configuration is unchanged is carried over from the previous snapshot,
//! so that a reload forgets no answer and no outage.
//! Must not know: what is asked.

use std::sync::Arc;
use std::time::Duration;

use super::{Control, Snapshot, StreamsRead};
use crate::config::model::{
    AccountsCollection, AccountsSource, Config, HTTP_PATIENCE, StreamsCollection, StreamsHttp,
    StreamsSource,
};
use crate::sources::accounts::{Account, ConfiguredAccounts, SessionCheck};
use crate::sources::authorize::Authorizer;
use crate::sources::http::{HttpAccounts, HttpStreams};
use crate::sources::lookup::{LookupQuestion, LookupSource, LookupTerms, Lookups};
use crate::sources::mongodb::{Database, MongoAccounts, MongoStreams, follow};
use crate::sources::observed_fields::Fields;
use crate::sources::outage::NoAnswerReason;
use crate::sources::proven::{Proof, Proven};
use crate::sources::streams::{ConfiguredStreams, Owners, StreamSource, StreamState, StreamTable};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traffic_labels::SourceLabel;
use crate::terms::clock::Clock;

/// A source that isn't configured and never answers.
struct Nowhere;

impl LookupSource<Account> for Nowhere {
    fn ask(self: Arc<Self>, _subject: Box<str>) -> LookupQuestion<Account> {
        let failure = NoAnswerReason::Wrong("[mongodb] is missing".to_owned());
        Box::pin(std::future::ready(Err(failure)))
    }
}

/// A collection with its database, for the log.
fn place(database: &Database, collection: &str) -> String {
    format!("{}.{collection}", database.config().database)
}

/// The material that sources are made of.
pub(super) struct Sources<'a> {
    pub(super) config: &'a Config,
    pub(super) database: Option<&'a Arc<Database>>,
    pub(super) proven: &'a Arc<Proven>,
    pub(super) previous: Option<&'a Snapshot>,
    pub(super) metrics: &'a Metrics,
    pub(super) clock: &'a Clock,
    pub(super) control: &'a Control,
}

impl Sources<'_> {
    pub(super) fn accounts(&self) -> ConfiguredAccounts {
        let accounts = &self.config.accounts;
        let carried = self
            .previous
            .filter(|previous| {
                previous.config.accounts.source == accounts.source
                    && previous.config.cookie == self.config.cookie
                    && previous.config.jwt.subject_claim == self.config.jwt.subject_claim
                    && previous.config.accounts.cache_ttl == accounts.cache_ttl
                    && self.same_database(previous)
            })
            .and_then(|previous| previous.accounts.lookups())
            .map(Arc::clone);
        match (&accounts.source, self.database) {
            (AccountsSource::None, _) => ConfiguredAccounts::None,
            // Validation requires `[mongodb]`. Should it be missing, requests must fail rather than skip the
            // accounts.
            (AccountsSource::Mongodb(_), None) => ConfiguredAccounts::BySubject {
                session: None,
                lookups: self.account_lookups(HTTP_PATIENCE, Arc::new(Nowhere)),
            },
            (AccountsSource::Mongodb(collection), Some(database)) => {
                ConfiguredAccounts::BySubject {
                    session: self.session_check(database, collection),
                    lookups: carried.unwrap_or_else(|| {
                        let source = MongoAccounts::new(
                            Arc::clone(database),
                            collection.clone(),
                            self.accounts_found(database, collection, &[]),
                            self.accounts_fields(database, collection),
                            self.clock.clone(),
                        );
                        let lookups =
                            self.account_lookups(database.config().timeout, Arc::new(source));
                        self.control.runtime.spawn(follow(
                            Arc::clone(database),
                            collection.collection.clone(),
                            collection.id_field.clone(),
                            Arc::downgrade(&lookups),
                        ));
                        lookups
                    }),
                }
            }
            (AccountsSource::Http(url), _) => {
                ConfiguredAccounts::ByCredentials(carried.unwrap_or_else(|| {
                    let source = HttpAccounts {
                        fetcher: self.control.fetcher.clone(),
                        url: url.clone(),
                        cookie: self.config.cookie.clone(),
                    };
                    self.account_lookups(HTTP_PATIENCE, Arc::new(source))
                }))
            }
        }
    }

    pub(super) fn authorizer(&self) -> Option<Authorizer> {
        let hook = self.config.authorize.as_ref()?;
        let previous = self
            .previous
            .and_then(|previous| previous.authorizer.as_ref());
        let metrics = self.metrics.source(SourceLabel::Authorize);
        let fetcher = &self.control.fetcher;
        Some(Authorizer::new(
            hook, previous, fetcher, metrics, self.clock,
        ))
    }

    pub(super) fn streams(&self, read: StreamsRead) -> ConfiguredStreams {
        let streams = &self.config.streams;
        let carried = self
            .previous
            .filter(|previous| {
                previous.config.streams.source == streams.source
                    && previous.config.streams.cache_ttl == streams.cache_ttl
                    && self.same_database(previous)
            })
            .and_then(|previous| match previous.streams.source() {
                StreamSource::Asked(lookups) => Some(Arc::clone(lookups)),
                StreamSource::Table(_) => None,
            });
        let source = match (&streams.source, self.database) {
            (StreamsSource::Mongodb(collection), Some(database)) => {
                StreamSource::Asked(carried.unwrap_or_else(|| {
                    let source = MongoStreams::new(
                        Arc::clone(database),
                        collection.clone(),
                        self.streams_found(database, collection),
                        self.stream_owners(database, collection),
                        self.stream_fields(database, collection),
                        self.clock.clone(),
                    );
                    let lookups = self.stream_lookups(database.config().timeout, Arc::new(source));
                    self.control.runtime.spawn(follow(
                        Arc::clone(database),
                        collection.collection.clone(),
                        collection.channel_field.clone(),
                        Arc::downgrade(&lookups),
                    ));
                    lookups
                }))
            }
            (StreamsSource::Http(http), _) => StreamSource::Asked(carried.unwrap_or_else(|| {
                let source = HttpStreams {
                    fetcher: self.control.fetcher.clone(),
                    endpoint: http.clone(),
                    owners: self.owners_told(http),
                };
                self.stream_lookups(HTTP_PATIENCE, Arc::new(source))
            })),
            (StreamsSource::File(_) | StreamsSource::Mongodb(_), _) => {
                StreamSource::Table(self.table(read))
            }
        };
        ConfiguredStreams::new(source, self.metrics.source(SourceLabel::Streams))
    }

    /// The proof that accounts are found; with `more`, of a fact beyond that.
    fn accounts_found(
        &self,
        database: &Database,
        collection: &AccountsCollection,
        more: &[&str],
    ) -> Proof {
        let parts = [
            "accounts",
            &database.hosts(),
            &database.config().database,
            &collection.collection,
            &collection.id_field,
            &self.config.jwt.subject_claim,
        ];
        self.proven.proof(&[&parts[..], more].concat())
    }

    fn session_check(
        &self,
        database: &Database,
        collection: &AccountsCollection,
    ) -> Option<SessionCheck> {
        let field = collection.session_field.as_deref()?;
        let claim = &self.config.jwt.session_claim;
        Some(SessionCheck {
            place: format!("{}: {field}", place(database, &collection.collection)),
            matched: self.accounts_found(database, collection, &[field, claim]),
        })
    }

    fn streams_found(&self, database: &Database, collection: &StreamsCollection) -> Proof {
        self.proven.proof(&[
            "streams",
            &database.hosts(),
            &database.config().database,
            &collection.collection,
            &collection.channel_field,
            &collection.live_field,
        ])
    }

    /// Observes which configured fields the documents have.
    fn stream_fields(&self, database: &Database, collection: &StreamsCollection) -> Fields {
        let place = place(database, &collection.collection);
        let shown = |field: &str| self.shown("streams field", database, &place, field);
        let mut optional = Fields::new("streams", place.clone(), self.clock.clone());
        for (key, field) in [
            ("streams.banned_field", &collection.banned_field),
            (
                "streams.banned_viewers_field",
                &collection.banned_viewers_field,
            ),
            ("streams.cohosts_field", &collection.cohosts_field),
        ] {
            if let Some(field) = field {
                optional.add(key, field, shown(field));
            }
        }
        optional
    }

    fn stream_owners(&self, database: &Database, collection: &StreamsCollection) -> Owners {
        let place = place(database, &collection.collection);
        let owner = &collection.owner_field;
        Owners::new(
            "streams.owner_field",
            format!("{place}: {owner}"),
            self.shown("streams owner", database, &place, owner),
            self.clock.clone(),
        )
    }

    fn owners_told(&self, http: &StreamsHttp) -> Owners {
        let (before, after) = &http.url;
        let named = ["http streams owner", before, after, &http.owner_pointer];
        Owners::new(
            "streams.owner_pointer",
            http.owner_pointer.clone(),
            self.proven.proof(&named),
            self.clock.clone(),
        )
    }

    fn accounts_fields(&self, database: &Database, collection: &AccountsCollection) -> Fields {
        let place = place(database, &collection.collection);
        let mut fields = Fields::new("accounts", place.clone(), self.clock.clone());
        for rule in &collection.deny_when {
            let seen = self.shown("accounts field", database, &place, &rule.field);
            fields.add("accounts.deny_when", &rule.field, seen);
        }
        fields
    }

    /// The proof that a document has a field.
    fn shown(&self, what: &str, database: &Database, place: &str, field: &str) -> Proof {
        let parts = [what, &database.hosts(), place, field];
        self.proven.proof(&parts)
    }

    fn table(&self, read: StreamsRead) -> StreamTable {
        let now = self.clock.elapsed();
        let known = self
            .previous
            .and_then(|previous| match previous.streams.source() {
                StreamSource::Table(table) => Some(table),
                StreamSource::Asked(_) => None,
            });
        match read {
            StreamsRead::Table(entries) => StreamTable::new(entries),
            StreamsRead::Invalid => StreamTable::invalid(known, now),
            StreamsRead::Unreadable => StreamTable::unreadable(known, now),
        }
    }

    fn account_lookups(
        &self,
        deadline: Duration,
        source: Arc<dyn LookupSource<Account>>,
    ) -> Arc<Lookups<Account>> {
        let ttl = self.config.accounts.cache_ttl;
        self.lookups(SourceLabel::Accounts, deadline, ttl, source)
    }

    fn stream_lookups(
        &self,
        deadline: Duration,
        source: Arc<dyn LookupSource<Option<Arc<StreamState>>>>,
    ) -> Arc<Lookups<Option<Arc<StreamState>>>> {
        let ttl = self.config.streams.cache_ttl;
        self.lookups(SourceLabel::Streams, deadline, ttl, source)
    }

    fn lookups<T: Send + Sync + 'static>(
        &self,
        label: SourceLabel,
        deadline: Duration,
        ttl: Duration,
        source: Arc<dyn LookupSource<T>>,
    ) -> Arc<Lookups<T>> {
        let name = label.as_str();
        Arc::new(Lookups::new(
            &LookupTerms {
                name,
                deadline,
                ttl,
            },
            source,
            self.control.runtime.clone(),
            self.clock.clone(),
            self.metrics.source(label),
        ))
    }

    /// Whether the database is the previous snapshot's.
    fn same_database(&self, previous: &Snapshot) -> bool {
        match (self.database, &previous.database) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        }
    }
}
