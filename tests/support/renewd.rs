//! The `renewd` binary as a child process: its configuration, its addresses, its log, its metrics.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rustix::process::{Pid, Signal, kill_process};
use sha2::Sha256;

use super::raw::{Client, Response};

/// No local step takes this long.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The App ID in every test configuration.
pub const APP_ID: &str = "970ca35de60c44645bbae8a215061b33";
/// The App Certificate in every test configuration.
pub const APP_CERTIFICATE: &str = "5cfd2fd1755d40ecb72977518be15d3b";
/// The JWT secret in every test configuration.
pub const JWT_SECRET: &str = "a-secret-for-tests-of-enough-bytes";
/// The admin listener's bearer token in every test configuration.
pub const ADMIN_TOKEN: &str = "an-admin-token-for-tests";

/// The changes of a test to the usual configuration.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `upstream.servers`.
    pub backend: Option<SocketAddr>,
    /// TOML added at the end: whole tables that the usual configuration doesn't have.
    pub tables: String,
    /// TOML lines added to `[server]`.
    pub server: String,
    /// TOML lines added to `[token]`.
    pub token: String,
    /// TOML lines added to `[auth.jwt]`.
    pub jwt: String,
    /// TOML lines added to `[upstream]`; with `servers` among them, `backend` isn't used.
    pub upstream: String,
    /// TOML lines added to `[log]`.
    pub log: String,
    /// TOML lines added to `[streams]`.
    pub streams_table: String,
    /// `[accounts]` and `[streams]`, whole, in place of the streams file's.
    pub sources: Option<String>,
    /// `[[stream]]` tables; the default is one live stream `live_show` of `owner`.
    pub streams: Option<String>,
}

/// One live stream: `live_show`, owned by `owner`, with co-host `cohost` and banned viewer `troll`.
pub const STREAMS: &str = r#"
[[stream]]
channel = "live_show"
owner = "owner"
live = true
cohosts = ["cohost"]
banned_viewers = ["troll"]
"#;

/// A running daemon; killed when dropped.
pub struct Renewd {
    child: Child,
    log: Log,
    /// The first public address.
    pub public: SocketAddr,
    /// The admin listener's address.
    pub admin: SocketAddr,
    /// Holds `config.toml` and `streams.toml`.
    pub directory: tempfile::TempDir,
}

/// The daemon's stderr, a JSON object a line, as it comes.
#[derive(Clone, Default)]
pub struct Log(Arc<(Mutex<Vec<serde_json::Value>>, Condvar)>);

impl Log {
    /// Every line so far.
    pub fn lines(&self) -> Vec<serde_json::Value> {
        self.0.0.lock().unwrap().clone()
    }

    /// Waits for a line that `found` picks something from.
    pub fn wait<T>(&self, what: &str, found: impl Fn(&serde_json::Value) -> Option<T>) -> T {
        let (lines, more) = &*self.0;
        let held = lines.lock().unwrap();
        let missing = |lines: &mut Vec<_>| !lines.iter().any(|line| found(line).is_some());
        let (held, _) = more.wait_timeout_while(held, DEADLINE, missing).unwrap();
        let line = held.iter().find_map(&found);
        line.unwrap_or_else(|| panic!("no {what} in the log:\n{held:#?}"))
    }

    fn push(&self, line: &str) {
        let line = serde_json::from_str(line).unwrap_or_else(|_| line.into());
        self.0.0.lock().unwrap().push(line);
        self.0.1.notify_all();
    }
}

impl Renewd {
    /// Starts it and waits until it is ready.
    pub fn start(settings: &Settings) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        write_files(directory.path(), settings);
        Self::start_in(directory, &[], |_| {})
    }

    /// Starts it on the `config.toml` in a directory, with these arguments too.
    pub fn start_in(
        directory: tempfile::TempDir,
        arguments: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let config = directory.path().join("config.toml");
        let run = ["run", "--config", config.to_str().unwrap()];
        let (child, log) = spawn(&[&run, arguments].concat(), prepare);
        Self::ready(child, log, directory)
    }

    /// Waits for a spawned daemon to be ready.
    pub fn ready(child: Child, log: Log, directory: tempfile::TempDir) -> Self {
        let public = log.wait("public address", |line| address(line, "listening"));
        let admin = log.wait("admin address", |line| address(line, "admin listening"));
        log.wait("readiness", |line| (line["msg"] == "ready").then_some(()));
        Self {
            child,
            log,
            public,
            admin,
            directory,
        }
    }

    /// Its log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// A file beside its configuration.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A client of its public port.
    pub fn client(&self) -> Client {
        Client::new(self.public)
    }

    /// POSTs JSON to the public port with a bearer token.
    pub fn post(&self, path: &str, bearer: &str, body: &str) -> Response {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: example.com\r\nAuthorization: Bearer {bearer}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.client().send(request.as_bytes()).expect("an answer")
    }

    /// The metrics page.
    pub fn metrics(&self) -> String {
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let page = Client::new(self.admin)
            .send(request)
            .expect("the metrics page");
        assert_eq!(page.status, 200);
        String::from_utf8(page.body).expect("UTF-8")
    }

    /// The value of one series, as the page writes its name and labels; 0 where it isn't there.
    pub fn metric(&self, series: &str) -> f64 {
        let page = self.metrics();
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Waits until `done` says so.
    pub fn eventually(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let turns = DEADLINE.as_millis() / 20;
        for _ in 0..turns {
            if done(self) {
                return;
            }
            thread::park_timeout(Duration::from_millis(20));
        }
        panic!("never: {what}");
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("a living daemon");
    }

    /// Starts it again on its directory, once it has ended.
    pub fn again(mut self) -> Self {
        self.wait();
        let empty = tempfile::tempdir().expect("a temporary directory");
        let directory = std::mem::replace(&mut self.directory, empty);
        Self::start_in(directory, &[], |_| {})
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        for _ in 0..DEADLINE.as_millis() / 20 {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            thread::park_timeout(Duration::from_millis(20));
        }
        panic!("the daemon doesn't end");
    }
}

