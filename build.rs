//! Tells the program which commit it is built from, as `RENEWD_COMMIT`.
//!
//! A release asks git; where there is none, as in an unpacked archive, the variable `RENEWD_COMMIT` says it. Other
//! builds don't ask, because each commit would then compile the whole crate again.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=RENEWD_COMMIT");
    let told = env::var("RENEWD_COMMIT").ok();
    let commit = told.filter(|commit| !commit.is_empty()).or_else(|| {
        let release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
        release.then(asked).flatten()
    });
    let commit = commit.as_deref().unwrap_or("unknown");
    println!("cargo::rustc-env=RENEWD_COMMIT={commit}");
}

/// The commit that is checked out, and whether files differ from it.
fn asked() -> Option<String> {
    // An archive that is unpacked inside somebody else's repository has nothing to do with its commits.
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    // The last line of this log changes with every commit and every checkout.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    for path in [&log, "src", "Cargo.toml", "Cargo.lock", "build.rs"] {
        println!("cargo::rerun-if-changed={path}");
    }
    git(&[
        "describe",
        "--always",
        "--abbrev=12",
        "--exclude=*",
        "--dirty=-modified",
    ])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
