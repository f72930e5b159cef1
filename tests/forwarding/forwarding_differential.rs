//! The same bytes go to the Express app directly and through renewd: the app sees the same and the client gets the
//! same, but for the documented differences. Those are named here, once, in [`normal_request`] and [`normal_response`].

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use crate::support::express::{Express, Version};
use crate::support::messages::{self, Field, Framing, Message, Wire};
use crate::support::renewd::{Renewd, Settings};
use serde_json::Value;

/// The fields that a hop makes for itself; `Trailer` announces trailers end to end.
const HOP_BY_HOP: [&str; 7] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "expect",
];

/// The fields that renewd adds, or puts in the place of a client's own claims.
const OURS: [&str; 4] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-request-id",
];

struct Pair {
    express: Express,
    renewd: Renewd,
}

impl Pair {
    fn start(version: Version) -> Self {
        let express = Express::start(version, &[("RATE_LIMIT", "0")]);
        let renewd = Renewd::start(&Settings {
            backend: Some(express.address),
            ..Settings::default()
        });
        Self { express, renewd }
    }

    /// Both answers, each on a connection of its own.
    fn ask(&self, request: &[u8]) -> (Message, Message) {
        (
            messages::exchange(self.express.address, request),
            messages::exchange(self.renewd.public, request),
        )
    }

    /// Holds that the client gets the same.
    fn assert_same_answer(&self, request: &[u8]) -> Message {
        let (direct, through) = self.ask(request);
        assert_eq!(
            normal_response(&through),
            normal_response(&direct),
            "{}",
            shown(request)
        );
        direct
    }

    /// Holds that the app's `/wire/seen` saw the same.
    fn assert_same_request(&self, request: &[u8]) -> Value {
        let (direct, through) = self.ask(request);
        assert_same_seen(request, &direct, &through)
    }
}

fn assert_same_seen(request: &[u8], direct: &Message, through: &Message) -> Value {
    assert_eq!(direct.status(), 200, "{}", shown(request));
    assert_eq!(through.status(), 200, "{}", shown(request));
    let (direct, through) = (direct.json(), through.json());
    assert_eq!(
        normal_request(&through),
        normal_request(&direct),
        "{}",
        shown(request)
    );
    direct
}

fn shown(request: &[u8]) -> String {
    let shown: String = request
        .iter()
        .take(600)
        .flat_map(|byte| std::ascii::escape_default(*byte))
        .map(char::from)
        .collect();
    format!("the request was {shown}")
}

/// The fields with lower-cased names, equal names together, without the fields that each hop makes for itself and that
/// renewd adds.
fn normal_fields(fields: impl IntoIterator<Item = Field>) -> Vec<(String, Vec<String>)> {
    let mut together: Vec<(String, Vec<String>)> = Vec::new();
    for (name, value) in fields {
        let name = name.to_ascii_lowercase();
        if HOP_BY_HOP.contains(&name.as_str()) || OURS.contains(&name.as_str()) {
            continue;
        }
        match together.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => together.push((name, vec![value])),
        }
    }
    together
}

/// The request that `/wire/seen` saw, but for hop-by-hop fields, the version, and the fragment that no request should
/// have had.
fn normal_request(seen: &Value) -> Value {
    let pairs = |raw: &Value| {
        let texts: Vec<_> = raw
            .as_array()
            .expect("raw fields")
            .iter()
            .map(|text| text.as_str().expect("text").to_owned())
            .collect();
        let fields: Vec<Field> = texts
            .chunks_exact(2)
            .map(|pair| (pair[0].clone(), pair[1].clone()))
            .collect();
        fields
    };
    let chunked = pairs(&seen["headers"])
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding"));
    let mut normal = seen.clone();
    normal["headers"] = serde_json::json!(normal_fields(pairs(&seen["headers"])));
    normal["trailers"] = serde_json::json!(normal_fields(pairs(&seen["trailers"])));
    normal["chunked"] = chunked.into();
    normal["version"] = Value::Null;
    normal
}

