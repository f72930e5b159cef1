//! Agora's kicking-rule: the requests that make and delete a rule, and what their answers mean
//! (<https://docs.agora.io/en/api-reference/api-ref/rtc/create-ban-rule>).
//!
//! Keeps true: a rule always names a channel and a uid other than 0, since a rule without a uid would close the channel
//! to everybody; no text that comes back holds the customer secret.
//! Must not know: when a request is sent, and what follows from its answer.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::Ejection;
use crate::config::model::AgoraRest;
use crate::http::url::Url;
use crate::io::fetch::{FetchError, FetchLimits, FetchedResponse, Fetcher};

const PATH: &str = "/dev/v1/kicking-rule";

/// How long Agora may take for an answer, and how large that may be.
const LIMITS: FetchLimits = FetchLimits {
    time: Duration::from_secs(20),
    body: 64 * 1024,
};

/// How long a rule may last, in seconds.
pub(crate) const SHORTEST_RULE: u64 = 10;
const LONGEST_RULE: u64 = 86_430;

/// Characters of Agora's own words that are shown.
const SHOWN: usize = 200;

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RuleAnswer {
    /// There is a rule of this id.
    Made(u64),
    /// The rule is gone.
    Deleted,
    /// The request may succeed later; says why it didn't, and how long Agora asks to wait.
    TryAgain(String, Option<Duration>),
    /// Agora refuses the customer id or secret.
    Unauthorized(String),
    /// Agora refuses this request, and always will.
    Refused(String),
}

#[derive(Serialize)]
struct Rule<'a> {
    appid: &'a str,
    cname: &'a str,
    uid: u32,
    time_in_seconds: u64,
    privileges: [&'static str; 1],
}

#[derive(Serialize)]
struct Deletion<'a> {
    appid: &'a str,
    id: u64,
}

/// Asks for a rule that lasts `seconds`.
pub(crate) async fn make(
    fetcher: &Fetcher,
    rest: &AgoraRest,
    ejection: &Ejection,
    seconds: u64,
    now: u64,
) -> RuleAnswer {
    let rule = Rule {
        appid: &ejection.app_id,
        cname: &ejection.channel,
        uid: ejection.uid,
        time_in_seconds: seconds.clamp(SHORTEST_RULE, LONGEST_RULE),
        privileges: ["join_channel"],
    };
    if rule.uid == 0 || rule.cname.is_empty() {
        return RuleAnswer::Refused("there is no rule without a channel and a uid".to_owned());
    }
    let Some((url, headers, body)) = request(rest, &rule) else {
        return unsendable();
    };
    match fetcher.post(&url, headers, body, LIMITS).await {
        Ok(answer) if answer.status.is_success() => match id_in(&answer.body) {
            Some(id) => RuleAnswer::Made(id),
            None => RuleAnswer::TryAgain("Agora's answer names no rule".to_owned(), None),
        },
        other => unsuccessful(other, rest, now),
    }
}

/// Asks for the end of a rule.
pub(crate) async fn delete(
    fetcher: &Fetcher,
    rest: &AgoraRest,
    app_id: &str,
    rule: u64,
    now: u64,
) -> RuleAnswer {
    let deletion = Deletion {
        appid: app_id,
        id: rule,
    };
    let Some((url, headers, body)) = request(rest, &deletion) else {
        return unsendable();
    };
    match fetcher.delete(&url, headers, body, LIMITS).await {
        Ok(answer) if answer.status.is_success() || answer.status == StatusCode::NOT_FOUND => {
            RuleAnswer::Deleted
        }
        other => unsuccessful(other, rest, now),
    }
}

/// Validation lets no base URL or customer id through of which a request can't be made.
fn unsendable() -> RuleAnswer {
    RuleAnswer::Refused("no request can be made with [agora.rest]".to_owned())
}

fn request(rest: &AgoraRest, body: &impl Serialize) -> Option<(Url, HeaderMap, Bytes)> {
    let base = rest.base_url.to_string();
    let url = Url::parse(&format!("{}{PATH}", base.trim_end_matches('/'))).ok()?;
    let mut credentials = zeroize::Zeroizing::new(format!("{}:", rest.customer_id).into_bytes());
    credentials.extend_from_slice(rest.customer_secret.expose());
    let basic = zeroize::Zeroizing::new(format!("Basic {}", STANDARD.encode(&*credentials)));
    let mut basic = HeaderValue::from_str(&basic).ok()?;
    basic.set_sensitive(true);
    let json = HeaderValue::from_static("application/json");
    let headers = [
        (AUTHORIZATION, basic),
        (CONTENT_TYPE, json.clone()),
        (ACCEPT, json),
    ];
    let body = serde_json::to_vec(body).ok()?;
    Some((url, headers.into_iter().collect(), body.into()))
}

