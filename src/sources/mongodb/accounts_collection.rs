//! `accounts.source = "mongodb"`: the document of the JWT's subject.
//!
//! Keeps true: an account that can't be read is neither denied nor in good standing.
//! Must not know: which request asks.

use std::sync::Arc;

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document, RawBsonRef, RawDocument, doc};

use super::presence::Presence;
use super::{Database, document};
use crate::config::model::{AccountsCollection, DenyRule};
use crate::sources::accounts::{Account, Denial};
use crate::sources::http::cleaned;
use crate::sources::lookup::{LookupQuestion, LookupSource};
use crate::sources::observed_fields::Fields;
use crate::sources::outage::NoAnswerReason;
use crate::sources::proven::Proof;
use crate::terms::clock::Clock;
use crate::terms::outcome::Outcome;
use crate::terms::timestamp;

/// The greatest length of a reason in characters: it is shown to users.
const LONGEST_REASON: usize = 500;

/// The field in which the current app's documents say since when an account is suspended.
const SUSPENDED_AT: &str = "suspendedAt";

/// The greatest length in characters of a time that is kept as text.
const LONGEST_TIME: usize = 64;

/// 10000-01-01, in milliseconds since the Unix epoch: a year of more than four digits isn't written.
const YEAR_10000: u64 = 253_402_300_800_000;

/// A collection of accounts.
#[derive(Debug)]
pub(crate) struct MongoAccounts {
    database: Arc<Database>,
    fields: AccountsCollection,
    presence: Presence,
    /// Fields that a document may rightly lack.
    optional: Fields,
}

impl MongoAccounts {
    /// Contacts nothing. `found` is the proof that an account was ever found.
    pub(crate) fn new(
        database: Arc<Database>,
        fields: AccountsCollection,
        found: Proof,
        optional: Fields,
        clock: Clock,
    ) -> Self {
        let (collection, id_field) = (&fields.collection, &fields.id_field);
        Self {
            presence: Presence::new(&database, collection, id_field, found, clock),
            database,
            fields,
            optional,
        }
    }
}

impl LookupSource<Account> for MongoAccounts {
    fn ask(self: Arc<Self>, subject: Box<str>) -> LookupQuestion<Account> {
        Box::pin(async move {
            let (database, fields) = (&self.database, &self.fields);
            let of_subject = doc! { &fields.id_field: { "$in": spellings(&subject) } };
            let found = database.find(&fields.collection, of_subject, None, projection(fields));
            let Some(document) = found.await? else {
                self.presence.not_found(database).await?;
                return Ok(Account::Unknown);
            };
            self.presence.found();
            self.optional.read(|field| document::has(&document, field));
            account(&document, fields)
        })
    }

    fn silent(&self) {
        self.database.silent();
    }

    fn doubt(&self) -> Option<String> {
        self.optional.doubt()
    }
}

/// The types that a subject may have in a document: an `ObjectId`, a number, or the text itself. Each is a plain value,
/// never an operator.
fn spellings(subject: &str) -> Vec<Bson> {
    let id = ObjectId::parse_str(subject).ok().map(Bson::ObjectId);
    let number = subject.parse::<i64>().ok();
    // "007" is no number as MongoDB writes them.
    let number = number.filter(|number| number.to_string() == subject);
    let number = number.map(Bson::Int64);
    let text = Bson::String(subject.to_owned());
    id.into_iter().chain(number).chain([text]).collect()
}

/// Whole fields rather than paths inside them: MongoDB takes no path beside one inside it, and some servers lose
/// paths in lists.
fn projection(fields: &AccountsCollection) -> Document {
    let rules = fields
        .deny_when
        .iter()
        .flat_map(|rule| std::iter::once(&rule.field).chain(&rule.reason_field));
    let paths = rules.chain(&fields.session_field).map(String::as_str);
    let suspends = fields.deny_when.iter().any(|rule| rule.suspends);
    document::projection(paths.chain(suspends.then_some(SUSPENDED_AT)))
}

/// The account that a document describes. A field that can't be read makes it no answer: the account is then neither
/// suspended nor in good standing.
fn account(found: &RawDocument, fields: &AccountsCollection) -> Result<Account, NoAnswerReason> {
    let unreadable =
        |field: &str| NoAnswerReason::Wrong(format!("an account's {field} is of an unknown type"));
    if !document::is_sound(found) {
        return Err(NoAnswerReason::Wrong(
            "an account's document is damaged".to_owned(),
        ));
    }
    let mut doubt = None;
    for rule in &fields.deny_when {
        match document::any_equals(found, &rule.field, &rule.equals) {
            Some(true) => return Ok(Account::Denied(denial(found, rule))),
            Some(false) => {}
            None => doubt = Some(unreadable(&rule.field)),
        }
    }
    if let Some(doubt) = doubt {
        return Err(doubt);
    }
    let Some(field) = &fields.session_field else {
        return Ok(Account::Good { session: None });
    };
    let session = match document::first(found, field) {
        None | Some(RawBsonRef::Null | RawBsonRef::Undefined | RawBsonRef::String("")) => None,
        Some(value) => Some(document::identifier(value).ok_or_else(|| unreadable(field))?),
    };
    Ok(Account::Good { session })
}

fn denial(found: &RawDocument, rule: &DenyRule) -> Denial {
    let denial = if rule.suspends {
        Denial::new(Outcome::AccountSuspended, "Account suspended")
    } else {
        Denial::new(Outcome::Unauthenticated, "This account can't sign in")
    };
    let reason = rule
        .reason_field
        .as_deref()
        .and_then(|field| document::identifier(document::first(found, field)?));
    let suspended_at = rule
        .suspends
        .then(|| time(document::first(found, SUSPENDED_AT)?))
        .flatten();
    Denial {
        reason: reason.and_then(|reason| cleaned(&reason, LONGEST_REASON)),
        suspended_at,
        ..denial
    }
}

