//! One client connection: its deadlines, its sleep, and what the parser refuses.

use crate::support::plane;

use std::task::Poll;
use std::time::Duration;

use crate::support::plane::{Backend, PATIENCE, Proxy, Setup, Wire, get, ok};
use crate::support::raw_exchange::RawExchange;
use renewd::config::model::{ServerLimits, Timeouts};
use renewd::server::Event;
use renewd::server::stall::Cause;
use renewd::telemetry::traffic_labels::ParseErrorKind;
use tokio::io::AsyncWriteExt as _;

const SHORT: Duration = Duration::from_millis(200);

fn timeouts(change: impl FnOnce(&mut Timeouts)) -> Setup {
    let mut setup = Setup::default();
    change(&mut setup.timeouts);
    setup
}

async fn slept(proxy: &Proxy, times: usize) {
    proxy
        .log
        .wait("going to sleep", |log| log.count(Event::Slept) >= times)
        .await;
}

#[tokio::test]
async fn a_sleeping_connection_serves_its_next_request() {
    let mut raw = RawExchange::begin(get("/")).await;
    raw.finish("a").await;
    slept(&raw.proxy, 1).await;
    for round in 2..=3 {
        raw.again(get("/")).await;
        raw.finish("a").await;
        slept(&raw.proxy, round).await;
    }
    assert_eq!(raw.proxy.workers.connections(), 1);
}

#[tokio::test]
async fn a_request_begun_with_the_one_before_it_is_not_lost() {
    // The second request's beginning comes in the same packet as the first.
    let (begun, rest) = ("GET /second HTTP/1.1\r\nHo", "st: x\r\n\r\n");
    let mut raw = RawExchange::begin([&get("/first"), begun].concat()).await;
    raw.finish("a").await;
    assert!(raw.again(rest).await.starts_with("GET /second "));
    raw.finish("b").await;
}

