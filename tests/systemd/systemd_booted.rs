//! The units in a booted systemd, 252 and 257: the behaviour that only a real systemd shows. Where namespaces are
//! refused these tests print the reason and end.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::json;

use crate::support::machine::{BACKEND, Debian, Machine, PUBLIC};
use crate::support::renewd::{JWT_SECRET, jwt_with, now};

const ANOTHER_SECRET: &str = "another-secret-of-enough-bytes-for-this";

/// The status for a login while accounts give no answer: the login was verified, for otherwise the status would be 401.
const VERIFIED: Option<u16> = Some(503);

/// A login as the shipped example takes it.
fn login(secret: &str) -> String {
    let claims = json!({
        "astrologerId": "65f0a1b2c3d4e5f6a7b8c9d0", "sessionId": "s", "exp": now() + 3600
    });
    jwt_with(secret, &claims)
}

fn takes(machine: &Machine, secret: &str) -> bool {
    let status = machine.token(&login(secret));
    assert!(status == VERIFIED || status == Some(401), "{status:?}");
    status == VERIFIED
}

/// Holds that a reload works on this systemd: README's own installation, a good file, a bad one, a bad secret.
fn reloads_and_refuses(machine: &Machine) {
    machine.systemctl("enable --now renewd");
    assert!(takes(machine, JWT_SECRET) && !takes(machine, ANOTHER_SECRET));
    machine.systemctl("reload renewd");

    for (what, written, instead) in [
        ("an invalid file", "[server]\n", "[server\n"),
        (
            "a credential that is not there",
            "credential:jwt_secret",
            "credential:jwt_secrets",
        ),
        (
            "a credential that is no certificate",
            "credential:agora_certificate",
            "credential:jwt_secret",
        ),
    ] {
        machine.configure(|example| {
            assert!(example.contains(written), "{written}");
            example.replacen(written, instead, 1)
        });
        assert!(!machine.succeeds("reload renewd"), "reloaded: {what}");
    }
    machine.configure(|example| example);
    machine.systemctl("reload renewd");
    assert!(takes(machine, JWT_SECRET));
    errors_are_errors_in_the_journal(machine);
}

fn errors_are_errors_in_the_journal(machine: &Machine) {
    let journal = machine.journal("json");
    let priority = |what: &str| {
        let mut entries = journal.lines().filter_map(|line| {
            let entry: serde_json::Value = serde_json::from_str(line).ok()?;
            entry["MESSAGE"]
                .as_str()?
                .starts_with(what)
                .then_some(entry)
        });
        entries.next().map(|entry| entry["PRIORITY"].clone())
    };
    assert_eq!(priority("level=error"), Some(json!("3")), "{journal}");
    assert_eq!(priority("level=info"), Some(json!("6")), "{journal}");
}

#[test]
fn a_reload_on_systemd_252_checks_and_takes_rotated_credentials() {
    let Some(machine) = Machine::boot(Debian::Bookworm) else {
        return;
    };
    reloads_and_refuses(&machine);

    machine.secret("jwt_secret", "");
    assert!(!machine.succeeds("reload renewd"), "an empty secret");
    machine.secret("jwt_secret", ANOTHER_SECRET);
    machine.systemctl("reload renewd");
    machine.eventually("the rotated secret", |machine| {
        takes(machine, ANOTHER_SECRET)
    });
}

#[test]
fn a_reload_on_systemd_257_checks_the_credentials_that_stay_until_a_restart() {
    let Some(machine) = Machine::boot(Debian::Trixie) else {
        return;
    };
    reloads_and_refuses(&machine);

    machine.secret("jwt_secret", ANOTHER_SECRET);
    machine.systemctl("reload renewd");
    machine.systemctl("restart renewd");
    assert!(takes(&machine, ANOTHER_SECRET) && !takes(&machine, JWT_SECRET));
}

