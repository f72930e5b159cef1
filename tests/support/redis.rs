//! A Redis or Valkey server as a child process. Nothing is kept on disk: it comes back empty.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::ports::{free, listens, wait_until_stopped};

/// Ports may be taken between the choice and the server's start.
const TRIES: usize = 5;

/// The server starts in milliseconds, except on a busy machine.
const START_TURNS: u32 = 3000;

/// Arguments with which the server remembers every command.
pub const LOG_ALL: [&str; 4] = [
    "--slowlog-log-slower-than",
    "0",
    "--slowlog-max-len",
    "10000",
];

/// A running server; killed when dropped.
pub struct Redis {
    program: &'static str,
    child: Child,
    flags: Vec<String>,
    directory: tempfile::TempDir,
    /// Where it listens.
    pub address: SocketAddr,
    /// The password of the server's default user.
    pub password: Option<String>,
}

impl Redis {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With these arguments; `{port}` stands for its port in them.
    pub fn with(flags: &[&str]) -> Self {
        Self::of("redis-server", flags)
    }

    /// A Valkey server; `None` where there is none, as on Debian 12.
    pub fn valkey() -> Option<Self> {
        let program = "valkey-server";
        if Command::new(program).arg("--version").output().is_err() {
            eprintln!("skipped: there is no {program}");
            return None;
        }
        Some(Self::of(program, &[]))
    }

    fn of(program: &'static str, flags: &[&str]) -> Self {
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..TRIES {
            let address = free();
            if let Some(child) = spawn(program, &flags, &directory, address) {
                return Self {
                    program,
                    child,
                    flags,
                    directory,
                    address,
                    password: None,
                };
            }
        }
        panic!("{program} (Debian package {program}) doesn't start: {flags:?}");
    }

    /// Three servers that are one cluster, each with a third of the slots.
    pub fn cluster() -> [Self; 3] {
        let nodes = [(); 3].map(|()| {
            // Without a word about it a server's own port decides, which may be too high for that.
            let bus = free().port().to_string();
            Self::with(&["--cluster-enabled", "yes", "--cluster-port", &bus])
        });
        let created = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(nodes.each_ref().map(|node| node.address.to_string()))
            .arg("--cluster-yes")
            .output()
            .expect("redis-cli (Debian package redis-tools)");
        assert!(created.status.success(), "{created:?}");
        for node in &nodes {
            let is_ok = || {
                let info: String = redis::from_redis_value(node.run("CLUSTER INFO")).unwrap();
                info.contains("cluster_state:ok")
            };
            let mut turns = 0..START_TURNS;
            while !is_ok() {
                turns.next().expect("a cluster in time");
                thread::park_timeout(Duration::from_millis(10));
            }
        }
        nodes
    }

    /// For `redis.url`.
    pub fn url(&self) -> String {
        match &self.password {
            Some(password) => format!("redis://:{password}@{}", self.address),
            None => format!("redis://{}", self.address),
        }
    }

    /// Ends it at once, connections and all.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, where it was, without what it held.
    pub fn restart(&mut self) {
        self.kill();
        let again = |_| spawn(self.program, &self.flags, &self.directory, self.address);
        let started = (0..TRIES).find_map(again);
        self.child = started.expect("the server starts again");
    }

    /// Stops it in its tracks: connections stay, and nothing is answered.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        wait_until_stopped(&self.child);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a living server");
    }

    /// Runs a command, as an administrator would; its words stand between blanks.
    pub fn run(&self, command: &str) -> redis::Value {
        self.run_words(&command.split(' ').collect::<Vec<_>>())
    }

    /// Runs a command whose words hold blanks.
    pub fn run_words(&self, words: &[&str]) -> redis::Value {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_connection().expect("a connection");
        let mut command = redis::cmd(words[0]);
        let answer = command.arg(&words[1..]).query(&mut connection);
        answer.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Every key, in order.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = redis::from_redis_value(self.run("KEYS *")).unwrap();
        keys.sort();
        keys
    }

    /// A number of this section of its `INFO`.
    pub fn figure(&self, section: &str, name: &str) -> u64 {
        let info: String = redis::from_redis_value(self.run(&format!("INFO {section}"))).unwrap();
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.expect("a figure").trim().parse().unwrap()
    }

    /// How many scripts it has run on a key with this in its name, if it was started with [`LOG_ALL`].
    pub fn scripts_on(&self, key: &str) -> usize {
        // Some words are no text.
        type Logged = (u64, u64, u64, Vec<Vec<u8>>, String, String);
        let logged = self.run("SLOWLOG GET 10000");
        let logged: Vec<Logged> = redis::from_redis_value(logged).unwrap();
        let commands = logged.iter().map(|(_, _, _, command, ..)| command);
        let on_key = commands.filter(|words| {
            let has = |word: &Vec<u8>| String::from_utf8_lossy(word).contains(key);
            words[0] == b"EVALSHA" && words[1..].iter().any(has)
        });
        on_key.count()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `None` if it ends instead of listening.
fn spawn(
    program: &str,
    flags: &[String],
    directory: &tempfile::TempDir,
    address: SocketAddr,
) -> Option<Child> {
    let port = address.port().to_string();
    let flags = flags.iter().map(|flag| flag.replace("{port}", &port));
    let mut child = Command::new(program)
        .args([
            "--bind",
            "127.0.0.1",
            "--port",
            &port,
            "--save",
            "",
            "--dir",
        ])
        .arg(directory.path())
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} (Debian package {program}): {error}"));
    for _ in 0..START_TURNS {
        // Another process may have taken the port since it was found free.
        if TcpStream::connect(address).is_ok() && listens(&child, address) {
            return Some(child);
        }
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        thread::park_timeout(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}
