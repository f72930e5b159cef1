//! The main job: in front of the current app, renewd mends its tokens and changes nothing else that a client can see.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test's way to fail

use std::process::{Command, Stdio};

use crate::support::app::{self, ASTROLOGER, CHANNEL, VIEWER, send};
use crate::support::conversation::request;
use crate::support::express::{Express, Version};
use crate::support::npm;
use crate::support::raw::Response;
use crate::support::renewd::{APP_ID, Renewd, now};
use serde_json::{Value, json};

const TOKEN_PATHS: [&str; 2] = ["/api/live/token", "/api/live/agora-token"];
const REFRESH_PATHS: [&str; 2] = ["/api/live/refresh-token", "/refresh-token"];

/// Agora's RTC privileges: join, publish audio, publish video, publish data.
const PUBLISHER: [&str; 4] = ["1", "2", "3", "4"];

fn post(address: std::net::SocketAddr, path: &str, authorization: &str, body: &Value) -> Response {
    let headers = format!("Authorization: {authorization}\r\nContent-Type: application/json\r\n");
    send(address, &request("POST", path, &headers, &body.to_string()))
}

fn both(version: Version) -> (Express, Renewd) {
    let backend = app::start(version);
    let renewd = Renewd::start(&app::settings(&backend));
    (backend, renewd)
}

// === tokens ===

fn broadcaster_is_served(version: Version) {
    let (backend, renewd) = both(version);
    backend.control("/streams", &json!({ "astrologerId": ASTROLOGER }));
    let bearer = format!("Bearer {}", backend.login(ASTROLOGER));
    let body = json!({"channelName": CHANNEL, "uid": 77, "role": "publisher"});
    for path in REFRESH_PATHS {
        let without = post(backend.address, path, &bearer, &body);
        assert_eq!(without.status, 403, "{path}");
        let reached = backend.owned_hits();

        let with = post(renewd.public, path, &bearer, &body);
        assert_eq!(with.status, 200, "{path}: {}", with.json());
        assert_eq!(backend.owned_hits(), reached, "{path} was forwarded");
        let data = &with.json()["data"];
        let read = backend.inspect(&data["token"]);
        assert_eq!(read["services"][0]["channelName"], CHANNEL);
        assert_eq!(read["services"][0]["uid"], "77");
        assert_eq!(
            read["services"][0]["privileges"],
            privileges(&PUBLISHER, 3600)
        );
    }
}

