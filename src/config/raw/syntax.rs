//! Syntax errors: each with its line and how to correct it; for a key or table that stands twice, with both places.
//!
//! After a syntax error it is uncertain what is a key and what a value: an unclosed quote can turn a secret into
//! keys. So lines are read one by one, as a person would, and a line is shown only if it is a header or sets one
//! known key that is no secret, and nothing in it or before it could make it something else.
//!
//! Keeps true: a bracket that isn't closed is one finding, at the key or header that follows it, and the last
//! finding, since everything after it reads like a part of the list.
//!
//! Must not know: what a key means.

use std::ops::Range;
use std::path::Path;

use super::known::{KnownKey, KnownKeys};
use crate::config::diagnostic::{Diagnostic, FindingSeverity, SourceText};

/// A line that begins a table or sets a key.
struct SyntaxEntry {
    /// Dotted path.
    path: String,
    /// The header or key in the text.
    span: Range<usize>,
    /// The whole line, without its end.
    line: Range<usize>,
    /// `[table]` or `[[table]]`, not `key = value`.
    header: bool,
}

/// Every syntax error as a finding.
pub(super) fn findings(
    text: &str,
    file: &Path,
    errors: &[toml::de::Error],
    known: &KnownKeys,
) -> Vec<Diagnostic> {
    let source = SourceText { file, text };
    let entries = outline(text);
    let mut errors: Vec<&toml::de::Error> = errors.iter().collect();
    errors.sort_by_key(|error| error.span().map(|span| span.start));
    let mut findings: Vec<Diagnostic> = Vec::new();
    let mut twice: Vec<String> = Vec::new();
    for error in errors {
        let finding = finding(&source, &entries, error, known);
        // For a table that stands twice its keys aren't reported as well.
        let told = twice.iter().any(|table| is_within(&finding.key, table));
        let line = finding.place.map(|place| place.line);
        let same_line = findings
            .last()
            .is_some_and(|last| last.place.map(|place| place.line) == line);
        if told || same_line {
            continue;
        }
        if !finding.key.is_empty() {
            twice.push(finding.key.clone());
        }
        findings.push(finding);
        let is_unclosed = unclosed(text, &entries, error).is_some();
        if is_unclosed || is_in_brackets(error.message()) && !is_within_a_line(&entries, error) {
            break;
        }
    }
    findings
}

/// Whether an error is behind the key of its own line, where the line's end ends it.
fn is_within_a_line(entries: &[SyntaxEntry], error: &toml::de::Error) -> bool {
    let at = error.span().map_or(0, |span| span.start);
    let mut entries = entries.iter();
    entries.any(|entry| !entry.header && entry.span.end < at && at < entry.line.end)
}

fn is_in_brackets(message: &str) -> bool {
    ["array", "inline table", "between key-value pairs"]
        .iter()
        .any(|part| message.contains(part))
        && !message.contains("array table")
}

fn finding(
    source: &SourceText<'_>,
    entries: &[SyntaxEntry],
    error: &toml::de::Error,
    known: &KnownKeys,
) -> Diagnostic {
    let span = error.span();
    let at = span.as_ref().map(|span| span.start);
    let entry = at.and_then(|at| {
        let on_it = |entry: &&SyntaxEntry| entry.line.start <= at && at <= entry.line.end;
        entries.iter().find(on_it)
    });
    let mut message = format!("not TOML: {}", error.message().replace('\n', ", "));
    let mut hint = hint(error.message(), at.map_or("", |at| source.rest_of_line(at)));
    let mut key = String::new();
    let is_duplicate = error.message().starts_with("duplicate key");
    let begins = |entry: &&SyntaxEntry| at.is_some_and(|at| at <= entry.span.end);
    if let Some((opener, entry)) = unclosed(source.text, entries, error) {
        let what = if entry.header { "header" } else { "key" };
        message = format!(
            "not TOML: a list or table in braces isn't closed before this {what}; it begins at line {}",
            source.place(opener.span.start).line
        );
        "close it with `]` or `}`, whichever began it".clone_into(&mut hint);
    } else if is_duplicate && entry.is_none_or(|entry| !begins(&entry)) {
        key = key_within_a_value(source.text, entries, span.clone(), known);
        "given twice within the same braces".clone_into(&mut message);
        "keep one of the two".clone_into(&mut hint);
    } else if let Some(entry) = entry
        && is_duplicate
    {
        let is_known = known.look_up(&entry.path).is_some();
        let path = if is_known { entry.path.as_str() } else { "" };
        path.clone_into(&mut key);
        message = match first_of_two(entries, entry) {
            Some(first) => format!(
                "given twice: the first is at line {}",
                source.place(first.span.start).line
            ),
            None => "given twice".to_owned(),
        };
        hint = match (entry.header, is_known) {
            (true, true) => format!("move the keys of this [{path}] to the first one"),
            (true, false) => "move the keys of this table to the first one".to_owned(),
            (false, _) => "keep one of the two".to_owned(),
        };
    }
    // If a line ends too soon, the parser points behind it.
    let shown = entry.filter(|entry| is_harmless(source.text, entry, known));
    let excerpt = shown.zip(span.as_ref()).and_then(|(entry, span)| {
        let end = span.end.clamp(span.start, entry.line.end.max(span.start));
        let before = source.text.get(entry.line.start..end)?;
        let pointed = span.start..end.max(span.start + 1).min(entry.line.end.max(span.start));
        (!before.contains('#')).then(|| source.excerpt(&pointed))?
    });
    Diagnostic {
        severity: FindingSeverity::Error,
        file: source.file.to_path_buf(),
        place: at.map(|at| source.place(at)),
        key,
        message,
        hint: Some(hint),
        excerpt,
    }
}

