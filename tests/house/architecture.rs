//! ARCHITECTURE.md stays a map: short, linked, and of places that exist.

use std::collections::BTreeSet;

use crate::support::pages::README;
use crate::support::source::{root, rust_files};

const MAP: &str = include_str!("../../ARCHITECTURE.md");

/// The texts in backticks.
fn names() -> BTreeSet<&'static str> {
    MAP.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_path_it_names_exists() {
    let is_path = |name: &&str| {
        let folders = ["src/", "tests/", "benches/", "monitoring/", "systemd/"];
        let file = name.contains('.') && root().join(name).is_file();
        folders.iter().any(|folder| name.starts_with(folder)) || file
    };
    let paths: Vec<&str> = names().into_iter().filter(is_path).collect();
    assert!(paths.len() > 50, "{paths:?}");
    let lost: Vec<&&str> = paths
        .iter()
        .filter(|path| !root().join(path).exists())
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn every_type_and_function_it_names_exists() {
    let code: String = rust_files("src")
        .into_iter()
        .map(|file| file.shipped)
        .collect();
    let is_type = |name: &str| {
        let letters = name.chars().all(char::is_alphanumeric);
        letters && name.starts_with(char::is_uppercase) && name.contains(char::is_lowercase)
    };
    // These names belong to Rust and its crates.
    let foreign = ["ArcSwap", "Cell", "Rc", "Send"];
    let mut found = 0;
    for name in names() {
        let (own, function) = name.split_once("::").unwrap_or((name, ""));
        if !is_type(own) || foreign.contains(&own) {
            continue;
        }
        found += 1;
        let kinds = ["struct", "enum", "trait"];
        let defined = kinds.iter().any(|kind| {
            let definition = format!("{kind} {own}");
            code.split(&definition)
                .skip(1)
                .any(|rest| !rest.starts_with(char::is_alphanumeric))
        });
        assert!(defined, "{name}");
        assert!(
            function.is_empty() || code.contains(&format!("fn {function}(")),
            "{name}"
        );
    }
    assert!(found > 8, "{found}");
}

#[test]
fn it_is_short_and_readme_links_to_it() {
    assert!(MAP.lines().count() <= 200);
    assert!(README.contains("(ARCHITECTURE.md)"));
}
