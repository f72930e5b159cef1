//! The sources that decisions need: whether each answers, and how long an outage lets holders of a token renew it.
//!
//! Keeps true: one reading of the sources serves readiness, the status page and the metrics, so that they agree.
//! Must not know: how a source is asked.

use std::time::Duration;

use crate::config::model::Config;
use crate::logins::jwt;
use crate::snapshot::Snapshot;
use crate::sources::streams::StreamSource;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traffic_labels::SourceLabel;
use crate::terms::clock::Clock;

/// One source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceState {
    /// Which one.
    pub source: SourceLabel,
    /// Why it gives no answer; `None` while it answers. Holds no secret.
    pub error: Option<String>,
    /// Which of its fields may be configured wrongly although it answers. Holds no secret.
    pub doubt: Option<String>,
    /// The source's outage; `None` while it answers.
    pub outage: Option<SourceOutage>,
}

/// An outage of a source, in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceOutage {
    /// When the first lookup failed.
    pub down_since: u64,
    /// Until when holders of a token can renew it without an answer; `None` where that isn't bounded.
    pub rest_until: Option<u64>,
}

/// Every configured source.
pub(crate) fn source_states(snapshot: &Snapshot, clock: &Clock) -> Vec<SourceState> {
    let config = &snapshot.config;
    let state = |source, error: Option<String>, down_since: Option<Duration>| SourceState {
        source,
        error,
        doubt: match source {
            SourceLabel::Streams => snapshot.streams.doubt(),
            SourceLabel::Accounts => snapshot.accounts.doubt(),
            SourceLabel::Authorize | SourceLabel::Jwks | SourceLabel::Redis => None,
        },
        outage: down_since.map(|since| outage(clock, since, rest(config, source))),
    };
    let streams = match snapshot.streams.source() {
        StreamSource::Table(table) => {
            let error = (!table.is_up()).then(|| {
                let file = config.streams.file();
                let file = file.map_or_else(String::new, |file| file.display().to_string());
                format!("{file} can't be used; the log says why")
            });
            state(SourceLabel::Streams, error, table.down_since())
        }
        StreamSource::Asked(lookups) => {
            state(SourceLabel::Streams, lookups.error(), lookups.down_since())
        }
    };
    let accounts = snapshot.accounts.lookups();
    let accounts =
        accounts.map(|lookups| state(SourceLabel::Accounts, lookups.error(), lookups.down_since()));
    let authorizer = snapshot.authorizer.as_ref();
    let authorizer =
        authorizer.map(|hook| state(SourceLabel::Authorize, hook.error(), hook.down_since()));
    let key_set = snapshot.verifier.key_set();
    let key_set = key_set.map(|set| state(SourceLabel::Jwks, set.error(), set.down_since()));
    let store = snapshot.store.as_ref().map(|store| {
        let outage = store.outage().map(|outage| (outage.error, outage.since));
        let (error, since) = outage.unzip();
        state(SourceLabel::Redis, error, since)
    });
    std::iter::once(streams)
        .chain(accounts)
        .chain(authorizer)
        .chain(key_set)
        .chain(store)
        .collect()
}

/// Exports the outage of each source.
pub(crate) fn export(states: &[SourceState], metrics: &Metrics) {
    for state in states {
        let outage = state
            .outage
            .map(|outage| (outage.down_since, outage.rest_until.unwrap_or_default()));
        metrics.source(state.source).outage(outage);
    }
}

/// How long holders of a token can renew it without an answer of the source; `None` where that isn't bounded.
fn rest(config: &Config, source: SourceLabel) -> Option<Duration> {
    let rest = match source {
        SourceLabel::Streams => config.streams.stale_if_error,
        SourceLabel::Accounts => config.accounts.stale_if_error,
        SourceLabel::Authorize => config.authorize.as_ref()?.stale_if_error,
        SourceLabel::Jwks => jwt::OLDEST,
        SourceLabel::Redis => return None,
    };
    Some(rest)
}

fn outage(clock: &Clock, since: Duration, rest: Option<Duration>) -> SourceOutage {
    let ago = clock.elapsed().saturating_sub(since);
    let down_since = clock.unix_seconds().saturating_sub(ago.as_secs());
    SourceOutage {
        down_since,
        rest_until: rest.map(|rest| down_since.saturating_add(rest.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_in_the_time_of_day_and_rests_for_stale_if_error() {
        let clock = Clock::manual(1_800_000_000);
        let since = clock.elapsed();
        clock.advance(Duration::from_secs(90));
        let outage = outage(&clock, since, Some(Duration::from_hours(1)));
        assert_eq!(outage.down_since, 1_800_000_000);
        assert_eq!(outage.rest_until, Some(1_800_003_600));
    }
}
