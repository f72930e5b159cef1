//! Bodies on their way: bounded memory, back-pressure, events as they come, aborts on either side, and a backend that
//! is slow, broken or gone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::support::express::{Express, Version};
use crate::support::messages::{self, Message, Wire};
use crate::support::renewd::{Renewd, Settings};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
use sha2::{Digest as _, Sha256};

const MIB: usize = 1024 * 1024;

/// This is more than all socket buffers between client and app can hold.
const LARGE: usize = 64 * MIB;

/// A write that takes longer has stalled.
const STALLED: Duration = Duration::from_millis(700);

fn start(upstream: &str) -> (Express, Renewd) {
    let express = Express::start(Version::Four, &[("RATE_LIMIT", "0")]);
    let renewd = Renewd::start(&Settings {
        backend: Some(express.address),
        upstream: upstream.to_owned(),
        ..Settings::default()
    });
    (express, renewd)
}

fn resident(renewd: &Renewd) -> f64 {
    renewd.metric("process_resident_memory_bytes")
}

/// Memory before and after is taken from a warm process.
fn warm(renewd: &Renewd) -> f64 {
    let request =
        format!("GET /wire/zeros?bytes={MIB} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n");
    assert_eq!(
        messages::exchange(renewd.public, request.as_bytes())
            .body
            .len(),
        MIB
    );
    resident(renewd)
}

fn assert_bounded(renewd: &Renewd, before: f64) {
    let grown = resident(renewd) - before;
    // The allocator keeps some of what it had in hand; a body that is held would be four times this.
    assert!(grown < 16.0 * 1_048_576.0, "{grown} bytes more");
}

fn request(method: &str, target: &str, fields: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: app\r\n{fields}\r\n")
}

fn eventually_hit(express: &Express, renewd: &Renewd, name: &str) {
    renewd.eventually(name, |_| messages::hits(express.address, name) > 0);
}

/// An answer that the app is made to give byte for byte.
fn raw(bytes: &str) -> String {
    let encoded = URL_SAFE_NO_PAD.encode(bytes);
    request("GET", &format!("/wire/raw?bytes={encoded}"), "")
}

