//! The metrics of the rate limits.

use metrics::{Counter, Gauge};

use super::families;
use super::registrar::Registrar;
use crate::config::model::RateLimit;
use crate::telemetry::process::number;
use crate::terms::outcome::Scope;

const SCOPES: usize = Scope::ALL.len();

/// By scope; every series exists from the start.
#[derive(Debug)]
pub(crate) struct LimitMetrics {
    limited: [Counter; SCOPES],
    keys: [Gauge; SCOPES],
    overflow: [Counter; SCOPES],
    per_second: [Gauge; SCOPES],
}

impl LimitMetrics {
    /// Registers the series.
    pub(super) fn new(registrar: &Registrar) -> Self {
        let counters = |family| Scope::ALL.map(|scope| registrar.counter(family, &label(scope)));
        let gauges =
            |family| Scope::ALL.map(|scope| registrar.gauge_at(family, &label(scope), 0.0));
        Self {
            limited: counters(&families::RATE_LIMITED),
            keys: gauges(&families::RATE_LIMIT_KEYS),
            overflow: counters(&families::RATE_LIMIT_OVERFLOW),
            per_second: gauges(&families::RATE_LIMIT_PER_SECOND),
        }
    }

    /// One request answered 429.
    pub(super) fn limited(&self, scope: Scope) {
        self.limited[scope as usize].increment(1);
    }

    /// How many keys a limit remembers.
    pub(super) fn keys(&self, scope: Scope, keys: usize) {
        self.keys[scope as usize].set(number(keys));
    }

    /// How many requests a limit has charged to its overflow bucket since start.
    pub(super) fn overflow(&self, scope: Scope, total: u64) {
        self.overflow[scope as usize].absolute(total);
    }

    /// The limits in force.
    pub(super) fn configured(&self, limits: &RateLimit) {
        for scope in Scope::ALL {
            let quota = limits.quota(scope);
            let rate = quota.map_or(0.0, |quota| {
                f64::from(quota.requests) / quota.per.as_secs_f64()
            });
            self.per_second[scope as usize].set(rate);
        }
    }
}

fn label(scope: Scope) -> [(&'static str, &'static str); 1] {
    [("scope", scope.as_str())]
}
