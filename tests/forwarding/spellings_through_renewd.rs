//! However a request for an owned path is written, framed or disguised, the app's own handler never sees it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test's way to fail

use std::collections::HashMap;

use crate::support::app::{self, ASTROLOGER, CHANNEL, send};
use crate::support::conversation::{Conversation, chunked, request};
use crate::support::express::{Express, Version};
use crate::support::raw::Response;
use crate::support::renewd::{Renewd, Settings};
use crate::support::spellings::{REFRESH, TOKEN, all_targets, owned_paths};
use http::Uri;
use renewd::http::readings::Readings;
use renewd::http::target::Match;
use serde_json::json;

/// renewd in front of the app, and a broadcaster that may have a token: a request that is let through would be served.
struct Stage {
    app: Express,
    renewd: Renewd,
    headers: String,
    body: String,
}

impl Stage {
    fn set(version: Version) -> Self {
        Self::with(app::start(version), |_| {})
    }

    fn with(app: Express, change: impl FnOnce(&mut Settings)) -> Self {
        app.control("/streams", &json!({ "astrologerId": ASTROLOGER }));
        let mut settings = app::settings(&app);
        settings.tables += "[rate_limit]\nsubject = \"off\"\naddress = \"off\"\n";
        settings.log += "audit = \"off\"";
        change(&mut settings);
        let renewd = Renewd::start(&settings);
        let login = app.login(ASTROLOGER);
        Self {
            app,
            renewd,
            headers: format!("Authorization: Bearer {login}\r\nContent-Type: application/json\r\n"),
            // The app alone would give this caller a token at the token paths.
            body: json!({"channelName": CHANNEL, "uid": 0, "role": "publisher"}).to_string(),
        }
    }

    /// A valid token request for this target.
    fn post(&self, target: impl AsRef<[u8]>) -> Vec<u8> {
        request("POST", target, &self.headers, &self.body)
    }

    fn send(&self, request: &[u8]) -> Response {
        send(self.renewd.public, request)
    }

    fn assert_untouched(&self, what: &str) {
        assert_eq!(self.app.owned_hits(), 0, "{what} reached the app");
    }
}

/// The program that gave an answer, and the kind of answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum By {
    /// renewd: a token.
    Token,
    /// renewd: 404, the guard.
    Guard,
    /// renewd: 400, no target at all or no valid host in it.
    Refusal,
    /// The app answered.
    App,
    /// Node's parser refused what it can't read.
    Node,
}

fn answered_by(response: &Response) -> By {
    // helmet marks every answer of the app.
    if response.header("x-dns-prefetch-control").is_some() {
        return By::App;
    }
    let json: Option<serde_json::Value> = serde_json::from_slice(&response.body).ok();
    let code = json.as_ref().and_then(|json| json["code"].as_str());
    let minted = json.as_ref().is_some_and(|json| {
        let data = &json["data"];
        // The app's own answers have no `expiresIn`.
        data["expiresIn"] == 3600
            && data["token"]
                .as_str()
                .is_some_and(|it| it.starts_with("007"))
    });
    match (response.status, code) {
        (200, None) if minted => By::Token,
        (404, Some("not_found")) => By::Guard,
        (400, Some("invalid_request")) => By::Refusal,
        // A request that can't be parsed is refused; an answer from the backend has an id.
        (400, None) if response.header("x-request-id").is_none() => By::Refusal,
        (400, None) => By::Node,
        _ => panic!("whose answer is this? {response:?}"),
    }
}

