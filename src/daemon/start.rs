//! The things that the daemon starts from: a configuration and a locked state directory.
//!
//! Keeps true: nothing outside this machine is contacted; a second daemon on one state directory doesn't start.
//! Must not know: what is built from a configuration.

use std::path::{Path, PathBuf};

use super::files::{self, Configuration};
use super::state::DaemonState;
use super::systemd::Notifier;
use super::{Options, RunError};
use crate::config::model::{Config, DecisionConfig};
use crate::config::{ConfigErrors, Diagnostic, Loaded};
use crate::state::directory::{StateDirectory, StateError};
use crate::terms::version::{COMMIT, VERSION};

/// The configuration to start with.
#[derive(Debug)]
pub(crate) struct Start {
    /// The file's validated content.
    pub loaded: Loaded,
    /// The file's content; `None` where the last valid configuration is used instead.
    pub configuration: Option<Configuration>,
    /// The errors of the file, where the last valid configuration is used instead.
    pub errors: Option<ConfigErrors>,
}

impl Start {
    /// The files to watch: those of the configuration in force, and those of the refused one.
    pub(crate) fn files(&self, configuration: &Path) -> Vec<PathBuf> {
        let refused = self.errors.as_ref().map(|errors| errors.files.as_slice());
        let files = [&self.loaded.files, refused.unwrap_or_default()].concat();
        files::watched(configuration, &files)
    }

    /// Keeps the file's text as the last valid configuration, where it is valid.
    pub(crate) fn keep(&self, path: &Path, state: &DaemonState) {
        if let Some(read) = &self.configuration {
            state.keep(files::kept_text(path, read));
        }
    }
}

/// Reads the file or, with `--fallback`, the last valid configuration where the file is invalid.
pub(crate) fn read(options: &Options) -> Result<Start, RunError> {
    match files::configuration(&options.config) {
        Ok(configuration) => Ok(Start {
            loaded: configuration.loaded.clone(),
            configuration: Some(configuration),
            errors: None,
        }),
        Err(mut errors) if options.fallback => {
            match files::last_valid(&options.config, options.state_directory.as_deref()) {
                Ok(loaded) => Ok(Start {
                    loaded,
                    configuration: None,
                    errors: Some(errors),
                }),
                Err(why_not) => {
                    errors.errors.extend(why_not.errors);
                    Err(RunError::Configuration(errors))
                }
            }
        }
        Err(errors) => Err(RunError::Configuration(errors)),
    }
}

/// Opens `state.directory`. Without a usable directory renewd starts and keeps state in memory only; it fails where
/// another daemon holds the directory.
pub(crate) fn open_state(config: &Config) -> Result<Option<StateDirectory>, StateError> {
    let Some(directory) = &config.state_directory else {
        return Ok(None);
    };
    match StateDirectory::open(directory) {
        Ok(state) => Ok(Some(state)),
        Err(held @ StateError::Held { .. }) => Err(held),
        Err(error @ StateError::Unusable { .. }) => {
            tracing::error!("{error}; state is kept in memory only");
            Ok(None)
        }
    }
}

/// Warns where `--fallback` would find no configuration.
pub(crate) fn warn_of_fallback(options: &Options, config: &Config) {
    if !options.fallback {
        return;
    }
    match (&options.state_directory, &config.state_directory) {
        (None, _) => tracing::warn!(
            "--fallback needs --state-directory or $STATE_DIRECTORY; without it renewd won't start with an invalid file"
        ),
        (Some(said), kept) if kept.as_ref() != Some(said) => tracing::warn!(
            looks_in = %said.display(),
            "--fallback looks in another directory than state.directory, where the last valid configuration is kept"
        ),
        _ => {}
    }
}

/// Logs the configuration's warnings, and the file's errors where the last valid configuration is used instead.
pub(crate) fn log_findings(warnings: &[Diagnostic], errors: Option<&ConfigErrors>) {
    for warning in warnings {
        tracing::warn!("{}", warning.one_line());
    }
    let Some(errors) = errors else {
        return;
    };
    for error in &errors.errors {
        tracing::error!("{}", error.one_line());
    }
    tracing::error!(
        "the configuration file is invalid; serving the last valid configuration (--fallback)"
    );
}

/// Reports to the service manager and the log that requests are served, and in which mode.
pub(crate) fn announce_ready(notifier: &Notifier, decision: &DecisionConfig, fallback: bool) {
    notifier.ready(if fallback {
        "serving the last valid configuration because the file is invalid"
    } else {
        "serving"
    });
    tracing::info!(
        version = VERSION,
        commit = COMMIT,
        mode = decision.mode.as_str(),
        enforce_percent = decision.enforce_percent,
        "ready"
    );
}
