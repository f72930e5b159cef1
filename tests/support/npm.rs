//! Node modules for a test package, installed once however many test processes ask.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// `tests/NAME` of this repository.
pub fn package(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name)
}

/// Runs `npm ci` in `directory` unless its `node_modules` already come from its present `package-lock.json`.
pub fn ensure(directory: &Path) {
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
        .expect("npm (install Node.js 20 or later)");
    assert!(status.success(), "npm ci in {} failed", directory.display());
    fs::write(&stamp, wanted).expect("a stamp beside the installed modules");
}
