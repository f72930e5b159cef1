//! What an operator asks: whether a subject would get a token.
//!
//! Must not know: how it is answered.

use super::super::request;
use super::super::request_fields::{BodyFields, Value};
use crate::terms::role::Role;
use crate::terms::user::User;

/// What is asked: would this subject get a token?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainQuestion {
    /// As the login names it.
    pub subject: String,
    /// The channel's name.
    pub channel: String,
    /// `None`: what the stream gives.
    pub role: Option<Role>,
    /// `None` leaves the uid unchecked.
    pub user: Option<User>,
}

impl ExplainQuestion {
    /// From `subject=…&channelName=…` and the other fields of a token request, by all their names, form-encoded. The
    /// error says which is wrong, and why.
    pub(crate) fn from_query(query: &str) -> Result<Self, String> {
        const SUBJECT: &str = "subject";
        for (name, _) in form_urlencoded::parse(query.as_bytes()) {
            if *name != *SUBJECT && !request::FIELDS.contains(&&*name) {
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
        Ok(Self {
            subject,
            channel: request.channel,
            role: request.role,
            user: Some(request.user).filter(|user| *user != User::Uid(0)),
        })
    }
}
