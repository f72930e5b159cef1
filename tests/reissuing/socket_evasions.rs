//! Ways to have a socket's answers pass without a search: none of them works.

#![allow(clippy::unwrap_used)] // a test's way to fail

use serde_json::json;

use crate::support::conversation::Conversation;
use crate::support::renewd::{Renewd, Settings};
use crate::support::scripted::Scripted;
use crate::support::web_sockets::handshake;

use super::socket_frames::{lifetime, token};
use renewd::terms::role::Role;

const TABLES: &str =
    "[[reissue.socket]]\npath = \"/*\"\nbinary = true\n[[reissue.rule]]\npath = \"/answer/*\"\n";

/// A server without WebSockets answers the handshake of one as any other request: so do Node's without a listener for
/// `upgrade`, as engine.io's is where polling is its only transport, and Python's uvicorn without a WebSocket library.
#[test]
fn an_answer_to_a_handshake_that_opens_no_socket_is_searched() {
    let backend = Scripted::start();
    let renewd = Renewd::start(&Settings {
        backend: Some(backend.address),
        streams_table: "channel_pattern = \"live_*\"".to_owned(),
        tables: TABLES.to_owned(),
        ..Settings::default()
    });
    let long = token("call_1_2", Role::Publisher);
    let event = format!("42{}", json!(["call:token", { "token": long }]));
    for (target, body) in [
        ("/socket.io/?EIO=4&transport=polling&sid=a", event.clone()),
        (
            "/socket.io/?EIO=4&transport=websocket&transport=polling",
            event,
        ),
        ("/answer/1", json!({ "token": long }).to_string()),
    ] {
        backend.answer(200, &body);
        let mut client = Conversation::open(renewd.public);
        client.write(handshake(target, "Upgrade", "websocket").as_bytes());
        let answer = client.response().unwrap();
        assert_eq!(answer.status, 200);
        let answer = String::from_utf8(answer.body).unwrap();
        let short = answer.split('"').find(|part| part.starts_with("007"));
        assert_eq!(short.map(lifetime), Some(3600), "{target}: {answer}");
    }
}