#[test]
fn a_large_upload_arrives_whole_in_bounded_memory_even_while_the_app_does_not_read() {
    let (express, renewd) = start("");
    let before = warm(&renewd);
    let mut connection = Wire::open(renewd.public);
    let length = format!("Content-Length: {LARGE}\r\nConnection: close\r\n");
    connection.write(request("POST", "/wire/held", &length).as_bytes());
    eventually_hit(&express, &renewd, "held");

    let chunk: Vec<u8> = (0..=255).cycle().take(64 * 1024).collect();
    let mut hash = Sha256::new();
    connection
        .socket()
        .set_write_timeout(Some(STALLED))
        .expect("a socket");
    let mut sent = 0;
    let stalled = loop {
        // Position in the body and in the chunk agree, because the body is a multiple of it.
        let rest = &chunk[sent % chunk.len()..];
        match connection.socket().write(rest) {
            Ok(written) => {
                hash.update(&rest[..written]);
                sent += written;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break true,
            Err(error) => panic!("{error} after {sent} bytes"),
        }
        if sent == LARGE {
            break false;
        }
    };
    assert!(
        stalled,
        "the client could send everything to an app that reads nothing"
    );
    assert_bounded(&renewd, before);

    let released = request("GET", "/wire/released", "Connection: close\r\n");
    assert_eq!(
        messages::exchange(express.address, released.as_bytes()).status(),
        200
    );
    connection
        .socket()
        .set_write_timeout(None)
        .expect("a socket");
    while sent < LARGE {
        let rest = &chunk[sent % chunk.len()..];
        let written = connection.socket().write(rest).expect("a reading app");
        hash.update(&rest[..written]);
        sent += written;
    }
    let answer = connection.read(false).expect("an answer").json();
    let expected = hash
        .finalize()
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    assert_eq!(answer["length"], LARGE);
    assert_eq!(answer["sha256"], expected.as_str());
    assert_bounded(&renewd, before);
}

#[test]
fn a_large_download_stalls_the_app_while_the_client_does_not_read_and_comes_whole_afterwards() {
    let (express, renewd) = start("");
    let before = warm(&renewd);
    for announced in ["", "&length=1"] {
        let stalls = messages::hits(express.address, "downloadStalled");
        let mut connection = Wire::open(renewd.public);
        let target = format!("/wire/zeros?bytes={LARGE}{announced}");
        connection.write(request("GET", &target, "Connection: close\r\n").as_bytes());
        let mut answer = connection.read_head().expect("a head");
        renewd.eventually("the app stalls", |_| {
            messages::hits(express.address, "downloadStalled") > stalls
        });
        assert!(
            messages::hits(express.address, "downloadLeft") > 0,
            "all was written to nobody"
        );
        assert_bounded(&renewd, before);
        connection.read_body(&mut answer, false).expect("the body");
        assert_eq!(answer.body.len(), LARGE);
        assert!(answer.body.iter().all(|byte| *byte == 0));
    }
    assert_bounded(&renewd, before);
}

#[test]
fn events_come_one_by_one_and_a_silent_stream_stays_open() {
    // Every timeout that could cut it is shorter than the silence.
    let express = Express::start(Version::Four, &[("RATE_LIMIT", "0")]);
    let renewd = Renewd::start(&Settings {
        backend: Some(express.address),
        server: "timeouts = { header = \"1s\", idle = \"1s\", body_stall = \"1s\", write_stall = \"1s\", tunnel_idle = \"1s\" }".to_owned(),
        upstream: "response_timeout = \"1s\"\nidle_timeout = \"1s\"".to_owned(),
        ..Settings::default()
    });
    let mut connection = Wire::open(renewd.public);
    connection.write(request("GET", "/wire/events?count=0", "").as_bytes());
    // The head comes before the first event.
    let head = connection.read_head().expect("a head before any event");
    assert_eq!(
        head.values("content-type"),
        ["text/event-stream; charset=utf-8"]
    );
    let mut silent = Wire::open(renewd.public);
    silent.write(request("GET", "/wire/events?count=2", "").as_bytes());
    silent.read_head().expect("a head");
    let mut events = Vec::new();
    while events.len() < "id: 1\ndata: {\"number\":1}\n\n".len() * 2 {
        events.extend(silent.read_chunk().expect("an event").expect("no end"));
    }
    assert!(events.ends_with(b"{\"number\":2}\n\n"));

    for connection in [&mut connection, &mut silent] {
        let patience = Duration::from_millis(2_500);
        connection
            .socket()
            .set_read_timeout(Some(patience))
            .expect("a socket");
        let silence = connection.read_chunk().expect_err("nothing more");
        assert_eq!(
            silence.kind(),
            io::ErrorKind::WouldBlock,
            "the stream was cut"
        );
    }
    assert_eq!(messages::hits(express.address, "eventsClosed"), 0);
    drop(connection);
    drop(silent);
    renewd.eventually("the app learns that both have left", |_| {
        messages::hits(express.address, "eventsClosed") == 2
    });
}

#[test]
fn chunks_go_both_ways_at_the_same_time() {
    let (_express, renewd) = start("");
    let mut connection = Wire::open(renewd.public);
    connection.write(request("POST", "/wire/echo", "Transfer-Encoding: chunked\r\n").as_bytes());
    let head = connection
        .read_head()
        .expect("a head before the body's end");
    assert_eq!(head.status(), 200);
    for number in 0..50 {
        connection.write(format!("4\r\n{number:04}\r\n").as_bytes());
        let mut echoed = Vec::new();
        while echoed.len() < 4 {
            echoed.extend(connection.read_chunk().expect("an echo").expect("no end"));
        }
        assert_eq!(echoed, format!("{number:04}").as_bytes());
    }
    connection.write(b"0\r\n\r\n");
    assert_eq!(connection.read_chunk().expect("the end"), None);
}

#[test]
fn a_client_that_leaves_is_missed_by_the_app() {
    let (express, renewd) = start("");
    let mut waiting = Wire::open(renewd.public);
    waiting.write(request("GET", "/wire/hang", "").as_bytes());
    eventually_hit(&express, &renewd, "hanging");
    drop(waiting);
    eventually_hit(&express, &renewd, "hangClosed");

    let mut uploading = Wire::open(renewd.public);
    uploading.write(request("POST", "/wire/upload", "Content-Length: 1000\r\n").as_bytes());
    uploading.write(b"some of it");
    drop(uploading);
    eventually_hit(&express, &renewd, "uploadAborted");

    let mut downloading = Wire::open(renewd.public);
    let target = format!("/wire/zeros?bytes={LARGE}");
    downloading.write(request("GET", &target, "").as_bytes());
    downloading.read_head().expect("a head");
    drop(downloading);
    eventually_hit(&express, &renewd, "downloadAborted");
}

#[test]
fn a_response_that_the_app_breaks_off_is_cut_and_never_padded() {
    let (_express, renewd) = start("");
    let mut connection = Wire::open(renewd.public);
    connection.write(request("GET", "/wire/cut", "").as_bytes());
    let head = connection.read_head().expect("a head");
    assert_eq!(head.values("content-length"), ["1000"]);
    assert_eq!(connection.read_rest(), b"half");

    let mut connection = Wire::open(renewd.public);
    let chunked = raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
    connection.write(chunked.as_bytes());
    connection.read_head().expect("a head");
    assert_eq!(connection.read_rest(), b"4\r\nhalf\r\n", "no last chunk");
}

#[test]
fn an_answer_before_the_uploads_end_comes_at_once_and_ends_the_connection() {
    let (_express, renewd) = start("");
    let mut connection = Wire::open(renewd.public);
    let length = format!("Content-Length: {LARGE}\r\n");
    connection.write(request("POST", "/wire/early", &length).as_bytes());
    connection.write(&vec![0; 64 * 1024]);
    let answer = connection.read(false).expect("an answer before the end");
    assert_eq!(answer.status(), 413);
    assert_eq!(answer.json()["message"], "too early");
    assert!(answer.closes());
    connection.write(&vec![0; 64 * 1024]);
    assert_eq!(connection.read_rest(), b"");
    // The backend's connection isn't left in the middle of a request.
    for _ in 0..4 {
        let next = request("GET", "/wire/status?code=299", "Connection: close\r\n");
        assert_eq!(
            messages::exchange(renewd.public, next.as_bytes()).status(),
            299
        );
    }
}

#[test]
fn an_app_that_does_not_answer_in_time_is_504_and_left_alone() {
    let (express, renewd) = start("response_timeout = \"500ms\"");
    for (method, fields) in [("GET", ""), ("POST", "Content-Length: 0\r\n")] {
        let answer = messages::exchange(
            renewd.public,
            request(method, "/wire/hang", fields).as_bytes(),
        );
        assert_eq!(answer.status(), 504);
        let body = answer.json();
        assert_eq!(
            (&body["success"], &body["code"]),
            (&false.into(), &"upstream_timeout".into())
        );
        assert_eq!(answer.values("x-request-id").len(), 1);
    }
    renewd.eventually("the app learns that nobody waits", |_| {
        messages::hits(express.address, "hangClosed") == 2
    });
    let next = request("GET", "/wire/status?code=299", "Connection: close\r\n");
    assert_eq!(
        messages::exchange(renewd.public, next.as_bytes()).status(),
        299
    );
}

/// Passes each connection on to `backend`.
fn relay(listener: TcpListener, backend: SocketAddr) {
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(backend) else {
                return;
            };
            let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || io::copy(&mut up, &mut down));
            let (mut down, mut up) = (server, client);
            thread::spawn(move || io::copy(&mut down, &mut up));
        }
    });
}

