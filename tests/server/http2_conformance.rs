//! What RFC 9113 and RFC 7541 ask of a server, section by section, in the well-known order of conformance tools: what must
//! be refused, and how; what must be taken.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use crate::support::{frames, tls};

use crate::support::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY,
    PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, ask, by_hand, field, frame, head, next,
    verdict,
};
use crate::support::plane::{Wire, ok};
use crate::support::renewd::{Renewd, Settings};
use crate::support::tls::Authority;
use crate::support::topology::{Back, Upstream};
use renewd::io::tls::HTTP2;
use tokio::io::AsyncWriteExt as _;

const PADDED: u8 = 8;
const PRIORITIZED: u8 = 32;

const PROTOCOL: u8 = 1;
const FLOW_CONTROL: u8 = 3;
const CLOSED: u8 = 5;
const FRAME_SIZE: u8 = 6;
const COMPRESSION: u8 = 9;

/// `:status: 200`, indexed.
const OK: u8 = 0x88;
/// A header section that begins by emptying the table.
const NO_TABLE: u8 = 0x20;

async fn start() -> (Upstream, Renewd) {
    let upstream = Upstream::start(Back::Tcp).await;
    let renewd = Renewd::start(&Settings {
        upstream: format!("servers = [\"{}\"]", upstream.url),
        server: "h2c = true\nhealth_path = \"/health\"".to_owned(),
        ..Settings::default()
    });
    (upstream, renewd)
}

fn open(payload: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 1, payload)
}

fn upload() -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, &head())
}

/// An upload of nine bytes.
fn announced() -> Vec<u8> {
    let section = [head(), field("content-length", "9")].concat();
    frame(HEADERS, END_HEADERS, 1, &section)
}

fn with(name: &str, value: &str) -> Vec<u8> {
    open(&[head(), field(name, value)].concat())
}

fn with_first(pseudo: &[u8]) -> Vec<u8> {
    open(&[pseudo, &head()].concat())
}

fn whole(fields: &[(&str, &str)]) -> Vec<u8> {
    let fields = fields.iter().map(|(name, value)| field(name, value));
    fields.collect::<Vec<_>>().concat()
}

