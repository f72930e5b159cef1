//! Finds in a stream of bytes whatever looks like an Agora token, wherever it stands and wherever a chunk ends.
//!
//! Keeps true: the pieces put together are what came in; only what may become a token is held back, at most
//! [`LONGEST_WRITTEN`] bytes; every byte is read by at most one run and a few that fail at once, and a few bytes are
//! read again where a run was too long; a body without tokens costs one search for three short patterns, and no copy.
//! Must not know: what a token says.
//!
//! The scan doesn't count quotes, so that bytes that aren't JSON (an event stream, a script, a broken body) don't
//! mislead it: a `"` that is followed by a token and another `"` begins a string. In JSON that is always so: inside a
//! string a `"` follows a backslash, and after a closing one no digit can follow.

use std::collections::VecDeque;
use std::sync::LazyLock;

use aho_corasick::packed::Searcher;
use bytes::Bytes;

use super::run::{Read, RunReading, Spelling};
use crate::agora::parse::INFLATED_LIMIT;

/// The longest token that can be read: base64 of a zlib stream that didn't become smaller.
pub(super) const LONGEST_TOKEN: usize = (INFLATED_LIMIT + 64) / 3 * 4;

/// The most bytes in which a token may be spelled. Some encoders write `/`, `+` and `=` as `\u002f`; one in thirty
/// characters is one of these.
pub(crate) const LONGEST_WRITTEN: usize = 2 * LONGEST_TOKEN;

/// The beginnings of a token: plain, or, where an encoder escapes all of a string, after the string's quote. All are
/// searched for at once, by instructions that nearly every processor has; on one that lacks them, every zero and
/// every quote is looked at.
static OPENINGS: LazyLock<Option<Searcher>> =
    LazyLock::new(|| Searcher::new(["007", "006", ESCAPED]));

const ESCAPED: &str = "\"\\u0030";

/// The length of the longest beginning, less one: what may have begun at the end of a chunk.
const OPENING_TAIL: usize = ESCAPED.len() - 1;

/// A piece of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ScannedPiece {
    /// Text to pass on.
    Text(Bytes),
    /// A text that looks like a token.
    Suspect(Suspect),
}

impl ScannedPiece {
    /// As it came.
    #[cfg(test)]
    fn written(&self) -> &Bytes {
        match self {
            Self::Text(text) => text,
            Self::Suspect(suspect) => &suspect.written,
        }
    }
}

/// A text that looks like a token: the longest sequence of a token's characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Suspect {
    /// The bytes as they came, with their quotes where they are all of a string.
    pub written: Bytes,
    /// The text that they spell.
    pub token: String,
    /// How they spell it.
    pub spelling: Spelling,
}

/// A scan in progress.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    /// A run that began in an earlier chunk, with what was read of it so far.
    begun: Option<(Vec<u8>, RunReading)>,
    /// Whether the last byte was a backslash: a `"` after one begins no string.
    after_backslash: bool,
}

/// Whether a token may stand in this text, or begin at its end; `after_backslash` says whether one precedes it. Costs
/// one search.
pub(crate) fn may_hold_token(text: &[u8], after_backslash: bool) -> bool {
    let openings = Openings {
        chunk: text,
        after_backslash,
    };
    openings.next(0).is_some()
}

/// Where the first token may begin in these bytes, whatever they consist of: before it none stands that is whole. Several
/// texts are searched at once so.
pub(crate) fn first_opening(bytes: &[u8]) -> usize {
    let openings = Openings {
        chunk: bytes,
        after_backslash: false,
    };
    openings.find(0).unwrap_or(bytes.len())
}

/// Whether a token may begin at the end of this text, in which none stands that is whole.
pub(crate) fn may_end_in_token(text: &[u8], after_backslash: bool) -> bool {
    let openings = Openings {
        chunk: text,
        after_backslash,
    };
    openings.tail(0).is_some()
}

// === impl Scanner ===

impl Scanner {
    /// A scan that goes on behind earlier text; `after_backslash` says whether that ended in a backslash.
    pub(crate) fn after(after_backslash: bool) -> Self {
        Self {
            begun: None,
            after_backslash,
        }
    }

