//! Rate limits, case by case: debts, scopes, overflow, and changed quotas.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::config::model::{OnStoreError, Quota};

const SECOND: Duration = Duration::from_secs(1);

/// `requests` a minute.
fn quota(requests: u32, burst: u32) -> Quota {
    Quota {
        requests,
        per: Duration::from_mins(1),
        burst,
    }
}

fn off() -> RateLimit {
    RateLimit {
        max_keys: 1000,
        on_store_error: OnStoreError::Local,
        subject: None,
        address: None,
        channel: None,
        global: None,
    }
}

fn by_subject(quota: Quota) -> RateLimit {
    RateLimit {
        subject: Some(quota),
        ..off()
    }
}

fn clock() -> Clock {
    Clock::manual(1_700_000_000)
}

fn take(limiter: &Limiter, subject: &str) -> Result<(), LimitExceeded> {
    limiter.check_local(subject, "channel", false, Charge::Take)
}

/// How many requests of a subject pass before the first refusal.
fn passing(limiter: &Limiter, subject: &str) -> usize {
    (0..10_000)
        .take_while(|_| take(limiter, subject).is_ok())
        .count()
}

#[test]
fn without_limits_everything_passes_and_nothing_is_kept() {
    let limiter = Limiter::new(&off(), clock(), None);
    assert_eq!(passing(&limiter, "a"), 10_000);
    assert_eq!(limiter.charge_address(Ipv4Addr::LOCALHOST.into()), Ok(()));
    for scope in Scope::ALL {
        assert_eq!(limiter.keys(scope), 0);
    }
}

#[test]
fn burst_is_the_capacity_from_rest_and_then_the_rate_counts() {
    let clock = clock();
    let limiter = Limiter::new(&by_subject(quota(60, 20)), clock.clone(), None);
    assert_eq!(passing(&limiter, "a"), 20);
    for _ in 0..5 {
        clock.advance(SECOND);
        assert_eq!(passing(&limiter, "a"), 1);
    }
    clock.advance(SECOND * 7);
    assert_eq!(passing(&limiter, "a"), 7);
    clock.advance(SECOND * 3600);
    assert_eq!(passing(&limiter, "a"), 20);
}

#[test]
fn a_refusal_says_when_one_request_and_when_all_would_pass() {
    let clock = clock();
    let limiter = Limiter::new(&by_subject(quota(60, 20)), clock.clone(), None);
    passing(&limiter, "a");
    clock.advance(Duration::from_millis(250));
    assert_eq!(
        take(&limiter, "a"),
        Err(LimitExceeded {
            scope: Scope::Subject,
            retry_after: Duration::from_millis(750),
            limit: 20,
            remaining: 0,
            reset: Duration::from_millis(19_750),
        })
    );
    clock.advance(Duration::from_millis(750));
    assert_eq!(take(&limiter, "a"), Ok(()));
}

#[test]
fn subjects_do_not_pay_for_each_other() {
    let limiter = Limiter::new(&by_subject(quota(60, 2)), clock(), None);
    assert_eq!(passing(&limiter, "a"), 2);
    assert_eq!(passing(&limiter, "b"), 2);
    assert_eq!(limiter.keys(Scope::Subject), 2);
}

#[test]
fn a_refusal_by_any_scope_charges_no_scope() {
    let all = RateLimit {
        subject: Some(quota(1, 10)),
        channel: Some(quota(1, 10)),
        global: Some(quota(1, 3)),
        ..off()
    };
    let limiter = Limiter::new(&all, clock(), None);
    for _ in 0..3 {
        assert_eq!(take(&limiter, "a"), Ok(()));
    }
    for _ in 0..50 {
        assert_eq!(take(&limiter, "a").unwrap_err().scope, Scope::Global);
        assert_eq!(take(&limiter, "new").unwrap_err().scope, Scope::Global);
    }
    assert_eq!(
        limiter.keys(Scope::Subject),
        1,
        "a refused subject is not remembered"
    );
    let without_global = RateLimit {
        global: None,
        ..all
    };
    let limiter = Limiter::new(&without_global, limiter.clock.clone(), Some(&limiter));
    assert_eq!(passing(&limiter, "a"), 7, "three were charged of ten");
    assert_eq!(take(&limiter, "a").unwrap_err().scope, Scope::Subject);
    assert_eq!(take(&limiter, "b").unwrap_err().scope, Scope::Channel);
}

