//! The source tree as text, for tests of its rules: each file with comments and string contents blanked, and with its
//! `#[cfg(test)]` items taken out.

// Each test program uses a part of this, and fails by panicking.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

/// One Rust file.
pub struct SourceFile {
    /// Relative to the repository, with `/`.
    pub path: String,
    /// The text as it was written.
    pub text: String,
    /// The same lines with comments and the insides of strings and characters blanked.
    pub code: String,
    /// The same lines without `#[cfg(test)]` items: the shipped code.
    pub shipped: String,
}

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file under `directory`, sorted.
pub fn rust_files(directory: &str) -> Vec<SourceFile> {
    files(directory)
        .into_iter()
        .filter(|path| Path::new(path).extension().is_some_and(|it| it == "rs"))
        .map(|path| {
            let text = std::fs::read_to_string(root().join(&path)).unwrap();
            let code = blank(&text);
            // `mod tests;` under `#[cfg(test)]`, in a file of its own.
            let shipped = if directory == "src" && path.ends_with("/tests.rs") {
                code.chars().filter(|&it| it == '\n').collect()
            } else {
                without_tests(&code)
            };
            SourceFile {
                path,
                text,
                code,
                shipped,
            }
        })
        .collect()
}

/// Every file under `directory`, relative to the root, sorted; without built and installed files and Git's own.
pub fn files(directory: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![root().join(directory)];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if matches!(name, "target" | "node_modules" | ".git") {
                continue;
            }
            if path.is_dir() {
                pending.push(path);
            } else {
                let relative = path.strip_prefix(root()).unwrap();
                found.push(relative.to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// `text` with every character of comments and of string and character literals replaced by a space, line ends kept.
pub fn blank(text: &str) -> String {
    let text: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let end = literal_or_comment_end(&text, at);
        if end == at {
            code.push(text[at]);
            at += 1;
            continue;
        }
        code.extend(
            text[at..end]
                .iter()
                .map(|&character| if character == '\n' { '\n' } else { ' ' }),
        );
        at = end;
    }
    code
}

/// The index after the literal or comment that starts at `at`; `at` itself if none does.
fn literal_or_comment_end(text: &[char], at: usize) -> usize {
    let rest = &text[at..];
    let next = |offset: usize| rest.get(offset).copied().unwrap_or('\n');
    match rest[0] {
        '/' if next(1) == '/' => at + length_until(rest, |part| part[0] == '\n'),
        '/' if next(1) == '*' => at + block_comment_length(rest),
        '"' => at + quoted_length(rest, '"'),
        '\'' if next(1) == '\\' || next(2) == '\'' => at + quoted_length(rest, '\''),
        'r' if !is_word_before(text, at) => {
            let hashes = rest[1..].iter().take_while(|&&c| c == '#').count();
            if next(1 + hashes) != '"' {
                return at;
            }
            let close: Vec<char> = std::iter::once('"')
                .chain(std::iter::repeat_n('#', hashes))
                .collect();
            let body = 2 + hashes;
            at + body + length_until(&rest[body..], |part| part.starts_with(&close)) + close.len()
        }
        _ => at,
    }
}

/// Whether a word runs up to `at`; a `b` or `c` alone is a literal's prefix.
fn is_word_before(text: &[char], at: usize) -> bool {
    let word: Vec<char> = text[..at]
        .iter()
        .rev()
        .take_while(|c| c.is_alphanumeric() || **c == '_')
        .copied()
        .collect();
    !matches!(word.as_slice(), [] | ['b' | 'c'])
}

fn length_until(rest: &[char], found: impl Fn(&[char]) -> bool) -> usize {
    (0..rest.len())
        .find(|&at| found(&rest[at..]))
        .unwrap_or(rest.len())
}

fn block_comment_length(rest: &[char]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(&['/', '*']) {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(&['*', '/']) {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn quoted_length(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            character if character == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Blanked `code` without the items under `#[cfg(test)]`, line ends kept.
pub fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut shipped = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find(MARK) {
        shipped.push_str(&rest[..start]);
        let item = &rest[start..];
        let end = item_length(item);
        shipped.extend(item[..end].chars().filter(|&character| character == '\n'));
        rest = &item[end..];
    }
    shipped.push_str(rest);
    shipped
}

/// Up to the `;` or the closing brace that ends the item at the start of `code`.
fn item_length(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, character) in code.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}
