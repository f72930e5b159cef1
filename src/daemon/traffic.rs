//! The token requests of the last hour, and how long what they ask has taken, for the status page.
//!
//! Keeps true: an hour is remembered in steps, in a ring whose size depends on the configuration alone.
//! Must not know: how it is shown.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::conditions::{SAMPLE, Samples};
use crate::admin::{RefusalEntry, TrafficPoints, TrafficReport};
use crate::terms::outcome::{Class, Outcome};

/// Steps in an hour.
const STEPS: usize = 240;

/// Steps over which latency is averaged: five minutes.
const LATENCY_STEPS: usize = 20;

const OUTCOMES: usize = Outcome::ALL.len();

/// The counters of token requests at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    /// Answered with a token on a route for renewal.
    refreshes: f64,
    /// By [`Outcome`].
    all: [f64; OUTCOMES],
    /// The same of publishers alone.
    publishers: [f64; OUTCOMES],
}

/// How often one source or backend server was asked, and how long it has taken altogether.
#[derive(Clone, Debug)]
struct Took {
    name: String,
    seconds: f64,
    count: f64,
}

#[derive(Debug, Default)]
struct TrafficSample {
    asked: Asked,
    took: Vec<Took>,
}

/// The last hour.
#[derive(Debug, Default)]
pub(crate) struct RecentTraffic(Mutex<VecDeque<TrafficSample>>);

impl RecentTraffic {
    /// Remembers the metrics page of a moment. Call it every [`SAMPLE`].
    pub(crate) fn add(&self, page: &Samples<'_>) {
        let mut samples = self.0.lock();
        if samples.is_empty() {
            // Every counter began at zero, and there may have been requests since.
            samples.push_back(TrafficSample::default());
        }
        samples.push_back(TrafficSample {
            asked: Asked::of(page),
            took: took(page),
        });
        // One more than there are steps: each step lies between two samples.
        if samples.len() > STEPS + 1 {
            samples.pop_front();
        }
    }

    /// The report of this moment, with its metrics page.
    pub(crate) fn report(&self, page: &Samples<'_>, as_of: String) -> TrafficReport {
        let samples = self.0.lock();
        let steps = samples.iter().zip(samples.iter().skip(1));
        let mut points = TrafficPoints::default();
        for (before, after) in steps {
            let step = after.asked.since(&before.asked);
            points.refreshes.push(count(step.refreshes));
            points
                .others
                .push(count(step.sum(Class::Ok) - step.refreshes));
            points
                .refused
                .push(count(step.sum(Class::Denied) + step.sum(Class::Client)));
            points.failed.push(count(step.sum(Class::Failed)));
        }
        let start = samples.front().map(|sample| sample.asked);
        let hour = Asked::of(page).since(&start.unwrap_or_default());
        TrafficReport {
            as_of,
            step_seconds: SAMPLE.as_secs(),
            points,
            answered: answered(&hour.all),
            publishers_answered: answered(&hour.publishers),
            refusals: refusals(&hour),
        }
    }

    /// How long a source or a backend server took on average lately, in milliseconds; `None` if it was not asked.
    pub(crate) fn latency_ms(&self, page: &Samples<'_>, name: &str) -> Option<f64> {
        let samples = self.0.lock();
        // A server has one histogram for each way in which a request can end.
        let total = |took: &[Took]| {
            let named = took.iter().filter(|took| took.name == name);
            named.fold((0.0, 0.0), |(seconds, count), took| {
                (seconds + took.seconds, count + took.count)
            })
        };
        let before = samples.get(samples.len().saturating_sub(LATENCY_STEPS));
        let before = before.map_or((0.0, 0.0), |sample| total(&sample.took));
        let now = total(&took(page));
        let asked = now.1 - before.1;
        (asked > 0.0).then(|| (now.0 - before.0) / asked * 1000.0)
    }
}

impl Asked {
    fn of(page: &Samples<'_>) -> Self {
        let mut asked = Self::default();
        for (labels, value) in page.named("renewd_token_requests_total") {
            let endpoint = labels.value("endpoint");
            let label = (labels.value("outcome"), labels.value("class"));
            let outcome = Outcome::ALL
                .iter()
                .position(|outcome| (outcome.as_str(), outcome.class().as_str()) == label);
            let (Some(outcome), "token" | "refresh") = (outcome, endpoint) else {
                continue;
            };
            asked.all[outcome] += value;
            if labels.value("role") == "publisher" {
                asked.publishers[outcome] += value;
            }
            if endpoint == "refresh" && outcome == Outcome::Ok as usize {
                asked.refreshes += value;
            }
        }
        asked
    }