impl Drop for Renewd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes `config.toml` and `streams.toml`.
pub fn write_files(directory: &Path, settings: &Settings) {
    let streams = settings.streams.as_deref().unwrap_or(STREAMS);
    private_file(&directory.join("streams.toml"), streams);
    private_file(&directory.join("admin-token"), ADMIN_TOKEN);
    private_file(&directory.join("config.toml"), &configuration(settings));
}

/// The usual configuration with the test's changes.
pub fn configuration(settings: &Settings) -> String {
    let Settings {
        tables,
        server,
        token,
        jwt,
        upstream,
        log,
        streams_table,
        sources,
        ..
    } = settings;
    // A backend that refuses every connection, for tests that need none.
    let backend = settings
        .backend
        .unwrap_or(SocketAddr::from(([127, 0, 0, 1], 1)));
    let listen = if server.contains("listen") {
        ""
    } else {
        "listen = [\"127.0.0.1:0\"]"
    };
    let servers = if upstream.contains("servers") {
        String::new()
    } else {
        format!("servers = [\"http://{backend}\"]\n")
    };
    let mut text = String::new();
    for (table, lines) in [
        ("server", format!("{listen}\nworkers = 2\n{server}")),
        (
            "admin",
            "listen = \"127.0.0.1:0\"\ntoken_file = \"admin-token\"".to_owned(),
        ),
        ("upstream", servers + upstream),
        (
            "agora",
            format!("app_id = \"{APP_ID}\"\napp_certificate = \"{APP_CERTIFICATE}\""),
        ),
        ("token", token.clone()),
        ("auth.jwt", format!("secret = \"{JWT_SECRET}\"\n{jwt}")),
        ("state", "directory = \"state\"".to_owned()),
        ("log", format!("format = \"json\"\n{log}")),
    ] {
        let _ = write!(text, "[{table}]\n{lines}\n\n");
    }
    let file = || {
        format!(
            "[accounts]\nsource = \"none\"\n\n[streams]\nsource = \"file\"\nfile = \"streams.toml\"\n{streams_table}\n\n"
        )
    };
    text += &sources.clone().unwrap_or_else(file);
    text + tables
}

/// Writes a file that only its owner may read, over what was there.
pub fn private_file(path: &Path, content: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, content).expect("a writable directory");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("our file");
}

/// Starts the binary and collects its stderr.
pub fn spawn(arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> (Child, Log) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_renewd"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    prepare(&mut command);
    collect(command)
}

/// [`spawn`] after a line of shell, as `ulimit -n 600`.
pub fn spawn_under(line: &str, arguments: &[&str]) -> (Child, Log) {
    let mut command = Command::new("bash");
    command
        .args(["-c", &format!("{line} && exec \"$@\""), "bash"])
        .arg(env!("CARGO_BIN_EXE_renewd"))
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    collect(command)
}

/// The line of shell under which [`spawn_under`] runs renewd where these mounts are made first, in a namespace of its
/// own. `None` where this machine refuses that.
pub fn under(mounts: &str, root: &Path) -> Option<String> {
    let allowed = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "true"])
        .status();
    if !allowed.is_ok_and(|status| status.success()) {
        eprintln!("skipped: unshare --mount is refused");
        return None;
    }
    Some(format!(
        "cd '{}' && exec unshare --mount --propagation private bash -c '{} && exec \"$@\"' bash \"$@\"",
        root.display(),
        mounts
    ))
}

/// Starts a command whose standard error is a pipe, and collects that.
pub fn collect(mut command: Command) -> (Child, Log) {
    let mut child = command.spawn().expect("the binary");
    let output = BufReader::new(child.stderr.take().expect("a pipe"));
    let log = Log::default();
    let sink = log.clone();
    thread::spawn(move || {
        output
            .lines()
            .map_while(Result::ok)
            .for_each(|line| sink.push(&line));
    });
    (child, log)
}

fn address(line: &serde_json::Value, message: &str) -> Option<SocketAddr> {
    (line["msg"] == message)
        .then(|| line["address"].as_str()?.parse().ok())
        .flatten()
}

/// Seconds since the Unix epoch.
pub fn now() -> u64 {
    renewd::terms::clock::Clock::system().unix_seconds()
}

/// A login of `subject` for an hour.
pub fn login(subject: &str) -> String {
    jwt(&serde_json::json!({"sub": subject, "exp": now() + 3600}))
}

/// A JWT with these claims, signed with [`JWT_SECRET`] (HS256).
pub fn jwt(claims: &serde_json::Value) -> String {
    jwt_with(JWT_SECRET, claims)
}

/// A JWT with these claims, signed with any secret (HS256).
pub fn jwt_with(secret: &str, claims: &serde_json::Value) -> String {
    let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key");
    mac.update(signed.as_bytes());
    format!(
        "{signed}.{}",
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    )
}