#[test]
fn renewals_count_for_the_subject_alone() {
    let config = RateLimit {
        subject: Some(quota(1, 5)),
        channel: Some(quota(1, 1)),
        global: Some(quota(1, 1)),
        ..off()
    };
    let limiter = Limiter::new(&config, clock(), None);
    assert_eq!(take(&limiter, "a"), Ok(()));
    assert_eq!(take(&limiter, "b").unwrap_err().scope, Scope::Channel);
    for _ in 0..4 {
        assert_eq!(
            limiter.check_local("a", "channel", true, Charge::Take),
            Ok(())
        );
    }
    let refused = limiter.check_local("a", "channel", true, Charge::Take);
    assert_eq!(refused.unwrap_err().scope, Scope::Subject);
}

#[test]
fn a_peek_gives_the_verdict_and_charges_nothing() {
    let limiter = Limiter::new(&by_subject(quota(60, 1)), clock(), None);
    let peek = || limiter.check_local("a", "channel", false, Charge::Peek);
    assert_eq!((peek(), peek()), (Ok(()), Ok(())));
    assert_eq!(limiter.keys(Scope::Subject), 0);
    assert_eq!(take(&limiter, "a"), Ok(()));
    assert_eq!(peek(), take(&limiter, "a"));
    assert!(peek().is_err());
}

#[test]
fn an_address_is_charged_by_guesses_until_it_is_in_debt() {
    let clock = clock();
    let config = RateLimit {
        address: Some(quota(60, 3)),
        ..off()
    };
    let limiter = Limiter::new(&config, clock.clone(), None);
    let guesser = IpAddr::from([192, 0, 2, 1]);
    for _ in 0..3 {
        assert_eq!(limiter.admit_address(guesser).err(), None);
        assert_eq!(limiter.charge_address(guesser), Ok(()));
    }
    let refused = limiter.admit_address(guesser).err().unwrap();
    assert_eq!(refused.scope, Scope::Address);
    assert_eq!(limiter.charge_address(guesser), Err(refused));
    assert_eq!(
        limiter.admit_address(IpAddr::from([192, 0, 2, 2])).err(),
        None
    );
    clock.advance(SECOND);
    assert_eq!(
        limiter.admit_address(guesser).err(),
        None,
        "refusals were not charged"
    );
}

#[test]
fn ipv6_counts_as_its_64_and_mapped_ipv4_as_ipv4() {
    let key = |text: &str| bucket(text.parse().unwrap());
    assert_eq!(
        key("2001:db8:1:2::1"),
        key("2001:db8:1:2:ffff:ffff:ffff:ffff")
    );
    assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
    assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
    assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    assert_ne!(
        bucket(Ipv6Addr::UNSPECIFIED.into()),
        bucket(Ipv4Addr::UNSPECIFIED.into())
    );
}

#[test]
fn a_slower_rate_forgets_no_debt() {
    let clock = clock();
    let fast = Limiter::new(&by_subject(quota(600, 20)), clock.clone(), None);
    assert_eq!(passing(&fast, "a"), 20);
    let slow = Limiter::new(&by_subject(quota(6, 20)), clock.clone(), Some(&fast));
    assert_eq!(take(&slow, "a").unwrap_err().retry_after, SECOND * 10);
    assert_eq!(passing(&slow, "b"), 20);
}

#[test]
fn a_faster_rate_applies_to_the_next_request() {
    let clock = clock();
    let slow = Limiter::new(&by_subject(quota(6, 20)), clock.clone(), None);
    assert_eq!(passing(&slow, "a"), 20);
    let fast = Limiter::new(&by_subject(quota(60, 20)), clock.clone(), Some(&slow));
    assert_eq!(take(&fast, "a").unwrap_err().retry_after, SECOND);
}

#[test]
fn a_changed_burst_keeps_what_was_used() {
    let clock = clock();
    let narrow = Limiter::new(&by_subject(quota(60, 5)), clock.clone(), None);
    assert_eq!(passing(&narrow, "a"), 5);
    let wide = Limiter::new(&by_subject(quota(60, 20)), clock.clone(), Some(&narrow));
    assert_eq!(passing(&wide, "a"), 15);
    let narrow = Limiter::new(&by_subject(quota(60, 5)), clock.clone(), Some(&wide));
    let refused = take(&narrow, "a").unwrap_err();
    assert_eq!(
        refused.retry_after, SECOND,
        "no key owes more than the whole capacity"
    );
    assert_eq!((refused.limit, refused.reset), (5, SECOND * 5));
}

