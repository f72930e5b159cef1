//! Requests beyond a limit are refused, and no others suffer: the limits are `upstream.max_requests` and the
//! descriptors for sockets to the backend.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use crate::support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::support::express::{Express, Version};
use crate::support::frames::{END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, field, frame};
use crate::support::node::{Node, ask};
use crate::support::raw::Response;
use crate::support::renewd::{DEADLINE, Renewd, Settings};
use crate::support::wire::{Wire, socket_io};

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
    let backend = Express::start(Version::Five, &[]);
    let renewd = Renewd::start(&Settings {
        backend: Some(backend.address),
        upstream: "max_requests = 1".to_owned(),
        ..Settings::default()
    });
    let _sockets = [socket_io(renewd.public), socket_io(renewd.public)];
    let request = b"GET /health HTTP/1.1\r\nHost: app.example\r\n\r\n";
    assert_eq!(renewd.client().send(request).unwrap().status, 200);
}

/// A daemon that may have so many descriptors; a client says which address it comes from.
fn with_descriptors(count: u32, backend: SocketAddr, server: &str) -> Renewd {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        backend: Some(backend),
        server: format!("h2c = true\n{server}"),
        ..Settings::default()
    };
    support::renewd::write_files(directory.path(), &settings);
    let config = directory.path().join("config.toml");
    let arguments = ["run", "--config", config.to_str().unwrap()];
    let limit = format!("ulimit -n {count}");
    let (child, log) = support::renewd::spawn_under(&limit, &arguments);
    Renewd::ready(child, log, directory)
}

const BEHIND_A_PROXY: &str = "trusted_proxies = [\"127.0.0.1\"]";
const ATTACKER: &str = "192.0.2.66";
const OTHER: &str = "192.0.2.7";

fn get_from(address: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: app.example\r\nX-Forwarded-For: {address}\r\n\r\n")
}

/// `GET path` as a frame, on the stream with this number.
fn ask_http2(number: u32, address: &str, path: &str) -> Vec<u8> {
    let head = [
        &[0x82, 0x86][..],
        &field(":path", path),
        &field(":authority", "app.example"),
        &field("x-forwarded-for", address),
    ]
    .concat();
    frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, &head)
}

/// A client of HTTP/2, with these requests made.
fn http2(renewd: &Renewd, requests: u32, address: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(renewd.public).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
    for number in 0..requests {
        bytes.extend(ask_http2(number, address, path));
    }
    stream.write_all(&bytes).unwrap();
    stream
}

/// The stream of the next header section that is read, and whether its status is 200.
fn next_answer(stream: &mut TcpStream) -> (u32, bool) {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).expect("a frame");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).expect("a whole frame");
        let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        if head[3] == HEADERS {
            // RFC 7541, appendix A: index 8 is `:status: 200`. The table's new size may stand before it.
            let update = payload.iter().take_while(|byte| **byte == 0x20).count();
            return ((number - 1) / 2, payload.get(update) == Some(&0x88));
        }
    }
}

fn sockets(renewd: &Renewd, share: &str) -> f64 {
    renewd.metric(&format!("renewd_upstream_sockets{{share=\"{share}\"}}"))
}

fn sockets_refused(renewd: &Renewd, share: &str) -> f64 {
    renewd.metric(&format!(
        "renewd_upstream_sockets_refused_total{{share=\"{share}\"}}"
    ))
}

fn share_of(renewd: &Renewd, share: &str) -> f64 {
    renewd.metric(&format!("renewd_descriptors{{share=\"{share}\"}}"))
}

/// Holds that the token route, the admin listener, a reload and forwarded requests of another address work.
fn others_are_served(renewd: &Renewd, round: usize) {
    assert_eq!(renewd.ask_for_token().status, 200);
    assert_eq!(renewd.ask_admin("GET", "/healthz", "").status, 200);
    let mut client = renewd.client();
    for _ in 0..5 {
        let answer = client.send(get_from(OTHER, "/").as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "in round {round}");
    }
    assert_eq!(renewd.ask_admin("POST", "/-/reload", "{}").status, 200);
    assert_eq!(renewd.ask_for_token().status, 200);
}

/// Holds the same while an attack takes all sockets that it can get.
fn others_are_served_meanwhile(renewd: &Renewd, mut attack: impl FnMut()) {
    renewd.eventually("sockets are short", |renewd| {
        sockets(renewd, "requests") >= 0.75 * share_of(renewd, "requests") - 1.0
    });
    for round in 0..5 {
        others_are_served(renewd, round);
        attack();
    }
    renewd.eventually("the attacker is refused", |renewd| {
        sockets_refused(renewd, "requests") > 0.5
    });
    others_are_served(renewd, 5);
    let open = sockets(renewd, "requests");
    assert!(open <= share_of(renewd, "requests"), "{open}");
}

#[test]
fn requests_that_hang_over_http2_leave_sockets_for_everybody_else() {
    let node = Node::start("slow");
    // The attack comes from one address behind a proxy, and on connections of a private address, which may be many
    // clients.
    for server in [BEHIND_A_PROXY, ""] {
        let renewd = with_descriptors(2048, node.address, server);
        let mut attackers: Vec<_> = (0..17)
            .map(|_| http2(&renewd, 125, ATTACKER, "/hold"))
            .collect();
        let mut number = 125;
        others_are_served_meanwhile(&renewd, || {
            for attacker in &mut attackers {
                let more = ask_http2(number, ATTACKER, "/hold");
                attacker.write_all(&more).unwrap();
            }
            number += 1;
        });
    }
}

