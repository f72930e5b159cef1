//! `renewd explain`: asks the running daemon why a subject gets a token or is refused.
//!
//! Keeps true: nothing is minted, counted or charged.
//! Must not know: how a decision is made.

use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::Value;

use super::admin;
use super::table::{TableCell, TextTable, Tone, text};

const AFTER_HELP: &str = "The command asks the running daemon, which answers from its own caches and sessions. \
No token is issued, nothing is counted, and no rate limit is charged. Checks that need the user's login token are \
skipped.\n\nExample:\n  renewd explain --subject 65f0a1b2c3d4e5f6a7b8c9d0 \
--channel live_show --role publisher";

/// `explain`'s arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ExplainArguments {
    /// The configuration file, which names the daemon's admin listener
    #[arg(long, value_name = "FILE", default_value = "/etc/renewd/config.toml")]
    config: PathBuf,
    /// The user: the subject of the login token; with --socket, leave it out for a socket without a login
    #[arg(long, required_unless_present = "socket")]
    subject: Option<String>,
    /// The channel
    #[arg(long)]
    channel: String,
    /// publisher or subscriber [default: the role that the stream gives this user; with --socket, publisher]
    #[arg(long)]
    role: Option<String>,
    /// Also check whether the user may use this uid
    #[arg(long, conflicts_with = "account")]
    uid: Option<String>,
    /// Also check whether the user may use this string user account
    #[arg(long)]
    account: Option<String>,
    /// Explain what becomes of a token that the backend sends over a socket ([[reissue.socket]])
    #[arg(long)]
    socket: bool,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Asks and prints. 0: the daemon explained, whatever the decision; 78: the file is invalid; 1: there was no answer.
pub(crate) fn run(
    arguments: &ExplainArguments,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> u8 {
    let answer = match admin::get(&arguments.config, &path(arguments)) {
        Ok(answer) => answer,
        Err(error) => return admin::report(&error, stderr),
    };
    let printed = if arguments.json {
        stdout.write_all(&answer).and_then(|()| writeln!(stdout))
    } else {
        print_for_people(&answer, stdout)
    };
    u8::from(printed.is_err())
}

fn path(arguments: &ExplainArguments) -> String {
    let query = admin::query(&[
        ("subject", arguments.subject.as_deref()),
        ("socket", arguments.socket.then_some("true")),
        ("channel", Some(&arguments.channel)),
        ("role", arguments.role.as_deref()),
        ("uid", arguments.uid.as_deref()),
        ("account", arguments.account.as_deref()),
    ]);
    format!("/v1/explain?{query}")
}

fn print_for_people(answer: &[u8], stdout: &mut impl Write) -> io::Result<()> {
    let answer: Value = serde_json::from_slice(answer)?;
    let of = |value: &Value, name: &str| value.get(name).map(text).unwrap_or_default();
    let steps = answer.get("steps").and_then(Value::as_array);
    let mut table = TextTable::new(["STEP", "PASSES", "WHY"]);
    for step in steps.into_iter().flatten() {
        let (verdict, tone) = match of(step, "verdict").as_str() {
            "passes" => ("yes", Tone::Good),
            "refuses" => ("NO", Tone::Bad),
            "no_answer" => ("no answer", Tone::Doubtful),
            "rides_through" => ("rides through", Tone::Doubtful),
            _ => ("-", Tone::Faint),
        };
        let age = step.get("age_ms").and_then(Value::as_u64);
        let age = age.map_or_else(String::new, |age| format!(", {age} ms old"));
        let why = format!("{} ({}{age})", of(step, "detail"), of(step, "source"));
        table.row([
            TableCell::plain(&of(step, "step")),
            TableCell::new(verdict, tone),
            TableCell::plain(&why),
        ]);
    }
    table.print(stdout)?;
    let role = of(&answer, "role");
    let role = if role.is_empty() {
        role
    } else {
        format!(", as {role}")
    };
    let status = answer.get("status").and_then(Value::as_u64);
    let status = status.map_or_else(String::new, |status| format!("{status} "));
    writeln!(stdout, "\n{status}{}{role}", of(&answer, "code"))
}