fn unsuccessful(
    answer: Result<FetchedResponse, FetchError>,
    rest: &AgoraRest,
    now: u64,
) -> RuleAnswer {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return RuleAnswer::TryAgain(error.to_string(), None),
    };
    let status = answer.status;
    let said = match words(&answer.body, rest) {
        Some(words) => format!("Agora answered {}: {words}", status.as_u16()),
        None => format!("Agora answered {}", status.as_u16()),
    };
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RuleAnswer::Unauthorized(format!(
            "{said}; check customer_id and customer_secret of [agora.rest]"
        )),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            RuleAnswer::TryAgain(said, retry_after(&answer.headers, now))
        }
        status if status.is_server_error() => {
            RuleAnswer::TryAgain(said, retry_after(&answer.headers, now))
        }
        _ => RuleAnswer::Refused(said),
    }
}

fn id_in(body: &[u8]) -> Option<u64> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    answer.get("id")?.as_u64()
}

/// Agora's own explanation, unless it repeats the secret.
fn words(body: &[u8], rest: &AgoraRest) -> Option<String> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let message = answer.get("message").or_else(|| answer.get("reason"))?;
    let message = message.as_str()?;
    let secret = rest.customer_secret.expose();
    let encoded = STANDARD.encode(secret);
    let mut windows = message.as_bytes().windows(secret.len().max(1));
    let repeats = windows.any(|window| window == secret)
        || message.contains("Basic ")
        || message.contains(encoded.trim_end_matches('='));
    (!repeats).then(|| message.chars().take(SHOWN).collect())
}

/// The seconds or the time of `Retry-After` (RFC 9110 §10.2.3).
fn retry_after(headers: &HeaderMap, now: u64) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let time = httpdate::parse_http_date(text).ok()?;
    let time = time.duration_since(UNIX_EPOCH).ok()?;
    Some(time.saturating_sub(Duration::from_secs(now)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::Secret;

    fn rest() -> AgoraRest {
        AgoraRest {
            customer_id: "id".to_owned(),
            customer_secret: Secret::new(b"hunter2".to_vec()),
            base_url: Url::parse("https://api.agora.io/").unwrap(),
        }
    }

    fn answer(status: u16, body: &'static str) -> FetchedResponse {
        FetchedResponse {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: body.into(),
        }
    }

    #[test]
    fn a_request_is_as_agora_documents_it() {
        let rule = Rule {
            appid: "a",
            cname: "live \"x\"",
            uid: 7,
            time_in_seconds: 60,
            privileges: ["join_channel"],
        };
        let (url, headers, body) = request(&rest(), &rule).unwrap();
        assert_eq!(url.to_string(), "https://api.agora.io/dev/v1/kicking-rule");
        assert_eq!(headers[AUTHORIZATION], "Basic aWQ6aHVudGVyMg==");
        let expected = r#"{"appid":"a","cname":"live \"x\"","uid":7,"time_in_seconds":60,"privileges":["join_channel"]}"#;
        assert_eq!(body, expected);
    }

    #[test]
    fn each_status_has_its_meaning() {
        let meaning = |status| unsuccessful(Ok(answer(status, "")), &rest(), 0);
        for status in [408, 429, 500, 503, 504] {
            let said = format!("Agora answered {status}");
            assert_eq!(meaning(status), RuleAnswer::TryAgain(said, None));
        }
        for status in [401, 403] {
            assert!(matches!(meaning(status), RuleAnswer::Unauthorized(_)));
        }
        for status in [302, 400, 404, 415, 422] {
            let said = format!("Agora answered {status}");
            assert_eq!(meaning(status), RuleAnswer::Refused(said));
        }
    }

    #[test]
    fn agoras_own_words_are_shown_unless_they_repeat_the_secret() {
        let said = |body| match unsuccessful(Ok(answer(400, body)), &rest(), 0) {
            RuleAnswer::Refused(said) => said,
            other => panic!("{other:?}"),
        };
        let told = said(r#"{"message":"uid is wrong"}"#);
        assert_eq!(told, "Agora answered 400: uid is wrong");
        for body in [
            r#"{"message":"you sent hunter2"}"#,
            r#"{"message":"Basic aWQ6aHVudGVyMg=="}"#,
            r#"{"reason":"aHVudGVyMg"}"#,
            "[]",
        ] {
            assert_eq!(said(body), "Agora answered 400", "{body}");
        }
    }

    #[test]
    fn the_pause_is_in_seconds_or_until_a_time() {
        let pause = |text| {
            let headers = [(RETRY_AFTER, HeaderValue::from_static(text))];
            retry_after(&headers.into_iter().collect(), 1_800_000_000)
        };
        assert_eq!(pause("7"), Some(Duration::from_secs(7)));
        let until = "Fri, 15 Jan 2027 08:01:00 GMT";
        assert_eq!(pause(until), Some(Duration::from_mins(1)));
        assert_eq!(pause("Fri, 15 Jan 2021 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(pause("soon"), None);
    }
}
