//! `renewd revoke`, `renewd revocations`, `renewd unrevoke`: changes and lists the revocations of the running daemon.
//!
//! Keeps true: the daemon checks what is asked for; a change that is in force and not written to disk is no success.
//! Must not know: how revocations are kept.

use std::fmt::Write as _;
use std::io::{self, Write};

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::admin::{self, AskError, DaemonAnswer, DaemonArguments, ask_daemon, report};
use super::table::{TableCell, TextTable, text};

const PATH: &str = "/v1/revocations";

const REVOKE_HELP: &str = "A user who is revoked gets no new token and no renewal from the next request on. \
Tokens that were issued before stay valid with Agora until they expire: the command lists them. \
With [agora.rest] their users are also removed from their channels.\n\n\
Examples:\n  renewd revoke --subject 65f0a1b2c3d4e5f6a7b8c9d0 --for 24h --reason \"chargeback\"\n  \
renewd revoke --channel live_show --uid 77 --for 1h\n  \
renewd revoke --channel live_show --until 2027-01-01T00:00:00Z";

/// `revoke`'s arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = REVOKE_HELP)]
#[command(group = clap::ArgGroup::new("target").multiple(true).required(true)
    .args(["subject", "channel", "uid", "account"]))]
#[command(group = clap::ArgGroup::new("end").required(true).args(["duration", "until"]))]
pub(crate) struct RevokeArguments {
    #[command(flatten)]
    daemon: DaemonArguments,
    /// The user: the subject of the login token
    // Ids such as Firebase's may begin with a hyphen.
    #[arg(long, conflicts_with_all = ["uid", "account"], allow_hyphen_values = true)]
    subject: Option<String>,
    /// The channel; with --subject, --uid or --account only for them
    #[arg(long, allow_hyphen_values = true)]
    channel: Option<String>,
    /// The uid in the channel, and the user who holds it now
    #[arg(
        long,
        requires = "channel",
        conflicts_with = "account",
        allow_negative_numbers = true
    )]
    uid: Option<String>,
    /// The string user account in the channel, and the user who holds it now
    #[arg(long, requires = "channel", allow_hyphen_values = true)]
    account: Option<String>,
    /// How long: 90s, 2h, 30days; at most 365days
    #[arg(long = "for", value_name = "DURATION")]
    duration: Option<String>,
    /// Until when: 2027-01-01T00:00:00Z
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// A note for the list of revocations and the audit log; no client sees it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// `revocations`' arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArguments {
    #[command(flatten)]
    daemon: DaemonArguments,
    /// List only what names this user, by the subject of the login token
    #[arg(long, allow_hyphen_values = true)]
    subject: Option<String>,
    /// List only what names this channel
    #[arg(long, allow_hyphen_values = true)]
    channel: Option<String>,
}

/// `unrevoke`'s arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct UnrevokeArguments {
    #[command(flatten)]
    daemon: DaemonArguments,
    /// The revocation's id, as `renewd revocations` lists it
    id: String,
}

/// Revokes. 0: in force and written; 78: the file is invalid; 1: anything else.
pub(crate) fn revoke(
    arguments: &RevokeArguments,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> u8 {
    let body: Map<String, Value> = [
        ("subject", &arguments.subject),
        ("channel", &arguments.channel),
        ("uid", &arguments.uid),
        ("account", &arguments.account),
        ("for", &arguments.duration),
        ("until", &arguments.until),
        ("reason", &arguments.reason),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?.into())))
    .collect();
    let body = Value::from(body).to_string();
    change(
        &arguments.daemon,
        (Method::POST, PATH, &body),
        print_revoked,
        stdout,
        stderr,
    )
}