/// The answer that the client got, but for hop-by-hop fields, the second in `Date`, and a `Content-Length` where RFC
/// 9110 section 8.6 forbids it (cors 2.8.6 puts one into every preflight's 204: `lib/index.js`, `cors`).
fn normal_response(message: &Message) -> impl PartialEq + std::fmt::Debug + use<> {
    let mut fields = normal_fields(message.fields.clone());
    if message.status() == 204 {
        fields.retain(|(name, _)| name != "content-length");
    }
    for (name, values) in &mut fields {
        if name == "date" {
            "a time".clone_into(&mut values[0]);
        }
    }
    (
        message.status_line.clone(),
        fields,
        message.framing,
        String::from_utf8_lossy(&message.body).into_owned(),
        normal_fields(message.trailers.clone()),
    )
}

fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// A request for `/wire/answer`.
fn answer(method: &str, answer: &Value) -> Vec<u8> {
    let encoded = percent_encoded(&answer.to_string());
    format!("{method} /wire/answer?answer={encoded} HTTP/1.1\r\nHost: app\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n").into_bytes()
}

#[test]
fn methods_and_bodies_reach_the_app_as_they_were_sent() {
    let pair = Pair::start(Version::Four);
    let bodies: [(&str, &str, usize); 6] = [
        ("", "", 0),
        ("Content-Length: 0\r\n", "", 0),
        ("Content-Length: 5\r\n", "hello", 5),
        (
            "Transfer-Encoding: chunked\r\n",
            "3\r\nhel\r\n2;name=value\r\nlo\r\n0\r\n\r\n",
            5,
        ),
        ("Transfer-Encoding: chunked\r\n", "0\r\n\r\n", 0),
        (
            "Content-Length: 5\r\nContent-Encoding: gzip\r\n",
            "\x1f\x00\x01\x7f\x02",
            5,
        ),
    ];
    let methods = [
        "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "PURGE", "M-SEARCH",
        "REPORT", "MKCOL", "LOCK", "SEARCH", "QUERY",
    ];
    for method in methods {
        for (fields, body, length) in bodies {
            let request = format!(
                "{method} /wire/seen HTTP/1.1\r\nHost: app\r\n{fields}Connection: close\r\n\r\n{body}"
            );
            // Node 20's parser knows fewer methods (`http.METHODS`) than renewd's.
            let (direct, through) = pair.ask(request.as_bytes());
            if direct.status() == 400 {
                assert_eq!(through.status(), 400, "{request}");
                continue;
            }
            let seen = assert_same_seen(request.as_bytes(), &direct, &through);
            assert_eq!(seen["method"], method);
            assert_eq!(seen["length"], length, "{request}");
        }
    }
}

#[test]
fn targets_reach_the_app_as_they_were_sent() {
    let pair = Pair::start(Version::Four);
    let long = format!("/wire/seen?{}", "q=0123456789&".repeat(600));
    for target in [
        "/wire/seen",
        "/wire/seen/",
        "/wire/seen?",
        "/wire/seen??a?b",
        "/wire/seen/%2e%2e/%2F%5c%00%zz%",
        "/wire/seen/../a/./b",
        "/wire/seen//double///slash",
        "/wire/seen/;version=1/a;b",
        "/wire/seen/caf%C3%A9",
        "/wire/seen?q=a+b%20c&q=d&&=&e",
        "/wire/seen/~!$&'()*+,;=:@-._",
        "/wire/seen?{}|\\^[]",
        "/wire/seen/a|b\\c^d[e]{f}",
        "/WIRE/Seen",
        "/wire/seen?http://other/path",
        "/wire/seen/http://other/path",
        &long,
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n");
        let seen = pair.assert_same_request(request.as_bytes());
        assert_eq!(seen["url"], target);
    }
    for target in [
        "//wire/seen",
        "/unknown",
        "/wire%2Fseen",
        "/wire/\\..\\seen",
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n");
        pair.assert_same_answer(request.as_bytes());
    }
    pair.assert_same_answer(b"OPTIONS * HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n");
}

