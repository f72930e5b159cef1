//! `/v1/revocations`: the forms of its answers.
//!
//! Keeps true: a change that is in force but not written is answered 507, never 201 or 200.
//! Must not know: where revocations are kept.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};
use http_body::Body;
use serde::Serialize;

use super::DaemonView;
use super::list_query::ListQuery;
use super::respond::{self, AdminResponse, error, invalid, json};
use super::routes::json_body;

/// Some of the revocations in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RevocationPage {
    /// The revocations, the latest first.
    pub revocations: Vec<RevocationEntry>,
    /// For the next page; `None` on the last.
    pub cursor: Option<String>,
}

/// One revocation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RevocationEntry {
    /// The revocation's name: 32 hexadecimal digits.
    pub id: String,
    /// The subject that it names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The channel that it names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The uid that it names in the channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The string user account that it names in the channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The subjects that held this uid or account when it was revoked, and are refused in the channel as well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<String>,
    /// When it was made, RFC 3339.
    pub created: String,
    /// When it is over, RFC 3339.
    pub until: String,
    /// The operator's note.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// How far the removal of its users from their channels is; `None` where this process removes none of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejections: Option<EjectionStatus>,
}

/// How far the removal of users from their channels is: tokens of each state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EjectionStatus {
    /// Their rules are to be made.
    pub pending: u64,
    /// Their rules are made.
    pub done: u64,
    /// Agora refused their rules, or took them in no time that would still have helped.
    pub failed: u64,
    /// Tokens for uid 0 or a string user account.
    pub not_possible: u64,
    /// Their rules were not needed any more.
    pub dropped: u64,
    /// The last error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A revocation that is in force.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Revoked {
    /// The revocation.
    #[serde(flatten)]
    pub revocation: RevocationEntry,
    /// Whether it survives a restart; `false` also where no state directory is configured.
    pub durable: bool,
    /// The tokens that were issued before and that Agora accepts until they expire.
    pub outstanding: OutstandingTokens,
    /// Why it could not be written to the state directory.
    #[serde(skip)]
    pub not_written: Option<String>,
}

/// Tokens that can't be recalled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OutstandingTokens {
    /// How many.
    pub count: u64,
    /// When the last of them expires, RFC 3339.
    pub last_expires: Option<String>,
    /// Some of them: at most a hundred.
    pub tokens: Vec<OutstandingToken>,
}

/// A token that can't be recalled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OutstandingToken {
    /// The holder.
    pub subject: String,
    /// The channel.
    pub channel: String,
    /// The uid that the token is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The string user account that the token is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// `publisher` or `subscriber`.
    pub role: &'static str,
    /// When it expires, RFC 3339.
    pub expires: String,
}

/// A revocation that is over before its time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Lifted {
    /// The revocation.
    #[serde(flatten)]
    pub revocation: RevocationEntry,
    /// Whether the change survives a restart.
    pub durable: bool,
    /// Why it could not be written to the state directory.
    #[serde(skip)]
    pub not_written: Option<String>,
}

/// The result of asking for a page; the error says what is wrong with the query.
pub type RevocationsResult = Result<RevocationPage, String>;

/// Why nothing was revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokeError {
    /// The request is wrong; says which field, and why.
    Invalid(String),
    /// As many are in force as there may be; says what to do.
    Full(String),
    /// Something else, such as no random number for its name.
    Failed(String),
}

/// Answers a request for the list or for a new revocation.
pub(super) async fn all<B>(
    daemon: Arc<dyn DaemonView>,
    method: &Method,
    query: Option<&str>,
    headers: &HeaderMap,
    body: B,
) -> AdminResponse
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if *method != Method::POST {
        return list(&*daemon, query);
    }
    let body = match json_body(headers, body, "a JSON object").await {
        Ok(body) => body,
        Err((status, code, message)) => return error(status, code, &message),
    };
    // A task of its own, so that the change is finished even if the client disconnects.
    let revoking = tokio::spawn(async move { daemon.revoke(&body).await });
    match revoking.await {
        Ok(Ok(revoked)) => changed(
            StatusCode::CREATED,
            &revoked,
            revoked.not_written.as_deref(),
        ),
        Ok(Err(RevokeError::Invalid(message))) => invalid(&message),
        Ok(Err(RevokeError::Full(message))) => error(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_revocations",
            &message,
        ),
        Ok(Err(RevokeError::Failed(message))) => internal(&message),
        Err(panicked) => internal(&panicked.to_string()),
    }
}

/// Answers a request for one revocation.
pub(super) async fn one(daemon: Arc<dyn DaemonView>, method: &Method, id: &str) -> AdminResponse {
    let unknown = || {
        let message = "there is no revocation in force of this id";
        error(StatusCode::NOT_FOUND, "not_found", message)
    };
    if *method != Method::DELETE {
        return match daemon.revocation(id) {
            Some(entry) => json(StatusCode::OK, &entry),
            None => unknown(),
        };
    }
    let id = id.to_owned();
    let lifting = tokio::spawn(async move { daemon.lift(&id).await });
    match lifting.await {
        Ok(Some(lifted)) => changed(StatusCode::OK, &lifted, lifted.not_written.as_deref()),
        Ok(None) => unknown(),
        Err(panicked) => internal(&panicked.to_string()),
    }
}

fn list(daemon: &dyn DaemonView, query: Option<&str>) -> AdminResponse {
    let page =
        ListQuery::parse(query.unwrap_or_default()).and_then(|query| daemon.revocations(&query));
    match page {
        Ok(page) => json(StatusCode::OK, &page),
        Err(message) => invalid(&message),
    }
}

/// The answer to a change.
#[derive(Serialize)]
struct ChangeBody<'a, T> {
    success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(flatten)]
    change: &'a T,
}

/// Answers a change that is in force. `not_written` says why it would not survive a restart.
fn changed(
    status: StatusCode,
    change: &impl Serialize,
    not_written: Option<&str>,
) -> AdminResponse {
    let message = not_written.map(|why| {
        format!(
            "this is in force, but is not written to the state directory ({why}); renewd tries again, and forgets it \
             if it stops before"
        )
    });
    let body = ChangeBody {
        success: message.is_none(),
        code: message.as_ref().map(|_| "state_not_written"),
        message,
        change,
    };
    let status = not_written.map_or(status, |_| StatusCode::INSUFFICIENT_STORAGE);
    json(status, &body)
}

fn internal(message: &str) -> AdminResponse {
    tracing::error!(error = message, "a change of the revocations has failed");
    respond::error(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal_error",
        "the change has failed; see the log",
    )
}
