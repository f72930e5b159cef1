//! `upstream.try_duration`: requests that nobody has read wait while the backend is replaced.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod support;

use std::time::Duration;

use support::node::{Node, nobody};
use support::raw::Client;
use support::renewd::{Renewd, Settings};
use support::wire::Wire;

fn settings(node: &Node, lines: &str) -> Settings {
    Settings {
        backend: Some(node.address),
        upstream: lines.to_owned(),
        ..Settings::default()
    }
}

#[test]
fn an_upload_that_nobody_has_read_waits_with_its_body() {
    let mut node = Node::start("new");
    node.kill();
    let renewd = Renewd::start(&settings(&node, "try_duration = \"30s\""));
    let mut wire = Wire::connect(renewd.public);
    wire.send("POST /upload HTTP/1.1\r\nHost: app.example\r\nContent-Length: 10\r\n\r\n01234");
    renewd.eventually("it was tried", |renewd| {
        renewd.ask_admin("GET", "/readyz", "").status == 503
    });
    let _node = node.start_again();
    wire.send("56789");
    let head = wire.until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(wire.until("}").contains("\"length\":10,"));
}

#[test]
fn waiting_ends_and_is_off_by_default() {
    let clock = renewd::clock::Clock::system();
    let asked = |lines: &str| {
        let renewd = Renewd::start(&Settings {
            backend: Some(nobody()),
            upstream: lines.to_owned(),
            ..Settings::default()
        });
        let began = clock.elapsed();
        let answer = Client::new(renewd.public)
            .send(b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\n")
            .unwrap();
        assert_eq!(answer.json()["code"], "upstream_unreachable");
        let series = "renewd_upstream_retries_total";
        let tried = renewd.metrics();
        let tried = tried.lines().find(|line| line.starts_with(series)).unwrap();
        let tried: u32 = tried.rsplit_once(' ').unwrap().1.parse().unwrap();
        (tried, clock.elapsed().saturating_sub(began))
    };
    assert_eq!(asked("").0, 0);
    let (tried, took) = asked("try_duration = \"1s\"");
    assert!((1..=5).contains(&tried), "{tried}: bounded pauses");
    assert!(took >= Duration::from_secs(1), "{took:?}");
}
