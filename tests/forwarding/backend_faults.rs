//! The backend's faults, shown on the backend alone: the faults that renewd mends are real, not made up for its tests.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail

use crate::support::express::{Express, Version};
use crate::support::raw::{Client, Response};
use serde_json::{Value, json};

const BROADCASTER: &str = "65f0c0ffee65f0c0ffee65f0";
const STRANGER: &str = "65f0c0ffee65f0c0ffee65f1";
const FIFTY_YEARS: u64 = 50 * 365 * 86_400;

/// A backend with one live stream and two logged-in users.
struct Scene {
    client: Client,
    broadcaster: String,
    stranger: String,
    channel: String,
    _app: Express,
}

impl Scene {
    fn start(version: Version) -> Self {
        let app = Express::start(version, &[]);
        let mut client = Client::new(app.address);
        let mut control = |path: &str, body: Value| {
            let response = client
                .post_json(&format!("/__control{path}"), "", &body)
                .unwrap();
            assert_eq!(response.status, 201);
            response.json()
        };
        let mut login = |user: &str| {
            let answer = control("/login", json!({ "astrologerId": user }));
            answer["token"].as_str().unwrap().to_owned()
        };
        let (broadcaster, stranger) = (login(BROADCASTER), login(STRANGER));
        let stream = control("/streams", json!({ "astrologerId": BROADCASTER }));
        Self {
            broadcaster,
            stranger,
            channel: stream["channelName"].as_str().unwrap().to_owned(),
            client,
            _app: app,
        }
    }

    fn ask(&mut self, path: &str, user: &str, channel: &str, role: &str) -> Response {
        let body = json!({ "channelName": channel, "uid": 7, "role": role });
        self.client.post_json(path, user, &body).unwrap()
    }

    fn inspect(&mut self, token: &Value) -> Value {
        let inspected = self
            .client
            .post_json("/__control/inspect", "", &json!({ "token": token }));
        inspected.unwrap().json()
    }
}

fn assert_faults(version: Version) {
    let mut scene = Scene::start(version);
    let (broadcaster, stranger) = (scene.broadcaster.clone(), scene.stranger.clone());
    let channel = scene.channel.clone();

    // The stream's own broadcaster can't refresh: a string is compared with an ObjectId.
    let refused = scene.ask(
        "/api/live/refresh-token",
        &broadcaster,
        &channel,
        "publisher",
    );
    assert_eq!(refused.status, 403);
    assert_eq!(
        refused.json()["message"],
        "Not authorized to broadcast this stream"
    );
    assert_eq!(
        scene
            .ask("/refresh-token", &broadcaster, &channel, "subscriber")
            .status,
        200
    );

    // Every caller gets a publisher token, for a channel that doesn't exist too, and "one hour" is decades.
    let minted = scene.ask("/api/live/agora-token", &stranger, "anything", "publisher");
    assert_eq!(minted.status, 200);
    let token = scene.inspect(&minted.json()["data"]["token"]);
    assert!(token["expire"].as_u64().unwrap() > FIFTY_YEARS, "{token}");
    assert_eq!(token["services"][0]["channelName"], "anything");

    // Anonymous callers get tokens inside other answers.
    let active = scene
        .client
        .send(b"GET /api/live/active HTTP/1.1\r\nHost: app.test\r\n\r\n")
        .unwrap();
    let token = scene.inspect(&active.json()["data"][0]["agoraToken"]);
    assert_eq!(token["services"][0]["channelName"], channel.as_str());

    // A caller without an account, or without a token, is refused: the app's authentication is in order.
    assert_eq!(
        scene
            .ask("/api/live/agora-token", "", &channel, "publisher")
            .status,
        401
    );
    assert_eq!(
        scene
            .ask("/api/live/agora-token", "x.y.z", &channel, "publisher")
            .status,
        401
    );
}

#[test]
fn express_4_shows_the_faults_that_renewd_mends() {
    assert_faults(Version::Four);
}

#[test]
fn express_5_shows_the_faults_that_renewd_mends() {
    assert_faults(Version::Five);
}
