//! Endpoints of the backend that say what streams and accounts are, asked over HTTP.
//!
//! Keeps true: only a status that means yes or no is an answer; redirects, errors, malformed and oversized bodies are
//! none. A channel's name is one segment of the URL, whatever characters it has.
//! Must not know: which request asks, or what an answer leads to.

use std::fmt::Write as _;
use std::sync::Arc;

use http::header::{ACCEPT, AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;

use super::accounts::{Account, Denial};
use super::lookup::{LookupQuestion, LookupSource};
use super::outage::NoAnswerReason;
use super::streams::{Owners, StreamState};
use crate::config::model::{HTTP_PATIENCE, StreamsHttp};
use crate::http::url::Url;
use crate::io::fetch::{FetchError, FetchLimits, FetchedResponse, Fetcher};
use crate::telemetry::escape::deceives;
use crate::terms::outcome::Outcome;

/// The time and the bytes that one question may take. The size is twice that of a stream with ten thousand banned
/// viewers.
const LIMITS: FetchLimits = FetchLimits {
    time: HTTP_PATIENCE,
    body: 1024 * 1024,
};

/// The greatest length of a message in characters: it is shown to users.
const LONGEST_MESSAGE: usize = 200;

/// `streams.source = "http"`.
#[derive(Debug)]
pub(crate) struct HttpStreams {
    pub(crate) fetcher: Fetcher,
    pub(crate) endpoint: StreamsHttp,
    /// Whether the endpoint has ever said whose a stream is.
    pub(crate) owners: Owners,
}

/// `accounts.source = "http"`: each question carries the caller's own credentials.
#[derive(Debug)]
pub(crate) struct HttpAccounts {
    pub(crate) fetcher: Fetcher,
    pub(crate) url: Url,
    /// `auth.cookie`: where logins may come in a cookie, the backend looks for the credentials there too.
    pub(crate) cookie: Option<String>,
}

// === impl HttpStreams ===

impl LookupSource<Option<Arc<StreamState>>> for HttpStreams {
    fn ask(self: Arc<Self>, channel: Box<str>) -> LookupQuestion<Option<Arc<StreamState>>> {
        Box::pin(async move {
            let (before, after) = &self.endpoint.url;
            let url = Url::parse(&format!("{before}{}{after}", EncodedSegment(&channel)))
                .map_err(|error| NoAnswerReason::Wrong(error.to_string()))?;
            let mut headers = accepting_json();
            headers.extend(self.endpoint.headers.iter().cloned());
            let answer = self.fetcher.get(&url, headers, LIMITS).await?;
            match answer.status {
                StatusCode::NOT_FOUND => Ok(None),
                StatusCode::OK => {
                    let json = serde_json::from_slice(&answer.body)
                        .map_err(|_| NoAnswerReason::Wrong("its answer isn't JSON".to_owned()))?;
                    let mut stream = stream(&json, &self.endpoint)?;
                    self.owners.see(&mut stream);
                    Ok(Some(Arc::new(stream)))
                }
                status => Err(unexpected(status)),
            }
        })
    }

    fn doubt(&self) -> Option<String> {
        self.owners.doubt()
    }
}

/// Reads a stream where the pointers lead. Whether it is live must be said; an owner may be missing.
fn stream(json: &Value, endpoint: &StreamsHttp) -> Result<StreamState, NoAnswerReason> {
    let at = |pointer: &Option<String>| json.pointer(pointer.as_deref()?);
    let live = json
        .pointer(&endpoint.live_pointer)
        .and_then(Value::as_bool)
        .ok_or_else(|| {
            NoAnswerReason::Wrong(format!(
                "its answer has no true or false at {}",
                endpoint.live_pointer
            ))
        })?;
    let listed = |pointer: &Option<String>| -> Result<Vec<Box<str>>, NoAnswerReason> {
        match (at(pointer), pointer) {
            (Some(Value::Array(elements)), _) => {
                Ok(elements.iter().filter_map(identifier).collect())
            }
            (None | Some(Value::Null), _) | (_, None) => Ok(Vec::new()),
            // A list that can't be read may name this viewer.
            (_, Some(pointer)) => Err(NoAnswerReason::Wrong(format!(
                "what its answer has at {pointer} is no list"
            ))),
        }
    };
    Ok(StreamState {
        live,
        // A value that can't be read counts as a ban.
        banned: at(&endpoint.banned_pointer)
            .is_some_and(|value| !value.is_null() && value.as_bool() != Some(false)),
        owner: json.pointer(&endpoint.owner_pointer).and_then(identifier),
        owner_unknown_since: None,
        cohosts: listed(&endpoint.cohosts_pointer)?,
        banned_viewers: listed(&endpoint.banned_viewers_pointer)?,
    })
}

/// A string or a whole number, as the JWT's subject is written; of an object its `userId`, `_id` or `id`, which may
/// itself be the whole user, as mongoose populates it.
fn identifier(value: &Value) -> Option<Box<str>> {
    plain_identifier(value)
        .or_else(|| plain_identifier(inner(value)?))
        .or_else(|| plain_identifier(inner(inner(value)?)?))
}

fn inner(value: &Value) -> Option<&Value> {
    let members = value.as_object()?;
    let mut names = ["userId", "_id", "id"].into_iter();
    names.find_map(|name| members.get(name))
}

fn plain_identifier(value: &Value) -> Option<Box<str>> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.as_str().into()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string().into()),
        _ => None,
    }
}