    fn since(&self, before: &Self) -> Self {
        let less = |now: &[f64; OUTCOMES], before: &[f64; OUTCOMES]| {
            std::array::from_fn(|outcome| now[outcome] - before[outcome])
        };
        Self {
            refreshes: self.refreshes - before.refreshes,
            all: less(&self.all, &before.all),
            publishers: less(&self.publishers, &before.publishers),
        }
    }

    fn sum(&self, class: Class) -> f64 {
        sum(&self.all, class)
    }
}

fn sum(counts: &[f64; OUTCOMES], class: Class) -> f64 {
    let counted = Outcome::ALL.iter().zip(counts);
    let of_class = counted.filter(|(outcome, _)| outcome.class() == class);
    of_class.map(|(_, count)| count).sum()
}

/// The share of well-formed requests that were answered; `None` if there were none.
fn answered(counts: &[f64; OUTCOMES]) -> Option<f64> {
    let failed = sum(counts, Class::Failed);
    let all = failed + sum(counts, Class::Ok) + sum(counts, Class::Denied);
    (all > 0.0).then(|| 1.0 - failed / all)
}

/// The refusals, the most frequent first.
fn refusals(hour: &Asked) -> Vec<RefusalEntry> {
    let counted = Outcome::ALL
        .iter()
        .zip(hour.all.iter().zip(&hour.publishers));
    let mut refusals: Vec<RefusalEntry> = counted
        .filter(|(outcome, (all, _))| **outcome != Outcome::Ok && **all > 0.0)
        .map(|(outcome, (all, publishers))| RefusalEntry {
            code: outcome.as_str(),
            class: outcome.class().as_str(),
            count: count(*all),
            publishers: count(*publishers),
            meaning: meaning(*outcome),
        })
        .collect();
    refusals.sort_by_key(|refusal| std::cmp::Reverse(refusal.count));
    refusals
}