/// The known key that stands twice within a value, where the line doesn't tell which key it is; empty where none is
/// known.
fn key_within_a_value(
    text: &str,
    entries: &[SyntaxEntry],
    span: Option<Range<usize>>,
    known: &KnownKeys,
) -> String {
    let at = span.as_ref().map(|span| span.start);
    let holder = entries
        .iter()
        .rfind(|entry| !entry.header && at.is_some_and(|at| entry.span.end < at));
    let path = holder.map_or("", |holder| holder.path.as_str());
    let name = span.and_then(|span| text.get(span));
    let name = name.filter(|name| is_bare(name));
    let inner = name.map(|name| format!("{path}.{name}"));
    let is_known = |path: &str| known.look_up(path).is_some();
    let key = inner.filter(|inner| is_known(inner));
    let key = key.unwrap_or_else(|| path.to_owned());
    if is_known(&key) { key } else { String::new() }
}

/// The place before a duplicate where its key was given already, or a table that the key is in.
fn first_of_two<'e>(
    entries: &'e [SyntaxEntry],
    duplicate: &SyntaxEntry,
) -> Option<&'e SyntaxEntry> {
    let before = || {
        entries
            .iter()
            .take_while(|other| other.span.start < duplicate.span.start)
    };
    before()
        .find(|other| other.path == duplicate.path)
        .or_else(|| before().find(|other| is_within(&duplicate.path, &other.path)))
}

/// The key whose value has a bracket that isn't closed, and the header or key behind it that the parser stumbles over.
fn unclosed<'e>(
    text: &str,
    entries: &'e [SyntaxEntry],
    error: &toml::de::Error,
) -> Option<(&'e SyntaxEntry, &'e SyntaxEntry)> {
    let at = error.span()?.start;
    let on_it = |entry: &&SyntaxEntry| entry.line.start <= at && at <= entry.span.end;
    let entry = entries.iter().find(on_it)?;
    // A header reads like a list in the list.
    let is_meant =
        is_in_brackets(error.message()) || entry.header && !error.message().starts_with("unclosed");
    let before = entries.iter().filter(|_| is_meant);
    let before = before.take_while(|other| other.line.start < entry.line.start);
    let before = before.filter(|other| !other.header).last()?;
    let value = text.get(before.span.end..entry.line.start)?;
    let count = |brackets: [char; 2]| value.matches(brackets).count();
    (count(['[', '{']) > count([']', '}'])).then_some((before, entry))
}

