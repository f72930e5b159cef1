//! Tokens among bytes that socket.io's servers and clients of versions 2, 3 and 4 send each other, over every transport:
//! searched where the rule says `binary = true`, and left alone elsewhere.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail
#![allow(clippy::float_cmp)] // counters hold whole numbers

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::app::{ASTROLOGER, CHANNEL, VIEWER, send, settings, start_socket_io};
use crate::support::conversation::{Conversation, request};
use crate::support::express::Express;
use crate::support::renewd::{Renewd, Settings, jwt, now};
use crate::support::talkers::{TRANSPORTS, Talkers};
use crate::support::web_sockets::{BINARY, TEXT, frame, next, open};

const CALL: &str = "call_1_2";
const DAY: i64 = 24 * 3600;
const HOUR: i64 = 3600;

fn through(app: &Express, binary: bool) -> Renewd {
    let rule = format!("[[reissue.socket]]\npath = \"/socket.io/*\"\nbinary = {binary}\n");
    Renewd::start(&Settings {
        tables: rule,
        streams_table: "channel_pattern = \"live_*\"".to_owned(),
        ..settings(app)
    })
}

/// What a `CONNECT` carries.
fn auth(user: &str) -> Value {
    let login = json!({"astrologerId": user, "sessionId": "session", "exp": now() + 3600});
    json!({ "token": jwt(&login) })
}

fn errors(renewd: &Renewd) -> f64 {
    renewd.metric("renewd_reissue_total{route=\"socket /socket.io/*\",outcome=\"error\"}")
}

/// Bytes as `talkers.js` writes them.
fn written(bytes: &[u8]) -> Value {
    json!({ "$bytes": STANDARD.encode(bytes) })
}

fn read(bytes: &Value) -> Vec<u8> {
    let base64 = bytes["$bytes"].as_str();
    STANDARD
        .decode(base64.unwrap_or_else(|| panic!("{bytes}")))
        .unwrap()
}

/// Bytes that hold a token among others, which are no text.
fn with_token(token: &Value) -> Vec<u8> {
    [
        &b"\x00\xff{\"token\":"[..],
        token.to_string().as_bytes(),
        b"}\xfe",
    ]
    .concat()
}

/// The token in such bytes.
fn token_in(bytes: &[u8]) -> Value {
    let json = bytes
        .strip_prefix(b"\x00\xff")
        .and_then(|rest| rest.strip_suffix(b"\xfe"))
        .unwrap_or_else(|| panic!("{bytes:?}"));
    let object: Value = serde_json::from_slice(json).unwrap();
    object["token"].clone()
}

/// Tokens of a day from the app itself, for a client of this version: to publish in a call, and in the astrologer's
/// stream.
fn tokens_of_the_app(talkers: &mut Talkers, app: &Express, client: u8) -> [Value; 2] {
    let options = json!({ "transports": ["websocket"] });
    let url = format!("http://{}", app.address);
    opens(talkers, "direct", &url, client, &options);
    [CALL, CHANNEL].map(|channel| {
        let wanted = json!({ "channelName": channel });
        talkers.ask("direct", "call:token", &wanted)["token"].clone()
    })
}

/// What comes back of bytes, in an acknowledgement and in an event.
fn sent(talkers: &mut Talkers, name: &str, bytes: &[u8]) -> [Vec<u8>; 2] {
    let sent = json!({ "first": written(b"no token"), "photo": written(bytes) });
    let acknowledged = talkers.ask(name, "bytes", &sent);
    assert_eq!(read(&acknowledged["first"]), b"no token");
    let said = json!({ "emit": name, "event": "say", "with": ["room", sent, written(b"last")] });
    talkers.step(&said);
    let said = talkers.step(&json!({ "wait": name, "event": "said" }));
    let got = &said["got"];
    assert_eq!(read(&got[0]["first"]), b"no token");
    assert_eq!(read(&got[1]), b"last");
    [&acknowledged, &got[0]].map(|answer| read(&answer["photo"]))
}

