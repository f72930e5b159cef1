//! When the next request may be sent to Agora, as far as the answers to earlier ones decide that.
//!
//! Keeps true: after a failure there is a pause, which doubles with each failure that follows one; Agora's own
//! `Retry-After` is waited for; refused credentials are tried again once they are changed, and seldom otherwise.
//! Must not know: what is sent, and how many requests a second are allowed.

use std::time::Duration;

use crate::config::model::AgoraRest;

/// The pause after a first failure, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// No `Retry-After` is waited for longer.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);

/// How often refused credentials are tried again.
pub(crate) const SELDOM: Duration = Duration::from_mins(10);

/// The pause before the repetition of a request that has failed so many times before.
pub(crate) fn pause_after(failures: u32) -> Duration {
    let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
    FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE)
}

/// The state of the way to Agora. Times are on the clock's monotonic scale.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    /// Failures since the last answer, of which those in one pause count once.
    failures: u32,
    paused_until: Duration,
    refused: Option<Refused>,
}

/// Credentials that Agora refuses.
#[derive(Debug)]
struct Refused {
    rest: AgoraRest,
    until: Duration,
}

impl Backoff {
    /// Whether a request may be sent now; if not, how long to wait.
    pub(crate) fn may_send(&self, rest: &AgoraRest, now: Duration) -> Result<(), Duration> {
        let refused = self.refused.as_ref();
        let refused = refused.filter(|refused| refused.rest == *rest);
        let until = refused.map_or(Duration::ZERO, |refused| refused.until);
        let until = until.max(self.paused_until);
        if now < until {
            return Err(until.saturating_sub(now));
        }
        Ok(())
    }

    /// A request is sent: with refused credentials it is the one attempt for a while.
    pub(crate) fn begins(&mut self, rest: &AgoraRest, now: Duration) {
        match &mut self.refused {
            Some(refused) if refused.rest == *rest => refused.until = now + SELDOM,
            _ => self.refused = None,
        }
    }

    /// Agora has answered a request, and not with a failure of its own.
    pub(crate) fn answered(&mut self) {
        self.failures = 0;
        self.refused = None;
    }

    /// A request that was sent at `sent` has failed, and Agora may have asked for a pause.
    pub(crate) fn failed(&mut self, sent: Duration, now: Duration, retry_after: Option<Duration>) {
        let pause = pause_after(self.failures);
        // A request that was under way when the pause began tells nothing new.
        if sent >= self.paused_until {
            self.failures = self.failures.saturating_add(1);
            self.paused_until = self.paused_until.max(now + pause);
        }
        if let Some(asked) = retry_after {
            let asked = asked.min(LONGEST_RETRY_AFTER);
            self.paused_until = self.paused_until.max(now + asked);
        }
    }

    /// Agora refuses these credentials. Gives whether that is news.
    pub(crate) fn unauthorized(&mut self, rest: &AgoraRest, now: Duration) -> bool {
        let known = self.refused.as_ref();
        let is_news = known.is_none_or(|refused| refused.rest != *rest);
        if is_news {
            self.refused = Some(Refused {
                rest: rest.clone(),
                until: now + SELDOM,
            });
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::Secret;
    use crate::http::url::Url;

    fn rest(secret: &str) -> AgoraRest {
        AgoraRest {
            customer_id: "id".to_owned(),
            customer_secret: Secret::new(secret.as_bytes().to_vec()),
            base_url: Url::parse("https://api.agora.io").unwrap(),
        }
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn pauses_double_with_each_failure_that_follows_one_and_end_with_an_answer() {
        let (mut backoff, rest) = (Backoff::default(), rest("a"));
        let mut now = at(100);
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(backoff.may_send(&rest, now), Ok(()));
            backoff.failed(now, now, None);
            // Others that were under way.
            backoff.failed(now, now, None);
            assert_eq!(backoff.may_send(&rest, now), Err(at(pause)));
            now += at(pause);
        }
        backoff.answered();
        backoff.failed(now, now, None);
        assert_eq!(backoff.may_send(&rest, now), Err(at(1)));
    }

    #[test]
    fn the_pause_that_agora_asks_for_is_kept_up_to_an_hour() {
        let (mut backoff, rest) = (Backoff::default(), rest("a"));
        backoff.failed(at(0), at(0), Some(at(7)));
        assert_eq!(backoff.may_send(&rest, at(0)), Err(at(7)));
        backoff.failed(at(0), at(1), Some(at(100_000)));
        assert_eq!(backoff.may_send(&rest, at(1)), Err(at(3600)));
    }

    #[test]
    fn refused_credentials_are_tried_again_when_changed_and_every_ten_minutes() {
        let (mut backoff, first, second) = (Backoff::default(), rest("a"), rest("b"));
        assert!(backoff.unauthorized(&first, at(0)));
        assert!(!backoff.unauthorized(&first, at(1)));
        assert_eq!(backoff.may_send(&first, at(1)), Err(at(599)));
        assert_eq!(backoff.may_send(&first, at(600)), Ok(()));
        backoff.begins(&first, at(600));
        assert_eq!(backoff.may_send(&first, at(600)), Err(at(600)));
        assert_eq!(backoff.may_send(&second, at(601)), Ok(()));
        backoff.begins(&second, at(601));
        assert!(backoff.unauthorized(&second, at(601)));
        backoff.answered();
        assert_eq!(backoff.may_send(&second, at(602)), Ok(()));
    }
}
