//! The events that reach the log and the audit trail, and the secrets that can't.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that lacks something fails

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use http::Method;
use renewd::config::model::{AuditSink, Log, LogFormat, LogLevel};
use renewd::telemetry::access_log::{self, Ended};
use renewd::telemetry::audit::{Audit, DecisionEvent, Reload};
use renewd::telemetry::labels::{Endpoint, Handler};
use renewd::telemetry::line_writer::{DropCounter, LineWriter};
use renewd::telemetry::log::{self, LogControl};
use renewd::terms::clock::Clock;
use renewd::terms::context::RequestId;
use renewd::terms::outcome::Outcome;
use renewd::terms::role::Role;
use renewd::terms::user::User;
use serde_json::Value;
use tracing::Subscriber;

const DEADLINE: Duration = Duration::from_secs(10);
const HOSTILE: &str = "x\" outcome=ok\n{\"outcome\":\"ok\"}\r\u{1b}[2J\u{9b}31m\u{202e}";

/// Passes written bytes on to the test.
struct Lines(Sender<String>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.send(String::from_utf8(bytes.to_vec()).unwrap());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn settings(format: LogFormat, level: LogLevel) -> Log {
    Log {
        format,
        level,
        access: true,
        audit: AuditSink::Stderr,
    }
}

fn log_to_test(
    settings: &Log,
) -> (
    impl Subscriber + Send + Sync + use<>,
    LogControl,
    Receiver<String>,
) {
    let (sender, lines) = channel();
    let open = Box::new(move || Ok(Box::new(Lines(sender.clone())) as Box<dyn Write + Send>));
    let writer = LineWriter::start("test", 100, open, DropCounter::default()).unwrap();
    let (subscriber, control) = log::to_writer(
        settings,
        Clock::manual(1_800_000_000),
        writer,
        log::LogReader::Stream,
    );
    (subscriber, control, lines)
}

fn decision<'a>(
    request_id: &'a RequestId,
    subject: &'a str,
    channel: &'a str,
) -> DecisionEvent<'a> {
    DecisionEvent {
        request_id,
        client: "2001:db8::1".parse().ok(),
        endpoint: Endpoint::Refresh,
        outcome: Outcome::NotOwner,
        reason: None,
        enforced: true,
        subject: Some(subject),
        channel: Some(channel),
        user: Some(User::Uid(77)),
        role: Some(Role::Publisher),
        expires: None,
        backup_expires: None,
    }
}

#[test]
fn a_hostile_string_stays_inside_its_field_in_every_format() {
    for format in [
        LogFormat::Auto,
        LogFormat::Logfmt,
        LogFormat::Json,
        LogFormat::Pretty,
    ] {
        let (subscriber, _control, lines) = log_to_test(&settings(format, LogLevel::Info));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(text = HOSTILE, shown = %HOSTILE, debugged = ?HOSTILE, "message {HOSTILE}");
        });
        let line = lines.recv_timeout(DEADLINE).unwrap();
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let own_colours = line.replace("\u{1b}[32m", "").replace("\u{1b}[0m", "");
        assert!(
            !own_colours
                .trim_end()
                .chars()
                .any(|c| c.is_control() || c == '\u{202e}'),
            "{line:?}"
        );
        if format == LogFormat::Json {
            let json: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(json["text"], HOSTILE);
            assert_eq!(json["shown"], HOSTILE);
            assert_eq!(json["time"], "2027-01-15T08:00:00.000Z");
        }
    }
}

#[test]
fn level_and_format_change_while_running_and_audit_passes_every_level() {
    let error = settings(LogFormat::Logfmt, LogLevel::Error);
    let (subscriber, control, lines) = log_to_test(&error);
    let audit = Audit::open(&AuditSink::Stderr, Clock::manual(0), DropCounter::default()).unwrap();
    let request_id = RequestId::from_bits(1, 2);
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!("too low");
        audit.decision(&decision(&request_id, "subject", "channel"));
        control.apply(&settings(LogFormat::Json, LogLevel::Info));
        tracing::info!("high enough");
    });
    assert!(control.flush(DEADLINE));
    let audited = lines.recv_timeout(DEADLINE).unwrap();
    assert!(
        audited.contains(
            "event=decision request_id=00000000000000010000000000000002 client=2001:db8::1 \
             endpoint=refresh outcome=not_owner enforced=true subject=subject channel=channel \
             uid=77 role=publisher target=audit"
        ),
        "{audited}"
    );
    let line = lines.recv_timeout(DEADLINE).unwrap();
    let json: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(json["msg"], "high enough");
}

