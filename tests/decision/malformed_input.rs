//! Bytes that aren't one plain HTTP/1.1 request: what is answered, what is counted, and that nothing slips past the
//! parser to the backend.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use crate::support::express::{Express, Version};
use crate::support::messages::{self, Wire};
use crate::support::renewd::{Renewd, Settings};

/// The state of the connection after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// The connection closes.
    Closed,
    /// The next request on it is answered.
    Open,
}

/// Bytes, the status they get (0 for none), the `kind` they are counted as, and the connection afterwards.
type Case = (&'static str, Vec<u8>, u16, &'static str, After);

fn start() -> (Express, Renewd) {
    let express = Express::start(Version::Four, &[("RATE_LIMIT", "0")]);
    let renewd = Renewd::start(&Settings {
        backend: Some(express.address),
        ..Settings::default()
    });
    (express, renewd)
}

fn get(rest: &str) -> Vec<u8> {
    format!("GET /wire/seen HTTP/1.1\r\n{rest}\r\n").into_bytes()
}

fn post(rest: &str) -> Vec<u8> {
    format!("POST /wire/seen HTTP/1.1\r\nHost: app\r\n{rest}").into_bytes()
}

/// A second request right behind: it must not be seen where the first one's end is in doubt.
const BEHIND: &str = "GET /wire/seen?smuggled HTTP/1.1\r\nHost: app\r\n\r\n";

const ALIVE: &[u8] = b"GET /wire/status?code=299 HTTP/1.1\r\nHost: app\r\n\r\n";