#[test]
fn header_fields_reach_the_app_in_order_repeated_and_unchanged() {
    let pair = Pair::start(Version::Four);
    let long = format!("X-Long: {}\r\n", "v".repeat(15_000));
    let many = (0..90).fold(String::new(), |fields, number| {
        fields + &format!("X-{number}: {number}\r\n")
    });
    for fields in [
        "X-B: 1\r\nX-A: 2\r\nX-C: 3\r\n",
        "X-Twice: 1\r\nX-Other: o\r\nX-Twice: 2\r\nx-twice: 3\r\n",
        "Cookie: a=1; b=\"2\"\r\nCookie: c=3\r\n",
        "X-Empty:\r\nX-Blank:   \r\nX-After: 1\r\n",
        "X-Space:  a  b\tc  \r\n",
        "X-Comma: a, b,,c ,\r\n",
        "X-Latin: caf\u{e9}\r\n",
        "X_Under.score!#$%&'*+-^`|~: token\r\n",
        "Accept: */*\r\nAccept-Encoding: gzip, br\r\nAccept-Language: de\r\n",
        "Authorization: Bearer x.y.z\r\nOrigin: https://app.example\r\nReferer: https://app.example/?a\r\n",
        "Range: bytes=0-1\r\nIf-None-Match: \"a\"\r\nIf-Modified-Since: Mon, 23 Nov 2026 01:00:00 GMT\r\n",
        "Via: 1.1 proxy\r\nMax-Forwards: 3\r\nPragma: no-cache\r\n",
        "Content-Type: text/plain\r\nDate: Mon, 23 Nov 2026 01:00:00 GMT\r\n",
        "User-Agent: curl/8\r\nUser-Agent: twice\r\n",
        "X-HTTP-Method-Override: DELETE\r\n",
        &long,
        &many,
    ] {
        let mut request =
            b"POST /wire/seen HTTP/1.1\r\nX-Zero: 0\r\nHost: app.example:8080\r\n".to_vec();
        request.extend(
            fields
                .chars()
                .map(|character| u8::try_from(u32::from(character)).expect("Latin-1")),
        );
        request.extend(b"Content-Length: 2\r\nConnection: close\r\n\r\nhi");
        pair.assert_same_request(&request);
    }
    // A field that `Connection` names is hop-by-hop.
    let request = b"GET /wire/seen HTTP/1.1\r\nHost: app\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: close\r\nX-End: 1\r\n\r\n";
    let seen = messages::exchange(pair.renewd.public, request).json()["headers"].to_string();
    assert!(
        seen.contains("x-end") && !seen.contains("x-hop") && !seen.contains("keep-alive"),
        "{seen}"
    );
}

#[test]
fn trailers_of_a_request_reach_the_app() {
    let pair = Pair::start(Version::Five);
    let request = b"POST /wire/seen HTTP/1.1\r\nHost: app\r\nTrailer: X-Checksum\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\nX-Checksum: abc\r\n\r\n";
    let seen = pair.assert_same_request(request);
    assert_eq!(seen["trailers"][1], "abc");
}

#[test]
fn answers_of_every_status_shape_and_framing_come_back_as_the_app_gave_them() {
    let pair = Pair::start(Version::Four);
    for code in 200..600 {
        let request = format!(
            "GET /wire/status?code={code} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"
        );
        pair.assert_same_answer(request.as_bytes());
    }
    for code in [200, 201, 204, 206, 301, 304, 401, 404, 500, 503] {
        for method in ["GET", "HEAD", "POST", "DELETE"] {
            for shape in [
                serde_json::json!({"code": code, "headers": ["X-A", "1", "Content-Length", "5"], "chunks": ["hello"]}),
                serde_json::json!({"code": code, "headers": ["X-A", "1"], "chunks": ["hel", "lo"]}),
                serde_json::json!({"code": code, "headers": []}),
                serde_json::json!({"code": code, "date": false}),
            ] {
                // The app decides on a body that 204 and 304 may not have.
                if matches!(code, 204 | 304) && !shape["chunks"].is_null() {
                    continue;
                }
                pair.assert_same_answer(&answer(method, &shape));
            }
        }
    }
    for shape in [
        serde_json::json!({"code": 200, "reason": "Fine By Me", "chunks": ["x"]}),
        serde_json::json!({"code": 404, "reason": "Nicht da"}),
        serde_json::json!({"code": 299, "reason": "Custom"}),
        serde_json::json!({"code": 599, "reason": "Network Connect Timeout"}),
        serde_json::json!({"headers": ["Set-Cookie", "a=1; Path=/", "X-Between", "1", "Set-Cookie", "b=2; HttpOnly", "set-cookie", "c=3"]}),
        serde_json::json!({"headers": ["X-Empty", "", "X-Latin", "caf\u{e9}", "X-Tab", "a\tb"]}),
        serde_json::json!({"headers": ["Content-Encoding", "gzip", "Vary", "Accept-Encoding"], "chunks": ["\u{1f}\u{8b}\u{8}\u{0}\u{ff}\u{80}"]}),
        serde_json::json!({"headers": ["ETag", "W/\"x\"", "Last-Modified", "never", "Cache-Control", "max-age=1", "Age", "3", "Via", "1.0 x"]}),
        serde_json::json!({"headers": ["Trailer", "X-Checksum"], "chunks": ["body"], "trailers": {"X-Checksum": "abc"}}),
        serde_json::json!({"headers": ["WWW-Authenticate", "Basic realm=\"a\"", "WWW-Authenticate", "Bearer"], "code": 401}),
        serde_json::json!({"headers": ["Location", "http://elsewhere/?a=b#c"], "code": 302}),
        serde_json::json!({"headers": ["Server", "Express", "Strict-Transport-Security", "max-age=1"]}),
        serde_json::json!({"headers": ["X-Long", "v".repeat(5_000)], "chunks": ["z".repeat(2_000)]}),
    ] {
        pair.assert_same_answer(&answer("GET", &shape));
    }
    for request in [
        "GET /wire/cookies",
        "GET /wire/trailers",
        "GET /wire/file",
        "HEAD /wire/file",
        "GET /health",
        "HEAD /health",
        "GET /unknown",
        "POST /unknown",
        "OPTIONS /health",
        "GET /wire/zeros?bytes=100000",
        "GET /wire/zeros?bytes=100000&length=1",
        "GET /wire/events?count=3&end=1",
        "POST /api/live/start",
        "GET /api/live/active",
    ] {
        let request = format!(
            "{request} HTTP/1.1\r\nHost: app\r\nOrigin: https://a.example\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n"
        );
        pair.assert_same_answer(request.as_bytes());
    }
}

