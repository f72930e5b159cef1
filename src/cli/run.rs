//! `renewd run`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use super::check;
use crate::daemon::systemd::Listeners;
use crate::daemon::{self, Options, RunError};

/// `run`'s arguments.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/renewd/config.toml")]
    config: PathBuf,
    /// Start from the last valid configuration when the file is invalid, and say so
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
            eprint!("{errors}");
            ExitCode::from(check::EXIT_INVALID)
        }
        Err(error) => {
            eprintln!("renewd: {error}");
            ExitCode::FAILURE
        }
    }
}