#[tokio::test]
async fn an_empty_line_after_a_body_does_not_keep_a_connection_awake() {
    let setup = timeouts(|timeouts| timeouts.header = SHORT);
    let request = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na\r\n";
    let mut raw = RawExchange::begin_with(setup, request).await;
    raw.server.exactly(1).await;
    raw.finish("b").await;
    slept(&raw.proxy, 1).await;
    assert!(raw.again(get("/next")).await.starts_with("GET /next "));
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_time_whether_it_sleeps_or_never_spoke() {
    let backend = Backend::start().await;
    let setup = timeouts(|timeouts| timeouts.idle = SHORT);
    let proxy = Proxy::start(backend.address(), setup);
    let mut silent = proxy.connect().await;
    let mut client = proxy.connect().await;
    client.send(get("/")).await;
    let mut server = backend.accept_request().await;
    server.send(ok("a")).await;
    assert!(client.rest().await.ends_with("\r\n\r\na"));
    assert_eq!(silent.rest().await, "");
    proxy
        .log
        .wait("both being counted out", |log| {
            log.count(Event::Closed) == 2
        })
        .await;
}

#[tokio::test]
async fn a_header_section_must_end_in_time() {
    let backend = Backend::start().await;
    let setup = timeouts(|timeouts| timeouts.header = SHORT);
    let proxy = Proxy::start(backend.address(), setup);
    let mut first = proxy.connect().await;
    first.send("GET / HTTP/1.1\r\nHos").await;
    assert_eq!(first.rest().await, "");
    assert_eq!(proxy.log.count(Event::TimedOut(Cause::Header)), 1);

    // The deadline holds on a connection that has served a request before, too; a byte now and then doesn't help.
    let mut second = proxy.connect().await;
    second.send(get("/")).await;
    let _server = backend.answer(&mut second, "a").await;
    let mut ticks = tokio::time::interval(SHORT / 4);
    for byte in "GET / HTTP/1.1\r\nHost: x\r\n".split_inclusive(|_| true) {
        ticks.tick().await;
        let sent = tokio::io::AsyncWriteExt::write_all(&mut second.stream, byte.as_bytes()).await;
        if sent.is_err() {
            break;
        }
    }
    assert_eq!(second.rest().await, "");
    assert_eq!(proxy.log.count(Event::TimedOut(Cause::Header)), 2);
}

#[tokio::test]
async fn a_body_must_go_on_arriving() {
    let setup = timeouts(|timeouts| timeouts.body_stall = SHORT);
    let begun = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc";
    let mut raw = RawExchange::begin_with(setup, begun).await;
    raw.server.exactly(3).await;
    assert_eq!(raw.client.rest().await, "");
    assert_eq!(raw.server.rest().await, "");
    assert_eq!(raw.proxy.log.count(Event::TimedOut(Cause::Body)), 1);
}

#[tokio::test]
async fn a_body_that_the_backend_is_slow_to_take_is_no_stall() {
    const LENGTH: usize = 32 * 1024 * 1024;
    let setup = timeouts(|timeouts| timeouts.body_stall = SHORT);
    let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {LENGTH}\r\n\r\n");
    let mut raw = RawExchange::begin_with(setup, head).await;
    let body = vec![7; LENGTH];
    let taking = async {
        // The client reads nothing for several times the limit.
        tokio::time::interval_at(renewd::terms::clock::timer_now() + SHORT * 4, SHORT)
            .tick()
            .await;
        raw.server.exactly(LENGTH).await.len()
    };
    let ((), taken) = tokio::join!(raw.client.send(&body), taking);
    assert_eq!(taken, LENGTH);
    raw.finish("all").await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let setup = timeouts(|timeouts| timeouts.write_stall = SHORT);
    let mut raw = RawExchange::begin_with(setup, get("/")).await;
    raw.server
        .send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        .await;
    let chunk = vec![0; 1024 * 1024];
    let cut = async { while raw.server.stream.write_all(&chunk).await.is_ok() {} };
    plane::within("the cut", cut).await;
    assert_eq!(raw.proxy.log.count(Event::TimedOut(Cause::Write)), 1);
}

#[tokio::test]
async fn a_silent_response_is_never_cut() {
    let setup = timeouts(|timeouts| {
        *timeouts = Timeouts {
            header: SHORT,
            idle: SHORT,
            body_stall: SHORT,
            write_stall: SHORT,
            tunnel_idle: SHORT,
            tls_handshake: SHORT,
        };
    });
    let mut raw = RawExchange::begin_with(setup, get("/events")).await;
    raw.answered("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        .await;
    tokio::time::interval_at(renewd::terms::clock::timer_now() + SHORT * 4, SHORT)
        .tick()
        .await;
    raw.server.send("data: 1\n\n").await;
    raw.client.until("data: 1\n\n").await;
}

#[tokio::test]
async fn a_half_closed_client_whose_backend_stays_silent_is_cut() {
    let backend = Backend::start().await;
    let setup = timeouts(|timeouts| timeouts.write_stall = SHORT);
    let proxy = Proxy::start(backend.address(), setup);
    let mut client = proxy.connect().await;
    client.send(get("/")).await;
    client.half_close().await;
    let _server = backend.accept_request().await;
    assert_eq!(client.rest().await, "");
    assert_eq!(proxy.log.count(Event::TimedOut(Cause::HalfClosed)), 1);
}

/// Bytes that don't begin a request, each for another reason.
const MALFORMED: [&str; 9] = [
    "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
    "GET /<a> HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na",
    "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\na",
    "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}",
];

/// Holds that the request is answered with this status, counted as one parse error more, and ends its connection.
async fn assert_refused(proxy: &Proxy, request: &str, status: u16, kind: ParseErrorKind) {
    let before = proxy.log.count(Event::ParseFailed(kind));
    let mut client = proxy.connect().await;
    client.send(request).await;
    let answer = client.rest().await;
    let start = &request[..request.len().min(60)];
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")),
        "{start:?}: {answer:?}"
    );
    assert!(
        answer.ends_with("connection: close\r\n\r\nrefused"),
        "{start:?}: {answer:?}"
    );
    proxy
        .log
        .wait(start, |log| {
            log.count(Event::ParseFailed(kind)) == before + 1
        })
        .await;
}

#[tokio::test]
async fn what_the_parser_refuses_is_answered_counted_and_never_forwarded() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    for request in MALFORMED {
        assert_refused(&proxy, request, 400, ParseErrorKind::Malformed).await;
    }
    let long = "a".repeat(70_000);
    for too_large in [
        format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!(
            "GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n",
            &long[..17_000]
        ),
        format!(
            "GET / HTTP/1.1\r\nHost: x\r\n{}\r\n",
            "a: b\r\n".repeat(100)
        ),
    ] {
        assert_refused(&proxy, &too_large, 431, ParseErrorKind::HeadersTooLarge).await;
    }
    let mut client = proxy.connect().await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    client.rest().await;
    assert_eq!(
        proxy.log.count(Event::ParseFailed(ParseErrorKind::Version)),
        1
    );
    assert!(backend.is_untouched().await);
}