#[test]
fn ranges_and_conditions_are_the_apps_to_answer() {
    let pair = Pair::start(Version::Four);
    let tag = messages::exchange(
        pair.express.address,
        b"GET /wire/file HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n",
    );
    let tag = tag.values("etag")[0].to_owned();
    for (fields, status) in [
        ("Range: bytes=0-4".to_owned(), 206),
        ("Range: bytes=-5".to_owned(), 206),
        ("Range: bytes=0-1,4-5".to_owned(), 200),
        ("Range: bytes=99999-".to_owned(), 416),
        ("Range: lines=1-2".to_owned(), 200),
        (format!("If-None-Match: {tag}"), 304),
        ("If-None-Match: \"other\"".to_owned(), 200),
        (format!("If-Match: {tag}"), 200),
        ("If-Match: \"other\"".to_owned(), 412),
        (format!("If-Range: {tag}\r\nRange: bytes=0-4"), 206),
        (
            "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT".to_owned(),
            304,
        ),
        (
            "If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT".to_owned(),
            412,
        ),
    ] {
        for method in ["GET", "HEAD"] {
            let request = format!(
                "{method} /wire/file HTTP/1.1\r\nHost: app\r\n{fields}\r\nConnection: close\r\n\r\n"
            );
            let answer = pair.assert_same_answer(request.as_bytes());
            assert_eq!(answer.status(), status, "{method} {fields}");
        }
    }
}

/// Whether the server keeps the connection after its answer to `request`.
fn stays_open(address: std::net::SocketAddr, request: &[u8]) -> bool {
    let mut connection = Wire::open(address);
    connection.write(request);
    let answer = connection.read(false).expect("an answer");
    if answer.framing == Framing::Close {
        return false;
    }
    connection
        .write(b"GET /wire/status?code=299 HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n");
    connection
        .read(false)
        .is_ok_and(|answer| answer.status() == 299)
}