    /// Whether the end of what was read may be a token's beginning.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// Takes the next chunk, and appends the pieces that are certain now.
    pub(crate) fn feed(&mut self, chunk: &Bytes, pieces: &mut VecDeque<ScannedPiece>) {
        let Some((mut written, mut reading)) = self.begun.take() else {
            self.scan(chunk, pieces);
            return;
        };
        let read = reading.go_on(chunk);
        if read == Read::More {
            written.extend_from_slice(chunk);
            self.begun = Some((written, reading));
            return;
        }
        let end = match read {
            Read::Run { end, .. } => end,
            Read::Nothing { resume } => resume,
            Read::More => written.len(),
        };
        // These bytes were held back and aren't this run's: the beginning of an escape sequence that no token
        // contains.
        let left = written.split_off(end.min(written.len()));
        let taken = end - written.len();
        written.extend_from_slice(chunk.get(..taken).unwrap_or_default());
        push(written.into(), &read, reading, pieces);
        // Neither a run nor what could have begun one ends with a backslash.
        self.after_backslash = false;
        if left.is_empty() {
            self.scan(&chunk.slice(taken..), pieces);
        } else {
            self.scan(&left.into(), pieces);
            self.feed(chunk, pieces);
        }
    }

    /// Appends the last pieces: no more bytes will come.
    pub(crate) fn finish(&mut self, pieces: &mut VecDeque<ScannedPiece>) {
        let Some((written, mut reading)) = self.begun.take() else {
            return;
        };
        let written = Bytes::from(written);
        match reading.finish() {
            read @ Read::Run { end, .. } => {
                push(written.slice(..end), &read, reading, pieces);
                push_text(written.slice(end..), pieces);
            }
            Read::Nothing { .. } | Read::More => push_text(written, pieces),
        }
    }

    fn scan(&mut self, chunk: &Bytes, pieces: &mut VecDeque<ScannedPiece>) {
        let openings = Openings {
            chunk,
            after_backslash: self.after_backslash,
        };
        let (mut text, mut from) = (0, 0);
        while let Some((start, quoted)) = openings.next(from) {
            let mut reading = RunReading::new(quoted);
            match reading.go_on(chunk.get(start..).unwrap_or_default()) {
                Read::Nothing { resume } => from = start + resume,
                read @ Read::Run { end, .. } => {
                    push_text(chunk.slice(text..start), pieces);
                    push(chunk.slice(start..start + end), &read, reading, pieces);
                    (text, from) = (start + end, start + end);
                }
                Read::More => {
                    push_text(chunk.slice(text..start), pieces);
                    let written = chunk.get(start..).unwrap_or_default().to_vec();
                    self.begun = Some((written, reading));
                    return;
                }
            }
        }
        push_text(chunk.slice(text..), pieces);
        if let Some(last) = chunk.last() {
            self.after_backslash = *last == b'\\';
        }
    }
}

fn push_text(text: Bytes, pieces: &mut VecDeque<ScannedPiece>) {
    if !text.is_empty() {
        pieces.push_back(ScannedPiece::Text(text));
    }
}

/// Appends the result of a reading, all of which is in `written`.
fn push(written: Bytes, read: &Read, reading: RunReading, pieces: &mut VecDeque<ScannedPiece>) {
    let Read::Run { start, .. } = *read else {
        push_text(written, pieces);
        return;
    };
    push_text(written.slice(..start), pieces);
    pieces.push_back(ScannedPiece::Suspect(Suspect {
        written: written.slice(start..),
        // A reading takes nothing but ASCII.
        token: String::from_utf8(reading.token).unwrap_or_default(),
        spelling: reading.spelling,
    }));
}

/// A chunk in which the beginnings of tokens are looked for.
struct Openings<'c> {
    chunk: &'c [u8],
    after_backslash: bool,
}