fn no_spelling_gets_through(app: Express) {
    let stage = Stage::with(app, |_| {});
    let owned = owned_paths();
    let mut seen: HashMap<By, usize> = HashMap::new();
    let mut conversation = Conversation::open(stage.renewd.public);
    for target in all_targets() {
        let name = target.escape_ascii().to_string();
        conversation.write(&stage.post(&target));
        let response = conversation
            .response()
            .unwrap_or_else(|| panic!("no answer to {name}"));
        if response.header("connection") == Some("close") {
            conversation = Conversation::open(stage.renewd.public);
        }
        let by = answered_by(&response);
        *seen.entry(by).or_default() += 1;
        let parsed = Uri::try_from(target.as_slice());
        let is_origin_form = target.starts_with(b"/");
        match parsed.map(|uri| owned.classify(&uri, &Readings::of(uri.path()))) {
            // An absolute form may name a host that is none.
            _ if by == By::Refusal && !is_origin_form => {}
            Ok(Match::Served(_)) => assert_eq!(by, By::Token, "{name}"),
            Ok(Match::Guarded | Match::Below { .. }) => assert_eq!(by, By::Guard, "{name}"),
            Ok(Match::Foreign) => assert!(matches!(by, By::App | By::Node), "{by:?}: {name}"),
            Err(_) => assert_eq!(by, By::Refusal, "{name}"),
        }
        if by == By::App {
            let reached = response.header("x-reached").unwrap_or_default();
            assert!(!reached.contains("token"), "{name} reached {reached}");
        }
    }
    stage.assert_untouched("a spelling");
    // Each kind of answer was given.
    for (by, least) in [
        (By::Token, 500),
        (By::Guard, 500),
        (By::Refusal, 20),
        (By::App, 500),
        (By::Node, 10),
    ] {
        let count = seen.get(&by).copied().unwrap_or_default();
        assert!(count >= least, "{by:?}: {seen:?}");
    }
}

#[test]
fn no_spelling_reaches_the_owned_handlers_of_express_4() {
    no_spelling_gets_through(app::start(Version::Four));
}

#[test]
fn no_spelling_reaches_the_owned_handlers_of_express_5() {
    // Each owned path behind a router of its own, which reads slashes in yet another way.
    no_spelling_gets_through(app::start_mounted(Version::Five, "leaf"));
}

// === methods ===

#[test]
fn other_methods_of_an_owned_path_get_405_and_are_never_forwarded() {
    let stage = Stage::set(Version::Four);
    let methods = [
        "GET", "HEAD", "PUT", "DELETE", "PATCH", "post", "Post", "QUERY", "PROPFIND",
    ];
    let disguises = [
        "",
        "X-HTTP-Method-Override: POST\r\n",
        "X-HTTP-Method: POST\r\nX-Method-Override: POST\r\n",
    ];
    for path in TOKEN.into_iter().chain(REFRESH) {
        for target in [
            path.to_owned(),
            format!("{}/?_method=POST", path.to_uppercase()),
        ] {
            for (method, disguise) in methods.into_iter().zip(disguises.into_iter().cycle()) {
                let headers = format!("{}{disguise}", stage.headers);
                let mut conversation = Conversation::open(stage.renewd.public);
                conversation.write(&request(method, &target, &headers, &stage.body));
                let answer = conversation.response_to(method).expect("an answer");
                assert_eq!(answer.status, 405, "{method} {target}");
                assert_eq!(answer.header("allow"), Some("POST, OPTIONS"));
                assert!(answer.header("x-request-id").is_some());
                if method == "HEAD" {
                    assert!(answer.header("content-length").is_some());
                } else {
                    assert_eq!(answer.json()["code"], "method_not_allowed");
                }
            }
        }
    }
    stage.assert_untouched("another method");
    let forwarded = stage.renewd.metric("renewd_upstream_requests_total");
    assert!(forwarded.abs() < f64::EPSILON);
}

#[test]
fn every_method_of_a_guarded_spelling_gets_404() {
    let stage = Stage::set(Version::Five);
    for method in ["GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH"] {
        for target in ["//api/live/token", "/api/live/%74oken", "/refresh-token/."] {
            let mut conversation = Conversation::open(stage.renewd.public);
            conversation.write(&request(method, target, &stage.headers, ""));
            let answer = conversation.response_to(method).expect("an answer");
            assert_eq!(answer.status, 404, "{method} {target}");
            assert!(answer.header("x-dns-prefetch-control").is_none());
        }
    }
    stage.assert_untouched("a guarded spelling");
}

