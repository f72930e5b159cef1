//! `systemctl restart` while clients keep asking: on a socket that outlives the daemon nothing is refused, reset or
//! lost; on a port of its own, no answer is cut.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::support::express::{Express, Version};
use crate::support::messages::{Message, Wire};
use crate::support::renewd::{self, Settings};
use crate::support::service_manager::{NotifySocket, Running, pass_tcp};
use rustix::process::Signal;

const RENEWD: &str = env!("CARGO_BIN_EXE_renewd");
const RESTARTS: usize = 5;
/// Answers that the clients must have had before each restart, so that there is load at every one.
const BETWEEN: usize = 300;

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// Many requests on a connection, as browsers and proxies do.
    KeepAlive,
    /// A connection each, as scripts do.
    NewConnection,
    /// Three requests at once on a connection.
    Pipelined,
}

/// The events that the clients have seen.
#[derive(Default)]
struct Tally {
    answers: AtomicUsize,
    /// Announced with `Connection: close`.
    announced: AtomicUsize,
    /// Idle connections that were closed when their next request was on its way: RFC 9112 section 9.3.1 has clients ask
    /// again.
    closed_while_idle: AtomicUsize,
    refused: AtomicUsize,
    over: AtomicBool,
}

impl Tally {
    fn count(counter: &AtomicUsize) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn wait_for_answers(&self, more: usize) {
        let wanted = self.answers.load(Ordering::Relaxed) + more;
        while self.answers.load(Ordering::Relaxed) < wanted && !self.over.load(Ordering::Relaxed) {
            thread::yield_now();
        }
    }
}

fn request(habit: Habit, number: usize) -> String {
    let close = match habit {
        Habit::NewConnection => "Connection: close\r\n",
        Habit::KeepAlive | Habit::Pipelined => "",
    };
    let body = format!("{habit:?} {number}");
    format!(
        "POST /wire/echo HTTP/1.1\r\nHost: app\r\n{close}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn check(answer: &Message, habit: Habit, number: usize) {
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(answer.body, format!("{habit:?} {number}").into_bytes());
}

/// Asks until the test tells it to stop; panics at an answer that is wrong or cut, and, unless `may_refuse`, at a
/// connection that was refused or closed without an answer to its first request.
fn ask(address: SocketAddr, habit: Habit, may_refuse: bool, tally: &Tally) {
    let mut number = 0;
    while !tally.over.load(Ordering::Relaxed) {
        let mut wire = match Wire::try_open(address) {
            Ok(wire) => wire,
            Err(error) if may_refuse => {
                // A listener that closes between the two halves of a handshake resets it.
                let kinds = [
                    io::ErrorKind::ConnectionRefused,
                    io::ErrorKind::ConnectionReset,
                ];
                assert!(kinds.contains(&error.kind()), "{error}");
                Tally::count(&tally.refused);
                thread::yield_now();
                continue;
            }
            Err(error) => panic!("{habit:?}: {error}"),
        };
        let mut first = true;
        'connection: while !tally.over.load(Ordering::Relaxed) {
            let batch = if habit == Habit::Pipelined { 3 } else { 1 };
            let requests: String = (number..number + batch)
                .map(|number| request(habit, number))
                .collect();
            wire.write(requests.as_bytes());
            for _ in 0..batch {
                match wire.read(false) {
                    Ok(answer) => {
                        check(&answer, habit, number);
                        number += 1;
                        first = false;
                        Tally::count(&tally.answers);
                        if answer.closes() {
                            Tally::count(&tally.announced);
                            break 'connection;
                        }
                    }
                    Err(error) => {
                        assert!(
                            (!first || may_refuse) && nothing_came(&error),
                            "{habit:?} {number}: {error:?}, first on its connection: {first}"
                        );
                        Tally::count(&tally.closed_while_idle);
                        break 'connection;
                    }
                }
            }
        }
    }
}

/// No byte of an answer came, so that none was cut.
fn nothing_came(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionReset || error.to_string() == "cut: \"\""
}

