//! `daemon::systemd` against the real protocol: a datagram socket as `$NOTIFY_SOCKET`, and sockets from
//! `systemd-socket-activate`.
//!
//! The environment and inherited descriptors belong to a process, so each test starts this program again with only
//! itself to run, and says in `as_service` what that process does. The process must not fail there, because the test
//! checks its exit code.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use renewd::daemon::systemd::{Notifier, take_listeners};
use sd_notify::NotifyState;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::service_manager::{
    DEADLINE, NotifySocket, Running, connect_when_listening, pass_tcp, socket_activate,
};
use crate::support::test_name;

const CHILD: &str = "RENEWD_TEST_AS_SERVICE";

/// The exit code of a service that came to its end; 0 would also say that no test of that name exists.
const DONE: i32 = 42;

/// Runs `service` and ends the process, if this is the process that a test started.
fn as_service(service: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some() {
        service();
        std::process::exit(DONE);
    }
}

fn this_program() -> PathBuf {
    std::env::current_exe().unwrap()
}

fn arguments(test: &str) -> [&'static str; 3] {
    let name = test_name(module_path!(), test).leak();
    [name, "--exact", "--nocapture"]
}

fn service(test: &str, notify: &NotifySocket) -> Command {
    let mut command = Command::new(this_program());
    command
        .args(arguments(test))
        .env(CHILD, "1")
        .env("NOTIFY_SOCKET", notify.path())
        .env_remove("WATCHDOG_USEC")
        .env_remove("WATCHDOG_PID");
    command
}

fn current_thread<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

fn monotonic_microseconds() -> i128 {
    match NotifyState::monotonic_usec_now().unwrap() {
        NotifyState::MonotonicUsec(now) => now,
        other => panic!("{other}"),
    }
}

#[test]
fn start_status_and_stop_are_told() {
    as_service(|| {
        let notifier = Notifier::from_environment();
        notifier.ready("serving");
        notifier.status("no backend\nMAINPID=1");
        notifier.stopping(Duration::from_secs(42), "draining");
    });
    let directory = tempfile::tempdir().unwrap();
    let notify = NotifySocket::bind(directory.path());
    let child = service("start_status_and_stop_are_told", &notify)
        .spawn()
        .unwrap();
    assert_eq!(notify.receive(), "READY=1\nSTATUS=serving\n");
    assert_eq!(notify.receive(), "STATUS=no backend MAINPID=1\n");
    assert_eq!(
        notify.receive(),
        "STOPPING=1\nEXTEND_TIMEOUT_USEC=42000000\nSTATUS=draining\n"
    );
    assert_eq!(Running(child).exit_code(), Some(DONE));
}

#[test]
fn every_reload_carries_its_time_and_ends_ready_however_it_ends() {
    as_service(|| {
        let notifier = Notifier::from_environment();
        notifier.reloading().finish("reloaded");
        drop(notifier.reloading());
        let reload = notifier.reloading();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _reload = reload;
            panic!("this reload panics, as the test wants");
        }))
        .unwrap_err();
    });
    let directory = tempfile::tempdir().unwrap();
    let notify = NotifySocket::bind(directory.path());
    let before = monotonic_microseconds();
    let child = service(
        "every_reload_carries_its_time_and_ends_ready_however_it_ends",
        &notify,
    )
    .spawn()
    .unwrap();
    for end in ["READY=1\nSTATUS=reloaded\n", "READY=1\n", "READY=1\n"] {
        let begin = notify.receive();
        let time = begin
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .and_then(|rest| rest.trim_end().parse::<i128>().ok())
            .unwrap_or_else(|| panic!("{begin:?}"));
        assert!((before..=monotonic_microseconds()).contains(&time));
        assert_eq!(notify.receive(), end);
    }
    assert_eq!(Running(child).exit_code(), Some(DONE));
}

#[test]
fn the_watchdog_is_fed_while_everything_turns_and_not_a_moment_longer() {
    as_service(|| {
        let asked = Cell::new(0);
        current_thread(Notifier::from_environment().feed_watchdog(|| {
            asked.set(asked.get() + 1);
            if asked.get() == 5 {
                std::process::exit(DONE);
            }
            asked.get() <= 2
        }));
        panic!("with a watchdog, feeding it never ends");
    });
    let directory = tempfile::tempdir().unwrap();
    let notify = NotifySocket::bind(directory.path());
    let child = service(
        "the_watchdog_is_fed_while_everything_turns_and_not_a_moment_longer",
        &notify,
    )
    .env("WATCHDOG_USEC", "30000")
    .spawn()
    .unwrap();
    assert_eq!(Running(child).exit_code(), Some(DONE));
    assert_eq!(notify.pending(), ["WATCHDOG=1\n", "WATCHDOG=1\n"]);
}

#[test]
fn without_a_watchdog_of_its_own_a_process_feeds_none() {
    as_service(|| {
        let notifier = Notifier::from_environment();
        assert_eq!(notifier.watchdog_interval(), None);
        current_thread(notifier.feed_watchdog(|| true));
    });
    let directory = tempfile::tempdir().unwrap();
    let notify = NotifySocket::bind(directory.path());
    let test = "without_a_watchdog_of_its_own_a_process_feeds_none";
    let none = service(test, &notify).spawn().unwrap();
    let somebody_elses = service(test, &notify)
        .env("WATCHDOG_USEC", "30000")
        .env("WATCHDOG_PID", "1")
        .spawn()
        .unwrap();
    let zero = service(test, &notify)
        .env("WATCHDOG_USEC", "0")
        .spawn()
        .unwrap();
    for child in [none, somebody_elses, zero] {
        assert_eq!(Running(child).exit_code(), Some(DONE));
    }
    assert!(notify.pending().is_empty());
}

