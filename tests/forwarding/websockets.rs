//! Upgraded connections through renewd, those of `socket.io` too: frames, closes on either side, upgrades that are
//! refused or ask for another protocol.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::net::SocketAddr;
use std::process::Command;

use crate::support::express::{Express, Version};
use crate::support::messages::{self, Wire};
use crate::support::npm;
use crate::support::renewd::{Renewd, Settings};
use crate::support::web_sockets::{
    ACCEPT, BINARY, CLOSE, PING, PONG, TEXT, closing, frame, handshake, next, open,
};

fn start() -> (Express, Renewd) {
    let express = Express::start(Version::Four, &[("RATE_LIMIT", "0")]);
    let renewd = Renewd::start(&Settings {
        backend: Some(express.address),
        ..Settings::default()
    });
    (express, renewd)
}

fn connect(address: SocketAddr) -> Wire {
    let (wire, answer) = open(address, "/wire/socket", "");
    assert_eq!(answer.status_line, "HTTP/1.1 101 Switching Protocols");
    wire
}

fn tunnels(renewd: &Renewd) -> f64 {
    let page = renewd.metrics();
    page.lines()
        .filter(|line| line.starts_with("renewd_tunnels{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[test]
fn frames_of_every_size_and_kind_pass_both_ways() {
    let (_express, renewd) = start();
    let mut wire = connect(renewd.public);
    for length in [0, 1, 125, 126, 65_535, 65_536, 5 * 1024 * 1024] {
        let content: Vec<u8> = (0..=255).cycle().take(length).collect();
        wire.write(&frame(BINARY, &content));
        let (kind, echoed) = next(&mut wire);
        assert!(kind == BINARY && echoed == content, "{length} bytes");
    }
    for number in 0..100 {
        wire.write(&frame(TEXT, format!("message {number}").as_bytes()));
    }
    for number in 0..100 {
        assert_eq!(
            next(&mut wire),
            (TEXT, format!("message {number}").into_bytes())
        );
    }
    wire.write(&frame(PING, b"still there?"));
    assert_eq!(next(&mut wire), (PONG, b"still there?".to_vec()));
    wire.write(&frame(TEXT, b"ping"));
    assert_eq!(next(&mut wire), (PING, b"from the app".to_vec()));
    wire.write(&frame(PONG, b"from the client"));
    assert_eq!(next(&mut wire), (TEXT, b"pong from the client".to_vec()));
}

#[test]
fn the_handshake_passes_as_the_client_and_the_app_wrote_it() {
    let (express, renewd) = start();
    let (_direct, direct) = open(express.address, "/wire/socket", "");
    let (_through, through) = open(renewd.public, "/wire/socket", "");
    assert_eq!(through.status_line, direct.status_line);
    for name in ["upgrade", "connection", "sec-websocket-accept"] {
        assert_eq!(through.values(name), direct.values(name), "{name}");
    }
    assert_eq!(through.values("sec-websocket-accept"), [ACCEPT]);
    // The option counts in any letter case and among other options, as Firefox writes it.
    for (connection, upgrade) in [
        ("keep-alive, Upgrade", "websocket"),
        ("UPGRADE", "WebSocket"),
        ("upgrade,x", "websocket"),
    ] {
        let mut wire = Wire::open(renewd.public);
        wire.write(handshake("/wire/socket", connection, upgrade).as_bytes());
        assert_eq!(
            wire.read(false).expect("an answer").status(),
            101,
            "{connection}"
        );
    }
    // The client sends a frame in the same segment as the request.
    let mut eager = Wire::open(renewd.public);
    let first = [
        handshake("/wire/socket", "Upgrade", "websocket").into_bytes(),
        frame(TEXT, b"eager"),
    ]
    .concat();
    eager.write(&first);
    assert_eq!(eager.read(false).expect("an answer").status(), 101);
    assert_eq!(next(&mut eager), (TEXT, b"eager".to_vec()));
}

#[test]
fn close_codes_reach_the_other_side_whoever_begins() {
    let (express, renewd) = start();
    let mut wire = connect(renewd.public);
    wire.write(&frame(CLOSE, &closing(4001, "bye")));
    assert_eq!(next(&mut wire), (CLOSE, closing(4001, "bye")));
    assert_eq!(wire.read_rest(), b"");
    drop(wire);
    renewd.eventually("the app hears why", |_| {
        messages::hits(express.address, "webSocketCode") == 4001
    });

    let mut wire = connect(renewd.public);
    wire.write(&frame(TEXT, b"close 4002"));
    assert_eq!(next(&mut wire), (CLOSE, closing(4002, "as asked")));
    wire.write(&frame(CLOSE, &closing(4002, "as asked")));
    assert_eq!(wire.read_rest(), b"");
    drop(wire);
    renewd.eventually("the app hears the answer", |_| {
        messages::hits(express.address, "webSocketCode") == 4002
    });

    // The client leaves without a closing frame, as a phone that loses its network: the app calls it 1006.
    drop(connect(renewd.public));
    renewd.eventually("the app hears that nobody said goodbye", |_| {
        messages::hits(express.address, "webSocketCode") == 1006
    });
}

#[test]
fn what_one_side_sends_before_it_closes_reaches_the_other() {
    let (express, renewd) = start();
    let (mut wire, answer) = open(renewd.public, "/wire/socket?raw", "");
    assert_eq!(answer.status(), 101);
    assert_eq!(wire.read_bytes(5).expect("bytes behind the 101"), b"first");
    let sent: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    wire.write(&sent);
    assert_eq!(wire.read_bytes(sent.len()).expect("an echo"), sent);
    wire.write(b"the end");
    wire.finish_writing();
    assert_eq!(wire.read_rest(), b"the endlast");
    renewd.eventually("the app saw the end", |_| {
        messages::hits(express.address, "rawEnded") == 1
            && messages::hits(express.address, "rawClosed") == 1
    });
}

#[test]
fn open_tunnels_are_counted() {
    let (_express, renewd) = start();
    assert!(tunnels(&renewd).abs() < 0.5);
    let open: Vec<_> = (0..3).map(|_| connect(renewd.public)).collect();
    renewd.eventually("three tunnels", |renewd| {
        (tunnels(renewd) - 3.0).abs() < 0.5
    });
    drop(open);
    renewd.eventually("no tunnel", |renewd| tunnels(renewd).abs() < 0.5);
}

#[test]
fn an_upgrade_that_the_app_refuses_is_an_ordinary_answer() {
    let (express, renewd) = start();
    let (_, direct) = open(express.address, "/wire/socket?refuse=426", "");
    let (_, through) = open(renewd.public, "/wire/socket?refuse=426", "");
    assert_eq!((through.status(), &through.body), (426, &direct.body));
    assert_eq!(through.values("x-reason"), ["later"]);
    // The ws package (8.21.3, `WebSocketServer.handleUpgrade`) refuses a handshake without a key.
    let without_key = "GET /wire/socket HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let direct = messages::exchange(express.address, without_key.as_bytes());
    let through = messages::exchange(renewd.public, without_key.as_bytes());
    assert_eq!(through.status(), 400);
    assert_eq!(
        (through.status_line, through.body),
        (direct.status_line, direct.body)
    );
    assert!(tunnels(&renewd).abs() < 0.5);
}

#[test]
fn an_upgrade_to_anything_but_websocket_is_an_ordinary_request() {
    let (express, renewd) = start();
    for (method, fields) in [
        (
            "GET",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        ),
        ("GET", "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n"),
        ("GET", "Upgrade: websocket\r\n"),
        (
            "POST",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n",
        ),
    ] {
        let request = format!("{method} /wire/seen HTTP/1.1\r\nHost: app\r\n{fields}\r\n");
        let answer = messages::exchange(renewd.public, request.as_bytes());
        assert_eq!(answer.status(), 200, "{fields}");
        let seen = answer.json()["headers"].to_string();
        assert!(
            !seen.contains("upgrade") && !seen.contains("http2-settings"),
            "{fields}: {seen}"
        );
    }
    assert_eq!(messages::hits(express.address, "webSocket"), 0);
    // HTTP/1.0 knows no upgrade.
    let old = handshake("/wire/seen", "Upgrade", "websocket").replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(
        messages::exchange(renewd.public, old.as_bytes()).status(),
        200
    );
}

#[test]
fn socket_io_talks_over_polling_websocket_and_the_upgrade_between_them() {
    let (_express, renewd) = start();
    for (way, expected) in [
        ("polling", "echoed polling"),
        ("websocket", "echoed websocket"),
        ("upgrade", "echoed websocket"),
    ] {
        let output = Command::new("node")
            .args(["talk.js", &format!("http://{}", renewd.public), way])
            .current_dir(npm::package("express"))
            .output()
            .expect("node");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.trim(), expected, "{way}: {output:?}");
    }
}
