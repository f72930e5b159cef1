//! `renewd config show`: the configuration in force, or that of a file, with defaults filled in and secrets left out.
//!
//! Must not know: how a key is read, which values are secrets.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::admin;
use super::check::EXIT_INVALID;
use super::table::{Tone, harmless, text};
use crate::config::environment::SystemEnvironment;
use crate::config::shown::ConfigShown;
use crate::config::{check_file, write_report};

/// Behind a value that the file leaves out.
const DEFAULT: &str = "  # default";

const AFTER_HELP: &str = "The command prints a configuration file. In place of a secret it prints where the secret is, \
or \"[redacted]\". Keys without a default that the file leaves out are not printed.\n\nExamples:\n  \
renewd config show\n  renewd config show --file --config ./config.toml";

/// `config`'s commands.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the configuration in force, with defaults filled in and secrets left out
    Show(ShowArguments),
}

/// `config show`'s arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ShowArguments {
    /// The configuration file; the running daemon that it belongs to is asked
    #[arg(long, value_name = "FILE", default_value = "/etc/renewd/config.toml")]
    config: PathBuf,
    /// Print what the file says, without asking a daemon
    #[arg(long)]
    file: bool,
    /// Print the keys as JSON
    #[arg(long)]
    json: bool,
}

/// Prints. 0: printed; 78: the file is invalid; 1: there was no answer.
pub(crate) fn show(
    arguments: &ShowArguments,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> u8 {
    let found = if arguments.file {
        of_file(&arguments.config, stderr)
    } else {
        in_force(&arguments.config, stderr)
    };
    let answer = match found {
        Ok(answer) => answer,
        Err(status) => return status,
    };
    let printed = if arguments.json {
        writeln!(stdout, "{answer}")
    } else {
        print_for_people(answer, stdout)
    };
    u8::from(printed.is_err())
}

/// The daemon's answer, or the exit status of the reason that was printed.
fn in_force(file: &Path, stderr: &mut impl Write) -> Result<Value, u8> {
    let answer = admin::get(file, "/v1/config").map_err(|error| {
        let status = admin::report(&error, stderr);
        if status != EXIT_INVALID {
            // There is no way to report that this can't be printed.
            let _ = writeln!(stderr, "renewd: --file prints what the file says instead");
        }
        status
    })?;
    Ok(serde_json::from_slice(&answer).unwrap_or_default())
}

/// The same of a file.
fn of_file(file: &Path, stderr: &mut impl Write) -> Result<Value, u8> {
    match check_file(file, &SystemEnvironment) {
        Ok(checked) => Ok(json!({"file": file.to_string_lossy(), "keys": checked.shown.keys})),
        Err(errors) => {
            let _ = write_report(stderr, &errors.errors);
            Err(EXIT_INVALID)
        }
    }
}

fn print_for_people(answer: Value, stdout: &mut impl Write) -> io::Result<()> {
    let comment = |line: &str| Tone::Faint.paint(line);
    let of = |name: &str| answer.get(name).map(text).unwrap_or_default();
    let heading = match of("hash") {
        hash if hash.is_empty() => format!("# What {} says.", of("file")),
        hash => format!("# In force, from {}, hash {hash}.", of("file")),
    };
    writeln!(stdout, "{}", comment(&heading))?;
    if answer.get("fallback") == Some(&Value::Bool(true)) {
        let fallback = "# The file is invalid: this is the last valid configuration.";
        writeln!(stdout, "{}", Tone::Bad.paint(fallback))?;
    }
    let waiting = answer.get("restart_required").and_then(Value::as_array);
    for key in waiting.into_iter().flatten() {
        let waiting = format!("# The new value of {} waits for a restart.", text(key));
        writeln!(stdout, "{}", Tone::Doubtful.paint(&waiting))?;
    }
    let shown: ConfigShown = serde_json::from_value(answer)?;
    for line in shown.to_toml(DEFAULT).lines() {
        match line.strip_suffix(DEFAULT) {
            Some(_) => writeln!(stdout, "{}", comment(&harmless(line)))?,
            None => writeln!(stdout, "{}", harmless(line))?,
        }
    }
    Ok(())
}
