//! A MongoDB server as a child process: `SecantusDB`, which speaks the wire protocol on real storage. Data live as long as
//! the value, across restarts of the server.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::options::ClientOptions;
use rustix::process::{Pid, Signal, kill_process};

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
    /// Before the host in a connection string, as `user:password@`.
    pub credentials: String,
    /// After the database in a connection string, from `?` on.
    pub options: String,
}

impl Mongo {
    /// A replica set of one, with change streams and fail points.
    pub fn start() -> Self {
        Self::with(&["--enable-test-commands"])
    }

    /// With these arguments.
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

    /// Starts it again with other arguments, and with all of its data: it is stopped in order, for one that is killed may
    /// lose what it wrote in the last tenth of a second.
    pub fn restart_with(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self.signal(Signal::TERM);
        let _ = self.child.wait();
        self.start_again();
    }

    /// Stops it in its tracks: connections stay, and nothing is answered. Returns when it has stopped: one of its threads
    /// is told by the kernel and stops the others, and on a busy machine these go on answering until then.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        for _ in 0..START_TURNS {
            if self.has_stopped() {
                return;
            }
            thread::park_timeout(Duration::from_millis(1));
        }
        panic!("the server doesn't stop");
    }

    fn has_stopped(&self) -> bool {
        let threads = format!("/proc/{}/task", self.child.id());
        let threads = std::fs::read_dir(threads).expect("a living server");
        threads.flatten().all(|thread| {
            // The state stands behind the name, which ends at the last parenthesis (proc_pid_stat(5)).
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ")
                .is_none_or(|(_, state)| state.starts_with('T'))
        })
    }

    /// Lets it go on.
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

    /// Ends what [`Mongo::fail`] began.
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

fn free() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// Whether the process itself holds the socket that listens at the address (see `proc_net(5)` and `proc_pid_fd(5)`).
fn listens(child: &Child, address: SocketAddr) -> bool {
    const LISTEN: &str = "0A";
    let port = format!(":{:04X}", address.port());
    let sockets = std::fs::read_to_string("/proc/net/tcp").expect("a list of sockets");
    let inodes = sockets.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let at_port = fields.get(1)?.ends_with(&port) && *fields.get(3)? == LISTEN;
        at_port.then(|| format!("socket:[{}]", fields.get(9).copied().unwrap_or_default()))
    });
    let inodes: Vec<_> = inodes.collect();
    let held = std::fs::read_dir(format!("/proc/{}/fd", child.id()));
    let held = held.into_iter().flatten().flatten();
    held.filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .any(|link| {
            inodes
                .iter()
                .any(|inode| link.as_os_str() == inode.as_str())
        })
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
