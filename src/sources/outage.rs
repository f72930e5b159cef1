//! Since when a source gives no answer, and whether to ask it again now: a circuit breaker.
//!
//! Keeps true: an outage counts from the first failure after the last success; while the source says nothing, it is
//! asked once a second and no request waits for it, so that a dead database delays no request by its whole timeout.
//! Must not know: what is asked, or of which source.

use std::time::Duration;

use parking_lot::Mutex;

use crate::telemetry::metrics::SourceMetrics;

/// How many questions in a row must get no reply before requests stop waiting.
const SILENCES: u32 = 3;

/// How often a silent source is asked.
pub(crate) const PROBE: Duration = Duration::from_secs(1);

/// Whether to ask a source just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutageAdmission {
    /// Ask, and wait for the answer.
    Ask,
    /// Ask, but don't wait: there has been no answer since this moment.
    Probe(Duration),
    /// Don't ask: there has been no answer since this moment.
    Refused(Duration),
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswerReason {
    /// Nothing came: no connection, or no reply in time. The next question would wait as long.
    #[error("{0}")]
    Silent(String),
    /// Something came that is no answer: an error, or a malformed reply.
    #[error("{0}")]
    Wrong(String),
}

/// Whether one source answers. Times are on the clock's monotonic scale.
#[derive(Debug, Default)]
pub(crate) struct Outage(Mutex<OutageState>);

#[derive(Clone, Debug, Default)]
struct OutageState {
    since: Option<Duration>,
    silences: u32,
    probe_at: Duration,
    error: Option<String>,
}

impl Outage {
    /// When the first question failed since the last one that was answered.
    pub(crate) fn since(&self) -> Option<Duration> {
        self.0.lock().since
    }

    /// Why the last question failed, while nothing was answered since.
    pub(crate) fn error(&self) -> Option<String> {
        self.0.lock().error.clone()
    }

    /// Whether to ask now.
    pub(crate) fn admit(&self, now: Duration) -> OutageAdmission {
        let mut state = self.0.lock();
        match state.since {
            Some(since) if state.silences >= SILENCES => {
                if now < state.probe_at {
                    return OutageAdmission::Refused(since);
                }
                state.probe_at = now + PROBE;
                OutageAdmission::Probe(since)
            }
            _ => OutageAdmission::Ask,
        }
    }

    /// Since when the source has been silent, if that is long enough for requests to stop waiting.
    pub(crate) fn silent_since(&self) -> Option<Duration> {
        let state = self.0.lock();
        state.since.filter(|_| state.silences >= SILENCES)
    }

    /// Takes in what a question came to: `failure`, or an answer. The log and the metric are told what is news.
    /// Returns since when there has been no answer.
    pub(crate) fn learn(
        &self,
        failure: Option<&NoAnswerReason>,
        now: Duration,
        source: &'static str,
        metrics: &SourceMetrics,
    ) -> Option<Duration> {
        let Some(failure) = failure else {
            if self.answered() {
                metrics.up(true);
                tracing::info!(source, "the source answers again");
            }
            return None;
        };
        let (since, news) = self.failed(failure, now);
        if news {
            metrics.up(false);
            tracing::error!(
                source,
                error = %failure,
                "the source gives no answer"
            );
        }
        Some(since)
    }

    /// Notes an answer. Whether that is news.
    fn answered(&self) -> bool {
        let mut state = self.0.lock();
        let news = state.since.is_some();
        if news {
            *state = OutageState::default();
        }
        news
    }

    /// Notes a failure: since when questions have failed, and whether that is news.
    fn failed(&self, failure: &NoAnswerReason, now: Duration) -> (Duration, bool) {
        let mut state = self.0.lock();
        let news = state.since.is_none();
        let since = *state.since.get_or_insert(now);
        match failure {
            NoAnswerReason::Silent(_) => {
                state.silences = state.silences.saturating_add(1);
                state.probe_at = now + PROBE;
            }
            // The source replies: the next question may get an answer.
            NoAnswerReason::Wrong(_) => state.silences = 0,
        }
        state.error = Some(failure.to_string());
        (since, news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn silent() -> NoAnswerReason {
        NoAnswerReason::Silent("no reply".into())
    }

    #[test]
    fn an_outage_counts_from_its_first_failure() {
        let outage = Outage::default();
        assert_eq!(outage.failed(&silent(), seconds(5)), (seconds(5), true));
        assert_eq!(outage.failed(&silent(), seconds(9)), (seconds(5), false));
        assert_eq!(outage.since(), Some(seconds(5)));
        assert!(outage.answered());
        assert!(!outage.answered());
        assert_eq!(outage.since(), None);
        assert_eq!(outage.failed(&silent(), seconds(20)), (seconds(20), true));
    }

    #[test]
    fn a_silent_source_is_asked_once_a_second() {
        let outage = Outage::default();
        for _ in 0..SILENCES {
            assert_eq!(outage.admit(seconds(5)), OutageAdmission::Ask);
            outage.failed(&silent(), seconds(5));
        }
        let since = seconds(5);
        assert_eq!(outage.silent_since(), Some(since));
        assert_eq!(outage.admit(seconds(5)), OutageAdmission::Refused(since));
        assert_eq!(outage.admit(seconds(6)), OutageAdmission::Probe(since));
        assert_eq!(outage.admit(seconds(6)), OutageAdmission::Refused(since));
        outage.answered();
        assert_eq!(outage.silent_since(), None);
        assert_eq!(outage.admit(seconds(6)), OutageAdmission::Ask);
    }

    #[test]
    fn a_source_that_answers_wrongly_is_asked_on() {
        let outage = Outage::default();
        for second in 0..10 {
            assert_eq!(outage.admit(seconds(second)), OutageAdmission::Ask);
            outage.failed(&NoAnswerReason::Wrong("500".into()), seconds(second));
        }
        assert_eq!(outage.error().as_deref(), Some("500"));
    }
}
