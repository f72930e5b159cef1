//! Configuration: `raw` (TOML as written, with places) → `validate` (every error at once) → `model`.
//!
//! Keeps true: a [`Config`] exists only if nothing was wrong; a file that can't be used changes nothing.
//! Must not know: how the values are used.

mod credentials;
mod diagnostic;
pub mod diff;
pub mod environment;
pub mod keys;
pub mod model;
mod raw;
pub mod secret;
pub mod shown;
pub mod streams_file;
mod validate;

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

pub use diagnostic::{ConfigErrors, Diagnostic, Excerpt, FindingSeverity, Position, write_report};
use environment::Environment;
use model::{Admin, Config, LogFormat};
use shown::ConfigShown;
use validate::Strictness;

/// A configuration that can be run.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The validated values.
    pub config: Config,
    /// Findings about what is allowed, but probably not meant.
    pub warnings: Vec<Diagnostic>,
    /// A hash of the text without its secrets, 48 bits (a gauge is a float, which holds 53): replicas that read the
    /// same text have the same hash, and a secret can't be guessed from it.
    pub hash: u64,
    /// The secret and streams files that it refers to, for watching; without the configuration file itself.
    pub files: Vec<PathBuf>,
    /// The text as `renewd config show` prints it.
    pub shown: ConfigShown,
}

/// The findings of `check` in a configuration without errors.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    /// Findings about what is allowed, but probably not meant.
    pub warnings: Vec<Diagnostic>,
    /// Credentials and variables that only the unit has: not checked; named files that are mount points.
    pub notes: Vec<Diagnostic>,
    /// `server.max_connections`.
    pub max_connections: usize,
    /// The text as `renewd config show` prints it.
    pub shown: ConfigShown,
}

/// Reads a configuration from its text. `origin` names it in errors, and relative paths start at its directory.
/// Every error of the text is reported at once, unreadable secrets among them.
pub fn load(
    text: &str,
    origin: &Path,
    environment: &impl Environment,
) -> Result<Loaded, ConfigErrors> {
    let validated = validate::validate(text, origin, environment, Strictness::Run)?;
    Ok(Loaded {
        shown: ConfigShown::of(text, &validated.config),
        config: validated.config,
        warnings: validated.remarks.warnings,
        hash: validated.hash,
        files: validated.files,
    })
}

/// [`load`] for a file, with the text that was read. One that can't be read, or isn't UTF-8, is invalid.
pub fn load_file(
    origin: &Path,
    environment: &impl Environment,
) -> Result<(Loaded, Zeroizing<Vec<u8>>), ConfigErrors> {
    let content = read(origin, environment)?;
    let loaded = load(utf8(&content, origin)?, origin, environment)?;
    Ok((loaded, content))
}

/// Checks a file as [`load_file`] would read it, but away from the unit: credentials without a credentials directory
/// and unset variables are notes. The streams file is read too; what is wrong with it is a warning, since the daemon
/// starts without it. The configuration isn't returned, so that no placeholder can be run.
pub(crate) fn check_file(
    origin: &Path,
    environment: &impl Environment,
) -> Result<Checked, ConfigErrors> {
    let content = read(origin, environment)?;
    let text = utf8(&content, origin)?;
    let validated = validate::validate(text, origin, environment, Strictness::Check)?;
    let mut warnings = validated.remarks.warnings;
    if environment.world_writable(origin) == Some(true) {
        let finding = ConfigErrors::of_file(
            origin,
            "every user can write this file, and so decide what renewd does",
            "chmod o-w it",
        );
        warnings.extend(finding.errors.into_iter().map(Diagnostic::into_warning));
    }
    let mut notes = validated.remarks.notes;
    warnings.extend(mounted(origin, FindingSeverity::Warning, environment));
    for file in &validated.files {
        // Most files beside the configuration are written once.
        notes.extend(mounted(file, FindingSeverity::Note, environment));
    }
    let file = validated.config.streams.file();
    let streams = file.map(|file| {
        read(file, environment)
            .and_then(|content| streams_file::parse(utf8(&content, file)?, file).map(|_| ()))
    });
    if let Some(Err(errors)) = streams {
        warnings.extend(errors.errors.into_iter().map(Diagnostic::into_warning));
    }
    Ok(Checked {
        warnings,
        notes,
        max_connections: validated.config.server.max_connections,
        shown: ConfigShown::of(text, &validated.config),
    })
}

/// The finding about a file that is a mount point.
fn mounted(
    file: &Path,
    severity: FindingSeverity,
    environment: &impl Environment,
) -> Vec<Diagnostic> {
    if environment.is_mount_point(file) != Some(true) {
        return Vec::new();
    }
    let finding = ConfigErrors::of_file(
        file,
        "a mount point: renewd sees what is written into the file, but not a file that is renamed over it outside this \
         mount, as editors and deployments do",
        "mount its directory instead, or restart renewd's container after each change",
    );
    let said = |finding| Diagnostic {
        severity,
        ..finding
    };
    finding.errors.into_iter().map(said).collect()
}

/// `log.format` of a file, as far as it can be read, so that the errors that keep the daemon from starting have it too.
pub(crate) fn log_format(origin: &Path, environment: &impl Environment) -> LogFormat {
    let content = environment.read(origin).ok();
    let text = content
        .as_deref()
        .and_then(|text| std::str::from_utf8(text).ok());
    text.map_or(LogFormat::Auto, validate::log_format)
}

/// `[admin]` of a file: the address of the daemon's admin listener and its token. The rest of the file may be wrong,
/// or name files that only the daemon can read: `renewd status` has to work then too.
pub(crate) fn admin(origin: &Path, environment: &impl Environment) -> Result<Admin, ConfigErrors> {
    let content = read(origin, environment)?;
    let text = utf8(&content, origin)?;
    validate::admin(text, origin, environment)
}

fn read(path: &Path, environment: &impl Environment) -> Result<Zeroizing<Vec<u8>>, ConfigErrors> {
    environment.read(path).map_err(|error| {
        ConfigErrors::of_file(
            path,
            format!("can't be read: {error}"),
            "is the path right, and may this user read it?",
        )
    })
}

fn utf8<'c>(content: &'c [u8], path: &Path) -> Result<&'c str, ConfigErrors> {
    std::str::from_utf8(content).map_err(|error| {
        ConfigErrors::of_file(
            path,
            format!("not UTF-8 at byte {}", error.valid_up_to()),
            "save it as UTF-8",
        )
    })
}

fn hash(parts: &[&str]) -> u64 {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    let mut first = [0; 8];
    for (to, from) in first.iter_mut().zip(hasher.finalize()) {
        *to = from;
    }
    u64::from_be_bytes(first) >> 16
}
