//! How long a granted token and its backup live, and when the holder should renew. Pure.
//!
//! Keeps true: no token outlives the rest of its session or 24 hours; jitter only ever shortens, and never to less
//! than a minute; at least half of a token's life lies before its renewal.
//! Must not know: callers, token bytes.

use std::time::Duration;

use crate::config::model::{Config, Tier, TokenConfig};
use crate::logins::jwt::JwtClaims;

/// Jitter shortens no token below this: Agora's SDK announces an expiry 30 s before it.
const SHORTEST: u32 = 60;

/// The times that hold for one login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LifetimePlan {
    /// The token's lifetime: the tier's, else `token.lifetime`.
    pub lifetime: Duration,
    /// The session's greatest length: the tier's, else `policy.max_session`; zero is no limit.
    pub max_session: Duration,
}

/// The bounds of the tokens of one grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The token's lifetime, before jitter.
    pub lifetime: Duration,
    /// The lifetime that the token and its backup may not exceed: the rest of the session. Jitter doesn't apply to it.
    pub at_most: Option<Duration>,
}

/// The times of one grant, in whole seconds from its issue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetimes {
    /// When the token expires.
    pub token: u32,
    /// When to renew it.
    pub refresh: u32,
    /// When the backup token expires, always later than the token. `None` where there is none, or it would not
    /// outlive the token.
    pub backup: Option<u32>,
}

impl Lifetimes {
    /// When the last of the grant's tokens expires: until then the caller holds a token.
    pub(crate) fn last(self) -> u32 {
        self.backup.unwrap_or(self.token)
    }
}

/// The plan of a login: that of the first tier whose claim it has.
pub(crate) fn plan(config: &Config, claims: &JwtClaims) -> LifetimePlan {
    let tier = tier(&config.token.tiers, claims);
    LifetimePlan {
        lifetime: tier
            .and_then(|tier| tier.lifetime)
            .unwrap_or(config.token.lifetime),
        max_session: tier
            .and_then(|tier| tier.max_session)
            .unwrap_or(config.policy.max_session),
    }
}

fn tier<'t>(tiers: &'t [Tier], claims: &JwtClaims) -> Option<&'t Tier> {
    // Most tiers name the same claim, so its value is kept from one to the next.
    let mut last = None;
    tiers.iter().find(|tier| {
        let value = match last {
            Some((name, value)) if name == tier.claim.as_str() => value,
            _ => claims.member(&tier.claim),
        };
        last = Some((tier.claim.as_str(), value));
        value.is_some_and(|value| value.is_or_contains(&tier.value))
    })
}

/// The times of a grant. `chance` is an evenly distributed number: it chooses within `token.jitter`.
pub(crate) fn lifetimes(token: &TokenConfig, bounds: Bounds, chance: u64) -> Lifetimes {
    let most = bounds.at_most.map_or(u32::MAX, whole_seconds);
    let full = whole_seconds(bounds.lifetime);
    // A tier's lifetime may be so short that the jitter would be most of it.
    let jitter = whole_seconds(token.jitter).min(full / 2);
    let shortened = full.saturating_sub(at_most(jitter, chance));
    let lifetime = shortened.max(SHORTEST).min(full).min(most);
    let before = whole_seconds(token.refresh_before).min(lifetime / 2);
    let backup = lifetime
        .saturating_add(whole_seconds(token.backup))
        .min(most);
    Lifetimes {
        token: lifetime,
        refresh: lifetime - before,
        backup: (backup > lifetime).then_some(backup),
    }
}

/// A number from 0 to `most`, chosen by `chance`.
fn at_most(most: u32, chance: u64) -> u32 {
    u32::try_from(chance % (u64::from(most) + 1)).unwrap_or(0)
}