fn assert_refused(express: &Express, renewd: &Renewd, cases: &[Case]) {
    let counted = |kind: &str| {
        renewd.metric(&format!(
            "renewd_http_parse_errors_total{{kind=\"{kind}\"}}"
        ))
    };
    let mut wrong = Vec::new();
    for (what, bytes, status, kind, after) in cases {
        let before = counted(kind);
        let mut connection = Wire::open(renewd.public);
        connection.write(bytes);
        let head = bytes.starts_with(b"HEAD ");
        let answer = connection.read(head);
        if let Ok(answer) = &answer {
            // The parser and the service refuse in the same words.
            assert_eq!(answer.values("x-request-id").len(), 1, "{what}: {answer:?}");
            assert_eq!(answer.values("date").len(), 1, "{what}: {answer:?}");
            if !head {
                assert_eq!(answer.json()["code"], "invalid_request", "{what}");
            }
        }
        let found = answer.map_or(0, |answer| answer.status());
        let found_after = match after {
            After::Closed => {
                let rest = connection.rest();
                if rest.as_deref().is_ok_and(<[u8]>::is_empty) {
                    After::Closed
                } else {
                    After::Open
                }
            }
            After::Open => {
                connection.write(ALIVE);
                match connection.read(false) {
                    Ok(answer) if answer.status() == 299 => After::Open,
                    _ => After::Closed,
                }
            }
        };
        // The parser's refusals are counted when the connection is over.
        drop(connection);
        renewd.eventually(&format!("{what} is counted as {kind}"), |_| {
            counted(kind) > before
        });
        if (found, found_after) != (*status, *after) || counted(kind) > before + 1.0 {
            wrong.push(format!(
                "{what}: {found} {found_after:?}, not {status} {after:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for handler in ["seen", "smuggled"] {
        assert_eq!(messages::hits(express.address, handler), 0, "{handler}");
    }
}

#[test]
fn framing_that_two_servers_could_read_in_two_ways_is_refused_and_its_connection_closed() {
    let (express, renewd) = start();
    let chunked_body = "0\r\n\r\n";
    let with = |fields: &str, body: &str| post(&format!("{fields}\r\n{body}{BEHIND}"));
    let encoding = |value: &str| with(&format!("Transfer-Encoding:{value}\r\n"), chunked_body);
    let refused = |what, bytes| (what, bytes, 400, "transfer_encoding", After::Closed);
    let malformed = |what, bytes| (what, bytes, 400, "malformed", After::Closed);
    assert_refused(
        &express,
        &renewd,
        &[
            refused("gzip before chunked", encoding(" gzip, chunked")),
            refused("chunked twice", encoding(" chunked, chunked")),
            refused(
                "two Transfer-Encoding lines",
                with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", chunked_body),
            ),
            refused(
                "identity and chunked on two lines",
                with("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", chunked_body),
            ),
            refused("an empty element before chunked", encoding(" , chunked")),
            malformed("identity", encoding(" identity")),
            malformed("chunked is not last", encoding(" chunked, gzip")),
            malformed("an unknown coding", encoding(" xchunked")),
            malformed("a quoted coding", encoding(" \"chunked\"")),
            malformed("a vertical tab in the coding", encoding(" \x0bchunked")),
            malformed("a parameter on chunked", encoding(" chunked;q=1")),
            malformed(
                "two different lengths",
                with("Content-Length: 5\r\nContent-Length: 6\r\n", "12345"),
            ),
            malformed("a list of lengths", with("Content-Length: 5, 6\r\n", "12345")),
            malformed("a signed length", with("Content-Length: +5\r\n", "12345")),
            malformed("a negative length", with("Content-Length: -1\r\n", "")),
            malformed("a hexadecimal length", with("Content-Length: 0x5\r\n", "12345")),
            malformed(
                "a length beyond 64 bits",
                with("Content-Length: 18446744073709551616\r\n", ""),
            ),
            malformed("an empty length", with("Content-Length:\r\n", "")),
            (
                "Transfer-Encoding in HTTP/1.0",
                format!("POST /wire/seen HTTP/1.0\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n{chunked_body}{BEHIND}").into_bytes(),
                400,
                "malformed",
                After::Closed,
            ),
        ],
    );
}

#[test]
fn a_request_for_no_host_or_for_two_is_refused() {
    let (express, renewd) = start();
    let host = |what, fields: &str| (what, get(fields), 400, "host", After::Open);
    assert_refused(
        &express,
        &renewd,
        &[
            host("no Host", ""),
            host("an empty Host", "Host:\r\n"),
            host("two Hosts", "Host: app\r\nHost: app\r\n"),
            host("two different Hosts", "Host: app\r\nHost: other\r\n"),
            host("a Host with a space", "Host: a pp\r\n"),
            host("a Host with a path", "Host: app/path\r\n"),
            host("a Host with userinfo", "Host: user@app\r\n"),
            host("a list of Hosts", "Host: app, other\r\nHost: app\r\n"),
            host("a Host with a bad port", "Host: app:port\r\n"),
            host("a Host with a port too large", "Host: app:65536\r\n"),
            host("a broken IPv6 address", "Host: [::1\r\n"),
            (
                "an absolute target without Host",
                b"GET http://app/wire/seen HTTP/1.1\r\n\r\n".to_vec(),
                400,
                "host",
                After::Open,
            ),
        ],
    );
}

/// The requests; the file's head says how to read it.
const MALFORMED: &str = include_str!("malformed_requests.txt");

/// The names and bytes of one section.
fn malformed_requests(section: &str) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let (_, rest) = MALFORMED
        .split_once(&format!("\n[{section}]\n"))
        .expect(section);
    let lines = rest.split("\n[").next().unwrap().lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| {
        let (name, bytes) = line.split_once(" | ").expect(line);
        (name, unescaped(bytes))
    })
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes().iter().copied();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next() {
                Some(b'r') => b'\r',
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(b'\\') => b'\\',
                Some(b'x') => {
                    let digits: Vec<u8> = rest.by_ref().take(2).collect();
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).expect(text)
                }
                other => panic!("{other:?} in {text}"),
            },
            byte => byte,
        });
    }
    bytes
}

#[test]
fn what_is_not_a_request_line_with_fields_is_refused() {
    let (express, renewd) = start();
    let mut cases = Vec::new();
    for (name, bytes) in malformed_requests("whole") {
        cases.push((name, bytes, 400, "malformed", After::Closed));
    }
    for (name, fields) in malformed_requests("fields") {
        let head = b"GET /wire/seen HTTP/1.1\r\nHost: app\r\n";
        let bytes = [head, &fields[..], b"\r\n", BEHIND.as_bytes()].concat();
        cases.push((name, bytes, 400, "malformed", After::Closed));
    }
    assert_eq!(cases.len(), 29);
    assert_refused(&express, &renewd, &cases);
}