#[test]
fn debts_outlive_a_time_without_the_limit() {
    let clock = clock();
    let config = by_subject(quota(60, 5));
    let first = Limiter::new(&config, clock.clone(), None);
    assert_eq!(passing(&first, "a"), 5);
    let without = Limiter::new(&off(), clock.clone(), Some(&first));
    assert_eq!(take(&without, "a"), Ok(()));
    clock.advance(SECOND * 2);
    let again = Limiter::new(&config, clock.clone(), Some(&without));
    assert_eq!(passing(&again, "a"), 2);
}

#[test]
fn when_full_new_keys_share_one_bucket_and_known_ones_keep_theirs() {
    let config = RateLimit {
        max_keys: 3,
        ..by_subject(quota(60, 4))
    };
    let limiter = Limiter::new(&config, clock(), None);
    for subject in ["a", "b", "c"] {
        assert_eq!(take(&limiter, subject), Ok(()));
    }
    assert_eq!(passing(&limiter, "d"), 4);
    assert_eq!(passing(&limiter, "e"), 0, "it shares what d used up");
    assert_eq!(passing(&limiter, "a"), 3);
    assert_eq!(limiter.keys(Scope::Subject), 3);
    assert_eq!(limiter.overflow(Scope::Subject), 4);
}

#[test]
fn sweeping_forgets_only_keys_at_rest() {
    let clock = clock();
    let limiter = Limiter::new(&by_subject(quota(60, 20)), clock.clone(), None);
    for number in 0..900 {
        assert_eq!(take(&limiter, &number.to_string()), Ok(()));
    }
    assert_eq!(passing(&limiter, "debtor"), 20);
    let sweep_all = || (0..256).map(|_| limiter.sweep_slice()).sum::<usize>();
    assert_eq!(sweep_all(), 0);
    clock.advance(SECOND);
    assert_eq!(sweep_all(), 900);
    assert_eq!(limiter.keys(Scope::Subject), 1);
    assert_eq!(passing(&limiter, "debtor"), 1);
    clock.advance(SECOND * 20);
    assert_eq!(sweep_all(), 1);
    assert_eq!(limiter.keys(Scope::Subject), 0);
}

#[test]
fn threads_together_never_get_more_than_the_capacity() {
    let config = RateLimit {
        max_keys: 50,
        on_store_error: OnStoreError::Local,
        subject: Some(quota(1, 100)),
        channel: Some(quota(1, 300)),
        global: Some(quota(1, 500)),
        address: None,
    };
    let limiter = Limiter::new(&config, clock(), None);
    let admitted: [AtomicU32; 4] = Default::default();
    thread::scope(|scope| {
        for thread in 0..4 {
            let (limiter, admitted) = (&limiter, &admitted);
            scope.spawn(move || {
                for turn in 0..2000_usize {
                    let who = (turn + thread) % 4;
                    let channel = if who < 2 { "x" } else { "y" };
                    let subject = format!("{who}-{}", turn % 3);
                    if limiter
                        .check_local(&subject, channel, false, Charge::Take)
                        .is_ok()
                    {
                        admitted[who].fetch_add(1, Ordering::Relaxed);
                    }
                    limiter.sweep_slice();
                    assert!(limiter.keys(Scope::Subject) <= 50);
                }
            });
        }
    });
    let [a, b, c, d] = admitted.map(AtomicU32::into_inner);
    assert!(a + b <= 300 && c + d <= 300, "{a} {b} {c} {d}");
    assert_eq!(a + b + c + d, 500, "exactly the global capacity");
    assert_eq!(limiter.keys(Scope::Subject), 12);
}

#[test]
fn extreme_quotas_neither_panic_nor_refuse_the_first_request() {
    let durations = [Duration::from_nanos(1), SECOND, Duration::MAX];
    for per in durations {
        for requests in [1, 7, u32::MAX] {
            for burst in [1, u32::MAX] {
                let quota = Quota {
                    requests,
                    per,
                    burst,
                };
                let clock = clock();
                let limiter = Limiter::new(&by_subject(quota), clock.clone(), None);
                assert_eq!(take(&limiter, "a"), Ok(()), "{quota:?}");
                clock.advance(Duration::from_secs(u64::from(u32::MAX)));
                let _either = take(&limiter, "a");
                let other = Limiter::new(&by_subject(self::quota(60, 20)), clock, Some(&limiter));
                assert!(passing(&other, "a") <= 20);
            }
        }
    }
}

/// Whole seconds, as the header fields say them.
fn rounded_up(wait: Duration) -> Duration {
    SECOND * u32::try_from(wait.as_nanos().div_ceil(SECOND.as_nanos())).unwrap()
}

