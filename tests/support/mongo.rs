//! A MongoDB server as a child process: `SecantusDB`, which speaks the wire protocol on real storage. Data live as long
//! as the value, across restarts of the server.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::options::ClientOptions;
use rustix::process::{Pid, Signal, kill_process};

use super::ports::{free, listens, wait_until_stopped};
use super::python;

/// Ports may be taken between the choice and the server's start.
const TRIES: usize = 5;

/// Python starts slowly on a busy machine.
const START_TURNS: u32 = 3000;

/// A running server; killed when dropped.
pub struct Mongo {
    child: Child,
    flags: Vec<String>,
    storage: tempfile::TempDir,
    /// Where it listens.
    pub address: SocketAddr,
    /// The part before the host in a connection string, as `user:password@`.
    pub credentials: String,
    /// The part after the database in a connection string, from `?` on.
    pub options: String,
}

impl Mongo {
    /// A replica set of one, with change streams and fail points.
    pub fn start() -> Self {
        Self::with(&["--enable-test-commands"])
    }

    /// A server with these arguments.
    pub fn with(flags: &[&str]) -> Self {
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let storage = tempfile::tempdir().unwrap();
        for _ in 0..TRIES {
            let address = free();
            let path = storage.path().to_owned();
            if let Some(child) = spawn(&flags, path, address) {
                return Self {
                    child,
                    flags,
                    storage,
                    address,
                    credentials: String::new(),
                    options: String::new(),
                };
            }
        }
        panic!("the database doesn't start: {flags:?}");
    }

    /// The connection string of a database; an empty name is none.
    pub fn uri(&self, database: &str) -> String {
        let Self {
            credentials,
            address,
            options,
            ..
        } = self;
        format!("mongodb://{credentials}{address}/{database}{options}")
    }

    /// Ends it at once, connections and all.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, where it was, with the data it had.
    pub fn restart(&mut self) {
        self.kill();
        self.start_again();
    }

    fn start_again(&mut self) {
        let started = (0..TRIES).find_map(|_| {
            let path = self.storage.path().to_owned();
            spawn(&self.flags, path, self.address)
        });
        self.child = started.expect("the database starts again");
    }

    /// Starts the server again with other arguments, and with all of its data. The server is stopped in order, because
    /// `SecantusDB` 0.7 may lose the writes of its last tenth of a second when it is killed.
    pub fn restart_with(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self.signal(Signal::TERM);
        let _ = self.child.wait();
        self.start_again();
    }

    /// Stops it in its tracks: connections stay, and nothing is answered.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        wait_until_stopped(&self.child);
    }

    /// Lets the server go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a living server");
    }

    /// Runs a command, as an administrator would.
    pub fn run(&self, database: &str, command: Document) -> Document {
        let uri = self.uri("");
        on_a_runtime(async move {
            let options = ClientOptions::parse(uri).await.unwrap();
            let client = mongodb::Client::with_options(options).unwrap();
            let answer = client.database(database).run_command(command).await;
            answer.unwrap()
        })
    }

    /// Inserts documents as they are, past any model.
    pub fn insert(&self, database: &str, collection: &str, documents: Vec<Document>) {
        self.run(
            database,
            doc! { "insert": collection, "documents": documents },
        );
    }

    /// Makes commands fail from now on (`configureFailPoint`): `data` says which and how.
    pub fn fail(&self, data: Document) {
        let command =
            doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data };
        self.run("admin", command);
    }

    /// Ends the faults that [`Mongo::fail`] began.
    pub fn heal(&self) {
        self.run(
            "admin",
            doc! { "configureFailPoint": "failCommand", "mode": "off" },
        );
    }
}

impl Drop for Mongo {
    fn drop(&mut self) {
        self.kill();
    }
}

fn on_a_runtime<T>(work: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(work)
}

/// `None` if it ends instead of listening.
fn spawn(flags: &[String], storage: PathBuf, address: SocketAddr) -> Option<Child> {
    let packages = python::packages("mongodb");
    let mut child = Command::new("python3")
        .args(["-c", "from secantus.cli import main; main()"])
        .args(["--host", "127.0.0.1", "--port"])
        .arg(address.port().to_string())
        .arg("--storage-path")
        .arg(storage)
        .args(["--cache-size", "64M", "--log-level", "WARNING"])
        .args(flags)
        .env("PYTHONPATH", packages)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("python3 (install Python 3.10 or later)");
    for _ in 0..START_TURNS {
        // Another process may have taken the port since it was found free.
        if TcpStream::connect(address).is_ok() && listens(&child, address) {
            return Some(child);
        }
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        thread::park_timeout(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}
