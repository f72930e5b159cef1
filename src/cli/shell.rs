//! `renewd completions` and `renewd man`: what a package installs beside the program, made from the command line itself.
//!
//! Must not know: which commands there are.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Command;
use clap_complete::Shell;

/// `completions`' arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArguments {
    /// The shell
    shell: Shell,
}

/// `man`'s arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct ManArguments {
    /// Write a page for each command into this directory, instead of renewd(1) to standard output
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

/// Prints the completions of a shell. 0: printed; 1: not.
pub(crate) fn completions(
    arguments: &CompletionsArguments,
    mut command: Command,
    stdout: &mut impl Write,
) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "renewd", &mut script);
    u8::from(stdout.write_all(&script).is_err())
}

/// Writes the manual. 0: written; 1: not.
pub(crate) fn manual(
    arguments: &ManArguments,
    command: Command,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> u8 {
    let written = match &arguments.directory {
        Some(directory) => clap_mangen::generate_to(command, directory),
        None => page(command, stdout),
    };
    if let Err(error) = &written {
        // There is no way to report that this can't be printed.
        let _ = writeln!(stderr, "renewd: can't write the manual: {error}");
    }
    u8::from(written.is_err())
}

fn page(command: Command, stdout: &mut impl Write) -> io::Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    stdout.write_all(&page)
}