impl Openings<'_> {
    /// The first place at or after `from`, and whether a quote stands there.
    fn next(&self, mut from: usize) -> Option<(usize, bool)> {
        while let Some(found) = self.find(from) {
            let before = found.checked_sub(1).filter(|before| *before >= from);
            if self.chunk.get(found) == Some(&b'"') {
                if self.is_quote(found) {
                    return Some((found, true));
                }
                from = found + 1;
            } else if let Some(quote) = before.filter(|before| self.is_quote(*before)) {
                return Some((quote, true));
            } else {
                return Some((found, false));
            }
        }
        self.tail(from)
    }

    fn find(&self, from: usize) -> Option<usize> {
        let Some(openings) = &*OPENINGS else {
            let rest = self.chunk.get(from..)?;
            return memchr::memchr2(b'0', b'"', rest).map(|at| from + at);
        };
        let rest = (from.min(self.chunk.len())..self.chunk.len()).into();
        let found = openings.find_in(self.chunk, rest)?;
        Some(found.start())
    }

    /// Whether a `"` stands there that may begin a string.
    fn is_quote(&self, at: usize) -> bool {
        let escaped = match at.checked_sub(1) {
            Some(before) => self.chunk.get(before) == Some(&b'\\'),
            None => self.after_backslash,
        };
        !escaped && self.chunk.get(at) == Some(&b'"')
    }

    /// Where the chunk's last bytes may begin a token: the next chunk will tell.
    fn tail(&self, from: usize) -> Option<(usize, bool)> {
        let tail = self.chunk.len().saturating_sub(OPENING_TAIL).max(from);
        (tail..self.chunk.len()).find_map(|at| {
            let quoted = self.is_quote(at);
            let begins = quoted || self.chunk.get(at) == Some(&b'0');
            let rest = self.chunk.get(at..)?;
            let may_go_on = begins && RunReading::new(quoted).go_on(rest) == Read::More;
            may_go_on.then_some((at, quoted))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    /// How a 006 token begins.
    const V006: &str = "006970CA35de60c44645bbae8a215061b33";

    fn scanned(chunks: &[&[u8]]) -> Vec<ScannedPiece> {
        let mut scanner = Scanner::default();
        let mut pieces = VecDeque::new();
        for chunk in chunks {
            scanner.feed(&Bytes::copy_from_slice(chunk), &mut pieces);
        }
        scanner.finish(&mut pieces);
        pieces.into()
    }

    /// Joins adjacent texts, because the cuts of a text don't matter.
    fn joined(pieces: Vec<ScannedPiece>) -> Vec<ScannedPiece> {
        let mut joined: Vec<ScannedPiece> = Vec::new();
        for piece in pieces {
            match (joined.last_mut(), piece) {
                (Some(ScannedPiece::Text(before)), ScannedPiece::Text(text)) => {
                    *before = [before.clone(), text].concat().into();
                }
                (_, piece) => joined.push(piece),
            }
        }
        joined
    }

    fn suspects(body: &str) -> Vec<Suspect> {
        let pieces = scanned(&[body.as_bytes()]);
        let suspects = pieces.into_iter().filter_map(|piece| match piece {
            ScannedPiece::Suspect(suspect) => Some(suspect),
            ScannedPiece::Text(_) => None,
        });
        suspects.collect()
    }

    fn tokens(body: &str) -> Vec<String> {
        let suspects = suspects(body).into_iter();
        suspects.map(|suspect| suspect.token).collect()
    }

    /// A character of base64 at the beginning of these bytes, and how many of them write it.
    fn character(bytes: &[u8]) -> Option<(u8, usize)> {
        let text = String::from_utf8_lossy(bytes);
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
        let behind = text.trim_start_matches('\\');
        let backslashes = text.len() - behind.len();
        let (byte, length) = if backslashes > 0 {
            match behind.strip_prefix('u') {
                Some(digits) => {
                    let digits = digits.get(..4).filter(|digits| !digits.contains('+'))?;
                    let code = u16::from_str_radix(digits, 16).ok()?;
                    (u8::try_from(code).ok()?, backslashes + 5)
                }
                None => (behind.starts_with('/').then_some(b'/')?, backslashes + 1),
            }
        } else if let Some(mut behind) = text.strip_prefix('%') {
            let mut length = 3;
            while let Some(deeper) = behind.strip_prefix("25") {
                (behind, length) = (deeper, length + 2);
            }
            let digits = behind.get(..2).filter(|digits| !digits.contains('+'))?;
            // This is as deep as URLs are followed into URLs.
            let byte = u8::from_str_radix(digits, 16).ok();
            (byte.filter(|_| length <= 9)?, length)
        } else if let Some(behind) = text.strip_prefix("&#") {
            let (digits, _) = behind.split_once(';')?;
            let (hex, number) = match digits.strip_prefix(['x', 'X']) {
                Some(number) => (1, number),
                None => (0, digits),
            };
            let radix = if hex == 1 { 16 } else { 10 };
            let all_digits = number.chars().all(|digit| digit.is_digit(radix));
            if !all_digits || number.len() > 7 {
                return None;
            }
            let code = u32::from_str_radix(number, radix).ok()?;
            (u8::try_from(code).ok()?, 3 + digits.len())
        } else {
            (*bytes.first()?, 1)
        };
        is_base64(byte).then_some((byte, length))
    }

    /// The run at the beginning of these bytes: its text, and its length.
    fn run(bytes: &[u8]) -> Option<(String, usize)> {
        let (mut token, mut at, mut plain) = (String::new(), 0, false);
        while let Some((byte, length)) = character(&bytes[at..]) {
            // The version stands there plainly, or as an encoder that escapes all of a string writes it.
            plain |= at == 0 && length == 1;
            if token.len() < 3 && length != 1 && (plain || length != 6 || bytes[at] == b'&') {
                break;
            }
            token.push(char::from(byte));
            at += length;
        }
        let rest = token.get(3..).filter(|rest| rest.len() > 2)?;
        let shaped = if token.starts_with("007") {
            use base64::Engine as _;
            let four = format!("{}A", &rest[..3]);
            let header = base64::engine::general_purpose::STANDARD
                .decode(four)
                .ok()?;
            let number = u16::from_be_bytes([header[0], header[1]]);
            header[0] & 15 == 8 && header[1] & 32 == 0 && number % 31 == 0
        } else {
            let mut app_id = rest.bytes().take(32);
            token.starts_with("006") && app_id.all(|byte| byte.is_ascii_hexdigit())
        };
        shaped.then_some((token, at))
    }

    /// The bytes as they came; if they are a run, its text, and whether the run is all of a string.
    type Told = (Vec<u8>, Option<(String, bool)>);

    /// The same over the whole buffer, in the plainest way.
    fn oracle(body: &[u8]) -> Vec<Told> {
        let mut pieces: Vec<Told> = Vec::new();
        let text = |pieces: &mut Vec<(Vec<u8>, Option<_>)>, byte| match pieces.last_mut() {
            Some((text, None)) => text.push(byte),
            _ => pieces.push((vec![byte], None)),
        };
        let mut at = 0;
        while at < body.len() {
            let quoted = body[at] == b'"' && (at == 0 || body[at - 1] != b'\\');
            let plain = body[at..].starts_with(b"006") || body[at..].starts_with(b"007");
            let start = at + usize::from(quoted);
            let Some((token, length)) = (quoted || plain).then(|| run(&body[start..])).flatten()
            else {
                text(&mut pieces, body[at]);
                at += 1;
                continue;
            };
            let end = start + length;
            if quoted && body.get(end) == Some(&b'"') {
                pieces.push((body[at..=end].to_vec(), Some((token, true))));
                at = end + 1;
                continue;
            }
            if quoted {
                text(&mut pieces, b'"');
            }
            pieces.push((body[start..end].to_vec(), Some((token, false))));
            at = end;
        }
        pieces
    }

    fn told(pieces: Vec<ScannedPiece>) -> Vec<Told> {
        let told = joined(pieces).into_iter().map(|piece| match piece {
            ScannedPiece::Text(text) => (text.to_vec(), None),
            ScannedPiece::Suspect(suspect) => {
                let is_string = suspect.spelling.is_string;
                (suspect.written.to_vec(), Some((suspect.token, is_string)))
            }
        });
        told.collect()
    }

    #[test]
    fn whole_strings_are_found_in_every_way_that_json_writes_them() {
        assert_eq!(
            tokens(&format!(r#"{{"a":"007eJx/+=","b":["{V006}ab"]}}"#)),
            ["007eJx/+=".to_owned(), format!("{V006}ab")]
        );
        assert_eq!(
            tokens(r#""007eJx\/b\u002Fc\u002fd\u002b""#),
            ["007eJx/b/c/d+"]
        );
        assert_eq!(tokens(r#""\u0030\u0030\u0037eJ\u0078""#), ["007eJx"]);
        assert_eq!(tokens("data: {\"t\":\"007eJx\"}\n\n"), ["007eJx"]);
        for suspect in suspects(r#"{"007eJx":1,"a":"007eJx"}"#) {
            assert_eq!(suspect.written, "\"007eJx\"");
            assert!(suspect.spelling.is_string);
        }
    }

    #[test]
    fn what_stands_inside_something_longer_is_found_as_far_as_it_goes() {
        for (body, written, token) in [
            (
                r#""https://a.example/?token=007eJx+/=""#,
                "007eJx+/=",
                "007eJx+/=",
            ),
            (
                r#""?token=007eJx%2B%2f%3D&x""#,
                "007eJx%2B%2f%3D",
                "007eJx+/=",
            ),
            (
                r#""?to=%3Ftoken%3D007eJx%252B%253D%26""#,
                "007eJx%252B%253D",
                "007eJx+=",
            ),
            (r#""{\"token\":\"007eJx\/\"}""#, r"007eJx\/", "007eJx/"),
            (
                r#""{\\\"token\\\":\\\"007eJx\\\/a\\\"}""#,
                r"007eJx\\\/a",
                "007eJx/a",
            ),
            (
                r#""?a=1\u0026token=007eJx\u003d\u0026b""#,
                r"007eJx\u003d",
                "007eJx=",
            ),
            (r#""Bearer 007eJx""#, "007eJx", "007eJx"),
            (r#"" 007eJx ""#, "007eJx", "007eJx"),
            (r#""007eJx\n""#, "007eJx", "007eJx"),
            (r#""\n007eJx""#, "007eJx", "007eJx"),
            (r#""007eJx\u00e9""#, "007eJx", "007eJx"),
            (r#""007eJx%""#, "007eJx", "007eJx"),
            (r#""007eJx%2""#, "007eJx", "007eJx"),
            (r#""007eJx%20a""#, "007eJx", "007eJx"),
            (
                "<a href=\"?t=007eJx&#x2F;&#43;&#x03d;&#61;&amp;x\">",
                "007eJx&#x2F;&#43;&#x03d;&#61;",
                "007eJx/+==",
            ),
            ("'007eJx&#39;", "007eJx", "007eJx"),
            ("007eJx&#;", "007eJx", "007eJx"),
            ("007eJx&#x;", "007eJx", "007eJx"),
            ("007eJx&#00000043;", "007eJx", "007eJx"),
            ("007eJx&#65579;", "007eJx", "007eJx"),
            ("'007eJx'", "007eJx", "007eJx"),
            ("007eJx", "007eJx", "007eJx"),
            ("\"007eJx", "007eJx", "007eJx"),
            ("x007eJx\"", "007eJx", "007eJx"),
            ("1000007eJx", "007eJx", "007eJx"),
        ] {
            let found = suspects(body);
            let [suspect] = &*found else {
                panic!("{body}: {found:?}");
            };
            assert_eq!(suspect.written, written, "{body}");
            assert_eq!(suspect.token, token, "{body}");
            assert!(!suspect.spelling.is_string, "{body}");
        }
        assert_eq!(tokens("\"007eJxa 007eJxb,007eJxc\"").len(), 3);
    }

    #[test]
    fn another_token_is_written_as_the_one_before() {
        for (body, written) in [
            (r#""007eJxa""#, r#""007eJx+/=""#),
            (r#""007eJx\/""#, r#""007eJx+/=""#),
            ("007eJxa.", "007eJx+/="),
            ("007eJx+", "007eJx+/="),
            ("007eJx%3d", "007eJx%2B%2F%3D"),
            ("007eJx%252f", "007eJx%252B%252F%253D"),
            ("007eJxabc=%2F", "007eJx%2B%2F="),
            ("007eJxabcd&#x3D;", "007eJx+/="),
            // The replacement has no `=` where the token had none.
            ("007eJxab", "007eJx+/"),
            (&format!("{V006}ab"), "007eJx+/"),
            (&format!("{V006}abcd"), "007eJx+/="),
        ] {
            let spelling = suspects(body)[0].spelling;
            assert_eq!(spelling.write("007eJx+/="), written, "{body}");
        }
    }

    #[test]
    fn what_begins_as_no_token_does_is_left_alone() {
        for body in [
            r#""007""#,
            r#""007e""#,
            r#""007abc""#,
            r#""007eJA""#,
            r#""007====""#,
            r#""006970ca35de60c44645bbae8a215061b3g""#,
            r#""005eJx""#,
            r#""00 7eJx""#,
            r#""\u0030\u0031\u0037eJx""#,
            r"x\u0030\u0030\u0037eJx",
            "",
        ] {
            assert!(tokens(body).is_empty(), "{body}");
        }
    }

    #[test]
    fn quotes_that_match_no_other_hide_no_token() {
        assert_eq!(tokens("<p>5\" wide</p>{\"t\":\"007eJx\"}"), ["007eJx"]);
        assert_eq!(tokens("\"\\\\\"\"007eJx\""), ["007eJx"]);
    }

    #[test]
    fn a_run_longer_than_any_token_is_cut_before_the_next_one() {
        let fits = format!("\"007eJx{}\"", "a".repeat(LONGEST_TOKEN - 6));
        assert_eq!(tokens(&fits).len(), 1);
        let first = |length: usize| format!("007eJx{}", "a".repeat(length - 6));
        let next = format!("007eJx{}", "b".repeat(1000));
        let escaped = format!("007eJx{}", "\\u0061".repeat(LONGEST_WRITTEN / 6 + 1));
        for (body, expected) in [
            (first(LONGEST_TOKEN + 1), vec![first(LONGEST_TOKEN)]),
            (first(LONGEST_TOKEN * 2), vec![first(LONGEST_TOKEN)]),
            (
                first(LONGEST_TOKEN - 500) + &next + &"c".repeat(LONGEST_TOKEN),
                vec![
                    first(LONGEST_TOKEN - 500),
                    next.clone() + &"c".repeat(LONGEST_TOKEN - next.len()),
                ],
            ),
            (escaped, vec![first((LONGEST_WRITTEN - 7) / 6 + 6)]),
        ] {
            for quote in ["\"", ""] {
                let body = format!("{quote}{body}{quote}");
                for size in [1000, body.len()] {
                    let pieces = scanned(&body.as_bytes().chunks(size).collect::<Vec<_>>());
                    let written: Vec<u8> = pieces
                        .iter()
                        .flat_map(|piece| piece.written().to_vec())
                        .collect();
                    assert!(written == body.as_bytes());
                    let found = pieces.into_iter().filter_map(|piece| match piece {
                        ScannedPiece::Suspect(suspect) => Some(suspect.token),
                        ScannedPiece::Text(_) => None,
                    });
                    let found: Vec<String> = found.collect();
                    assert!(
                        found == expected,
                        "{:?}",
                        found.iter().map(String::len).collect::<Vec<_>>()
                    );
                }
            }
        }
    }

    #[test]
    fn nothing_but_a_possible_token_is_held_back() {
        let mut scanner = Scanner::default();
        for (chunk, passed) in [
            ("data: 1\n\n", "data: 1\n\n"),
            ("\"", ""),
            ("x", "\"x"),
            ("\"00", ""),
            ("8", "\"008"),
            ("10", "1"),
            ("0", ""),
            ("0", "0"),
            (",", "00,"),
            ("\"\\u00", ""),
            ("x", "\"\\u00x"),
            ("007eJx", ""),
            ("%2", ""),
            ("0", "007eJx%2"),
            ("\n", "0\n"),
            ("\\", "\\"),
            ("\"00", "\""),
            ("!", "00!"),
        ] {
            let mut pieces = VecDeque::new();
            scanner.feed(&Bytes::from_static(chunk.as_bytes()), &mut pieces);
            let out: Vec<u8> = pieces
                .iter()
                .flat_map(|piece| piece.written().to_vec())
                .collect();
            assert_eq!(String::from_utf8(out).unwrap(), passed, "{chunk}");
        }
    }

    #[test]
    fn a_chunk_without_tokens_passes_uncopied() {
        let chunk = Bytes::from(vec![b'x'; 1000]);
        let mut pieces = VecDeque::new();
        Scanner::default().feed(&chunk, &mut pieces);
        let [ScannedPiece::Text(text)] = pieces.make_contiguous() else {
            panic!("{pieces:?}");
        };
        assert_eq!(text.as_ptr(), chunk.as_ptr());
    }

    /// Bytes that are nearly always nearly a token.
    fn fragments() -> impl Strategy<Value = Vec<u8>> {
        let fragment = prop_oneof![
            Just("007eJx".to_owned()),
            Just("\"007eJx".to_owned()),
            Just(format!("\"{V006}")),
            Just(V006.to_owned()),
            Just("\"".to_owned()),
            Just("\\".to_owned()),
            Just("\\\"".to_owned()),
            Just("0".to_owned()),
            Just("\\u0030".to_owned()),
            Just("\"\\u0030\\u0030\\u0037eJ".to_owned()),
            Just("\\/".to_owned()),
            Just("\\u002F".to_owned()),
            Just("%2B".to_owned()),
            Just("%252f".to_owned()),
            Just("&#x2F;".to_owned()),
            Just("&#043;".to_owned()),
            Just("&#".to_owned()),
            Just("&".to_owned()),
            Just("%".to_owned()),
            "[0a+/=x]{1,4}",
            "\\PC{0,3}",
            "[{}:, \\n]{1,2}",
        ];
        prop::collection::vec(fragment, 0..40).prop_map(|fragments| fragments.concat().into())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_bytes_cut_anywhere_give_what_the_whole_buffer_gives(
            body in prop_oneof![fragments(), prop::collection::vec(any::<u8>(), 0..200)],
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect();
            prop_assert_eq!(told(scanned(&chunks)), oracle(&body));
        }

        #[test]
        fn before_the_first_opening_a_token_may_begin_at_an_end_alone(body in fragments(), cut in any::<prop::sample::Index>(), escaped: bool) {
            let first = first_opening(&body);
            let text = &body[..cut.index(first + 1)];
            prop_assert_eq!(may_hold_token(text, escaped), may_end_in_token(text, escaped));
        }

        #[test]
        fn every_token_of_a_json_document_is_found(
            strings in prop::collection::vec(
                ("(007eJx|006[0-9a-f]{32}Ab)?", "[a-zA-Z1-9+/=]{0,12}", "[\"é .:,-]?"),
                0..20,
            ),
            escape in 0_u8..4,
        ) {
            let texts: Vec<String> = strings.iter().map(|(a, b, c)| [&**a, b, c].concat()).collect();
            let document = serde_json::to_string(&texts).unwrap();
            let document = match escape {
                0 => document.replace('/', "\\/"),
                1 => document.replace('/', "\\u002f"),
                2 => {
                    let zero = char::from(b'0');
                    let mut code = String::new();
                    write!(code, "\\u{:04x}", u32::from(zero)).unwrap();
                    document.replace('0', &code)
                }
                _ => document,
            };
            let with_one = strings.iter().filter(|(version, ..)| !version.is_empty());
            let expected: Vec<String> = with_one.map(|(version, rest, _)| version.clone() + rest).collect();
            prop_assert_eq!(tokens(&document), expected);
        }
    }
}
