//! `renewd reload`: has the running daemon read its files again, and says what became of it.
//!
//! Keeps true: the exit status says whether the file is in force.
//! Must not know: what a reload does.

use std::io::{self, Write};

use http::{Method, StatusCode};
use serde_json::Value;

use super::admin::{DaemonArguments, ask_daemon, report};
use super::table::{Tone, text};

/// Reloads. 0: in force; 78: the file is invalid, and the former configuration stays; 1: anything else.
pub(crate) fn run(
    arguments: &DaemonArguments,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> u8 {
    let asked = ask_daemon(&arguments.config, Method::POST, "/-/reload", "{}");
    let answer = match asked {
        Ok(answer) => answer,
        Err(error) => return report(&error, stderr),
    };
    let status = match answer.status {
        StatusCode::OK => 0,
        StatusCode::UNPROCESSABLE_ENTITY => super::check::EXIT_INVALID,
        _ => return report(&answer.refused(), stderr),
    };
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let printed = match (arguments.json, status) {
        (true, _) => writeln!(stdout, "{said}"),
        (_, 0) => print_reloaded(&said, stdout),
        _ => print_problems(&said, stderr),
    };
    if printed.is_err() { 1 } else { status }
}

fn print_reloaded(said: &Value, stdout: &mut impl Write) -> io::Result<()> {
    let changed = texts(said, "changed");
    if changed.is_empty() {
        writeln!(stdout, "reloaded; nothing changed")?;
    } else {
        writeln!(stdout, "reloaded: {}", changed.join(", "))?;
    }
    let waiting = texts(said, "restart_required");
    if !waiting.is_empty() {
        let waiting = format!("restart required for {}", waiting.join(", "));
        writeln!(stdout, "{}", Tone::Doubtful.paint(&waiting))?;
    }
    for warning in texts(said, "warnings") {
        writeln!(stdout, "{} {warning}", Tone::Doubtful.paint("warning:"))?;
    }
    Ok(())
}

fn print_problems(said: &Value, stderr: &mut impl Write) -> io::Result<()> {
    let problems = said.get("errors").and_then(Value::as_array);
    for problem in problems.into_iter().flatten() {
        let of = |name: &str| problem.get(name).map(text).unwrap_or_default();
        let key = match of("key") {
            key if key.is_empty() => key,
            key => format!("`{key}`: "),
        };
        writeln!(
            stderr,
            "{} {key}{}",
            Tone::Bad.paint("error:"),
            of("message")
        )?;
        let line = match of("line") {
            line if line.is_empty() => line,
            line => format!(":{line}:{}", of("column")),
        };
        writeln!(stderr, " --> {}{line}", of("file"))?;
        if problem.get("hint").is_some() {
            writeln!(stderr, " = help: {}", of("hint"))?;
        }
        writeln!(stderr)?;
    }
    writeln!(
        stderr,
        "{}",
        text(said.get("message").unwrap_or(&Value::Null))
    )
}

fn texts(said: &Value, name: &str) -> Vec<String> {
    let list = said.get(name).and_then(Value::as_array);
    list.into_iter().flatten().map(text).collect()
}
