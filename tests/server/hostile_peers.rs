//! Clients that drip, stall, flood or say nothing: each is cut in its time and counted, memory stays bounded, and
//! everybody else is served meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use crate::support;

use std::io::Write as _;
use std::time::Duration;

use crate::support::express::{Express, Version};
use crate::support::messages::{self, Message, Wire};
use crate::support::renewd::{Renewd, Settings};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

/// The time in which all other clients must be answered, less than most tests wait for the hostile ones.
const PROMPT: Duration = Duration::from_secs(5);
const MIB: u64 = 1024;

struct Stage {
    express: Express,
    renewd: Renewd,
    /// Resident memory after the first requests, in KiB.
    before: u64,
}

impl Stage {
    /// A stage with these `[server]` and `[server.timeouts]` lines.
    fn set(server: &str, timeouts: &str) -> Self {
        Self::with(Settings {
            server: server.to_owned(),
            tables: format!("[server.timeouts]\n{timeouts}\n"),
            ..Settings::default()
        })
    }

    fn with(settings: Settings) -> Self {
        let express = Express::start(Version::Four, &[("RATE_LIMIT", "0")]);
        let renewd = Renewd::start(&Settings {
            backend: Some(express.address),
            ..settings
        });
        let mut stage = Self {
            express,
            renewd,
            before: 0,
        };
        stage.others_are_served();
        stage.before = stage.resident();
        stage
    }

    fn open(&self) -> Wire {
        Wire::open(self.renewd.public)
    }

    fn crowd(&self, size: usize, first_bytes: &str) -> Vec<Wire> {
        let open = |_| {
            let mut wire = self.open();
            wire.write(first_bytes.as_bytes());
            wire
        };
        (0..size).map(open).collect()
    }

    /// Forwarded requests and token requests, on connections of their own.
    fn others_are_served(&self) {
        for _ in 0..5 {
            let mut wire = self.open();
            wire.socket().set_read_timeout(Some(PROMPT)).unwrap();
            wire.write(b"GET /health HTTP/1.1\r\nHost: app\r\n\r\n");
            assert_eq!(wire.read(false).expect("a prompt answer").status(), 200);
            wire.write(b"POST /api/live/token HTTP/1.1\r\nHost: app\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}");
            assert_eq!(wire.read(false).expect("a prompt answer").status(), 401);
        }
    }

    /// `VmRSS` of the daemon in KiB.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.renewd.pid()));
        let status = status.expect("a living daemon");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let size = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        size.expect("VmRSS")
    }

    fn grew_less_than(&self, bound: u64) {
        let grown = self.resident().saturating_sub(self.before);
        assert!(grown < bound, "{grown} KiB more than before");
    }

    fn refused(&self, kind: &str) -> f64 {
        self.renewd.metric(&format!(
            "renewd_http_parse_errors_total{{kind=\"{kind}\"}}"
        ))
    }

    /// Forwarded requests whose code is `code`.
    fn forwarded(&self, code: &str) -> f64 {
        sum(
            &self.renewd.metrics(),
            "renewd_http_requests_total",
            &["handler=\"forward\"", &format!("code=\"{code}\"")],
        )
    }

    fn connections(&self) -> f64 {
        sum(&self.renewd.metrics(), "renewd_connections", &[])
    }

    fn accept_errors(&self) -> f64 {
        sum(&self.renewd.metrics(), "renewd_accept_errors_total", &[])
    }

    fn hits(&self, name: &str) -> u64 {
        messages::hits(self.express.address, name)
    }
}

