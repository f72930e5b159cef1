//! The demands of RFC 9113 and RFC 7541 on a server, section by section, in the well-known order of conformance tools:
//! the input that must be refused, and how; the input that must be taken.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use crate::support::{frames, tls, written_frames};

use crate::support::case_files::{CaseFile, WrittenCase};
use crate::support::frames::{
    ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, SETTINGS, WINDOW_UPDATE, ask,
    by_hand, field, frame, head, next, verdict,
};
use crate::support::plane::{Wire, ok};
use crate::support::renewd::{Renewd, Settings};
use crate::support::tls::Authority;
use crate::support::topology::{Back, Upstream};
use crate::support::written_frames::{named, written};
use renewd::io::tls::HTTP2;
use tokio::io::AsyncWriteExt as _;

const CASES: CaseFile = CaseFile {
    text: include_str!("http2_conformance.txt"),
    keywords: &["send", "expect"],
    groups: &[("refused", 81), ("taken", 18)],
};

const PADDED: u8 = 8;

const PROTOCOL: u8 = 1;

const CODES: &[(&str, u8)] = &[
    ("PROTOCOL", PROTOCOL),
    ("FLOW_CONTROL", 3),
    ("CLOSED", 5),
    ("FRAME_SIZE", 6),
    ("COMPRESSION", 9),
];

/// The bytes with which the header section of an answer may begin.
const FIRST_BYTES: &[(&str, u8)] = &[
    ("OK", 0x88),       // `:status: 200`, indexed
    ("NO_TABLE", 0x20), // the dynamic table is emptied
];

async fn start() -> (Upstream, Renewd) {
    let upstream = Upstream::start(Back::Tcp).await;
    let renewd = Renewd::start(&Settings {
        upstream: format!("servers = [\"{}\"]", upstream.url),
        server: "h2c = true\nhealth_path = \"/health\"".to_owned(),
        ..Settings::default()
    });
    (upstream, renewd)
}

fn frames_of(case: &WrittenCase) -> Vec<u8> {
    case.values("send").into_iter().flat_map(written).collect()
}

