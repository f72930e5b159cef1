//! A booted Debian of its own: a real systemd in namespaces, with the binary and the units installed as README says.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use super::node::Node;
use super::renewd::{APP_CERTIFICATE, DEADLINE, JWT_SECRET};

/// Where the backend listens behind renewd, as in the shipped example.
pub const BACKEND: u16 = 3001;

/// Where renewd listens, and the backend did before it.
pub const PUBLIC: u16 = 3000;

/// Which Debian, and so which systemd.
#[derive(Clone, Copy, Debug)]
pub enum Debian {
    /// 12, systemd 252.
    Bookworm,
    /// 13, systemd 257.
    Trixie,
}

/// Exit status of the scripts where this user or kernel can't do such a thing; the reason stands on stderr.
const REFUSED: i32 = 77;

/// A running machine; gone when dropped.
pub struct Machine {
    script: Child,
    /// Its process 1, as this host numbers it.
    init: u32,
    /// Its `/srv/files`.
    files: tempfile::TempDir,
}

impl Debian {
    fn root(self) -> Option<PathBuf> {
        let name = match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        };
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("systemd-{name}"));
        let made = Command::new(script("root")).arg(name).arg(&root).output();
        let made = made.expect("tests/systemd/root");
        let said = String::from_utf8_lossy(&made.stderr);
        if made.status.code() == Some(REFUSED) {
            eprintln!("skipped: {said}");
            return None;
        }
        assert!(made.status.success(), "{said}");
        Some(root)
    }
}

fn script(name: &str) -> PathBuf {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/systemd");
    Path::new(directory).join(name)
}

impl Machine {
    /// Boots it, with renewd installed, configured and not yet started. `None`, and a reason on stderr, where mounts or
    /// namespaces are refused.
    pub fn boot(debian: Debian) -> Option<Self> {
        let machine = Self::boot_with(debian, env!("CARGO_BIN_EXE_renewd"))?;
        machine.install();
        Some(machine)
    }

    /// Boots it without renewd, for a package that brings it.
    pub fn boot_bare(debian: Debian) -> Option<Self> {
        Self::boot_with(debian, "")
    }