// === impl HttpAccounts ===

impl HttpAccounts {
    fn headers(&self, credentials: &str) -> HeaderMap {
        let bearer = (AUTHORIZATION, format!("Bearer {credentials}"));
        let cookie = self.cookie.as_ref();
        let cookie = cookie.map(|name| (COOKIE, format!("{name}={credentials}")));
        let mut headers = accepting_json();
        for (name, text) in std::iter::once(bearer).chain(cookie) {
            if let Ok(mut value) = HeaderValue::try_from(text) {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        }
        headers
    }
}

impl LookupSource<Account> for HttpAccounts {
    fn ask(self: Arc<Self>, credentials: Box<str>) -> LookupQuestion<Account> {
        Box::pin(async move {
            let headers = self.headers(&credentials);
            account(&self.fetcher.get(&self.url, headers, LIMITS).await?)
        })
    }
}

/// 2xx is yes; the messages of 401 and 403 are relayed.
fn account(answer: &FetchedResponse) -> Result<Account, NoAnswerReason> {
    let denial = match answer.status {
        status if status.is_success() => return Ok(Account::Good { session: None }),
        StatusCode::UNAUTHORIZED => Denial::new(Outcome::Unauthenticated, "Sign in again"),
        StatusCode::FORBIDDEN => Denial::new(
            Outcome::AccountSuspended,
            "This account is not allowed to do this",
        ),
        status => return Err(unexpected(status)),
    };
    let said = serde_json::from_slice::<Value>(&answer.body).unwrap_or(Value::Null);
    let text = |name: &str| said.get(name).and_then(Value::as_str).and_then(shown);
    Ok(Account::Denied(Denial {
        message: text("message").unwrap_or(denial.message),
        reason: text("reason"),
        suspended_at: text("suspendedAt"),
        outcome: denial.outcome,
    }))
}

/// A foreign message, short and on one line.
pub(crate) fn shown(text: &str) -> Option<Box<str>> {
    cleaned(text, LONGEST_MESSAGE)
}

/// At most `most` characters of a foreign text, on one line; `None` where nothing is left.
pub(crate) fn cleaned(text: &str, most: usize) -> Option<Box<str>> {
    // Two of the invisible characters join letters in many scripts, Hindi's among them.
    let joins = |character| matches!(character, '\u{200c}' | '\u{200d}');
    let harmless = |character: char| match character {
        _ if joins(character) || !deceives(character) => character,
        _ => ' ',
    };
    let cleaned: String = text.chars().map(harmless).take(most).collect();
    let cleaned = cleaned.trim();
    (!cleaned.is_empty()).then(|| cleaned.into())
}

/// The header fields of a question that is answered in JSON.
pub(super) fn accepting_json() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))])
}

/// A status that says neither yes nor no.
pub(super) fn unexpected(status: StatusCode) -> NoAnswerReason {
    NoAnswerReason::Wrong(format!("it answered {}", status.as_u16()))
}

