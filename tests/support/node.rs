//! `tests/node/server.js`, several times: backends that say which one they are; `tests/express/sticky.js`, which does
//! so over socket.io.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::npm;
use super::raw::Client;

/// A running Node server; killed when dropped, and by the end of its standard input when the test process dies.
pub struct Node {
    child: Child,
    /// Its name in its answers.
    pub name: String,
    /// Where it listens, unless on a unix socket.
    pub address: SocketAddr,
}

impl Node {
    /// Starts a server on a free port.
    pub fn start(name: &str) -> Self {
        Self::start_at(name, "0", &[])
    }

    /// Starts a server on this port or unix socket.
    pub fn start_at(name: &str, place: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_by(Command::new("node"), name, place, environment)
    }

    /// A socket.io server on this port; 0 is a free one.
    pub fn socket_io(name: &str, port: u16) -> Self {
        let package = npm::package("express");
        npm::ensure(&package);
        let (node, script) = (Command::new("node"), package.join("sticky.js"));
        Self::run(node, &script, name, &port.to_string(), &[])
    }

    /// Starts a server by this command, which becomes Node with the arguments that follow.
    pub fn start_by(node: Command, name: &str, place: &str, environment: &[(&str, &str)]) -> Self {
        let script = npm::package("node").join("server.js");
        Self::run(node, &script, name, place, environment)
    }

    fn run(
        mut node: Command,
        script: &Path,
        name: &str,
        place: &str,
        environment: &[(&str, &str)],
    ) -> Self {
        let mut child = node
            .arg(script)
            .args([name, place])
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node: `tests/run --install` installs it");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .expect("its output");
        assert!(!line.is_empty(), "{name} doesn't listen on {place}");
        let port = line.trim().parse().unwrap_or(0);
        Self {
            child,
            name: name.to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
        }
    }

    /// Another one in its place.
    pub fn start_again(&self) -> Self {
        Self::start_at(&self.name, &self.address.port().to_string(), &[])
    }

    /// Its entry in `upstream.servers`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Asks it, not by way of renewd.
    pub fn ask(&self, target: &str) -> Value {
        ask(&mut Client::new(self.address), target)
    }

    /// Ends it at once, connections and all.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child");
        self.child.wait().expect("a child");
    }

    /// Lets it finish what it has begun, and waits for its end.
    pub fn stop(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("a living server");
        let status = self.child.wait().expect("a child");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port of the loopback interface on which no process listens.
pub fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}

/// `GET`s a target; the answer must be a server's own.
pub fn ask(client: &mut Client, target: &str) -> Value {
    let request = format!("GET {target} HTTP/1.1\r\nHost: app.example\r\n\r\n");
    let answer = client.send(request.as_bytes()).expect("an answer");
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(answer.status, 200, "{body}");
    answer.json()
}

/// The `[upstream]` lines for these servers.
pub fn servers<'u>(urls: impl IntoIterator<Item = &'u str>, lines: &str) -> String {
    let urls: Vec<&str> = urls.into_iter().collect();
    format!("servers = {urls:?}\n{lines}")
}