/// Plainly spelled, and oddly.
const BELOW: [&str; 2] = ["/api/live/token/x", "/Refresh-Token/x/y/"];
const ODDLY_BELOW: [&str; 5] = [
    "/api/live/token/..",
    "/api/live/token/x/../../active",
    "/api/live/token%2fx",
    "/api/live/token/%78",
    "/api/live//agora-token/x",
];

/// The status of a request with the broadcaster's login, and whether it was the app that gave it.
fn answered(stage: &Stage, method: &str, target: &str, headers: &str) -> (u16, bool) {
    let headers = format!("{}{headers}", stage.headers);
    let mut conversation = Conversation::open(stage.renewd.public);
    conversation.write(&request(method, target, &headers, &stage.body));
    let answer = conversation.response_to(method).expect("an answer");
    let by_the_app = answer.header("x-dns-prefetch-control").is_some();
    (answer.status, by_the_app)
}

#[test]
fn what_is_below_an_owned_path_is_refused_but_its_preflights() {
    for version in [Version::Four, Version::Five] {
        let stage = Stage::with(app::start_mounted(version, "prefix"), |_| {});
        for target in BELOW.into_iter().chain(ODDLY_BELOW) {
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "QUERY"] {
                let answer = answered(&stage, method, target, "");
                assert_eq!(answer, (404, false), "{method} {target}");
            }
            let (_, by_the_app) = answered(&stage, "OPTIONS", target, "");
            assert!(by_the_app, "{target}");
        }
        stage.assert_untouched("a path below");
        let (_, by_the_app) = answered(&stage, "POST", "/api/live/token-something", "");
        assert!(by_the_app);
    }
}

#[test]
fn what_is_plainly_below_an_owned_path_is_the_backends_where_routes_below_says_so() {
    let stage = Stage::with(app::start_mounted(Version::Four, "prefix"), |settings| {
        settings.tables += "[routes]\nbelow = \"forward\"\n";
    });
    for target in ODDLY_BELOW {
        let answer = answered(&stage, "POST", target, "");
        assert_eq!(answer, (404, false), "{target}");
    }
    stage.assert_untouched("an odd path below");
    for target in BELOW {
        let (_, by_the_app) = answered(&stage, "POST", target, "");
        assert!(by_the_app, "{target}");
    }
}

#[test]
fn paths_of_reissue_rules_and_of_an_owned_root_are_not_below() {
    let stage = Stage::with(app::start_mounted(Version::Four, "prefix"), |settings| {
        settings.tables += "[routes]\ntoken = [\"/\", \"/api/live/token\", \"/api/live/token/own\"]\n\
            [[reissue.rule]]\nmethods = [\"GET\"]\npath = \"/api/live/{id}/join\"\n";
    });
    for target in [
        "/api/live/token/join",
        "/API/live/token/JOIN/",
        "/nothing",
        "/no%20thing",
    ] {
        let (_, by_the_app) = answered(&stage, "GET", target, "");
        assert!(by_the_app, "{target}");
    }
    // The rule applies to no other method and to no odd spelling, whose answers would keep their tokens.
    for (method, target) in [
        ("PUT", "/api/live/token/join"),
        ("POST", "/api/live/token/join"),
        ("PATCH", "/api/live/token/join"),
        ("GET", "/api/live/token//join"),
        ("GET", "/api/live/token/x/../join"),
    ] {
        assert_eq!(
            answered(&stage, method, target, ""),
            (404, false),
            "{method} {target}"
        );
    }
    assert_eq!(
        answered(&stage, "POST", "/api/live/token/own", ""),
        (200, false)
    );
    assert_eq!(
        answered(&stage, "POST", "/api/live/token/other", ""),
        (404, false)
    );
}

#[test]
fn where_no_rule_is_in_force_none_opens_what_is_below() {
    for mode in ["observe", "off"] {
        let stage = Stage::with(app::start_mounted(Version::Four, "prefix"), |settings| {
            let rule = "[[reissue.rule]]\nmethods = [\"POST\"]\npath = \"/api/live/{id}/join\"\n";
            settings.tables =
                [&settings.tables, "[reissue]\nmode = \"", mode, "\"\n", rule].concat();
        });
        let answer = answered(&stage, "POST", "/api/live/token/join", "");
        assert_eq!(answer, (404, false), "{mode}");
    }
}

