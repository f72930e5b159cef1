//! A token as it was pasted: what was done to it on the way, undone where that is certain.
//!
//! Keeps true: what is repaired reads as a token from its first byte to its last; a finding says what was found and
//! where, and echoes nothing of it.
//! Must not know: whether the token is any good.

use std::borrow::Cow;

use super::TokenProblem;
use crate::agora::parse::{Parsed, parse};

/// The token to inspect, and the problems found on the way to it.
pub(super) struct Repaired<'t> {
    pub(super) token: Cow<'t, str>,
    pub(super) found: Vec<TokenProblem>,
}

/// Undoes what copying, JSON, URLs and forms do to a token.
pub(super) fn repair(pasted: &str) -> Repaired<'_> {
    let trimmed = pasted.trim();
    let as_it_is = |found| Repaired {
        token: trimmed.into(),
        found,
    };
    if is_whole(trimmed) || trimmed.is_empty() {
        return as_it_is(Vec::new());
    }
    let mut found = Vec::new();
    let mut text = Cow::Borrowed(trimmed);
    for (undo, code, what) in STEPS {
        if let Some((undone, at)) = undo(&text) {
            found.push(finding(code, &format!("{what} at byte {at}")));
            text = undone.into();
        }
        if is_whole(&text) {
            return Repaired { token: text, found };
        }
    }
    if let Some(at) = jwt(trimmed) {
        let what = "a JSON Web Token begins at byte";
        let message = format!("{what} {at}: a login, which Agora knows nothing of");
        return as_it_is(vec![finding("jwt", &message)]);
    }
    inside(trimmed).unwrap_or_else(|| as_it_is(Vec::new()))
}

/// The token inside a longer text: JSON, a URL, a line of a log.
fn inside(text: &str) -> Option<Repaired<'_>> {
    let mut found = Vec::new();
    let mut text = Cow::Borrowed(text);
    for (undo, code, what) in [AS_IT_IS, UNESCAPED, DECODED] {
        if let Some((undone, at)) = undo(&text) {
            found.push(finding(code, &format!("{what} at byte {at}")));
            text = undone.into();
        }
        let tokens = within(&text);
        if let [(at, token)] = tokens.as_slice() {
            let message = format!("the token stands inside a longer text, at byte {at}");
            found.push(finding("inside_text", &message));
            let token = (*token).to_owned().into();
            return Some(Repaired { token, found });
        }
        if !tokens.is_empty() {
            let places: Vec<String> = tokens.iter().map(|(at, _)| at.to_string()).collect();
            let message = format!(
                "{} tokens stand in the text, at bytes {}: inspect one of them",
                tokens.len(),
                places.join(", ")
            );
            return Some(Repaired {
                token: text.into_owned().into(),
                found: vec![finding("several_tokens", &message)],
            });
        }
    }
    None
}

fn finding(code: &'static str, what: &str) -> TokenProblem {
    TokenProblem {
        code,
        agora_error: None,
        message: what.to_owned(),
    }
}

/// Whether it is a token with nothing before or after it. A 007 carries a checksum of its content, a 006 lengths of
/// its parts.
fn is_whole(text: &str) -> bool {
    match parse(text) {
        Ok(Parsed::V007(token)) => token.trailing_bytes == 0,
        Ok(Parsed::V006(token)) => token.trailing_bytes == 0,
        Err(_) => false,
    }
}

/// Gives the text with one kind of damage undone, and the byte at which it was first found.
type Undo = fn(&str) -> Option<(String, usize)>;

/// How one kind of damage is undone, the finding's code, and what was found.
type RepairStep = (Undo, &'static str, &'static str);

const AS_IT_IS: RepairStep = (|_| None, "", "");
const UNESCAPED: RepairStep = (
    unescaped,
    "escaped_slash",
    "`\\/`, JSON's spelling of a slash,",
);
const DECODED: RepairStep = (decoded, "percent_encoded", "percent-encoding, as in a URL,");

