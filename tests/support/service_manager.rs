//! The service manager's side of the protocol, for tests: a real notify socket, and sockets passed by
//! `systemd-socket-activate` or by hand.

// Each test program uses a part of this, and fails by panicking.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// Longer than anything here takes on a busy machine; ends a test that would wait for ever.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The socket that `$NOTIFY_SOCKET` names.
pub struct NotifySocket {
    path: PathBuf,
    socket: UnixDatagram,
}

impl NotifySocket {
    /// A socket in `directory`.
    pub fn bind(directory: &Path) -> Self {
        let path = directory.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { path, socket }
    }

    /// The value of `$NOTIFY_SOCKET`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next message, whole.
    pub fn receive(&self) -> String {
        self.receive_before_deadline()
            .expect("a message before the deadline")
    }

    /// The next message that carries `assignment` (as `READY=1`) on a line of its own; others are passed over.
    pub fn receive_until(&self, assignment: &str) -> String {
        let mut passed = Vec::new();
        loop {
            let Ok(message) = self.receive_before_deadline() else {
                panic!("no {assignment}, only {passed:?}");
            };
            if message.lines().any(|line| line == assignment) {
                return message;
            }
            passed.push(message);
        }
    }

    /// The messages that were sent and not yet received.
    pub fn pending(&self) -> Vec<String> {
        self.socket.set_nonblocking(true).unwrap();
        let pending = std::iter::from_fn(|| self.receive_before_deadline().ok()).collect();
        self.socket.set_nonblocking(false).unwrap();
        pending
    }

    fn receive_before_deadline(&self) -> io::Result<String> {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes)?;
        Ok(String::from_utf8(bytes[..length].to_vec()).unwrap())
    }
}

/// Ends the process when a test ends, passed or not.
pub struct Running(pub Child);

impl Running {
    /// Waits for the process to exit by itself and gives its code; `None` if a signal ended it.
    pub fn exit_code(mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }

    /// Sends `signal`, as `systemctl kill` would.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.0.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The process may have exited already, as it should.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `systemd-socket-activate`, which listens, waits for the first connection (or datagram), and becomes `program`. This
/// program of systemd knows no port 0: for TCP see [`pass_tcp`].
pub fn socket_activate(options: &[&str], program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("systemd-socket-activate");
    command.args(options).arg(program).args(arguments);
    command
}

/// `program` with `listener` as its only inherited socket, named `name`.
pub fn pass_tcp(listener: &TcpListener, name: &str, program: &Path, arguments: &[&str]) -> Command {
    rustix::io::fcntl_setfd(listener, rustix::io::FdFlags::empty()).unwrap();
    // The shell's process id becomes the program's; bash, because other shells know one-digit descriptors only.
    let script = format!(
        "exec 3<&{} && LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={name} exec \"$@\"",
        listener.as_raw_fd()
    );
    let mut command = Command::new("bash");
    command
        .args(["-c", &script, "bash"])
        .arg(program)
        .args(arguments);
    command
}

/// Connects as soon as `systemd-socket-activate` listens, which it doesn't announce.
pub fn connect_when_listening<T>(connect: impl Fn() -> io::Result<T>) -> T {
    loop {
        if let Ok(connected) = connect() {
            return connected;
        }
        std::thread::yield_now();
    }
}
