//! The backend's own decision on a grant: `[authorize]`, a hook that is asked over HTTP.
//!
//! Keeps true: 2xx is a yes, 402 and 403 are a no, and every other status is no answer. A silent hook delays only the
//! first requests that wait for it. Its message is short, on one line, and never tells an installed client that an
//! account is suspended.
//! Must not know: what follows from no answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde_json::Value;

use super::http::{accepting_json, shown, unexpected};
use super::lookup::NoAnswer;
use super::outage::{NoAnswerReason, Outage, OutageAdmission};
use crate::config::model::Authorize;
use crate::io::fetch::{FetchLimits, FetchedResponse, Fetcher};
use crate::telemetry::metrics::SourceMetrics;
use crate::terms::clock::Clock;
use crate::terms::outcome::LookupOutcome;

/// The largest answer that is read; a hook has little to say.
const LARGEST_ANSWER: usize = 64 * 1024;

/// The shortest lifetime that a hook can ask for, which is the shortest of any token.
const LEAST_LIFETIME: Duration = Duration::from_mins(1);

/// The message for a no that comes without one, or with one that installed clients would misread.
const NO: &str = "Not allowed";

/// The hook, and whether it answers.
#[derive(Debug)]
pub struct Authorizer {
    hook: Authorize,
    fetcher: Fetcher,
    clock: Clock,
    metrics: Arc<SourceMetrics>,
    outage: Arc<Outage>,
}

/// The hook's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Opinion {
    /// Yes, for at most this long.
    Yes(Option<Duration>),
    /// No, with a message for users.
    No(Box<str>),
}

impl Authorizer {
    /// The configured hook. What is known of the `previous` hook is kept where its URL is the same.
    pub(crate) fn new(
        hook: &Authorize,
        previous: Option<&Self>,
        fetcher: &Fetcher,
        metrics: Arc<SourceMetrics>,
        clock: &Clock,
    ) -> Self {
        let outage = previous
            .filter(|previous| previous.hook.url == hook.url)
            .map_or_else(Arc::default, |previous| Arc::clone(&previous.outage));
        metrics.up(outage.since().is_none());
        Self {
            hook: hook.clone(),
            fetcher: fetcher.clone(),
            clock: clock.clone(),
            metrics,
            outage,
        }
    }

    /// Why the hook gives no answer; `None` while it answers.
    pub(crate) fn error(&self) -> Option<String> {
        self.outage.error()
    }

    /// When the first call failed since the last that was answered, on the clock's monotonic scale.
    pub(crate) fn down_since(&self) -> Option<Duration> {
        self.outage.since()
    }

    /// Asks the hook, within `patience` and the hook's own timeout.
    pub(crate) async fn ask(
        &self,
        question: Bytes,
        patience: Duration,
    ) -> Result<Opinion, NoAnswer> {
        let asked_at = self.clock.elapsed();
        if let OutageAdmission::Refused(since) = self.outage.admit(asked_at) {
            return Err(NoAnswer { since });
        }
        let limits = FetchLimits {
            time: self.hook.timeout.min(patience),
            body: LARGEST_ANSWER,
        };
        let mut headers = accepting_json();
        let json = HeaderValue::from_static("application/json");
        headers.insert(CONTENT_TYPE, json);
        let answer = self
            .fetcher
            .post(&self.hook.url, headers, question, limits)
            .await;
        let opinion = answer
            .map_err(NoAnswerReason::from)
            .and_then(|answer| opinion(&answer));
        let failure = opinion.as_ref().err();
        let since = self
            .outage
            .learn(failure, asked_at, "authorize", &self.metrics);
        opinion.map_err(|_| NoAnswer {
            since: since.unwrap_or(asked_at),
        })
    }

    /// Counts the outcome of a question that began at `asked_at`.
    pub(crate) fn count(&self, outcome: LookupOutcome, asked_at: Duration) {
        let elapsed = self.clock.elapsed().saturating_sub(asked_at);
        self.metrics.lookup(outcome, elapsed);
    }
}

