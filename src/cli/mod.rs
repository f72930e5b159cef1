//! The command line: one file a command. This one only chooses the command.
//!
//! Keeps true: the exit status is 0 for success, 64 for wrong arguments, 78 for an invalid configuration, 1 for all
//! else.
//! Must not know: what a command does.

pub(crate) mod admin;
pub mod check;
pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod explain;
pub(crate) mod health;
pub(crate) mod reload;
pub(crate) mod revocations;
pub(crate) mod run;
pub(crate) mod shell;
pub(crate) mod status;
pub(crate) mod table;
pub mod token;

use std::io::stdin;
use std::process::ExitCode;

use anstream::{stderr, stdout};
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::daemon::systemd::PassedSockets;
use crate::terms::clock::{Clock, Entropy};
use crate::terms::version::VERSION_AND_COMMIT;

/// `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;

const AFTER_HELP: &str = "To try renewd, run `renewd demo`.\n\n\
To put it in front of a backend, write /etc/renewd/config.toml, run `renewd check`, then `systemctl start renewd`.\n\n\
Exit status: 0 for success, 64 for wrong arguments, 78 for an invalid configuration file, 1 for any other failure.";

/// Answers Agora token requests for a live-streaming backend and forwards everything else.
#[derive(Debug, Parser)]
#[command(name = "renewd", version = VERSION_AND_COMMIT, max_term_width = 100, after_help = AFTER_HELP)]
struct CliArguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon, as systemd does
    Run(run::RunArguments),
    /// Check a configuration file and report all of its errors at once
    Check(check::CheckArguments),
    /// Try renewd: start it with a small backend and a live stream, and print curl commands
    Demo(demo::DemoArguments),
    /// Show the running daemon: what is wrong, its backend, its sources, its work
    Status(admin::DaemonArguments),
    /// Tell by the exit status whether the running daemon is ready, for probes
    Health(health::HealthArguments),
    /// Have the running daemon read its files again
    Reload(admin::DaemonArguments),
    /// Show the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Explain why a user gets a token or is refused, step by step
    Explain(explain::ExplainArguments),
    /// Refuse tokens to a user, a channel or a uid from now on
    Revoke(revocations::RevokeArguments),
    /// List the revocations in force
    Revocations(revocations::ListArguments),
    /// End a revocation before its time
    Unrevoke(revocations::UnrevokeArguments),
    /// Create or inspect a token, offline
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Print the completions of a shell
    Completions(shell::CompletionsArguments),
    /// Print the manual page
    Man(shell::ManArguments),
}

/// Runs the command that the arguments name. `inherited` are the sockets the service manager passed.
pub fn main(inherited: PassedSockets) -> ExitCode {
    let arguments = match CliArguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // There is no way to report that this can't be printed.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    // These take the colours out where the output is no terminal, or NO_COLOR is set.
    let (stdout, stderr) = (&mut stdout(), &mut stderr());
    match arguments.command {
        Command::Run(arguments) => run::run(arguments, inherited),
        Command::Check(arguments) => check::run(&arguments, stdout, stderr).into(),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Status(arguments) => status::run(&arguments, stdout, stderr).into(),
        Command::Health(arguments) => health::run(&arguments, stdout, stderr).into(),
        Command::Reload(arguments) => reload::run(&arguments, stdout, stderr).into(),
        Command::Config(config::ConfigCommand::Show(arguments)) => {
            config::show(&arguments, stdout, stderr).into()
        }
        Command::Explain(arguments) => explain::run(&arguments, stdout, stderr).into(),
        Command::Revoke(arguments) => revocations::revoke(&arguments, stdout, stderr).into(),
        Command::Revocations(arguments) => revocations::list(&arguments, stdout, stderr).into(),
        Command::Unrevoke(arguments) => revocations::unrevoke(&arguments, stdout, stderr).into(),
        Command::Completions(arguments) => {
            shell::completions(&arguments, CliArguments::command(), stdout).into()
        }
        Command::Man(arguments) => {
            shell::manual(&arguments, CliArguments::command(), stdout, stderr).into()
        }
        Command::Token(command) => {
            match token::run(
                command,
                &Clock::system(),
                Entropy::System,
                &mut stdin(),
                stdout,
                stderr,
            ) {
                Ok(status) => status.into(),
                Err(error) => {
                    eprintln!("renewd: {error}");
                    error.exit_status().into()
                }
            }
        }
    }
}