#[test]
fn while_observing_what_is_below_is_the_backends() {
    let stage = Stage::with(app::start_mounted(Version::Four, "prefix"), |settings| {
        settings.tables += "[decision]\nmode = \"observe\"\n";
    });
    for target in BELOW.into_iter().chain(ODDLY_BELOW) {
        let (_, by_the_app) = answered(&stage, "POST", target, "");
        assert!(by_the_app, "{target}");
    }
}

#[test]
fn no_query_makes_a_preflight_a_post() {
    let stage = Stage::with(app::start(Version::Four), |settings| {
        settings.tables += "[routes]\nmethod_override = [\"query:_method\"]\n";
    });
    for (target, expected) in [
        ("/api/live/token?_method=POST", (405, false)),
        ("/api/live/token/x?a=b&%5fmethod=POST", (404, false)),
    ] {
        assert_eq!(
            answered(&stage, "OPTIONS", target, ""),
            expected,
            "{target}"
        );
    }
    for target in ["/api/live/token?method=POST", "/health?_method=POST"] {
        let (_, by_the_app) = answered(&stage, "OPTIONS", target, "");
        assert!(by_the_app, "{target}");
    }
}

/// The names and values that arrived at `/wire/seen`.
fn headers_seen(answer: &Response) -> Vec<(String, String)> {
    let raw = answer.json()["headers"].as_array().unwrap().clone();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    raw.chunks(2)
        .map(|pair| (text(&pair[0]).to_lowercase(), text(&pair[1])))
        .collect()
}

const OVERRIDES: [&str; 3] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
];

fn overrides() -> String {
    OVERRIDES.map(|name| format!("{name}: POST\r\n")).concat()
}

#[test]
fn a_preflight_is_the_backends_to_answer_but_cannot_become_a_post() {
    let stage = Stage::with(app::start(Version::Four), |settings| {
        // A path of the app that shows what arrives.
        settings.tables += "[routes]\ntoken = [\"/wire/seen\"]\n";
    });
    let headers = format!(
        "Origin: https://app.example\r\nAccess-Control-Request-Method: POST\r\nX-Kept: 1\r\n{}X_HTTP_Method_Override: POST\r\n",
        overrides()
    );
    for target in ["/wire/seen", "/Wire//Seen/?x"] {
        let answer = stage.send(&request("OPTIONS", target, &headers, ""));
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["method"], "OPTIONS");
        assert_eq!(answer.json()["url"], target);
        let seen = headers_seen(&answer);
        let has = |name: &str| seen.iter().any(|(seen, _)| seen.replace('_', "-") == name);
        assert!(has("x-kept") && has("access-control-request-method"));
        for name in OVERRIDES {
            assert!(!has(name), "{name} was forwarded");
        }
    }
}

#[test]
fn method_overrides_on_the_backends_own_paths_are_its_own_affair() {
    let stage = Stage::set(Version::Four);
    let answer = stage.send(&request("OPTIONS", "/wire/seen", &overrides(), ""));
    let seen = headers_seen(&answer);
    for name in OVERRIDES {
        assert!(
            seen.contains(&(name.to_owned(), "POST".to_owned())),
            "{name}"
        );
    }
    let disguised = format!(
        "{}{}X-Original-URL: /api/live/token\r\nX-Rewrite-URL: /api/live/token\r\n",
        stage.headers,
        overrides()
    );
    for method in ["GET", "POST", "PUT"] {
        let answer = stage.send(&request(method, "/nothing", &disguised, &stage.body));
        assert_eq!(answer.status, 404, "{method}");
    }
    stage.assert_untouched("an override");
}

// === framing and disguises ===

const TE: &str = "Transfer-Encoding: chunked\r\n";
const WEBSOCKET: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const H2C: &str = "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n\
    HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n";

