//! Servers as child processes: a port for them, and whether they listen there or stand still.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Child;
use std::thread;
use std::time::Duration;

use super::random::Numbers;

/// A busy machine's kernel takes its time.
const STOP_TURNS: u32 = 3000;

/// An address that was free a moment ago.
pub fn free() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// An address that was free a moment ago and that the kernel gives to none who asks for any (`ip_local_port_range` begins
/// at 32768), so that a server may leave it for a while.
pub fn free_for_long(numbers: &mut Numbers) -> SocketAddr {
    let mut tried =
        std::iter::repeat_with(|| 20_000 + u16::try_from(numbers.below(12_000)).unwrap());
    let found = tried.find_map(|port| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        listener.local_addr().ok()
    });
    found.unwrap()
}

/// Whether the process itself holds the socket that listens at the address (see `proc_net(5)` and `proc_pid_fd(5)`).
pub fn listens(child: &Child, address: SocketAddr) -> bool {
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

/// Returns when a process that was sent SIGSTOP has stopped: one of its threads is told by the kernel and stops the
/// others, and on a busy machine these go on answering until then.
pub fn wait_until_stopped(child: &Child) {
    for _ in 0..STOP_TURNS {
        if has_stopped(child) {
            return;
        }
        thread::park_timeout(Duration::from_millis(1));
    }
    panic!("the server doesn't stop");
}

fn has_stopped(child: &Child) -> bool {
    let threads = format!("/proc/{}/task", child.id());
    let threads = std::fs::read_dir(threads).expect("a living server");
    threads.flatten().all(|thread| {
        // The state stands behind the name, which ends at the last parenthesis (proc_pid_stat(5)).
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_none_or(|(_, state)| state.starts_with('T'))
    })
}
