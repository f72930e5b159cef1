//! Frames of any kind through renewd: what a parser reads in them is the same, but for tokens; what breaks the protocol
//! is closed; handshakes agree on no extension, and their login is their own.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::Command;

use renewd::agora::parse::{self, Parsed};
use renewd::agora::{RtcGrant, Signer, TokenFormat, User, rtc_token};
use renewd::config::secret::Secret;
use renewd::terms::role::Role;
use serde_json::{Value, json};

use crate::support::app::{CHANNEL, settings, start};
use crate::support::express::{Express, Version};
use crate::support::messages::Wire;
use crate::support::npm;
use crate::support::python;
use crate::support::random::Numbers;
use crate::support::renewd::{APP_CERTIFICATE, APP_ID, Renewd, Settings, login, now};
use crate::support::web_sockets::{
    BINARY, CLOSE, PING, PONG, Script, ScriptedSockets, TEXT, closing, frame, next, open,
    server_frame,
};

const RULE: &str =
    "[[reissue.socket]]\npath = \"/socket/*\"\nlogin = [\"handshake\", \"query:login\"]\n";
const DAY: u32 = 24 * 3600;

pub fn before(backend: SocketAddr, tables: &str) -> Renewd {
    Renewd::start(&Settings {
        backend: Some(backend),
        streams_table: "channel_pattern = \"live_*\"".to_owned(),
        tables: tables.to_owned(),
        ..Settings::default()
    })
}

pub fn token(channel: &str, role: Role) -> String {
    let signer = Signer::new(APP_ID, &Secret::new(APP_CERTIFICATE.into())).unwrap();
    let grant = RtcGrant {
        channel,
        user: User::Uid(77),
        role,
        lifetime: DAY,
        issued_at: u32::try_from(now()).unwrap(),
        salt: 9,
    };
    rtc_token(TokenFormat::V007, &signer, &grant).unwrap()
}

// === parsers ===

/// Bytes of a text: plain, what looks like a token and is none, and now and then a token.
fn content(numbers: &mut Numbers, token: &str) -> Vec<u8> {
    let pieces = [
        "{\"a\":[1,2.5,null],\"b\":\"",
        "\"007\"",
        "0",
        "00",
        "\\",
        "\"",
        "007eJxTYA",
        "é",
        "\u{1f600}",
        " \\u0030\\u0030",
        "\"}",
        "006970ca35de60c44645bbae8a215061b33IA",
        "a word of text, ",
    ];
    let mut text = String::new();
    let count = match numbers.below(40) {
        0..4 => 0,
        // Longer than what renewd keeps, and several times as long.
        4 => 8_000,
        5 => 25_000,
        _ => numbers.below(40),
    };
    for _ in 0..count {
        if token.is_empty() || numbers.below(count / 2 + 5) > 0 {
            text += pieces[numbers.position(pieces.len())];
        } else {
            let _ = write!(text, " \"{token}\" ");
        }
    }
    text.into_bytes()
}

/// A data frame; its length may be written in more bytes than it needs.
fn fragment(numbers: &mut Numbers, kind: u8, is_last: bool, content: &[u8]) -> Vec<u8> {
    let first = if is_last { 0x80 | kind } else { kind };
    let length = u64::try_from(content.len()).unwrap();
    match numbers.below(8) {
        0 => [&[first, 127], &length.to_be_bytes()[..], content].concat(),
        1 if length < 65_536 => {
            let length = u16::try_from(length).unwrap();
            [&[first, 126], &length.to_be_bytes()[..], content].concat()
        }
        _ => server_frame(kind, is_last, content),
    }
}

/// Messages in fragments, with control frames between, and a `Close`; cut into writes anywhere.
fn script(seed: u64, token: &str) -> Script {
    let mut numbers = Numbers(seed);
    let mut bytes = Vec::new();
    for _ in 0..30 {
        let kind = if numbers.below(4) > 0 { TEXT } else { BINARY };
        let content = content(&mut numbers, token);
        let mut rest = &content[..];
        let mut opcode = kind;
        loop {
            let length = match numbers.below(4) {
                0 => 0,
                1 => rest.len(),
                _ => numbers.position(rest.len() + 1),
            };
            let (now, later) = rest.split_at(length);
            rest = later;
            let is_last = rest.is_empty() && numbers.below(3) > 0;
            bytes.extend(fragment(&mut numbers, opcode, is_last, now));
            opcode = 0;
            if numbers.below(4) == 0 {
                let kind = if numbers.below(2) > 0 { PING } else { PONG };
                let length = numbers.position(126);
                bytes.extend(server_frame(kind, true, &b"007eJxTYA".repeat(20)[..length]));
            }
            if is_last {
                break;
            }
        }
    }
    bytes.extend(server_frame(CLOSE, true, &closing(4001, "the end")));
    let mut writes = Vec::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let most = match numbers.below(3) {
            0 => 20,
            1 => 3000,
            _ => 200_000,
        };
        let (write, later) = rest.split_at(rest.len().min(1 + numbers.position(most)));
        writes.push(write.to_vec());
        rest = later;
    }
    writes
}