impl Stage {
    /// Writes the parts and a last request that asks to close, all at once; the statuses that come back before the
    /// connection closes must be these. The last is missing where the connection was given up before.
    fn play(&self, name: &str, parts: &[&[u8]], statuses: &[u16]) {
        let got = self.statuses(name, parts);
        assert_eq!(got, statuses, "{name}");
    }

    fn statuses(&self, name: &str, parts: &[&[u8]]) -> Vec<u16> {
        let closing = request("GET", "/health", "Connection: close\r\n", "");
        let mut conversation = Conversation::open(self.renewd.public);
        conversation.write(&[&parts.concat(), closing.as_slice()].concat());
        let answers = conversation.rest();
        for answer in &answers {
            let reached = answer.header("x-reached").unwrap_or_default();
            assert!(!reached.contains("token"), "{name} reached {reached}");
        }
        self.assert_untouched(name);
        answers.iter().map(|answer| answer.status).collect()
    }

    /// A valid token request with headers of its own.
    fn post_with(&self, target: &str, headers: &str) -> Vec<u8> {
        let headers = format!("{}{headers}", self.headers);
        request("POST", target, &headers, &self.body)
    }

    /// The same, its body in chunks.
    fn post_chunked(&self, target: &str) -> Vec<u8> {
        let headers = format!("{}{TE}", self.headers);
        let head = request("POST", target, &headers, "");
        [head, chunked(self.body.as_bytes(), 7)].concat()
    }
}

/// A head as written.
fn head(line: &str, headers: &str) -> Vec<u8> {
    format!("{line}\r\nHost: app.test\r\n{headers}\r\n").into_bytes()
}

fn length_of(body: &[u8]) -> String {
    format!("Content-Length: {}\r\n", body.len())
}

const UPLOAD: &str = "POST /wire/upload HTTP/1.1";

#[test]
fn a_token_request_behind_or_inside_another_is_seen_for_what_it_is() {
    for version in [Version::Four, Version::Five] {
        let stage = Stage::set(version);
        let hidden = stage.post("/api/live/token");
        let health = request("GET", "/health", "", "");
        let inner = length_of(&hidden);
        let framed = chunked(&hidden, 1000);

        let chunks = stage.post_chunked("/api/live/token");
        stage.play("in chunks", &[&chunks], &[200, 200]);
        stage.play("behind another", &[&health, &hidden], &[200, 200, 200]);
        let refresh = stage.post_chunked("/refresh-token");
        stage.play(
            "behind its own kind",
            &[&hidden, &refresh, &hidden],
            &[200, 200, 200, 200],
        );
        let guarded = request("POST", "//refresh-token", "", "");
        let get = request("GET", "/refresh-token", "", "");
        stage.play(
            "behind refusals",
            &[&guarded, &get, &hidden],
            &[404, 405, 200, 200],
        );
        let last = request("GET", "/health", "Connection: close\r\n", "");
        stage.play("behind a closing request", &[&last, &hidden], &[200]);
        stage.play(
            "behind empty lines",
            &[b"\r\n\r\n", &hidden, b"\r\n", &hidden],
            &[200, 200, 200],
        );

        // A hidden request in a body stays part of the body: the app's next request is the next one on the wire.
        let upload = head(UPLOAD, &inner);
        stage.play("in a body", &[&upload, &hidden], &[200, 200]);
        let upload = head(UPLOAD, TE);
        stage.play("in chunks of another", &[&upload, &framed], &[200, 200]);
        let get = head("GET /health HTTP/1.1", &inner);
        stage.play("in a GET's body", &[&get, &hidden], &[200, 200]);
        let get = head("GET /health HTTP/1.1", TE);
        stage.play("in a GET's chunks", &[&get, &framed], &[200, 200]);
        let delete = head("DELETE /nothing HTTP/1.1", &inner);
        stage.play("in a DELETE's body", &[&delete, &hidden], &[404, 200]);
        let nominated = format!("{inner}Connection: content-length, keep-alive\r\n");
        let upload = head(UPLOAD, &nominated);
        stage.play(
            "in a body whose length is nominated",
            &[&upload, &hidden],
            &[200, 200],
        );
        let nominated = format!("{TE}Connection: transfer-encoding, keep-alive\r\n");
        let upload = head(UPLOAD, &nominated);
        stage.play(
            "in chunks whose coding is nominated",
            &[&upload, &framed],
            &[200, 200],
        );
        // No parser takes this for a framing header: there is no body, and the token request comes next.
        let upload = head(UPLOAD, "Transfer_Encoding: chunked\r\n");
        stage.play("behind a look-alike", &[&upload, &hidden], &[200, 200, 200]);
    }
}

