//! Targets by a grammar: a path in which each place is spelled in every way, by itself and together with another place.

use std::collections::BTreeSet;

/// Written in place of a slash, or of none at the end.
const SEPARATORS: &[&str] = &[
    "//",
    "///",
    "\\",
    "%2f",
    "%2F",
    "%5c",
    "/\\",
    "/%2f",
    "%2f/",
    "/./",
    "/%2e/",
    "/.%2f",
    "/../",
    "/x/../",
    "/x/..%2f",
    "/x%2f..%2f",
    "/x%2f../",
    "/x\\..\\",
    "/x%5c..%5c",
    "/x%5c..%2f",
    "/x/%2e%2e/",
    "/%2e%2e%2f",
    "//../",
    "//x/../../",
    "/x//../",
    "//u@h/",
    "/u@h/",
];

/// Written after a path.
const ENDS: &[&str] = &[
    "/",
    "//",
    "/x",
    "/x/y",
    "/.",
    "/..",
    "/../",
    "/../x",
    "/../../x",
    "/%2e%2e/z",
    "/%2E%2e",
    "/..%2f",
    "/..%2fx",
    "/..%5cx",
    "/..\\x",
    "/x/../../y",
    "/x/..",
    "/x%2f..",
    "%2f",
    "%2fx",
    "%5c",
    "\\",
    "\\x",
    "%2f..",
    "%5c..",
    "\\..",
    "//..",
    "?x",
    "?/../x",
    "/..?x",
    ".",
    "..",
    ";x",
    "%20",
    "%00",
    "/%00",
    "/%zz",
    "x",
];

/// The path itself, every spelling of one place in it, and a third of those of every two.
pub fn spelled(path: &str, targets: &mut BTreeSet<String>) {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let plain: Vec<String> = segments
        .iter()
        .flat_map(|segment| ["/".to_owned(), (*segment).to_owned()])
        .chain(std::iter::once(String::new()))
        .collect();
    let ways: Vec<Vec<String>> = plain
        .iter()
        .enumerate()
        .map(|(at, part)| ways_of(part, at + 1 == plain.len()))
        .collect();
    targets.insert(path.to_owned());
    for (first, spellings) in ways.iter().enumerate() {
        for spelling in spellings {
            let mut once = plain.clone();
            once[first].clone_from(spelling);
            targets.insert(once.concat());
            for (second, others) in ways.iter().enumerate().skip(first + 1) {
                // Every third pair, each time others: all would take minutes.
                let sample = others.iter().skip((spelling.len() + second) % 3).step_by(3);
                for other in sample {
                    let mut twice = once.clone();
                    twice[second].clone_from(other);
                    targets.insert(twice.concat());
                }
            }
        }
    }
}

fn ways_of(part: &str, is_end: bool) -> Vec<String> {
    if is_end {
        return ENDS.iter().map(ToString::to_string).collect();
    }
    if part == "/" {
        return SEPARATORS.iter().map(ToString::to_string).collect();
    }
    // A segment is spelled in the other case, with a letter escaped once and twice, and with others in its place.
    let code = part.as_bytes()[0];
    let rest = &part[1..];
    vec![
        part.to_uppercase(),
        format!("%{code:02x}{rest}"),
        format!("%25{code:02x}{rest}"),
        "..".to_owned(),
        "%2e%2e".to_owned(),
        format!("..%2f{part}"),
        format!("x%2f..%2f{part}"),
        format!("{part}x"),
    ]
}
