//! The commands that ask a running daemon.

use std::path::PathBuf;
use std::process::{Command, Output};

use super::renewd::{Renewd, private_file};

/// A copy of the daemon's configuration that names the admin listener where it is: the original has port 0.
pub fn configuration_of(renewd: &Renewd) -> PathBuf {
    let config = std::fs::read_to_string(renewd.file("config.toml")).unwrap();
    let listen = format!("[admin]\nlisten = \"{}\"", renewd.admin);
    let config = config.replacen("[admin]\nlisten = \"127.0.0.1:0\"", &listen, 1);
    let file = renewd.file("commands.toml");
    private_file(&file, &config);
    file
}

/// Runs a command on that configuration: exit status, standard output, standard error.
pub fn command(renewd: &Renewd, arguments: &[&str]) -> (i32, String, String) {
    let file = configuration_of(renewd);
    run(&[arguments, &["--config", file.to_str().unwrap()]].concat())
}

/// Runs a command.
pub fn run(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_renewd"));
    said(&command.args(arguments).output().unwrap())
}

/// The output of a command.
pub fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let status = output.status.code().expect("an exit status");
    (status, text(&output.stdout), text(&output.stderr))
}