fn whole_seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::agora::TokenFormat;
    use crate::config::model::{DefaultRole, Services, ZeroUid};

    const DAY: u64 = 86_400;

    fn token(lifetime: u64, refresh_before: u64, jitter: u64, backup: u64) -> TokenConfig {
        TokenConfig {
            lifetime: Duration::from_secs(lifetime),
            refresh_before: Duration::from_secs(refresh_before),
            jitter: Duration::from_secs(jitter),
            backup: Duration::from_secs(backup),
            services: Services::default(),
            messaging_id_claim: String::new(),
            tiers: Vec::new(),
            format: TokenFormat::V007,
            default_role: DefaultRole::Auto,
            zero_uid: ZeroUid::Reject,
        }
    }

    fn bounds(lifetime: u64, at_most: Option<u64>) -> Bounds {
        Bounds {
            lifetime: Duration::from_secs(lifetime),
            at_most: at_most.map(Duration::from_secs),
        }
    }

    fn times(token: u32, refresh: u32, backup: Option<u32>) -> Lifetimes {
        Lifetimes {
            token,
            refresh,
            backup,
        }
    }

    #[test]
    fn a_token_lives_its_lifetime_and_its_backup_that_much_longer() {
        let plain = token(3600, 600, 0, 0);
        let at_any_chance = lifetimes(&plain, bounds(3600, None), 12345);
        assert_eq!(at_any_chance, times(3600, 3000, None));
        let backed = token(3600, 600, 0, 900);
        let found = lifetimes(&backed, bounds(3600, None), 0);
        assert_eq!(found, times(3600, 3000, Some(4500)));
        assert_eq!(found.last(), 4500);
    }

    #[test]
    fn chance_takes_up_to_the_jitter_and_both_ends_come_up() {
        let jittery = token(3600, 600, 120, 900);
        let of = |chance| lifetimes(&jittery, bounds(3600, None), chance);
        assert_eq!(of(0), times(3600, 3000, Some(4500)));
        assert_eq!(of(120), times(3480, 2880, Some(4380)));
        assert_eq!(of(121), of(0));
    }

    #[test]
    fn a_short_tier_loses_at_most_half_and_never_less_than_a_minute_is_left() {
        let jittery = token(3600, 600, 1800, 0);
        let shortest = |lifetime| {
            let of = |chance| lifetimes(&jittery, bounds(lifetime, None), chance).token;
            (0..2000).map(of).min().unwrap()
        };
        assert_eq!(shortest(300), 150);
        assert_eq!(shortest(90), 60);
        assert_eq!(shortest(60), 60);
    }

    #[test]
    fn the_rest_of_a_session_caps_the_token_and_its_backup() {
        let backed = token(3600, 600, 0, 900);
        let capped = |most| lifetimes(&backed, bounds(3600, Some(most)), 0);
        assert_eq!(capped(7200), times(3600, 3000, Some(4500)));
        assert_eq!(capped(4000), times(3600, 3000, Some(4000)));
        assert_eq!(capped(3600), times(3600, 3000, None));
        assert_eq!(capped(600), times(600, 300, None));
        assert_eq!(capped(61), times(61, 31, None));
    }

    #[test]
    fn the_first_tier_that_takes_a_login_counts_and_what_it_leaves_out_stays() {
        let tier = |claim: &str, value: &str, lifetime: Option<u64>| Tier {
            claim: claim.into(),
            value: value.into(),
            lifetime: lifetime.map(Duration::from_secs),
            max_session: None,
        };
        let tiers = [
            tier("trial", "true", Some(300)),
            tier("plan", "pro", Some(7200)),
            tier("plan", "free", None),
            tier("roles", "vip", Some(600)),
        ];
        let taken = |all: &str| {
            let claims = JwtClaims {
                subject: "ada".into(),
                expires_at: None,
                session: None,
                all: all.into(),
            };
            super::tier(&tiers, &claims).map(|tier| tier.value.as_str())
        };
        for (claims, value) in [
            (r#"{"plan":"pro","trial":true}"#, Some("true")),
            (r#"{"plan":"pro","trial":false}"#, Some("pro")),
            (r#"{"plan":"free","roles":["vip"]}"#, Some("free")),
            (r#"{"plan":["basic"],"roles":["a","vip"]}"#, Some("vip")),
            (r#"{"plan":"Pro"}"#, None),
            ("{}", None),
        ] {
            assert_eq!(taken(claims), value, "{claims}");
        }
    }

    proptest! {
        #[test]
        fn nothing_outlives_its_cap_and_half_a_life_lies_before_the_renewal(
            lifetime in 60..=DAY,
            share in (0.0..=0.5_f64, 0.0..=0.5_f64, 0.0..=1.0_f64),
            at_most in prop::option::of(60..=DAY),
            chance: u64,
        ) {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let part = |of: u64, share: f64| (of as f64 * share) as u64;
            let token = token(
                lifetime,
                part(lifetime, share.0),
                part(lifetime, share.1),
                part(DAY - lifetime, share.2),
            );
            let found = lifetimes(&token, bounds(lifetime, at_most), chance);
            let most = u32::try_from(at_most.unwrap_or(DAY)).unwrap();
            prop_assert!(found.token >= SHORTEST);
            prop_assert!(u64::from(found.token) <= lifetime);
            prop_assert!(found.last() <= most && found.last() >= found.token);
            prop_assert!(found.refresh <= found.token);
            prop_assert!(found.refresh * 2 >= found.token);
            let uncapped = u64::from(found.token) + token.jitter.as_secs() >= lifetime;
            prop_assert!(uncapped || found.token == most);
        }
    }
}
