//! HTTP/2 clients that attack: floods, windows, broken frames. Memory stays bounded, others are served, it is counted.

#[path = "support/plane.rs"]
mod plane;
mod support;

use std::time::Duration;

use plane::{Backend, Wire, get, ok};
use support::renewd::{Renewd, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

const ABUSE: &str = "renewd_http_parse_errors_total{kind=\"http2_abuse\"}";
const MALFORMED: &str = "renewd_http_parse_errors_total{kind=\"malformed\"}";

/// More than any of these attacks may cost.
const ROOM: f64 = 24_000_000.0;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head[..], &stream.to_be_bytes(), payload].concat()
}

/// A literal field without indexing (RFC 7541 §6.2.2), uncompressed.
fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&length(text.len(), 7)[..], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// An integer with so many bits in its first byte (RFC 7541 §5.1).
fn length(value: usize, bits: u32) -> Vec<u8> {
    let most = (1 << bits) - 1;
    if value < most {
        return vec![u8::try_from(value).unwrap()];
    }
    let mut bytes = vec![u8::try_from(most).unwrap()];
    let mut rest = value - most;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// `GET /` of `http://x`, indexed where HPACK's static table has it.
fn head() -> Vec<u8> {
    [&[0x82, 0x86, 0x84][..], &field(":authority", "x")].concat()
}

fn ask(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &head())
}

fn daemon(backend: &Backend, tables: &str) -> Renewd {
    Renewd::start(&Settings {
        backend: Some(backend.address()),
        server: "h2c = true".to_owned(),
        tables: tables.to_owned(),
        ..Settings::default()
    })
}

/// Connected, with both preludes exchanged as far as this client cares.
async fn attacker(renewd: &Renewd) -> Wire {
    let mut wire = Wire::new(TcpStream::connect(renewd.public).await.unwrap());
    wire.send([PREFACE, &frame(SETTINGS, 0, 0, b"")].concat())
        .await;
    wire
}

/// Sends this again and again, reading what comes, until the server has enough; the frames that it sent last.
async fn flood(wire: Wire, most: usize, mut bytes: impl FnMut(u32) -> Vec<u8>) -> Vec<u8> {
    let (mut reading, mut writing) = tokio::io::split(wire.stream);
    let reader = tokio::spawn(async move {
        let mut last = Vec::new();
        let mut chunk = vec![0; 65_536];
        while let Ok(length @ 1..) = reading.read(&mut chunk).await {
            last.extend_from_slice(&chunk[..length]);
            let surplus = last.len().saturating_sub(4096);
            last.drain(..surplus);
        }
        last
    });
    let sending = async {
        for turn in 0..most {
            let turn = u32::try_from(turn).unwrap();
            if writing.write_all(&bytes(turn)).await.is_err() {
                return;
            }
        }
        panic!("everything was taken");
    };
    plane::within("the server having enough", sending).await;
    plane::within("its last words", reader).await.unwrap()
}

fn resident(renewd: &Renewd) -> f64 {
    renewd.metric("process_resident_memory_bytes")
}

