//! RFC 9110 and RFC 9112: the bytes that are sent, the answers, the state of the connection, and the request that the
//! backend saw; most cases are in `conformance_h1.txt`. Requests that must be refused are in `malformed_input.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use crate::support::case_files::{CaseFile, WrittenCase};
use crate::support::express::{Express, Version};
use crate::support::messages::{self, Framing, Message, Wire};
use crate::support::renewd::{Renewd, Settings};
use serde_json::Value;

use After::{Closed, Open};

/// The state of the connection after the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// The connection closes.
    Closed,
    /// The next request on it is answered.
    Open,
}

fn start() -> (Express, Renewd) {
    let express = Express::start(Version::Four, &[("RATE_LIMIT", "0")]);
    let renewd = Renewd::start(&Settings {
        backend: Some(express.address),
        ..Settings::default()
    });
    (express, renewd)
}

const ALIVE: &[u8] = b"GET /wire/status?code=299 HTTP/1.1\r\nHost: app\r\n\r\n";

const CASES: CaseFile = CaseFile {
    text: include_str!("conformance_h1.txt"),
    keywords: &["send", "expect"],
    groups: &[
        ("request lines and targets", 18),
        ("field lines", 4),
        ("connections that go on or end", 11),
        ("answers without a body", 6),
        ("lengths and chunks", 15),
    ],
};

