//! `renewd status`: the running daemon on one page: what is wrong first, then its backend, its sources, its work.
//!
//! Must not know: how the daemon knows.

use std::io::{self, Write};

use serde_json::Value;

use super::admin::{self, DaemonArguments};
use super::table::{TableCell, TextTable, Tone, text};

/// Asks and prints. 0: the daemon answered, whatever its state; 78: the file is invalid; 1: there was no answer.
pub(crate) fn run(
    arguments: &DaemonArguments,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> u8 {
    let answer = match admin::get(&arguments.config, "/v1/status") {
        Ok(answer) => answer,
        Err(error) => return admin::report(&error, stderr),
    };
    let printed = if arguments.json {
        stdout.write_all(&answer).and_then(|()| writeln!(stdout))
    } else {
        let status = serde_json::from_slice(&answer).unwrap_or_default();
        print_for_people(&status, stdout)
    };
    u8::from(printed.is_err())
}

/// The value below these names; null where there is none.
fn at<'v>(value: &'v Value, path: &str) -> &'v Value {
    value.pointer(path).unwrap_or(&Value::Null)
}

fn entries<'v>(status: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> {
    let list = status.get(name).and_then(Value::as_array);
    list.into_iter().flatten()
}

fn print_for_people(status: &Value, stdout: &mut impl Write) -> io::Result<()> {
    let of = |path: &str| text(at(status, path));
    let phase = of("/phase");
    let tone = if phase == "running" {
        Tone::Good
    } else {
        Tone::Doubtful
    };
    let up = humantime::format_duration(std::time::Duration::from_secs(
        at(status, "/uptime_seconds").as_u64().unwrap_or_default(),
    ));
    writeln!(
        stdout,
        "renewd {} is {} since {} ({up})\n",
        of("/version"),
        tone.paint(&phase),
        of("/started_at"),
    )?;
    print_conditions(status, stdout)?;
    print_facts(status, stdout)?;
    print_upstreams(status, stdout)?;
    print_sources(status, stdout)
}

fn print_conditions(status: &Value, stdout: &mut impl Write) -> io::Result<()> {
    let mut table = TextTable::new(["SEVERITY", "ALERT", "WHAT IS WRONG"]);
    for condition in entries(status, "conditions") {
        let of = |path: &str| text(at(condition, path));
        let tone = match of("/severity").as_str() {
            "critical" => Tone::Bad,
            "warning" => Tone::Doubtful,
            _ => Tone::Plain,
        };
        table.row([
            TableCell::new(&of("/severity"), tone),
            TableCell::plain(&of("/alert")),
            TableCell::plain(&of("/message")),
        ]);
    }
    if table.is_empty() {
        return writeln!(stdout, "{}\n", Tone::Good.paint("Nothing is wrong."));
    }
    table.print(stdout)?;
    writeln!(stdout)
}

fn print_facts(status: &Value, stdout: &mut impl Write) -> io::Result<()> {
    let of = |path: &str| text(at(status, path));
    // Where the backend answers all token requests, the share says nothing.
    let (mode, percent) = (of("/mode"), of("/enforce_percent"));
    let mode = if mode == "enforce" && percent != "100" {
        format!("{mode}, for {percent} % of the users")
    } else {
        mode
    };
    let file = format!("{}, loaded {}", of("/config/path"), of("/config/loaded_at"));
    let sessions = format!(
        "{} publishers, {} subscribers",
        of("/sessions/publishers"),
        of("/sessions/subscribers"),
    );
    let draining = at(status, "/draining_publishers")
        .as_u64()
        .unwrap_or_default();
    let waiting: Vec<String> = at(status, "/config/restart_required")
        .as_array()
        .map(|keys| keys.iter().map(text).collect())
        .unwrap_or_default();
    let (is_fallback, is_loaded) = (
        at(status, "/config/fallback") == &Value::Bool(true),
        at(status, "/config/last_reload_successful") == &Value::Bool(true),
    );
    let mut facts = vec![
        ("mode", mode, Tone::Plain),
        ("configuration", file, Tone::Plain),
        ("sessions", sessions, Tone::Plain),
        ("revocations", of("/revocations"), Tone::Plain),
        ("connections", of("/connections"), Tone::Plain),
    ];
    if draining > 0 {
        facts.push(("draining", format!("{draining} publishers"), Tone::Doubtful));
    }
    if is_fallback {
        let what = "the last valid configuration is in force: the file is invalid";
        facts.push(("fallback", what.to_owned(), Tone::Bad));
    } else if !is_loaded {
        let what = format!(
            "refused at {}; `renewd check` says why",
            of("/config/last_reload_at")
        );
        facts.push(("last reload", what, Tone::Bad));
    }
    if !waiting.is_empty() {
        let what = format!("restart required for {}", waiting.join(", "));
        facts.push(("waiting", what, Tone::Doubtful));
    }
    for (name, value, tone) in facts {
        writeln!(
            stdout,
            "{} {}",
            Tone::Faint.paint(&format!("{name:<14}")),
            tone.paint(&value)
        )?;
    }
    writeln!(stdout)
}

/// `up` or `down`.
fn standing(of: &Value) -> TableCell {
    if at(of, "/up") == &Value::Bool(true) {
        TableCell::new("up", Tone::Good)
    } else {
        TableCell::new("down", Tone::Bad)
    }
}

fn print_upstreams(status: &Value, stdout: &mut impl Write) -> io::Result<()> {
    let mut table = TextTable::new(["BACKEND", "STATE"]);
    for server in entries(status, "upstreams") {
        table.row([
            TableCell::plain(&text(at(server, "/server"))),
            standing(server),
        ]);
    }
    table.print(stdout)?;
    writeln!(stdout)
}

fn print_sources(status: &Value, stdout: &mut impl Write) -> io::Result<()> {
    let mut table = TextTable::new(["SOURCE", "STATE", "SINCE", "REFRESHES REST UNTIL", "WHY"]);
    for source in entries(status, "sources") {
        let of = |path: &str| text(at(source, path));
        let (error, doubt) = (of("/error"), of("/doubt"));
        let why = if error.is_empty() { doubt } else { error };
        table.row([
            TableCell::plain(&of("/source")),
            standing(source),
            TableCell::plain(&of("/down_since")),
            TableCell::plain(&of("/rest_until")),
            TableCell::plain(&why),
        ]);
    }
    if table.is_empty() {
        return writeln!(stdout, "No source is asked.");
    }
    table.print(stdout)
}