fn opens(talkers: &mut Talkers, name: &str, url: &str, client: u8, options: &Value) {
    let step = json!({ "open": name, "url": url, "version": client, "options": options });
    let opened = talkers.step(&step);
    let transports = options["transports"].as_array().unwrap();
    assert_eq!(opened["opened"], *transports.last().unwrap(), "{options}");
    assert_eq!(talkers.ask(name, "join", &json!("room")), "joined");
}

fn bytes_are_searched(server: u8, client: u8) {
    let app = start_socket_io(server);
    let mut talkers = Talkers::start();
    let [call, stream] = tokens_of_the_app(&mut talkers, &app, client);
    let all = (0..=255).cycle().take(100_000).collect::<Vec<u8>>();
    for binary in [false, true] {
        let renewd = through(&app, binary);
        let mut number = 0;
        for transports in TRANSPORTS {
            for in_base64 in [false, true] {
                number += 1;
                let name = format!("{binary} {number}");
                let name = &name;
                let options = json!({ "transports": transports, "forceBase64": in_base64 });
                opens(
                    &mut talkers,
                    name,
                    &format!("http://{}", renewd.public),
                    client,
                    &options,
                );
                for plain in [&all[..], b"", b"007", b"{\"token\":\"006\"}"] {
                    let back = sent(&mut talkers, name, plain);
                    assert!(back.iter().all(|back| back == plain), "{options}");
                }
                for back in sent(&mut talkers, name, &with_token(&call)) {
                    let inspected = app.inspect(&token_in(&back));
                    assert_eq!(inspected["verified"], true, "{options}");
                    let expire = if binary { HOUR } else { DAY };
                    assert_eq!(inspected["expire"], expire, "{options}");
                }
                for back in sent(&mut talkers, name, &with_token(&stream)) {
                    let expected = if binary { &Value::Null } else { &stream };
                    assert_eq!(token_in(&back), *expected, "{options}");
                }
                talkers.step(&json!({ "close": name }));
            }
        }
    }
}

#[test]
fn bytes_of_socket_io_2_are_searched() {
    bytes_are_searched(2, 2);
}

#[test]
fn bytes_for_a_client_of_socket_io_2_from_a_server_of_3_are_searched() {
    bytes_are_searched(3, 2);
}

#[test]
fn bytes_of_socket_io_3_are_searched() {
    bytes_are_searched(3, 3);
}

#[test]
fn bytes_for_a_client_of_socket_io_2_from_a_server_of_4_are_searched() {
    bytes_are_searched(4, 2);
}

#[test]
fn bytes_of_socket_io_4_are_searched() {
    bytes_are_searched(4, 4);
}

#[test]
fn an_attachment_has_the_login_of_its_events_namespace() {
    let app = start_socket_io(4);
    let renewd = through(&app, true);
    let mut talkers = Talkers::start();
    let [_, stream] = tokens_of_the_app(&mut talkers, &app, 4);
    for (client, transports) in [3, 4].iter().flat_map(|client| {
        let all = TRANSPORTS.iter();
        all.map(move |transports| (*client, *transports))
    }) {
        let options = json!({ "transports": transports, "auth": auth(VIEWER) });
        let url = format!("http://{}", renewd.public);
        opens(&mut talkers, "main", &url, client, &options);
        let options = json!({ "auth": auth(ASTROLOGER) });
        talkers.open_over("calls", "main", "/calls", &options);
        talkers.open_over("chat", "main", "/chat", &json!({}));
        for name in ["calls", "chat"] {
            assert_eq!(talkers.ask(name, "join", &json!("room")), "joined");
        }
        for (name, is_owner) in [("calls", true), ("main", false), ("chat", false)] {
            for back in sent(&mut talkers, name, &with_token(&stream)) {
                let token = token_in(&back);
                if is_owner {
                    assert_eq!(app.inspect(&token)["expire"], HOUR, "{transports:?}");
                } else {
                    assert_eq!(token, Value::Null, "{name} {client} {transports:?}");
                }
            }
        }
        talkers.step(&json!({ "close": "main" }));
    }
}

