//! The operator's question: whether a subject would get a token.
//!
//! Must not know: how it is answered.

use super::super::request::{self, TokenRequest};
use super::super::request_fields::{BodyFields, Value};

/// The operator's question: would this subject get this token?
#[derive(Debug, PartialEq)]
pub struct ExplainQuestion {
    /// The subject, as a login names it; empty for a socket without a login.
    pub subject: String,
    /// Whether it is about a token that the backend sends over a socket.
    pub socket: bool,
    /// The request that the subject would make. Uid 0 leaves the uid unchecked.
    pub request: TokenRequest,
}

impl ExplainQuestion {
    /// The question of a query: `subject=…&channelName=…` and the other fields of a token request under all their
    /// names, form-encoded. The error names the field that is wrong, and says why.
    pub(crate) fn from_query(query: &str) -> Result<Self, String> {
        const SUBJECT: &str = "subject";
        const SOCKET: &str = "socket";
        let mut socket = false;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match (&*name, &*value) {
                (SUBJECT, _) => {}
                (SOCKET, "true" | "false") => socket = value == "true",
                (SOCKET, _) => return Err("socket: true or false".to_owned()),
                (name, "") if request::CHANNEL.contains(&name) => {
                    return Err(format!(
                        "{name}: must not be empty; give the channel's name, 1 to 64 of the characters that Agora allows"
                    ));
                }
                _ if request::is_field(&name) => {}
                _ => {
                    return Err(format!(
                        "{name}: unknown; there are subject, channel, role, uid, account and socket"
                    ));
                }
            }
        }
        let fields = BodyFields::from_form(query.as_bytes())?;
        let subject = match fields.get(SUBJECT) {
            Some(Value::Text(subject)) if !subject.is_empty() => subject.clone(),
            None if socket => String::new(),
            _ => return Err("subject: required, whose login it is about".to_owned()),
        };
        let request = request::interpret(&fields).map_err(|error| {
            // The apps' requests say channelName, and a question to explain says channel.
            match error.strip_prefix("channelName: ") {
                Some(error) => format!("channel: {error}"),
                None => error,
            }
        })?;
        Ok(Self {
            subject,
            socket,
            request,
        })
    }
}
