//! systemd's protocols: sockets that it passes (`sd_listen_fds(3)`), and the notifications that renewd sends:
//! readiness, reloads, status, watchdog (`sd_notify(3)`, `sd_watchdog_enabled(3)`).
//!
//! Keeps true: every RELOADING=1 is followed by READY=1, however the reload ends; nothing is sent, and nothing fails,
//! where no service manager asks. This is the only file with unsafe code: it takes over a descriptor by its number.
//! Must not know: what is served on a socket, or what makes the daemon ready.

use std::collections::HashMap;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use socket2::{Domain, Socket, Type};

use crate::terms::clock::Clock;

/// Listening sockets by their `FileDescriptorName=`; several `ListenStream=` lines of one unit share a name. Each is
/// nonblocking, and child processes don't inherit it.
pub(crate) type PassedSockets = HashMap<String, Vec<Socket>>;

/// The service manager passed something that is no listening socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenersError {
    /// The environment and the descriptors contradict each other.
    #[error("can't take the sockets that the service manager passed: {0}")]
    Environment(#[source] io::Error),
    /// A datagram socket, a connection (`Accept=yes`) or a FIFO.
    #[error(
        "the descriptor `{name}` passed by the service manager is no listening stream socket: {what}"
    )]
    NotListening {
        /// The socket's `FileDescriptorName=`.
        name: String,
        /// The kind of descriptor that it is instead.
        what: String,
    },
}

/// Takes over the sockets of `LISTEN_FDS`. The map is empty where none were passed, where they were passed to another
/// process (`LISTEN_PID`), and after the first call. Call it first in `main`, before anything else opens descriptors.
///
/// The variables stay: `LISTEN_PID` keeps a child process from using them, and changing the environment is unsound as
/// soon as there are threads.
pub fn take_listeners() -> Result<PassedSockets, ListenersError> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(PassedSockets::new());
    }
    let passed = sd_notify::listen_fds_with_names().map_err(ListenersError::Environment);
    let mut listeners = PassedSockets::new();
    for (descriptor, name) in passed? {
        // SAFETY: `LISTEN_PID` names this process, so by sd_listen_fds(3) the descriptor is open and belongs to it
        // alone; it was just seen open (setting close-on-exec succeeded), and `TAKEN` lets it be owned only once.
        #[allow(unsafe_code)]
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let socket = Socket::from(descriptor);
        if let Err(what) = check_listener(&socket) {
            return Err(ListenersError::NotListening { name, what });
        }
        listeners.entry(name).or_default().push(socket);
    }
    Ok(listeners)
}

fn check_listener(socket: &Socket) -> Result<(), String> {
    let failed = |error: io::Error| error.to_string();
    // This first call fails on a descriptor that is no socket.
    let kind = socket.r#type().map_err(failed)?;
    if kind != Type::STREAM {
        return Err(format!("its type is {kind:?}"));
    }
    if !socket.is_listener().map_err(failed)? {
        return Err("it does not listen".to_owned());
    }
    let domain = socket.domain().map_err(failed)?;
    // The unit file may say otherwise, and tokio doesn't check (`TcpListener::from_std`): a blocking accept would
    // stop a whole worker.
    socket.set_nonblocking(true).map_err(failed)?;
    if ![Domain::UNIX, Domain::IPV4, Domain::IPV6].contains(&domain) {
        return Err(format!("its address family is {domain:?}"));
    }
    Ok(())
}

/// Sends `sd_notify(3)` messages to `$NOTIFY_SOCKET`, or nowhere without one. A message that can't be sent is logged
/// and otherwise ignored: serving goes on.
#[derive(Clone, Debug)]
pub struct Notifier {
    watchdog: Option<Duration>,
}

impl Notifier {
    /// For the service manager that started this process, if one did.
    pub fn from_environment() -> Self {
        Self {
            watchdog: sd_notify::watchdog_enabled().filter(|period| !period.is_zero()),
        }
    }

    /// Reports that renewd serves. With `Type=notify`, `systemctl start` and units ordered after this one wait for
    /// it.
    pub fn ready(&self, status: &str) {
        send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// A reload begins; it ends when what is returned is finished or dropped.
    pub fn reloading(&self) -> Reloading {
        // One message holds both: from systemd 253 on, RELOADING=1 without MONOTONIC_USEC= is a protocol violation
        // (systemd.service(5), Type=notify-reload).
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "can't read the monotonic clock for RELOADING=1"),
        }
        Reloading { status: None }
    }

    /// Reports that renewd stops, which takes `at_most` this long. systemd waits that long even where the unit's
    /// `TimeoutStopSec=` is shorter.
    pub fn stopping(&self, at_most: Duration, status: &str) {
        let microseconds = u32::try_from(at_most.as_micros()).unwrap_or(u32::MAX);
        send(&[
            NotifyState::Stopping,
            NotifyState::ExtendTimeoutUsec(microseconds),
            NotifyState::Status(&one_line(status)),
        ]);
    }

    /// The line that `systemctl status` shows.
    pub fn status(&self, status: &str) {
        send(&[NotifyState::Status(&one_line(status))]);
    }

    /// How often the watchdog is notified: a third of `WatchdogSec=`, so that one late notification does no harm.
    /// `None` without a watchdog.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|period| period / 3)
    }

    /// Notifies the watchdog at each [`Notifier::watchdog_interval`] at which `alive` returns true, the first time at
    /// once. Without notifications systemd kills and restarts the process. Returns at once without a watchdog,
    /// otherwise never. Await it on the control runtime until the process ends, the drain included.
    pub async fn feed_watchdog(&self, alive: impl Fn() -> bool) {
        let Some(interval) = self.watchdog_interval() else {
            return;
        };
        let mut turns = tokio::time::interval(interval);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            if alive() {
                send(&[NotifyState::Watchdog]);
            } else {
                tracing::error!(
                    "a worker's runtime is blocked; the systemd watchdog is not notified"
                );
            }
        }
    }
}

