//! `accounts.source = "mongodb"`: the document of the JWT's subject.
//!
//! Must not know: who asks.

use std::sync::Arc;

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document, RawDocument, RawDocumentBuf, doc};

use super::{Database, document, failure};
use crate::access::accounts::{Account, Denial};
use crate::access::endpoint::cleaned;
use crate::access::lookup::{Question, Source};
use crate::access::outage::Failure;
use crate::config::model::{AccountsCollection, DenyRule};
use crate::telemetry::labels::Outcome;

/// A reason's greatest length in characters: it is shown to people.
const LONGEST_REASON: usize = 500;

/// A collection of accounts.
#[derive(Debug)]
pub struct MongoAccounts {
    database: Arc<Database>,
    fields: Arc<AccountsCollection>,
}

impl MongoAccounts {
    /// Contacts nothing.
    pub fn new(database: Arc<Database>, fields: AccountsCollection) -> Self {
        Self {
            database,
            fields: Arc::new(fields),
        }
    }
}

impl Source<Account> for MongoAccounts {
    fn ask(&self, subject: &str) -> Question<Account> {
        let (database, fields) = (Arc::clone(&self.database), Arc::clone(&self.fields));
        let subject = subject.to_owned();
        Box::pin(async move {
            let found = of_subject(&database, &fields, &subject).await;
            if found.is_ok() {
                database.spoke();
            }
            Ok(match found? {
                Some(document) => account(&document, &fields),
                None => Account::Unknown,
            })
        })
    }

    fn silent(&self) {
        self.database.silent();
    }
}

async fn of_subject(
    database: &Database,
    fields: &AccountsCollection,
    subject: &str,
) -> Result<Option<RawDocumentBuf>, Failure> {
    let collection = database.collection(&fields.collection).await?;
    let mut filter = Document::new();
    filter.insert(&fields.id_field, doc! { "$in": spellings(subject) });
    collection
        .find_one(filter)
        .projection(projection(fields))
        .max_time(database.patience())
        .await
        .map_err(|error| failure(&error))
}

/// What a subject may be in a document: an `ObjectId`, a number, or itself. Always a plain value, never an operator.
fn spellings(subject: &str) -> Vec<Bson> {
    let id = ObjectId::parse_str(subject).ok().map(Bson::ObjectId);
    let number = subject.parse().ok().map(Bson::Int64);
    let text = Bson::String(subject.to_owned());
    id.into_iter().chain(number).chain([text]).collect()
}

fn projection(fields: &AccountsCollection) -> Document {
    let rules = fields
        .deny_when
        .iter()
        .flat_map(|rule| std::iter::once(&rule.field).chain(&rule.reason_field));
    let mut projection = doc! { "_id": 1 };
    for field in rules.chain(&fields.session_field) {
        // Of a path and one inside it MongoDB takes one alone.
        if !covered(&projection, field) {
            let inner: Vec<String> = projection
                .keys()
                .filter(|known| is_inside(known, field))
                .cloned()
                .collect();
            for known in inner {
                projection.remove(known);
            }
            projection.insert(field, 1);
        }
    }
    projection
}

fn covered(projection: &Document, field: &str) -> bool {
    projection
        .keys()
        .any(|known| known == field || is_inside(field, known))
}

fn is_inside(inner: &str, outer: &str) -> bool {
    inner
        .strip_prefix(outer)
        .is_some_and(|rest| rest.starts_with('.'))
}

fn account(found: &RawDocument, fields: &AccountsCollection) -> Account {
    let denying = fields
        .deny_when
        .iter()
        .find(|rule| document::any_equals(found, &rule.field, &rule.equals));
    if let Some(rule) = denying {
        return Account::Denied(denial(found, rule));
    }
    Account::Good {
        session: fields
            .session_field
            .as_deref()
            .and_then(|field| document::identifier(document::first(found, field)?)),
    }
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
    Denial {
        reason: reason.and_then(|reason| cleaned(&reason, LONGEST_REASON)),
        ..denial
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::rawdoc;

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
        let Account::Denied(denial) = account(&found, &fields()) else {
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
    fn an_account_in_good_standing_has_its_session() {
        let found = rawdoc! { "isSuspended": false, "activeSession": { "sessionId": "one" } };
        let session = Some("one".into());
        assert_eq!(account(&found, &fields()), Account::Good { session });
        let signed_out = rawdoc! { "activeSession": null };
        let session = None;
        assert_eq!(account(&signed_out, &fields()), Account::Good { session });
    }

    #[test]
    fn a_subject_is_looked_for_as_what_it_may_be() {
        assert_eq!(spellings("65f0a1b2c3d4e5f6a7b8c9d0").len(), 2);
        assert_eq!(spellings("12").len(), 2);
        assert_eq!(spellings("{\"$ne\":null}").len(), 1);
    }

    #[test]
    fn a_path_inside_another_is_asked_for_once() {
        let mut fields = fields();
        fields.session_field = Some("isSuspended.inner".into());
        fields.deny_when[0].reason_field = Some("a.b".into());
        fields.deny_when.push(DenyRule {
            field: "a".into(),
            ..fields.deny_when[0].clone()
        });
        let asked: Vec<String> = projection(&fields).keys().cloned().collect();
        assert_eq!(asked, ["_id", "isSuspended", "a"]);
    }
}
