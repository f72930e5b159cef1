//! Ways to have a socket's answers pass without a search: none of them works, unless all is only observed.

#![allow(clippy::unwrap_used)] // a test's way to fail
#![allow(clippy::float_cmp)] // counters hold whole numbers

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::conversation::{Conversation, request};
use crate::support::renewd::Renewd;
use crate::support::scripted::Scripted;
use crate::support::web_sockets::{ScriptedSockets, TEXT, handshake, next, open, server_frame};

use super::socket_frames::{before, lifetime, token};
use renewd::terms::role::Role;

const TABLES: &str =
    "[[reissue.socket]]\npath = \"/*\"\nbinary = true\n[[reissue.rule]]\npath = \"/answer/*\"\n";

// A server without WebSockets answers the handshake of one as any other request: so do Node's without a listener for
// `upgrade`, as engine.io's is where polling is its only transport, and Python's uvicorn without a WebSocket library.
#[test]
fn an_answer_to_a_handshake_that_opens_no_socket_is_searched() {
    let backend = Scripted::start();
    let renewd = before(backend.address, TABLES);
    let long = token("call_1_2", Role::Publisher);
    let event = format!("42{}", json!(["call:token", { "token": long }]));
    for (target, body) in [
        ("/socket.io/?EIO=4&transport=polling&sid=a", event.clone()),
        (
            "/socket.io/?EIO=4&transport=websocket&transport=polling",
            event.clone(),
        ),
        // Python's server of engine.io takes polling where no transport is named.
        ("/socket.io/?EIO=4", event.clone()),
        ("/socket.io/?sid=a", event),
        ("/answer/1", json!({ "token": long }).to_string()),
    ] {
        backend.answer(200, &body);
        let handshake = handshake(target, "Upgrade", "websocket");
        for request in [handshake.into_bytes(), request("GET", target, "", "")] {
            let mut client = Conversation::open(renewd.public);
            client.write(&request);
            let answer = client.response().unwrap();
            assert_eq!(answer.status, 200);
            let answer = String::from_utf8(answer.body).unwrap();
            let short = answer.split('"').find(|part| part.starts_with("007"));
            assert_eq!(short.map(lifetime), Some(3600), "{target}: {answer}");
        }
    }
}

#[test]
fn a_compressed_answer_gets_502_and_passes_while_observing() {
    let backend = Scripted::start();
    backend
        .bytes("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x0b42");
    let errors = "renewd_reissue_total{route=\"socket /*\",outcome=\"error\"}";
    for (mode, status) in [("replace", 502), ("observe", 200)] {
        let tables = format!("[reissue]\nmode = \"{mode}\"\n{TABLES}");
        let renewd = before(backend.address, &tables);
        let target = "/socket.io/?EIO=4&transport=polling&sid=a";
        let answer = renewd
            .client()
            .send(&request("GET", target, "", ""))
            .unwrap();
        assert_eq!(answer.status, status, "{mode}");
        renewd.eventually(mode, |renewd| renewd.metric(errors) == 1.0);
    }
}

/// The most memory that a process has had, in KiB.
fn peak(renewd: &Renewd) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", renewd.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.unwrap().trim_end_matches("kB").trim().parse().unwrap()
}

#[test]
fn bytes_full_of_what_looks_like_tokens_take_little_more_memory_than_they_have() {
    let bytes = b"007eJxTYA ".repeat(50_000);
    let packet = format!("b{}", STANDARD.encode(&bytes));
    let frame = server_frame(TEXT, true, packet.as_bytes());
    let backend = ScriptedSockets::start(vec![vec![frame]]);
    let renewd = before(backend.address, TABLES);
    let at_first = peak(&renewd);
    let (mut wire, _) = open(renewd.public, "/socket/0", "");
    let mut told = Vec::new();
    while told.len() < packet.len() {
        told.extend(next(&mut wire).1);
    }
    assert_eq!(told, packet.as_bytes());
    let packet = u64::try_from(packet.len()).unwrap() / 1024;
    let grown = peak(&renewd) - at_first;
    assert!(grown < 12 * packet, "{grown} KiB for {packet} KiB");
}

#[test]
fn a_token_within_a_hundred_megabytes_is_replaced_in_bounded_memory() {
    const HALF: usize = 50 * 1024 * 1024;
    let (filling, long) = ("x".repeat(HALF), token("call_1_2", Role::Publisher));
    let message = format!("[\"{filling}\",\"{long}\",\"{filling}\"]");
    let frame = server_frame(TEXT, true, message.as_bytes());
    let backend = ScriptedSockets::start(vec![vec![frame]]);
    let renewd = before(backend.address, TABLES);
    let at_first = peak(&renewd);
    let (mut wire, _) = open(renewd.public, "/socket/0", "");
    let mut told = Vec::with_capacity(message.len());
    while !told.ends_with(b"\"]") {
        told.extend(next(&mut wire).1);
    }
    let told = String::from_utf8(told).unwrap();
    let short = told.split('"').find(|part| part.starts_with("007"));
    assert_eq!(short.map(lifetime), Some(3600));
    assert!(told.replace(short.unwrap(), &long) == message);
    let grown = peak(&renewd) - at_first;
    assert!(grown < 16 * 1024, "{grown} KiB");
}
