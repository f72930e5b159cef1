//! The stop of the daemon, as clients, load balancers and the service manager see it.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::express::{Express, Version};
use crate::support::raw::Client;
use crate::support::renewd::{Renewd, Settings};
use crate::support::wire::{Wire, socket_io, socket_io_echo};

/// Longer than any test: a stage that would end by itself can't be what a test saw.
const NEVER: &str = "10m";

struct Stage {
    backend: Express,
    renewd: Renewd,
}

impl Stage {
    /// A daemon in front of Express; durations as `server` has them.
    fn set(shutdown_delay: &str, tunnel_drain_timeout: &str, drain_timeout: &str) -> Self {
        let backend = Express::start(Version::Five, &[("RATE_LIMIT", "0")]);
        let renewd = Renewd::start(&Settings {
            backend: Some(backend.address),
            server: format!(
                "shutdown_delay = \"{shutdown_delay}\"\ntunnel_drain_timeout = \"{tunnel_drain_timeout}\"\n\
                 drain_timeout = \"{drain_timeout}\"\nhealth_path = \"/ready\""
            ),
            ..Settings::default()
        });
        Self { backend, renewd }
    }

    fn connect(&self) -> Wire {
        Wire::connect(self.renewd.public)
    }

    /// A connection with an answer behind it and nothing before it.
    fn idle(&self) -> Wire {
        let mut idle = self.connect();
        idle.send(get("/health"));
        idle.until("{\"status\":\"ok\"}");
        idle
    }

    fn events(&self) -> Wire {
        let mut events = self.connect();
        events.send(get("/wire/events"));
        events.until("data: {\"number\":1}\n\n\r\n");
        events
    }

    /// A request that the backend leaves unanswered.
    fn hanging(&self) -> Wire {
        let before = self.hits("hanging");
        let mut hanging = self.connect();
        hanging.send(get("/wire/hang"));
        self.renewd
            .eventually("the backend has it", |_| self.hits("hanging") > before);
        hanging
    }

    fn hits(&self, name: &str) -> u64 {
        let hits = Client::new(self.backend.address).send(get("/__control/hits").as_bytes());
        hits.unwrap().json()[name].as_u64().unwrap_or(0)
    }

    fn terminate(&self) {
        self.renewd.signal(Signal::TERM);
        self.renewd.log().wait("the stop", |line| {
            line["msg"].as_str()?.starts_with("stopping").then_some(())
        });
    }

    /// Waits until no new connection is taken: the drain has begun.
    fn draining(&self) {
        self.renewd.eventually("the port is closed", |renewd| {
            TcpStream::connect(renewd.public).is_err()
        });
    }

    fn ends(mut self) {
        assert_eq!(self.renewd.wait().code(), Some(0));
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: example.com\r\n\r\n")
}

#[test]
fn a_daemon_with_nothing_to_do_ends_at_once_and_well() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut renewd = Renewd::start(&Settings {
            server: format!("drain_timeout = \"{NEVER}\"\ntunnel_drain_timeout = \"{NEVER}\""),
            ..Settings::default()
        });
        renewd.signal(signal);
        assert_eq!(renewd.wait().code(), Some(0));
        renewd
            .log()
            .wait("the end", |line| (line["msg"] == "stopped").then_some(()));
    }
}

#[test]
fn it_is_not_ready_at_once_and_still_accepts_for_shutdown_delay() {
    let stage = Stage::set(NEVER, "0s", "0s");
    let mut idle = stage.idle();
    assert_eq!(stage.renewd.ask_admin("GET", "/readyz", "").status, 200);
    stage.terminate();
    let ready = stage.renewd.ask_admin("GET", "/readyz", "");
    assert_eq!(
        (ready.status, ready.json()["reason"].as_str()),
        (503, Some("draining"))
    );
    assert_eq!(stage.renewd.status()["phase"], "draining");
    assert_eq!(stage.renewd.ask_admin("GET", "/healthz", "").status, 200);
    for (path, status) in [("/ready", 503), ("/health", 200)] {
        let answer = stage.renewd.client().send(get(path).as_bytes()).unwrap();
        assert_eq!(answer.status, status, "{path}");
    }
    idle.send(get("/health"));
    idle.until("{\"status\":\"ok\"}");

    // A second signal goes on to the end.
    stage.renewd.signal(Signal::TERM);
    stage.ends();
}

