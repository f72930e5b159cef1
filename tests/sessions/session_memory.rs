//! A million sessions in at most 220 MiB: what the process holds in memory, with the daemon's own allocator. Debug
//! build and release take the same. 16 bytes of each session are for the login that it was granted to; without them an
//! outage would let a stolen phone go on.
//!
//! Each case wants a process of its own, which `cargo nextest` gives every test.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::num::NonZeroU64;
use std::time::Duration;

use mimalloc::MiMalloc;
use renewd::logins::remembered::Login;
use renewd::sessions::{Basis, Handed, Rules, SWEEPS, SeatRequest, SessionUser, Sessions};
use renewd::terms::clock::Clock;
use renewd::terms::role::Role;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const MILLION: u32 = 1_000_000;
const MOST_MEBIBYTES: u64 = 220;

const RULES: Rules = Rules {
    bind_uid: true,
    max_streams_per_publisher: 1,
    max_session: Duration::from_hours(8),
    claimed: false,
};

/// Resident memory in KiB (`VmRSS`).
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.unwrap().trim().strip_suffix(" kB").unwrap();
    kibibytes.parse().unwrap()
}

/// The name of a Mongo document, as the current app's subjects and channels are called.
fn object_id(kind: u32, number: u32) -> String {
    // Multiplied by an odd number: no two alike, and none like its neighbour.
    let spread = number.wrapping_mul(2_654_435_761);
    format!("{kind:08x}{spread:08x}{number:08x}")
}

fn channel(number: u32) -> String {
    format!("live_{}", object_id(0x65f0_0000, number))
}

/// A uid, a different one for each number.
fn uid(number: u32) -> SessionUser {
    SessionUser::Uid(number.wrapping_mul(2_246_822_519) | 1)
}

struct Table {
    sessions: Sessions,
    before: u64,
}

impl Table {
    fn new() -> Self {
        let before = resident();
        let sessions = Sessions::new(MILLION as usize);
        Self { sessions, before }
    }

    fn grant(&self, number: u32, channels: u32, role: Role, expires: u64) {
        let (channel, subject) = (channel(number % channels), object_id(0x65f1_0000, number));
        let claim = SeatRequest {
            channel: &channel,
            subject: &subject,
            user: &uid(number / channels + 1),
            role,
        };
        // Each login says its session.
        let login = NonZeroU64::new(u64::from(number) + 1).map(Login);
        let basis = Basis::Decided { login };
        self.sessions
            .grant(claim, basis, RULES, 1_800_000_000, expires)
            .unwrap();
    }

    fn holds_a_million_within_bounds(&self, what: &str) {
        let held: usize = Role::ALL.map(|role| self.sessions.count(role)).iter().sum();
        assert_eq!(held, MILLION as usize);
        let mebibytes = resident().saturating_sub(self.before) / 1024;
        println!("{what}: {mebibytes} MiB");
        assert!(mebibytes <= MOST_MEBIBYTES, "{what}: {mebibytes} MiB");
    }
}

const LATER: u64 = 1_800_003_600;

#[test]
fn a_thousand_channels_of_a_thousand_viewers() {
    let table = Table::new();
    for number in 0..MILLION {
        table.grant(
            number,
            1000,
            Role::Subscriber,
            LATER + 3600 * u64::from(number % 2),
        );
    }
    table.holds_a_million_within_bounds("a thousand channels");
    // Half of the viewers leave, and others come: holes must not add up.
    for turn in 0..SWEEPS {
        table.sessions.sweep(turn, LATER + 90);
    }
    for number in MILLION..MILLION + MILLION / 2 {
        table.grant(number, 1000, Role::Subscriber, LATER + 3600);
    }
    table.holds_a_million_within_bounds("after half of them changed");
}

#[test]
fn a_million_publishers_each_in_a_channel_of_their_own() {
    let table = Table::new();
    for number in 0..MILLION {
        table.grant(number, MILLION, Role::Publisher, LATER);
    }
    table.holds_a_million_within_bounds("a channel each");
}

#[test]
fn one_channel_of_a_million_viewers() {
    let table = Table::new();
    for number in 0..MILLION {
        table.grant(number, 1, Role::Subscriber, LATER);
    }
    table.holds_a_million_within_bounds("one channel");
}

/// Callers of a list that hold no session, with 50 channels each; the list changes after every thousandth caller.
#[test]
fn a_million_callers_of_lists_of_fifty_streams() {
    const MOST: u64 = 100;
    let table = Table::new();
    let entry = |number| table.sessions.entry(&channel(number), true);
    let entries: Vec<_> = (0..2 * MILLION / 1000 + 50).map(entry).collect();
    let (clock, mut calls) = (Clock::system(), 0);
    let began = clock.elapsed();
    // Each caller asks twice and is handed another list.
    for round in 0..2 {
        for number in 0..MILLION {
            let changes = usize::try_from((round * MILLION + number) / 1000).unwrap();
            let handed = Handed {
                subject: &object_id(0x65f1_0000, number),
                login: NonZeroU64::new(u64::from(number) + 1).map(Login),
                vouched: true,
                channels: &entries[changes..changes + 50],
                expires: LATER,
            };
            table.sessions.hand(handed, 1_800_000_000);
            calls += 1;
        }
    }
    let each = clock.elapsed().saturating_sub(began) / calls;
    assert_eq!(table.sessions.handed_to(), MILLION as usize);
    let mebibytes = resident().saturating_sub(table.before) / 1024;
    println!("a million callers: {mebibytes} MiB, {each:?} a call");
    assert!(mebibytes <= MOST, "{mebibytes} MiB");
}
