//! However often the configuration is reloaded, nobody's connection notices, and nothing is left behind.

use std::fs;

use crate::support::express::{Express, Version};
use crate::support::lifecycle::with_lifetime;
use crate::support::raw::Client;
use crate::support::renewd::{Renewd, Settings};
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

/// What the process holds: resident KiB, descriptors, threads.
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

#[test]
fn a_thousand_reloads_leave_nothing_behind() {
    /// What a thousand snapshots with this many streams would more than fill.
    const ALLOWED_KIB: u64 = 16 * 1024;
    let stream =
        |number| format!("[[stream]]\nchannel = \"live_{number}\"\nowner = \"owner_{number}\"\n");
    let settings = |turn: usize| {
        let audit = ["a.log", "b.log"][turn % 2];
        Settings {
            // All that is carried over or opened: each reload brings another audit file, limit and backend.
            log: format!("audit = \"file:{audit}\""),
            tables: format!(
                "[rate_limit]\nsubject = {{ requests = {}, per = \"1m\", burst = 20 }}\n",
                60 + turn % 2
            ),
            streams: Some((0..100).map(stream).collect()),
            backend: Some(([127, 0, 0, 1], u16::try_from(1 + turn % 5).unwrap()).into()),
            ..Settings::default()
        }
    };
    let renewd = Renewd::start(&settings(0));
    let reload = |turn| {
        assert_eq!(renewd.reconfigure(&settings(turn))["success"], true);
    };
    (1..=100).for_each(reload);
    let (resident, descriptors, threads) = held(&renewd);
    (101..=1000).for_each(reload);
    let (resident_now, descriptors_now, threads_now) = held(&renewd);
    assert!(
        resident_now < resident + ALLOWED_KIB,
        "{resident} KiB became {resident_now} KiB"
    );
    // A reload in progress, one by the watcher, holds a few.
    assert!(
        descriptors_now <= descriptors + 8,
        "{descriptors} became {descriptors_now}"
    );
    assert!(threads_now <= threads + 8, "{threads} became {threads_now}");
}