fn sum(page: &str, family: &str, labels: &[&str]) -> f64 {
    page.lines()
        .filter_map(|line| line.strip_prefix(family)?.strip_prefix('{'))
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

fn reaches(count: f64, wanted: u32) -> bool {
    count > f64::from(wanted) - 0.5
}

/// The answer, and whether the connection ended after it.
fn answer_and_end(mut wire: Wire) -> (Option<Message>, bool) {
    let answer = wire.read(false).ok();
    (answer, wire.rest().is_ok_and(|rest| rest.is_empty()))
}

#[test]
fn headers_that_drip_in_are_cut_and_counted() {
    let stage = Stage::set("", "header = \"1s\"");
    let mut dripping = stage.crowd(300, "GET /wire/seen HTTP/1.1\r\nHost: app\r\nX-Drip: ");
    stage.others_are_served();
    stage.renewd.eventually("all are cut", |_| {
        for wire in &mut dripping {
            wire.write(b"a");
        }
        reaches(stage.refused("header_timeout"), 300)
    });
    for mut wire in dripping {
        assert_eq!(wire.read_rest(), b"");
    }
    assert_eq!(stage.hits("seen"), 0);
    stage.grew_less_than(24 * MIB);
    stage.others_are_served();
}

#[test]
fn bodies_that_stop_arriving_are_cut_and_the_backend_hears_of_it() {
    let stage = Stage::set("", "body_stall = \"1s\"");
    let stalling = stage.crowd(
        200,
        "POST /wire/upload HTTP/1.1\r\nHost: app\r\nContent-Length: 1000000\r\n\r\nabc",
    );
    stage.others_are_served();
    for wire in stalling {
        let (answer, ended) = answer_and_end(wire);
        assert!(ended && answer.is_none(), "{answer:?}");
    }
    stage.renewd.eventually("the backend is rid of them", |_| {
        stage.hits("uploadAborted") == 200
    });
    assert!(reaches(stage.forwarded("none"), 200));
    stage.grew_less_than(24 * MIB);
    stage.others_are_served();
}

#[test]
fn a_body_that_drips_in_is_no_stall_and_holds_up_nobody() {
    let stage = Stage::set("", "body_stall = \"2s\"");
    let mut dripping = stage.crowd(
        100,
        "POST /wire/upload HTTP/1.1\r\nHost: app\r\nContent-Length: 60\r\n\r\n",
    );
    for _ in 0..60 {
        for wire in &mut dripping {
            wire.write(b"a");
        }
    }
    stage.others_are_served();
    for wire in &mut dripping {
        assert_eq!(wire.read(false).expect("an answer").json()["length"], 60);
    }
    stage.grew_less_than(24 * MIB);
}

#[test]
fn readers_who_do_not_read_are_cut_and_cost_a_buffer_each() {
    let stage = Stage::set("", "write_stall = \"2s\"");
    let idle = stage.crowd(
        20,
        "GET /wire/zeros?bytes=100000000 HTTP/1.1\r\nHost: app\r\n\r\n",
    );
    stage.others_are_served();
    stage
        .renewd
        .eventually("the backend is rid of them", |stage_renewd| {
            let grown = stage.resident().saturating_sub(stage.before);
            assert!(grown < 20 * STUCK + 6 * MIB, "{grown} KiB");
            assert!(!stage_renewd.metrics().is_empty());
            stage.hits("downloadAborted") == 20
        });
    stage
        .renewd
        .eventually("nobody is left", |_| stage.connections() < 0.5);
    drop(idle);
    stage.others_are_served();
}

/// The memory that a client that reads nothing may cost, in KiB. Half of it is the debug build's.
const STUCK: u64 = 100;

#[test]
fn a_hundred_who_take_nothing_of_a_large_answer_cost_less_than_a_hundred_kib_each() {
    for length in ["", "&length=1"] {
        let stage = Stage::set("", "");
        let stuck = stage.crowd(
            100,
            &format!("GET /wire/zeros?bytes=100000000{length} HTTP/1.1\r\nHost: app\r\n\r\n"),
        );
        stage.renewd.eventually("the backend is held back", |_| {
            stage.hits("downloadStalled") >= 100
        });
        stage.grew_less_than(100 * STUCK);
        stage.others_are_served();
        drop(stuck);
    }
}

#[test]
fn uploads_that_the_backend_does_not_take_cost_less_than_a_hundred_kib_each() {
    let stage = Stage::set("", "");
    let part = vec![0; 64 * 1024];
    let mut stuck = stage.crowd(
        40,
        "POST /wire/held HTTP/1.1\r\nHost: app\r\nContent-Length: 100000000\r\n\r\n",
    );
    stage
        .renewd
        .eventually("all have begun", |_| stage.hits("held") == 40);
    for wire in &mut stuck {
        let socket = wire.socket();
        let patience = Some(Duration::from_millis(50));
        socket.set_write_timeout(patience).unwrap();
        // The client writes until neither the daemon nor the kernel takes more.
        while socket.write(&part).is_ok() {}
    }
    stage.grew_less_than(40 * STUCK);
    stage.others_are_served();
}

#[test]
fn floods_of_headers_are_refused_and_not_kept() {
    let stage = Stage::set("", "");
    let flood = format!(
        "GET /wire/seen HTTP/1.1\r\nHost: app\r\n{}",
        "X-Flood: of headers without end\r\n".repeat(5_000)
    );
    for _ in 0..10 {
        for wire in stage.crowd(30, &flood) {
            let (answer, ended) = answer_and_end(wire);
            assert_eq!(answer.map(|answer| answer.status()), Some(431));
            assert!(ended);
        }
    }
    stage.renewd.eventually("all are counted", |_| {
        reaches(stage.refused("headers_too_large"), 300)
    });
    assert_eq!(stage.hits("seen"), 0);
    stage.grew_less_than(24 * MIB);
    stage.others_are_served();
}

#[test]
fn thousands_who_say_nothing_keep_nobody_out_and_are_closed_in_their_time() {
    const MOST: u32 = 3_000;
    let stage = Stage::set(
        &format!("max_connections = {MOST}"),
        "header = \"4s\"\nidle = \"10m\"",
    );
    stage
        .renewd
        .eventually("nobody is left", |_| stage.connections() < 0.5);
    let mut silent = stage.crowd(MOST as usize, "");
    stage.renewd.eventually("the house is nearly full", |_| {
        reaches(stage.connections(), MOST / 100 * 94)
    });
    // A silent connection takes 2 KiB; a connection at work would take ten times as much.
    stage.grew_less_than(12 * MIB);
    // Each new client takes the place of the oldest that never sent anything.
    stage.others_are_served();
    let request = "GET /health HTTP/1.1\r\nHost: app\r\n\r\n";
    let mut waiting = stage.crowd(200, request);
    for wire in &mut waiting {
        wire.socket().set_read_timeout(Some(PROMPT)).unwrap();
        assert_eq!(wire.read(false).expect("an answer").status(), 200);
    }
    // The others are closed when their time is over, without a word, long before `idle`.
    for wire in &mut silent {
        assert_eq!(wire.read_rest(), b"");
    }
    for wire in &mut waiting {
        wire.write(request.as_bytes());
        assert_eq!(wire.read(false).expect("it was kept").status(), 200);
    }
    stage.others_are_served();
    assert!(stage.refused("header_timeout") < 0.5);
}

#[test]
fn where_all_places_are_taken_the_idle_make_room_and_who_has_something_stays() {
    let stage = Stage::set("max_connections = 3", "");
    stage
        .renewd
        .eventually("nobody is left", |_| stage.connections() < 0.5);
    let mut busy = stage.open();
    busy.write(b"POST /wire/echo HTTP/1.1\r\nHost: app\r\nContent-Length: 8\r\n\r\nhalf");
    let mut tunnel = support::wire::socket_io(stage.renewd.public);
    let request = b"GET /health HTTP/1.1\r\nHost: app\r\n\r\n";
    // Each of these is idle when the next one comes, which ends it.
    for _ in 0..2 {
        let mut idle = stage.open();
        idle.write(request);
        assert_eq!(idle.read(false).expect("an answer").status(), 200);
        let mut next = stage.open();
        next.write(request);
        assert_eq!(next.read(false).expect("an answer").status(), 200);
        assert_eq!(idle.read_rest(), b"");
        drop(next);
        stage
            .renewd
            .eventually("two are left", |_| stage.connections() < 2.5);
    }
    support::wire::socket_io_echo(&mut tunnel, 1);
    busy.write(b"rest");
    assert_eq!(busy.read(false).expect("an answer").body, b"halfrest");
}

#[test]
fn without_descriptors_open_connections_are_served_and_new_ones_wait() {
    let stage = Stage::set("", "");
    let pid = Pid::from_raw(i32::try_from(stage.renewd.pid()).unwrap());
    let limit = |current| {
        let limit = Rlimit {
            current: Some(current),
            maximum: getrlimit(Resource::Nofile).maximum,
        };
        prlimit(pid, Resource::Nofile, limit).expect("a limit of our child")
    };
    let mut inside = stage.open();
    inside.write(b"GET /health HTTP/1.1\r\nHost: app\r\n\r\n");
    assert_eq!(inside.read(false).expect("an answer").status(), 200);
    let used = std::fs::read_dir(format!("/proc/{}/fd", stage.renewd.pid()));
    let before = limit(u64::try_from(used.unwrap().count()).unwrap() + 20);
    let crowd = stage.crowd(200, "");
    // Without descriptors the metrics page can't be had either: the backend's pooled connection can.
    for _ in 0..20 {
        inside.write(b"POST /api/live/token HTTP/1.1\r\nHost: app\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}");
        assert_eq!(inside.read(false).expect("an answer").status(), 401);
    }
    let mut waiting = stage.open();
    waiting.write(b"GET /health HTTP/1.1\r\nHost: app\r\n\r\n");
    drop(crowd);
    assert_eq!(waiting.read(false).expect("an answer").status(), 200);
    prlimit(pid, Resource::Nofile, before).expect("a limit of our child");
    stage.others_are_served();
    assert!(stage.accept_errors() > 0.5);
    stage.grew_less_than(16 * MIB);
}

#[test]
fn a_daemon_that_may_have_few_descriptors_takes_few_connections() {
    let express = Express::start(Version::Four, &[("RATE_LIMIT", "0")]);
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        backend: Some(express.address),
        ..Settings::default()
    };
    support::renewd::write_files(directory.path(), &settings);
    let config = directory.path().join("config.toml");
    let arguments = ["run", "--config", config.to_str().unwrap()];
    let (child, log) = support::renewd::spawn_under("ulimit -n 600", &arguments);
    let stage = Stage {
        express,
        renewd: Renewd::ready(child, log, directory),
        before: 0,
    };
    // Two fifths of what the reserve leaves, which is half of them here.
    assert!((stage.renewd.metric("renewd_connections_max") - 120.0).abs() < 0.5);
    let half = "GET /health HTTP/1.1\r\nHost: app\r\n";
    let crowd = stage.crowd(300, half);
    // Above 95 % each of them takes the place of another.
    stage
        .renewd
        .eventually("the house is full", |_| reaches(stage.connections(), 114));
    assert!(stage.connections() < 120.5);
    drop(crowd);
    stage.others_are_served();
    assert!(stage.accept_errors() < 0.5);
}

