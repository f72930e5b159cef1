//! Imports go one way. The layers of `src/lib.rs`, held by reading every path that starts at the crate's root or climbs
//! with `super`; what only tests import doesn't count.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use crate::support::source::{SourceFile, rust_files};

/// The layers from the outside in. A module may name the modules on the lines below its own, and none beside it. A part
/// that has a line of its own counts there, and not with its module.
const LAYERS: [&[&str]; 23] = [
    &["main"],
    &["cli"],
    &["daemon"],
    &["admin", "config", "server", "state"],
    &["server::service"],
    &["decision", "forward", "reissue"],
    &["http1"],
    &["exchange", "snapshot"],
    &["forward::servers", "sources", "store"],
    &["ejection"],
    &["revocation"],
    &["sessions"],
    &["limit", "logins"],
    &["telemetry"],
    &["io"],
    &["config::model"],
    &["agora"],
    &["io::transport"],
    &["io::descriptors"],
    &["http"],
    &["pki"],
    &["config::secret"],
    &["terms"],
];

/// No IO, no clock, no randomness: byte-equal answers to equal questions.
const PURE: [&str; 6] = [
    "agora",
    "http",
    "http1",
    "forward::retry",
    "forward::demand",
    "config::diff",
];

/// Buffers are filled from sockets, and emptied into them.
const NOT_PURE: [&str; 2] = ["http1::input", "http1::output"];

/// The paths that a pure module never names. Addresses of `std::net` are values, and fine.
const IMPURE: [&str; 20] = [
    "tokio",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::io::stdin",
    "std::os",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "ToSocketAddrs",
    "SystemTime",
    "Instant",
    "crate::terms::clock",
    "getrandom",
    "rand",
    "rustix",
    "socket2",
    "tracing",
];

/// `src/forward/retry.rs` is `forward::retry`, `src/decision/mod.rs` is `decision`.
fn module(path: &str) -> String {
    let path = path.strip_prefix("src/").unwrap();
    let path = path.strip_suffix(".rs").unwrap();
    path.strip_suffix("/mod").unwrap_or(path).replace('/', "::")
}

fn is_within(module: &str, parent: &str) -> bool {
    module
        .strip_prefix(parent)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The line of a module by its full path, 0 outermost, and the name that stands there; `None` for the crate's root and
/// what has no place.
fn layer(module: &str) -> Option<(usize, &'static str)> {
    let named = LAYERS.iter().enumerate();
    let placed = named.flat_map(|(line, names)| names.iter().map(move |name| (line, *name)));
    placed
        .filter(|(_, name)| is_within(module, name))
        .max_by_key(|(_, name)| name.len())
}

/// Whether `from` may name `to`, both full module paths.
fn may_import(from: &str, to: &str) -> bool {
    match (layer(from), layer(to)) {
        (Some((own, name)), Some((other, its_name))) => own < other || name == its_name,
        _ => false,
    }
}

/// Every module path that `file` names, absolute and at most two segments deep, with the line that does.
fn imports(file: &SourceFile) -> Vec<(usize, String)> {
    let own: Vec<String> = module(&file.path).split("::").map(str::to_owned).collect();
    let mut found = Vec::new();
    for (at, word) in words(&file.shipped) {
        let preceded = file.shipped[..at].ends_with("::");
        let base = match word {
            _ if preceded => continue,
            "crate" => Vec::new(),
            "renewd" if own == ["main"] => Vec::new(),
            // Only the first of `super::super`; `own` is the file's module, as long as it declares none inline.
            "super" => own[..own.len() - 1].to_vec(),
            _ => continue,
        };
        let line = 1 + file.shipped[..at].matches('\n').count();
        let paths = expand(base, &file.shipped[at + word.len()..]);
        // No path follows in `pub(crate)`.
        let named = paths.iter().filter(|path| !path.is_empty());
        found.extend(named.map(|path| (line, path.join("::"))));
    }
    found
}

fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    let mut at = 0;
    std::iter::from_fn(move || {
        at += code[at..].find(is_word)?;
        let start = at;
        at += code[at..]
            .find(|c: char| !is_word(c))
            .unwrap_or(code.len() - at);
        Some((start, &code[start..at]))
    })
}

/// The paths that `base` followed by `rest` (`::a::b`, `::{a, b::{c, d}}` …) names.
fn expand(base: Vec<String>, rest: &str) -> Vec<Vec<String>> {
    let rest = rest.trim_start();
    let Some(rest) = rest.strip_prefix("::").map(str::trim_start) else {
        return vec![base];
    };
    if let Some(group) = rest.strip_prefix('{') {
        return members(group)
            .into_iter()
            .flat_map(|member| expand(base.clone(), &format!("::{member}")))
            .collect();
    }
    let Some((0, word)) = words(rest).next() else {
        return vec![base]; // `*`
    };
    let mut path = base;
    if word == "super" {
        path.pop();
    } else if word != "self" {
        path.push(word.to_owned());
    }
    expand(path, &rest[word.len()..])
}