#[test]
fn idle_connections_close_and_requests_in_flight_finish() {
    const BYTES: usize = 32 * 1024 * 1024;
    let stage = Stage::set("0s", NEVER, NEVER);
    let mut idle = stage.idle();
    let mut upload = stage.connect();
    upload.send("POST /wire/upload HTTP/1.1\r\nHost: example.com\r\nContent-Length: 8\r\n\r\nhalf");
    let mut echo = stage.connect();
    echo.send("POST /wire/echo HTTP/1.1\r\nHost: example.com\r\nContent-Length: 8\r\n\r\nhalf");
    echo.until("half");
    let mut half_a_head = stage.connect();
    half_a_head.send("GET /health HTTP/1.1\r\nHost: exam");
    let mut download = stage.connect();
    download.send(get(&format!("/wire/zeros?length=1&bytes={BYTES}")));
    download.until("\r\n\r\n");
    stage.renewd.eventually("all are there", |renewd| {
        renewd.status()["connections"] == 5
    });
    stage.terminate();
    assert_eq!(idle.rest(), b"");
    stage.draining();
    upload.send("rest");
    let head = upload.until("\r\n\r\n").to_ascii_lowercase();
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
    let body = String::from_utf8(upload.rest()).unwrap();
    assert!(body.contains("\"length\":8"), "{body}");
    half_a_head.send("ple.com\r\n\r\n");
    let answer = String::from_utf8(half_a_head.rest())
        .unwrap()
        .to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 200 "), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    echo.send("rest");
    echo.until("rest");
    echo.rest();
    assert_eq!(download.rest().len(), BYTES);
    stage.ends();
}

#[test]
fn a_token_request_in_flight_is_answered() {
    let stage = Stage::set("0s", NEVER, NEVER);
    let mut wire = stage.connect();
    wire.send(
        "POST /api/live/token HTTP/1.1\r\nHost: example.com\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{",
    );
    stage
        .renewd
        .eventually("it is there", |renewd| renewd.status()["connections"] == 1);
    stage.terminate();
    stage.draining();
    wire.send("}");
    let answer = String::from_utf8(wire.rest()).unwrap().to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 401 "), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    stage.ends();
}

#[test]
fn tunnels_and_event_streams_end_before_what_is_finite() {
    let stage = Stage::set("0s", "200ms", NEVER);
    let mut tunnel = socket_io(stage.renewd.public);
    let mut events = stage.events();
    let mut echo = stage.connect();
    echo.send("POST /wire/echo HTTP/1.1\r\nHost: example.com\r\nContent-Length: 8\r\n\r\nhalf");
    echo.until("half");
    stage.terminate();
    tunnel.ended();
    events.ended();
    echo.send("rest");
    echo.until("rest");
    echo.rest();
    stage.ends();
}

#[test]
fn tunnels_and_event_streams_go_on_until_their_time() {
    let stage = Stage::set("0s", NEVER, NEVER);
    let mut tunnel = socket_io(stage.renewd.public);
    let mut events = stage.events();
    stage.terminate();
    stage.draining();
    socket_io_echo(&mut tunnel, 1);
    assert!(events.is_open_and_silent());
    stage.renewd.signal(Signal::TERM);
    tunnel.ended();
    events.ended();
    stage.ends();
}

#[test]
fn drain_timeout_cuts_what_is_left() {
    let stage = Stage::set("0s", NEVER, "200ms");
    let mut hanging = stage.hanging();
    let mut tunnel = socket_io(stage.renewd.public);
    stage.terminate();
    hanging.ended();
    tunnel.ended();
    stage.renewd.log().wait("the cut", |line| {
        line["msg"]
            .as_str()?
            .contains("drain_timeout is over")
            .then_some(())
    });
    stage.ends();
}