fn privileges(numbers: &[&str], seconds: u64) -> Value {
    numbers
        .iter()
        .map(|number| ((*number).to_owned(), json!(seconds)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[test]
fn the_broadcaster_whom_express_4_refuses_a_refresh_gets_one_through_renewd() {
    broadcaster_is_served(Version::Four);
}

#[test]
fn the_broadcaster_whom_express_5_refuses_a_refresh_gets_one_through_renewd() {
    broadcaster_is_served(Version::Five);
}

#[test]
fn agoras_own_parser_reads_one_hour_where_the_app_alone_said_decades() {
    let (backend, renewd) = both(Version::Four);
    let bearer = format!("Bearer {}", backend.login(ASTROLOGER));
    for path in TOKEN_PATHS {
        let body = json!({"channelName": CHANNEL, "role": "publisher"});
        let token = |address| {
            let answer = post(address, path, &bearer, &body);
            assert_eq!(answer.status, 200, "{path}");
            backend.inspect(&answer.json()["data"]["token"])
        };
        let theirs = token(backend.address);
        assert!(theirs["expire"].as_u64().unwrap() > 1_000_000_000, "{path}");

        let before = now();
        let ours = token(renewd.public);
        assert_eq!(ours["expire"], 3600, "{path}");
        assert_eq!(ours["appId"], APP_ID);
        let issued_at = ours["issuedAt"].as_u64().unwrap();
        assert!((before..=now()).contains(&issued_at), "{issued_at}");
        let services = ours["services"].as_array().unwrap();
        assert_eq!(services.len(), 1, "only RTC");
        assert_eq!(services[0]["type"], 1);
        assert_eq!(services[0]["channelName"], CHANNEL);
        // Agora writes uid 0, which fits every user, as an empty string.
        assert_eq!(services[0]["uid"], "");
        assert_eq!(services[0]["privileges"], privileges(&PUBLISHER, 3600));
    }
}

#[test]
fn a_viewers_token_lets_them_join_and_nothing_more() {
    let (backend, renewd) = both(Version::Four);
    let bearer = format!("Bearer {}", backend.login(VIEWER));
    for path in TOKEN_PATHS.into_iter().chain(REFRESH_PATHS) {
        for body in [
            json!({"channelName": CHANNEL, "uid": 78, "role": "subscriber"}),
            json!({"channelName": CHANNEL, "uid": 78}),
        ] {
            let answer = post(renewd.public, path, &bearer, &body);
            assert_eq!(answer.status, 200, "{path}: {}", answer.json());
            let read = backend.inspect(&answer.json()["data"]["token"]);
            assert_eq!(read["expire"], 3600);
            assert_eq!(read["services"][0]["uid"], "78");
            assert_eq!(read["services"][0]["privileges"], privileges(&["1"], 3600));
        }
    }
}

#[test]
fn a_viewer_who_asks_to_broadcast_gets_no_token_though_the_app_alone_would_give_one() {
    let (backend, renewd) = both(Version::Four);
    let bearer = format!("Bearer {}", backend.login(VIEWER));
    let body = json!({"channelName": CHANNEL, "uid": 0, "role": "publisher"});
    for path in TOKEN_PATHS {
        assert_eq!(post(backend.address, path, &bearer, &body).status, 200);
        let refused = post(renewd.public, path, &bearer, &body);
        assert_eq!(refused.status, 403);
        let answer = refused.json();
        assert_eq!(answer["success"], false);
        assert_eq!(answer["code"], "not_owner");
        assert_eq!(answer["message"], "Not authorized to broadcast this stream");
        assert!(answer.get("data").is_none());
    }
}

#[test]
fn what_the_installed_clients_read_keeps_its_place_and_type() {
    let (backend, renewd) = both(Version::Four);
    let login = backend.login(ASTROLOGER);
    // The app takes a login with and without the scheme.
    for authorization in [format!("Bearer {login}"), login.clone()] {
        for (path, body) in [
            // The request before joining.
            (
                "/api/live/agora-token",
                json!({"channelName": CHANNEL, "uid": 0, "role": "publisher"}),
            ),
            // The request on `onTokenPrivilegeWillExpire`, with the uid that the SDK assigned.
            (
                "/api/live/refresh-token",
                json!({"channelName": CHANNEL, "uid": 2_882_341_273_u32, "role": "publisher"}),
            ),
            (
                "/refresh-token",
                json!({"channelName": CHANNEL, "uid": 0, "role": "publisher"}),
            ),
        ] {
            let ours = post(renewd.public, path, &authorization, &body);
            assert_eq!(ours.status, 200, "{path}: {}", ours.json());
            assert_eq!(ours.header("cache-control"), Some("no-store"));
            assert_eq!(
                ours.header("content-type"),
                Some("application/json; charset=utf-8")
            );
            let ours = ours.json();
            assert_eq!(ours["success"], true);
            let theirs = post(
                backend.address,
                "/api/live/agora-token",
                &authorization,
                &body,
            );
            for (name, value) in theirs.json()["data"].as_object().unwrap() {
                let ours = &ours["data"][name];
                match name.as_str() {
                    "token" => assert!(ours.as_str().unwrap().starts_with("007")),
                    "expiresAt" => {
                        let form = |time: &Value| {
                            let time = time.as_str().unwrap();
                            time.replace(|digit: char| digit.is_ascii_digit(), "9")
                        };
                        assert_eq!(form(ours), form(value));
                    }
                    _ => assert_eq!(ours, value, "{name}"),
                }
            }
        }
    }
}

#[test]
fn a_failure_is_json_with_a_request_id() {
    let (_backend, renewd) = both(Version::Four);
    let body = json!({ "channelName": CHANNEL });
    let refused = post(renewd.public, TOKEN_PATHS[0], "Bearer nonsense", &body);
    assert_eq!(refused.status, 401);
    assert_eq!(refused.json()["code"], "unauthenticated");
    assert_eq!(refused.json()["success"], false);
    assert!(
        refused
            .header("x-request-id")
            .is_some_and(|id| !id.is_empty())
    );
}

// === everything else ===

/// The client's view of an answer: all but the fields that each hop makes anew, and the values that differ from one
/// second to the next.
fn visible(response: &Response) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let masked = masked(&response.body);
    let changed = masked != response.body;
    let headers = response.headers.iter().filter(|(name, _)| {
        let of_the_hop = ["connection", "keep-alive", "transfer-encoding"];
        let of_the_body = ["content-length", "etag"];
        !(of_the_hop.contains(&name.as_str())
            || matches!(name.as_str(), "date" | "x-request-id")
            // A 204 may not have a length (RFC 9110 section 8.6), but cors 2.8.6 sends one with its preflight answer
            // (`lib/index.js`, `cors`).
            || response.status == 204 && name == "content-length"
            || changed && of_the_body.contains(&name.as_str()))
    });
    (response.status, headers.cloned().collect(), masked)
}

/// Replaces the tokens in a body: they are salted, so that no two are equal.
fn masked(body: &[u8]) -> Vec<u8> {
    /// Whether there was a token.
    fn mask(value: &mut Value) -> bool {
        match value {
            Value::String(token) if token.starts_with("007") => {
                *value = "a token".into();
                true
            }
            Value::Object(fields) => fields.values_mut().fold(false, |any, it| mask(it) | any),
            Value::Array(values) => values.iter_mut().fold(false, |any, it| mask(it) | any),
            _ => false,
        }
    }
    let mut value = serde_json::from_slice(body).unwrap_or_default();
    if mask(&mut value) {
        value.to_string().into_bytes()
    } else {
        body.to_vec()
    }
}

const FROM_BROWSER: &str = "Origin: https://app.example\r\nCookie: a=1; b=2\r\n";

/// Requests for the app's routes and for what it has no route for.
fn route_requests(id: &str) -> Vec<(&'static str, Vec<u8>)> {
    let json = "Content-Type: application/json\r\n";
    vec![
        ("health", request("GET", "/health", "", "")),
        (
            "active",
            request("GET", "/api/live/active", FROM_BROWSER, ""),
        ),
        (
            "one stream",
            request("GET", format!("/api/live/{id}"), "", ""),
        ),
        (
            "no stream",
            request("GET", "/api/live/65f00000000000000000dead", "", ""),
        ),
        (
            "join",
            request("POST", format!("/api/live/{id}/join"), json, "{}"),
        ),
        (
            "admin",
            request("GET", format!("/api/admin/live-streams/{id}/token"), "", ""),
        ),
        (
            "nothing there",
            request("GET", "/nothing/there?x=%20", "", ""),
        ),
        ("wrong method", request("DELETE", "/health", "", "")),
        ("bad JSON", request("POST", "/api/live/start", json, "{")),
        ("no login", request("POST", "/api/live/start", json, "{}")),
        (
            "form",
            request(
                "POST",
                "/nothing",
                "Content-Type: application/x-www-form-urlencoded\r\n",
                "a=b",
            ),
        ),
    ]
}

/// Preflights, cookies, and answers of every form.
fn form_requests(backend: &Express) -> Vec<(&'static str, Vec<u8>)> {
    let preflight = format!(
        "{FROM_BROWSER}Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n"
    );
    let conditional = {
        let file = send(backend.address, &request("GET", "/wire/file", "", ""));
        format!("If-None-Match: {}\r\n", file.header("etag").unwrap())
    };
    vec![
        (
            "preflight",
            request("OPTIONS", "/api/live/start", &preflight, ""),
        ),
        (
            "preflight of an owned path",
            request("OPTIONS", "/api/live/token", &preflight, ""),
        ),
        (
            "preflight of an owned path, spelled oddly",
            request("OPTIONS", "/API/live//Token/?x", &preflight, ""),
        ),
        ("cookies", request("GET", "/wire/cookies", "", "")),
        ("a file", request("GET", "/wire/file", "", "")),
        (
            "a range",
            request("GET", "/wire/file", "Range: bytes=3-9\r\n", ""),
        ),
        (
            "not modified",
            request("GET", "/wire/file", &conditional, ""),
        ),
        (
            "no content",
            request("GET", "/wire/status?code=204", "", ""),
        ),
        ("chunks", request("GET", "/wire/zeros?bytes=200000", "", "")),
        (
            "events",
            request("GET", "/wire/events?count=3&end=1", "", ""),
        ),
    ]
}

fn everything_else_is_the_apps(version: Version) {
    let (backend, renewd) = both(version);
    let stream = backend.control("/streams", &json!({ "astrologerId": ASTROLOGER }));
    let id = stream["id"].as_str().unwrap();
    for (name, request) in route_requests(id)
        .into_iter()
        .chain(form_requests(&backend))
    {
        let alone = visible(&send(backend.address, &request));
        let behind = visible(&send(renewd.public, &request));
        assert_eq!(behind, alone, "{name}");
    }
}

#[test]
fn every_other_answer_of_express_4_is_the_same_through_renewd() {
    everything_else_is_the_apps(Version::Four);
}

#[test]
fn every_other_answer_of_express_5_is_the_same_through_renewd() {
    everything_else_is_the_apps(Version::Five);
}

#[test]
fn the_apps_headers_and_cookies_arrive_as_it_set_them() {
    let (_backend, renewd) = both(Version::Four);
    let health = send(
        renewd.public,
        &request("GET", "/health", "Origin: https://app.example\r\n", ""),
    );
    assert_eq!(health.header("x-content-type-options"), Some("nosniff"));
    assert!(health.header("content-security-policy").is_some());
    assert_eq!(
        health.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    assert_eq!(
        health.header("access-control-allow-credentials"),
        Some("true")
    );

    let cookies = send(renewd.public, &request("GET", "/wire/cookies", "", ""));
    let set: Vec<_> = cookies
        .headers
        .iter()
        .filter(|(name, _)| name == "set-cookie")
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(set, ["a=1; Path=/", "b=2; HttpOnly"]);
}

#[test]
fn a_stream_starts_shows_and_ends_through_renewd() {
    let (backend, renewd) = both(Version::Four);
    let bearer = format!("Bearer {}", backend.login(ASTROLOGER));
    let active = || {
        let answer = send(renewd.public, &request("GET", "/api/live/active", "", ""));
        answer.json()["data"].as_array().unwrap().clone()
    };
    assert!(active().is_empty());
    let started = post(renewd.public, "/api/live/start", &bearer, &json!({}));
    assert_eq!(started.status, 201);
    let stream = started.json()["data"].clone();
    assert_eq!(stream["agoraChannelName"], CHANNEL);
    assert_eq!(active()[0]["_id"], stream["_id"]);

    let body = json!({ "channelName": stream["agoraChannelName"] });
    let token = post(renewd.public, "/api/live/refresh-token", &bearer, &body);
    assert_eq!(token.status, 200);
    assert_eq!(token.json()["data"]["role"], "publisher");

    let joined = format!("/api/live/{}/join", stream["_id"].as_str().unwrap());
    assert_eq!(post(renewd.public, &joined, "", &json!({})).status, 200);
    assert_eq!(
        post(renewd.public, "/api/live/end", &bearer, &json!({})).status,
        200
    );
    assert!(active().is_empty());
    assert_eq!(post(renewd.public, &joined, "", &json!({})).status, 404);
}

// === socket.io ===

fn socket_io(version: Version, transports: &[&str]) -> Value {
    let (backend, renewd) = both(version);
    let directory = npm::package("express");
    let client = Command::new("node")
        .arg("socket_client.js")
        .arg(format!("http://{}", renewd.public))
        .args(transports)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .expect("node");
    let errors = String::from_utf8_lossy(&client.stderr);
    assert!(client.status.success(), "{errors}");
    let closed = || backend.hits().get("socketClosed").copied();
    renewd.eventually("the app sees the client leave", |_| closed() == Some(1));
    assert_eq!(backend.hits().get("socket"), Some(&1));
    serde_json::from_slice(&client.stdout).expect("one line of JSON")
}

fn talked(first: &str, last: &str) -> Value {
    json!({"first": first, "last": last, "text": "grüße", "bytes": true, "broadcast": "to all"})
}

#[test]
fn socket_io_polls_through_renewd() {
    let seen = socket_io(Version::Four, &["polling"]);
    assert_eq!(seen, talked("polling", "polling"));
}

#[test]
fn socket_io_opens_a_websocket_through_renewd() {
    let seen = socket_io(Version::Five, &["websocket"]);
    assert_eq!(seen, talked("websocket", "websocket"));
}

#[test]
fn socket_io_upgrades_from_polling_to_a_websocket_through_renewd() {
    let seen = socket_io(Version::Four, &["polling", "websocket"]);
    assert_eq!(seen, talked("polling", "websocket"));
}
