//! However often the configuration is reloaded, no connection notices, and nothing is left behind.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::ask::Ask;
use crate::support::express::{Express, Version};
use crate::support::lifecycle::with_lifetime;
use crate::support::raw::Client;
use crate::support::renewd::{Renewd, STREAMS, Settings};
use crate::support::wire::{Wire, socket_io, socket_io_echo};

#[test]
fn a_hundred_reloads_touch_no_connection() {
    let backend = Express::start(Version::Five, &[("RATE_LIMIT", "0")]);
    let settings = |lifetime| Settings {
        backend: Some(backend.address),
        ..with_lifetime(lifetime)
    };
    let renewd = Renewd::start(&settings("20m"));
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: example.com\r\n\r\n");

    let mut kept_alive = Wire::connect(renewd.public);
    kept_alive.send(get("/health"));
    kept_alive.until("{\"status\":\"ok\"}");
    let mut events = Wire::connect(renewd.public);
    events.send(get("/wire/events"));
    events.until("data: {\"number\":1}\n\n\r\n");
    let mut tunnel = socket_io(renewd.public);
    socket_io_echo(&mut tunnel, 0);
    let mut half_a_head = Wire::connect(renewd.public);
    half_a_head.send("GET /health HTTP/1.1\r\nHost: exam");
    let mut half_a_body = Wire::connect(renewd.public);
    half_a_body
        .send("POST /wire/echo HTTP/1.1\r\nHost: example.com\r\nContent-Length: 8\r\n\r\nhalf");
    half_a_body.until("half");
    let mut half_a_token_request = Wire::connect(renewd.public);
    half_a_token_request.send(
        "POST /api/live/token HTTP/1.1\r\nHost: example.com\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{",
    );
    renewd.eventually("all connections are there", |renewd| {
        renewd.status()["connections"] == 6
    });

    for turn in 1..=50 {
        for lifetime in ["25m", "20m"] {
            renewd.reconfigure(&settings(lifetime));
        }
        socket_io_echo(&mut tunnel, turn);
    }

    assert_eq!(renewd.status()["connections"], 6);
    assert!(events.is_open_and_silent());
    let hits = Client::new(backend.address)
        .send(get("/__control/hits").as_bytes())
        .unwrap()
        .json();
    assert_eq!(hits["eventsClosed"], serde_json::Value::Null, "{hits}");
    kept_alive.send(get("/health"));
    kept_alive.until("{\"status\":\"ok\"}");
    half_a_head.send("ple.com\r\n\r\n");
    half_a_head.until("{\"status\":\"ok\"}");
    half_a_body.send("rest");
    half_a_body.until("rest");
    half_a_token_request.send("}");
    half_a_token_request.until("HTTP/1.1 401 ");
}

/// The resources that the process holds: resident KiB, descriptors, threads.
fn held(renewd: &Renewd) -> (u64, usize, usize) {
    let process = format!("/proc/{}", renewd.pid());
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let resident = resident.trim().trim_end_matches(" kB").parse().unwrap();
    let count = |directory: &str| {
        fs::read_dir(format!("{process}/{directory}"))
            .unwrap()
            .count()
    };
    (resident, count("fd"), count("task"))
}

/// The series of the metrics page.
fn series(renewd: &Renewd) -> BTreeSet<String> {
    let page = renewd.metrics();
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let names = lines.filter_map(|line| line.rsplit_once(' '));
    names.map(|(series, _)| series.to_owned()).collect()
}

/// Asks for a token and for something of the backend's in turn, on one connection, until told to stop. Gives the number
/// of answers, all of which must be 200.
fn load(renewd: &Renewd, subject: &str, uid: u32, stop: &AtomicBool) -> usize {
    let ask = String::from_utf8(Ask::viewer(subject, uid).bytes()).unwrap();
    let health = "GET /health HTTP/1.1\r\nHost: example.com\r\n\r\n";
    let mut client = Wire::connect(renewd.public);
    let mut answers = 0;
    while !stop.load(Ordering::Relaxed) {
        for (request, end) in [(ask.as_str(), "}}"), (health, "{\"status\":\"ok\"}")] {
            client.send(request);
            let answer = client.until(end);
            assert!(answer.contains("HTTP/1.1 200 OK"), "{answer}");
            answers += 1;
        }
        // Leaves the reloads some of a small machine.
        thread::park_timeout(Duration::from_millis(5));
    }
    answers
}

#[test]
fn a_thousand_reloads_under_load_fail_no_request_and_leave_nothing_behind() {
    /// The memory that a thousand snapshots with this many streams would more than fill.
    const ALLOWED_KIB: u64 = 16 * 1024;
    let backends = [(); 2].map(|()| Express::start(Version::Five, &[("RATE_LIMIT", "0")]));
    let stream =
        |number| format!("[[stream]]\nchannel = \"live_{number}\"\nowner = \"owner_{number}\"\n");
    let settings = |turn: usize| {
        let audit = ["a.log", "b.log"][turn % 2];
        Settings {
            // The reload changes everything that is carried over or opened: each brings another audit file, limit and
            // backend.
            log: format!("audit = \"file:{audit}\""),
            tables: format!(
                "[rate_limit]\nsubject = {{ requests = {}, per = \"1s\", burst = 1_000_000 }}\n",
                1_000_000 + turn % 2
            ),
            streams: Some(STREAMS.to_owned() + &(0..100).map(stream).collect::<String>()),
            backend: Some(backends[turn % 2].address),
            ..Settings::default()
        }
    };
    let renewd = Renewd::start(&settings(0));
    let reload = |turn| {
        assert_eq!(renewd.reconfigure(&settings(turn))["success"], true);
    };
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = |(subject, uid)| load(&renewd, subject, uid, &stop);
        let clients = [("first", 1), ("second", 2)].map(|who| scope.spawn(move || load(who)));
        (1..=100).for_each(reload);
        let (resident, descriptors, threads) = held(&renewd);
        let before = series(&renewd);
        (101..=1000).for_each(reload);
        let (resident_now, descriptors_now, threads_now) = held(&renewd);
        let new: Vec<_> = series(&renewd).difference(&before).cloned().collect();
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            assert!(client.join().unwrap() > 100, "hardly any load");
        }
        assert!(
            resident_now < resident + ALLOWED_KIB,
            "{resident} KiB became {resident_now} KiB"
        );
        // A reload in progress, one by the watcher, holds a few, and so do connections to both backends.
        assert!(
            descriptors_now <= descriptors + 8,
            "{descriptors} became {descriptors_now}"
        );
        assert!(threads_now <= threads + 8, "{threads} became {threads_now}");
        assert!(new.is_empty(), "{new:?}");
    });
}