/// Runs `restart` [`RESTARTS`] times, under load each time.
fn under_load(address: SocketAddr, may_refuse: bool, mut restart: impl FnMut()) -> Tally {
    let tally = Tally::default();
    thread::scope(|scope| {
        let clients: Vec<_> = [Habit::KeepAlive, Habit::NewConnection, Habit::Pipelined]
            .into_iter()
            .cycle()
            .take(6)
            .map(|habit| {
                let tally = &tally;
                scope.spawn(move || {
                    let stop = Stop(tally);
                    ask(address, habit, may_refuse, tally);
                    drop(stop);
                })
            })
            .collect();
        for _ in 0..RESTARTS {
            tally.wait_for_answers(BETWEEN);
            restart();
        }
        tally.wait_for_answers(BETWEEN);
        tally.over.store(true, Ordering::Relaxed);
        for client in clients {
            if let Err(panic) = client.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    tally
}

/// Ends the test when a client ends, also by a panic.
struct Stop<'tally>(&'tally Tally);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

struct Installation {
    directory: tempfile::TempDir,
    notify: NotifySocket,
    _express: Express,
}

impl Installation {
    fn listening_on(listen: &str) -> Self {
        let express = Express::start(Version::Four, &[("RATE_LIMIT", "0")]);
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings {
            backend: Some(express.address),
            server: format!("listen = [\"{listen}\"]"),
            ..Settings::default()
        };
        renewd::write_files(directory.path(), &settings);
        let notify = NotifySocket::bind(directory.path());
        Self {
            directory,
            notify,
            _express: express,
        }
    }

    fn start(&self, command: &mut Command) -> Running {
        let child = command
            .env("NOTIFY_SOCKET", self.notify.path())
            .stderr(std::process::Stdio::null())
            .spawn();
        let running = Running(child.unwrap());
        self.notify.receive_until("READY=1");
        running
    }

    fn arguments(&self) -> [String; 3] {
        let path = self.directory.path().join("config.toml");
        let path = path.to_str().unwrap().to_owned();
        ["run".to_owned(), "--config".to_owned(), path]
    }
}

#[test]
fn on_an_inherited_socket_no_connection_is_refused_or_reset_and_no_answer_is_lost() {
    let installation = Installation::listening_on("systemd:public");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let arguments = installation.arguments();
    let arguments = arguments.each_ref().map(String::as_str);
    let serve = || {
        installation.start(&mut pass_tcp(
            &listener,
            "public",
            Path::new(RENEWD),
            &arguments,
        ))
    };
    let mut running = Some(serve());
    let tally = under_load(listener.local_addr().unwrap(), false, || {
        let old = running.take().unwrap();
        old.signal(Signal::TERM);
        assert_eq!(old.exit_code(), Some(0));
        running = Some(serve());
    });
    let [answers, announced, idle] = [&tally.answers, &tally.announced, &tally.closed_while_idle]
        .map(|counter| counter.load(Ordering::Relaxed));
    assert!(answers >= RESTARTS * BETWEEN, "{answers}");
    assert!(announced > 0, "nobody was told that a connection ends");
    // A client that keeps asking is told in an answer; only a connection that has been quiet for a second is closed
    // without a word.
    assert_eq!(idle, 0, "connections closed under a request");
}

#[test]
fn on_a_port_of_its_own_a_restart_cuts_no_answer_and_the_port_is_free_at_once() {
    // The kernel gives this port to no other process while the test's own connections to it linger.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let installation = Installation::listening_on(&address.to_string());
    let arguments = installation.arguments();
    let serve = || installation.start(Command::new(RENEWD).args(&arguments));
    let mut running = Some(serve());
    let tally = under_load(address, true, || {
        let old = running.take().unwrap();
        old.signal(Signal::TERM);
        assert_eq!(old.exit_code(), Some(0));
        running = Some(serve());
    });
    assert!(tally.answers.load(Ordering::Relaxed) >= RESTARTS * BETWEEN);
    assert!(
        tally.refused.load(Ordering::Relaxed) > 0,
        "no client came while nobody listened"
    );
}
