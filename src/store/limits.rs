//! The limits on subject, channel and all requests that replicas share: one script, one round trip, on the server's
//! clock.
//!
//! Keeps true: what `Limiter` does with a request, the script does with it too, to the second; a refusal charges
//! nothing; keys are bounded in length, and all have one hash tag. Address limits are never shared.
//! Must not know: which limiter decides.

use std::time::Duration;

use redis::{Cmd, Value};
use sha2::{Digest as _, Sha256};

use super::link::{Link, Script};
use super::{LONGEST_NAME, NoStore, Store, hexadecimal};
use crate::limit::{Charge, LimitExceeded, Limiter, Rate};
use crate::terms::outcome::Scope;

/// The limit that a probe is charged under, on a key that only probes use: one request a microsecond, which is
/// always free again.
const PROBE: [&str; 3] = ["1.000", "1000000.000", "0.000"];

impl Store {
    /// Row 4 of the decision for all replicas together: [`Limiter::check_local`] on the shared debts.
    pub(crate) async fn check_shared(
        &self,
        limiter: &Limiter,
        subject: &str,
        channel: &str,
        renewal: bool,
        charge: Charge,
    ) -> Result<Result<(), LimitExceeded>, NoStore> {
        let limits: Vec<(Scope, &Rate)> = limiter.shared(renewal).collect();
        if limits.is_empty() {
            return Ok(Ok(()));
        }
        let prefix = self.config.prefix.as_str();
        let now = self.clock.elapsed();
        let asking = self.ask(async |link| {
            let keys = limits.iter().map(|(scope, _)| {
                let debt = key(prefix, *scope, subject, channel);
                [debt, tariffs_key(prefix, scope.as_str())]
            });
            let rates = limits.iter().map(|(_, rate)| rate.in_microseconds(now));
            let command = command(link, keys, charge, rates);
            link.run(&command, Script::Limits).await
        });
        let verdict = match asking.await? {
            Value::Array(refused) => refusal(&limits, &refused),
            _ => None,
        };
        Ok(verdict.map_or(Ok(()), Err))
    }
}

fn command(
    link: &Link,
    keys: impl ExactSizeIterator<Item = [String; 2]>,
    charge: Charge,
    rates: impl Iterator<Item = [String; 3]>,
) -> Cmd {
    let mut command = link.command(Script::Limits, keys.len() * 2);
    for pair in keys {
        command.arg(&pair);
    }
    command.arg(match charge {
        Charge::Take => "take",
        Charge::Peek => "peek",
    });
    for rate in rates {
        command.arg(&rate);
    }
    command
}

/// A command that shows whether the script runs and may write.
pub(super) fn probe(link: &Link, prefix: &str) -> Cmd {
    let keys = [
        format!("{prefix}{{shared}}:limits:probe"),
        tariffs_key(prefix, "probe"),
    ];
    let rate = PROBE.map(str::to_owned);
    command(
        link,
        std::iter::once(keys),
        Charge::Take,
        std::iter::once(rate),
    )
}

/// The refusal that the script's answer means; `None` where it names no limit.
fn refusal(limits: &[(Scope, &Rate)], answer: &[Value]) -> Option<LimitExceeded> {
    let [Value::Int(position), Value::Int(microseconds)] = answer else {
        return None;
    };
    let index = usize::try_from(*position).ok()?.checked_sub(1)?;
    let (scope, rate) = limits.get(index)?;
    let wait = Duration::from_micros(u64::try_from(*microseconds).ok()?);
    Some(rate.refusal(*scope, wait))
}

/// The key of the limits that a scope has had.
fn tariffs_key(prefix: &str, scope: &str) -> String {
    format!("{prefix}{{shared}}:limits:tariffs:{scope}")
}

/// The key of a limit's debt.
fn key(prefix: &str, scope: Scope, subject: &str, channel: &str) -> String {
    let name = match scope {
        Scope::Subject => subject,
        Scope::Channel => channel,
        Scope::Global | Scope::Address => return format!("{prefix}{{shared}}:limits:global"),
    };
    let scope = scope.as_str();
    if name.len() <= LONGEST_NAME {
        return format!("{prefix}{{shared}}:limits:{scope}:{name}");
    }
    let hash = hexadecimal(&Sha256::digest(name));
    format!("{prefix}{{shared}}:limits:{scope}-sha256:{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bounded_and_have_one_hash_tag() {
        let of = |subject: &str| key("renewd:", Scope::Subject, subject, "live");
        assert_eq!(of("alice"), "renewd:{shared}:limits:subject:alice");
        assert_eq!(
            of("{other}"),
            "renewd:{shared}:limits:subject:{other}",
            "the first braces count"
        );
        let (long, longer) = (of(&"a".repeat(65)), of(&"a".repeat(4096)));
        assert_ne!(long, longer);
        assert_eq!((long.len(), longer.len()), (102, 102));
        assert_eq!(
            key("renewd:", Scope::Channel, "alice", "live"),
            "renewd:{shared}:limits:channel:live"
        );
        assert_eq!(
            key("renewd:", Scope::Global, "alice", "live"),
            "renewd:{shared}:limits:global"
        );
    }
}
