//! The Express app as the current one is configured, and renewd in front of it.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::conversation::{Conversation, request};
use super::express::{Express, Version};
use super::raw::Response;
use super::renewd::{APP_CERTIFICATE, APP_ID, JWT_SECRET, Settings};

/// The stream's owner: a Mongo `ObjectId` in hexadecimal, as the app's logins carry it.
pub const ASTROLOGER: &str = "65f000000000000000000001";
/// A viewer of the stream.
pub const VIEWER: &str = "65f000000000000000000002";
/// The astrologer's channel, as the app names it.
pub const CHANNEL: &str = "live_65f000000000000000000001";

/// The handlers of the paths that renewd owns: none of them may run behind it.
const OWNED_HANDLERS: [&str; 3] = ["token", "agora-token", "refresh-token"];

/// Starts the app with the secrets that renewd's test configuration has, its limiters off.
pub fn start(version: Version) -> Express {
    start_mounted(version, "router")
}

/// The same, its live router attached in another way: `router`, `nested`, `leaf` or `prefix`.
pub fn start_mounted(version: Version, mount: &str) -> Express {
    start_with(version, ("MOUNT", mount))
}

/// The app with a server of socket.io 2, 3 or 4.
pub fn start_socket_io(socket_io: u8) -> Express {
    start_with(Version::Four, ("SOCKET_IO", &socket_io.to_string()))
}

fn start_with(version: Version, variable: (&str, &str)) -> Express {
    let environment = [
        ("JWT_SECRET", JWT_SECRET),
        ("APP_ID", APP_ID),
        ("APP_CERTIFICATE", APP_CERTIFICATE),
        ("RATE_LIMIT", "0"),
        variable,
    ];
    Express::start(version, &environment)
}

/// renewd's configuration in front of it: the app's claim for the user's id, uid 0 as the installed clients join, the
/// astrologer's stream live.
pub fn settings(app: &Express) -> Settings {
    let streams = format!("[[stream]]\nchannel = \"{CHANNEL}\"\nowner = \"{ASTROLOGER}\"\n");
    Settings {
        backend: Some(app.address),
        token: "zero_uid = \"allow\"".to_owned(),
        jwt: "subject_claim = \"astrologerId\"".to_owned(),
        streams: Some(streams),
        ..Settings::default()
    }
}

impl Express {
    /// Asks one of the app's control routes.
    pub fn control(&self, path: &str, body: &Value) -> Value {
        let headers = "Content-Type: application/json\r\nConnection: close\r\n";
        let path = format!("/__control{path}");
        let answer = send(
            self.address,
            &request("POST", path, headers, &body.to_string()),
        );
        answer.json()
    }

    /// Signs a user in as the app would.
    pub fn login(&self, user: &str) -> String {
        let answer = self.control("/login", &json!({ "astrologerId": user }));
        answer["token"].as_str().expect("a token").to_owned()
    }

    /// The content of a token, as Agora's own package reads it.
    pub fn inspect(&self, token: &Value) -> Value {
        self.control("/inspect", &json!({ "token": token }))
    }

    /// How often each handler has run.
    pub fn hits(&self) -> HashMap<String, u64> {
        let asked = request("GET", "/__control/hits", "Connection: close\r\n", "");
        let answer = send(self.address, &asked);
        serde_json::from_slice(&answer.body).expect("handlers and calls")
    }

    /// How often a handler of an owned path has run.
    pub fn owned_hits(&self) -> u64 {
        let hits = self.hits();
        OWNED_HANDLERS
            .iter()
            .filter_map(|name| hits.get(*name))
            .sum()
    }
}

/// One request on a connection of its own.
pub fn send(address: std::net::SocketAddr, request: &[u8]) -> Response {
    let mut conversation = Conversation::open(address);
    conversation.write(request);
    conversation.response().expect("an answer")
}
