//! Socket.io clients of any version, which `tests/express/talkers.js` runs: each step of a test is a line to it.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use super::npm;

/// The transports of a client: one of them, or the first and then the second.
pub const TRANSPORTS: [&[&str]; 3] = [&["websocket"], &["polling"], &["polling", "websocket"]];

/// The clients of one test; they leave when it is dropped.
pub struct Talkers {
    /// The transports of sockets that are opened by [`Talkers::open`].
    pub transports: &'static [&'static str],
    child: Child,
    input: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Talkers {
    /// None is connected yet.
    pub fn start() -> Self {
        let directory = npm::package("express");
        npm::ensure(&directory);
        let mut child = Command::new("node")
            .arg("talkers.js")
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node: `tests/run --install` installs it");
        let input = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self {
            transports: TRANSPORTS[0],
            child,
            input,
            answers,
        }
    }

    /// Takes one step, as `talkers.js` describes it, and waits for its answer.
    pub fn step(&mut self, step: &Value) -> Value {
        writeln!(self.input, "{step}").expect("the clients");
        let answer = self.answers.next();
        let answer = answer.unwrap_or_else(|| panic!("the clients are gone: {step}"));
        serde_json::from_str(&answer.expect("UTF-8")).expect("JSON")
    }

    /// Opens a socket of version 4; `options` are added to its own.
    pub fn open(&mut self, name: &str, address: SocketAddr, query: &str, options: &Value) {
        let mut all = json!({ "transports": self.transports });
        for (name, value) in options.as_object().into_iter().flatten() {
            all[name] = value.clone();
        }
        let url = format!("http://{address}/{query}");
        let opened = self.step(&json!({ "open": name, "url": url, "options": all }));
        assert_eq!(opened["opened"], json!(self.transports.last()), "{name}");
    }

    /// Opens a namespace on the connection of a socket that is there.
    pub fn open_over(&mut self, name: &str, over: &str, namespace: &str, options: &Value) {
        let step =
            json!({ "open": name, "over": over, "namespace": namespace, "options": options });
        assert!(self.step(&step)["opened"].is_string(), "{name}");
    }

    /// The first argument of an event's acknowledgement.
    pub fn ask(&mut self, name: &str, event: &str, what: &Value) -> Value {
        let answer = self.step(&json!({ "ask": name, "event": event, "with": [what] }));
        answer["got"][0].clone()
    }

    /// Sends an event.
    pub fn emit(&mut self, name: &str, event: &str, what: &Value) {
        self.step(&json!({ "emit": name, "event": event, "with": [what] }));
    }

    /// The first argument of the next event of this name.
    pub fn wait(&mut self, name: &str, event: &str) -> Value {
        let answer = self.step(&json!({ "wait": name, "event": event }));
        answer["got"][0].clone()
    }
}

impl Drop for Talkers {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
