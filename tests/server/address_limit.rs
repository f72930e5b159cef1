//! The address limit: a caller that guesses logins is stopped, and no caller with a valid login is.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail

use crate::support::ask::{Ask, counted, reconfigure};
use crate::support::raw::Client;
use crate::support::renewd::{Renewd, Settings};

fn settings(quota: &str) -> Settings {
    Settings {
        server: "trusted_proxies = [\"127.0.0.0/8\"]".to_owned(),
        tables: format!("[rate_limit]\nsubject = \"off\"\naddress = {quota}\n"),
        ..Settings::default()
    }
}

const THREE: &str = r#"{ requests = 1, per = "1h", burst = 3 }"#;

fn from(address: &str, ask: Ask) -> Ask {
    Ask {
        headers: format!("X-Forwarded-For: {address}\r\n"),
        ..ask
    }
}

fn guess() -> Ask {
    Ask::viewer("viewer", 7).bearer("no.such.token")
}

fn refused(renewd: &Renewd) -> u64 {
    counted(renewd, r#"renewd_rate_limited_total{scope="address"}"#)
}

#[test]
fn only_answers_400_401_413_and_415_are_charged() {
    let renewd = Renewd::start(&settings(r#"{ requests = 1, per = "1h", burst = 4 }"#));
    let viewer = Ask::viewer("viewer", 7);
    let statuses =
        |asks: &[Ask]| -> Vec<u16> { asks.iter().map(|ask| ask.send(&renewd).status).collect() };
    let free = [
        viewer.clone(),
        Ask::viewer("troll", 8),
        Ask::viewer("another", 7),
        Ask::text("viewer", r#"{"channelName":"nowhere","uid":7}"#),
        Ask::text(
            "viewer",
            r#"{"channelName":"live_show","uid":7,"role":"host"}"#,
        ),
    ];
    for _ in 0..3 {
        assert_eq!(statuses(&free), [200, 403, 409, 404, 403]);
    }
    let charging = [
        guess(),
        Ask::text("viewer", "{"),
        Ask::text("viewer", &" ".repeat(17_000)),
        Ask {
            media_type: String::new(),
            ..viewer
        },
    ];
    // All four requests were within the limit, and none is any more.
    assert_eq!(statuses(&charging), [401, 400, 413, 415]);
    assert_eq!(statuses(&charging), [429; 4]);
    assert_eq!(refused(&renewd), 4);
    assert_eq!(statuses(&free), [200, 403, 409, 404, 403]);
}

#[test]
fn everyone_behind_one_address_is_served_while_one_of_them_guesses() {
    let renewd = Renewd::start(&settings(THREE));
    let mut client = Client::new(renewd.public);
    for _ in 0..3 {
        assert_eq!(guess().send_on(&mut client).status, 401);
    }
    for uid in 1..=50 {
        assert_eq!(guess().send_on(&mut client).status, 429);
        let viewer = Ask::viewer(&format!("viewer-{uid}"), uid);
        assert_eq!(viewer.send_on(&mut client).status, 200);
    }
    let limited = client.send(&guess().bytes()).unwrap();
    assert_eq!(limited.header("ratelimit-limit"), Some("3"));
    assert_eq!(limited.header("ratelimit-remaining"), Some("0"));
    let number = |name| limited.header(name).unwrap().parse::<u64>().unwrap();
    assert!(number("retry-after") <= 3600);
    assert!(number("ratelimit-reset") >= number("retry-after"));
}

#[test]
fn the_address_is_the_clients_not_the_load_balancers() {
    let renewd = Renewd::start(&settings(THREE));
    for _ in 0..3 {
        assert_eq!(from("192.0.2.1", guess()).send(&renewd).status, 401);
    }
    assert_eq!(from("192.0.2.1", guess()).send(&renewd).status, 429);
    // The client writes what stands left of the address that the load balancer saw.
    let pretending = from("198.51.100.9, 192.0.2.1", guess());
    assert_eq!(pretending.send(&renewd).status, 429);
    assert_eq!(from("192.0.2.2", guess()).send(&renewd).status, 401);
    // One household: the same /64. Another: the next.
    for host in ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:3"] {
        assert_eq!(from(host, guess()).send(&renewd).status, 401);
    }
    assert_eq!(from("2001:db8::4", guess()).send(&renewd).status, 429);
    assert_eq!(from("2001:db8:0:1::1", guess()).send(&renewd).status, 401);
}

#[test]
fn a_changed_limit_forgives_no_debt() {
    let renewd = Renewd::start(&settings(THREE));
    for _ in 0..3 {
        assert_eq!(guess().send(&renewd).status, 401);
    }
    assert_eq!(guess().send(&renewd).status, 429);
    reconfigure(
        &renewd,
        &settings(r#"{ requests = 1, per = "1h", burst = 2 }"#),
    );
    let limited = guess().send(&renewd);
    assert_eq!(limited.status, 429);
    assert_eq!(limited.header("ratelimit-limit"), Some("2"));
    // A limit that is switched off stops at once; when it is on again, the debt is still known.
    reconfigure(&renewd, &settings("\"off\""));
    assert_eq!(guess().send(&renewd).status, 401);
    reconfigure(&renewd, &settings(THREE));
    assert_eq!(guess().send(&renewd).status, 429);
}

#[test]
fn observing_charges_no_address() {
    let renewd = Renewd::start(&Settings {
        tables: format!("[decision]\nmode = \"observe\"\n{}", settings(THREE).tables),
        ..settings(THREE)
    });
    // The backend's port refuses connections.
    for _ in 0..5 {
        assert_eq!(guess().send(&renewd).status, 502);
    }
    assert_eq!(refused(&renewd), 0);
    reconfigure(&renewd, &settings(THREE));
    for _ in 0..3 {
        assert_eq!(guess().send(&renewd).status, 401);
    }
    assert_eq!(guess().send(&renewd).status, 429);
}