    fn boot_with(debian: Debian, binary: &str) -> Option<Self> {
        let root = debian.root()?;
        let files = tempfile::tempdir().expect("a temporary directory");
        let mut script = Command::new(script("boot"))
            .arg(root)
            .arg(binary)
            .arg(files.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tests/systemd/boot");
        let mut line = String::new();
        BufReader::new(script.stdout.take().expect("a pipe"))
            .read_line(&mut line)
            .expect("its output");
        let Ok(init) = line.trim().parse() else {
            let mut said = String::new();
            let mut stderr = script.stderr.take().expect("a pipe");
            stderr.read_to_string(&mut said).expect("its words");
            let status = script.wait().expect("a child");
            assert_eq!(status.code(), Some(REFUSED), "{said}");
            eprintln!("skipped: {said}");
            return None;
        };
        let machine = Self {
            script,
            init,
            files,
        };
        machine.eventually("systemd answers", |machine| {
            machine.run(&["systemctl", "list-jobs"]).status.success()
        });
        machine.ok(&["systemctl", "is-system-running", "--wait"]);
        Some(machine)
    }

    /// README's steps 1 and 2, with the shipped example as the configuration.
    fn install(&self) {
        let units = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd");
        for unit in ["renewd.service", "renewd.socket", "renewd.sysusers.conf"] {
            fs::copy(Path::new(units).join(unit), self.files.path().join(unit)).expect("a copy");
        }
        self.shell(
            "cd /srv/files
             install -m 644 renewd.service renewd.socket /etc/systemd/system/
             install -D -m 644 renewd.sysusers.conf /usr/lib/sysusers.d/renewd.conf
             systemd-sysusers
             systemctl daemon-reload
             install -d -m 700 /etc/credstore
             install -d -m 755 /etc/renewd",
        );
        self.configured();
    }

    /// The secrets and the shipped example, once the user and the directories are there.
    pub fn configured(&self) {
        self.secret("agora_certificate", APP_CERTIFICATE);
        self.secret("jwt_secret", JWT_SECRET);
        self.secret("mongodb_uri", "mongodb://127.0.0.1:27017/live");
        self.write("/etc/renewd/admin-token", "an-admin-token", "640 -g renewd");
        self.configure(|example| example);
    }

    /// Writes the shipped example with an App ID and this change.
    pub fn configure(&self, change: impl FnOnce(String) -> String) {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config.example.toml");
        let example = fs::read_to_string(example).expect("the example");
        let text = example.replace(&"0".repeat(32), super::renewd::APP_ID);
        self.write("/etc/renewd/config.toml", &change(text), "640 -g renewd");
    }

    /// Puts a credential where `LoadCredential=` looks for it.
    pub fn secret(&self, name: &str, value: &str) {
        self.write(&format!("/etc/credstore/renewd.{name}"), value, "400");
    }

    /// Writes a file of the machine with `install -m MODE`.
    pub fn write(&self, path: &str, content: &str, mode: &str) {
        fs::write(self.files.path().join("content"), content).expect("a file");
        self.shell(&format!("install -m {mode} /srv/files/content {path}"));
    }

    /// The directory of this host that is the machine's `/srv/files`.
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    /// The path that a file of this host gets in the machine.
    pub fn bring(&self, file: &Path) -> String {
        let name = file.file_name().expect("a file").to_str().expect("UTF-8");
        fs::copy(file, self.files.path().join(name)).expect("a copy");
        format!("/srv/files/{name}")
    }

    /// Runs a program in the machine, as root.
    pub fn run(&self, command: &[&str]) -> Output {
        Command::new("nsenter")
            .args(["--target", &self.init.to_string(), "--all"])
            .args(command)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .output()
            .expect("nsenter (Debian: util-linux)")
    }

    /// Runs a program that must succeed; gives its standard output.
    pub fn ok(&self, command: &[&str]) -> String {
        let output = self.run(command);
        assert!(
            output.status.success(),
            "{command:?}: {}\n{}\n{}",
            said(&output),
            said(&self.run(&["systemctl", "status", "--no-pager", "renewd.service"])),
            self.journal("cat")
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs lines of shell, each of which must succeed.
    pub fn shell(&self, lines: &str) {
        self.ok(&["sh", "-euc", lines]);
    }

    /// `systemctl` with these words, which must succeed.
    pub fn systemctl(&self, words: &str) -> String {
        let words: Vec<&str> = ["systemctl"].into_iter().chain(words.split(' ')).collect();
        self.ok(&words)
    }

    /// Whether `systemctl` with these words succeeds.
    pub fn succeeds(&self, words: &str) -> bool {
        let words: Vec<&str> = ["systemctl"].into_iter().chain(words.split(' ')).collect();
        self.run(&words).status.success()
    }

    /// The lines that renewd and systemd wrote to the journal about the unit, in one of `journalctl`'s formats.
    pub fn journal(&self, format: &str) -> String {
        self.run(&["journalctl", "--sync"]);
        let output = self.run(&["journalctl", "--unit=renewd", "--no-pager", "-o", format]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A thread of a process, both as this host numbers them; the process is given as the machine numbers it.
    pub fn thread(&self, process: &str, name: &str) -> String {
        let namespace = |process: &Path| fs::read_link(process.join("ns/pid")).ok();
        let own = namespace(Path::new(&format!("/proc/{}", self.init)));
        let entries = |directory: &Path| {
            let entries = fs::read_dir(directory).expect("a directory of /proc");
            entries.map(|entry| entry.expect("an entry").path())
        };
        let is_it = |path: &PathBuf| {
            let status = fs::read_to_string(path.join("status")).unwrap_or_default();
            let numbers = status.lines().find(|line| line.starts_with("NSpid:"));
            let number = numbers.and_then(|line| line.split_whitespace().last());
            number == Some(process) && namespace(path) == own
        };
        let process = entries(Path::new("/proc")).find(is_it).expect("a process");
        let mut threads = entries(&process.join("task"));
        let named = |thread: &PathBuf| {
            let own = fs::read_to_string(thread.join("comm"));
            own.is_ok_and(|own| own.trim_end() == name)
        };
        let thread = threads.find(named).expect("a thread of this name");
        let number = thread.file_name().expect("its number");
        number.to_string_lossy().into_owned()
    }

    /// A program of this host in the machine's network.
    pub fn in_its_network(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--net", program]);
        command
    }

    /// The status of renewd's, or the backend's, answer to a forwarded request; `None` where no answer comes.
    pub fn forwarded(&self) -> Option<u16> {
        self.forwarded_within("10")
    }

    /// The same within so many seconds.
    pub fn forwarded_within(&self, seconds: &str) -> Option<u16> {
        self.curl(&["--max-time", seconds, "http://127.0.0.1:3000/which"])
    }

    /// The status of the answer to a token request with this login; `None` where no answer comes.
    pub fn token(&self, login: &str) -> Option<u16> {
        let authorization = format!("Authorization: Bearer {login}");
        self.curl(&[
            "--max-time",
            "10",
            "--header",
            &authorization,
            "--json",
            r#"{"channelName":"live_1","uid":77}"#,
            "http://127.0.0.1:3000/api/live/token",
        ])
    }

    fn curl(&self, arguments: &[&str]) -> Option<u16> {
        let output = self
            .in_its_network("curl")
            .args(["--silent", "--output", "/dev/null"])
            .args(["--write-out", "%{http_code}"])
            .args(arguments)
            .output()
            .expect("curl, which tests/run installs");
        let status = String::from_utf8_lossy(&output.stdout).parse().ok();
        status.filter(|_| output.status.success())
    }

    /// Starts a real backend on a port of the machine.
    pub fn backend(&self, port: u16) -> Node {
        Node::start_by(
            self.in_its_network("node"),
            "backend",
            &port.to_string(),
            &[],
        )
    }

    /// Waits until `done` says so.
    pub fn eventually(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..DEADLINE.as_millis() / 20 {
            if done(self) {
                return;
            }
            thread::park_timeout(Duration::from_millis(20));
        }
        panic!("never: {what}\n{}", self.journal("cat"));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The end of its input ends the machine; the script then takes away what it made.
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

/// The text of both outputs of a program.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