/// A reload in progress. Dropping it sends READY=1, after an early return or a panic too.
#[derive(Debug)]
#[must_use = "dropping it ends the reload"]
pub struct Reloading {
    status: Option<String>,
}

impl Reloading {
    /// Ends the reload with a new status line.
    pub fn finish(mut self, status: &str) {
        self.status = Some(one_line(status));
    }
}

impl Drop for Reloading {
    fn drop(&mut self) {
        match &self.status {
            Some(status) => send(&[NotifyState::Ready, NotifyState::Status(status)]),
            None => send(&[NotifyState::Ready]),
        }
    }
}

/// Whether each worker's runtime still makes progress: workers record a time, and the watchdog reads it.
#[derive(Clone, Debug)]
pub(crate) struct Heartbeats {
    clock: Clock,
    /// Milliseconds on the clock's monotonic scale, one a worker.
    last: Arc<[AtomicU64]>,
}

impl Heartbeats {
    /// For `workers` workers, each of which counts as alive now.
    pub(crate) fn new(workers: usize, clock: Clock) -> Self {
        let now = millis(clock.elapsed());
        Self {
            clock,
            last: (0..workers).map(|_| AtomicU64::new(now)).collect(),
        }
    }

    /// Records that worker `index` is alive, every `interval`, for ever: spawn it on that worker's runtime.
    pub(crate) async fn keep(self, index: usize, interval: Duration) {
        let mut turns = tokio::time::interval(interval);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            self.beat(index);
        }
    }

    /// Records that worker `index` is alive.
    pub(crate) fn beat(&self, index: usize) {
        if let Some(last) = self.last.get(index) {
            last.store(millis(self.clock.elapsed()), Ordering::Relaxed);
        }
    }

    /// Whether every worker was alive within the last `limit`.
    pub(crate) fn all_within(&self, limit: Duration) -> bool {
        let oldest = millis(self.clock.elapsed().saturating_sub(limit));
        self.last
            .iter()
            .all(|last| last.load(Ordering::Relaxed) >= oldest)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn send(message: &[NotifyState<'_>]) {
    let abstract_name = std::env::var_os("NOTIFY_SOCKET")
        .and_then(|socket| socket.as_bytes().strip_prefix(b"@").map(<[u8]>::to_vec));
    let sent = match abstract_name {
        Some(name) => send_to_abstract(&name, message),
        None => sd_notify::notify(message),
    };
    if let Err(error) = sent {
        let message = lines(message).trim_end().replace('\n', " ");
        tracing::warn!(%error, message, "can't notify the service manager");
    }
}

/// `sd_notify(3)`: a leading `@` stands for the zero byte of an abstract socket. `sd_notify::notify` of sd-notify
/// 0.5.0 takes such a name for a path.
fn send_to_abstract(name: &[u8], message: &[NotifyState<'_>]) -> io::Result<()> {
    let address = SocketAddr::from_abstract_name(name)?;
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.send(lines(message).as_bytes()).map(|_sent| ())
}

/// A message as the protocol has it: one assignment a line.
fn lines(message: &[NotifyState<'_>]) -> String {
    let mut lines = String::new();
    for state in message {
        lines.push_str(&state.to_string());
        lines.push('\n');
    }
    lines
}

/// Replaces control characters: a line end in a status, which may quote a configuration error, would begin another
/// assignment of the protocol.
fn one_line(status: &str) -> String {
    status
        .chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Heartbeats, one_line};
    use crate::terms::clock::Clock;

    #[test]
    fn a_status_never_smuggles_another_assignment() {
        assert_eq!(
            one_line("reload refused: bad\nREADY=1\r\0"),
            "reload refused: bad READY=1  "
        );
    }

    #[test]
    fn one_worker_that_stops_beating_is_missed_and_welcomed_back() {
        let clock = Clock::manual(0);
        let beats = Heartbeats::new(2, clock.clone());
        let limit = Duration::from_secs(10);
        clock.advance(Duration::from_secs(8));
        beats.beat(0);
        assert!(beats.all_within(limit));
        clock.advance(Duration::from_secs(8));
        assert!(!beats.all_within(limit), "worker 1 is 16 s silent");
        beats.beat(1);
        assert!(beats.all_within(limit));
    }

    #[tokio::test(start_paused = true)]
    async fn a_kept_heart_beats_on_its_own_runtime() {
        let clock = Clock::manual(0);
        let beats = Heartbeats::new(1, clock.clone());
        clock.advance(Duration::from_mins(1));
        assert!(!beats.all_within(Duration::from_secs(10)));
        let kept = beats.clone().keep(0, Duration::from_secs(5));
        let _ = tokio::time::timeout(Duration::from_millis(1), kept).await;
        assert!(beats.all_within(Duration::from_secs(10)));
    }
}