/// Lifts a revocation. 0: it is over, and that is written; 78: the file is invalid; 1: anything else.
pub(crate) fn unrevoke(
    arguments: &UnrevokeArguments,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> u8 {
    let id: String = form_urlencoded::byte_serialize(arguments.id.as_bytes()).collect();
    let path = format!("{PATH}/{id}");
    change(
        &arguments.daemon,
        (Method::DELETE, &path, ""),
        |answer, stdout| writeln!(stdout, "lifted {}", entry(answer)),
        stdout,
        stderr,
    )
}

/// Lists all revocations in force. 0: listed; 78: the file is invalid; 1: anything else.
pub(crate) fn list(
    arguments: &ListArguments,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> u8 {
    match all(arguments) {
        Ok(revocations) => {
            let printed = if arguments.daemon.json {
                writeln!(stdout, "{}", json!({ "revocations": revocations }))
            } else {
                print_list(&revocations, stdout)
            };
            u8::from(printed.is_err())
        }
        Err(error) => report(&error, stderr),
    }
}

/// Every page of the list.
fn all(arguments: &ListArguments) -> Result<Vec<Value>, AskError> {
    let (mut revocations, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let query = admin::query(&[
            ("limit", Some("1000")),
            ("subject", arguments.subject.as_deref()),
            ("channel", arguments.channel.as_deref()),
            ("cursor", cursor.as_deref()),
        ]);
        let answer = admin::get(&arguments.daemon.config, &format!("{PATH}?{query}"))?;
        let mut page: Value = serde_json::from_slice(&answer).unwrap_or_default();
        if let Some(Value::Array(listed)) = page.get_mut("revocations").map(Value::take) {
            revocations.extend(listed);
        }
        match page.get("cursor").and_then(Value::as_str) {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok(revocations),
        }
    }
}

/// Asks for a change and prints what the daemon says of it.
fn change(
    daemon: &DaemonArguments,
    (method, path, body): (Method, &str, &str),
    print: impl FnOnce(&Value, &mut dyn Write) -> io::Result<()>,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> u8 {
    let answer = match ask_daemon(&daemon.config, method, path, body) {
        Ok(answer) => answer,
        Err(error) => return report(&error, stderr),
    };
    let DaemonAnswer { status, body } = &answer;
    let in_force = status.is_success() || *status == StatusCode::INSUFFICIENT_STORAGE;
    if in_force {
        let printed = if daemon.json {
            stdout.write_all(body).and_then(|()| writeln!(stdout))
        } else {
            print(&serde_json::from_slice(body).unwrap_or_default(), stdout)
        };
        if printed.is_err() {
            return 1;
        }
    }
    if status.is_success() {
        return 0;
    }
    report(&answer.refused(), stderr)
}

fn print_revoked(answer: &Value, stdout: &mut dyn Write) -> io::Result<()> {
    writeln!(stdout, "revoked {}", entry(answer))?;
    if let Some(ejections) = answer.get("ejections") {
        writeln!(stdout, "removal from channels: {}", counts(ejections))?;
    }
    let outstanding = answer.get("outstanding");
    let of = |name: &str| outstanding.and_then(|outstanding| outstanding.get(name));
    let count = of("count").and_then(Value::as_u64).unwrap_or_default();
    if count == 0 {
        return writeln!(stdout, "No token is outstanding.");
    }
    writeln!(
        stdout,
        "{count} outstanding {} can't be recalled; the last expires at {}:",
        if count == 1 { "token" } else { "tokens" },
        text(of("last_expires").unwrap_or(&Value::Null))
    )?;
    let named = of("tokens").and_then(Value::as_array);
    let mut table = TextTable::new(["EXPIRES", "ROLE", "SUBJECT", "CHANNEL", "UID", "ACCOUNT"]);
    let names = ["expires", "role", "subject", "channel", "uid", "account"];
    for token in named.into_iter().flatten() {
        let of = |name: &str| token.get(name).map(text).unwrap_or_default();
        table.row(names.map(|name| TableCell::plain(&of(name))));
    }
    if !table.is_empty() {
        table.print(stdout)?;
    }
    let named = named.map_or(0, |named| u64::try_from(named.len()).unwrap_or(u64::MAX));
    match count.saturating_sub(named) {
        0 => Ok(()),
        more => writeln!(stdout, "  and {more} more"),
    }
}

fn print_list(revocations: &[Value], stdout: &mut dyn Write) -> io::Result<()> {
    if revocations.is_empty() {
        return writeln!(stdout, "Nothing is revoked.");
    }
    let mut table = TextTable::new([
        "ID", "SUBJECT", "CHANNEL", "UID", "ACCOUNT", "UNTIL", "REMOVAL", "REASON",
    ]);
    let names = [
        "id", "subject", "channel", "uid", "account", "until", "reason",
    ];
    for revocation in revocations {
        let of = |name: &str| revocation.get(name).map(text).unwrap_or_default();
        let [id, subject, channel, uid, account, until, reason] =
            names.map(|name| TableCell::plain(&of(name)));
        let removal =
            TableCell::plain(&revocation.get("ejections").map(counts).unwrap_or_default());
        table.row([id, subject, channel, uid, account, until, removal, reason]);
    }
    table.print(stdout)
}

/// One revocation in one line.
fn entry(revocation: &Value) -> String {
    let of = |name: &str| revocation.get(name).map(text);
    let mut line = of("id").unwrap_or_default();
    if let Some(subject) = of("subject") {
        let _ = write!(line, "  subject {subject}");
    }
    if let Some(channel) = of("channel") {
        let _ = write!(line, "  channel {channel}");
    }
    line += &user(revocation);
    let _ = write!(line, "  until {}", of("until").unwrap_or_default());
    if let Some(reason) = of("reason").filter(|reason| !reason.is_empty()) {
        let _ = write!(line, "  ({reason})");
    }
    line
}

/// How far the removal of users from their channels is: the numbers that aren't 0, and the last error.
fn counts(ejections: &Value) -> String {
    let names = ["pending", "done", "failed", "not_possible", "dropped"];
    let numbers = names.into_iter().filter_map(|name| {
        let number = ejections.get(name)?.as_u64()?;
        (number > 0).then(|| format!("{number} {}", name.replace('_', " ")))
    });
    let mut shown = numbers.collect::<Vec<_>>().join(", ");
    if shown.is_empty() {
        "none".clone_into(&mut shown);
    }
    if let Some(error) = ejections.get("error") {
        let _ = write!(shown, "; {}", text(error));
    }
    shown
}

/// The uid or account, with its name in front.
fn user(value: &Value) -> String {
    let named = |name: &str| Some(format!("  {name} {}", text(value.get(name)?)));
    named("uid")
        .or_else(|| named("account"))
        .unwrap_or_default()
}