#[test]
fn an_access_line_has_no_query() {
    let (subscriber, _control, lines) = log_to_test(&settings(LogFormat::Logfmt, LogLevel::Error));
    let request_id = RequestId::from_bits(0, 1);
    tracing::subscriber::with_default(subscriber, || {
        access_log::record(&access_log::AccessLogEntry {
            request_id: &request_id,
            client: None,
            method: &Method::GET,
            target: "/path?token=007secret",
            status: None,
            bytes: 5,
            duration: Duration::from_millis(2),
            handler: Handler::Forward,
            ended: Ended::ClientGone,
        });
    });
    let line = lines.recv_timeout(DEADLINE).unwrap();
    assert!(
        line.contains(
            "method=GET path=/path bytes=5 duration_us=2000 handler=forward ended=client_gone"
        ),
        "{line}"
    );
    assert!(!line.contains("007secret"), "{line}");
}

#[test]
fn the_audit_file_holds_one_json_object_an_event() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let sink = AuditSink::File(path.clone());
    let clock = Clock::manual(1_800_000_000);
    let audit = Audit::open(&sink, clock, DropCounter::default()).unwrap();
    let request_id = RequestId::from_bits(1, 2);
    let long = "é".repeat(10_000);
    audit.decision(&decision(&request_id, HOSTILE, &long));
    audit.decision(&DecisionEvent {
        client: None,
        outcome: Outcome::Ok,
        enforced: false,
        subject: None,
        channel: None,
        user: Some(User::Account("account")),
        role: None,
        expires: Some(1_800_003_600),
        backup_expires: Some(1_800_004_500),
        ..decision(&request_id, "", "")
    });
    audit.reload(&Reload {
        success: false,
        trigger: "signal",
        detail: "line 3: unknown key",
    });
    assert!(audit.flush(DEADLINE));

    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}");
    let text = fs::read_to_string(&path).unwrap();
    let events: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(events.len(), 3);
    assert_eq!(events[0]["subject"], HOSTILE);
    assert_eq!(events[0]["channel"].as_str().unwrap().len(), 256);
    assert_eq!(events[0]["uid"], 77);
    assert_eq!(
        events[1],
        serde_json::json!({
            "time": "2027-01-15T08:00:00.000Z", "event": "decision",
            "request_id": "00000000000000010000000000000002", "endpoint": "refresh", "outcome": "ok",
            "enforced": false, "account": "account", "expires": "2027-01-15T09:00:00Z",
            "backup_expires": "2027-01-15T09:15:00Z",
        })
    );
    assert_eq!(events[2]["outcome"], "invalid");
}

#[test]
fn a_rotated_audit_file_is_reopened_and_an_existing_one_appended_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    fs::write(&path, "{\"event\":\"older\"}\n").unwrap();
    let sink = AuditSink::File(path.clone());
    let audit = Audit::open(&sink, Clock::manual(0), DropCounter::default()).unwrap();
    let event = |detail| Reload {
        success: true,
        trigger: "file",
        detail,
    };
    audit.reload(&event("first"));
    assert!(audit.flush(DEADLINE));
    let rotated = directory.path().join("audit.log.1");
    fs::rename(&path, &rotated).unwrap();
    audit.reload(&event("second"));
    audit.reopen();
    audit.reload(&event("third"));
    assert!(audit.flush(DEADLINE));

    let old = fs::read_to_string(&rotated).unwrap();
    assert!(
        old.starts_with("{\"event\":\"older\"}\n") && old.contains("second"),
        "{old}"
    );
    let new = fs::read_to_string(&path).unwrap();
    assert!(new.contains("third") && !new.contains("second"), "{new}");
}

#[test]
fn a_destination_that_hangs_costs_lines_and_never_time() {
    struct Hung(Receiver<()>);
    impl Write for Hung {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (release, gate) = channel();
    let mut gate = Some(gate);
    let open = Box::new(move || {
        let gate = gate.take().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Hung(gate)) as Box<dyn Write + Send>)
    });
    let dropped = DropCounter::default();
    let writer = LineWriter::start("hung", 2, open, dropped.clone()).unwrap();
    for _ in 0..10 {
        writer.write(b"line\n".to_vec());
    }
    // At most one event is being written, and two wait.
    assert!((7..=8).contains(&dropped.get()), "{}", dropped.get());
    assert!(!writer.flush(Duration::from_millis(20)));
    drop(release);
    assert!(writer.flush(DEADLINE));
}

#[test]
fn an_audit_file_that_cannot_be_opened_is_an_error_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let sink = AuditSink::File(directory.path().join("missing/audit.log"));
    assert!(Audit::open(&sink, Clock::manual(0), DropCounter::default()).is_err());
}
