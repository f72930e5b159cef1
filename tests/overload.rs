//! `upstream.max_requests`: what is too much is refused at once, and nothing else suffers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod support;

use support::node::{Node, ask};
use support::raw::Response;
use support::renewd::{Renewd, Settings};
use support::wire::{Wire, socket_io};

const HOLD: &str = "GET /hold HTTP/1.1\r\nHost: app.example\r\n\r\n";

fn get(renewd: &Renewd) -> Response {
    let request = b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\n";
    renewd.client().send(request).unwrap()
}

fn settings(node: &Node, most: u32) -> Settings {
    Settings {
        backend: Some(node.address),
        upstream: format!("max_requests = {most}"),
        ..Settings::default()
    }
}

/// Two requests in flight, all workers together.
fn hold(renewd: &Renewd, node: &Node) -> [Wire; 2] {
    let wires = [0, 1].map(|_| {
        let mut wire = Wire::connect(renewd.public);
        wire.send(HOLD);
        wire
    });
    renewd.eventually("both are held", |_| node.ask("/")["held"] == 2);
    wires
}

#[test]
fn one_request_too_many_is_refused_until_another_is_over() {
    let node = Node::start("slow");
    let renewd = Renewd::start(&settings(&node, 2));
    let [mut first, mut second] = hold(&renewd, &node);
    let refused = get(&renewd);
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json()["code"], "overloaded");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(renewd.ask_for_token().status, 200, "tokens need no backend");
    assert_eq!(renewd.ask_admin("GET", "/readyz", "").status, 200);

    node.ask("/release");
    for wire in [&mut first, &mut second] {
        assert!(wire.until("}").starts_with("HTTP/1.1 200 "));
    }
    for _ in 0..5 {
        ask(&mut renewd.client(), "/");
    }
}

#[test]
fn a_client_that_leaves_makes_room() {
    let node = Node::start("slow");
    let renewd = Renewd::start(&settings(&node, 2));
    let [first, _second] = hold(&renewd, &node);
    assert_eq!(get(&renewd).status, 503);
    drop(first);
    renewd.eventually("there is room", |renewd| get(renewd).status == 200);
}

#[test]
fn the_limit_follows_the_file_and_counts_what_is_in_flight() {
    let node = Node::start("slow");
    let renewd = Renewd::start(&settings(&node, 5));
    let _held = hold(&renewd, &node);
    assert_eq!(get(&renewd).status, 200);
    renewd.reconfigure(&settings(&node, 2));
    assert_eq!(get(&renewd).status, 503);
    renewd.reconfigure(&settings(&node, 0));
    assert_eq!(get(&renewd).status, 200);
}

#[test]
fn an_open_websocket_is_no_request_in_flight() {
    let backend = support::express::Express::start(support::express::Version::Five, &[]);
    let renewd = Renewd::start(&Settings {
        backend: Some(backend.address),
        upstream: "max_requests = 1".to_owned(),
        ..Settings::default()
    });
    let _sockets = [socket_io(renewd.public), socket_io(renewd.public)];
    let request = b"GET /health HTTP/1.1\r\nHost: app.example\r\n\r\n";
    assert_eq!(renewd.client().send(request).unwrap().status, 200);
}