/// A date as JavaScript writes it into JSON, or the text that is there instead.
fn time(value: RawBsonRef<'_>) -> Option<Box<str>> {
    match value {
        RawBsonRef::DateTime(time) => {
            let millis = u64::try_from(time.timestamp_millis()).ok();
            let millis = millis.filter(|millis| *millis < YEAR_10000)?;
            Some(timestamp::from_millis(millis).into())
        }
        RawBsonRef::String(text) => cleaned(text, LONGEST_TIME),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{DateTime, rawdoc};

    use mongodb::bson::RawDocumentBuf;

    use super::*;

    fn fields() -> AccountsCollection {
        AccountsCollection {
            collection: "astrologers".into(),
            id_field: "_id".into(),
            deny_when: vec![DenyRule {
                field: "isSuspended".into(),
                equals: "true".into(),
                suspends: true,
                reason_field: Some("suspensionReason".into()),
            }],
            session_field: Some("activeSession.sessionId".into()),
        }
    }

    #[test]
    fn a_suspended_account_is_denied_with_its_reason() {
        let found = rawdoc! { "isSuspended": true, "suspensionReason": "spam" };
        let Ok(Account::Denied(denial)) = account(&found, &fields()) else {
            panic!("not denied");
        };
        assert_eq!(denial.outcome, Outcome::AccountSuspended);
        assert!(
            denial.message.contains("suspend"),
            "installed clients look for it"
        );
        assert_eq!(denial.reason.as_deref(), Some("spam"));
    }

    #[test]
    fn a_suspension_says_since_when_where_the_document_does() {
        for (at, said) in [
            (
                Bson::DateTime(DateTime::from_millis(1_793_491_200_123)),
                Some("2026-11-01T00:00:00.123Z"),
            ),
            (Bson::String("last\nweek".into()), Some("last week")),
            (Bson::DateTime(DateTime::MAX), None),
            (Bson::DateTime(DateTime::from_millis(-1)), None),
            (Bson::Null, None),
            (Bson::Boolean(true), None),
        ] {
            let found = doc! { "isSuspended": true, "suspendedAt": at };
            let found = RawDocumentBuf::try_from(&found).unwrap();
            let Ok(Account::Denied(denial)) = account(&found, &fields()) else {
                panic!("not denied");
            };
            assert_eq!(denial.suspended_at.as_deref(), said);
        }
    }

    #[test]
    fn an_account_in_good_standing_has_its_session() {
        let found = rawdoc! { "isSuspended": false, "activeSession": { "sessionId": "one" } };
        let session = Some("one".into());
        assert_eq!(account(&found, &fields()), Ok(Account::Good { session }));
        let signed_out = rawdoc! { "activeSession": null };
        let session = None;
        assert_eq!(
            account(&signed_out, &fields()),
            Ok(Account::Good { session })
        );
    }

    #[test]
    fn a_subject_is_looked_for_as_what_it_may_be() {
        assert_eq!(spellings("65f0a1b2c3d4e5f6a7b8c9d0").len(), 2);
        assert_eq!(spellings("12").len(), 2);
        for text in ["+12", "012", "-0", " 12", "1e3"] {
            assert_eq!(spellings(text).len(), 1, "{text}");
        }
        assert_eq!(spellings("{\"$ne\":null}").len(), 1);
    }

    #[test]
    fn a_field_is_asked_for_once_and_whole() {
        let mut fields = fields();
        fields.session_field = Some("isSuspended.inner".into());
        fields.deny_when[0].reason_field = Some("a.b".into());
        fields.deny_when.push(DenyRule {
            field: "a".into(),
            ..fields.deny_when[0].clone()
        });
        let asked: Vec<String> = projection(&fields).keys().cloned().collect();
        assert_eq!(asked, ["_id", "isSuspended", "a", "suspendedAt"]);
    }

    #[test]
    fn an_account_that_can_not_be_read_is_neither_suspended_nor_in_good_standing() {
        let date = DateTime::from_millis(0);
        for found in [
            rawdoc! { "isSuspended": date },
            rawdoc! { "isSuspended": "perhaps" },
            rawdoc! { "isSuspended": f64::NAN },
            rawdoc! { "isSuspended": { "since": date } },
            rawdoc! { "isSuspended": [ false, date ] },
            rawdoc! { "isSuspended": false, "activeSession": { "sessionId": date } },
            rawdoc! { "isSuspended": false, "activeSession": { "sessionId": true } },
        ] {
            let answer = account(&found, &fields());
            assert!(answer.is_err(), "{found:?}: {answer:?}");
        }
        // A field that denies beyond doubt counts, whichever others can't be read.
        let mut fields = fields();
        fields.deny_when.push(DenyRule {
            field: "state".into(),
            equals: "closed".into(),
            suspends: false,
            reason_field: None,
        });
        let found = rawdoc! { "isSuspended": date, "state": "closed" };
        assert!(matches!(account(&found, &fields), Ok(Account::Denied(_))));
    }

    #[test]
    fn no_session_is_told_from_one_that_can_not_be_read() {
        for found in [
            rawdoc! {},
            rawdoc! { "activeSession": {} },
            rawdoc! { "activeSession": { "sessionId": null } },
            rawdoc! { "activeSession": { "sessionId": "" } },
            rawdoc! { "activeSession": [] },
            rawdoc! { "activeSession": "text" },
        ] {
            let signed_out = Account::Good { session: None };
            assert_eq!(account(&found, &fields()), Ok(signed_out), "{found:?}");
        }
    }
}