#[test]
fn requests_that_hang_over_http1_leave_sockets_for_everybody_else() {
    let node = Node::start("slow");
    let renewd = with_descriptors(2048, node.address, BEHIND_A_PROXY);
    let mut attackers = Vec::new();
    let mut attack = |count| {
        for _ in 0..count {
            let mut wire = Wire::connect(renewd.public);
            wire.send(get_from(ATTACKER, "/hold"));
            attackers.push(wire);
        }
    };
    attack(400);
    others_are_served_meanwhile(&renewd, || attack(5));
    let refused = attackers.last_mut().unwrap().until("overloaded");
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
}

#[test]
fn one_address_may_have_two_thousand_websockets_and_five_hundred_requests_while_nobody_waits() {
    let node = Node::start("slow");
    let renewd = with_descriptors(8192, node.address, BEHIND_A_PROXY);
    let upgrade = get_from(ATTACKER, "/ws").replace(
        "\r\n\r\n",
        "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let open = |request: &str| {
        let mut wire = Wire::connect(renewd.public);
        wire.send(request);
        wire
    };
    let mut tunnels: Vec<_> = (0..2000).map(|_| open(&upgrade)).collect();
    for tunnel in &mut tunnels {
        assert!(tunnel.until("\r\n\r\n").starts_with("HTTP/1.1 101 "));
    }
    let hold = get_from(ATTACKER, "/hold");
    let mut held: Vec<_> = (0..500).map(|_| open(&hold)).collect();
    renewd.eventually("all reach the backend", |_| node.ask("/")["held"] == 500);
    node.ask("/release");
    for wire in &mut held {
        assert!(wire.until("\r\n\r\n").starts_with("HTTP/1.1 200 "));
    }
    for share in ["requests", "streams"] {
        assert!(sockets_refused(&renewd, share) < 0.5, "{share}");
    }
    renewd.eventually("tunnels are counted", |renewd| {
        sockets(renewd, "streams") > 1999.5
    });
    drop(tunnels);
    renewd.eventually("tunnels are gone", |renewd| {
        sockets(renewd, "streams") < 0.5
    });
}

/// Almost as many streams as HTTP/2 takes at once; the rest is for a few short ones.
const STREAMS: u32 = 125;

#[test]
fn a_connection_with_its_share_in_event_streams_gets_a_short_request_through() {
    let express = Express::start(Version::Five, &[("RATE_LIMIT", "0")]);
    let renewd = with_descriptors(700, express.address, BEHIND_A_PROXY);
    assert!(share_of(&renewd, "streams") > f64::from(STREAMS));
    let mut client = http2(&renewd, STREAMS, ATTACKER, "/wire/events");
    let answers: Vec<_> = (0..STREAMS).map(|_| next_answer(&mut client)).collect();
    let streaming = answers.iter().filter(|(_, ok)| *ok).count();
    // The address gets three quarters of 140, and a part of the rest.
    assert!((105..125).contains(&streaming), "{streaming}");
    renewd.eventually("the others are counted", |renewd| {
        let refused = sockets_refused(renewd, "streams").round();
        u32::try_from(streaming).is_ok_and(|ok| f64::from(STREAMS - ok) - refused < 0.5)
    });
    for number in STREAMS..STREAMS + 3 {
        let short = ask_http2(number, ATTACKER, "/health");
        client.write_all(&short).unwrap();
        assert_eq!(next_answer(&mut client), (number, true));
    }
    let mut events = Wire::connect(renewd.public);
    events.send(get_from(OTHER, "/wire/events"));
    assert!(events.until("data: ").starts_with("HTTP/1.1 200 "));
    renewd.eventually("requests keep no socket of theirs", |renewd| {
        sockets(renewd, "requests") < 10.0
    });
}

#[test]
fn idle_connections_of_the_pool_make_room_for_who_waits() {
    let node = Node::start("slow");
    let other = Node::start("other");
    let renewd = with_descriptors(64, node.address, BEHIND_A_PROXY);
    let requests = share_of(&renewd, "requests");
    // There are more requests than sockets: each waits for one and gets it, whichever client had it before.
    let mut wires: Vec<_> = (0..12)
        .map(|client| {
            let mut wire = Wire::connect(renewd.public);
            wire.send(get_from(&format!("192.0.2.{client}"), "/"));
            wire
        })
        .collect();
    for wire in &mut wires {
        assert!(wire.until("}").starts_with("HTTP/1.1 200 "));
    }
    assert!(requests < 11.5, "{requests}");
    // Both workers may keep some connections, of which none is of use for another server.
    renewd.reconfigure(&Settings {
        backend: Some(other.address),
        server: format!("h2c = true\n{BEHIND_A_PROXY}"),
        ..Settings::default()
    });
    for wire in &mut wires {
        wire.send(get_from(OTHER, "/"));
        assert!(wire.until("}").contains("\"other\""));
    }
    assert!(sockets_refused(&renewd, "requests") < 0.5);
}