#[test]
fn an_app_that_is_down_is_502_until_it_is_back() {
    let express = Express::start(Version::Four, &[("RATE_LIMIT", "0")]);
    // The port is bound and not listening: the kernel refuses connections, and no other process gets the port.
    let bound = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&bound, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let address = getsockname(&bound).expect("its address");
    let renewd = Renewd::start(&Settings {
        backend: Some(address.try_into().expect("an internet address")),
        ..Settings::default()
    });
    let next = request(
        "POST",
        "/wire/upload",
        "Content-Length: 2\r\nConnection: close\r\n",
    ) + "hi";
    for _ in 0..2 {
        let answer = messages::exchange(renewd.public, next.as_bytes());
        assert_eq!(answer.status(), 502);
        let body = answer.json();
        assert_eq!(
            (&body["success"], &body["code"]),
            (&false.into(), &"upstream_unreachable".into())
        );
    }
    listen(&bound, 16).expect("a bound socket");
    relay(TcpListener::from(bound), express.address);
    let answer = messages::exchange(renewd.public, next.as_bytes());
    assert_eq!(
        (answer.status(), &answer.json()["length"]),
        (200, &2.into())
    );
}

/// The answer that the client gets where the app answers with these bytes.
fn answer_to(renewd: &Renewd, bytes: &str) -> Message {
    messages::exchange(renewd.public, raw(bytes).as_bytes())
}