/// The comma-separated members of a group, up to its closing brace.
fn members(group: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let mut start = 0;
    let mut found = Vec::new();
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' | ',' if depth == 0 => {
                found.push(group[start..at].trim());
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found.retain(|member| !member.is_empty());
    found
}

#[test]
fn imports_go_one_way() {
    let mut wrong = Vec::new();
    for file in rust_files("src") {
        let own = module(&file.path);
        if own == "lib" {
            continue; // the map names everything
        }
        for (line, path) in imports(&file) {
            if !may_import(&own, &path) {
                wrong.push(format!("{}:{line} names {path}", file.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_has_its_place() {
    let lost: Vec<_> = rust_files("src")
        .iter()
        .map(|file| module(&file.path))
        .filter(|module| module != "lib" && layer(module).is_none())
        .collect();
    assert!(lost.is_empty(), "no layer for {lost:?}");
}

#[test]
fn pure_modules_do_no_io_and_know_no_time_or_chance() {
    let mut wrong = Vec::new();
    for file in rust_files("src") {
        let own = module(&file.path);
        let listed = |list: &[&str]| list.iter().any(|parent| is_within(&own, parent));
        if !listed(&PURE) || listed(&NOT_PURE) {
            continue;
        }
        for impure in names_impure(&file.shipped) {
            wrong.push(format!("{} names {impure}", file.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn names_impure(code: &str) -> Vec<&'static str> {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    IMPURE
        .into_iter()
        .filter(|impure| {
            code.match_indices(impure).any(|(at, _)| {
                !code[..at].ends_with(is_word) && !code[at + impure.len()..].starts_with(is_word)
            })
        })
        .collect()
}

#[cfg(test)]
mod the_reader {
    use super::{imports, may_import, names_impure};
    use crate::support::source::{SourceFile, blank, without_tests};

    fn read(path: &str, text: &str) -> Vec<String> {
        let code = blank(text);
        let file = SourceFile {
            path: path.to_owned(),
            text: text.to_owned(),
            shipped: without_tests(&code),
            code,
        };
        imports(&file).into_iter().map(|(_, path)| path).collect()
    }

    #[test]
    fn sees_through_groups_and_climbs_with_super() {
        assert_eq!(
            read(
                "src/decision/wire_format.rs",
                "use crate::{terms::clock::Clock, config::{model, secret::Secret}};\nuse super::super::net;\npub(crate) fn f() { super::decide(); crate::service::run() }"
            ),
            [
                "terms::clock::Clock",
                "config::model",
                "config::secret::Secret",
                "net",
                "decision::decide",
                "service::run"
            ]
        );
    }

    #[test]
    fn passes_over_comments_literals_and_tests() {
        let text = "// crate::net\n/* crate::net /* */ crate::net */\nconst A: &str = \"crate::net\"; const B: &str = r#\"\"crate::net\"#; const C: char = '\"';\nfn f<'a>() {}\n#[cfg(test)]\nmod tests { use crate::net; }\nuse crate::terms::clock;";
        assert_eq!(read("src/agora/mod.rs", text), ["terms::clock"]);
    }

    #[test]
    fn knows_the_direction() {
        for (from, to) in [
            ("main", "cli"),
            ("cli::run", "daemon"),
            ("daemon::build", "config::validate"),
            ("server", "server::service"),
            ("server::service", "forward::pool"),
            ("forward::pool", "forward::servers"),
            ("decision::order", "snapshot::Snapshot"),
            ("logins::jwt", "config::model"),
            ("config::model", "config::secret"),
            ("telemetry::audit", "terms::role::Role"),
            ("decision::wire_format", "decision::order"),
            ("io::tls", "config::model"),
        ] {
            assert!(may_import(from, to), "{from} → {to}");
        }
        for (from, to) in [
            ("logins::jwt", "snapshot"),
            ("agora", "limit"),
            ("decision", "forward"),
            ("server::service", "server::worker"),
            ("server::h1", "config::validate"),
            ("logins::jwt", "config::validate"),
            ("config::model", "config::raw"),
            ("telemetry", "sources"),
            ("forward::servers", "forward::pool"),
            ("agora", "nowhere"),
        ] {
            assert!(!may_import(from, to), "{from} → {to}");
        }
    }

    #[test]
    fn tells_chance_from_words_that_contain_it() {
        assert!(names_impure("fn operand(brand: u8) {}").is_empty());
        assert_eq!(names_impure("rand::random()"), ["rand"]);
        assert_eq!(names_impure("use std::time::Instant;"), ["Instant"]);
    }
}
