//! The daemon under a service manager, from outside: the messages of `renewd run` on a real notify socket, their times,
//! and the service on inherited sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::service_manager::{
    DEADLINE, NotifySocket, Running, connect_when_listening, pass_tcp, socket_activate,
};

const RENEWD: &str = env!("CARGO_BIN_EXE_renewd");

/// A directory with a configuration that listens on `listen`, and nothing else yet.
struct Installation {
    directory: TempDir,
}

impl Installation {
    fn listening_on(listen: &str) -> Self {
        let installation = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        installation.write(
            "streams.toml",
            "[[stream]]\nchannel = \"live_1\"\nowner = \"owner\"\nlive = true\n",
        );
        installation.configure(listen, "1h");
        installation
    }

    /// Port 1 refuses: these tests need no backend.
    fn configure(&self, listen: &str, token_lifetime: &str) {
        let streams = self.path("streams.toml");
        let state = self.path("state");
        self.write(
            "config.toml",
            &format!(
                r#"
[server]
listen = ["{listen}"]
workers = 2
[admin]
listen = "127.0.0.1:0"
[upstream]
servers = ["http://127.0.0.1:1"]
[agora]
app_id = "0123456789abcdef0123456789abcdef"
app_certificate = "fedcba9876543210fedcba9876543210"
[token]
lifetime = "{token_lifetime}"
[auth.jwt]
secret = "a secret of this test alone, long enough"
[accounts]
source = "none"
[streams]
source = "file"
file = "{}"
[state]
directory = "{}"
"#,
                streams.display(),
                state.display()
            ),
        );
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file for its owner alone: a literal secret in a file that others can read is an error.
    fn write(&self, name: &str, text: &str) {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path(name))
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn run(&self, notify: &NotifySocket) -> Command {
        let mut command = Command::new(RENEWD);
        command
            .args(["run", "--config"])
            .arg(self.path("config.toml"))
            .env("NOTIFY_SOCKET", notify.path())
            .env_remove("WATCHDOG_USEC")
            .env_remove("WATCHDOG_PID");
        command
    }
}

fn start(command: &mut Command) -> Running {
    Running(command.spawn().unwrap())
}

/// The answer to a token request without credentials: renewd's own, whatever the backend does.
fn ask_for_a_token(mut connection: impl Read + Write) -> String {
    let request = "POST /api/live/token HTTP/1.1\r\nHost: renewd\r\nContent-Type: application/json\r\n\
                   Content-Length: 2\r\nConnection: close\r\n\r\n{}";
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_service_is_ready_says_how_it_is_and_stops_when_told() {
    let installation = Installation::listening_on("127.0.0.1:0");
    let notify = NotifySocket::bind(installation.directory.path());
    let service = start(&mut installation.run(&notify));
    let ready = notify.receive_until("READY=1");
    assert!(ready.contains("\nSTATUS="), "{ready:?}");

    service.signal(Signal::TERM);
    notify.receive_until("STOPPING=1");
    assert_eq!(service.exit_code(), Some(0));
}

#[test]
fn every_reload_ends_ready_a_refused_one_too() {
    let installation = Installation::listening_on("127.0.0.1:0");
    let notify = NotifySocket::bind(installation.directory.path());
    let service = start(&mut installation.run(&notify));
    notify.receive_until("READY=1");

    let reload = || {
        service.signal(Signal::HUP);
        let begin = notify.receive_until("RELOADING=1");
        assert!(begin.contains("\nMONOTONIC_USEC="), "{begin:?}");
        notify.receive_until("READY=1")
    };
    installation.configure("127.0.0.1:0", "30m");
    let applied = reload();
    installation.write(
        "config.toml",
        "[server]\nlisten = 3000\nno_such_key = true\n",
    );
    let refused = reload();
    assert_ne!(applied, refused, "the status says which it was");
    installation.configure("127.0.0.1:0", "20m");
    reload();

    service.signal(Signal::TERM);
    notify.receive_until("STOPPING=1");
    assert_eq!(service.exit_code(), Some(0));
}

#[test]
fn a_service_on_its_last_valid_configuration_says_so() {
    let installation = Installation::listening_on("127.0.0.1:0");
    let notify = NotifySocket::bind(installation.directory.path());
    let service = start(&mut installation.run(&notify));
    let usual = notify.receive_until("READY=1");
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), Some(0));

    installation.write("config.toml", "");
    let mut fallback = installation.run(&notify);
    fallback
        .arg("--fallback")
        .env("STATE_DIRECTORY", installation.path("state"));
    let service = start(&mut fallback);
    let said = notify.receive_until("READY=1");
    assert!(said.contains("last valid configuration"), "{said:?}");
    assert_ne!(said, usual);

    installation.configure("127.0.0.1:0", "30m");
    service.signal(Signal::HUP);
    notify.receive_until("RELOADING=1");
    let mended = notify.receive_until("READY=1");
    assert!(mended.contains("configuration reloaded"), "{mended:?}");
}

#[test]
fn a_stop_asks_for_the_time_that_the_drain_may_take() {
    let installation = Installation::listening_on("127.0.0.1:0");
    let notify = NotifySocket::bind(installation.directory.path());
    let service = start(&mut installation.run(&notify));
    notify.receive_until("READY=1");
    service.signal(Signal::TERM);
    let stopping = notify.receive_until("STOPPING=1");
    let extension = stopping
        .lines()
        .find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC="));
    let microseconds: u64 = extension.expect("an extension").parse().unwrap();
    assert!(
        microseconds > 30_000_000,
        "more than drain_timeout's default: {stopping:?}"
    );
    assert_eq!(service.exit_code(), Some(0));
}

