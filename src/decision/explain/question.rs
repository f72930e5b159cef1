//! The operator's question: whether a subject would get a token.
//!
//! Must not know: how it is answered.

use super::super::request::{self, TokenRequest};
use super::super::request_fields::{BodyFields, Value};

/// The operator's question: would this subject get this token?
#[derive(Debug, PartialEq)]
pub struct ExplainQuestion {
    /// The subject, as a login names it.
    pub subject: String,
    /// The request that the subject would make. Uid 0 leaves the uid unchecked.
    pub request: TokenRequest,
}

impl ExplainQuestion {
    /// The question of a query: `subject=…&channelName=…` and the other fields of a token request under all their
    /// names, form-encoded. The error names the field that is wrong, and says why.
    pub(crate) fn from_query(query: &str) -> Result<Self, String> {
        const SUBJECT: &str = "subject";
        for (name, _) in form_urlencoded::parse(query.as_bytes()) {
            if *name != *SUBJECT && !request::is_field(&name) {
                return Err(format!(
                    "{name}: unknown; there are subject, channel, role, uid and account"
                ));
            }
        }
        let fields = BodyFields::from_form(query.as_bytes())?;
        let subject = match fields.get(SUBJECT) {
            Some(Value::Text(subject)) if !subject.is_empty() => subject.clone(),
            _ => return Err("subject: required, whose login it is about".to_owned()),
        };
        let request = request::interpret(&fields)?;
        Ok(Self { subject, request })
    }
}
