//! `renewd run`: the daemon.

use std::io::stderr;
use std::path::PathBuf;
use std::process::ExitCode;

use super::check;
use crate::config::write_report;
use crate::daemon::systemd::Listeners;
use crate::daemon::{self, Options, RunError};

const SIGNALS: &str = "Saving the configuration or a file that it names reloads it; no connection is touched.\n\n\
Signals: SIGHUP reloads, SIGUSR1 opens the audit file anew, SIGTERM and SIGINT finish what is being served and stop, \
a second one stops at once.";

/// `run`'s arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = SIGNALS)]
pub struct Arguments {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/renewd/config.toml")]
    config: PathBuf,
    /// Start from the last valid configuration when the file is invalid
    ///
    /// A copy of it is kept in `state.directory` and looked for in `$STATE_DIRECTORY`, which systemd sets, else in
    /// /var/lib/renewd. Log, metrics and status say so until the file is mended.
    #[arg(long)]
    fallback: bool,
}

/// Serves until told to stop.
pub fn run(arguments: Arguments, inherited: Listeners) -> ExitCode {
    let options = Options {
        config: arguments.config,
        fallback: arguments.fallback,
        inherited,
    };
    match daemon::run(options, |_| {}) {
        Ok(()) => ExitCode::SUCCESS,
        Err(RunError::Configuration(errors)) => {
            // Nothing is left to do where even this can't be printed.
            let _ = write_report(&mut stderr(), errors.warnings.iter().chain(&errors.errors));
            eprintln!("renewd: the configuration is invalid, so nothing was started");
            ExitCode::from(check::EXIT_INVALID)
        }
        Err(error) => {
            eprintln!("renewd: {error}");
            ExitCode::FAILURE
        }
    }
}
