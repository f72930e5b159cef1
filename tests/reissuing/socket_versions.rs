//! socket.io's servers and clients of versions 2, 3 and 4 through renewd: the same conversation as without it, but for
//! tokens that end when they should.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::app::{settings, start_socket_io};
use crate::support::express::Express;
use crate::support::renewd::{Renewd, Settings};
use crate::support::talkers::{TRANSPORTS, Talkers};

/// One side's conversation with a server.
struct Conversation<'t> {
    talkers: &'t mut Talkers,
    /// All that was heard, with tokens masked.
    heard: Vec<Value>,
    /// The tokens in it.
    tokens: Vec<Value>,
}

impl Conversation<'_> {
    fn step(&mut self, step: &Value) {
        let mut answer = self.talkers.step(step);
        self.take_tokens(&mut answer);
        self.heard.push(json!([step, answer]));
    }

    fn take_tokens(&mut self, value: &mut Value) {
        match value {
            Value::String(text) if text.starts_with("007") => {
                self.tokens.push(value.take());
                *value = json!("a token");
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.take_tokens(value)),
            Value::Object(members) => {
                members
                    .values_mut()
                    .for_each(|value| self.take_tokens(value));
            }
            _ => {}
        }
    }
}

/// Bytes as `talkers.js` writes them.
fn bytes(base64: &str) -> Value {
    json!({ "$bytes": base64 })
}

/// Rooms, acknowledgements, bytes, a namespace, tokens, and a second connection after the first is lost.
fn conversation(
    talkers: &mut Talkers,
    address: SocketAddr,
    client: u8,
    transports: &[&str],
) -> (Vec<Value>, Vec<Value>) {
    let mut with = Conversation {
        talkers,
        heard: Vec::new(),
        tokens: Vec::new(),
    };
    for name in ["a", "b"] {
        let options = json!({ "transports": transports });
        let url = format!("http://{address}");
        let open = json!({ "open": name, "url": url, "version": client, "options": options });
        let opened = with.talkers.step(&open);
        assert_eq!(opened, json!({ "opened": transports.last() }));
    }
    with.step(&json!({ "open": "calls", "over": "a", "namespace": "/calls" }));
    let wanted = json!({ "channelName": "call_1_2", "uid": 7 });
    let with_photo = json!({ "channelName": "call_1_2", "photo": bytes("AAH/007e") });
    let nested = json!({ "text": "grüße \u{1e} \\u0030", "parts": [bytes("AAEC"), { "deep": bytes("") }], "none": null });
    for connection in ["first", "second"] {
        for name in ["a", "b", "calls"] {
            with.step(&json!({ "ask": name, "event": "join", "with": ["room"] }));
        }
        with.step(&json!({ "emit": "a", "event": "say", "with": ["room", "hello", 7, nested] }));
        for name in ["a", "b"] {
            with.step(&json!({ "wait": name, "event": "said" }));
        }
        with.step(&json!({ "ask": "b", "event": "leave", "with": ["room"] }));
        with.step(&json!({ "emit": "a", "event": "say", "with": ["room", connection] }));
        with.step(&json!({ "wait": "a", "event": "said" }));
        with.step(&json!({ "emit": "calls", "event": "say", "with": ["room", "to callers"] }));
        with.step(&json!({ "wait": "calls", "event": "said" }));
        for what in [
            json!(null),
            json!("é".repeat(100_000)),
            nested.clone(),
            bytes(&"AAAA".repeat(30_000)),
        ] {
            with.step(&json!({ "ask": "a", "event": "bytes", "with": [what] }));
        }
        for name in ["a", "calls"] {
            with.step(&json!({ "ask": name, "event": "call:token", "with": [wanted] }));
            with.step(&json!({ "ask": name, "event": "call:token", "with": [with_photo] }));
            with.step(&json!({ "emit": name, "event": "call:token", "with": [with_photo] }));
            with.step(&json!({ "wait": name, "event": "call:token" }));
        }
        with.step(&json!({ "emit": "b", "event": "call:token", "with": [wanted] }));
        with.step(&json!({ "wait": "b", "event": "call:token" }));
        if connection == "first" {
            // Both namespaces come back over the new connection.
            with.step(&json!({ "drop": "a" }));
        }
    }
    for name in ["a", "b"] {
        with.talkers.step(&json!({ "close": name }));
    }
    (with.heard, with.tokens)
}

fn is_the_same_with_short_tokens(server: u8, client: u8) {
    let app = start_socket_io(server);
    let renewd = Renewd::start(&Settings {
        tables: "[[reissue.socket]]\npath = \"/socket.io/*\"\n".to_owned(),
        ..settings(&app)
    });
    let mut talkers = Talkers::start();
    for transports in TRANSPORTS {
        let (direct, long) = conversation(&mut talkers, app.address, client, transports);
        let (through, short) = conversation(&mut talkers, renewd.public, client, transports);
        assert_eq!(through, direct, "{transports:?}");
        assert_eq!((long.len(), short.len()), (14, 14), "{transports:?}");
        for (long, short) in long.iter().zip(&short) {
            is_cut(&app, long, short);
        }
    }
}

/// Holds that of a token only its lifetime was changed.
fn is_cut(app: &Express, long: &Value, short: &Value) {
    let (mut expected, read) = (app.inspect(long), app.inspect(short));
    assert_eq!(expected["expire"], 24 * 3600);
    assert_eq!(read["expire"], 3600);
    assert_eq!(read["verified"], true);
    let privileges = expected["services"][0]["privileges"].as_object_mut();
    for lifetime in privileges.unwrap().values_mut() {
        *lifetime = json!(3600);
    }
    assert_eq!(read["services"], expected["services"]);
}

#[test]
fn socket_io_2_talks_as_without_renewd() {
    is_the_same_with_short_tokens(2, 2);
}

#[test]
fn a_client_of_socket_io_2_talks_with_a_server_of_3_as_without_renewd() {
    is_the_same_with_short_tokens(3, 2);
}

#[test]
fn socket_io_3_talks_as_without_renewd() {
    is_the_same_with_short_tokens(3, 3);
}

#[test]
fn a_client_of_socket_io_2_talks_with_a_server_of_4_as_without_renewd() {
    is_the_same_with_short_tokens(4, 2);
}

#[test]
fn a_client_of_socket_io_3_talks_with_a_server_of_4_as_without_renewd() {
    is_the_same_with_short_tokens(4, 3);
}

#[test]
fn socket_io_4_talks_as_without_renewd() {
    is_the_same_with_short_tokens(4, 4);
}
