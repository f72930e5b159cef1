//! Files in, snapshot material out: the configuration, the streams file, and the last valid configuration.
//!
//! Keeps true: nothing outside this machine is contacted; an invalid file never replaces a valid one.
//! Must not know: when to read, or what is running.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::access::streams::Stream;
use crate::config::environment::{Environment, SystemEnvironment};
use crate::config::model::Config;
use crate::config::{self, ConfigErrors, Loaded};
use crate::snapshot::StreamsRead;
use crate::state::directory::StateDirectory;

/// The last configuration that loaded, in the state directory.
const LAST_VALID: &str = "last-valid.toml";

/// Where systemd's `StateDirectory=renewd` is when its variable is not set.
const DEFAULT_STATE: &str = "/var/lib/renewd";

/// A configuration file's text with what it says.
#[derive(Debug)]
pub struct Configuration {
    /// As validated.
    pub loaded: Loaded,
    /// Just as it was read: it may hold secrets, and reading again could give another text.
    text: Zeroizing<Vec<u8>>,
}

/// Reads and validates the file.
pub fn configuration(path: &Path) -> Result<Configuration, ConfigErrors> {
    let (loaded, text) = config::load_file(path, &SystemEnvironment)?;
    Ok(Configuration { loaded, text })
}

/// The configuration that last loaded: what `run --fallback` starts from when the file is invalid.
/// Relative paths in it still start at the configuration file's directory. The error says why there is none.
pub fn last_valid(path: &Path) -> Result<Loaded, ConfigErrors> {
    // systemd lists several directories with colons; the first is ours.
    let directory = std::env::var("STATE_DIRECTORY").unwrap_or_default();
    let first = directory
        .split(':')
        .next()
        .filter(|first| !first.is_empty());
    let kept = Path::new(first.unwrap_or(DEFAULT_STATE)).join(LAST_VALID);
    let text = SystemEnvironment.read(&kept).map_err(|error| {
        ConfigErrors::of_file(
            &kept,
            format!("there is no last valid configuration to fall back to: {error}"),
            "mend the file; from then on the last valid one is kept here",
        )
    })?;
    std::str::from_utf8(&text)
        .map_err(|error| error.to_string())
        .and_then(|text| {
            config::load(text, path, &SystemEnvironment).map_err(|errors| {
                let first = errors.errors.first();
                first.map_or_else(String::new, |error| error.one_line().to_string())
            })
        })
        .map_err(|why| {
            ConfigErrors::of_file(
                &kept,
                format!("the last valid configuration can't be used any more: {why}"),
                "mend the file, or what this one names",
            )
        })
}

/// Keeps a configuration that took effect. `false` where the directory can't be written.
pub fn keep(state: Option<&Arc<StateDirectory>>, configuration: &Configuration) -> bool {
    let Some(state) = state else {
        return true;
    };
    let written = state.write_atomically(LAST_VALID, &configuration.text);
    if let Err(error) = &written {
        tracing::error!(%error, directory = %state.path().display(), "the last valid configuration can't be kept");
    }
    written.is_ok()
}

/// Reads the streams file, where that is the source. What is wrong with it is logged here: the daemon serves on.
pub fn streams(config: &Config) -> StreamsRead {
    let Some(path) = config.streams.file() else {
        return StreamsRead::Table(Vec::new());
    };
    let content = match SystemEnvironment.read(path) {
        Ok(content) => content,
        Err(error) => {
            tracing::error!(file = %path.display(), %error, "the streams file can't be read: only holders are served");
            return StreamsRead::Unreadable;
        }
    };
    let entries = std::str::from_utf8(&content)
        .map_err(|_| ConfigErrors::of_file(path, "not UTF-8", "save it as UTF-8"))
        .and_then(|text| config::streams::parse(text, path));
    match entries {
        Ok(entries) => StreamsRead::Table(
            entries
                .into_iter()
                .map(|entry| {
                    let stream = Stream {
                        live: entry.live,
                        banned: entry.banned,
                        owner: entry.owner.map(String::into_boxed_str),
                        cohosts: boxed(entry.cohosts),
                        banned_viewers: boxed(entry.banned_viewers),
                    };
                    (entry.channel.into_boxed_str(), stream)
                })
                .collect(),
        ),
        Err(errors) => {
            for error in &errors.errors {
                tracing::error!("{}", error.one_line());
            }
            tracing::error!(file = %path.display(), "the streams file is invalid: the last valid streams stay in force");
            StreamsRead::Invalid
        }
    }
}

fn boxed(names: Vec<String>) -> Vec<Box<str>> {
    names.into_iter().map(String::into_boxed_str).collect()
}

/// What to watch: the configuration file, and every file that it names.
pub fn watched(path: &Path, named: &[PathBuf]) -> Vec<PathBuf> {
    std::iter::once(path.to_owned())
        .chain(named.iter().cloned())
        .collect()
}
