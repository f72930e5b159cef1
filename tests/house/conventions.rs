//! The house rules that no compiler and no linter holds, read off the source.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use crate::support::source::{SourceFile, files, root, rust_files};

/// A file is one idea, which fits about 400 lines without its tests and blank ones; the last few lines are no reason to
/// tear a function out.
const MOST_LINES: usize = 430;

/// Files that may be longer, each with its reason.
const LONGER: [(&str, &str); 0] = [];

/// Files that may rely on a value, each with its reason.
const CERTAIN: [(&str, &str); 1] = [(
    "src/telemetry/metrics/registrar.rs",
    "histogram bounds are constants, held not empty by a test",
)];

/// The one file with unsafe code, as `src/lib.rs` says.
const UNSAFE: &str = "src/daemon/systemd.rs";

fn ours() -> Vec<SourceFile> {
    ["src", "tests", "benches"]
        .into_iter()
        .filter(|directory| root().join(directory).is_dir())
        .flat_map(rust_files)
        .collect()
}

/// `path:line` of every line of `text` that contains `what`.
fn lines_with(path: &str, text: &str, what: &str) -> Vec<String> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| line.contains(what))
        .map(|(index, line)| format!("{path}:{}: {what} in: {}", index + 1, line.trim()))
        .collect()
}

fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_first_what_it_is() {
    let silent: Vec<_> = ours()
        .into_iter()
        .filter(|file| !file.text.starts_with("//! "))
        .map(|file| file.path)
        .collect();
    none(&silent);
}

#[test]
fn no_file_outgrows_its_idea() {
    let long: Vec<_> = rust_files("src")
        .into_iter()
        .filter(|file| LONGER.iter().all(|(path, _)| *path != file.path))
        .map(|file| (shipped_lines(&file), file.path))
        .filter(|(lines, _)| *lines > MOST_LINES)
        .map(|(lines, path)| format!("{path}: {lines} lines without tests"))
        .collect();
    none(&long);
}

/// Lines that say something, comments too, without those of `#[cfg(test)]` items.
fn shipped_lines(file: &SourceFile) -> usize {
    let tests = file
        .code
        .lines()
        .zip(file.shipped.lines())
        .filter(|(written, shipped)| written != shipped)
        .count();
    let blank = file
        .shipped
        .lines()
        .zip(file.text.lines())
        .filter(|(shipped, written)| shipped.trim().is_empty() && written.trim().is_empty())
        .count();
    file.text.lines().count() - tests - blank
}

#[test]
fn nothing_is_left_for_later() {
    let macros = ["todo!", "unimplemented!", "dbg!", "#[ignore"];
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ];
    let mut wrong = Vec::new();
    for file in ours() {
        for what in macros {
            wrong.extend(lines_with(&file.path, &file.code, what));
        }
        for what in words {
            wrong.extend(lines_with(&file.path, &file.text, what));
        }
    }
    none(&wrong);
}

#[test]
fn nothing_that_ships_gives_up_on_a_value_it_hoped_for() {
    let mut wrong = Vec::new();
    for file in rust_files("src") {
        if CERTAIN.iter().any(|(path, _)| *path == file.path) {
            continue;
        }
        for what in [
            ".unwrap()",
            ".unwrap_err()",
            ".expect(",
            ".expect_err(",
            "panic!(",
            "unreachable!(",
        ] {
            wrong.extend(lines_with(&file.path, &file.shipped, what));
        }
    }
    none(&wrong);
}

#[test]
fn one_file_alone_is_unsafe() {
    let mut wrong = Vec::new();
    for file in rust_files("src") {
        if file.path != UNSAFE {
            wrong.extend(lines_with(&file.path, &file.shipped, "unsafe {"));
            wrong.extend(lines_with(&file.path, &file.shipped, "unsafe fn"));
            wrong.extend(lines_with(&file.path, &file.shipped, "allow(unsafe_code)"));
        }
    }
    none(&wrong);
}

#[test]
fn no_room_is_called_after_nothing() {
    let vague: Vec<_> = files("src")
        .into_iter()
        .filter(|path| {
            path.split(['/', '.']).any(|part| {
                matches!(
                    part,
                    "utils" | "util" | "helpers" | "common" | "manager" | "misc"
                )
            })
        })
        .collect();
    none(&vague);
}

#[test]
fn nothing_names_a_path_of_a_developers_machine() {
    let paths = [
        concat!("/wo", "rk/"),
        concat!("/tm", "p/"),
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("../sha", "red"),
    ];
    let mut wrong = Vec::new();
    for path in files(".") {
        // These files aren't text, or come from elsewhere.
        let Ok(text) = std::fs::read_to_string(root().join(&path)) else {
            continue;
        };
        if path.ends_with("Cargo.lock") || path.ends_with("package-lock.json") {
            continue;
        }
        for what in paths {
            wrong.extend(lines_with(&path, &text, what));
        }
    }
    none(&wrong);
}
