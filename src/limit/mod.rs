//! Local rate limits: per subject, per address, per channel, and for all requests together (GCRA by `governor`).
//!
//! Keeps true: a refusal charges nothing in any scope; a changed limit applies to the next request and forgets no
//! debt; memory is bounded by `max_keys` a scope. Locks are taken in the order subject, channel, global, and never
//! while another key of the same scope is locked.
//! Must not know: requests, answers, why an address is charged.

mod rate;
mod store;
mod tariffs;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::model::RateLimit;
use crate::terms::clock::Clock;
use crate::terms::outcome::Scope;
pub(crate) use rate::Rate;
use rate::RateAdmission;
use store::DebtTable;
use tariffs::Tariffs;

/// All rate limits under one configuration. A limiter is cheap to make anew at each reload: the debts live in stores
/// that it shares with the limiter before.
#[derive(Debug)]
pub struct Limiter {
    clock: Clock,
    max_keys: usize,
    /// By [`scope_index`]; `None` is off.
    rates: [Option<Rate>; 4],
    stores: Arc<Stores>,
}

/// Whether a check that passes also charges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// The request counts.
    Take,
    /// The request doesn't count; the limiter only says what would happen: `decision.mode = "observe"`.
    Peek,
}

/// A request over its limit, with what `Retry-After` and the three `RateLimit-*` fields say
/// (draft-ietf-httpapi-ratelimit-headers-03; there in whole seconds, to be rounded up).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitExceeded {
    /// The scope of the limit.
    pub scope: Scope,
    /// Until one request would pass; above zero.
    pub retry_after: Duration,
    /// The capacity from rest, `burst`.
    pub limit: u32,
    /// Always 0: no request would pass.
    pub remaining: u32,
    /// Until the whole capacity is back; at least `retry_after`.
    pub reset: Duration,
}

/// The part of a limiter that outlives a reload.
#[derive(Debug, Default)]
struct Stores {
    /// Keyed by the process's own random numbers, so that a client can't choose keys that collide.
    hasher: RandomState,
    /// By [`scope_index`].
    scopes: [DebtTable; 4],
    /// By [`scope_index`].
    tariffs: [Tariffs; 4],
}

/// The position of a scope in [`Scope::ALL`].
fn scope_index(scope: Scope) -> usize {
    scope as usize
}

impl Limiter {
    /// Applies a configuration; `previous` hands its stores over. `clock` must be the same through all reloads.
    pub(crate) fn new(config: &RateLimit, clock: Clock, previous: Option<&Self>) -> Self {
        let stores = previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.stores));
        let quotas = Scope::ALL.map(|scope| config.quota(scope));
        let now = clock.elapsed();
        let rates = std::array::from_fn(|index| {
            quotas[index].map(|quota| Rate::new(quota, &stores.tariffs[index], now))
        });
        Self {
            clock,
            max_keys: config.max_keys,
            rates,
            stores,
        }
    }

    /// Row 4 of the decision, for this process by itself: one request by `subject` for `channel`, charged to subject,
    /// channel and global together or to none of them. Renewals by holders count for the subject alone, so that a
    /// holder stays on air when many others arrive.
    pub fn check_local(
        &self,
        subject: &str,
        channel: &str,
        renewal: bool,
        charge: Charge,
    ) -> Result<(), LimitExceeded> {
        let now = self.clock.elapsed();
        let hash = |text: &str| self.stores.hasher.hash_one(text);
        // The entry of each scope stays locked until all of them have agreed.
        let subject = self.admit(Scope::Subject, now, || hash(subject))?;
        let (channel, global) = if renewal {
            (None, None)
        } else {
            (
                self.admit(Scope::Channel, now, || hash(channel))?,
                self.admit(Scope::Global, now, || 0)?,
            )
        };
        if charge == Charge::Take {
            for admission in [subject, channel, global].into_iter().flatten() {
                admission.take();
            }
        }
        Ok(())
    }

    /// The limits that replicas share, in the order of [`Self::check_local`]; of a renewal the subject's alone.
    pub(crate) fn shared(&self, renewal: bool) -> impl Iterator<Item = (Scope, &Rate)> {
        let scopes = [Scope::Subject, Scope::Channel, Scope::Global];
        let counted = if renewal { 1 } else { scopes.len() };
        let rate = |scope| Some((scope, self.rates[scope_index(scope)].as_ref()?));
        scopes.into_iter().take(counted).filter_map(rate)
    }

    /// Charges an address for an answer 400, 401, 413 or 415. An address in debt isn't charged but refused: the
    /// client gets 429 in place of that answer.
    pub(crate) fn charge_address(&self, address: IpAddr) -> Result<(), LimitExceeded> {
        if let Some(admission) = self.admit_address(address)? {
            admission.take();
        }
        Ok(())
    }

    /// Number of keys that a scope remembers now; 0 or 1 for global.
    pub(crate) fn keys(&self, scope: Scope) -> usize {
        self.stores.scopes[scope_index(scope)].len()
    }

    /// Requests that were counted in a scope's overflow bucket since the process started.
    pub(crate) fn overflow(&self, scope: Scope) -> u64 {
        self.stores.scopes[scope_index(scope)].overflowed()
    }

    /// Forgets the keys without debt in one slice of each scope and returns how many. A slice is a 256th of a scope
    /// and is locked for some microseconds; a call every 100 ms sweeps all of them twice a minute.
    pub fn sweep_slice(&self) -> usize {
        let now = self.clock.elapsed();
        let scopes = self.stores.scopes.iter().zip(&self.stores.tariffs);
        scopes
            .map(|(store, tariffs)| {
                let tariffs = tariffs.known();
                store.sweep_slice(|stored| tariffs.is_paid(stored, now))
            })
            .sum()
    }

    fn admit_address(&self, address: IpAddr) -> Result<Option<RateAdmission<'_>>, LimitExceeded> {
        let key = || self.stores.hasher.hash_one(bucket(address));
        self.admit(Scope::Address, self.clock.elapsed(), key)
    }

    /// `None` where the scope is off.
    fn admit(
        &self,
        scope: Scope,
        now: Duration,
        key: impl FnOnce() -> u64,
    ) -> Result<Option<RateAdmission<'_>>, LimitExceeded> {
        let index = scope_index(scope);
        let Some(rate) = &self.rates[index] else {
            return Ok(None);
        };
        let entry = self.stores.scopes[index].entry(key(), self.max_keys);
        let tariffs = &self.stores.tariffs[index];
        rate.admit(scope, entry, tariffs, now).map(Some)
    }
}

/// The part of an address that addresses with a common limit share: the whole IPv4 address in either notation, or the
/// IPv6 /64, which belongs to one household.
fn bucket(address: IpAddr) -> (u8, u64) {
    match address.to_canonical() {
        IpAddr::V4(address) => (4, u64::from(address.to_bits())),
        IpAddr::V6(address) => {
            let [network @ .., _, _, _, _] = address.segments();
            let high = network
                .into_iter()
                .fold(0, |bits, segment| bits << 16 | u64::from(segment));
            (6, high)
        }
    }
}

#[cfg(test)]
mod tests;