/// A client that speaks engine.io's polling by itself.
struct Poller {
    address: SocketAddr,
    session: String,
}

impl Poller {
    /// Opens a session by a first request with these parameters.
    fn open(address: SocketAddr, first: &str) -> Self {
        let mut poller = Self {
            address,
            session: String::new(),
        };
        let body = poller.poll(first);
        let body = String::from_utf8_lossy(&body).replace('\\', "");
        let (_, behind) = body
            .split_once("\"sid\":\"")
            .unwrap_or_else(|| panic!("{body}"));
        let (id, _) = behind.split_once('"').unwrap();
        poller.session = format!("&sid={id}");
        poller
    }

    fn target(&self, parameters: &str, transport: &str) -> String {
        let Self { session, .. } = self;
        format!("/socket.io/?{parameters}&transport={transport}{session}")
    }

    fn send(&self, method: &str, parameters: &str, body: &str) -> Vec<u8> {
        let target = self.target(parameters, "polling");
        let kind = if body.starts_with("d=") {
            "application/x-www-form-urlencoded"
        } else {
            "text/plain;charset=UTF-8"
        };
        let fields = format!("Content-Type: {kind}\r\nConnection: close\r\n");
        let answer = send(self.address, &request(method, target, &fields, body));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    fn poll(&self, parameters: &str) -> Vec<u8> {
        self.send("GET", parameters, "")
    }

    /// Polls until an answer holds this.
    fn poll_for(&self, parameters: &str, needle: &str) -> String {
        loop {
            let body = String::from_utf8(self.poll(parameters)).unwrap();
            if body.contains(needle) {
                return body;
            }
        }
    }
}

#[test]
fn an_attachment_after_the_upgrade_has_the_login_of_its_event_before() {
    const V4: &str = "EIO=4";
    let app = start_socket_io(4);
    let renewd = through(&app, true);
    let [_, stream] = tokens_of_the_app(&mut Talkers::start(), &app, 4);
    let sent = json!(["bytes", { "_placeholder": true, "num": 0 }]);
    let bytes = STANDARD.encode(with_token(&stream));
    let event = |number: i32| format!("451-/calls,{number}{sent}\u{1e}b{bytes}");
    let poller = Poller::open(renewd.public, V4);
    poller.send("POST", V4, &format!("40/calls,{}", auth(ASTROLOGER)));
    poller.poll_for(V4, "40/calls,");
    let is_apart = (0..50).any(|number| {
        // Where a poll waits, it gets the event, and its attachment is left for later. It may come too late for that.
        let mut waiting = Conversation::open(renewd.public);
        let poll = request("GET", poller.target(V4, "polling"), "", "");
        waiting.write(&poll);
        poller.send("POST", V4, &event(number));
        let mut answer = waiting.response().unwrap();
        if answer.body == b"2" {
            waiting.write(&poll);
            answer = waiting.response().unwrap();
        }
        let answer = String::from_utf8(answer.body).unwrap();
        assert!(answer.contains(&format!("461-/calls,{number}")), "{answer}");
        !answer.contains("\u{1e}b")
    });
    assert!(is_apart);
    let (mut wire, answer) = open(renewd.public, &poller.target(V4, "websocket"), "");
    assert_eq!(answer.status(), 101, "{answer:?}");
    wire.write(&frame(TEXT, b"2probe"));
    assert_eq!(next(&mut wire), (TEXT, b"3probe".to_vec()));
    wire.write(&frame(TEXT, b"5"));
    let mut attachment = || loop {
        if let (BINARY, bytes) = next(&mut wire) {
            return bytes;
        }
    };
    let token = token_in(&attachment());
    assert_eq!(app.inspect(&token)["expire"], HOUR);
}

fn counted(packets: &[&str]) -> String {
    let counted = packets
        .iter()
        .map(|packet| format!("{}:{packet}", packet.len()));
    counted.collect()
}

/// The packets of a payload of protocol 3, all of ASCII.
fn of_counted(mut payload: &str) -> Vec<&str> {
    let mut packets = Vec::new();
    while !payload.is_empty() {
        let (length, rest) = payload.split_once(':').unwrap();
        let (packet, rest) = rest.split_at(length.parse().unwrap());
        packets.push(packet);
        payload = rest;
    }
    packets
}

fn wanted(channel: &str) -> String {
    let wanted = json!(["call:token", { "channelName": channel, "photo": { "_placeholder": true, "num": 0 } }]);
    format!("451-{wanted}")
}

/// The lifetime of the token in an event.
fn lifetime(app: &Express, event: &str) -> Value {
    let event: Value = serde_json::from_str(&event[event.find('[').unwrap()..]).unwrap();
    app.inspect(&event[1]["token"])["expire"].clone()
}

#[test]
fn a_payload_is_read_as_it_is_written_whatever_the_url_says() {
    for server in [2, 4] {
        let app = start_socket_io(server);
        let mut talkers = Talkers::start();
        let [call, _] = tokens_of_the_app(&mut talkers, &app, 2);
        let bytes = format!("b4{}", STANDARD.encode(with_token(&call)));
        let renewd = through(&app, true);
        // A server of socket.io 2 looks for no protocol in the URL, and a later one takes two of them for 3.
        let urls = match server {
            2 => ["EIO=4", "EIO=3", "EIO=4&j=1"],
            _ => ["EIO=4&EIO=3", "EIO=3", "EIO=4&EIO=3&j=1"],
        };
        for first in &urls[..2] {
            for then in urls {
                let poller = Poller::open(renewd.public, &format!("{first}&b64=1"));
                poller.send("POST", then, &counted(&[&wanted(CALL), &bytes]));
                let body = poller.poll_for(then, "call:token");
                let event = of_counted(&body)
                    .into_iter()
                    .find(|packet| packet.contains("call:token"));
                assert_eq!(lifetime(&app, event.unwrap()), HOUR, "{first} {then}");
                let body = if body.contains("b4") {
                    body
                } else {
                    poller.poll_for(then, "b4")
                };
                let packets = of_counted(&body);
                let photo = packets.iter().find_map(|packet| packet.strip_prefix("b4"));
                let token = token_in(&STANDARD.decode(photo.unwrap()).unwrap());
                assert_eq!(app.inspect(&token)["expire"], HOUR, "{first} {then}");
            }
        }
    }
}

#[test]
fn a_script_with_bytes_that_no_client_asks_for_tells_no_token() {
    for server in [2, 4] {
        let app = start_socket_io(server);
        for binary in [false, true] {
            let renewd = through(&app, binary);
            for (address, is_through) in [(app.address, false), (renewd.public, true)] {
                let poller = Poller::open(address, "EIO=3&j=5");
                let posted = counted(&[&wanted(CALL), "b4AAEC"]);
                let form: String = form_urlencoded::Serializer::new(String::new())
                    .append_pair("d", &posted)
                    .finish();
                poller.send("POST", "EIO=3&j=5", &form);
                let before = errors(&renewd);
                let needle = if is_through { "\"1:6\"" } else { "Buffer" };
                let script = poller.poll_for("EIO=3", needle);
                if is_through {
                    assert_eq!(script, "___eio[5](\"1:6\");");
                    assert_eq!(errors(&renewd), before + 1.0);
                } else {
                    // The script writes texts as numbers, among them the token's first.
                    let begins = "___eio[5]({\"type\":\"Buffer\",\"data\":[";
                    assert!(script.starts_with(begins), "{script}");
                    assert!(script.contains("34,48,48,55,101,74,120"), "{script}");
                }
            }
        }
    }
}
