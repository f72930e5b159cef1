//! engine.io's polling within JSONP, which old browsers use, against socket.io's servers of versions 2, 3 and 4: the
//! script runs, each packet has the length that it says, and tokens are short.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::app::{CHANNEL, send, settings, start_socket_io};
use crate::support::conversation::request;
use crate::support::renewd::{Renewd, Settings};

/// A browser that polls by scripts.
struct Browser {
    address: SocketAddr,
    protocol: u8,
    /// The first of its URL's parameters.
    first: &'static str,
    session: String,
    /// Packets that have come and weren't looked at.
    packets: Vec<String>,
}

impl Browser {
    fn open(address: SocketAddr, protocol: u8, first: &'static str) -> Self {
        let mut browser = Self {
            address,
            protocol,
            first,
            session: String::new(),
            packets: Vec::new(),
        };
        let open = browser.wait("0");
        let told: Value = serde_json::from_str(&open).unwrap();
        browser.session = format!("&sid={}", told["sid"].as_str().unwrap());
        if protocol == 4 {
            browser.post("40");
        }
        browser.wait("40");
        browser
    }

    fn target(&self) -> String {
        let Self {
            protocol,
            first,
            session,
            ..
        } = self;
        format!("/socket.io/?{first}EIO={protocol}&transport=polling&j=0{session}")
    }

    /// What follows the beginning of the first packet with it.
    fn wait(&mut self, beginning: &str) -> String {
        loop {
            let found = self
                .packets
                .iter()
                .position(|packet| packet.starts_with(beginning));
            if let Some(found) = found {
                return self.packets.remove(found)[beginning.len()..].to_owned();
            }
            let headers = "Connection: close\r\n";
            let answer = send(self.address, &request("GET", self.target(), headers, ""));
            assert_eq!(answer.status, 200, "{answer:?}");
            let script = String::from_utf8(answer.body).unwrap();
            let argument = script
                .strip_prefix("___eio[0](")
                .and_then(|rest| rest.strip_suffix(");"));
            let payload: String =
                serde_json::from_str(argument.unwrap_or_else(|| panic!("{script}"))).unwrap();
            self.packets.extend(self.split(&payload));
        }
    }

    /// The packets of a payload: counted in UTF-16 units until version 3, and separated since.
    fn split(&self, payload: &str) -> Vec<String> {
        if self.protocol == 4 {
            return payload.split('\u{1e}').map(str::to_owned).collect();
        }
        let mut packets = Vec::new();
        let mut rest = payload.to_owned();
        while !rest.is_empty() {
            let (length, behind) = rest.split_once(':').unwrap_or_else(|| panic!("{payload}"));
            let length: usize = length.parse().unwrap_or_else(|_| panic!("{payload}"));
            let units: Vec<u16> = behind.encode_utf16().collect();
            assert!(length <= units.len(), "{payload}");
            packets.push(String::from_utf16(&units[..length]).unwrap());
            rest = String::from_utf16(&units[length..]).unwrap();
        }
        packets
    }

    fn post(&self, packet: &str) {
        let length = packet.encode_utf16().count();
        let payload = match self.protocol {
            4 => packet.to_owned(),
            _ => format!("{length}:{packet}"),
        };
        let body: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("d", &payload)
            .finish();
        let headers = "Content-Type: application/x-www-form-urlencoded\r\nConnection: close\r\n";
        let answer = send(
            self.address,
            &request("POST", self.target(), headers, &body),
        );
        assert_eq!((answer.status, &*answer.body), (200, &b"ok"[..]));
    }

    fn token(&mut self, channel: &str) -> Value {
        let wanted = json!(["call:token", { "channelName": channel, "text": "\u{1f600} é" }]);
        self.post(&format!("42{wanted}"));
        let event: Value = serde_json::from_str(&self.wait("42")).unwrap();
        assert_eq!(event[1]["channelName"], channel);
        event[1]["token"].clone()
    }
}

fn is_searched(server: u8, protocol: u8, first: &'static str) {
    let app = start_socket_io(server);
    let renewd = Renewd::start(&Settings {
        tables: "[[reissue.socket]]\npath = \"/socket.io/*\"\n".to_owned(),
        ..settings(&app)
    });
    for (address, lifetime) in [(app.address, 24 * 3600), (renewd.public, 3600)] {
        let mut browser = Browser::open(address, protocol, first);
        let channel = "call_1_2";
        let read = app.inspect(&browser.token(channel));
        assert_eq!(read["expire"], lifetime);
        assert_eq!(read["services"][0]["channelName"], channel);
        let stream = browser.token(CHANNEL);
        assert_eq!(stream.is_null(), address == renewd.public);
    }
}

#[test]
fn scripts_of_socket_io_2_hold_short_tokens() {
    is_searched(2, 3, "");
}

#[test]
fn scripts_of_socket_io_3_hold_short_tokens() {
    is_searched(3, 3, "");
    is_searched(3, 4, "");
}

#[test]
fn scripts_of_socket_io_4_hold_short_tokens() {
    is_searched(4, 3, "");
    is_searched(4, 4, "");
}

#[test]
fn a_second_transport_in_the_url_hides_no_token() {
    is_searched(4, 4, "transport=x&");
}
