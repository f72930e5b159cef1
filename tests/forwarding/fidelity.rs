//! One table of behaviours, each on every way through: {HTTP/1.1, HTTP/1.1 over a unix socket, over TLS, HTTP/2 over
//! TLS} in front × {TCP, unix socket} behind. This file holds the form of a request and its answer on the other side.
//! Bodies on their way are in `fidelity_streams.rs`, and the real app's view is in `fidelity_express.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use crate::support::topology;

use crate::support::plane::ok;
use crate::support::topology::{Case, Front, Upload, everywhere, everywhere_in_http1};

const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\n\r\n";

/// A head's lines without what renewd adds.
fn lines(head: &str) -> Vec<&str> {
    let ours = ["x-forwarded-", "x-request-id:"];
    let lines = head.trim_end().split("\r\n");
    lines
        .filter(|line| !ours.iter().any(|name| line.starts_with(name)))
        .collect()
}

fn texts(fields: &[(String, String)]) -> Vec<(&str, &str)> {
    let pairs = fields.iter().map(|(name, value)| (&name[..], &value[..]));
    pairs.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn methods_and_targets_arrive_byte_for_byte() {
    let table = [
        ("GET", "/"),
        ("HEAD", "/a//b/./c/../d"),
        ("POST", "/a%2Fb%00%ff%zz"),
        ("PUT", "/%41%7E?q=%20+&&=&a=1&a=2"),
        ("PATCH", "/;p=1,2:@!$'()*+"),
        ("DELETE", "/a?"),
        ("OPTIONS", "/a?b?c/d"),
        ("PROPFIND", "/a|b[1]{2}^"),
        ("M-SEARCH", "/..//..%2e"),
        ("get", "/?url=https://other.example/x"),
        ("GET", "/api/live/active"),
    ];
    everywhere(async |case: &mut Case| {
        let mut client = case.client().await;
        for (method, target) in table {
            let request = client.request(method, target, &[], Upload::Empty);
            let (head, answer) = case.exchange(&mut client, request, NO_CONTENT).await;
            let expected = format!("{method} {target} HTTP/1.1\r\n");
            assert!(head.starts_with(&expected), "{expected:?} is {head:?}");
            assert_eq!(answer.status, 204);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fields_of_a_request_arrive_in_order_repeated_and_unchanged() {
    let long = "x".repeat(6000);
    let fields = [
        ("accept", "text/html, */*;q=0.1"),
        ("x-repeated", "1"),
        ("x-repeated", "1"),
        ("x-repeated", "a, b"),
        ("cookie", "a=1; b=\"2\"; c=3==; __Host-d="),
        ("authorization", "Bearer a.b.c"),
        ("x-empty", ""),
        ("x-utf-8", "caf\u{e9} \u{1f600}"),
        ("x-quoted", "\"a\\\"b\", c=d ;e"),
        ("x-tab", "a\tb"),
        ("accept-encoding", "gzip, br"),
        ("x-long", &long),
        ("if-none-match", "W/\"a\", \"b\""),
        ("x-under_score", "1"),
        ("origin", "https://app.example"),
        ("user-agent", "Dart/3.5 (dart:io)"),
    ];
    everywhere(async |case: &mut Case| {
        let mut client = case.client().await;
        let request = client.request("GET", "/fields", &fields, Upload::Empty);
        let (head, _) = case.exchange(&mut client, request, NO_CONTENT).await;
        let sent = fields.map(|(name, value)| format!("{name}: {value}"));
        let mut lines = lines(&head);
        assert_eq!(lines.remove(0), "GET /fields HTTP/1.1");
        assert_eq!(lines.remove(0), "host: live.example");
        assert_eq!(lines, sent);
        let scheme = match case.front {
            Front::Http1 | Front::Http1OverUnix => "http",
            Front::Http1OverTls | Front::Http2OverTls => "https",
        };
        assert!(head.contains(&format!("\r\nx-forwarded-proto: {scheme}\r\n")));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_one_hop_stays_there() {
    let answer = "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5, max=9\r\nX-Hop: 1\r\n\
        Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nX-End: 1\r\nContent-Length: 0\r\n\r\n";
    everywhere(async |case: &mut Case| {
        let mut client = case.client().await;
        let http1 = [
            ("connection", "keep-alive, X-Nominated, te"),
            ("x-nominated", "1"),
            ("keep-alive", "300"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
        ];
        let common = [
            ("proxy-authorization", "Basic eDp5"),
            ("te", "trailers"),
            ("x-end", "1"),
        ];
        let mut fields = common.to_vec();
        if !case.front.is_http2() {
            fields.extend(http1);
        }
        let request = client.request("GET", "/", &fields, Upload::Empty);
        let (head, answer) = case.exchange(&mut client, request, answer).await;
        assert_eq!(
            lines(&head)[2..],
            ["x-end: 1", "te: trailers", "connection: TE"]
        );
        assert_eq!(
            texts(&answer.fields),
            [("x-end", "1"), ("content-length", "0")]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_goes_as_many_hops_as_it_may() {
    let answer = "HTTP/1.1 204 No Content\r\nAllow: GET\r\n\r\n";
    everywhere(async |case: &mut Case| {
        let mut client = case.client().await;
        for (method, said, passed) in [
            ("OPTIONS", "1", "0"),
            ("OPTIONS", "010", "9"),
            ("OPTIONS", "99999999999999999999999", "18446744073709551614"),
            ("OPTIONS", "many", "many"),
            ("GET", "0", "0"),
        ] {
            let fields = [("x-a", "1"), ("max-forwards", said), ("x-end", "1")];
            let request = client.request(method, "/", &fields, Upload::Empty);
            let (head, answer) = case.exchange(&mut client, request, answer).await;
            let passed = format!("max-forwards: {passed}");
            assert_eq!(lines(&head)[2..5], ["x-a: 1", &passed, "x-end: 1"]);
            assert_eq!(answer.status, 204);
        }
        let last = client.request("OPTIONS", "/", &[("max-forwards", "0")], Upload::Empty);
        let answer = topology::Whole::read(client.send(last).await.unwrap()).await;
        assert_eq!(answer.status, 204);
        assert!(!answer.fields.iter().any(|(name, _)| name == "allow"));
        assert!(case.upstream.is_untouched());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_every_status_come_with_their_fields_in_order() {
    let fields = [
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("server", "app"),
        ("set-cookie", "a=1; Path=/; HttpOnly"),
        ("set-cookie", "b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT"),
        ("x-empty", ""),
        ("content-type", "text/plain; charset=utf-8"),
        ("location", "/caf\u{e9}?a=<b>"),
        ("vary", "Origin, Accept"),
        ("etag", "W/\"a b\""),
        ("cache-control", "no-store"),
        ("www-authenticate", "Bearer realm=\"x\", error=\"y\""),
        ("content-encoding", "gzip"),
        ("content-length", "3"),
        ("x-last", "1"),
    ];
    let statuses = [
        200, 201, 202, 203, 206, 226, 300, 301, 302, 303, 307, 308, 400, 401, 402, 403, 404, 405,
        409, 410, 413, 418, 421, 422, 425, 429, 451, 500, 501, 502, 503, 504, 511, 599, 799,
    ];
    let written = fields
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .concat();
    everywhere(async |case: &mut Case| {
        let mut client = case.client().await;
        for status in statuses {
            let answer =
                format!("HTTP/1.1 {status} Reason {status}\r\n{written}\r\n\u{1f}\u{8b}\u{7f}");
            // Two of the three bytes are one character.
            let answer = answer.replace('\u{8b}', "\u{8}");
            let request = client.get("/");
            let (_, answer) = case.exchange(&mut client, request, answer).await;
            assert_eq!(answer.status, status);
            assert_eq!(texts(&answer.fields), fields, "{status}");
            assert_eq!(&answer.body[..], b"\x1f\x08\x7f");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reasons_arrive_as_the_backend_gave_them() {
    everywhere_in_http1(async |case: &mut Case| {
        let mut client = case.wire().await;
        for line in ["200 Sure, why not?", "299 ", "404 Not, found. At-all"] {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let (_, mut wire) = case.upstream.asked().await;
            wire.send(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n"))
                .await;
            case.upstream.keep(wire);
            let head = client.head().await;
            assert!(
                head.starts_with(&format!("HTTP/1.1 {line}\r\n")),
                "{head:?}"
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_without_a_body_keep_their_length_and_their_connections() {
    let table = [
        (
            "HEAD",
            "200 OK\r\nContent-Length: 1234\r\nETag: \"a\"",
            Some("1234"),
        ),
        ("HEAD", "404 Not Found\r\nTransfer-Encoding: chunked", None),
        ("HEAD", "200 OK\r\nContent-Length: 0", Some("0")),
        ("GET", "204 No Content\r\nX-A: 1", None),
        ("DELETE", "204 No Content", None),
        ("GET", "304 Not Modified\r\nETag: \"a\"", None),
        (
            "OPTIONS",
            "200 OK\r\nContent-Length: 0\r\nAllow: GET",
            Some("0"),
        ),
    ];
    everywhere(async |case: &mut Case| {
        let mut client = case.client().await;
        for (method, answer, length) in table {
            let request = client.request(method, "/", &[], Upload::Empty);
            let answered = format!("HTTP/1.1 {answer}\r\n\r\n");
            let (_, whole) = case.exchange(&mut client, request, answered).await;
            let lengths: Vec<_> = texts(&whole.fields)
                .into_iter()
                .filter(|(name, _)| *name == "content-length")
                .collect();
            let expected: Vec<_> = length
                .map(|length| ("content-length", length))
                .into_iter()
                .collect();
            assert_eq!(lengths, expected, "{method} {answer:?}");
            assert!(whole.body.is_empty());
        }
        assert!(!client.is_closed());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_that_the_backend_says_twice_arrives_once() {
    everywhere(async |case: &mut Case| {
        let mut client = case.client().await;
        for lengths in [
            "Content-Length: 2\r\ncontent-length: 2",
            "Content-Length: 2, 2",
        ] {
            let request = client.request("GET", "/", &[], Upload::Empty);
            let answer = format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\nok");
            let (_, whole) = case.exchange(&mut client, request, answer).await;
            let fields = texts(&whole.fields).into_iter();
            let lengths: Vec<_> = fields
                .filter(|(name, _)| *name == "content-length")
                .map(|(_, value)| value)
                .collect();
            assert_eq!(lengths, ["2"]);
            assert_eq!(whole.body, "ok");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_and_conditions_are_the_backends_to_answer() {
    let multipart = "--b\r\nContent-Range: bytes 0-0/4\r\n\r\na\r\n--b\r\nContent-Range: bytes 3-3/4\r\n\r\nd\r\n--b--\r\n";
    let table = [
        (
            "bytes=1-2",
            "206 Partial Content",
            "content-range",
            "bytes 1-2/4",
            "bc",
        ),
        (
            "bytes=9-",
            "416 Range Not Satisfiable",
            "content-range",
            "bytes */4",
            "",
        ),
        (
            "bytes=0-0,-1",
            "206 Partial Content",
            "content-type",
            "multipart/byteranges; boundary=b",
            multipart,
        ),
        ("lines=1-2", "200 OK", "accept-ranges", "bytes", "abcd"),
    ];
    everywhere(async |case: &mut Case| {
        let mut client = case.client().await;
        for (range, status, name, value, body) in table {
            let fields = [
                ("range", range),
                ("if-range", "\"tag\""),
                ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ];
            let request = client.request("GET", "/file", &fields, Upload::Empty);
            let answer = format!(
                "HTTP/1.1 {status}\r\n{name}: {value}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let (head, whole) = case.exchange(&mut client, request, answer).await;
            assert_eq!(
                lines(&head)[2..],
                fields.map(|(name, value)| format!("{name}: {value}"))
            );
            assert_eq!(whole.status.as_str(), &status[..3]);
            assert_eq!(texts(&whole.fields)[0], (name, value));
            assert_eq!(whole.body, body);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_arrive_whole_whatever_the_method() {
    let every_byte: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    everywhere(async |case: &mut Case| {
        let mut client = case.client().await;
        for method in ["POST", "PUT", "PATCH", "DELETE", "GET", "OPTIONS", "REPORT"] {
            for length in [1, 16 * 1024, every_byte.len()] {
                let body = every_byte[..length].to_vec();
                let announced = length.to_string();
                let fields = [
                    ("content-length", announced.as_str()),
                    ("content-type", "x/y"),
                ];
                let request =
                    client.request(method, "/", &fields, Upload::Whole(body.clone().into()));
                let asking = client.send(request);
                let answering = async {
                    let (head, mut wire) = case.upstream.asked().await;
                    let received = wire.exactly(length).await;
                    wire.send(ok("a")).await;
                    case.upstream.keep(wire);
                    (head, received)
                };
                let (response, (head, received)) = tokio::join!(asking, answering);
                assert_eq!(response.unwrap().status(), 200);
                assert_eq!(
                    lines(&head)[2..],
                    fields.map(|(name, value)| format!("{name}: {value}"))
                );
                assert!(received == body, "{method} {length}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expectation_is_met_here_and_interim_answers_are_not_the_final_one() {
    let hints = "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    everywhere(async |case: &mut Case| {
        let mut client = case.client().await;
        let fields = [("expect", "100-continue"), ("content-length", "2")];
        let request = client.request("POST", "/", &fields, Upload::Whole("hi".into()));
        let asking = client.send(request);
        let answering = async {
            let (head, mut wire) = case.upstream.asked().await;
            assert_eq!(lines(&head)[2..], ["content-length: 2"]);
            assert_eq!(wire.exactly(2).await, b"hi");
            wire.send([hints, &ok("a")].concat()).await;
            case.upstream.keep(wire);
        };
        let (response, ()) = tokio::join!(asking, answering);
        let response = response.unwrap();
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("link"));
    })
    .await;
    everywhere_in_http1(async |case: &mut Case| {
        let mut client = case.wire().await;
        client
            .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\n")
            .await;
        assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
        client.send("hi").await;
        let (_, mut wire) = case.upstream.asked().await;
        assert_eq!(wire.exactly(2).await, b"hi");
        wire.finish(&mut client, "a").await;
        case.upstream.keep(wire);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_1_0_and_pipelining_work_on_every_kind_of_connection() {
    everywhere_in_http1(async |case: &mut Case| {
        let mut old = case.wire().await;
        old.send("GET /old HTTP/1.0\r\n\r\n").await;
        let (head, mut wire) = case.upstream.asked().await;
        assert!(head.starts_with("GET /old HTTP/1.1\r\nhost: "), "{head}");
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
            .await;
        case.upstream.keep(wire);
        let answer = old.rest().await;
        assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
        assert!(
            answer.ends_with("\r\n\r\nabc") && !answer.contains("chunked"),
            "{answer}"
        );

        let mut kept = case.wire().await;
        for _ in 0..2 {
            kept.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n")
                .await;
            let (_, mut wire) = case.upstream.asked().await;
            wire.send(ok("b")).await;
            case.upstream.keep(wire);
            let head = kept.until("\r\n\r\nb").await;
            assert!(head.contains("connection: keep-alive\r\n"), "{head}");
        }

        let mut client = case.wire().await;
        let pipelined = (0..20).map(|number| {
            format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{number:02}")
        });
        client.send(pipelined.collect::<String>()).await;
        for number in 0..20 {
            let (head, mut wire) = case.upstream.asked().await;
            assert!(head.starts_with(&format!("POST /{number} ")), "{head}");
            assert_eq!(wire.exactly(2).await, format!("{number:02}").as_bytes());
            assert!(case.upstream.is_untouched(), "one at a time");
            wire.send(ok(&format!("answer {number};"))).await;
            case.upstream.keep(wire);
            client.until(&format!("\r\n\r\nanswer {number};")).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_upgrade_becomes_a_tunnel_on_every_kind_of_connection() {
    let handshake = "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    everywhere_in_http1(async |case: &mut Case| {
        let mut client = case.wire().await;
        client.send(handshake).await;
        let (head, mut wire) = case.upstream.asked().await;
        assert!(head.contains("\r\nupgrade: websocket\r\n"), "{head}");
        wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst")
            .await;
        assert!(client.head().await.starts_with("HTTP/1.1 101 "));
        assert_eq!(client.exactly(5).await, b"first");
        client.send("there").await;
        assert_eq!(wire.exactly(5).await, b"there");
        wire.send("and back").await;
        assert_eq!(client.exactly(8).await, b"and back");
        drop(wire);
        assert_eq!(client.rest().await, "");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owned_and_refused_requests_get_the_same_answer_on_every_kind_of_connection() {
    everywhere(async |case: &mut Case| {
        let mut client = case.client().await;
        let host = if case.front.is_http2() { "x-a" } else { "host" };
        let table = [
            ("POST", "/api/live/token", "x-a", 401, "unauthenticated"),
            ("GET", "/api/live/token", "x-a", 405, "method_not_allowed"),
            ("POST", "/api/live/%74oken", "x-a", 404, "not_found"),
            ("TRACE", "/", "x-a", 405, "invalid_request"),
            (
                "GET",
                "/",
                host,
                if host == "host" { 400 } else { 204 },
                "invalid_request",
            ),
        ];
        for (method, target, name, status, code) in table {
            let request = client.request(method, target, &[(name, "b")], Upload::Empty);
            if status == 204 {
                case.exchange(&mut client, request, NO_CONTENT).await;
                continue;
            }
            let answer = topology::Whole::read(client.send(request).await.unwrap()).await;
            assert_eq!(answer.status, status, "{method} {target}");
            let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(
                (&body["success"], &body["code"]),
                (&false.into(), &code.into())
            );
        }
        assert!(case.upstream.is_untouched());
    })
    .await;
}