#[tokio::test]
async fn what_the_parser_refuses_behind_a_request_is_answered_after_it() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    for apart in [true, false] {
        let mut client = proxy.connect().await;
        let broken = "GET /%zz HTTP/1.1\r\nHost : x\r\n\r\n";
        client.send(get("/good")).await;
        if !apart {
            client.send(broken).await;
        }
        let mut server = backend.accept_request().await;
        server
            .send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\ngood")
            .await;
        client.until("\r\n\r\ngood").await;
        if apart {
            client.send(broken).await;
        }
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer:?}");
        assert!(answer.ends_with("\r\n\r\nrefused"), "{answer:?}");
    }
}

#[tokio::test]
async fn limits_of_other_sizes_are_kept() {
    let backend = Backend::start().await;
    let setup = Setup {
        limits: ServerLimits {
            header_bytes: 1024,
            header_fields: 3,
            target_bytes: 512,
        },
        ..Setup::default()
    };
    let proxy = Proxy::start(backend.address(), setup);
    let fields = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
    let mut client = proxy.connect().await;
    client.send(fields(4)).await;
    assert!(client.rest().await.starts_with("HTTP/1.1 431 "));
    let mut client = proxy.connect().await;
    client
        .send(format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(1100)))
        .await;
    assert!(client.rest().await.starts_with("HTTP/1.1 431 "));
    let mut client = proxy.connect().await;
    client.send(fields(3)).await;
    backend.accept().await.head().await;
}

#[tokio::test]
async fn a_client_that_leaves_while_asleep_is_counted_out() {
    let mut raw = RawExchange::begin(get("/")).await;
    raw.finish("a").await;
    slept(&raw.proxy, 1).await;
    drop(raw.client);
    raw.proxy
        .log
        .wait("the close", |log| log.count(Event::Closed) == 1)
        .await;
}

#[tokio::test]
async fn a_refused_head_request_is_answered_without_a_body() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    // Refused for what its fields say, and for what isn't a field at all.
    for field in ["Content-Length: x", "no field"] {
        let mut client = proxy.connect().await;
        client
            .send(format!("HEAD / HTTP/1.1\r\nHost: x\r\n{field}\r\n\r\n"))
            .await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer:?}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer:?}");
    }
}

#[tokio::test]
async fn who_never_begins_a_request_is_closed_in_the_time_of_a_head_without_a_word() {
    let backend = Backend::start().await;
    for h2c in [false, true] {
        let mut setup = Setup {
            h2c,
            ..Setup::default()
        };
        setup.timeouts.header = Duration::from_millis(300);
        let proxy = Proxy::start(backend.address(), setup);
        // The client sends nothing at all, or empty lines, which belong to no request.
        for said in ["", "\r\n"] {
            let mut client = proxy.connect().await;
            client.send(said).await;
            assert_eq!(client.rest().await, "");
        }
        assert_eq!(proxy.log.count(Event::TimedOut(Cause::Header)), 0);
        // Between requests it is `idle` that counts.
        let mut client = proxy.connect().await;
        client.send(get("/")).await;
        let mut server = backend.answer(&mut client, "a").await;
        slept(&proxy, 1).await;
        client.send(get("/")).await;
        server.answer(&mut client, "b").await;
    }
}

