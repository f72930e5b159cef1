//! `GET /v1/sessions`: the query, and the form of a page.
//!
//! Keeps true: an answer is bounded by its `limit`; an unknown parameter is refused, because a misspelt filter would
//! list all sessions.
//! Must not know: where sessions are kept.

use http::StatusCode;
use serde::Serialize;

use super::DaemonView;
use super::respond::{AdminResponse, error, json};

/// Sessions on a page without `limit`.
const DEFAULT_LIMIT: usize = 100;

/// Sessions on a page at most: some 250 KB of JSON.
const MOST: usize = 1000;

/// Which sessions are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionQuery {
    /// Only this channel's.
    pub channel: Option<String>,
    /// Only this subject's.
    pub subject: Option<String>,
    /// The most sessions on the page, 1 to 1000.
    pub limit: usize,
    /// The cursor of the page before.
    pub cursor: Option<String>,
}

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
    let query = match parse(query.unwrap_or_default()) {
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

fn invalid(message: &str) -> AdminResponse {
    error(StatusCode::BAD_REQUEST, "invalid_request", message)
}

fn parse(query: &str) -> Result<SessionQuery, String> {
    let mut parsed = SessionQuery {
        channel: None,
        subject: None,
        limit: DEFAULT_LIMIT,
        cursor: None,
    };
    let mut limit = None;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let place = match &*name {
            "channel" => &mut parsed.channel,
            "subject" => &mut parsed.subject,
            "cursor" => &mut parsed.cursor,
            "limit" => &mut limit,
            _ => {
                return Err(format!(
                    "{name}: unknown; the parameters are channel, subject, limit and cursor"
                ));
            }
        };
        if place.replace(value.into_owned()).is_some() {
            return Err(format!("{name}: given twice"));
        }
    }
    if let Some(limit) = limit {
        parsed.limit = limit
            .parse()
            .ok()
            .filter(|limit| (1..=MOST).contains(limit))
            .ok_or_else(|| format!("limit: must be a number from 1 to {MOST}"))?;
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_to_list() {
        let nothing = parse("").unwrap();
        assert_eq!((nothing.limit, nothing.cursor), (100, None));
        let all = parse("channel=live_a%2Bb+c&subject=%C3%A9&limit=1000&cursor=0f").unwrap();
        assert_eq!(all.channel.as_deref(), Some("live_a+b c"));
        assert_eq!(all.subject.as_deref(), Some("é"));
        assert_eq!((all.limit, all.cursor.as_deref()), (1000, Some("0f")));
    }

    #[test]
    fn what_is_unknown_doubled_or_out_of_bounds_is_refused_by_name() {
        for (query, named) in [
            ("chanel=x", "chanel: unknown"),
            ("subject=a&subject=b", "subject: given twice"),
            ("limit=0", "limit: "),
            ("limit=1001", "limit: "),
            ("limit=-1", "limit: "),
            ("limit=", "limit: "),
        ] {
            let refused = parse(query).unwrap_err();
            assert!(refused.starts_with(named), "{query}: {refused}");
        }
    }
}