#[test]
fn who_waits_as_told_passes_and_who_waits_a_second_less_does_not() {
    for (requests, per, burst) in [
        (7, 60, 1),
        (7, 60, 3),
        (7, 60, 20),
        (13, 3600, 5),
        (11, 86_400, 2),
        (59, 61, 4),
        (3, 10, 7),
        (1, 3, 1),
    ] {
        let quota = Quota {
            requests,
            per: SECOND * per,
            burst,
        };
        // Whenever within a second the client asks.
        for millis in [0, 1, 333, 500, 857, 999] {
            let clock = clock();
            let limiter = Limiter::new(&by_subject(quota), clock.clone(), None);
            clock.advance(Duration::from_millis(millis));
            assert_eq!(passing(&limiter, "a"), usize::try_from(burst).unwrap());
            clock.advance(Duration::from_millis(millis));
            let Err(refused) = take(&limiter, "a") else {
                continue;
            };
            let retry_after = rounded_up(refused.retry_after);
            clock.advance(retry_after.saturating_sub(SECOND));
            let early = take(&limiter, "a");
            assert_eq!(
                early.unwrap_err().reset,
                (refused.reset + SECOND).saturating_sub(retry_after)
            );
            clock.advance(SECOND);
            let peek = limiter.check_local("a", "channel", false, Charge::Peek);
            assert_eq!(peek, Ok(()), "{quota:?} {millis}");
            clock.advance(rounded_up(refused.reset).saturating_sub(retry_after));
            assert_eq!(passing(&limiter, "a"), usize::try_from(burst).unwrap());
        }
    }
}

#[test]
fn after_a_change_too_who_waits_as_told_passes_and_nobody_earlier() {
    let quotas = [
        quota(60, 20),
        quota(7, 20),
        quota(600, 20),
        quota(60, 5),
        quota(13, 3),
    ];
    let millisecond = Duration::from_millis(1);
    for before in quotas {
        for after in quotas {
            let clock = clock();
            let limiter = Limiter::new(&by_subject(before), clock.clone(), None);
            passing(&limiter, "a");
            clock.advance(millisecond * 10);
            let limiter = Limiter::new(&by_subject(after), clock.clone(), Some(&limiter));
            let Err(refused) = take(&limiter, "a") else {
                assert!(before.burst < after.burst);
                continue;
            };
            for _ in 1..refused.retry_after.as_nanos().div_ceil(1_000_000) {
                clock.advance(millisecond);
                let forgotten = limiter.sweep_slice() > 0 || take(&limiter, "a").is_ok();
                assert!(!forgotten, "{before:?} {after:?}: too early");
            }
            clock.advance(millisecond);
            assert_eq!(take(&limiter, "a"), Ok(()), "{before:?} {after:?}");
        }
    }
}

#[test]
fn a_debt_is_paid_at_the_rate_of_the_limit_in_force_and_not_swept_before() {
    let clock = clock();
    let fast = Limiter::new(&by_subject(quota(600, 20)), clock.clone(), None);
    assert_eq!(passing(&fast, "a"), 20);
    let slow = Limiter::new(&by_subject(quota(6, 20)), clock.clone(), Some(&fast));
    // By now the fast limit would have forgotten everything.
    clock.advance(SECOND * 5);
    assert_eq!((0..256).map(|_| slow.sweep_slice()).sum::<usize>(), 0);
    assert_eq!(take(&slow, "a").unwrap_err().retry_after, SECOND * 5);
    clock.advance(SECOND * 15);
    let off = Limiter::new(&off(), clock.clone(), Some(&slow));
    clock.advance(SECOND * 10);
    assert_eq!((0..256).map(|_| off.sweep_slice()).sum::<usize>(), 0);
    let fast = Limiter::new(&by_subject(quota(600, 20)), clock.clone(), Some(&off));
    assert_eq!(passing(&fast, "a"), 3, "30 seconds at one in ten");
    clock.advance(SECOND * 2);
    assert_eq!((0..256).map(|_| fast.sweep_slice()).sum::<usize>(), 1);
}

