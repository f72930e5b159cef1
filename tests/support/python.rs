//! Python packages for tests, installed once however many test processes ask.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Installs what `tests/NAME/requirements.txt` lists, unless that has been done, and returns the directory.
pub fn packages(name: &str) -> PathBuf {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let lock = File::create(temporary.join(format!("python-{name}.lock")));
    let lock = lock.expect("a lock file in cargo's temporary directory");
    lock.lock().expect("a file lock");

    let requirements = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name)
        .join("requirements.txt");
    let wanted = fs::read(&requirements).expect("committed requirements");
    let directory = temporary.join(format!("python-{name}"));
    let stamp = directory.join("requirements.txt");
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return directory;
    }
    let output = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"])
        .arg(&directory)
        .arg("--requirement")
        .arg(&requirements)
        .output()
        .expect("python3 (install Python 3.10 or later, with pip)");
    assert!(
        output.status.success(),
        "pip install: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::write(&stamp, wanted).expect("a stamp beside the installed packages");
    directory
}
