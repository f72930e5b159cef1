//! `renewd health`: whether the daemon is in order, as an exit status, for the probes of containers.
//!
//! Must not know: what makes a daemon ready.

use std::io::{self, Write};
use std::path::PathBuf;

use http::Method;
use serde_json::{Value, json};

use super::admin::{AskError, ask_daemon, report};

const AFTER_HELP: &str = "The command needs no token, and no other program: a container's health check can be \
`renewd health`.\n\nExit status: 0 if the daemon is ready, 1 if it is not or does not answer, 78 if the configuration \
file does not say where to ask.";

/// `health`'s arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct HealthArguments {
    /// The configuration file, which names the daemon's admin listener
    #[arg(long, value_name = "FILE", default_value = "/etc/renewd/config.toml")]
    config: PathBuf,
    /// Ask only whether the process works at all: a liveness probe
    #[arg(long, conflicts_with = "tokens")]
    live: bool,
    /// Also fail if a source or store that tokens need gives no answer
    #[arg(long)]
    tokens: bool,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Asks and prints. 0: in order; 1: not, or no answer; 78: the file is invalid.
pub(crate) fn run(
    arguments: &HealthArguments,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> u8 {
    match ask(arguments) {
        Ok((healthy, answer)) => {
            let printed = print(arguments.json, &answer, stdout);
            u8::from(!healthy || printed.is_err())
        }
        Err(error) => report(&error, stderr),
    }
}

/// Whether all is well, and what the daemon says.
fn ask(arguments: &HealthArguments) -> Result<(bool, Value), AskError> {
    let path = match (arguments.live, arguments.tokens) {
        (true, _) => "/healthz",
        (_, true) => "/readyz?tokens",
        _ => "/readyz",
    };
    let answer = ask_daemon(&arguments.config, Method::GET, path, "")?;
    let healthy = answer.status.is_success();
    let said = serde_json::from_slice(&answer.body);
    Ok((healthy, said.unwrap_or_else(|_| json!({"live": healthy}))))
}

fn print(as_json: bool, answer: &Value, stdout: &mut impl Write) -> io::Result<()> {
    if as_json {
        return writeln!(stdout, "{answer}");
    }
    let is = |name: &str| answer.get(name).and_then(Value::as_bool);
    let reason = answer.get("reason").and_then(Value::as_str);
    let degraded = answer.get("degraded").and_then(Value::as_array);
    let degraded: Vec<&str> = degraded
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let behind = if degraded.is_empty() {
        String::new()
    } else {
        format!(": {}", degraded.join(", "))
    };
    match (is("live"), is("ready"), reason) {
        (Some(true), ..) => writeln!(stdout, "live"),
        (_, Some(true), Some("ok")) => writeln!(stdout, "ready"),
        (_, Some(true), Some(reason)) => writeln!(stdout, "ready, {reason}{behind}"),
        (_, _, Some(reason)) => writeln!(stdout, "not ready: {reason}{behind}"),
        _ => writeln!(stdout, "not ready"),
    }
}