/// A client of the same workers gets its answer.
async fn others_are_served(renewd: &Renewd, backend: &Backend) {
    for _ in 0..2 {
        let mut client = Wire::new(TcpStream::connect(renewd.public).await.unwrap());
        client.send(get("/other")).await;
        loop {
            // What attackers opened comes first.
            let mut server = backend.accept().await;
            let mut head = [0; 11];
            let read = plane::within("a request", server.stream.read_exact(&mut head)).await;
            if read.is_err() || &head != b"GET /other " {
                continue;
            }
            server.head().await;
            server.send(ok("a")).await;
            break;
        }
        client.until("\r\n\r\na").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_opened_to_be_reset_at_once_end_the_connection() {
    let backend = Backend::start().await;
    let renewd = daemon(&backend, "");
    let before = resident(&renewd);
    let wire = attacker(&renewd).await;
    flood(wire, 100_000, |turn| {
        let stream = 2 * turn + 1;
        [ask(stream), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    })
    .await;
    others_are_served(&renewd, &backend).await;
    assert!(resident(&renewd) < before + ROOM);
    renewd.eventually("its being counted", |renewd| {
        renewd.metric(ABUSE) + renewd.metric(MALFORMED) >= 1.0
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_reset_after_they_reached_the_backend_end_the_connection_too() {
    let backend = Backend::start().await;
    let renewd = daemon(&backend, "");
    let mut wire = attacker(&renewd).await;
    let mut reached = 0;
    for turn in 0..400 {
        let stream = 2 * turn + 1;
        if wire.stream.write_all(&ask(stream)).await.is_err() {
            break;
        }
        // As soon as the connection is over nothing comes any more.
        let waiting = tokio::time::timeout(Duration::from_secs(2), backend.accept());
        let Ok(mut server) = waiting.await else { break };
        server.head().await;
        reached += 1;
        let reset = frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
        if wire.stream.write_all(&reset).await.is_err() {
            break;
        }
        server.rest().await;
    }
    assert!((200..=210).contains(&reached), "{reached}");
    renewd.eventually("its being counted", |renewd| renewd.metric(ABUSE) >= 1.0);
    others_are_served(&renewd, &backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_section_without_end_is_cut() {
    let backend = Backend::start().await;
    let renewd = daemon(&backend, "");
    let before = resident(&renewd);
    let mut wire = attacker(&renewd).await;
    wire.send(frame(HEADERS, END_STREAM, 1, &head())).await;
    let junk = field("x-junk", &"y".repeat(8000));
    flood(wire, 100_000, |_| frame(CONTINUATION, 0, 1, &junk)).await;
    assert!(resident(&renewd) < before + ROOM);
    renewd.eventually("its being counted", |renewd| {
        renewd.metric(MALFORMED) >= 1.0
    });
    others_are_served(&renewd, &backend).await;
    // Empty ones cost nothing to send.
    let mut wire = attacker(&renewd).await;
    wire.send(frame(HEADERS, END_STREAM, 1, &head())).await;
    flood(wire, 1_000_000, |_| frame(CONTINUATION, 0, 1, b"")).await;
    others_are_served(&renewd, &backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_that_bring_nothing_end_the_connection() {
    let backend = Backend::start().await;
    let renewd = daemon(&backend, "");
    let before = resident(&renewd);
    let table: [(&str, Vec<u8>); 5] = [
        ("PING", frame(PING, 0, 0, &[7; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])),
        ("unknown", frame(77, 0, 0, &[1; 8])),
        ("PING answers", frame(PING, ACK, 0, &[7; 8])),
    ];
    for (index, (what, bytes)) in table.into_iter().enumerate() {
        let wire = attacker(&renewd).await;
        let many = bytes.repeat(100);
        flood(wire, 100_000, |_| many.clone()).await;
        let counted = f64::from(u32::try_from(index + 1).unwrap());
        renewd.eventually(what, |renewd| renewd.metric(ABUSE) >= counted);
        others_are_served(&renewd, &backend).await;
    }
    assert!(resident(&renewd) < before + ROOM);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_pings_and_reads_no_answers_is_cut_for_it() {
    let backend = Backend::start().await;
    let renewd = daemon(&backend, "[server.timeouts]\nwrite_stall = \"300ms\"\n");
    let before = resident(&renewd);
    let mut wire = attacker(&renewd).await;
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(1000);
    let sending = async { while wire.stream.write_all(&pings).await.is_ok() {} };
    plane::within("the cut", sending).await;
    assert!(resident(&renewd) < before + ROOM);
    others_are_served(&renewd, &backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_kept_shut_cost_a_bounded_buffer_and_are_cut() {
    const STREAMS: u32 = 128;
    let backend = Backend::start().await;
    let renewd = daemon(&backend, "[server.timeouts]\nwrite_stall = \"500ms\"\n");
    let before = resident(&renewd);
    let mut wire = Wire::new(TcpStream::connect(renewd.public).await.unwrap());
    // An initial window of nothing (RFC 9113 §6.5.2).
    let shut = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    wire.send([PREFACE, &shut].concat()).await;
    let mut servers = Vec::new();
    for index in 0..STREAMS {
        wire.send(ask(2 * index + 1)).await;
        let mut server = backend.accept().await;
        server.head().await;
        servers.push(tokio::spawn(async move {
            let length = 4 << 20;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            let _ = server.stream.write_all(head.as_bytes()).await;
            let _ = server.stream.write_all(&vec![0; length]).await;
            server.rest().await
        }));
    }
    // The backend learns of each cut.
    for server in servers {
        plane::within("a cut", server).await.unwrap();
    }
    // 128 times what is read at once of the backend, and what waits for the window.
    let grown = resident(&renewd) - before;
    assert!(grown < 128.0 * 600_000.0, "{grown}");
    others_are_served(&renewd, &backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_streams_than_allowed_are_refused_and_the_rest_go_on() {
    let backend = Backend::start().await;
    let renewd = daemon(&backend, "");
    let mut wire = attacker(&renewd).await;
    // The announcement is to be seen first (RFC 9113 §5.1.2).
    wire.send(frame(SETTINGS, ACK, 0, b"")).await;
    let asked: Vec<u8> = (0..140).flat_map(|index| ask(2 * index + 1)).collect();
    wire.send(asked).await;
    let mut servers = Vec::new();
    for _ in 0..128 {
        let mut server = backend.accept().await;
        server.head().await;
        servers.push(server);
    }
    for server in &mut servers {
        server.send(ok("a")).await;
    }
    let mut refused = 0;
    let mut answered = 0;
    while refused + answered < 140 {
        let head = wire.exactly(9).await;
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        let payload = wire.exactly(length).await;
        match head[3] {
            RST_STREAM => {
                assert_eq!(payload, [0, 0, 0, 7], "REFUSED_STREAM");
                refused += 1;
            }
            HEADERS => answered += 1,
            _ => {}
        }
    }
    assert_eq!((refused, answered), (12, 128));
}

/// What a server must not take (RFC 9113), as h2spec lists it, and what it says: GOAWAY or `RST_STREAM` with one of these
/// codes. Any error of a stream may be made one of the connection (§5.4.1), and the h2 crate is sparing with codes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::too_many_lines)] // a table
async fn broken_frames_are_errors_of_their_stream_or_of_the_connection() {
    const PROTOCOL: u8 = 1;
    const FLOW_CONTROL: u8 = 3;
    const CLOSED: u8 = 5;
    const FRAME_SIZE: u8 = 6;
    const COMPRESSION: u8 = 9;
    let backend = Backend::start().await;
    let renewd = daemon(&backend, "");
    let whole = |fields: &[(&str, &str)]| {
        let fields = fields.iter().map(|(name, value)| field(name, value));
        fields.collect::<Vec<_>>().concat()
    };
    let open = |payload: &[u8]| frame(HEADERS, END_STREAM | END_HEADERS, 1, payload);
    let upload = || frame(HEADERS, END_HEADERS, 1, &head());
    let with = |name: &str, value: &str| open(&[head(), field(name, value)].concat());
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
            "8.1 a second section without END_STREAM",
            [upload(), frame(HEADERS, END_HEADERS, 1, &head())].concat(),
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
    ];
    let mut wrong = Vec::new();
    for (what, bytes, kind, codes) in table {
        let mut wire = attacker(&renewd).await;
        wire.send(frame(SETTINGS, ACK, 0, b"")).await;
        wire.send(bytes).await;
        let found = verdict(&mut wire).await;
        let stricter = |found| found == kind || found == GOAWAY;
        if !found.is_some_and(|(found, code)| stricter(found) && codes.contains(&code)) {
            wrong.push(format!("{what}: {found:?}, not {kind} with {codes:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    others_are_served(&renewd, &backend).await;
}

/// The first frame that complains, and its code; `None` where the connection ends without one.
async fn verdict(wire: &mut Wire) -> Option<(u8, u8)> {
    let mut head = [0; 9];
    loop {
        let reading =
            tokio::time::timeout(Duration::from_secs(3), wire.stream.read_exact(&mut head));
        reading.await.ok()?.ok()?;
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        wire.stream.read_exact(&mut payload).await.ok()?;
        match head[3] {
            GOAWAY => return Some((GOAWAY, payload[7])),
            RST_STREAM => return Some((RST_STREAM, payload[3])),
            HEADERS => return Some((HEADERS, payload[0])),
            _ => {}
        }
    }
}