#[test]
fn framing_that_two_servers_could_read_in_two_ways_ends_the_connection() {
    for version in [Version::Four, Version::Five] {
        let stage = Stage::set(version);
        let hidden = stage.post("/api/live/token");
        let ends: &[u8] = b"0\r\n\r\n";
        for framing in [
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: identity, chunked\r\n",
            "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
            "Transfer-Encoding: chunked;q=1\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
            "Transfer-Encoding: \x0bchunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding\r\n",
            " Transfer-Encoding: chunked\r\n",
            "X: y\r\n Transfer-Encoding: chunked\r\n",
            "X: y\rTransfer-Encoding: chunked\r\n",
            "X: y\0\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 5 5\r\n",
            "Content-Length: 5, 6\r\n",
            "Content-Length: \r\n",
            "Content-Length: 18446744073709551617\r\n",
        ] {
            let upload = head(UPLOAD, framing);
            stage.play(framing, &[&upload, ends, &hidden], &[400]);
            let owned = head("POST /api/live/token HTTP/1.1", framing);
            stage.play(framing, &[&owned, ends, &hidden], &[400]);
        }
        // The body is read by its coding alone and forwarded without the length, and its request is the last on the
        // connection (RFC 9112 section 6.3).
        for framing in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        ] {
            let upload = head(UPLOAD, framing);
            stage.play(framing, &[&upload, ends, &hidden], &[200]);
            let owned = head("POST /api/live/token HTTP/1.1", framing);
            stage.play(framing, &[&owned, ends, &hidden], &[401]);
        }
        let old = format!("POST /wire/upload HTTP/1.0\r\n{TE}\r\n").into_bytes();
        stage.play("chunks in HTTP/1.0", &[&old, ends, &hidden], &[400]);
    }
}

#[test]
fn request_lines_out_of_the_ordinary_are_served_or_refused() {
    let stage = Stage::set(Version::Four);
    let line = |line: &str| {
        let headers = format!("{}{}", stage.headers, length_of(stage.body.as_bytes()));
        [head(line, &headers), stage.body.clone().into_bytes()].concat()
    };
    for served in [
        "POST http://app.test/api/live/token HTTP/1.1",
        "POST HTTP://user:word@other.example:1/API/live//Token/?x HTTP/1.1",
        "POST ws://[::1]:80/refresh-token HTTP/1.1",
    ] {
        stage.play(served, &[&line(served)], &[200, 200]);
    }
    // A later minor version means what 1.1 means (RFC 9110 section 2.5), here too.
    let later = line("POST /api/live/token HTTP/1.2");
    stage.play("1.2", &[&later, &later], &[200, 200, 200]);
    // HTTP/1.0 closes after the answer unless asked not to.
    stage.play("1.0", &[&line("POST /api/live/token HTTP/1.0")], &[200]);
    let kept = line("POST /api/live/token HTTP/1.0\r\nConnection: keep-alive");
    stage.play("1.0, kept alive", &[&kept], &[200, 200]);
    let hostless = line("POST /api/live/token HTTP/1.0");
    let hostless = String::from_utf8(hostless).unwrap();
    let hostless = hostless.replace("Host: app.test\r\n", "");
    stage.play("1.0 without Host", &[hostless.as_bytes()], &[200]);
    let old_get = line("GET /api/live/token HTTP/1.0");
    stage.play("1.0 GET", &[&old_get], &[405]);

    for refused in [
        "POST  /api/live/token HTTP/1.1",
        "POST\t/api/live/token HTTP/1.1",
        "POST /api/live/token\tHTTP/1.1",
        "POST /api/live/token  HTTP/1.1",
        "POST /api/live/token HTTP/1.2.1",
        "POST /api/live/token HTTP/2.0",
        "POST /api/live/token http/1.1",
        "POST /api/live/token",
        "POST api/live/token HTTP/1.1",
        "POST ?/api/live/token HTTP/1.1",
        "POST * HTTP/1.1",
        "PO\0ST /api/live/token HTTP/1.1",
        " POST /api/live/token HTTP/1.1",
    ] {
        let mut conversation = Conversation::open(stage.renewd.public);
        conversation.write(&line(refused));
        conversation.finish();
        let answers = conversation.rest();
        assert!(
            answers.iter().all(|answer| answer.status == 400),
            "{refused}: {answers:#?}"
        );
        stage.assert_untouched(refused);
    }
    stage.play(
        "CONNECT",
        &[b"CONNECT app.test:80 HTTP/1.1\r\nHost: app.test:80\r\n\r\n"],
        &[405, 200],
    );
    let trace = request("TRACE", "/api/live/token", "", "");
    stage.play("TRACE", &[&trace], &[405, 200]);
}