#[test]
fn a_length_beside_an_encoding_is_void_and_its_connection_closes() {
    let (express, renewd) = start();
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ] {
        let mut connection = Wire::open(renewd.public);
        connection.write(&post(&format!("{fields}\r\n3\r\nabc\r\n0\r\n\r\n{BEHIND}")));
        let answer = connection.read(false).expect("an answer");
        let seen = answer.json();
        assert_eq!(seen["length"], 3, "{fields}");
        let sent = seen["headers"].to_string();
        assert!(!sent.contains("content-length"), "{fields}: {sent}");
        assert!(answer.closes(), "{fields}");
        assert_eq!(connection.read_rest(), b"", "{fields}");
    }
    assert_eq!(messages::hits(express.address, "seen"), 2);
    assert_eq!(messages::hits(express.address, "smuggled"), 0);
}

#[test]
fn one_length_said_twice_reaches_the_backend_once() {
    let (express, renewd) = start();
    let fields = "Content-Length: 3\r\nContent-Length: 3\r\nConnection: close\r\n";
    let seen = messages::exchange(renewd.public, &post(&format!("{fields}\r\nabc"))).json();
    assert_eq!(seen["length"], 3);
    assert_eq!(
        seen["headers"]
            .to_string()
            .matches("content-length")
            .count(),
        1
    );
    assert_eq!(messages::hits(express.address, "seen"), 1);
}

#[test]
fn raw_bytes_that_are_no_uri_in_a_target_are_refused() {
    let (express, renewd) = start();
    let mut cases: Vec<Case> = Vec::new();
    for (what, target) in [
        ("a less-than in the path", "/wire/seen/<"),
        ("a greater-than in the path", "/wire/seen/>"),
        ("a backtick in the path", "/wire/seen/`"),
        ("a quote in the query", "/wire/seen?\""),
        ("a less-than in the query", "/wire/seen?<"),
        ("a greater-than in the query", "/wire/seen?>"),
    ] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: app\r\n\r\n").into_bytes();
        cases.push((what, bytes, 400, "malformed", After::Closed));
    }
    for (what, target) in [
        ("an authority as the target", "app:80"),
        ("an asterisk for GET", "*"),
    ] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: app\r\n\r\n").into_bytes();
        cases.push((what, bytes, 400, "malformed", After::Open));
    }
    assert_refused(&express, &renewd, &cases);
}

#[test]
fn connect_and_trace_are_refused_as_methods() {
    let (express, renewd) = start();
    let case = |what, bytes: &[u8]| (what, bytes.to_vec(), 405, "method", After::Open);
    assert_refused(
        &express,
        &renewd,
        &[
            case(
                "CONNECT",
                b"CONNECT app:80 HTTP/1.1\r\nHost: app:80\r\n\r\n",
            ),
            case(
                "CONNECT to a path",
                b"CONNECT /wire/seen HTTP/1.1\r\nHost: app\r\n\r\n",
            ),
            case("TRACE", b"TRACE /wire/seen HTTP/1.1\r\nHost: app\r\n\r\n"),
        ],
    );
}

/// A request with a target of this many bytes.
fn target_of(length: usize) -> Vec<u8> {
    let path = "/wire/seen?".len();
    format!(
        "GET /wire/seen?{} HTTP/1.1\r\nHost: app\r\n\r\n",
        "a".repeat(length - path)
    )
    .into_bytes()
}

/// A request with this many fields.
fn with_fields(count: usize) -> Vec<u8> {
    let fields: Vec<_> = (1..count)
        .map(|number| format!("X-{number}: 1\r\n"))
        .collect();
    get(&format!("Host: app\r\n{}", fields.concat()))
}

#[test]
fn what_is_too_large_is_said_to_be() {
    let (express, renewd) = start();
    assert_refused(
        &express,
        &renewd,
        &[
            (
                "a target over 8 KiB",
                target_of(8 * 1024 + 1),
                414,
                "target_too_long",
                After::Open,
            ),
            (
                "101 fields",
                with_fields(101),
                431,
                "headers_too_large",
                After::Closed,
            ),
            (
                "a header section over 16 KiB",
                get(&format!(
                    "Host: app\r\nX-Long: {}\r\n",
                    "a".repeat(16 * 1024)
                )),
                431,
                "headers_too_large",
                After::Closed,
            ),
            (
                "a header section that never ends",
                format!(
                    "GET /wire/seen HTTP/1.1\r\nHost: app\r\n{}",
                    "X-More: of the same\r\n".repeat(20_000)
                )
                .into_bytes(),
                431,
                "headers_too_large",
                After::Closed,
            ),
            (
                "a target that never ends",
                format!("GET /{}", "a".repeat(300_000)).into_bytes(),
                431,
                "headers_too_large",
                After::Closed,
            ),
        ],
    );
}

