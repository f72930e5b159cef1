//! `renewd run`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use super::check;
use crate::config::write_report;
use crate::daemon::systemd::Listeners;
use crate::daemon::{self, Options, RunError};
use crate::telemetry::journal;

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
    /// A copy of it is kept in `state.directory`, with the path of the file it was made from, and looked for in
    /// --state-directory. Log, metrics and status say so until the file is mended.
    #[arg(long)]
    fallback: bool,
    /// Where --fallback looks, for an invalid file can't say; by default `$STATE_DIRECTORY`, which systemd sets
    #[arg(long, value_name = "DIRECTORY")]
    state_directory: Option<PathBuf>,
}

/// Serves until told to stop.
pub fn run(arguments: Arguments, inherited: Listeners) -> ExitCode {
    let options = Options {
        config: arguments.config,
        fallback: arguments.fallback,
        state_directory: arguments.state_directory.or_else(systemds_directory),
        inherited,
    };
    match daemon::run(options, |_| {}) {
        Ok(()) => ExitCode::SUCCESS,
        Err(RunError::Configuration(errors)) => {
            let mut report = Vec::new();
            // Nothing is left to do where even this can't be printed.
            let _ = write_report(&mut report, errors.warnings.iter().chain(&errors.errors));
            report.extend(b"renewd: the configuration is invalid, so nothing was started\n");
            let _ = journal::report(&String::from_utf8_lossy(&report));
            ExitCode::from(check::EXIT_INVALID)
        }
        Err(error) => {
            let _ = journal::report(&format!("renewd: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// The first of the directories that systemd lists with colons: ours.
fn systemds_directory() -> Option<PathBuf> {
    let listed = std::env::var("STATE_DIRECTORY").ok()?;
    let first = listed.split(':').next()?;
    (!first.is_empty()).then(|| first.into())
}