#[test]
fn a_body_that_waits_for_100_continue_is_asked_for() {
    let stage = Stage::set(Version::Four);
    for (target, statuses) in [
        ("/api/live/token", [100, 200]),
        ("/wire/upload", [100, 200]),
    ] {
        let headers = format!("{}Expect: 100-continue\r\n", stage.headers);
        let whole = request("POST", target, &headers, &stage.body);
        let (before, body) = whole.split_at(whole.len() - stage.body.len());
        let mut conversation = Conversation::open(stage.renewd.public);
        conversation.write(before);
        let go_on = conversation.response().expect("an interim answer");
        conversation.write(body);
        let answer = conversation.response().expect("an answer");
        assert_eq!([go_on.status, answer.status], statuses, "{target}");
    }
    stage.assert_untouched("a body that waits");
}

#[test]
fn an_upgrade_is_no_way_around() {
    for version in [Version::Four, Version::Five] {
        let stage = Stage::set(version);
        let hidden = stage.post("/api/live/token");
        for (name, upgrade) in [("websocket", WEBSOCKET), ("h2c", H2C)] {
            let post = stage.post_with("/api/live/token", upgrade);
            stage.play(name, &[&post, &hidden], &[200, 200, 200]);
            let get = request("GET", "/refresh-token", upgrade, "");
            stage.play(name, &[&get, &hidden], &[405, 200, 200]);
            let guarded = request("GET", "//refresh-token", upgrade, "");
            stage.play(name, &[&guarded, &hidden], &[404, 200, 200]);
            // Only a GET opens a WebSocket, and nothing else is tunnelled.
            let post = stage.post_with("/wire/upload", upgrade);
            stage.play(name, &[&post, &hidden], &[200, 200, 200]);
        }
        let seen = stage.send(&request("GET", "/wire/seen", H2C, ""));
        let names: Vec<_> = headers_seen(&seen)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert!(
            !names
                .iter()
                .any(|name| name == "upgrade" || name == "http2-settings")
        );

        // The app declines: the bytes that follow are still HTTP, and renewd reads them.
        let declined = WEBSOCKET.replace("Version: 13", "Version: 99");
        let declined = request(
            "GET",
            "/socket.io/?EIO=4&transport=websocket",
            &declined,
            "",
        );
        stage.play("declined", &[&declined, &hidden], &[400, 200, 200]);
        // The app accepts: the bytes that follow are WebSocket, and no side reads them as HTTP.
        let accepted = request(
            "GET",
            "/socket.io/?EIO=4&transport=websocket",
            WEBSOCKET,
            "",
        );
        stage.play("accepted", &[&accepted, &hidden], &[101]);

        let mut conversation = Conversation::open(stage.renewd.public);
        conversation.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        conversation.write(&hidden);
        let answers = conversation.rest();
        assert!(
            answers.iter().all(|answer| answer.status == 400),
            "{answers:?}"
        );
        stage.assert_untouched("an HTTP/2 preface");
    }
}
