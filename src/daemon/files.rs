//! Reads and writes the files behind a snapshot: the configuration, the streams file, and the last valid
//! configuration.
//!
//! Keeps true: nothing outside this machine is contacted; an invalid file never replaces a valid one.
//! Must not know: when files are read, or which configuration is in force.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::config::environment::{Environment, SystemEnvironment};
use crate::config::model::Config;
use crate::config::{self, ConfigErrors, Loaded};
use crate::snapshot::StreamsRead;
use crate::sources::streams::StreamState;
use crate::state::directory::StateDirectory;

/// The last configuration that loaded, in the state directory.
const LAST_VALID: &str = "last-valid.toml";

/// The beginning of its first line; the path of the file that it is a copy of follows.
const MADE_FROM: &str = "# The last valid configuration of ";

/// A configuration file's text and its parsed content.
#[derive(Debug)]
pub(crate) struct Configuration {
    /// As validated.
    pub loaded: Loaded,
    /// The text as it was read, for the copy. Reading the file again could give another text. It may hold secrets.
    text: Zeroizing<Vec<u8>>,
}

/// Reads and validates the file.
pub(crate) fn configuration(path: &Path) -> Result<Configuration, ConfigErrors> {
    let (loaded, text) = config::load_file(path, &SystemEnvironment)?;
    Ok(Configuration { loaded, text })
}

/// The configuration that last loaded: what `run --fallback` starts from when the file is invalid.
/// Relative paths in it still start at the configuration file's directory. Fails with the reason why there is none.
/// `directory` comes from `--state-directory` or systemd, because the file that names it is invalid.
pub(crate) fn last_valid(path: &Path, directory: Option<&Path>) -> Result<Loaded, ConfigErrors> {
    let kept = directory
        .ok_or_else(|| {
            ConfigErrors::of_file(
                path,
                "--fallback needs the state directory, but `state.directory` can't be read from the invalid file",
                "give --state-directory DIRECTORY, or let systemd set $STATE_DIRECTORY with StateDirectory=",
            )
        })?
        .join(LAST_VALID);
    let text = SystemEnvironment.read(&kept).map_err(|error| {
        ConfigErrors::of_file(
            &kept,
            format!("there is no last valid configuration to fall back to: {error}"),
            "correct the file; from then on renewd keeps a copy of each valid configuration here",
        )
    })?;
    std::str::from_utf8(&text)
        .map_err(|error| error.to_string())
        .and_then(|text| text_made_from(text, path))
        .and_then(|text| {
            config::load(text, path, &SystemEnvironment).map_err(|errors| {
                let first = errors.errors.first();
                first.map_or_else(String::new, |error| error.one_line().to_string())
            })
        })
        .map_err(|why| {
            ConfigErrors::of_file(
                &kept,
                format!("the last valid configuration can't be used: {why}"),
                "correct the configuration file",
            )
        })
}

/// The first line of the copy, which names the file. The line is a comment, so that the copy stays TOML.
fn origin(path: &Path) -> String {
    // The path is absolute, but symlinks stay unresolved: Kubernetes changes their targets with every update.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // Escaping keeps the comment on one line, whatever the path holds.
    format!("{MADE_FROM}{}", path.as_os_str().as_bytes().escape_ascii())
}

/// The copy without its first line, if it is a copy of the file at `path`: two daemons may have used one state
/// directory, one after the other.
fn text_made_from<'t>(kept: &'t str, path: &Path) -> Result<&'t str, String> {
    let (first, text) = kept.split_once('\n').unwrap_or((kept, ""));
    match first.strip_prefix(MADE_FROM) {
        Some(_) if first == origin(path) => Ok(text),
        Some(other) => Err(format!("it is a copy of another file, {other}")),
        None => Err("it does not say which file it is a copy of".to_owned()),
    }
}

/// The text that [`keep`] writes of a configuration that took effect.
pub(crate) fn kept_text(path: &Path, configuration: &Configuration) -> Zeroizing<Vec<u8>> {
    let first = origin(path);
    let mut text = Zeroizing::new(Vec::with_capacity(
        first.len() + 1 + configuration.text.len(),
    ));
    text.extend_from_slice(first.as_bytes());
    text.push(b'\n');
    text.extend_from_slice(&configuration.text);
    text
}

/// Keeps the text of a configuration that took effect; `false` where the directory can't be written.
pub(crate) fn keep(state: &StateDirectory, text: &[u8]) -> bool {
    let written = state.write_atomically(LAST_VALID, text);
    if let Err(error) = &written {
        let directory = state.path().display();
        tracing::error!(%error, %directory, "can't keep a copy of the configuration in the state directory");
    }
    written.is_ok()
}

/// Reads the streams file, where that is the source. An error is logged here, because serving goes on.
pub(crate) fn streams(config: &Config) -> StreamsRead {
    let Some(path) = config.streams.file() else {
        return StreamsRead::Table(Vec::new());
    };
    let content = match SystemEnvironment.read(path) {
        Ok(content) => content,
        Err(error) => {
            tracing::error!(file = %path.display(), %error, "can't read the streams file; only renewals are answered");
            return StreamsRead::Unreadable;
        }
    };
    let entries = std::str::from_utf8(&content)
        .map_err(|_| ConfigErrors::of_file(path, "not UTF-8", "save it as UTF-8"))
        .and_then(|text| config::streams_file::parse(text, path));
    match entries {
        Ok(entries) => StreamsRead::Table(
            entries
                .into_iter()
                .map(|entry| {
                    let stream = StreamState {
                        owner_unknown_since: None,
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
            let file = path.display();
            tracing::error!(%file, "the streams file is invalid; the last valid streams stay in force");
            StreamsRead::Invalid
        }
    }
}

fn boxed(names: Vec<String>) -> Vec<Box<str>> {
    names.into_iter().map(String::into_boxed_str).collect()
}

/// The files to watch: the configuration file, and every file that it names.
pub(crate) fn watched(path: &Path, named: &[PathBuf]) -> Vec<PathBuf> {
    std::iter::once(path.to_owned())
        .chain(named.iter().cloned())
        .collect()
}