#[test]
fn a_service_manager_that_is_gone_stops_nothing() {
    as_service(|| {
        let notifier = Notifier::from_environment();
        notifier.ready("serving");
        notifier.reloading().finish("reloaded");
    });
    let directory = tempfile::tempdir().unwrap();
    let notify = NotifySocket::bind(directory.path());
    std::fs::remove_file(notify.path()).unwrap();
    let child = service("a_service_manager_that_is_gone_stops_nothing", &notify)
        .spawn()
        .unwrap();
    assert_eq!(Running(child).exit_code(), Some(DONE));
}

#[test]
fn a_service_manager_on_an_abstract_socket_is_told_too() {
    as_service(|| Notifier::from_environment().ready("serving"));
    let name = format!("renewd-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let notify = NotifySocket::bind(directory.path());
    let child = service(
        "a_service_manager_on_an_abstract_socket_is_told_too",
        &notify,
    )
    .env("NOTIFY_SOCKET", format!("@{name}"))
    .spawn()
    .unwrap();
    let mut bytes = [0; 256];
    let length = socket.recv(&mut bytes).unwrap();
    assert_eq!(&bytes[..length], b"READY=1\nSTATUS=serving\n");
    assert_eq!(Running(child).exit_code(), Some(DONE));
}

#[test]
fn inherited_sockets_are_taken_by_name_and_only_once() {
    as_service(|| {
        let mut listeners = take_listeners().unwrap();
        assert!(take_listeners().unwrap().is_empty(), "taken already");

        let public = listeners.remove("public").expect("two named public");
        let admin = listeners.remove("admin").expect("one named admin");
        assert!(listeners.is_empty() && public.len() == 2 && admin.len() == 1);
        let (mut connection, _) = public[0].accept().unwrap();
        connection.write_all(b"served").unwrap();
    });
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let child = socket_activate(
        &[
            &format!("-E{CHILD}=1"),
            "--fdname=public:public:admin",
            &format!("--listen={}", path("one")),
            &format!("--listen={}", path("two")),
            &format!("--listen={}", path("three")),
        ],
        &this_program(),
        &arguments("inherited_sockets_are_taken_by_name_and_only_once"),
    )
    .spawn()
    .map(Running)
    .expect("systemd-socket-activate (Debian: systemd), which tests/run installs");

    let mut connection = connect_when_listening(|| UnixStream::connect(path("one")));
    connection.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "served");
    assert_eq!(child.exit_code(), Some(DONE));
}

#[test]
fn an_inherited_port_never_blocks_a_worker_and_stays_out_of_children() {
    as_service(|| {
        let mut listeners = take_listeners().unwrap();
        let public = listeners.remove("public").expect("one named public");
        let [tcp] = public.as_slice() else {
            panic!("{public:?}");
        };
        let status = rustix::fs::fcntl_getfl(tcp).unwrap();
        assert!(status.contains(rustix::fs::OFlags::NONBLOCK));
        let flags = rustix::io::fcntl_getfd(tcp).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let child = pass_tcp(
        &listener,
        "public",
        &this_program(),
        &arguments("an_inherited_port_never_blocks_a_worker_and_stays_out_of_children"),
    )
    .env(CHILD, "1")
    .spawn()
    .unwrap();
    assert_eq!(Running(child).exit_code(), Some(DONE));
}

#[test]
fn what_is_no_listening_stream_socket_is_refused_by_name() {
    as_service(|| {
        let refused = take_listeners().unwrap_err().to_string();
        assert!(refused.contains("`public`"), "{refused}");
    });
    for (option, kind) in [
        ("--datagram", Type::DGRAM),
        ("--seqpacket", Type::SEQPACKET),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("public.sock");
        let child = socket_activate(
            &[
                &format!("-E{CHILD}=1"),
                option,
                "--fdname=public",
                &format!("--listen={}", path.display()),
            ],
            &this_program(),
            &arguments("what_is_no_listening_stream_socket_is_refused_by_name"),
        )
        .spawn()
        .map(Running)
        .expect("systemd-socket-activate (Debian: systemd), which tests/run installs");

        let client = Socket::new(Domain::UNIX, kind, None).unwrap();
        let address = SockAddr::unix(&path).unwrap();
        connect_when_listening(|| client.connect(&address));
        if kind == Type::DGRAM {
            client.send(b"x").unwrap();
        }
        assert_eq!(child.exit_code(), Some(DONE), "{option}");
    }
}

#[test]
fn sockets_of_another_process_or_that_are_not_there_are_never_touched() {
    as_service(|| match std::env::var("LISTEN_FDS").as_deref() {
        Ok("1") => assert!(take_listeners().unwrap().is_empty()),
        _ => assert!(take_listeners().is_err()),
    });
    let directory = tempfile::tempdir().unwrap();
    let notify = NotifySocket::bind(directory.path());
    let test = "sockets_of_another_process_or_that_are_not_there_are_never_touched";
    let another = service(test, &notify)
        .env("LISTEN_PID", "1")
        .env("LISTEN_FDS", "1")
        .spawn()
        .unwrap();
    assert_eq!(Running(another).exit_code(), Some(DONE));

    for descriptors in ["1000", "-1", "many", "4294967295"] {
        // The shell's process id is the program's, after exec.
        let lying = Command::new("sh")
            .args(["-c", "LISTEN_PID=$$ exec \"$@\"", "sh"])
            .arg(this_program())
            .args(arguments(test))
            .env(CHILD, "1")
            .env("LISTEN_FDS", descriptors)
            .spawn()
            .unwrap();
        assert_eq!(Running(lying).exit_code(), Some(DONE), "{descriptors}");
    }
}