#[test]
fn http_1_0_and_connection_options_are_honoured() {
    let pair = Pair::start(Version::Four);
    for (request, open) in [
        ("GET /wire/cookies HTTP/1.1\r\nHost: app\r\n\r\n", true),
        (
            "GET /wire/cookies HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n",
            false,
        ),
        (
            "GET /wire/cookies HTTP/1.1\r\nHost: app\r\nConnection: x, CLOSE\r\n\r\n",
            false,
        ),
        ("GET /health HTTP/1.0\r\nHost: app\r\n\r\n", false),
        (
            "GET /health HTTP/1.0\r\nHost: app\r\nConnection: keep-alive\r\n\r\n",
            true,
        ),
        (
            "GET /wire/events?end=1 HTTP/1.0\r\nHost: app\r\nConnection: keep-alive\r\n\r\n",
            false,
        ),
        (
            "POST /wire/seen HTTP/1.0\r\nHost: app\r\nContent-Length: 2\r\n\r\nhi",
            false,
        ),
    ] {
        assert_eq!(
            stays_open(pair.express.address, request.as_bytes()),
            open,
            "direct: {request}"
        );
        assert_eq!(
            stays_open(pair.renewd.public, request.as_bytes()),
            open,
            "through: {request}"
        );
    }
    // An HTTP/1.0 client gets no chunks, because it can't read them.
    let (direct, through) = pair.ask(b"GET /wire/events?count=2&end=1 HTTP/1.0\r\n\r\n");
    assert_eq!(
        (direct.framing, through.framing),
        (Framing::Close, Framing::Close)
    );
    assert_eq!(direct.body, through.body);
    // A request without `Host` gets the backend's authority, because HTTP/1.1 needs one.
    let seen = messages::exchange(pair.renewd.public, b"GET /wire/seen HTTP/1.0\r\n\r\n").json();
    assert_eq!(seen["headers"][1], pair.express.address.to_string());
    assert_eq!(seen["version"], "1.1");
}

#[test]
fn twenty_pipelined_requests_are_answered_in_order() {
    let pair = Pair::start(Version::Four);
    let mut requests: Vec<Vec<u8>> = Vec::new();
    for number in 0..20 {
        requests.push(match number % 5 {
            0 => format!("GET /wire/answer?answer=%7B%22code%22:{} HTTP/1.1\r\nHost: app\r\n\r\n", 200 + number).replace(" HTTP", "%7D HTTP"),
            1 => format!("POST /wire/echo HTTP/1.1\r\nHost: app\r\nContent-Length: 3\r\n\r\n{number:03}"),
            2 => "HEAD /wire/file HTTP/1.1\r\nHost: app\r\n\r\n".to_owned(),
            3 => format!("POST /wire/echo HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{number:03}\r\n0\r\n\r\n"),
            _ => "GET /wire/status?code=204 HTTP/1.1\r\nHost: app\r\n\r\n".to_owned(),
        }.into_bytes());
    }
    let answers = |address| {
        let mut connection = Wire::open(address);
        connection.write(&requests.concat());
        let answers: Vec<_> = requests
            .iter()
            .map(|request| {
                connection
                    .read(request.starts_with(b"HEAD "))
                    .expect("an answer to each")
            })
            .map(|answer| normal_response(&answer))
            .collect();
        answers
    };
    assert_eq!(answers(pair.renewd.public), answers(pair.express.address));
}

#[test]
fn expect_is_answered_here_and_does_not_travel() {
    let pair = Pair::start(Version::Four);
    let mut connection = Wire::open(pair.renewd.public);
    connection.write(b"POST /wire/seen HTTP/1.1\r\nHost: app\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n");
    let interim = connection.read(false).expect("100 before the body is sent");
    assert_eq!(interim.status(), 100);
    connection.write(b"hello");
    let seen = connection.read(false).expect("an answer").json();
    assert_eq!(seen["length"], 5);
    assert!(!seen["headers"].to_string().contains("xpect"), "{seen}");
}

#[test]
fn an_expectation_that_nobody_knows_is_the_apps_to_refuse() {
    let pair = Pair::start(Version::Four);
    for expect in ["200-ok", "", "continue", "x=1; y"] {
        let request = format!(
            "POST /wire/seen HTTP/1.1\r\nHost: app\r\nExpect: {expect}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
        );
        let direct = pair.assert_same_answer(request.as_bytes());
        assert_eq!(direct.status(), 417, "{expect}");
    }
}

/// The end of what the client gets on a connection that served a request before, when it stops sending behind
/// `request`.
fn after_half_close(address: std::net::SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut wire = Wire::open(address);
    wire.write(b"GET /health HTTP/1.1\r\nHost: app\r\n\r\n");
    assert_eq!(wire.read(false).expect("an answer").status(), 200);
    wire.write(request);
    wire.socket()
        .shutdown(std::net::Shutdown::Write)
        .expect("an open connection");
    wire.rest().expect("an end in order")
}