fn opinion(answer: &FetchedResponse) -> Result<Opinion, NoAnswerReason> {
    let said = serde_json::from_slice::<Value>(&answer.body).unwrap_or(Value::Null);
    match answer.status {
        status if status.is_success() => lifetime(said.get("lifetime")).map(Opinion::Yes),
        StatusCode::PAYMENT_REQUIRED | StatusCode::FORBIDDEN => {
            let message = said.get("message").and_then(Value::as_str);
            // Installed clients show "suspended" for a 403 that says so; only the state of an account may cause that.
            let message = message
                .and_then(shown)
                .filter(|message| !message.to_lowercase().contains("suspend"));
            Ok(Opinion::No(message.unwrap_or_else(|| NO.into())))
        }
        status => Err(unexpected(status)),
    }
}

/// Seconds as a number, or a duration such as `"30m"`. A lifetime that can't be read is no answer, rather than a yes
/// without an end.
fn lifetime(value: Option<&Value>) -> Result<Option<Duration>, NoAnswerReason> {
    let lifetime = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(seconds)) => seconds
            .as_f64()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        Some(Value::String(text)) => humantime::parse_duration(text).ok(),
        Some(_) => None,
    };
    match lifetime {
        Some(lifetime) => Ok(Some(lifetime.max(LEAST_LIFETIME))),
        None => Err(NoAnswerReason::Wrong(
            "its answer has a lifetime that is neither seconds nor a duration".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn said(status: u16, body: &str) -> Result<Opinion, NoAnswerReason> {
        opinion(&FetchedResponse {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        })
    }

    #[test]
    fn a_yes_may_shorten_the_lifetime_to_a_minute_at_least() {
        for (body, seconds) in [
            ("", None),
            ("OK", None),
            ("{}", None),
            (r#"{"lifetime":null}"#, None),
            (r#"{"lifetime":900}"#, Some(900)),
            (r#"{"lifetime":900.9}"#, Some(900)),
            (r#"{"lifetime":"30m"}"#, Some(1800)),
            (r#"{"lifetime":5}"#, Some(60)),
            (r#"{"lifetime":0}"#, Some(60)),
        ] {
            let Ok(Opinion::Yes(lifetime)) = said(200, body) else {
                panic!("{body}");
            };
            assert_eq!(
                lifetime.map(|lifetime| lifetime.as_secs()),
                seconds,
                "{body}"
            );
        }
    }

    #[test]
    fn a_lifetime_that_can_not_be_read_is_no_yes() {
        for value in ["-1", "1e300", "\"soon\"", "true", "[]"] {
            assert!(
                said(200, &format!("{{\"lifetime\":{value}}}")).is_err(),
                "{value}"
            );
        }
    }

    #[test]
    fn a_no_says_why_in_one_short_line() {
        let no = |body: &str| match said(403, body) {
            Ok(Opinion::No(message)) => String::from(message),
            other => panic!("{other:?}"),
        };
        assert_eq!(no(r#"{"message":"No credits left"}"#), "No credits left");
        assert_eq!(no("{\"message\":\"a\\r\\nb\\u0000c\\u202ed\"}"), "a  b c d");
        let long = format!("{{\"message\":\"{}\"}}", "x".repeat(500));
        assert_eq!(no(&long).len(), 200);
        for body in [
            "",
            "no",
            "{}",
            "[]",
            r#"{"message":7}"#,
            r#"{"message":" "}"#,
        ] {
            assert_eq!(no(body), NO, "{body}");
        }
        assert_eq!(no(r#"{"message":"Subscription SUSPENDED"}"#), NO);
        assert!(matches!(said(402, ""), Ok(Opinion::No(_))));
    }

    #[test]
    fn anything_else_is_no_answer() {
        for status in [301, 400, 401, 404, 429, 500, 503] {
            assert!(said(status, "{}").is_err(), "{status}");
        }
    }
}
