//! HTTP/2 clients that attack: floods, windows, broken frames. Memory stays bounded, others are served, it is counted.

use crate::support::{frames, plane};

use std::time::Duration;

use crate::support::frames::{
    ACK, CONTINUATION, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, PRIORITY, RST_STREAM, SETTINGS,
    ask, by_hand, field, frame, head,
};
use crate::support::plane::{Backend, Proxy, Setup, Wire, get, ok};
use crate::support::renewd::{Renewd, Settings};
use renewd::server::Event;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const ABUSE: &str = "renewd_http_parse_errors_total{kind=\"http2_abuse\"}";
const MALFORMED: &str = "renewd_http_parse_errors_total{kind=\"malformed\"}";

/// The memory that an attack may cost at most.
const ROOM: f64 = 24_000_000.0;

fn daemon(backend: &Backend, tables: &str) -> Renewd {
    Renewd::start(&Settings {
        backend: Some(backend.address()),
        server: "h2c = true".to_owned(),
        tables: tables.to_owned(),
        ..Settings::default()
    })
}

async fn attacker(renewd: &Renewd) -> Wire {
    by_hand(renewd.public).await
}

/// Sends this again and again and reads the answers until the server ends the connection; gives the frames that the
/// server sent last.
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
            // The connections that attackers opened come first.
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
        // No request reaches the backend once the connection is over.
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
    // Empty frames cost nothing to send.
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
    // The initial window is nothing, or a single byte (RFC 9113 §6.5.2).
    for window in [0, 1] {
        let backend = Backend::start().await;
        let renewd = daemon(&backend, "[server.timeouts]\nwrite_stall = \"1s\"\n");
        let before = resident(&renewd);
        let mut wire = Wire::new(TcpStream::connect(renewd.public).await.unwrap());
        let shut = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, window]);
        wire.send([PREFACE, &shut].concat()).await;
        let mut servers = Vec::new();
        for index in 0..STREAMS {
            wire.send(ask(2 * index + 1)).await;
            let mut server = backend.accept_request().await;
            servers.push(tokio::spawn(async move {
                let length = 4 << 20;
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                let _ = server.stream.write_all(head.as_bytes()).await;
                let _ = server.stream.write_all(&vec![0; length]).await;
                server.rest().await
            }));
        }
        // The backend learns of each cut.
        let mut most = 0.0_f64;
        while servers.iter().any(|server| !server.is_finished()) {
            most = most.max(resident(&renewd) - before);
        }
        // Each stream takes the memory of a first read of 8 KiB from the backend, of one of 72 KiB, and of the request
        // itself.
        assert!(most < 128.0 * 96.0 * 1024.0, "{most}");
        others_are_served(&renewd, &backend).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_streams_than_allowed_are_refused_and_the_rest_go_on() {
    let backend = Backend::start().await;
    let renewd = daemon(&backend, "");
    let mut wire = attacker(&renewd).await;
    // The client must see the announcement first (RFC 9113 §5.1.2).
    wire.send(frame(SETTINGS, ACK, 0, b"")).await;
    let asked: Vec<u8> = (0..140).flat_map(|index| ask(2 * index + 1)).collect();
    wire.send(asked).await;
    let mut servers = Vec::new();
    for _ in 0..128 {
        let server = backend.accept_request().await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_makes_room_for_another_and_says_goaway_first() {
    let backend = Backend::start().await;
    let renewd = Renewd::start(&Settings {
        backend: Some(backend.address()),
        server: "h2c = true\nmax_connections = 1".to_owned(),
        ..Settings::default()
    });
    let mut idle = attacker(&renewd).await;
    idle.send(ask(1)).await;
    let mut server = backend.accept_request().await;
    server.send(ok("a")).await;
    frames::next(&mut idle, HEADERS).await;
    let mut next = Wire::new(TcpStream::connect(renewd.public).await.unwrap());
    next.send(get("/next")).await;
    let goodbye = plane::within("GOAWAY", async {
        loop {
            if let Some(frame) = frames::read(&mut idle).await
                && frame.kind == GOAWAY
            {
                return frame;
            }
        }
    });
    // The code is NO_ERROR: earlier requests are still answered.
    assert_eq!(goodbye.await.payload[4..8], [0; 4]);
    // The pool has let go of the first one's by now.
    let _server = backend.answer(&mut next, "b").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_asks_for_anything_is_closed_in_the_time_of_a_head() {
    let backend = Backend::start().await;
    let renewd = daemon(&backend, "[server.timeouts]\nheader = \"1s\"\n");
    let mut silent = attacker(&renewd).await;
    let closed = plane::within("the end", async {
        let mut said_goodbye = false;
        loop {
            match frames::read(&mut silent).await {
                Some(frame) => said_goodbye |= frame.kind == GOAWAY,
                None => return said_goodbye,
            }
        }
    });
    assert!(closed.await);
    assert!(renewd.metric("renewd_http_parse_errors_total{kind=\"header_timeout\"}") < 0.5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_nothing_keeps_nobody_out() {
    let backend = Backend::start().await;
    let settings = || frame(SETTINGS, 0, 0, b"");
    let begun = frame(HEADERS, END_STREAM, 1, &head());
    for said in [
        PREFACE[..1].to_vec(),
        PREFACE.to_vec(),
        [PREFACE, &settings()].concat(),
        [PREFACE, &settings(), &begun].concat(),
        [PREFACE, &settings(), &frame(PING, 0, 0, &[0; 8])].concat(),
    ] {
        let mut setup = Setup {
            h2c: true,
            max_connections: 60,
            ..Setup::default()
        };
        let long = Duration::from_hours(1);
        (setup.timeouts.header, setup.timeouts.idle) = (long, long);
        let proxy = Proxy::start(backend.address(), setup);
        // A stream that is being answered keeps its connection.
        let mut busy = by_hand(proxy.tcp()).await;
        busy.send(ask(1)).await;
        let busy_server = backend.accept_request().await;
        let mut crowd = Vec::new();
        for _ in 1..60 {
            let mut one = proxy.connect().await;
            one.send(&said).await;
            crowd.push(one);
        }
        proxy
            .log
            .wait("the crowd", |log| log.count(Event::Opened) == 60)
            .await;
        let mut newcomers = Vec::new();
        for _ in 0..5 {
            let mut newcomer = by_hand(proxy.tcp()).await;
            newcomer.send(ask(1)).await;
            let server = backend.accept_request().await;
            newcomers.push((newcomer, server));
        }
        while frames::read(&mut crowd[0]).await.is_some() {}
        newcomers.push((busy, busy_server));
        for (client, server) in &mut newcomers {
            server.send(ok("a")).await;
            frames::next(client, HEADERS).await;
        }
    }
}