fn assert_502(renewd: &Renewd, bytes: &str, what: &str, code: &str) {
    let answer = answer_to(renewd, bytes);
    assert_eq!(answer.status(), 502, "{what:?}: {answer:?}");
    assert_eq!(answer.json()["code"], code, "{what:?}");
}

#[test]
fn an_answer_that_is_not_http_is_502() {
    let (_express, renewd) = start("");
    for (what, bytes) in [
        ("nothing", ""),
        ("another protocol", "SSH-2.0-OpenSSH_9.2\r\n"),
        ("a letter", "H"),
        ("an empty line", "\r\n"),
        ("half a head", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-"),
        ("a status that isn't one", "HTTP/1.1 2000 OK\r\n\r\n"),
        ("another version", "HTTP/2.0 200 OK\r\n\r\n"),
        ("a bare CR in front", "\rHTTP/1.1 200 OK\r\n\r\n"),
        (
            "a folded field",
            "HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        ),
        (
            "gzip before chunked",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "an upgrade that nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nbytes",
        ),
    ] {
        let code = if bytes.is_empty() {
            "upstream_unreachable"
        } else {
            "upstream_invalid"
        };
        assert_502(&renewd, bytes, what, code);
    }
    // Each but the one without a byte.
    let page = renewd.metrics();
    let mut outcomes = page
        .lines()
        .filter(|line| line.starts_with("renewd_upstream_requests_total{"));
    let bad = outcomes.find(|line| line.contains("outcome=\"bad_response\""));
    assert!(bad.is_some_and(|line| line.ends_with(" 11")), "{bad:?}");
}

#[test]
fn an_answer_with_a_chunk_size_that_is_none_is_502() {
    let (_express, renewd) = start("");
    for size in [
        "5\r\r\n",
        "5\x0c\r\n",
        "5\r;x\r\n",
        "5;a\rb\r\n",
        "5;a\x00b\r\n",
        "5;a=\"b\r\n",
    ] {
        let bytes = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{size}hello\r\n0\r\n\r\n"
        );
        assert_502(&renewd, &bytes, size, "upstream_invalid");
    }
}

#[test]
fn an_answer_that_can_be_framed_is_framed_once() {
    let (_express, renewd) = start("");
    let later = "HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok";
    assert_eq!(answer_to(&renewd, later).body, b"ok");
    for framed_twice in [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\nContent-Length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        let answer = answer_to(&renewd, framed_twice);
        assert_eq!(answer.body, b"hello");
        assert_eq!(answer.values("x-a"), ["1"]);
    }
    // A body that ends with the connection.
    let endless = "HTTP/1.0 200 OK\r\nX-A: 1\r\n\r\nuntil the end";
    assert_eq!(answer_to(&renewd, endless).body, b"until the end");
}