#[test]
fn a_turning_service_feeds_its_watchdog() {
    let installation = Installation::listening_on("127.0.0.1:0");
    let notify = NotifySocket::bind(installation.directory.path());
    let _service = start(installation.run(&notify).env("WATCHDOG_USEC", "600000"));
    notify.receive_until("READY=1");
    for _ in 0..3 {
        notify.receive_until("WATCHDOG=1");
    }
}

#[test]
fn a_second_service_on_the_same_state_is_refused_and_never_ready() {
    let installation = Installation::listening_on("127.0.0.1:0");
    let notify = NotifySocket::bind(installation.directory.path());
    let first = start(&mut installation.run(&notify));
    notify.receive_until("READY=1");

    let elsewhere = tempfile::tempdir().unwrap();
    let second_notify = NotifySocket::bind(elsewhere.path());
    let second = installation.run(&second_notify).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains(&first.0.id().to_string()), "{said}");
    let messages = second_notify.pending();
    assert!(
        !messages.iter().any(|message| message.contains("READY=1")),
        "{messages:?}"
    );
}

#[test]
fn connections_that_came_before_the_service_are_served_on_the_inherited_socket() {
    let installation = Installation::listening_on("systemd:public");
    let socket = installation.path("public.sock");
    let configuration = installation.path("config.toml");
    let _service = start(&mut socket_activate(
        &["--fdname=public", &format!("--listen={}", socket.display())],
        Path::new(RENEWD),
        &["run", "--config", configuration.to_str().unwrap()],
    ));
    // No service runs before this connection, which waits in the backlog for the service that it starts.
    let connection = connect_when_listening(|| UnixStream::connect(&socket));
    connection.set_read_timeout(Some(DEADLINE)).unwrap();
    let answer = ask_for_a_token(connection);
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

#[test]
fn an_inherited_port_outlives_the_service_that_served_it() {
    let installation = Installation::listening_on("systemd:public");
    let notify = NotifySocket::bind(installation.directory.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let configuration = installation.path("config.toml");
    let serve = || {
        start(
            pass_tcp(
                &listener,
                "public",
                Path::new(RENEWD),
                &["run", "--config", configuration.to_str().unwrap()],
            )
            .env("NOTIFY_SOCKET", notify.path()),
        )
    };
    let ask = |connection: TcpStream| {
        connection.set_read_timeout(Some(DEADLINE)).unwrap();
        let answer = ask_for_a_token(connection);
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    };

    let first = serve();
    notify.receive_until("READY=1");
    ask(TcpStream::connect(address).unwrap());
    first.signal(Signal::TERM);
    assert_eq!(first.exit_code(), Some(0));

    // No service runs here, as in `systemctl restart`: the kernel takes the connection, which isn't refused.
    let waiting = TcpStream::connect(address).unwrap();
    let _second = serve();
    ask(waiting);
}

#[test]
fn a_socket_that_the_configuration_names_and_systemd_did_not_pass_fails_the_start() {
    let installation = Installation::listening_on("systemd:public");
    let notify = NotifySocket::bind(installation.directory.path());
    let output = installation.run(&notify).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in [
        "systemd:public",
        "systemctl enable renewd.socket",
        "systemctl restart renewd",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert!(
        notify
            .pending()
            .iter()
            .all(|message| !message.contains("READY=1"))
    );
}

#[test]
fn a_socket_of_another_name_is_told_from_none() {
    let installation = Installation::listening_on("systemd:public");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let configuration = installation.path("config.toml");
    let arguments = ["run", "--config", configuration.to_str().unwrap()];
    let output = pass_tcp(&listener, "other", Path::new(RENEWD), &arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("only `other`") && said.contains("FileDescriptorName="),
        "{said}"
    );
}

#[test]
fn the_journal_gets_each_line_with_its_priority_and_without_a_second_time() {
    let installation = Installation::listening_on("127.0.0.1:0");
    let notify = NotifySocket::bind(installation.directory.path());
    let stream = File::create(installation.path("journal")).unwrap();
    let stat = stream.metadata().unwrap();
    let run = |prepare: &dyn Fn(&mut Command)| {
        let mut command = installation.run(&notify);
        command
            .stderr(stream.try_clone().unwrap())
            .env("JOURNAL_STREAM", format!("{}:{}", stat.dev(), stat.ino()));
        prepare(&mut command);
        start(&mut command)
    };
    let said = || std::fs::read_to_string(installation.path("journal")).unwrap();
    let service = run(&|_| {});
    notify.receive_until("READY=1");
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), Some(0));
    let text = said();
    assert!(text.contains("<6>level=info msg=ready"), "{text}");
    assert!(text.lines().all(|line| line.starts_with('<')), "{text}");
    assert!(!text.contains("time="), "{text}");

    installation.write("config.toml", "[server\n");
    let before = text.len();
    assert_eq!(run(&|_| {}).exit_code(), Some(78));
    let text = said();
    let report = &text[before..];
    assert!(report.lines().count() > 2, "{report}");
    assert!(
        report.lines().all(|line| line.starts_with("<3>")),
        "{report}"
    );

    // A service's stderr that is a file is no journal.
    let before = text.len();
    let elsewhere = |command: &mut Command| {
        command.env("JOURNAL_STREAM", "1:2");
    };
    assert_eq!(run(&elsewhere).exit_code(), Some(78));
    assert!(!said()[before..].contains("<3>"));
}
