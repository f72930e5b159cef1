//! `renewd run`: the daemon.
//!
//! Keeps true: the reason why nothing was started is written in the configured log format, as far as the file shows
//! it.
//! Must not know: how the daemon starts or stops.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::check;
use crate::config::environment::SystemEnvironment;
use crate::config::model::{AuditSink, Log, LogFormat, LogLevel};
use crate::config::{self, write_report};
use crate::daemon::systemd::PassedSockets;
use crate::daemon::{self, Options, RunError};
use crate::telemetry::journal;
use crate::telemetry::line_writer::DropCounter;
use crate::telemetry::log;
use crate::terms::clock::Clock;

const SIGNALS: &str = "renewd reloads the configuration when the file, or a file that it names, is saved. \
A reload closes no connection.\n\n\
Signals: SIGHUP reloads the configuration. SIGUSR1 reopens the audit file. SIGTERM and SIGINT let requests finish \
and then stop; a second one stops at once.";

/// `run`'s arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = SIGNALS)]
pub(crate) struct RunArguments {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/renewd/config.toml")]
    config: PathBuf,
    /// Start with the last valid configuration if the file is invalid
    ///
    /// renewd keeps a copy of each valid configuration, with the path of its file, in `state.directory`. This option
    /// looks for that copy in --state-directory. The log, the metrics and the status page report the fallback until
    /// the file is corrected.
    #[arg(long)]
    fallback: bool,
    /// Where --fallback looks for the copy [default: `$STATE_DIRECTORY`, which systemd sets]
    #[arg(long, value_name = "DIRECTORY")]
    state_directory: Option<PathBuf>,
}

/// How long writing the reason of a failed start may take.
const FLUSH: Duration = Duration::from_secs(2);

/// Serves until told to stop.
pub(crate) fn run(arguments: RunArguments, inherited: PassedSockets) -> ExitCode {
    let file = arguments.config.clone();
    let options = Options {
        config: arguments.config,
        fallback: arguments.fallback,
        state_directory: arguments.state_directory.or_else(systemds_directory),
        inherited,
    };
    let Err(error) = daemon::run(options, |_| {}) else {
        return ExitCode::SUCCESS;
    };
    match config::log_format(&file, &SystemEnvironment) {
        // A program reads these formats, so it gets these lines in them too.
        format @ (LogFormat::Json | LogFormat::Logfmt) => log_failure(&error, format),
        LogFormat::Auto | LogFormat::Pretty => report_failure(&error),
    }
    match error {
        RunError::Configuration(_) => ExitCode::from(check::EXIT_INVALID),
        _ => ExitCode::FAILURE,
    }
}

const NOTHING_STARTED: &str = "the configuration is invalid, so nothing was started";

fn report_failure(error: &RunError) {
    if let RunError::Configuration(errors) = error {
        // There is no way to report that this can't be printed.
        let mut report = Vec::new();
        let _ = write_report(&mut report, errors.warnings.iter().chain(&errors.errors));
        report.extend(format!("renewd: {NOTHING_STARTED}\n").into_bytes());
        let _ = journal::report(&String::from_utf8_lossy(&report));
    } else {
        let _ = journal::report(&format!("renewd: {error}"));
    }
}

fn log_failure(error: &RunError, format: LogFormat) {
    let settings = Log {
        format,
        level: LogLevel::Info,
        access: false,
        audit: AuditSink::Off,
    };
    let Ok((subscriber, control)) =
        log::to_stderr(&settings, Clock::system(), DropCounter::default())
    else {
        return report_failure(error);
    };
    tracing::subscriber::with_default(subscriber, || {
        if let RunError::Configuration(errors) = error {
            for warning in &errors.warnings {
                tracing::warn!("{}", warning.one_line());
            }
            for error in &errors.errors {
                tracing::error!("{}", error.one_line());
            }
            tracing::error!("{NOTHING_STARTED}");
        } else {
            tracing::error!("{error}");
        }
    });
    control.flush(FLUSH);
}

/// The first directory of systemd's list, which colons separate.
fn systemds_directory() -> Option<PathBuf> {
    let listed = std::env::var("STATE_DIRECTORY").ok()?;
    let first = listed.split(':').next()?;
    (!first.is_empty()).then(|| first.into())
}
