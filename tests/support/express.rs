//! The Express backend of `tests/express` as a child process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::npm;

/// Starting Node on a busy machine takes a second or two.
const START_DEADLINE: Duration = Duration::from_mins(1);

/// A running backend; killed when dropped, and by the end of its standard input when the test process dies.
pub struct Express {
    child: Child,
    /// Where it listens, on the loopback interface.
    pub address: SocketAddr,
}

/// Which Express.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 4.18, the current app's.
    Four,
    /// 5.
    Five,
}

impl Version {
    fn as_str(self) -> &'static str {
        match self {
            Self::Four => "4",
            Self::Five => "5",
        }
    }
}

impl Express {
    /// Starts the backend on a free port; `environment` as `app.js` documents it.
    pub fn start(version: Version, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new("node");
        command
            .arg("app.js")
            .env("EXPRESS", version.as_str())
            .env("HOST", "127.0.0.1")
            .env("PORT", "0")
            .envs(environment.iter().copied());
        Self::run(command)
    }

    /// Starts `mongoose_app.js`, the app's way with its database, on a free port.
    pub fn with_database(uri: &str) -> Self {
        let mut command = Command::new("node");
        command
            .arg("mongoose_app.js")
            .env("MONGODB_URI", uri)
            .env("JWT_SECRET", super::renewd::JWT_SECRET);
        Self::run(command)
    }

    /// Starts `closed.js`, with a handler for each way to route, on a free port.
    pub fn closed(version: Version) -> Self {
        let mut command = Command::new("node");
        command.arg("closed.js").env("EXPRESS", version.as_str());
        Self::run(command)
    }

    /// Starts `echo.js`, a WebSocket server without Express, on a free port.
    pub fn echo() -> Self {
        let mut command = Command::new("node");
        command.arg("echo.js");
        Self::run(command)
    }

    fn run(mut command: Command) -> Self {
        let directory = npm::package("express");
        npm::ensure(&directory);
        let mut child = command
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node: `tests/run --install` installs it");

        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // No test waits for lines once the port is known; reading goes on so that the child never blocks.
                let _ = sender.send(line);
            }
        });
        let Ok(line) = receiver.recv_timeout(START_DEADLINE) else {
            let _ = child.kill();
            panic!("the backend didn't start: {:?}", child.wait());
        };
        let line: serde_json::Value = serde_json::from_str(&line).expect("one line of JSON");
        let port = line["port"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok());
        let address = SocketAddr::from(([127, 0, 0, 1], port.expect("a port")));
        Self { child, address }
    }
}

impl Drop for Express {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