/// What the `ws` package reads.
fn heard_by_ws(urls: &[String]) -> Value {
    let directory = npm::package("express");
    npm::ensure(&directory);
    let mut node = Command::new("node");
    node.arg("listener.js").args(urls).current_dir(directory);
    printed(node)
}

/// What Python's `websockets` reads.
fn heard_by_websockets(urls: &[String]) -> Value {
    let packages = python::packages("websocket");
    let mut python = Command::new("python3");
    python
        .arg(npm::package("websocket").join("listener.py"))
        .args(urls);
    python.env("PYTHONPATH", packages);
    printed(python)
}

fn printed(mut command: Command) -> Value {
    let output = command.output().expect("the client");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Takes the tokens out of what a client heard.
fn tokens(heard: &mut Value) -> Vec<String> {
    let sockets = heard.as_array_mut().unwrap().iter_mut();
    let messages = sockets.flat_map(|socket| socket.as_array_mut().unwrap());
    let tokens = messages.filter(|message| message[0] == "text");
    tokens
        .flat_map(|message| serde_json::from_value::<Vec<String>>(message[2].take()).unwrap())
        .collect()
}

pub fn lifetime(token: &str) -> u32 {
    match parse::parse(token) {
        Ok(Parsed::V007(parsed)) => {
            assert!(parsed.verify(&Secret::new(APP_CERTIFICATE.into())));
            parsed.token.expire
        }
        other => panic!("{token}: {other:?}"),
    }
}

#[test]
fn two_parsers_read_the_same_messages_through_renewd_but_for_tokens() {
    let token = token("call_1_2", Role::Publisher);
    let with_and_without = |seed| script(seed, if seed % 2 == 0 { &token } else { "" });
    let scripts: Vec<Script> = (0..6).map(with_and_without).collect();
    let count = scripts.len();
    let backend = ScriptedSockets::start(scripts);
    let renewd = before(backend.address, RULE);
    let urls = |address| {
        let urls = (0..count).map(|number| ScriptedSockets::url(address, number));
        urls.collect::<Vec<_>>()
    };
    for parser in [heard_by_ws, heard_by_websockets] {
        let mut direct = parser(&urls(backend.address));
        let mut through = parser(&urls(renewd.public));
        let (long, short) = (tokens(&mut direct), tokens(&mut through));
        for (number, (direct, through)) in direct
            .as_array()
            .unwrap()
            .iter()
            .zip(through.as_array().unwrap())
            .enumerate()
        {
            assert_eq!(
                direct.as_array().unwrap().last(),
                Some(&json!(["close", 4001, "the end"]))
            );
            assert_eq!(through, direct, "script {number}");
        }
        assert!(
            long.len() > 20 && long.len() == short.len(),
            "{} {}",
            long.len(),
            short.len()
        );
        assert!(long.iter().all(|token| lifetime(token) == DAY));
        assert!(short.iter().all(|token| lifetime(token) == 3600));
    }
}

#[test]
fn a_ping_reaches_the_client_while_a_message_that_may_hold_a_token_is_held() {
    let beginning = server_frame(TEXT, false, b"{\"a\":\"007");
    let pings = [b"1", b"2"].map(|ping| server_frame(PING, true, ping));
    let end = server_frame(0, true, b"\"}");
    // The first backend never ends its message.
    let held = [&beginning[..], &pings.concat()].concat();
    let close = server_frame(CLOSE, true, &closing(1000, ""));
    let ended = [&held[..], &end, &close].concat();
    let backend = ScriptedSockets::start(vec![vec![held], vec![ended]]);
    let renewd = before(backend.address, RULE);
    for number in 0..2 {
        let (mut wire, answer) = open(renewd.public, &format!("/socket/{number}"), "");
        assert_eq!(answer.status(), 101);
        for ping in [b"1", b"2"] {
            assert_eq!(next(&mut wire), (PING, ping.to_vec()));
        }
        if number == 1 {
            let message = [&beginning[..], &end].concat();
            assert_eq!(wire.read_bytes(message.len()).unwrap(), message);
        }
        wire.write(&frame(CLOSE, &closing(1000, "")));
        assert_eq!(backend.heard(), [(CLOSE, closing(1000, ""))]);
    }
    let heard = heard_by_ws(&[ScriptedSockets::url(renewd.public, 1)]);
    assert_eq!(
        heard[0].as_array().unwrap()[..3],
        [
            json!(["ping", "1"]),
            json!(["ping", "2"]),
            json!(["text", "{\"a\":\"007\"}", []])
        ]
    );
}

// === what breaks the protocol ===

/// Frames that no server may send.
fn bad_frames() -> [(&'static str, Vec<u8>); 11] {
    [
        ("a mask", frame(TEXT, b"masked")),
        ("RSV1", server_frame(0x40 | TEXT, true, b"x")),
        ("RSV2", server_frame(0x20 | TEXT, true, b"x")),
        ("RSV3", server_frame(0x10 | PING, true, b"x")),
        ("a reserved opcode", server_frame(3, true, b"x")),
        ("a reserved control frame", server_frame(11, true, b"x")),
        ("a continuation of nothing", server_frame(0, true, b"x")),
        (
            "a message within a message",
            [
                server_frame(TEXT, false, b"x"),
                server_frame(TEXT, true, b"y"),
            ]
            .concat(),
        ),
        ("a ping in fragments", server_frame(PING, false, b"x")),
        ("a long ping", server_frame(PING, true, &[0; 126])),
        (
            "a length above 2^63",
            [&[0x81, 127, 0x80][..], &[0; 7]].concat(),
        ),
    ]
}

#[test]
fn a_backend_that_breaks_the_protocol_is_closed_and_so_is_its_client() {
    let good = server_frame(TEXT, true, b"{\"good\":true}");
    let bad = bad_frames();
    let scripts: Vec<Script> = bad
        .iter()
        .map(|(_, bad)| vec![good.clone(), [bad, &good[..]].concat()])
        .collect();
    let backend = ScriptedSockets::start(scripts);
    let renewd = before(backend.address, RULE);
    for (number, (why, _)) in bad.iter().enumerate() {
        let (mut wire, answer) = open(renewd.public, &format!("/socket/{number}"), "");
        assert_eq!(answer.status(), 101);
        assert_eq!(
            next(&mut wire),
            (TEXT, b"{\"good\":true}".to_vec()),
            "{why}"
        );
        let (mut kind, mut content) = next(&mut wire);
        if kind == TEXT {
            // The beginning of a message that is never ended.
            (kind, content) = next(&mut wire);
        }
        assert_eq!((kind, content), (CLOSE, closing(1002, "")), "{why}");
        assert_eq!(wire.read_rest(), b"", "{why}");
        assert_eq!(backend.heard(), [(CLOSE, closing(1002, ""))], "{why}");
    }
    let urls: Vec<String> = (0..bad.len())
        .map(|number| ScriptedSockets::url(renewd.public, number))
        .collect();
    for parser in [heard_by_ws, heard_by_websockets] {
        for heard in parser(&urls).as_array().unwrap() {
            assert_eq!(
                heard.as_array().unwrap().last(),
                Some(&json!(["close", 1002, ""])),
                "{heard}"
            );
        }
    }
    // Without a rule nobody looks.
    let plain = before(backend.address, "");
    let (mut wire, _) = open(plain.public, "/socket/1", "");
    assert_eq!(next(&mut wire).0, TEXT);
    let bytes = wire.read_bytes(bad[1].1.len()).unwrap();
    assert_eq!(bytes, bad[1].1);
}

// === handshakes ===

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

#[test]
fn no_extension_is_agreed_on_where_messages_are_searched() {
    let echo = Express::echo();
    let everywhere = "[[reissue.socket]]\npath = \"/*\"\n";
    for (tables, agreed) in [
        (everywhere.to_owned(), false),
        (
            format!("[reissue]\nmode = \"observe\"\n{everywhere}"),
            false,
        ),
        (
            format!("[decision]\nmode = \"observe\"\n{everywhere}"),
            false,
        ),
        (format!("[decision]\nmode = \"off\"\n{everywhere}"), true),
        (RULE.to_owned(), true),
    ] {
        let renewd = before(echo.address, &tables);
        let (mut wire, answer) = open(renewd.public, "/echo", OFFER);
        assert_eq!(answer.status(), 101);
        let extensions = answer.values("sec-websocket-extensions");
        assert_eq!(!extensions.is_empty(), agreed, "{tables}");
        wire.write(&frame(TEXT, b"hello"));
        assert_eq!(next(&mut wire).0, TEXT);
    }
    // A backend that agrees to what nobody offered is refused.
    let backend = ScriptedSockets::start_with(
        vec![Vec::new()],
        "Sec-WebSocket-Extensions: permessage-deflate\r\n",
    );
    let renewd = before(backend.address, RULE);
    let (_, answer) = open(renewd.public, "/socket/0", OFFER);
    assert_eq!(answer.status(), 502);
}

#[test]
fn a_plain_socket_has_the_login_of_its_own_handshake_whatever_its_parameters_are_called() {
    let message = json!({ "token": token("live_show", Role::Publisher) }).to_string();
    let writes = vec![server_frame(TEXT, true, message.as_bytes())];
    let backend = ScriptedSockets::start(vec![writes]);
    let renewd = before(backend.address, RULE);
    let get = |target: &str, fields: &str| {
        let (mut wire, answer) = open(renewd.public, target, fields);
        assert_eq!(answer.status(), 101);
        let (_, content) = next(&mut wire);
        let message: Value = serde_json::from_slice(&content).unwrap();
        message["token"].as_str().map(lifetime)
    };
    let owner = login("owner");
    let header = format!("Authorization: Bearer {owner}\r\n");
    assert_eq!(get("/socket/0", &header), Some(3600));
    assert_eq!(get(&format!("/socket/0?login={owner}"), ""), Some(3600));
    assert_eq!(get("/socket/0", ""), None);
    // Not engine.io's: a room that many share.
    assert_eq!(get("/socket/0?sid=room", &header), Some(3600));
    assert_eq!(get("/socket/0?sid=room", ""), None);
    assert_eq!(get("/socket/0?sid=another", ""), None);
    assert_eq!(get("/socket/0?sid=another", &header), Some(3600));
}

/// The next message that begins so.
fn heard(wire: &mut Wire, beginning: &str) -> String {
    loop {
        let message = String::from_utf8(next(wire).1).unwrap();
        if message.starts_with(beginning) {
            return message;
        }
    }
}

#[test]
fn no_spelling_of_the_path_gets_a_socket_past_the_rule() {
    let app = start(Version::Four);
    let renewd = Renewd::start(&Settings {
        tables: "[[reissue.socket]]\npath = \"/socket.io/*\"\n".to_owned(),
        ..settings(&app)
    });
    let mut opened = 0;
    for path in [
        "/socket.io/",
        "/socket.io//",
        "/socket.io/.",
        "/socket.io/..",
        "/socket.io/../",
        "/socket.io/x/../..",
        "/socket.io/x",
        "/socket.io/%2e%2e/",
        "/socket.io/%2E%2E%2F",
        "/socket.io/..%2fapi",
        "/socket.io/%5c..",
        "/socket.io/;x",
        "/socket.io/a;b=c/d",
        "/socket.io/%00",
        "/socket.io/%zz",
        "/socket.io/../api/live/active",
        "http://app/socket.io/",
        "http://app/socket.io/../",
        "/SOCKET.IO/",
        "//socket.io/",
        "/x/../socket.io/",
        "/%73ocket.io/",
        "/socket.io%2f",
        "/socket.io",
        "/socket.io/#x",
    ] {
        let target = format!("{path}?EIO=4&transport=websocket");
        let (mut wire, answer) = open(renewd.public, &target, "");
        if answer.status() != 101 {
            continue;
        }
        opened += 1;
        wire.write(&frame(TEXT, b"40"));
        heard(&mut wire, "40");
        let asked = json!(["call:token", { "channelName": CHANNEL }]);
        wire.write(&frame(TEXT, format!("42{asked}").as_bytes()));
        let event = heard(&mut wire, "42");
        assert!(event.contains("\"token\":null"), "{path}: {event}");
    }
    assert!(opened > 12, "{opened}");
}