impl From<FetchError> for NoAnswerReason {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Garbled | FetchError::TooLarge(_) => Self::Wrong(error.to_string()),
            _ => Self::Silent(error.to_string()),
        }
    }
}

/// Percent-encodes all but unreserved characters (RFC 3986 §2.3), and dots too where they would be a dot segment.
struct EncodedSegment<'s>(&'s str);

impl std::fmt::Display for EncodedSegment<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dots = self.0.bytes().all(|byte| byte == b'.');
        for byte in self.0.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
                    formatter.write_char(char::from(byte))?;
                }
                b'.' if !dots => formatter.write_char('.')?,
                _ => write!(formatter, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;

    fn endpoint() -> StreamsHttp {
        StreamsHttp {
            url: ("http://h/streams/".into(), String::new()),
            live_pointer: "/data/isLive".into(),
            owner_pointer: "/data/owner".into(),
            banned_pointer: Some("/data/banned".into()),
            banned_viewers_pointer: Some("/data/bannedViewers".into()),
            cohosts_pointer: None,
            headers: Vec::new(),
        }
    }

    fn answer(status: u16, body: &'static str) -> FetchedResponse {
        FetchedResponse {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn a_channel_is_one_segment_whatever_is_in_it() {
        for (channel, encoded) in [
            ("live_65f", "live_65f"),
            ("a/b?c#d", "a%2Fb%3Fc%23d"),
            ("..", "%2E%2E"),
            ("a.b", "a.b"),
            ("50% {x}", "50%25%20%7Bx%7D"),
        ] {
            assert_eq!(EncodedSegment(channel).to_string(), encoded);
        }
    }

    #[test]
    fn a_stream_is_read_where_the_pointers_lead() {
        let said =
            json!({"data": {"isLive": true, "owner": 12, "bannedViewers": ["a", {"userId": "b"}]}});
        let stream = stream(&said, &endpoint()).unwrap();
        assert!(stream.live && !stream.banned);
        assert_eq!(stream.owner.as_deref(), Some("12"));
        assert_eq!(*stream.banned_viewers, ["a", "b"].map(Box::<str>::from));
    }

    #[test]
    fn a_banned_viewer_is_found_in_every_shape_and_what_is_no_list_is_no_answer() {
        let banned = |list: Value| {
            let said = json!({"data": {"isLive": true, "bannedViewers": list}});
            stream(&said, &endpoint()).map(|stream| stream.banned_viewers)
        };
        let user = json!({"_id": "b", "name": "Bo"});
        let all =
            banned(json!(["a", user, {"userId": user}, {"userId": 7}, {"id": "c"}, null, {}]));
        let found = ["a", "b", "b", "7", "c"].map(Box::<str>::from);
        assert_eq!(all.unwrap(), found);
        assert!(banned(Value::Null).unwrap().is_empty());
        for odd in [json!("a"), json!({"a": true}), json!(true), json!(7)] {
            assert!(banned(odd.clone()).is_err(), "{odd}");
        }
    }

    #[test]
    fn an_answer_that_does_not_say_whether_it_is_live_is_none() {
        for said in [json!({}), json!({"data": {"isLive": "yes"}}), json!([])] {
            assert!(stream(&said, &endpoint()).is_err(), "{said}");
        }
    }

    #[test]
    fn what_the_backend_says_of_an_account_is_relayed() {
        assert!(matches!(
            account(&answer(204, "")),
            Ok(Account::Good { .. })
        ));
        let Ok(Account::Denied(denial)) = account(&answer(
            403,
            r#"{"message":"Account\nsuspended","reason":"spam","suspendedAt":"2026-11-01T00:00:00.000Z"}"#,
        )) else {
            panic!("not denied");
        };
        assert_eq!(denial.outcome, Outcome::AccountSuspended);
        assert_eq!(&*denial.message, "Account suspended");
        assert_eq!(denial.reason.as_deref(), Some("spam"));
        let at = denial.suspended_at.as_deref();
        assert_eq!(at, Some("2026-11-01T00:00:00.000Z"));
        for status in [302, 404, 429, 500] {
            assert!(account(&answer(status, "{}")).is_err(), "{status}");
        }
    }
}