/// Sends the bytes that the cases of this group say, and holds the answers and the connection to what they expect.
fn assert_group(name: &str) {
    let (_express, renewd) = start();
    let mut wrong = Vec::new();
    for case in CASES.group(name) {
        let bytes = case.bytes("send");
        let (statuses, after) = expected(&case);
        let mut wire = Wire::open(renewd.public);
        wire.write(&bytes);
        let found: Vec<u16> = statuses
            .iter()
            .map_while(|_| Some(wire.read(bytes.starts_with(b"HEAD ")).ok()?.status()))
            .collect();
        let found_after = match after {
            Closed if wire.rest().is_ok_and(|rest| rest.is_empty()) => Closed,
            Closed => Open,
            Open => {
                wire.write(ALIVE);
                match wire.read(false) {
                    Ok(answer) if answer.status() == 299 => Open,
                    _ => Closed,
                }
            }
        };
        if (&found, found_after) != (&statuses, after) {
            wrong.push(format!(
                "{case:?}: {found:?} {found_after:?}, not {statuses:?} {after:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The statuses of the answers, and the connection afterwards.
fn expected(case: &WrittenCase) -> (Vec<u16>, After) {
    let (statuses, after) = case.value("expect").split_once(" then ").unwrap();
    let statuses = statuses.split(' ').map(|status| status.parse().unwrap());
    let after = match after {
        "open" => Open,
        "closed" => Closed,
        other => panic!("neither open nor closed: {other:?}"),
    };
    (statuses.collect(), after)
}

/// The request that `/wire/seen` saw, sent with these lines behind its request line and `Host`.
fn seen(renewd: &Renewd, method: &str, rest: &str) -> Value {
    let mut wire = Wire::open(renewd.public);
    wire.write(format!("{method} /wire/seen HTTP/1.1\r\nHost: app\r\n{rest}").as_bytes());
    let answer = wire.read(false).expect("an answer");
    assert_eq!(answer.status(), 200, "{rest:?}: {answer:?}");
    answer.json()
}

/// The values of a field in what was seen.
fn values<'seen>(seen: &'seen Value, name: &str) -> Vec<&'seen str> {
    let fields = seen["headers"].as_array().unwrap();
    let fields = fields.chunks(2).filter(|field| field[0] == name);
    fields.map(|field| field[1].as_str().unwrap()).collect()
}

#[test]
fn request_lines_and_targets() {
    assert_group("request lines and targets");
}

#[test]
fn field_lines() {
    assert_group("field lines");
}

#[test]
fn connections_go_on_or_end() {
    assert_group("connections that go on or end");
}

#[test]
fn answers_without_a_body() {
    assert_group("answers without a body");
}

#[test]
fn lengths_and_chunks() {
    let (_express, renewd) = start();
    for case in CASES.group("lengths and chunks") {
        let length = case.value("expect").strip_suffix(" bytes").unwrap();
        let length: usize = length.parse().unwrap();
        // A request right behind must be found where the body ends.
        let behind = "GET /wire/status?code=299 HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n";
        let mut wire = Wire::open(renewd.public);
        wire.write(&[&case.bytes("send"), behind.as_bytes()].concat());
        let answer = wire.read(false).expect("an answer");
        assert_eq!(answer.json()["length"], length, "{case:?}");
        let next = wire.read(false);
        let next = next.unwrap_or_else(|error| panic!("{case:?}: {error} after {answer:?}"));
        assert_eq!(next.status(), 299, "{case:?}");
    }
}

#[test]
fn a_body_that_ends_before_its_end_is_never_a_whole_one() {
    let (express, renewd) = start();
    for body in [
        "Content-Length: 6\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Trailer: 1\r\n",
    ] {
        let mut wire = Wire::open(renewd.public);
        let head = format!("POST /wire/upload HTTP/1.1\r\nHost: app\r\n{body}");
        wire.write(head.as_bytes());
        wire.finish_writing();
        let rest = wire.read_rest();
        assert!(
            rest.is_empty() || rest.starts_with(b"HTTP/1.1 400 "),
            "{body:?}: {}",
            String::from_utf8_lossy(&rest)
        );
    }
    assert_eq!(messages::exchange(renewd.public, ALIVE).status(), 299);
    drop(express);
}

#[test]
fn field_values_pass_as_they_are_without_the_space_around_them() {
    let (_express, renewd) = start();
    let all = "X-Empty:\r\nX-Blank: \t \r\nX-Spaced: \t a  b\t c \t\r\nX-Colon: a:b::\r\n!#$%&'*+-.^_`|~9: token\r\nX-Twice: 1\r\nX-Between: 2\r\nx-twice: 3\r\n\r\n";
    let seen_fields = seen(&renewd, "GET", all);
    for (name, expected) in [
        ("x-empty", &[""][..]),
        ("x-blank", &[""]),
        ("x-spaced", &["a  b\t c"]),
        ("x-colon", &["a:b::"]),
        ("!#$%&'*+-.^_`|~9", &["token"]),
        ("x-twice", &["1", "3"]),
    ] {
        assert_eq!(values(&seen_fields, name), expected, "{name}");
    }
    // RFC 9110 section 5.5: obs-text is opaque data.
    let mut wire = Wire::open(renewd.public);
    wire.write(b"GET /wire/seen HTTP/1.1\r\nHost: app\r\nX-Opaque: \x80\xe9\xff\r\n\r\n");
    let answer = wire.read(false).expect("an answer").json();
    assert_eq!(values(&answer, "x-opaque"), ["\u{80}\u{e9}\u{ff}"]);
}

#[test]
fn trailers_never_become_fields() {
    let (_express, renewd) = start();
    let body = "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\nTE: trailers\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\n";
    let seen = seen(&renewd, "POST", body);
    assert!(values(&seen, "x-sum").is_empty() && values(&seen, "x-other").is_empty());
    // The second trailer wasn't announced; Node 20 takes it nevertheless.
    assert_eq!(
        seen["trailers"],
        serde_json::json!(["x-sum", "1", "x-other", "2"])
    );
}

#[test]
fn trailers_that_would_frame_route_or_identify_go_no_further() {
    let (_express, renewd) = start();
    for name in [
        "Content-Length",
        "Transfer-Encoding",
        "Host",
        "Connection",
        "X-Forwarded-For",
        "Authorization",
        "Cookie",
    ] {
        let body = format!(
            "Transfer-Encoding: chunked\r\nTrailer: {name}\r\n\r\n5\r\nhello\r\n0\r\n{name}: 1\r\n\r\n"
        );
        let mut wire = Wire::open(renewd.public);
        let head = format!("POST /wire/seen HTTP/1.1\r\nHost: app\r\n{body}");
        wire.write(head.as_bytes());
        let answer = wire.read(false).expect("an answer");
        if answer.status() == 200 {
            let seen = answer.json();
            assert_eq!(seen["length"], 5, "{name}");
            assert_eq!(seen["trailers"], serde_json::json!([]), "{name}");
            assert!(
                !values(&seen, &name.to_ascii_lowercase()).contains(&"1"),
                "{name}"
            );
        } else {
            assert_eq!(answer.status(), 400, "{name}");
        }
    }
}

#[test]
fn expectations_are_met_here_and_never_travel() {
    let (_express, renewd) = start();
    let upload = "POST /wire/seen HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n";
    for expect in ["100-continue", "100-Continue"] {
        let mut wire = Wire::open(renewd.public);
        wire.write(format!("{upload}Expect: {expect}\r\n\r\n").as_bytes());
        let interim = wire.read(false).expect("an interim answer");
        assert_eq!(interim.status(), 100, "{expect}");
        wire.write(b"hello");
        let seen = wire.read(false).expect("an answer").json();
        assert_eq!(seen["length"], 5);
        assert!(values(&seen, "expect").is_empty());
    }
    // A client that sends the body at once may be spared the interim answer, but must not get it after the final one.
    let mut wire = Wire::open(renewd.public);
    wire.write(format!("{upload}Expect: 100-continue\r\n\r\nhello").as_bytes());
    let mut answer = wire.read(false).expect("an answer");
    if answer.status() == 100 {
        answer = wire.read(false).expect("an answer");
    }
    assert_eq!(answer.json()["length"], 5);
    wire.write(ALIVE);
    assert_eq!(wire.read(false).expect("an answer").status(), 299);
    // An expectation that renewd doesn't know is the backend's to refuse, and Node 20 does (`lib/_http_server.js`,
    // `parserOnIncoming`).
    for unknown in ["foo100-continuebar", "100-continued", "gold"] {
        let mut wire = Wire::open(renewd.public);
        wire.write(format!("{upload}Expect: {unknown}\r\n\r\nhello").as_bytes());
        let answer = wire.read(false).expect("an answer");
        assert_eq!(answer.status(), 417, "{unknown}");
    }
    let mut wire = Wire::open(renewd.public);
    wire.write(format!("{upload}Expect: gold, 100-Continue\r\n\r\n").as_bytes());
    let interim = wire.read(false).expect("an interim answer");
    assert_eq!(interim.status(), 100);
    wire.write(b"hello");
    assert_eq!(wire.read(false).expect("an answer").status(), 417);
    // RFC 9110 section 10.1.1: HTTP/1.0 knows none, and a refusal needs no body first.
    let old = upload.replace("HTTP/1.1", "HTTP/1.0");
    let mut wire = Wire::open(renewd.public);
    wire.write(format!("{old}Expect: 100-continue\r\n\r\nhello").as_bytes());
    assert_eq!(wire.read(false).expect("an answer").status(), 200);
    let mut wire = Wire::open(renewd.public);
    wire.write(b"GET /wire/seen HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(wire.read(false).expect("an answer").status(), 400);
}

fn framing(renewd: &Renewd, request: &str) -> (Message, Framing) {
    let answer = messages::exchange(renewd.public, request.as_bytes());
    let framing = answer.framing;
    (answer, framing)
}

#[test]
fn answers_are_framed_as_their_client_can_read_them() {
    let (_express, renewd) = start();
    let zeros = "/wire/zeros?bytes=100000";
    let (_, new) = framing(
        &renewd,
        &format!("GET {zeros} HTTP/1.1\r\nHost: app\r\n\r\n"),
    );
    assert_eq!(new, Framing::Chunked);
    // RFC 9112 section 6.1: no Transfer-Encoding towards HTTP/1.0, also on a connection that it would keep.
    for connection in ["", "Connection: keep-alive\r\n"] {
        let request = format!("GET {zeros} HTTP/1.0\r\nHost: app\r\n{connection}\r\n");
        let (old, how) = framing(&renewd, &request);
        assert_eq!((how, old.body.len()), (Framing::Close, 100_000));
        assert!(old.values("transfer-encoding").is_empty());
    }
    // HEAD has the fields of GET and nothing behind them.
    for target in ["/health", "/nowhere", "/wire/file"] {
        let (get, _) = framing(
            &renewd,
            &format!("GET {target} HTTP/1.1\r\nHost: app\r\n\r\n"),
        );
        let (head, _) = framing(
            &renewd,
            &format!("HEAD {target} HTTP/1.1\r\nHost: app\r\n\r\n"),
        );
        assert_eq!(
            get.values("content-length"),
            head.values("content-length"),
            "{target}"
        );
        assert_eq!(
            get.values("content-type"),
            head.values("content-type"),
            "{target}"
        );
    }
    // RFC 9110 section 8.6: no length with 204; section 6.6.1: one date.
    let (empty, _) = framing(
        &renewd,
        "GET /wire/status?code=204 HTTP/1.1\r\nHost: app\r\n\r\n",
    );
    assert!(
        empty.values("content-length").is_empty() && empty.values("transfer-encoding").is_empty()
    );
    for target in ["/health", "/api/live/token"] {
        let (answer, _) = framing(
            &renewd,
            &format!("GET {target} HTTP/1.1\r\nHost: app\r\n\r\n"),
        );
        assert_eq!(answer.values("date").len(), 1, "{target}");
    }
    // RFC 9110 section 15.5.6: 405 names what is allowed.
    let (answer, _) = framing(&renewd, "GET /api/live/token HTTP/1.1\r\nHost: app\r\n\r\n");
    assert_eq!(answer.values("allow").len(), 1);
}

#[test]
fn the_forms_of_a_target_mean_what_they_mean_without_renewd() {
    let (express, renewd) = start();
    for request in [
        "OPTIONS * HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n",
        "OPTIONS /wire/seen HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n",
        "GET /wire/seen?a=1?b#c HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n",
        "GET //wire//seen/../seen/%2e%2e/./x HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n",
        "GET http://app?query HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n",
        "get /wire/seen HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n",
        "PURGE /wire/seen HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n",
        "UNHEARD-OF /wire/seen HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n",
    ] {
        let direct = messages::exchange(express.address, request.as_bytes());
        let through = messages::exchange(renewd.public, request.as_bytes());
        assert_eq!(through.status(), direct.status(), "{request:?}");
    }
    let absolute =
        "GET http://other:8080/wire/seen?q HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n";
    let seen = messages::exchange(renewd.public, absolute.as_bytes()).json();
    assert_eq!(seen["url"], "/wire/seen?q");
    assert_eq!(values(&seen, "host"), ["other:8080"]);
}