#[test]
fn ten_thousand_pipelined_requests_whose_answers_nobody_reads_cost_a_buffer() {
    let stage = Stage::set("", "write_stall = \"3s\"");
    let request = "GET /wire/zeros?bytes=200000&length=1 HTTP/1.1\r\nHost: app\r\n\r\n";
    let flood = request.repeat(10_000);
    let mut flooding: Vec<_> = (0..10).map(|_| stage.open()).collect();
    for wire in &mut flooding {
        let socket = wire.socket();
        socket
            .set_write_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        // The client writes as much as the kernel takes, and the daemon must leave the rest there.
        let _ = socket.write_all(flood.as_bytes());
    }
    stage.others_are_served();
    stage.grew_less_than(10 * STUCK + 6 * MIB);
    stage
        .renewd
        .eventually("nobody is left", |_| stage.connections() < 0.5);
    // Socket buffers hold some answers; nothing like 100 000 were asked of the backend.
    assert!(stage.forwarded("2xx") + stage.forwarded("200") < 2_000.0);
    stage.others_are_served();
}

#[test]
fn bodies_in_the_smallest_chunks_arrive_whole() {
    let stage = Stage::set("", "");
    let chunks = "1\r\na\r\n".repeat(200_000);
    let mut wire = stage.open();
    wire.write(b"POST /wire/upload HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n");
    wire.write(chunks.as_bytes());
    wire.write(b"0\r\n\r\n");
    assert_eq!(
        wire.read(false).expect("an answer").json()["length"],
        200_000
    );
    stage.grew_less_than(16 * MIB);
}