/// Whether a path names the table of another, or something in it.
fn is_within(path: &str, table: &str) -> bool {
    path.strip_prefix(table)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether a line can hold no secret.
fn is_harmless(text: &str, entry: &SyntaxEntry, known: &KnownKeys) -> bool {
    let before = text.get(..entry.line.start).unwrap_or_default();
    let line = text.get(entry.line.clone()).unwrap_or_default();
    let after = text.get(entry.span.end..entry.line.end).unwrap_or_default();
    // After the opening quotes of a multi-line string every line may belong to it; a URL may hold a password.
    let long_string = |text: &str| text.contains("\"\"\"") || text.contains("'''");
    if long_string(before) || long_string(line) || line.contains('@') {
        return false;
    }
    match known.look_up(&entry.path) {
        Some(KnownKey::Built(key)) if !entry.header => {
            !key.secret && line.matches('=').count() <= 1
        }
        Some(KnownKey::Section | KnownKey::Built(_)) if entry.header => {
            let rest = after.trim_start_matches(']').trim_start();
            rest.is_empty() || rest.starts_with('#')
        }
        _ => false,
    }
}

/// The headers and keys that stand at the beginning of a line.
fn outline(text: &str) -> Vec<SyntaxEntry> {
    let mut entries = Vec::new();
    let mut table = Some(String::new());
    let mut start = 0;
    for whole in text.split_inclusive('\n') {
        let line = whole.trim_end_matches(['\n', '\r']);
        let indent = line.len() - line.trim_start().len();
        let rest = line.trim_start();
        let (name, from, header) = if rest.starts_with('[') {
            let inner = rest.trim_start_matches('[');
            let from = indent + rest.len() - inner.len();
            (inner.split([']', '=', '#']).next(), from, true)
        } else {
            // Without a `=` the first word counts as the key.
            let key = rest.split_once('=').map(|(key, _)| key);
            (
                key.or_else(|| rest.split_whitespace().next()),
                indent,
                false,
            )
        };
        let name = name.map(str::trim_end).filter(|name| is_bare(name));
        let path = match (name, &table) {
            (Some(name), _) if header => Some(name.to_owned()),
            (Some(name), Some(table)) if table.is_empty() => Some(name.to_owned()),
            (Some(name), Some(table)) => Some(format!("{table}.{name}")),
            _ => None,
        };
        if header {
            table.clone_from(&path);
        }
        if let (Some(name), Some(path)) = (name, path) {
            entries.push(SyntaxEntry {
                path,
                span: start + from..start + from + name.len(),
                line: start..start + line.len(),
                header,
            });
        }
        start += whole.len();
    }
    entries
}

/// A dotted key without quotes.
fn is_bare(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    };
    name.split('.').all(is_part)
}

/// The hint for what the parser reports, `message`, and the text at that place, `there`.
fn hint(message: &str, there: &str) -> String {
    const HINTS: [(&str, &str); 13] = [
        ("extra `=`", "write one `=`"),
        (
            "invalid basic string",
            "close the string with `\"` on its own line",
        ),
        (
            "invalid literal string",
            "close the string with `'` on its own line",
        ),
        (
            "invalid multi-line",
            "close the string with the three quotes that began it",
        ),
        (
            "string values must be quoted",
            "put the value in quotes: key = \"value\"",
        ),
        ("key with no value", "write key = value"),
        ("missing value", "write a value after the `=`"),
        ("unclosed table", "close the header with `]`"),
        ("unclosed array table", "close the header with `]]`"),
        ("unclosed array", "close the list with `]`"),
        ("unclosed inline table", "close the table with `}`"),
        ("missing comma", "put a comma between the two"),
        (
            "unexpected key or value",
            "put each key on a line of its own",
        ),
    ];
    let word = there.split([' ', '\t', '#', ',', ']', '}']).next();
    let otherwise = "write lines of key = value below a [table], and text in double quotes";
    let is_word = ["string values must be quoted", "invalid boolean"]
        .iter()
        .any(|said| message.starts_with(said));
    let by_what_stands_there = match there.chars().next() {
        Some(quote) if is_typographic_quote(quote) => {
            return format!("put it in straight quotes, \"…\", not in {quote}");
        }
        Some(odd) if !odd.is_ascii() && !odd.is_alphanumeric() => {
            return format!("remove the character U+{:04X} here", u32::from(odd));
        }
        Some(':') => Some("write `=` between key and value, not `:`"),
        _ if is_word => match word {
            Some("True" | "TRUE" | "yes" | "Yes" | "on" | "On") => Some("write true"),
            Some("False" | "FALSE" | "no" | "No" | "off" | "Off") => Some("write false"),
            Some("None" | "null" | "nil") => Some("leave the key out"),
            _ => None,
        },
        _ => None,
    };
    let by_message = || HINTS.iter().find(|(said, _)| message.starts_with(said));
    by_what_stands_there
        .or_else(|| by_message().map(|(_, hint)| *hint))
        .unwrap_or(otherwise)
        .to_owned()
}

/// Quotes that word processors and web pages put in place of straight ones.
fn is_typographic_quote(character: char) -> bool {
    matches!(
        character,
        '\u{2018}'..='\u{201f}' | '«' | '»' | '‹' | '›' | '＂' | '＇' | '`' | '´'
    )
}
