//! What systemd and this process tell each other: inherited sockets in; readiness, reloads, status and life out
//! (`sd_listen_fds(3)`, `sd_notify(3)`, `sd_watchdog_enabled(3)`).
//!
//! Keeps true: every RELOADING=1 is followed by READY=1, however the reload ends; nothing is sent, and nothing fails,
//! where no service manager asks. The only file with unsafe code: a descriptor that came by number is taken over.
//! Must not know: what is served on a socket, or what makes the daemon ready.

use std::collections::HashMap;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use std::{fmt, io};

use sd_notify::NotifyState;
use socket2::{Domain, Socket, Type};

use crate::terms::clock::Clock;

/// Listening sockets by their `FileDescriptorName=`; several `ListenStream=` lines of one unit share a name. Each is
/// nonblocking, and child processes don't inherit it.
pub(crate) type PassedSockets = HashMap<String, Vec<Socket>>;

/// The service manager passed something that can't be served on.
#[derive(Debug, thiserror::Error)]
pub enum ListenersError {
    /// The environment and the descriptors contradict each other.
    #[error("the sockets passed by the service manager can't be taken: {0}")]
    Environment(#[source] io::Error),
    /// A datagram socket, a connection (`Accept=yes`), a FIFO …
    #[error(
        "the descriptor `{name}` passed by the service manager is no listening stream socket: {what}"
    )]
    NotListening {
        /// Its `FileDescriptorName=`.
        name: String,
        /// What it is instead.
        what: String,
    },
}

/// Takes the sockets of `LISTEN_FDS` over. None passed, or passed to another process (`LISTEN_PID`), is an empty map; so
/// is every call after the first. Call it first in `main`, before anything else opens descriptors.
///
/// The variables stay: `LISTEN_PID` keeps a child from believing them its own, and editing the environment is unsound
/// as soon as there are threads.
pub fn take_listeners() -> Result<PassedSockets, ListenersError> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(PassedSockets::new());
    }
    let passed = sd_notify::listen_fds_with_names().map_err(ListenersError::Environment);
    let mut listeners = PassedSockets::new();
    for (descriptor, name) in passed? {
        // SAFETY: `LISTEN_PID` names this process, so by sd_listen_fds(3) the descriptor is open and ours alone; it
        // was just seen open (setting close-on-exec succeeded), and `TAKEN` lets it be owned only once.
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
    // The first question fails on what is no socket at all.
    let kind = socket.r#type().map_err(failed)?;
    if kind != Type::STREAM {
        return Err(format!("its type is {kind:?}"));
    }
    if !socket.is_listener().map_err(failed)? {
        return Err("it does not listen".to_owned());
    }
    let domain = socket.domain().map_err(failed)?;
    // The unit file may say otherwise, and tokio trusts the caller: a blocking accept would stop a whole worker.
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

    /// Serving. With `Type=notify`, `systemctl start` and units ordered after this one wait for it.
    pub fn ready(&self, status: &str) {
        send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// A reload begins; it ends when what is returned is finished or dropped.
    pub fn reloading(&self) -> Reloading {
        // In one message: from systemd 253 on, RELOADING=1 without its time is a protocol violation.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "the time of the reload can't be told"),
        }
        Reloading { status: None }
    }

    /// Stopping, for `at_most` this long: where that is more than the unit's `TimeoutStopSec=`, systemd waits so long.
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

    /// How often the watchdog is fed: a third of `WatchdogSec=`, so that one late turn is forgiven. `None` without one.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|period| period / 3)
    }

    /// Feeds the watchdog for as long as `alive` says so when asked, at [`Notifier::watchdog_interval`], the first
    /// time at once; when it stops saying so, systemd kills and restarts the process. Returns at once without a
    /// watchdog, else never. Await it on the control runtime until the process ends, the drain included.
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
                tracing::error!("a worker does not turn: the watchdog is not fed");
            }
        }
    }
}

/// A reload in progress. Its end, an early return and a panic included, sends READY=1.
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

/// Whether each worker's runtime still turns: workers beat, the watchdog looks.
#[derive(Clone, Debug)]
pub(crate) struct Heartbeats {
    clock: Clock,
    /// Milliseconds on the clock's monotonic scale, one a worker.
    last: Arc<[AtomicU64]>,
}

impl Heartbeats {
    /// For `workers` workers, all of which count as having beaten now.
    pub(crate) fn new(workers: usize, clock: Clock) -> Self {
        let now = millis(clock.elapsed());
        Self {
            clock,
            last: (0..workers).map(|_| AtomicU64::new(now)).collect(),
        }
    }

    /// Beats for worker `index` once every `interval`, for ever: spawn it on that worker's runtime.
    pub(crate) async fn keep(self, index: usize, interval: Duration) {
        let mut turns = tokio::time::interval(interval);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            self.beat(index);
        }
    }

    /// Worker `index` turns.
    pub(crate) fn beat(&self, index: usize) {
        if let Some(last) = self.last.get(index) {
            last.store(millis(self.clock.elapsed()), Ordering::Relaxed);
        }
    }

    /// Whether every worker has beaten within the last `limit`.
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
        tracing::warn!(%error, message = %Shown(message), "the service manager can't be told");
    }
}

/// `sd_notify(3)`: a leading `@` stands for the zero byte of an abstract socket, which the crate takes for a path.
fn send_to_abstract(name: &[u8], message: &[NotifyState<'_>]) -> io::Result<()> {
    let address = SocketAddr::from_abstract_name(name)?;
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    let mut lines = String::new();
    for state in message {
        lines.push_str(&state.to_string());
        lines.push('\n');
    }
    socket.send(lines.as_bytes()).map(|_sent| ())
}

/// A message as `key=value` pairs on one line, for the log.
struct Shown<'a>(&'a [NotifyState<'a>]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, state) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { " " };
            write!(formatter, "{separator}{state}")?;
        }
        Ok(())
    }
}

/// A line end in a status would begin another assignment of the protocol: status lines may quote configuration errors.
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
