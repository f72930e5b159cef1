//! The wait that a limit tells a client is true to the second, after a reload too; a flood of keys costs the others
//! nothing.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::ops::RangeInclusive;
use std::thread;
use std::time::Duration;

use crate::support::ask::{Ask, counted, reconfigure};
use crate::support::renewd::{DEADLINE, Renewd, Settings};
use renewd::terms::clock::Clock;

const SECOND: Duration = Duration::from_secs(1);

fn subject(quota: &str) -> Settings {
    Settings {
        tables: format!("[rate_limit]\nsubject = {quota}\n"),
        ..Settings::default()
    }
}

/// Is refused once and then asks over and over: each answer that can't be earlier than `Retry-After` says must be a
/// token, each that can't be later than a second less must be a refusal. Ends with the first token.
fn waits_as_told(renewd: &Renewd, quota: &str) {
    let ask = Ask::viewer("viewer", 7);
    let mut client = renewd.client();
    let clock = Clock::system();
    let before = clock.elapsed();
    let refused = ask.send_on(&mut client);
    let after = clock.elapsed();
    assert_eq!(refused.status, 429, "{quota}");
    let told = refused.header("retry-after").unwrap().parse().unwrap();
    let told = Duration::from_secs(told);
    for _ in 0..DEADLINE.as_millis() / 10 {
        let sent = clock.elapsed();
        let status = ask.send_on(&mut client).status;
        let received = clock.elapsed();
        if received + SECOND < before + told {
            assert_eq!(status, 429, "{quota}: a second early of {told:?}");
        }
        if sent >= after + told {
            assert_eq!(status, 200, "{quota}: waited {told:?} as told");
        }
        if status == 200 {
            return;
        }
        thread::park_timeout(Duration::from_millis(10));
    }
    panic!("never: a token after {told:?}");
}

#[test]
fn a_client_that_waits_as_told_is_served_whatever_reloads_did_to_the_limit() {
    let first = r#"{ requests = 7, per = "16s", burst = 3 }"#;
    let renewd = Renewd::start(&subject(first));
    for _ in 0..3 {
        assert_eq!(Ask::viewer("viewer", 7).send(&renewd).status, 200);
    }
    waits_as_told(&renewd, first);
    for changed in [
        // The new limit is faster, slower, then narrower.
        r#"{ requests = 7, per = "8s", burst = 3 }"#,
        r#"{ requests = 3, per = "7s", burst = 3 }"#,
        r#"{ requests = 11, per = "13s", burst = 1 }"#,
    ] {
        reconfigure(&renewd, &subject(changed));
        waits_as_told(&renewd, changed);
    }
}

#[test]
fn a_stricter_limit_does_not_forget_what_the_laxer_one_would_have_forgotten_by_now() {
    let lax = r#"{ requests = 4, per = "1s", burst = 5 }"#;
    let renewd = Renewd::start(&subject(lax));
    let ask = || Ask::viewer("viewer", 7).send(&renewd).status;
    let clock = Clock::system();
    let spent = (0..1000).any(|_| ask() == 429);
    assert!(spent);
    let then = clock.elapsed();
    let strict = r#"{ requests = 1, per = "1h", burst = 5 }"#;
    reconfigure(&renewd, &subject(strict));
    let changed = clock.elapsed();
    // The subject has the requests that came back before the change, one every 250 ms, and not the five that the lax
    // limit would give by now.
    let back = changed.saturating_sub(then).as_millis() / 250 + 1;
    let mut passed = 0;
    while clock.elapsed() < changed + SECOND * 3 / 2 {
        passed += u128::from(ask() == 200);
        thread::park_timeout(Duration::from_millis(10));
    }
    assert!(passed <= back, "{passed} passed, {back} came back");
    assert_eq!(ask(), 429);
}

/// A guess from a network of `2001:db8:ff::/48`, as the load balancer in front hands it on.
fn guess(network: u16, bytes: &mut String) {
    let _ = write!(
        bytes,
        "POST /api/live/token HTTP/1.1\r\nHost: example.com\r\nAuthorization: Bearer no.such.token\r\n\
         X-Forwarded-For: 2001:db8:ff:{network:x}::1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
    );
}

/// Sends a guess from each network of these blocks of 256, and counts the answers 401 and 429.
fn flood(renewd: &Renewd, blocks: RangeInclusive<u8>) -> (usize, usize) {
    let mut connection = TcpStream::connect(renewd.public).unwrap();
    connection.set_nodelay(true).unwrap();
    connection.set_read_timeout(Some(DEADLINE)).unwrap();
    let (mut refused, mut limited) = (0, 0);
    for block in blocks {
        let mut requests = String::new();
        for network in 0..=u8::MAX {
            guess(u16::from_be_bytes([block, network]), &mut requests);
        }
        connection.write_all(requests.as_bytes()).unwrap();
        let mut answers = Vec::new();
        let mut buffer = [0; 16 * 1024];
        let bodies =
            |answers: &[u8]| memchr::memmem::find_iter(answers, b"\"success\":false").count();
        while bodies(&answers) < 256 {
            let length = connection.read(&mut buffer).unwrap();
            assert_ne!(length, 0, "the connection is closed");
            answers.extend_from_slice(&buffer[..length]);
        }
        let of = |line: &[u8]| memchr::memmem::find_iter(&answers, line).count();
        refused += of(b"HTTP/1.1 401 ");
        limited += of(b"HTTP/1.1 429 ");
    }
    (refused, limited)
}

#[test]
fn a_flood_from_a_48_takes_no_more_keys_than_allowed_and_nothing_from_those_who_were_there() {
    const MOST: usize = 1000;
    let renewd = Renewd::start(&Settings {
        server: "trusted_proxies = [\"127.0.0.0/8\"]".to_owned(),
        log: "audit = \"off\"".to_owned(),
        tables: format!(
            "[rate_limit]\nmax_keys = {MOST}\nsubject = \"off\"\naddress = {{ requests = 1, per = \"1h\", burst = 3 }}\n"
        ),
        ..Settings::default()
    });
    let from = |address: &str| {
        let ask = Ask {
            headers: format!("X-Forwarded-For: {address}\r\n"),
            ..Ask::viewer("viewer", 7).bearer("no.such.token")
        };
        ask.send(&renewd).status
    };
    assert_eq!([from("192.0.2.1"), from("192.0.2.1")], [401, 401]);
    assert_eq!(
        [from("192.0.2.2"), from("192.0.2.2"), from("192.0.2.2")],
        [401; 3]
    );

    // All but two keys have a bucket of their own, of three; the next three come out of the bucket for all others.
    let own = MOST - 2;
    assert_eq!(flood(&renewd, 0..=15), (own + 3, 16 * 256 - own - 3));
    assert_eq!(flood(&renewd, 0..=3), (own, 4 * 256 - own));
    renewd.eventually("the gauges are renewed", |renewd| {
        let of = |name: &str| {
            counted(
                renewd,
                &format!(r#"renewd_rate_limit_{name}{{scope="address"}}"#),
            )
        };
        (of("keys"), of("overflow_total")) == (1000, 3)
    });

    // Each network owes what it owed before, and a viewer that guesses nothing isn't limited.
    assert_eq!(
        [from("192.0.2.1"), from("192.0.2.1"), from("192.0.2.2")],
        [401, 429, 429]
    );
    let viewer = Ask {
        headers: "X-Forwarded-For: 2001:db8:ff:1::1\r\n".to_owned(),
        ..Ask::viewer("viewer", 7)
    };
    assert_eq!(viewer.send(&renewd).status, 200);
}
