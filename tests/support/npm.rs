//! Node modules for a test package, installed once however many test processes ask.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The least version of Node that the packages take: those of mongoose and its driver say so.
const LEAST: (u32, u32) = (20, 19);

/// `tests/NAME` of this repository.
pub fn package(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name)
}

/// Fails where Node is too old: its errors would not say so.
fn check_node() {
    let output = Command::new("node").arg("--version").output();
    let output = output.expect("node: `tests/run --install` installs it and says where");
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let (major, minor) = LEAST;
    assert!(
        is_enough(&version),
        "node is {version}, and the packages under tests/ need {major}.{minor}: `tests/run` brings one along, which \
         stands at the front of PATH there: do the same with the bin directory of node-VERSION in cargo's temporary directory"
    );
}

/// Whether `v20.19.0` or what else `node --version` says is new enough.
fn is_enough(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= LEAST,
        _ => false,
    }
}

/// Runs `npm ci` in `directory` unless its `node_modules` already come from its present `package-lock.json`.
pub fn ensure(directory: &Path) {
    check_node();
    let name = directory.file_name().unwrap().to_string_lossy();
    let lock =
        File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("npm-{name}.lock")));
    let lock = lock.expect("a lock file in cargo's temporary directory");
    lock.lock().expect("a file lock");

    let wanted =
        fs::read(directory.join("package-lock.json")).expect("a committed package-lock.json");
    let stamp = directory.join("node_modules/.installed-package-lock.json");
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return;
    }
    let status = Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund", "--loglevel=error"])
        .current_dir(directory)
        .status()
        .expect("npm: `tests/run --install` installs it");
    assert!(status.success(), "npm ci in {} failed", directory.display());
    fs::write(&stamp, wanted).expect("a stamp beside the installed modules");
}
