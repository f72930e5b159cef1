//! `upstream.try_duration`: requests wait while the backend is replaced, and none fails that can be made again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::node::{Node, nobody};
use crate::support::raw::Client;
use crate::support::renewd::{Renewd, Settings};
use crate::support::wire::Wire;

fn settings(node: &Node, lines: &str) -> Settings {
    Settings {
        backend: Some(node.address),
        upstream: lines.to_owned(),
        ..Settings::default()
    }
}

#[test]
fn an_upload_that_nobody_has_read_waits_with_its_body() {
    let mut node = Node::start("new");
    node.kill();
    let renewd = Renewd::start(&settings(&node, "try_duration = \"30s\""));
    let mut wire = Wire::connect(renewd.public);
    wire.send("POST /upload HTTP/1.1\r\nHost: app.example\r\nContent-Length: 10\r\n\r\n01234");
    renewd.eventually("it was tried", |renewd| {
        renewd.ask_admin("GET", "/readyz", "").status == 503
    });
    let _node = node.start_again();
    wire.send("56789");
    let head = wire.until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(wire.until("}").contains("\"length\":10,"));
}

#[test]
fn waiting_ends_and_is_off_by_default() {
    let clock = renewd::terms::clock::Clock::system();
    let asked = |lines: &str| {
        let renewd = Renewd::start(&Settings {
            backend: Some(nobody()),
            upstream: lines.to_owned(),
            ..Settings::default()
        });
        let began = clock.elapsed();
        let answer = Client::new(renewd.public)
            .send(b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\n")
            .unwrap();
        assert_eq!(answer.json()["code"], "upstream_unreachable");
        let series = "renewd_upstream_retries_total";
        let tried = renewd.metrics();
        let tried = tried.lines().find(|line| line.starts_with(series)).unwrap();
        let tried: u32 = tried.rsplit_once(' ').unwrap().1.parse().unwrap();
        (tried, clock.elapsed().saturating_sub(began))
    };
    assert_eq!(asked("").0, 0);
    let (tried, took) = asked("try_duration = \"1s\"");
    assert!((1..=5).contains(&tried), "{tried}: bounded pauses");
    assert!(took >= Duration::from_secs(1), "{took:?}");
}

/// Reads a request's head on a connection that the backend just accepted.
fn accept(listener: &TcpListener) -> (TcpStream, String) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    (stream, String::from_utf8(head).unwrap())
}

#[test]
fn what_a_dying_backend_accepted_and_dropped_is_made_again_only_while_requests_wait_and_only_if_it_may()
 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let start = |lines: &str| {
        Renewd::start(&Settings {
            backend: Some(listener.local_addr().unwrap()),
            upstream: lines.to_owned(),
            ..Settings::default()
        })
    };
    let waiting = start("try_duration = \"30s\"");
    for method in ["GET", "DELETE", "OPTIONS"] {
        let mut wire = Wire::connect(waiting.public);
        wire.send(format!(
            "{method} /x HTTP/1.1\r\nHost: app.example\r\nX-A: 1\r\n\r\n"
        ));
        let first = accept(&listener).1;
        assert!(first.starts_with(&format!("{method} /x HTTP/1.1\r\n")));
        assert_eq!(accept(&listener).1, first, "the same once more");
        let (mut stream, third) = accept(&listener);
        assert_eq!(third, first);
        let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
        stream.write_all(answer).unwrap();
        assert!(wire.until("hi").starts_with("HTTP/1.1 200 "));
    }
    let not_waiting = start("");
    let table = [
        (
            &waiting,
            "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            &waiting,
            "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
        ),
        (
            &waiting,
            "PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
        ),
        (&not_waiting, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n"),
    ];
    for (renewd, request) in table {
        let mut wire = Wire::connect(renewd.public);
        wire.send(request);
        drop(accept(&listener));
        let head = wire.until("upstream_unreachable");
        assert!(head.starts_with("HTTP/1.1 502 "), "{request:?}: {head}");
    }
}

/// Asks until the test tells it to stop; every answer must be the backend's.
fn keep_asking(renewd: &Renewd, fields: &str, answers: &AtomicUsize, over: &AtomicBool) {
    let mut client = Client::new(renewd.public);
    while !over.load(Ordering::Relaxed) {
        for method in ["GET", "DELETE", "OPTIONS"] {
            let request = format!("{method} /load HTTP/1.1\r\nHost: app.example\r\n{fields}\r\n");
            let answer = client.send(request.as_bytes()).unwrap();
            assert_eq!(
                answer.status,
                200,
                "{}",
                String::from_utf8_lossy(&answer.body)
            );
            assert_eq!(answer.json()["method"], method);
            answers.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn three_deploys_under_load_fail_no_request_that_can_be_made_again() {
    let mut node = Node::start("app");
    let renewd = Renewd::start(&settings(&node, "try_duration = \"30s\""));
    let (answers, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..6)
            .map(|client| {
                let (renewd, answers, over) = (&renewd, &answers, &over);
                let fields = if client % 2 == 0 {
                    ""
                } else {
                    "Connection: close\r\n"
                };
                scope.spawn(move || keep_asking(renewd, fields, answers, over))
            })
            .collect();
        // A client that ends now has failed; its panic is shown when the scope joins it.
        let under_load = || {
            let wanted = answers.load(Ordering::Relaxed) + 200;
            while answers.load(Ordering::Relaxed) < wanted
                && !clients.iter().any(thread::ScopedJoinHandle::is_finished)
            {
                thread::yield_now();
            }
        };
        for _ in 0..3 {
            under_load();
            node.stop();
            node = node.start_again();
        }
        under_load();
        over.store(true, Ordering::Relaxed);
    });
}