#[tokio::test]
async fn empty_lines_between_requests_do_not_make_a_connection_any_younger() {
    let backend = Backend::start().await;
    let mut setup = Setup::default();
    setup.timeouts.idle = Duration::from_millis(1500);
    setup.timeouts.header = Duration::from_millis(1500);
    let proxy = Proxy::start(backend.address(), setup);
    for request in [false, true] {
        let mut client = proxy.connect().await;
        if request {
            client.send(get("/")).await;
            let _server = backend.answer(&mut client, "a").await;
        }
        let began = renewd::terms::clock::timer_now();
        let mut dripping = tokio::time::interval(Duration::from_millis(100));
        loop {
            dripping.tick().await;
            if client.stream.write_all(b"\r\n").await.is_err() {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "it lives on empty lines");
        }
    }
}

/// A setup in which only a newcomer ends a connection.
fn for_few(max_connections: usize) -> Setup {
    let long = Duration::from_hours(1);
    let mut setup = timeouts(|timeouts| (timeouts.header, timeouts.idle) = (long, long));
    setup.max_connections = max_connections;
    setup
}

/// What the first of these connections that ends had received. Which one that is depends on whose bytes a busy machine
/// has read by then: a connection that has sent nothing gives way before one that has begun a request.
async fn first_end(connections: &mut [Wire]) -> String {
    let mut ends: Vec<_> = connections
        .iter_mut()
        .map(|connection| Box::pin(connection.rest()))
        .collect();
    std::future::poll_fn(|context| {
        let end = ends
            .iter_mut()
            .find_map(|end| match end.as_mut().poll(context) {
                Poll::Ready(rest) => Some(rest),
                Poll::Pending => None,
            });
        end.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

#[tokio::test]
async fn what_is_no_request_yet_keeps_nobody_out() {
    let backend = Backend::start().await;
    for (h2c, bytes) in [
        (false, "\r\n"),
        (false, "G"),
        (false, "GET / HTTP/1.1\r\nHost: x\r\n"),
        (true, "\r\n"),
        (true, "P"),
        (true, "POST / HTTP/1.1\r\nHost: x\r\n"),
    ] {
        let setup = Setup { h2c, ..for_few(60) };
        let proxy = Proxy::start(backend.address(), setup);
        // A connection with a request stays, however little of the request has come.
        let mut busy = proxy.connect().await;
        let head = "POST /busy HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n";
        busy.send(head).await;
        let mut busy_server = backend.accept_request().await;
        let mut crowd = Vec::new();
        for _ in 1..60 {
            let mut one = proxy.connect().await;
            one.send(bytes).await;
            crowd.push(one);
        }
        proxy
            .log
            .wait("the crowd", |log| log.count(Event::Opened) == 60)
            .await;
        let mut server = None;
        for _ in 0..5 {
            let mut newcomer = proxy.connect().await;
            newcomer.send(get("/")).await;
            backend.answer_on(&mut server, &mut newcomer, "a").await;
        }
        // The connection ends without an answer, because there was no request.
        assert_eq!(first_end(&mut crowd).await, "", "{bytes:?}");
        assert_eq!(proxy.log.count(Event::TimedOut(Cause::Header)), 0);
        busy.send("xy").await;
        busy_server.until("xy").await;
        busy_server.finish(&mut busy, "b").await;
    }
}

#[tokio::test]
async fn the_beginning_of_a_next_head_keeps_nobody_out_either() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), for_few(3));
    let mut server = None;
    let mut idle = Vec::new();
    // The beginning comes right behind a request, after its answer, and after sleep.
    for (at_once, later) in [("G", ""), ("", "G"), ("", "\r\nG")] {
        let mut client = proxy.connect().await;
        client.send([&get("/"), at_once].concat()).await;
        backend.answer_on(&mut server, &mut client, "a").await;
        if later.len() > 1 {
            slept(&proxy, 1).await;
        }
        client.send(later).await;
        idle.push(client);
    }
    drop(server);
    let mut newcomers = Vec::new();
    for _ in 0..3 {
        let mut newcomer = proxy.connect().await;
        newcomer.send(get("/")).await;
        let server = backend.accept_request().await;
        newcomers.push((newcomer, server));
    }
    for mut client in idle {
        assert_eq!(client.rest().await, "");
    }
    for (newcomer, server) in &mut newcomers {
        server.finish(newcomer, "b").await;
    }
}