#[test]
fn a_client_that_stops_sending_is_left_without_an_answer_once_and_by_the_app() {
    let pair = Pair::start(Version::Four);
    let hanging = b"GET /wire/hang HTTP/1.1\r\nHost: app\r\n\r\n";
    // Node 20 gives up on the request (`socketOnEnd` in `lib/_http_server.js`); the connection had served a request
    // before, and isn't at fault.
    for address in [pair.express.address, pair.renewd.public] {
        let got = after_half_close(address, hanging);
        assert_eq!(String::from_utf8_lossy(&got), "", "{address}");
    }
    assert_eq!(messages::hits(pair.express.address, "hanging"), 2);
    let server = format!("server=\"http://{}\"", pair.express.address);
    let asked = |outcome: &str| {
        let series = format!("renewd_upstream_requests_total{{{server},outcome=\"{outcome}\"}}");
        pair.renewd.metric(&series)
    };
    assert!(asked("client_gone") > 0.5, "{}", pair.renewd.metrics());
    assert!(asked("connection_lost") < 0.5);
}

/// Splitmix64: the same requests at every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).expect("small")).expect("small")
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn bytes(&mut self, alphabet: &[u8], most: usize) -> Vec<u8> {
        let length = self.below(most + 1);
        (0..length).map(|_| self.pick(alphabet)).collect()
    }
}

fn random_request(random: &mut Random) -> Vec<u8> {
    const PATH: &[u8] = b"abcXYZ019/%-._~!$&'()*+,;=:@|^[]\\{}";
    const QUERY: &[u8] = b"abcXYZ019/?%-._~!$&'()*+,;=:@|^[]\\{}`";
    const NAME: &[u8] = b"abcdefXYZ019-_.!#$%&'*+^`|~";
    let value: Vec<u8> = (0x20..=0x7e).chain(0x80..=0xff).chain([b'\t']).collect();
    let any: Vec<u8> = (0..=255).collect();

    let mut request = random
        .pick(&[
            "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "SEARCH",
        ])
        .as_bytes()
        .to_vec();
    request.extend(b" /wire/seen/");
    request.extend(random.bytes(PATH, 40));
    if random.below(2) == 0 {
        request.push(b'?');
        request.extend(random.bytes(QUERY, 60));
    }
    request.extend(b" HTTP/1.1\r\n");
    let host_at = random.below(4);
    let mut names: Vec<Vec<u8>> = vec![b"Cookie".to_vec(), b"Accept".to_vec()];
    for position in 0..=random.below(12) + host_at {
        if position == host_at {
            request.extend(b"Host: app.example\r\n");
            continue;
        }
        let name = if random.below(3) == 0 {
            names[random.below(names.len())].clone()
        } else {
            let mut name = b"X-".to_vec();
            name.extend(random.bytes(NAME, 12));
            names.push(name.clone());
            name
        };
        request.extend(name);
        request.extend(b":");
        request.extend(random.bytes(b" \t", 3));
        request.extend(random.bytes(&value, 60));
        request.extend(b"\r\n");
    }
    let body = random.bytes(&any, 300);
    match random.below(3) {
        0 => request.extend(b"\r\n"),
        1 => {
            request.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
            request.extend(body);
        }
        _ => {
            request.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            let mut rest = body.as_slice();
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at(1 + random.below(rest.len()));
                request.extend(format!("{:x}\r\n", chunk.len()).bytes());
                request.extend(chunk);
                request.extend(b"\r\n");
                rest = after;
            }
            request.extend(b"0\r\n\r\n");
        }
    }
    request
}

#[test]
fn two_thousand_random_requests_arrive_as_they_were_sent() {
    let pair = Pair::start(Version::Four);
    let mut random = Random(20_261_123);
    let mut direct = Wire::open(pair.express.address);
    let mut through = Wire::open(pair.renewd.public);
    for _ in 0..2_000 {
        let request = random_request(&mut random);
        direct.write(&request);
        through.write(&request);
        let direct = direct
            .read(false)
            .unwrap_or_else(|error| panic!("direct: {error}; {}", shown(&request)));
        let through = through
            .read(false)
            .unwrap_or_else(|error| panic!("through: {error}; {}", shown(&request)));
        assert_same_seen(&request, &direct, &through);
    }
}

#[test]
fn an_answer_of_two_hundred_fields_comes_back() {
    let pair = Pair::start(Version::Four);
    let fields: Vec<_> = (0..200)
        .flat_map(|number| [format!("X-{number}"), "1".to_owned()])
        .collect();
    let direct = pair.assert_same_answer(&answer("GET", &serde_json::json!({"headers": fields})));
    assert_eq!(direct.status(), 200);
}