/// Stops one thread until its process ends, as a debugger does: a signal stops all threads of a process.
const STOPS_A_THREAD: &str = "
import ctypes, os, sys
thread = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
if libc.ptrace(16, thread, None, None) != 0:  # PTRACE_ATTACH
    sys.exit(os.strerror(ctypes.get_errno()))
while True:
    _, status = os.waitpid(thread, 0x40000000)  # __WALL
    if not os.WIFSTOPPED(status):
        break
    print('stopped', flush=True)
";

/// The main process as the machine numbers it.
fn main_pid(machine: &Machine) -> String {
    let shown = machine.systemctl("show --property=MainPID --value renewd");
    shown.trim().to_owned()
}

/// Waits until systemd has started the service again.
fn comes_back(machine: &Machine, after: &str) {
    machine.eventually("a new process", |machine| {
        let pid = main_pid(machine);
        pid != "0" && pid != after && machine.succeeds("is-active renewd")
    });
}

/// A service that dies, one of which a single worker thread stands still, and what else befalls one.
fn outlives(debian: Debian) {
    let Some(machine) = Machine::boot(debian) else {
        return;
    };
    machine.write("/etc/watchdog.conf", "[Service]\nWatchdogSec=2s\n", "644");
    machine.shell(
        "install -D /etc/watchdog.conf /etc/systemd/system/renewd.service.d/watchdog.conf
         systemctl daemon-reload",
    );
    machine.systemctl("start renewd");
    let killed = main_pid(&machine);
    machine.systemctl("kill --signal=KILL renewd");
    comes_back(&machine, &killed);

    let running = main_pid(&machine);
    let worker = machine.thread(&running, "worker-0");
    let debugger = Command::new("python3")
        .args(["-c", STOPS_A_THREAD, &worker])
        .stdout(Stdio::piped())
        .spawn();
    let mut debugger = debugger.expect("python3, which tests/run installs");
    comes_back(&machine, &running);
    assert!(debugger.wait().unwrap().success());
    let journal = machine.journal("cat");
    assert!(journal.contains("Watchdog timeout"), "{journal}");
    serves_without_a_place_for_its_state(&machine);
    restarts_under_load_by_its_socket(&machine);
}

/// A state directory that can't be written, and a full disk: tokens are decided all the same, and the status says so.
fn serves_without_a_place_for_its_state(machine: &Machine) {
    let is_writable = |machine: &Machine| {
        let metrics = "http://127.0.0.1:9464/metrics";
        let mut curl = machine.in_its_network("curl");
        let page = curl.args(["--silent", metrics]).output().unwrap();
        let page = String::from_utf8(page.stdout).unwrap();
        page.lines().any(|line| line == "renewd_state_writable 1")
    };
    machine.eventually("a state in order", is_writable);
    machine.write(
        "/etc/read-only.conf",
        "[Service]\nReadOnlyPaths=/var/lib/renewd\n",
        "644",
    );
    machine.shell(
        "install /etc/read-only.conf /etc/systemd/system/renewd.service.d/read-only.conf
         systemctl daemon-reload",
    );
    machine.systemctl("restart renewd");
    machine.eventually("a read-only state", |machine| !is_writable(machine));
    assert!(takes(machine, JWT_SECRET));
    machine
        .shell("rm /etc/systemd/system/renewd.service.d/read-only.conf && systemctl daemon-reload");

    machine.systemctl("stop renewd");
    machine.shell(
        "mount -t tmpfs -o size=64k,uid=renewd,mode=700 full /var/lib/renewd
         ! dd if=/dev/zero of=/var/lib/renewd/filling 2>/dev/null",
    );
    machine.systemctl("start renewd");
    machine.eventually("a full disk", |machine| !is_writable(machine));
    assert!(takes(machine, JWT_SECRET));
    machine.shell("rm /var/lib/renewd/filling && renewd reload");
    machine.eventually("room again", is_writable);
}

