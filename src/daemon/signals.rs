//! The signals an operator or the service manager sends, as one stream of what they ask for.
//!
//! Keeps true: the second request to terminate is told apart from the first, whichever signal carried either.
//! Must not know: how anything stops, reloads or reopens.
//!
//! SIGPIPE is ignored by Rust's runtime: a client that goes away is an error of its write, never the process's end.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// The order that a signal gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// SIGTERM or SIGINT for the first time: drain, then exit.
    Terminate,
    /// SIGTERM or SIGINT again: exit without waiting any longer.
    TerminateNow,
    /// SIGHUP: read the configuration and what it names again.
    Reload,
    /// SIGUSR1: reopen log files, after `logrotate` moved them.
    Reopen,
}

/// The four signals, caught from [`Signals::listen`] on, for the life of the process.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    user_defined_1: tokio::signal::unix::Signal,
    terminating: bool,
}

impl Signals {
    /// Installs the handlers. Before this call each of the four ends the process, so make it early and inside the
    /// runtime that will await [`Signals::next`].
    ///
    /// Fails where the runtime has no IO driver or the system refuses a handler.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user_defined_1: signal(SignalKind::user_defined1())?,
            terminating: false,
        })
    }

    /// The next request; stopping goes before everything else that is pending. Cancel safe.
    ///
    /// Like the kernel's own pending set, equal signals that arrive before they are read count once.
    pub(crate) async fn next(&mut self) -> Request {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => self.terminate_again(),
            _ = self.interrupt.recv() => self.terminate_again(),
            _ = self.hang_up.recv() => Request::Reload,
            _ = self.user_defined_1.recv() => Request::Reopen,
        }
    }

    fn terminate_again(&mut self) -> Request {
        if std::mem::replace(&mut self.terminating, true) {
            Request::TerminateNow
        } else {
            Request::Terminate
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::{Request, Signals};

    async fn after(signals: &mut Signals, signal: Signal) -> Request {
        kill_process(getpid(), signal).unwrap();
        tokio::time::timeout(Duration::from_secs(10), signals.next())
            .await
            .expect("the signal arrives")
    }

    /// One test, because signals go to the process and `cargo test` runs tests as threads of one.
    #[tokio::test]
    async fn each_signal_is_the_request_it_stands_for_and_a_second_stop_means_now() {
        let mut signals = Signals::listen().unwrap();
        assert_eq!(after(&mut signals, Signal::HUP).await, Request::Reload);
        assert_eq!(after(&mut signals, Signal::USR1).await, Request::Reopen);
        assert_eq!(after(&mut signals, Signal::TERM).await, Request::Terminate);
        assert_eq!(after(&mut signals, Signal::HUP).await, Request::Reload);
        assert_eq!(
            after(&mut signals, Signal::INT).await,
            Request::TerminateNow
        );
    }

    #[tokio::test]
    async fn stopping_goes_before_a_reload_that_was_asked_for_first() {
        let (mut signals, mut witness) = (Signals::listen().unwrap(), Signals::listen().unwrap());
        kill_process(getpid(), Signal::HUP).unwrap();
        // On a busy machine the second arrives later; who listens beside is told of each at the same time.
        let mut told = vec![after(&mut witness, Signal::TERM).await];
        if told == [Request::Reload] {
            told.push(witness.next().await);
        }
        assert_eq!(told.last(), Some(&Request::Terminate));
        assert_eq!(signals.next().await, Request::Terminate);
    }
}