#[test]
fn extensions_of_chunks_are_dropped_and_a_flood_of_them_is_cut() {
    let stage = Stage::set("", "");
    let upload = |body: &str| {
        let mut wire = stage.open();
        wire.write(
            b"POST /wire/upload HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        wire.write(body.as_bytes());
        wire
    };
    let few = format!(
        "{}0;last\r\n\r\n",
        "5;a=1;b=\"quoted\"\r\nhello\r\n".repeat(100)
    );
    let answer = upload(&few).read(false).expect("an answer");
    assert_eq!(answer.json()["length"], 500);
    for flood in [
        "1;extension=value\r\na\r\n".repeat(100_000),
        format!("1;{}", "a".repeat(1_000_000)),
    ] {
        let mut wire = upload(&flood);
        let answer = wire.read_rest();
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 400 "),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    stage.renewd.eventually("the backend is rid of them", |_| {
        // The second flood never ends its first chunk's size, so that the app may see only the first.
        stage.hits("uploadAborted") > 0
    });
    stage.grew_less_than(16 * MIB);
    stage.others_are_served();
}

#[test]
fn sizes_that_are_never_filled_cost_no_memory() {
    let stage = Stage::set("", "body_stall = \"1s\"");
    for framing in [
        "Transfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\nabc",
        "Content-Length: 9223372036854775807\r\n\r\nabc",
    ] {
        let request = format!("POST /wire/upload HTTP/1.1\r\nHost: app\r\n{framing}");
        let crowd = stage.crowd(100, &request);
        stage.others_are_served();
        for wire in crowd {
            let (answer, ended) = answer_and_end(wire);
            assert!(ended && answer.is_none(), "{framing}: {answer:?}");
        }
    }
    stage.renewd.eventually("the backend is rid of them", |_| {
        stage.hits("uploadAborted") == 200
    });
    stage.grew_less_than(24 * MIB);
}

#[test]
fn what_comes_before_an_upgrade_is_granted_is_left_in_the_kernel() {
    let stage = Stage::with(Settings {
        upstream: "response_timeout = \"3s\"".to_owned(),
        ..Settings::default()
    });
    let mut eager: Vec<_> = (0..20).map(|_| stage.open()).collect();
    let data = vec![0; 16 * 1024 * 1024];
    for wire in &mut eager {
        // No socket server of the app serves this path: they drop a fresh connection after a second, and leave one
        // that served a request before hanging.
        wire.write(b"GET /nowhere HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
        let socket = wire.socket();
        socket
            .set_write_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let _ = socket.write_all(&data);
    }
    stage.grew_less_than(16 * MIB);
    stage.others_are_served();
    for mut wire in eager {
        let answer = wire.read(false).expect("an answer").status();
        assert!(answer == 502 || answer == 504, "{answer}");
    }
    assert_eq!(stage.hits("webSocket"), 0);
}
