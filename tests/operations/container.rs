//! renewd as the only program of a container, and beside the backend on a platform with one port. Where namespaces are
//! refused the first of these prints the reason and ends.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::commands::{configuration_of, said};
use crate::support::npm;
use crate::support::renewd::{Renewd, Settings, collect, write_files};

const CONTAINERFILE: &str = include_str!("../../Containerfile");

/// The user of the image.
const USER: &str = "65532";

/// The words of an instruction of the image.
fn words(instruction: &str) -> Vec<String> {
    let (_, rest) = CONTAINERFILE.split_once(instruction).unwrap();
    serde_json::from_str(rest.lines().next().unwrap()).unwrap()
}

/// A container with a daemon in it.
struct Container {
    renewd: Renewd,
    /// Its process 1, as this host numbers it.
    first: Pid,
    /// Where its root is mounted in its own namespace.
    _root: tempfile::TempDir,
    /// Its state, if that is on a volume.
    state: Option<tempfile::TempDir>,
}

impl Container {
    /// Starts one on the usual configuration, with the port from `$PORT`.
    fn start(state: Option<tempfile::TempDir>) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        write_files(
            directory.path(),
            &Settings {
                server: "listen = [\"env:PORT\"]".to_owned(),
                ..Settings::default()
            },
        );
        let file = directory.path().join("config.toml");
        let place = if state.is_some() {
            "/var/lib/renewd"
        } else {
            ""
        };
        let text = fs::read_to_string(&file).unwrap();
        let written = format!("directory = \"{place}\"");
        let text = text.replacen("directory = \"state\"", &written, 1);
        fs::write(&file, text).unwrap();

        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/operations/container");
        let mut command = Command::new(script);
        command.arg(root.path()).arg(env!("CARGO_BIN_EXE_renewd"));
        command.arg(directory.path());
        command.arg(state.as_ref().map_or(Path::new(""), |state| state.path()));
        assert!(CONTAINERFILE.contains(&format!("\nUSER {USER}:{USER}\n")));
        assert_eq!(words("ENTRYPOINT "), ["/usr/bin/renewd"]);
        command
            .args([&format!("{USER}:{USER}"), "0"])
            .args(words("\nCMD "));
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let (mut child, log) = collect(command);
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let Ok(first) = line.trim().parse() else {
            assert_eq!(child.wait().unwrap().code(), Some(77), "{:?}", log.lines());
            eprintln!("skipped: {:?}", log.lines());
            return None;
        };
        Some(Self {
            renewd: Renewd::ready(child, log, directory),
            first: Pid::from_raw(first).unwrap(),
            _root: root,
            state,
        })
    }

    /// A file below `/proc/PID` of its process 1.
    fn proc(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.first.as_raw_nonzero())
    }

    /// Runs `renewd health` as a container's probe.
    fn health(&self) -> (i32, String, String) {
        configuration_of(&self.renewd);
        let file = self.renewd.file("commands.toml");
        std::os::unix::fs::chown(file, USER.parse().ok(), USER.parse().ok()).unwrap();
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first.as_raw_nonzero().to_string()]);
        command.args([
            "--mount", "--pid", "--root", "--wd=/", "--setuid", USER, "--setgid", USER,
        ]);
        command.args(words("start-period=10s CMD "));
        command.args(["--config", "/etc/renewd/commands.toml"]);
        said(&command.env_clear().output().unwrap())
    }

    /// Stops it as a runtime does. Gives the exit status.
    fn stop(mut self) -> Option<i32> {
        kill_process(self.first, Signal::TERM).unwrap();
        self.renewd.wait().code()
    }
}

#[test]
fn as_process_one_of_a_read_only_container_it_serves_is_probed_and_stops_when_told() {
    for volume in [true, false] {
        let state = volume.then(|| tempfile::tempdir().unwrap());
        let Some(container) = Container::start(state) else {
            return;
        };
        let status = fs::read_to_string(container.proc("status")).unwrap();
        let of = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(of("NSpid:").ends_with("\t1"), "{status}");
        assert_eq!(of("Uid:").matches(USER).count(), 4, "{status}");
        assert_eq!(of("CapEff:"), "CapEff:\t0000000000000000", "{status}");
        for path in ["root/file", "root/usr/bin/file", "root/etc/renewd/file"] {
            assert!(fs::write(container.proc(path), "").is_err(), "{path}");
        }

        assert_eq!(container.renewd.ask_for_token().status, 200);
        let (healthy, told, said) = container.health();
        assert_eq!((healthy, told.as_str()), (0, "ready\n"), "{said}");
        let state = &container.state;
        let kept = |name: &str| state.as_ref().map(|state| state.path().join(name).exists());
        assert_eq!(kept("last-valid.toml"), volume.then_some(true));
        assert_eq!(container.renewd.whole("renewd_state_writable"), 1);
        assert_eq!(container.stop(), Some(0));
    }
}

/// The script that docs/install.md gives for a platform, with a real backend.
fn platform_script() -> String {
    let page = include_str!("../../docs/install.md");
    let (_, script) = page.split_once("#!/bin/bash\n").unwrap();
    let (script, _) = script.split_once("```").unwrap();
    let server = npm::package("node").join("server.js");
    // The server ends with its standard input, which a script takes away from what it leaves in the background.
    let backend = format!("node {} backend 0 <&3", server.display());
    let script = script.replacen("node server.js", &backend, 1);
    let script = script.replacen(
        "renewd run",
        &format!("{} run", env!("CARGO_BIN_EXE_renewd")),
        1,
    );
    assert!(
        script.contains(&backend) && script.contains(env!("CARGO_BIN_EXE_renewd")),
        "{script}"
    );
    format!("exec 3<&0\n{script}")
}

/// The direct children of a process whose program has this name.
fn children(of: u32, name: &str) -> Vec<Pid> {
    let children = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap();
    let children = children.split_whitespace().filter(|child| {
        let own = fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
        own.trim_end() == name
    });
    children
        .filter_map(|child| Pid::from_raw(child.parse().ok()?))
        .collect()
}

#[test]
fn on_a_platform_with_one_port_the_script_ends_both_when_told_and_when_either_ends() {
    for ended in ["bash", "node", "renewd"] {
        let directory = tempfile::tempdir().unwrap();
        let server = "listen = [\"env:PORT\"]".to_owned();
        write_files(
            directory.path(),
            &Settings {
                server,
                ..Settings::default()
            },
        );
        let mut command = Command::new("bash");
        command.args(["-c", &platform_script()]).env("PORT", "0");
        command.current_dir(directory.path());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let (mut child, log) = collect(command);
        let _backends = child.stdin.take();
        let mut renewd = Renewd::ready(child, log, directory);
        assert_eq!(renewd.ask_for_token().status, 200);
        renewd.eventually("both run", |renewd| {
            let runs = |name: &str| children(renewd.pid(), name).len() == 1;
            runs("node") && runs("renewd")
        });
        match children(renewd.pid(), ended).first() {
            Some(child) => kill_process(*child, Signal::KILL).unwrap(),
            None => renewd.signal(Signal::TERM),
        }
        let both = ["node", "renewd"].map(|name| children(renewd.pid(), name));
        renewd.wait();
        for left in both.concat() {
            let process = format!("/proc/{}", left.as_raw_nonzero());
            assert!(!Path::new(&process).exists(), "{ended}: {left:?} is left");
        }
    }
}