/// What a server must not take, and what it says: GOAWAY or `RST_STREAM` with one of these codes. Any error of a stream may
/// be made one of the connection (§5.4.1), and the h2 crate is sparing with codes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::too_many_lines)] // a table
async fn broken_frames_are_errors_of_their_stream_or_of_the_connection() {
    let (_upstream, renewd) = start().await;
    let table: Vec<(&str, Vec<u8>, u8, Vec<u8>)> = vec![
        (
            "4.2 too large a frame",
            frame(DATA, 0, 1, &[0; 16_385]),
            GOAWAY,
            vec![FRAME_SIZE, PROTOCOL],
        ),
        (
            "4.3 a section that can't be decompressed",
            open(&[0xff; 12]),
            GOAWAY,
            vec![COMPRESSION, PROTOCOL],
        ),
        (
            "5.1 DATA on an idle stream",
            frame(DATA, 0, 1, b"x"),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "5.1 RST_STREAM on an idle stream",
            frame(RST_STREAM, 0, 1, &[0; 4]),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "5.1 WINDOW_UPDATE on an idle stream",
            frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "5.1.1 an even stream",
            frame(HEADERS, 5, 2, &head()),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "5.1.1 a stream below the last",
            [frame(HEADERS, 5, 5, &head()), frame(HEADERS, 5, 3, &head())].concat(),
            GOAWAY,
            vec![PROTOCOL, CLOSED],
        ),
        (
            "6.1 DATA on stream 0",
            frame(DATA, 0, 0, b"x"),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "6.1 more padding than payload",
            [upload(), frame(DATA, 8, 1, &[9, 0, 0])].concat(),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "6.2 HEADERS on stream 0",
            frame(HEADERS, 5, 0, &head()),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "6.2 another frame inside a section",
            [frame(HEADERS, 1, 1, &head()), frame(PING, 0, 0, &[0; 8])].concat(),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "6.4 RST_STREAM on stream 0",
            frame(RST_STREAM, 0, 0, &[0; 4]),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "6.4 a short RST_STREAM",
            [upload(), frame(RST_STREAM, 0, 1, &[0; 3])].concat(),
            GOAWAY,
            vec![FRAME_SIZE, PROTOCOL],
        ),
        (
            "6.5 SETTINGS on a stream",
            frame(SETTINGS, 0, 1, b""),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "6.5 SETTINGS of 5 bytes",
            frame(SETTINGS, 0, 0, &[0; 5]),
            GOAWAY,
            vec![FRAME_SIZE, PROTOCOL],
        ),
        (
            "6.5 an acknowledgement with content",
            frame(SETTINGS, ACK, 0, &[0; 6]),
            GOAWAY,
            vec![FRAME_SIZE, PROTOCOL],
        ),
        (
            "6.5.2 ENABLE_PUSH 2",
            frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "6.5.2 a window beyond 2^31-1",
            frame(SETTINGS, 0, 0, &[0, 4, 128, 0, 0, 0]),
            GOAWAY,
            vec![FLOW_CONTROL, PROTOCOL],
        ),
        (
            "6.5.2 a frame size below 2^14",
            frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "6.6 PUSH_PROMISE from a client",
            [upload(), frame(PUSH_PROMISE, 4, 1, &[0, 0, 0, 2])].concat(),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "6.7 PING on a stream",
            frame(PING, 0, 1, &[0; 8]),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "6.7 a short PING",
            frame(PING, 0, 0, &[0; 7]),
            GOAWAY,
            vec![FRAME_SIZE, PROTOCOL],
        ),
        (
            "6.8 GOAWAY on a stream",
            frame(GOAWAY, 0, 1, &[0; 8]),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "6.9 an increment of 0",
            frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "6.9 a short WINDOW_UPDATE",
            frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
            GOAWAY,
            vec![FRAME_SIZE, PROTOCOL],
        ),
        (
            "6.9.1 a connection window beyond 2^31-1",
            frame(WINDOW_UPDATE, 0, 0, &[127, 255, 255, 255]),
            GOAWAY,
            vec![FLOW_CONTROL],
        ),
        (
            "6.9.1 a stream window beyond 2^31-1",
            [upload(), frame(WINDOW_UPDATE, 0, 1, &[127, 255, 255, 255])].concat(),
            RST_STREAM,
            vec![FLOW_CONTROL],
        ),
        (
            "6.10 CONTINUATION of nothing",
            frame(CONTINUATION, 4, 1, &head()),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "5.3.1 HEADERS that depend on themselves",
            {
                let section = [&[0, 0, 0, 1, 16][..], &head()].concat();
                frame(HEADERS, END_STREAM | END_HEADERS | PRIORITIZED, 1, &section)
            },
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "5.3.1 PRIORITY that depends on itself",
            frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 16]),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "8.1 a second section without END_STREAM",
            [upload(), frame(HEADERS, END_HEADERS, 1, &head())].concat(),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "8.1 a pseudo-header in trailers, indexed",
            [
                upload(),
                frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x84"),
            ]
            .concat(),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "8.1 a pseudo-header in trailers, written out behind another field",
            {
                let trailers = [field("x-a", "1"), field(":path", "/")].concat();
                let (first, rest) = trailers.split_at(4);
                [
                    upload(),
                    frame(HEADERS, END_STREAM, 1, first),
                    frame(CONTINUATION, END_HEADERS, 1, rest),
                ]
                .concat()
            },
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "8.1.1 less than Content-Length",
            [
                frame(
                    HEADERS,
                    END_HEADERS,
                    1,
                    &[head(), field("content-length", "9")].concat(),
                ),
                frame(DATA, 1, 1, b"x"),
            ]
            .concat(),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "8.2 an upper-case name",
            with("X-Upper", "1"),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "8.2.2 Connection",
            with("connection", "close"),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "8.2.2 Transfer-Encoding",
            with("transfer-encoding", "chunked"),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "8.2.2 Upgrade",
            with("upgrade", "websocket"),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "8.2.2 TE other than trailers",
            with("te", "gzip"),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "8.3 an unknown pseudo-header",
            with(":unknown", "1"),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "8.3 a response's pseudo-header",
            with(":status", "200"),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "8.3 a pseudo-header after a field",
            open(&whole(&[
                (":method", "GET"),
                (":scheme", "http"),
                ("x", "1"),
                (":path", "/"),
            ])),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "8.3.1 no :method",
            open(&whole(&[
                (":scheme", "http"),
                (":path", "/"),
                (":authority", "x"),
            ])),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "8.3.1 no :scheme",
            open(&whole(&[
                (":method", "GET"),
                (":path", "/"),
                (":authority", "x"),
            ])),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "8.3.1 no :path",
            open(&whole(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "x"),
            ])),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "8.3.1 an empty :path",
            open(&whole(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", ""),
                (":authority", "x"),
            ])),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "8.3.1 two :method",
            open(&whole(&[
                (":method", "GET"),
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
            ])),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "8.4 extended CONNECT, which is off",
            open(&whole(&[
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "http"),
                (":path", "/"),
                (":authority", "x"),
            ])),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "4.2 too large a header section's frame",
            open(&[&head()[..], &[0; 16_384]].concat()),
            GOAWAY,
            vec![FRAME_SIZE, PROTOCOL],
        ),
        (
            "4.3 HEADERS of another stream inside a section",
            [frame(HEADERS, END_STREAM, 1, &head()), ask(3)].concat(),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "5.1 CONTINUATION on an idle stream",
            frame(CONTINUATION, END_HEADERS, 3, &head()),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "5.1 DATA behind END_STREAM",
            [ask(1), frame(DATA, END_STREAM, 1, b"x")].concat(),
            RST_STREAM,
            vec![CLOSED, PROTOCOL],
        ),
        (
            "5.1 HEADERS behind END_STREAM",
            [ask(1), ask(1)].concat(),
            RST_STREAM,
            vec![CLOSED, PROTOCOL],
        ),
        (
            "5.1 CONTINUATION behind END_STREAM",
            [ask(1), frame(CONTINUATION, END_HEADERS, 1, &head())].concat(),
            GOAWAY,
            vec![CLOSED, PROTOCOL],
        ),
        (
            "5.1 HEADERS behind RST_STREAM",
            [upload(), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), ask(1)].concat(),
            RST_STREAM,
            vec![CLOSED, PROTOCOL],
        ),
        (
            "5.1 CONTINUATION behind RST_STREAM",
            [
                upload(),
                frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]),
                frame(CONTINUATION, END_HEADERS, 1, &head()),
            ]
            .concat(),
            GOAWAY,
            vec![CLOSED, PROTOCOL],
        ),
        (
            "5.5 an unknown frame inside a section",
            [
                frame(HEADERS, END_STREAM, 1, &head()),
                frame(0x16, 0, 0, b"x"),
            ]
            .concat(),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "6.2 more padding than section",
            frame(
                HEADERS,
                END_STREAM | END_HEADERS | PADDED,
                1,
                &[&[200][..], &head()].concat(),
            ),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "6.3 PRIORITY on stream 0",
            frame(PRIORITY, 0, 0, &[0, 0, 0, 1, 16]),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "6.3 a short PRIORITY",
            [upload(), frame(PRIORITY, 0, 1, &[0; 4])].concat(),
            RST_STREAM,
            vec![FRAME_SIZE, PROTOCOL],
        ),
        (
            "6.5.2 a frame size above 2^24-1",
            frame(SETTINGS, 0, 0, &[0, 5, 1, 0, 0, 0]),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "6.9 an increment of 0 on a stream",
            [upload(), frame(WINDOW_UPDATE, 0, 1, &[0; 4])].concat(),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "6.9.2 SETTINGS that make a stream's window larger than 2^31-1",
            [
                upload(),
                frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0, 0]),
                frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]),
            ]
            .concat(),
            GOAWAY,
            vec![FLOW_CONTROL],
        ),
        (
            "6.10 CONTINUATION on another stream",
            [
                frame(HEADERS, END_STREAM, 1, &head()),
                frame(CONTINUATION, END_HEADERS, 3, &head()),
            ]
            .concat(),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "6.10 CONTINUATION on stream 0",
            [
                frame(HEADERS, END_STREAM, 1, &head()),
                frame(CONTINUATION, END_HEADERS, 0, &head()),
            ]
            .concat(),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "6.10 CONTINUATION behind DATA",
            [
                upload(),
                frame(DATA, 0, 1, b"x"),
                frame(CONTINUATION, END_HEADERS, 1, &head()),
            ]
            .concat(),
            GOAWAY,
            vec![PROTOCOL],
        ),
        (
            "8.1.1 less than Content-Length in two frames",
            [
                announced(),
                frame(DATA, 0, 1, b"x"),
                frame(DATA, END_STREAM, 1, b"y"),
            ]
            .concat(),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "8.1.1 more than Content-Length",
            [announced(), frame(DATA, END_STREAM, 1, b"0123456789")].concat(),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "8.2.2 Keep-Alive",
            with("keep-alive", "timeout=5"),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "8.2.2 Proxy-Connection",
            with("proxy-connection", "close"),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "8.3.1 two :scheme",
            with_first(&[0x86]),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "8.3.1 two :path",
            with_first(&[0x84]),
            RST_STREAM,
            vec![PROTOCOL],
        ),
        (
            "HPACK 6.1 the index 0",
            open(&[&head()[..], &[0x80]].concat()),
            GOAWAY,
            vec![COMPRESSION, PROTOCOL],
        ),
        (
            "HPACK 2.3.3 an index of nothing",
            open(&[&head()[..], &[0xbe]].concat()),
            GOAWAY,
            vec![COMPRESSION, PROTOCOL],
        ),
        (
            "HPACK 5.1 an integer without end",
            open(&[&head()[..], &[0xff; 12]].concat()),
            GOAWAY,
            vec![COMPRESSION, PROTOCOL],
        ),
        (
            "HPACK 4.2 a change of the table's size behind a field",
            open(&[&head()[..], &[0x20]].concat()),
            GOAWAY,
            vec![COMPRESSION, PROTOCOL],
        ),
        (
            "HPACK 6.3 a table larger than allowed",
            open(&[&[0x3f, 0xe2, 0x1f][..], &head()].concat()),
            GOAWAY,
            vec![COMPRESSION, PROTOCOL],
        ),
        (
            "HPACK 5.2 padding of more than 7 bits",
            open(&[&head()[..], &[0, 1, b'x', 0x82, 0x1f, 0xff]].concat()),
            GOAWAY,
            vec![COMPRESSION, PROTOCOL],
        ),
        (
            "HPACK 5.2 padding with zeros",
            open(&[&head()[..], &[0, 1, b'x', 0x81, 0x18]].concat()),
            GOAWAY,
            vec![COMPRESSION, PROTOCOL],
        ),
        (
            "HPACK 5.2 the end of string as a symbol",
            open(&[&head()[..], &[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]].concat()),
            GOAWAY,
            vec![COMPRESSION, PROTOCOL],
        ),
        (
            "HPACK 5.2 a text longer than its section",
            open(&[&head()[..], &[0, 1, b'x', 9, b'y']].concat()),
            GOAWAY,
            vec![COMPRESSION, PROTOCOL],
        ),
    ];
    let mut wrong = Vec::new();
    for (what, bytes, kind, codes) in table {
        let mut wire = by_hand(renewd.public).await;
        wire.send(frame(SETTINGS, ACK, 0, b"")).await;
        wire.send(bytes).await;
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

/// What a server must take without a word, before or with a request that is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::too_many_lines)] // a table
async fn what_is_allowed_is_taken() {
    let (mut upstream, renewd) = start().await;
    let after = |before: &[u8]| [before, &ask(1)].concat();
    let priority = [0, 0, 0, 3, 200];
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    let table: Vec<(&str, Vec<u8>)> = vec![
        (
            "4.1 a frame of unknown type",
            after(&frame(0x16, 0, 0, b"what?")),
        ),
        ("4.1 undefined flags", after(&frame(PING, 0x16, 0, &[0; 8]))),
        (
            "4.1 the reserved bit",
            after(&frame(PING, 0, 1 << 31, &[0; 8])),
        ),
        ("4.2 a frame of 2^14 bytes", {
            let section = [head(), field("content-length", "16384")].concat();
            let data = frame(DATA, END_STREAM, 1, &[b'x'; 16_384]);
            [frame(HEADERS, END_HEADERS, 1, &section), data].concat()
        }),
        (
            "5.1 PRIORITY on an idle stream",
            after(&frame(PRIORITY, 0, 1, &priority)),
        ),
        ("5.1 WINDOW_UPDATE, PRIORITY behind END_STREAM", {
            let update = frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 9]);
            [ask(1), update, frame(PRIORITY, 0, 1, &priority)].concat()
        }),
        ("5.1 frames on a stream that was reset", {
            let reset = frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]);
            let late = frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 9]);
            [
                upload(),
                reset.clone(),
                late,
                reset,
                frame(PRIORITY, 0, 1, &priority),
                ask(3),
            ]
            .concat()
        }),
        ("6.2 padding and a priority", {
            let section = [&[3][..], &priority, &head(), &[0; 3]].concat();
            frame(
                HEADERS,
                END_STREAM | END_HEADERS | PADDED | PRIORITIZED,
                1,
                &section,
            )
        }),
        ("6.4 RST_STREAM with an unknown code", {
            [upload(), frame(RST_STREAM, 0, 1, &[0, 0, 0, 99]), ask(3)].concat()
        }),
        (
            "6.5.2 an unknown setting",
            after(&frame(SETTINGS, 0, 0, &[0, 0xff, 0, 0, 0, 1])),
        ),
        ("6.5.3 a setting twice, the last counts", {
            let window = |size: u8| [0, 4, 0, 0, 0, size];
            let settings = frame(SETTINGS, 0, 0, &[window(0), window(100)].concat());
            after(&settings)
        }),
        (
            "6.5.2 no header table",
            after(&frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0])),
        ),
        (
            "6.7 an answer to no PING",
            after(&frame(PING, ACK, 0, &[7; 8])),
        ),
        ("6.8 GOAWAY with an unknown code", {
            [ask(1), frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 99])].concat()
        }),
        ("6.10 a section in many frames", {
            let section = head();
            let (first, rest) = section.split_at(2);
            let (second, third) = rest.split_at(1);
            [
                frame(HEADERS, END_STREAM, 1, first),
                frame(CONTINUATION, 0, 1, second),
                frame(CONTINUATION, 0, 1, b""),
                frame(CONTINUATION, END_HEADERS, 1, third),
            ]
            .concat()
        }),
        (
            "HPACK 6.2.3 a field never to be indexed",
            open(&[&head()[..], b"\x10\x01x\x01y"].concat()),
        ),
        ("HPACK 6.3 changes of the table's size in front", {
            open(&[&[0x20, 0x3f, 0xe1, 0x1f][..], &head()].concat())
        }),
        ("HPACK C.4 Huffman codes and the dynamic table", {
            let first = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
            let second = b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf";
            let flags = END_STREAM | END_HEADERS;
            [
                frame(HEADERS, flags, 1, first),
                frame(HEADERS, flags, 3, second),
            ]
            .concat()
        }),
    ];
    for (what, bytes) in table {
        println!("{what}");
        let mut wire = by_hand(renewd.public).await;
        wire.send(frame(SETTINGS, ACK, 0, b"")).await;
        wire.send(&bytes).await;
        let answers = if what.contains("dynamic") { 2 } else { 1 };
        let found = async {
            let mut found = Vec::new();
            for _ in 0..answers {
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
            found = found => {
                let first = if what.contains("no header table") { NO_TABLE } else { OK };
                assert_eq!(found, vec![(HEADERS, first); answers], "{what}");
            }
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
    // What is allowed more, and how much of the body has come by then.
    for (more, so_far) in [
        (Vec::new(), 1),
        (window(3), 3),
        // Two less than nothing, then nothing, then one.
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