/// The input that a server must not take, and its reaction: GOAWAY or `RST_STREAM` with one of these codes. Any error
/// of a stream may be made one of the connection (§5.4.1), and h2 0.4.20 is sparing with codes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_frames_are_errors_of_their_stream_or_of_the_connection() {
    let (_upstream, renewd) = start().await;
    let mut wrong = Vec::new();
    for case in CASES.group("refused") {
        let what = case.name;
        let mut expected = case.value("expect").split(' ');
        let kind = written_frames::kind(expected.next().unwrap());
        let codes: Vec<u8> = expected.map(|name| named(name, CODES)).collect();
        assert!(!codes.is_empty(), "{what}: no code");
        let mut wire = by_hand(renewd.public).await;
        wire.send(frame(SETTINGS, ACK, 0, b"")).await;
        wire.send(frames_of(&case)).await;
        let found = verdict(&mut wire).await;
        let stricter = |found| found == kind || found == GOAWAY;
        if !found.is_some_and(|(found, code)| stricter(found) && codes.contains(&code)) {
            wrong.push(format!("{what}: {found:?}, not {kind} with {codes:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let answer = renewd
        .client()
        .send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(answer.unwrap().status, 200, "others are served");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_begins_without_the_preface_ends_at_once() {
    let upstream = Upstream::start(Back::Tcp).await;
    let authority = Authority::new();
    let pair = authority.issue("daemon", 30);
    let renewd = Renewd::start(&Settings {
        upstream: format!("servers = [\"{}\"]", upstream.url),
        tables: format!(
            "[server.tls]\ncertificate_file = \"{}\"\nprivate_key_file = \"{}\"\n",
            pair.certificate.display(),
            pair.key.display()
        ),
        ..Settings::default()
    });
    let connector = authority.connector(&[HTTP2], None);
    for begun in [
        &b"GET / HTTP/1.1\r\nHost: live.example\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r",
    ] {
        let transport = tls::connect(&connector, renewd.public).await.unwrap();
        let mut wire = Wire::over(transport);
        wire.send(begun).await;
        wire.rest().await;
    }
    renewd.eventually("both being counted", |renewd| {
        renewd.metric("renewd_http_parse_errors_total{kind=\"malformed\"}") >= 2.0
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_begins_without_settings_ends_at_once() {
    let (_upstream, renewd) = start().await;
    let firsts = [
        frame(PING, 0, 0, &[0; 8]),
        frame(SETTINGS, ACK, 0, b""),
        ask(1),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
    ];
    for first in &firsts {
        let stream = tokio::net::TcpStream::connect(renewd.public).await;
        let mut wire = Wire::new(stream.unwrap());
        let settings = frame(SETTINGS, 0, 0, b"");
        wire.send([frames::PREFACE, first, &settings, &ask(3)].concat())
            .await;
        let (kind, _) = verdict(&mut wire).await.unwrap_or((GOAWAY, PROTOCOL));
        assert_eq!(kind, GOAWAY, "{first:?}");
    }
    renewd.eventually("all being counted", |renewd| {
        renewd.metric("renewd_http_parse_errors_total{kind=\"malformed\"}") >= 4.0
    });
}

/// The input that a server must take without a word, before or with a request that is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_allowed_is_taken() {
    let (mut upstream, renewd) = start().await;
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    for case in CASES.group("taken") {
        let what = case.name;
        println!("{what}");
        let expected = case.value("expect").split(' ');
        let expected: Vec<(u8, u8)> = expected
            .map(|name| (HEADERS, named(name, FIRST_BYTES)))
            .collect();
        let mut wire = by_hand(renewd.public).await;
        wire.send(frame(SETTINGS, ACK, 0, b"")).await;
        wire.send(frames_of(&case)).await;
        let found = async {
            let mut found = Vec::new();
            for _ in &expected {
                found.extend(verdict(&mut wire).await);
            }
            found
        };
        // Requests that were reset may have reached the backend too.
        let answering = async {
            loop {
                let (_, mut server) = upstream.asked().await;
                let _ = server.stream.write_all(answer).await;
            }
        };
        tokio::select! {
            found = found => assert_eq!(found, expected, "{what}"),
            () = answering => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn padding_is_no_content_and_a_ping_comes_back_as_it_was() {
    let (mut upstream, renewd) = start().await;
    let mut wire = by_hand(renewd.public).await;
    let section = [
        &[2][..],
        &head(),
        &field("te", "trailers"),
        &field("trailer", "x-a"),
        &[0; 2],
    ];
    wire.send(frame(HEADERS, END_HEADERS | PADDED, 1, &section.concat()))
        .await;
    wire.send(frame(DATA, PADDED, 1, b"\x03ab\0\0\0")).await;
    wire.send(frame(DATA, PADDED, 1, b"\0c")).await;
    wire.send(frame(
        HEADERS,
        END_STREAM | END_HEADERS,
        1,
        &field("x-a", "1"),
    ))
    .await;
    wire.send(frame(PING, 0, 0, b"a, not b")).await;
    let (_, mut server) = upstream.asked().await;
    let body = server.until("\r\n\r\n").await;
    let content: String = body.split("\r\n").skip(1).step_by(2).collect();
    assert!(
        content.starts_with("abc") && body.ends_with("0\r\nx-a: 1\r\n\r\n"),
        "{body:?}"
    );
    let pong = next(&mut wire, PING).await;
    assert_eq!((pong.flags, &pong.payload[..]), (ACK, &b"a, not b"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_http_1_would_not_take_is_put_right_on_the_way() {
    let (mut upstream, renewd) = start().await;
    let mut wire = by_hand(renewd.public).await;
    let pseudo = [
        &[0x83, 0x86][..],
        &field(":path", "?query"),
        &field(":authority", "x"),
    ];
    let length = [field("content-length", "3"), field("x-a", "1")].concat();
    let section = [&pseudo.concat()[..], &length, &length].concat();
    wire.send(frame(HEADERS, END_HEADERS, 1, &section)).await;
    wire.send(frame(DATA, END_STREAM, 1, b"abc")).await;
    let (head, mut server) = upstream.asked().await;
    let fields = "host: x\r\ncontent-length: 3\r\nx-a: 1\r\nx-a: 1\r\n";
    let expected = format!("POST /?query HTTP/1.1\r\n{fields}");
    assert!(head.starts_with(&expected), "{head}");
    assert_eq!(server.exactly(3).await, b"abc");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_that_is_no_number_is_refused_in_words() {
    /// `:status: 400`, indexed.
    const BAD_REQUEST: u8 = 0x8c;
    let (mut upstream, renewd) = start().await;
    let mut wire = by_hand(renewd.public).await;
    let empty = field("content-length", "");
    for (stream, lengths) in [
        (1, empty.clone()),
        (3, [field("content-length", "0"), empty].concat()),
    ] {
        let section = [head(), lengths].concat();
        wire.send(frame(HEADERS, END_STREAM | END_HEADERS, stream, &section))
            .await;
        let answer = next(&mut wire, HEADERS).await;
        assert!(
            answer.payload.contains(&BAD_REQUEST),
            "{:?}",
            answer.payload
        );
        let said = next(&mut wire, DATA).await.payload;
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains("\"invalid_request\""), "{said}");
    }
    assert!(upstream.is_untouched());
    let counted = renewd.metric("renewd_http_parse_errors_total{kind=\"malformed\"}");
    assert!(counted > 1.5, "{counted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_are_kept_to_the_byte_whatever_happens_to_them() {
    let (mut upstream, renewd) = start().await;
    let mut wire = by_hand(renewd.public).await;
    let window = |size: u8| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, size]);
    let update = |more: u8| frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, more]);
    wire.send([window(1), ask(1)].concat()).await;
    let (_, mut server) = upstream.asked().await;
    server.send(ok("0123456789")).await;
    upstream.keep(server);
    let mut received = Vec::new();
    // Each row opens the window further, and says how much of the body has come by then.
    for (more, so_far) in [
        (Vec::new(), 1),
        (window(3), 3),
        // The window is two less than nothing, then nothing, then one.
        ([window(1), update(2), update(1)].concat(), 4),
        (update(2), 6),
        (update(9), 10),
    ] {
        wire.send(more).await;
        while received.len() < so_far {
            let data = next(&mut wire, DATA).await;
            received.extend(data.payload);
            assert_eq!(data.flags & END_STREAM != 0, received.len() == 10);
        }
        assert_eq!(received.len(), so_far);
    }
    assert_eq!(received, b"0123456789");
}
