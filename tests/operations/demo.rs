//! `renewd demo`: the lines that it prints do what the headings above them say, and nothing is left when it ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that lacks something fails

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;

use crate::support::renewd::DEADLINE;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A running demo in a temporary directory of its own; killed when dropped.
struct Demo {
    child: Child,
    /// The lines in their order.
    lines: Vec<String>,
    temporary: tempfile::TempDir,
}

impl Demo {
    /// Starts it and reads what it prints.
    fn start() -> Self {
        // A directory whose name a shell would take apart, to see that the lines are quoted where they must be.
        let temporary = tempfile::Builder::new()
            .prefix("it's a $demo ")
            .tempdir()
            .unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_renewd"))
            .arg("demo")
            .env("TMPDIR", temporary.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = printed(child.stdout.take().unwrap());
        Self {
            child,
            lines,
            temporary,
        }
    }

    /// The output of the line below this heading, pasted into a shell.
    fn paste(&self, heading: &str) -> String {
        let above = |line: &&String| line.starts_with("# ") && line.contains(heading);
        let mut from_heading = self.lines.iter().skip_while(|line| !above(line));
        let line = from_heading.nth(1).unwrap();
        let output = Command::new("bash").args(["-c", line]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{line}\n{said}");
        said
    }

    /// The answer to a line, as JSON.
    fn paste_for_json(&self, heading: &str) -> Value {
        let answer = self.paste(heading);
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// The files in the demo's temporary directory.
    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.temporary.path()).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Ends the demo as Ctrl-C does, and gives its output on stderr.
    fn interrupt(mut self) -> (ExitStatus, String, Vec<PathBuf>) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let mut stderr = self.child.stderr.take().unwrap();
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(std::io::read_to_string(&mut stderr)));
        let said = receiver.recv_timeout(DEADLINE).expect("an end").unwrap();
        (self.child.wait().unwrap(), said, self.files())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The whole output: the last line is the one about the metrics.
fn printed(stdout: ChildStdout) -> Vec<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        lines.for_each(|line| drop(sender.send(line)));
    });
    let mut lines = Vec::new();
    while !lines
        .last()
        .is_some_and(|line: &String| line.contains("/metrics"))
    {
        let line = receiver.recv_timeout(DEADLINE);
        lines.push(line.unwrap_or_else(|error| panic!("{error}: {lines:#?}")));
    }
    lines
}

#[test]
fn the_first_line_mints_a_viewers_token_for_one_hour() {
    let demo = Demo::start();
    let first = demo.lines.iter().find(|line| line.starts_with("curl "));
    let output = Command::new("bash").args(["-c", first.unwrap()]).output();
    let answer: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    assert_eq!(answer["success"], true, "{answer}");
    let token = answer["data"]["token"].as_str().unwrap();
    assert!(token.starts_with("007"), "{token}");
    let report = Command::new(env!("CARGO_BIN_EXE_renewd"))
        .args([
            "token",
            "inspect",
            token,
            "--channel",
            "live_demo",
            "--uid",
            "77",
        ])
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    // Without the demo's certificate `token inspect` can't confirm the token, but finds nothing against it.
    assert_eq!(report["signature"], "not_checked", "{report}");
    assert_eq!(report["problems"], serde_json::json!([]), "{report}");
    assert_eq!(report["expire"], 3600, "{report}");
}

#[test]
fn each_line_shows_what_stands_above_it() {
    let demo = Demo::start();
    let mint = demo.paste_for_json("A viewer's token");
    assert_eq!(mint["data"]["role"], "subscriber", "{mint}");
    let refresh = demo.paste_for_json("The broadcaster renews");
    assert_eq!(refresh["data"]["role"], "publisher", "{refresh}");
    let forwarded = demo.paste_for_json("the backend's");
    assert_eq!(forwarded["data"][0]["agoraChannelName"], "live_demo");
    let refused = demo.paste("403");
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    assert!(refused.contains(r#""code":"not_owner""#), "{refused}");
    // On a slow machine a slot comes free meanwhile, and the 21st is let in.
    let statuses = demo.paste("429");
    let count = |status| {
        statuses
            .split_whitespace()
            .filter(|seen| *seen == status)
            .count()
    };
    assert!(count("429") > 0 && count("200") >= 20, "{statuses}");
    assert_eq!(count("429") + count("200"), 25, "{statuses}");
    let metrics = demo.paste("Prometheus");
    for series in [
        r#"{endpoint="token",role="subscriber",outcome="ok",class="ok"} 2"#,
        r#"{endpoint="refresh",role="publisher",outcome="ok",class="ok"} 1"#,
        r#"{endpoint="token",role="publisher",outcome="not_owner",class="denied"} 1"#,
        r#"outcome="rate_limited",class="client"}"#,
    ] {
        assert!(metrics.contains(series), "{series} isn't in\n{metrics}");
    }
}

#[test]
fn the_status_page_opens_with_the_token_that_is_printed() {
    let demo = Demo::start();
    let line = demo.lines.iter().find(|line| line.contains("status page"));
    let mut words = line.unwrap().split_whitespace();
    let address = words.find(|word| word.starts_with("http://")).unwrap();
    let login = format!("Authorization: Bearer {}", words.next_back().unwrap());
    let output = Command::new("curl")
        .args(["-sf", &format!("{address}v1/status"), "-H", &login])
        .output()
        .unwrap();
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["phase"], "running");
}

#[test]
fn ctrl_c_ends_it_and_leaves_nothing() {
    let demo = Demo::start();
    assert_eq!(demo.files().len(), 1, "its directory");
    let (status, said, left) = demo.interrupt();
    assert_eq!(status.code(), Some(0), "{said}");
    assert_eq!(left, Vec::<PathBuf>::new());
    // A newcomer sees the lines above, and no warning about settings that the demo means to be so.
    assert_eq!(said, "");
}