#[test]
fn a_request_that_began_before_a_reload_neither_forgives_nor_invents_a_debt() {
    let clock = clock();
    let old = Limiter::new(&by_subject(quota(600, 20)), clock.clone(), None);
    assert_eq!((0..12).filter(|_| take(&old, "a").is_ok()).count(), 12);
    let new = Limiter::new(&by_subject(quota(6, 20)), clock.clone(), Some(&old));
    assert_eq!((0..3).filter(|_| take(&new, "a").is_ok()).count(), 3);
    assert_eq!(take(&old, "a"), Ok(()), "the old limit reads the new debts");
    assert_eq!(passing(&new, "a"), 4);
    let refused = take(&old, "a").unwrap_err();
    assert_eq!(refused.retry_after, Duration::from_millis(100));
}

#[test]
fn however_often_a_limit_changes_what_is_remembered_of_it_is_bounded() {
    let clock = clock();
    let mut limiter = Limiter::new(&by_subject(quota(1, 20)), clock.clone(), None);
    assert_eq!(passing(&limiter, "a"), 20);
    for turn in 0..1000 {
        let changed = by_subject(quota(1 + turn % 2, 20));
        limiter = Limiter::new(&changed, clock.clone(), Some(&limiter));
    }
    assert!(take(&limiter, "a").is_err(), "no change paid it");
    let refused = take(&limiter, "a").unwrap_err();
    assert!(refused.retry_after <= SECOND * 60, "{refused:?}");
}

/// The networks of `2001:db8:ff::/48`.
fn networks() -> impl Iterator<Item = IpAddr> {
    (0..=u16::MAX).map(|network| Ipv6Addr::from([0x2001, 0xdb8, 0xff, network, 0, 0, 0, 1]).into())
}

#[test]
fn a_flood_from_every_network_of_a_48_costs_the_others_nothing() {
    let known = IpAddr::from([192, 0, 2, 1]);
    for (max_keys, own) in [(1_000_000, 65_536), (65_537, 65_536), (1000, 999), (1, 0)] {
        let clock = clock();
        let config = RateLimit {
            max_keys,
            address: Some(quota(1, 3)),
            ..off()
        };
        let limiter = Limiter::new(&config, clock.clone(), None);
        for _ in 0..2 {
            assert_eq!(limiter.charge_address(known), Ok(()));
        }
        let mut charged = 0_u64;
        for network in networks() {
            charged += u64::from(limiter.charge_address(network).is_ok());
            assert!(limiter.keys(Scope::Address) <= max_keys);
        }
        // Each key of its own, and the shared bucket's three for the others.
        let shared = if own < 65_536 { 3 } else { 0 };
        assert_eq!(
            (charged, limiter.overflow(Scope::Address)),
            (own + shared, shared)
        );
        assert_eq!(limiter.charge_address(known), Ok(()), "the last of three");
        assert!(limiter.charge_address(known).is_err(), "its debt is known");
        // Networks that were there before the table was full keep what they owe, and what is left to them.
        let owes = |network: &IpAddr| limiter.charge_address(*network).is_ok();
        let left = networks().take(usize::try_from(own).unwrap()).filter(owes);
        assert_eq!(u64::try_from(left.count()).unwrap(), own);

        // When the debts are paid, all that memory is free again, and newcomers have buckets of their own.
        clock.advance(SECOND * 240);
        let swept: usize = (0..256).map(|_| limiter.sweep_slice()).sum();
        assert_eq!(
            (swept, limiter.keys(Scope::Address)),
            (max_keys.min(65_537), 0)
        );
        assert_eq!(limiter.charge_address(IpAddr::from([192, 0, 2, 9])), Ok(()));
        assert_eq!(limiter.overflow(Scope::Address), shared);
    }
}

#[test]
fn fewer_keys_after_a_reload_forget_no_debt_and_more_take_newcomers_again() {
    let clock = clock();
    let keys = |max_keys| RateLimit {
        max_keys,
        ..by_subject(quota(1, 2))
    };
    let limiter = Limiter::new(&keys(10), clock.clone(), None);
    for subject in 0..10 {
        assert_eq!(passing(&limiter, &subject.to_string()), 2);
    }
    let fewer = Limiter::new(&keys(3), clock.clone(), Some(&limiter));
    for subject in 0..10 {
        assert_eq!(passing(&fewer, &subject.to_string()), 0);
    }
    assert_eq!(passing(&fewer, "new") + passing(&fewer, "newer"), 2);
    let more = Limiter::new(&keys(12), clock.clone(), Some(&fewer));
    assert_eq!(passing(&more, "newest"), 2);
    assert_eq!(more.keys(Scope::Subject), 11);
}