/// The sums of the histograms that say how long a source or a server took.
fn took(page: &Samples<'_>) -> Vec<Took> {
    let families = [
        ("renewd_source_lookup_duration_seconds", "source"),
        ("renewd_upstream_request_duration_seconds", "server"),
    ];
    let timed = families.into_iter().flat_map(|(family, label)| {
        let sums = page.named(&format!("{family}_sum"));
        let counts = page.named(&format!("{family}_count"));
        let pairs = sums.into_iter().zip(counts);
        pairs.map(move |((labels, seconds), (_, count))| Took {
            name: labels.value(label).to_owned(),
            seconds,
            count,
        })
    });
    timed.collect()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a counter's growth, exact to 2^53
fn count(growth: f64) -> u64 {
    growth.max(0.0) as u64
}

/// The meaning of a refusal to an operator, and the way to put it right.
fn meaning(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "A token was issued.",
        Outcome::RateLimitedClient => {
            "One user or address asks too often. If many do, an app retries without waiting."
        }
        Outcome::RateLimitedShared => {
            "rate_limit.channel or rate_limit.global is too low for the audience: raise it and reload."
        }
        Outcome::Unauthenticated => {
            "The login is missing or does not verify. renewd_unauthenticated_total says why."
        }
        Outcome::TokenExpired => "The login has expired: the app has to sign in again.",
        Outcome::LoginUnverified => {
            "No known key verifies the login, and the key set gives no answer. See Sources."
        }
        Outcome::InvalidRequest => {
            "The request lacks a field, or one has a wrong value: an old app."
        }
        Outcome::BodyTooLarge => "The body is larger than a token request ever is.",
        Outcome::UnsupportedMediaType => "The body is neither JSON nor a form.",
        Outcome::Revoked => "An operator has revoked the user or the channel. See Revocations.",
        Outcome::AccountSuspended => "The account is suspended in the accounts source.",
        Outcome::SessionReplaced => "The account has signed in elsewhere since.",
        Outcome::StreamNotLive => "The stream is over, or its source does not know it as live.",
        Outcome::ViewerBanned => "The streamer has banned this viewer.",
        Outcome::NotOwner => {
            "Somebody who is neither the stream's owner nor a co-host asked to publish. If it was the owner, compare \
             auth.jwt.subject_claim with the stream's owner."
        }
        Outcome::UidTaken => "The uid belongs to another user of the channel (policy.bind_uid).",
        Outcome::PolicyDenied => "The authorize hook said no.",
        Outcome::TooManyStreams => {
            "The publisher already holds tokens for as many channels as policy.max_streams_per_publisher allows."
        }
        Outcome::SessionTooLong => {
            "The session has lasted as long as policy.max_session or its tier allows."
        }
        Outcome::Unavailable => {
            "A source gave no answer, or a decision took longer than decision.timeout. See Sources."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(ok: u32, renewed: u32, refused: u32, failed: u32) -> String {
        let series = |endpoint, role, outcome, class, count| {
            format!(
                "renewd_token_requests_total{{endpoint=\"{endpoint}\",role=\"{role}\",outcome=\"{outcome}\",class=\"{class}\"}} {count}\n"
            )
        };
        [
            series("token", "subscriber", "ok", "ok", ok),
            series("refresh", "subscriber", "ok", "ok", renewed),
            series("token", "publisher", "not_owner", "denied", refused),
            series("refresh", "publisher", "unavailable", "failed", failed),
            series("token", "unknown", "unavailable", "client", refused),
            series("reissue", "subscriber", "ok", "ok", 1000),
            format!(
                "renewd_source_lookup_duration_seconds_sum{{source=\"streams\"}} {}\n",
                f64::from(ok) / 100.0
            ),
            format!("renewd_source_lookup_duration_seconds_count{{source=\"streams\"}} {ok}\n"),
        ]
        .concat()
    }

    #[test]
    fn steps_totals_and_refusals_come_from_the_counters() {
        let traffic = RecentTraffic::default();
        let pages = [page(0, 0, 0, 0), page(10, 20, 3, 0), page(10, 50, 3, 5)];
        for page in &pages {
            traffic.add(&Samples::parse(page));
        }
        let now = page(20, 75, 3, 5);
        let report = traffic.report(&Samples::parse(&now), String::new());
        assert_eq!(report.points.refreshes, [0, 20, 30]);
        assert_eq!(report.points.others, [0, 10, 0]);
        assert_eq!(report.points.refused, [0, 6, 0]);
        assert_eq!(report.points.failed, [0, 0, 5]);
        let all = f64::from(20 + 75 + 3 + 5);
        assert_eq!(report.answered, Some(1.0 - 5.0 / all));
        assert_eq!(report.publishers_answered, Some(1.0 - 5.0 / 8.0));
        let refusals: Vec<_> = report
            .refusals
            .iter()
            .map(|each| (each.code, each.class, each.count, each.publishers))
            .collect();
        assert_eq!(
            refusals,
            [
                ("unavailable", "failed", 5, 5),
                ("unavailable", "client", 3, 0),
                ("not_owner", "denied", 3, 3)
            ]
        );
        assert_eq!(
            traffic.latency_ms(&Samples::parse(&now), "streams"),
            Some(10.0)
        );
        assert_eq!(traffic.latency_ms(&Samples::parse(&now), "accounts"), None);
    }

    #[test]
    fn an_hour_is_remembered_and_an_empty_one_has_no_share() {
        let traffic = RecentTraffic::default();
        for count in 0..1000 {
            traffic.add(&Samples::parse(&page(count, 0, 0, 0)));
        }
        assert_eq!(traffic.0.lock().len(), STEPS + 1);
        let now = page(999, 0, 0, 0);
        let report = traffic.report(&Samples::parse(&now), String::new());
        assert_eq!(report.points.others, vec![1; STEPS]);
        assert_eq!(report.answered, Some(1.0));
        assert_eq!(report.publishers_answered, None);
        assert!(report.refusals.is_empty());
    }

    #[test]
    fn every_outcome_is_explained_in_a_sentence() {
        for outcome in Outcome::ALL {
            assert!(meaning(outcome).ends_with('.'), "{outcome:?}");
        }
    }
}