#[test]
fn the_limits_themselves_are_still_served() {
    let (_express, renewd) = start();
    assert_eq!(
        messages::exchange(renewd.public, &target_of(8 * 1024)).status(),
        200
    );
    assert_eq!(
        messages::exchange(renewd.public, &with_fields(100)).status(),
        200
    );
}

#[test]
fn http_2_in_clear_text_is_refused_as_a_version() {
    let (express, renewd) = start();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    assert_refused(
        &express,
        &renewd,
        &[("the HTTP/2 preface", preface, 0, "version", After::Closed)],
    );
}

#[test]
fn a_broken_chunk_never_becomes_a_request_of_its_own() {
    let (express, renewd) = start();
    for (what, body) in [
        ("a size that is no number", "xyz\r\n"),
        ("a size beyond 64 bits", "fffffffffffffffff\r\n"),
        ("a negative size", "-1\r\n"),
        ("a size with a prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
        (
            "a chunk that is longer than it says",
            "3\r\nhello\r\n0\r\n\r\n",
        ),
        ("a size without its end", "5\nhello\r\n0\r\n\r\n"),
        (
            "an extension with a bare line feed",
            "5;a\nhello\r\n0\r\n\r\n",
        ),
        ("a broken trailer", "5\r\nhello\r\n0\r\nX Y\r\n\r\n"),
        ("two CRs behind a size", "5\r\r\nhello\r\n0\r\n\r\n"),
        ("a form feed behind a size", "5\x0c\r\nhello\r\n0\r\n\r\n"),
        ("a CR before an extension", "5\r;x\r\nhello\r\n0\r\n\r\n"),
        ("a CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("a NUL in an extension", "5;a\x00b\r\nhello\r\n0\r\n\r\n"),
        ("a quotation left open", "5;a=\"b\r\nhello\r\n0\r\n\r\n"),
    ] {
        let bytes = post(&format!("Transfer-Encoding: chunked\r\n\r\n{body}{BEHIND}"));
        let mut connection = Wire::open(renewd.public);
        connection.write(&bytes);
        let answer = String::from_utf8_lossy(&connection.read_rest()).into_owned();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
            "{what}: {answer}"
        );
        assert_eq!(
            answer.matches("HTTP/1.1").count().min(2),
            answer.matches("HTTP/1.1 400").count(),
            "{what}: {answer}"
        );
    }
    // The request was aborted by renewd or never begun: the handler never saw the end of the body, and nothing
    // followed.
    let last = b"GET /wire/seen?last HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n";
    assert_eq!(
        messages::exchange(renewd.public, last).json()["url"],
        "/wire/seen?last"
    );
    assert_eq!(messages::hits(express.address, "smuggled"), 0);
}

#[test]
fn the_host_of_an_absolute_target_is_the_one_that_counts() {
    let (_express, renewd) = start();
    let request = b"GET http://user:secret@app.example:8080/wire/seen?q#f HTTP/1.1\r\nX-First: 1\r\nHost: other.example\r\nConnection: close\r\n\r\n";
    let seen = messages::exchange(renewd.public, request).json();
    assert_eq!(seen["url"], "/wire/seen?q");
    let fields: Vec<_> = seen["headers"].as_array().unwrap().iter().collect();
    assert_eq!(
        fields[..4],
        ["x-first", "1", "host", "app.example:8080"],
        "{fields:?}"
    );
    assert_eq!(seen["hostname"], "app.example");
}

#[test]
fn a_request_that_ends_in_bare_line_feeds_means_one_thing_only() {
    let (express, renewd) = start();
    // RFC 9112 section 2.2 lets a recipient take a lone LF for a line's end; what travels on is written anew.
    let request = b"GET /wire/seen HTTP/1.1\nHost: app\nX-One: 1\nConnection: close\n\n";
    let seen = messages::exchange(renewd.public, request).json();
    assert_eq!(seen["headers"][0], "host");
    assert_eq!(seen["headers"][3], "1");
    assert_eq!(messages::hits(express.address, "seen"), 1);
}