#[test]
fn a_sweep_forgets_no_debt_that_a_narrow_limit_cannot_count() {
    let clock = clock();
    let wide = Limiter::new(&by_subject(quota(60, 5)), clock.clone(), None);
    assert_eq!(passing(&wide, "a"), 5);
    let narrow = Limiter::new(&by_subject(quota(60, 1)), clock.clone(), Some(&wide));
    clock.advance(SECOND);
    for _ in 0..256 {
        narrow.sweep_slice();
    }
    let wide = Limiter::new(&by_subject(quota(60, 5)), clock.clone(), Some(&narrow));
    assert_eq!(passing(&wide, "a"), 1);
}

proptest! {
    /// Compares the debts with ones that are counted in exact fractions of a request, while limits come and go and
    /// paid debts are swept.
    #[test]
    fn changes_of_a_limit_pay_no_debt(
        steps in prop::collection::vec((1_u32..7, 1_u32..20, 0_u64..9000, any::<bool>()), 1..24),
    ) {
        /// The debt of one request, in units of which a limit of one a minute pays one each millisecond.
        const REQUEST: u64 = 60_000;
        let clock = clock();
        let mut limiter = Limiter::new(&off(), clock.clone(), None);
        let mut last = None;
        // All that is owed, and what of it the limit in force, with its capacity, can count.
        let (mut owed, mut counted) = (0_u64, 0_u64);
        for (requests, burst, wait, off_between) in steps {
            let quota = quota(requests, burst);
            if off_between {
                limiter = Limiter::new(&off(), clock.clone(), Some(&limiter));
            }
            limiter = Limiter::new(&by_subject(quota), clock.clone(), Some(&limiter));
            let whole = u64::from(burst) * REQUEST;
            if last.replace(quota) != Some(quota) {
                counted = owed.min(whole);
            }
            match take(&limiter, "a") {
                Ok(()) => {
                    prop_assert!(counted + REQUEST <= whole, "{counted} of {whole}");
                    counted += REQUEST;
                    owed = counted;
                }
                Err(refused) => {
                    let wait = (counted + REQUEST).saturating_sub(whole) * 1_000_000;
                    let wait = Duration::from_nanos(wait.div_ceil(u64::from(requests)));
                    // Each change may have left a fraction of a nanosecond.
                    let difference = refused.retry_after.abs_diff(wait);
                    prop_assert!(difference < Duration::from_micros(1), "{refused:?} {wait:?}");
                }
            }
            clock.advance(Duration::from_millis(wait));
            let paid = wait * u64::from(requests);
            (owed, counted) = (owed.saturating_sub(paid), counted.saturating_sub(paid));
            for _ in 0..256 {
                limiter.sweep_slice();
            }
        }
    }

    /// Compares the limiter with a token bucket that is counted in exact fractions of a request.
    #[test]
    fn admits_what_a_token_bucket_admits(
        requests in 1_u32..100,
        burst in 1_u32..20,
        steps in prop::collection::vec((0_u64..5000, any::<bool>()), 1..200),
    ) {
        let clock = clock();
        // The period divides evenly, so that neither side rounds.
        let quota = Quota { requests, per: SECOND * requests, burst };
        let limiter = Limiter::new(&by_subject(quota), clock.clone(), None);
        let full = u64::from(burst) * 1000;
        let mut level = full;
        for (wait, charged) in steps {
            clock.advance(Duration::from_millis(wait));
            level = (level + wait).min(full);
            let charge = if charged { Charge::Take } else { Charge::Peek };
            let verdict = limiter.check_local("a", "channel", false, charge);
            prop_assert_eq!(verdict.is_ok(), level >= 1000);
            if let Err(refused) = verdict {
                prop_assert_eq!(refused.retry_after, Duration::from_millis(1000 - level));
                prop_assert_eq!(refused.reset, Duration::from_millis(full - level));
            } else if charged {
                level -= 1000;
            }
        }
    }

    /// Whatever limits come and go, a change gives no key more requests than were left or than fit.
    #[test]
    fn a_change_gives_no_key_a_fresh_bucket(
        first in (1_u32..1000, 1_u32..50),
        second in (1_u32..1000, 1_u32..50),
        used in 0_usize..50,
    ) {
        let clock = clock();
        let before = Limiter::new(&by_subject(quota(first.0, first.1)), clock.clone(), None);
        let used = (0..used).filter(|_| take(&before, "a").is_ok()).count();
        let after = Limiter::new(&by_subject(quota(second.0, second.1)), clock, Some(&before));
        let capacity = usize::try_from(second.1).unwrap();
        let left = passing(&after, "a");
        prop_assert_eq!(left, capacity.saturating_sub(used));
    }
}