/// In this order: what was done last is undone first.
const STEPS: [RepairStep; 7] = [
    (
        unquoted,
        "quoted",
        "a quote, which is no part of the token,",
    ),
    (
        without_scheme,
        "bearer_prefix",
        "`Bearer `, which belongs to a login and not to an Agora token,",
    ),
    UNESCAPED,
    (unfolded, "line_break", "a line break inside the token"),
    DECODED,
    (
        with_plus,
        "blank_for_plus",
        "a blank in the place of a `+`, which a form or URL made of it,",
    ),
    (
        standard,
        "url_safe_base64",
        "`-` or `_` in the place of `+` or `/`, as URLs have base64,",
    ),
];

fn unquoted(text: &str) -> Option<(String, usize)> {
    let quote = text
        .chars()
        .next()
        .filter(|first| "\"'`".contains(*first))?;
    let inner = text.strip_prefix(quote)?;
    Some((
        inner.strip_suffix(quote).unwrap_or(inner).trim().to_owned(),
        0,
    ))
}

fn without_scheme(text: &str) -> Option<(String, usize)> {
    let (scheme, rest) = text.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case("bearer ")
        .then(|| (rest.trim_start().to_owned(), 0))
}

fn unescaped(text: &str) -> Option<(String, usize)> {
    let at = text.find("\\/")?;
    Some((text.replace("\\/", "/"), at))
}

fn unfolded(text: &str) -> Option<(String, usize)> {
    let at = text.find(['\r', '\n'])?;
    let lines = text.split(['\r', '\n']).map(str::trim);
    Some((lines.collect(), at))
}

fn decoded(text: &str) -> Option<(String, usize)> {
    let spellings = [("%2B", "+"), ("%2F", "/"), ("%3D", "=")];
    let lower = |spelling: &str| spelling.to_ascii_lowercase();
    let places = spellings
        .iter()
        .flat_map(|(spelling, _)| [text.find(spelling), text.find(lower(spelling).as_str())]);
    let at = places.flatten().min()?;
    let undone = spellings
        .into_iter()
        .fold(text.to_owned(), |text, (spelling, character)| {
            text.replace(spelling, character)
                .replace(lower(spelling).as_str(), character)
        });
    Some((undone, at))
}

fn with_plus(text: &str) -> Option<(String, usize)> {
    let at = text.find(' ')?;
    Some((text.replace(' ', "+"), at))
}

fn standard(text: &str) -> Option<(String, usize)> {
    let at = text.find(['-', '_'])?;
    Some((text.replace('-', "+").replace('_', "/"), at))
}

/// Where a JWT begins: three parts of URL-safe base64, the first of them an object of JSON.
fn jwt(text: &str) -> Option<usize> {
    let at = text.find("eyJ")?;
    let is_part = |byte: char| byte.is_ascii_alphanumeric() || byte == '-' || byte == '_';
    let rest = text.get(at..)?;
    let mut parts = rest.split('.');
    let whole = |part: Option<&str>| part.is_some_and(|part| part.chars().all(is_part));
    (whole(parts.next()) && whole(parts.next()) && parts.next().is_some()).then_some(at)
}

/// Every whole token inside the text, with the byte at which it begins.
fn within(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = text.get(from..).and_then(next_version) {
        let start = from + at;
        let rest = text.get(start..).unwrap_or_default();
        let end = rest
            .find(|byte: char| !(byte.is_ascii_alphanumeric() || "+/=".contains(byte)))
            .unwrap_or(rest.len());
        let token = rest.get(..end).unwrap_or_default();
        if is_whole(token) {
            found.push((start, token));
            from = start + end;
        } else {
            from = start + 3;
        }
    }
    found
}

fn next_version(text: &str) -> Option<usize> {
    [text.find("006"), text.find("007")]
        .into_iter()
        .flatten()
        .min()
}
