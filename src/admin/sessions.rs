//! `GET /v1/sessions`: the form of a page.
//!
//! Must not know: where sessions are kept.

use http::StatusCode;
use serde::Serialize;

use super::DaemonView;
use super::list_query::ListQuery;
use super::respond::{AdminResponse, invalid, json};

/// Some of the sessions that hold a live token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SessionPage {
    /// The sessions, in no particular order.
    pub sessions: Vec<SessionEntry>,
    /// For the next page; `None` on the last.
    pub cursor: Option<String>,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionEntry {
    /// The login's subject.
    pub subject: String,
    /// The channel.
    pub channel: String,
    /// The numeric user id, unless it is an account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The string user account, unless it is a uid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// `publisher` or `subscriber`: of the last token.
    pub role: &'static str,
    /// The subject's first token for the channel in an unbroken row, RFC 3339.
    pub first_issued: String,
    /// When the last token expires, RFC 3339.
    pub expires: String,
    /// Tokens after the first.
    pub refreshes: u16,
}

/// The cursor doesn't come from this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownCursor;

/// Answers with a page.
pub(crate) async fn answer(daemon: &dyn DaemonView, query: Option<&str>) -> AdminResponse {
    let query = match ListQuery::parse(query.unwrap_or_default()) {
        Ok(query) => query,
        Err(message) => return invalid(&message),
    };
    match daemon.sessions(query).await {
        Ok(page) => json(StatusCode::OK, &page),
        Err(UnknownCursor) => invalid(
            "cursor: unknown to this process, which may have restarted; begin again without a cursor",
        ),
    }
}