#[test]
fn a_second_signal_cuts_everything_now() {
    for second in [Signal::TERM, Signal::INT] {
        let stage = Stage::set("0s", NEVER, NEVER);
        let mut hanging = stage.hanging();
        stage.terminate();
        stage.draining();
        stage.renewd.signal(second);
        hanging.ended();
        stage.ends();
    }
}

#[test]
fn connections_in_the_accept_queue_are_answered() {
    let backend = Express::start(Version::Five, &[("RATE_LIMIT", "0")]);
    let mut renewd = Renewd::start(&Settings {
        backend: Some(backend.address),
        server: "max_connections = 1\ndrain_timeout = \"10m\"".to_owned(),
        ..Settings::default()
    });
    // One connection is all that is taken: the others wait in the kernel's queue, their requests sent.
    let mut first = Wire::connect(renewd.public);
    first.send("POST /wire/echo HTTP/1.1\r\nHost: example.com\r\nContent-Length: 8\r\n\r\nhalf");
    first.until("half");
    let mut queued: Vec<_> = (0..20).map(|_| Wire::connect(renewd.public)).collect();
    for wire in &mut queued {
        wire.send(get("/health"));
    }
    assert!(queued[0].is_open_and_silent(), "it waits");
    renewd.signal(Signal::TERM);
    for wire in &mut queued {
        let answer = String::from_utf8(wire.rest()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    }
    first.send("rest");
    first.until("rest");
    first.rest();
    assert_eq!(renewd.wait().code(), Some(0));
}

#[test]
fn the_last_audit_events_are_written_before_the_end() {
    let mut renewd = Renewd::start(&Settings {
        log: "audit = \"file:audit.log\"".to_owned(),
        ..Settings::default()
    });
    for _ in 0..10 {
        renewd.ask_for_token();
    }
    renewd.signal(Signal::TERM);
    assert_eq!(renewd.wait().code(), Some(0));
    let text = std::fs::read_to_string(renewd.file("audit.log")).unwrap();
    assert_eq!(text.lines().count(), 10, "{text}");
}

#[test]
fn a_stop_during_reloads_is_a_stop() {
    let mut renewd = Renewd::start(&Settings::default());
    for _ in 0..5 {
        renewd.signal(Signal::HUP);
    }
    renewd.signal(Signal::TERM);
    renewd.signal(Signal::HUP);
    assert_eq!(renewd.wait().code(), Some(0));
}

/// Takes a lease on a file, so that others wait when they open it, as on a file system that hangs: for
/// `/proc/sys/fs/lease-break-time`, which is 45 seconds.
const TAKE_LEASE: &str = "
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = os.open(sys.argv[1], os.O_RDWR)
while True:
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        break
    except BlockingIOError:
        os.sched_yield()
sys.stdin.read()
";

/// Whether somebody waits for a lease on the file.
fn is_waited_for(path: &Path) -> bool {
    let file = format!(":{} ", fs::metadata(path).unwrap().ino());
    let locks = fs::read_to_string("/proc/locks").unwrap();
    let mut lines = locks.lines();
    lines.any(|line| line.contains("LEASE  BREAKING") && line.contains(&file))
}

#[test]
fn a_file_system_that_hangs_holds_up_no_stop() {
    let mut renewd = Renewd::start(&Settings::default());
    let config = renewd.file("config.toml");
    let mut holder = Command::new("python3")
        .args(["-c", TAKE_LEASE])
        .arg(&config)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    renewd.eventually("the reload hangs", |renewd| {
        renewd.signal(Signal::HUP);
        is_waited_for(&config)
    });
    renewd.signal(Signal::TERM);
    assert_eq!(renewd.wait().code(), Some(0));
    assert!(is_waited_for(&config), "the reload still hangs");
    drop(holder.stdin.take());
    holder.wait().unwrap();
}
