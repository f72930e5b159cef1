//! `renewd check`: reports whether `run` would start with a configuration.
//!
//! Keeps true: what is printed holds no secret; findings go to stderr, the verdict (or `--json`) to stdout.
//! Must not know: how anything is validated.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::config::environment::SystemEnvironment;
use crate::config::{self, Checked, ConfigErrors, Diagnostic};
use crate::io::descriptors;
use crate::io::descriptors::Shares;

/// "78 invalid configuration file" (`EX_CONFIG` of `sysexits.h`), a missing or unreadable one
/// included: as with an invalid one, another start fails too until the file is corrected.
pub(crate) const EXIT_INVALID: u8 = 78;

/// `check`'s arguments.
#[derive(Debug, clap::Args)]
pub struct CheckArguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/renewd/config.toml")]
    pub config: PathBuf,
    /// Treat warnings as errors.
    #[arg(long)]
    pub strict: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Checks the file and prints what was found. 0: valid; 78: not; 1: the result couldn't be printed.
pub fn run(arguments: &CheckArguments, stdout: &mut impl Write, stderr: &mut impl Write) -> u8 {
    let result = config::check_file(&arguments.config, &SystemEnvironment);
    let verdict = verdict(result, arguments.strict);
    let printed = if arguments.json {
        writeln!(stdout, "{}", as_json(&arguments.config, &verdict))
    } else {
        print_for_people(&verdict, stdout, stderr)
    };
    match (printed, verdict.valid()) {
        (Err(_), _) => 1,
        (Ok(()), true) => 0,
        (Ok(()), false) => EXIT_INVALID,
    }
}

struct CheckReport {
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    notes: Vec<Diagnostic>,
    /// `None` where the configuration is invalid.
    shares: Option<Shares>,
    strict: bool,
}

impl CheckReport {
    fn valid(&self) -> bool {
        self.errors.is_empty() && (!self.strict || self.warnings.is_empty())
    }
}

fn verdict(result: Result<Checked, ConfigErrors>, strict: bool) -> CheckReport {
    let most = result.as_ref().ok().map(|checked| checked.max_connections);
    let (errors, warnings, notes) = match result {
        Ok(checked) => (Vec::new(), checked.warnings, checked.notes),
        Err(errors) => (errors.errors, errors.warnings, Vec::new()),
    };
    CheckReport {
        errors,
        warnings,
        notes,
        // These hold for a daemon that is started from this shell. The unit's LimitNOFILE= may differ.
        shares: most.map(|most| Shares::of(descriptors::limit(), most)),
        strict,
    }
}

fn print_for_people(
    verdict: &CheckReport,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> io::Result<()> {
    let findings = [&verdict.notes, &verdict.warnings, &verdict.errors];
    config::write_report(stderr, findings.into_iter().flatten())?;
    if verdict.valid() {
        if let Some(shares) = &verdict.shares {
            writeln!(stdout, "{shares}")?;
        }
        return writeln!(stdout, "configuration is valid");
    }
    writeln!(stderr, "{}", summary(verdict))
}

fn summary(verdict: &CheckReport) -> String {
    let plural = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    let errors = plural(verdict.errors.len(), "error");
    let warnings = plural(verdict.warnings.len(), "warning");
    match (verdict.errors.is_empty(), verdict.warnings.is_empty()) {
        (false, true) => format!("configuration is invalid: {errors}"),
        (false, false) => format!("configuration is invalid: {errors}, {warnings}"),
        (true, _) => format!("configuration is refused by --strict: {warnings}"),
    }
}

/// Without a limit of descriptors, `all` is null.
fn shares(shares: &Shares) -> Value {
    json!({
        "all": (shares.descriptors < u64::MAX).then_some(shares.descriptors),
        "clients": shares.clients,
        "requests": shares.requests,
        "streams": shares.streams,
        "reserve": shares.reserve,
    })
}

fn as_json(file: &Path, verdict: &CheckReport) -> Value {
    let list =
        |findings: &[Diagnostic]| findings.iter().map(Diagnostic::to_json).collect::<Value>();
    json!({
        "file": file.to_string_lossy(),
        "valid": verdict.valid(),
        "errors": list(&verdict.errors),
        "warnings": list(&verdict.warnings),
        "notes": list(&verdict.notes),
        "descriptors": verdict.shares.as_ref().map(shares),
    })
}