/// Restarts while clients connect to the port that systemd holds: each of them is answered.
fn restarts_under_load_by_its_socket(machine: &Machine) {
    let _backend = machine.backend(BACKEND);
    listen(machine, "systemd:public");
    machine.systemctl("enable renewd.socket");
    machine.systemctl("restart renewd");
    let done = AtomicBool::new(false);
    thread::scope(|threads| {
        let clients = [(); 2].map(|()| {
            threads.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(machine.forwarded_within("30"), Some(200));
                }
            })
        });
        for _ in 0..3 {
            machine.systemctl("restart renewd");
        }
        done.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().unwrap();
        }
    });
}

#[test]
fn on_systemd_252_it_outlives_a_kill_a_stopped_worker_a_full_disk_and_restarts_under_load() {
    outlives(Debian::Bookworm);
}

#[test]
fn on_systemd_257_it_outlives_a_kill_a_stopped_worker_a_full_disk_and_restarts_under_load() {
    outlives(Debian::Trixie);
}

/// Puts renewd behind its socket unit, or on a port of its own, as the head of renewd.socket says.
fn listen(machine: &Machine, place: &str) {
    machine.configure(|example| {
        example.replacen(
            "[server]\n",
            &format!("[server]\nlisten = [\"{place}\"]\n"),
            1,
        )
    });
}

/// A start without the secret, requests meanwhile, the secret back and the obvious restart.
fn recovers_from_a_missing_credential(machine: &Machine) {
    machine.shell("mv /etc/credstore/renewd.jwt_secret /etc/credstore/away");
    assert!(!machine.succeeds("restart renewd"));
    for _ in 0..30 {
        // Each would start it again where a socket waits, until that unit fails.
        machine.forwarded_within("0.2");
    }
    machine.shell("mv /etc/credstore/away /etc/credstore/renewd.jwt_secret");
    machine.systemctl("restart renewd");
    assert_eq!(machine.forwarded(), Some(200));
}

/// The unit runs with a socket, without one, and with it again: each recovers, and from each the backend gets its old
/// port back.
fn changes_modes_and_goes(debian: Debian) {
    let Some(machine) = Machine::boot(debian) else {
        return;
    };
    let _backend = machine.backend(BACKEND);
    listen(&machine, "systemd:public");
    machine.systemctl("enable renewd renewd.socket");
    machine.systemctl("start renewd");
    assert_eq!(machine.forwarded(), Some(200));
    recovers_from_a_missing_credential(&machine);
    goes(&machine, "disable --now renewd.socket renewd");

    listen(&machine, "[::]:3000");
    machine.systemctl("enable --now renewd");
    recovers_from_a_missing_credential(&machine);
    assert!(!machine.succeeds("is-active renewd.socket"));

    // The service runs, and gets the port nevertheless, as the head of renewd.socket says.
    listen(&machine, "systemd:public");
    machine.systemctl("enable renewd.socket");
    machine.systemctl("restart renewd");
    recovers_from_a_missing_credential(&machine);
    machine.systemctl("is-active renewd.socket");

    listen(&machine, "[::]:3000");
    machine.systemctl("disable --now renewd.socket");
    machine.systemctl("restart renewd");
    assert_eq!(machine.forwarded(), Some(200));
    goes(&machine, "disable --now renewd");
}

/// The way back: renewd is gone for good, and Node can have the public port.
fn goes(machine: &Machine, way: &str) {
    machine.systemctl(way);
    let backend = machine.backend(PUBLIC);
    assert_eq!(machine.forwarded(), Some(200));
    assert!(!machine.succeeds("is-active renewd"));
    drop(backend);
    assert_eq!(machine.forwarded(), None);
    assert!(!machine.succeeds("is-active renewd"), "started again");
}

#[test]
fn with_and_without_its_socket_on_systemd_252_it_recovers_and_gives_the_port_back() {
    changes_modes_and_goes(Debian::Bookworm);
}

#[test]
fn with_and_without_its_socket_on_systemd_257_it_recovers_and_gives_the_port_back() {
    changes_modes_and_goes(Debian::Trixie);
}
