//! Finds in a stream of bytes every JSON string (RFC 8259 §7) that looks like an Agora token, wherever it is cut.
//!
//! Keeps true: what comes out, put together again, is what went in; only a string that may yet be a token is held back,
//! at most [`LONGEST_WRITTEN`] bytes of it; a body without tokens costs a search for two short patterns, and no copy.
//! Must not know: what a token says.
//!
//! The scan doesn't count quotes, so that bytes that aren't JSON (an event stream, a script, a broken body) don't derail
//! it: a `"` that is followed by a token and another `"` begins a string. In JSON that is always so: inside a string a `"`
//! stands behind a backslash, and behind a closing one no digit can follow.

use std::collections::VecDeque;
use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem::Finder;

use crate::agora::parse::INFLATED_LIMIT;

/// The longest token that can be read: base64 of a zlib stream that didn't become smaller.
const LONGEST_TOKEN: usize = (INFLATED_LIMIT + 64) / 3 * 4;

/// The most bytes that a token may be written in. Some encoders write `/`, `+` and `=` as `\u002f`, which is one in
/// thirty characters.
pub const LONGEST_WRITTEN: usize = 2 * LONGEST_TOKEN;

/// How a token's string begins, its first zero plain or escaped. The second character is looked for too, since many
/// bodies are full of strings such as `"0.50"`.
static OPENINGS: LazyLock<[Finder<'static>; 3]> =
    LazyLock::new(|| [b"\"00".as_slice(), b"\"0\\", b"\"\\u0030"].map(Finder::new));

/// The longest of them, less one: what may have begun at the end of a chunk.
const OPENING_TAIL: usize = 6;

/// What a body is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// To be passed on.
    Text(Bytes),
    /// A JSON string that looks like a token.
    Suspect(Suspect),
}

impl Piece {
    /// As it came.
    pub fn written(&self) -> &Bytes {
        match self {
            Self::Text(text) => text,
            Self::Suspect(suspect) => &suspect.written,
        }
    }
}

/// A JSON string that looks like a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// As it came, with its quotes.
    pub written: Bytes,
    /// What it says.
    pub token: String,
}

/// A scan in progress.
#[derive(Debug, Default)]
pub struct Scanner {
    /// A string that was begun in an earlier chunk, with what came of it so far.
    begun: Option<(Vec<u8>, Reading)>,
    /// Whether the last byte was a backslash: a `"` behind one begins nothing.
    after_backslash: bool,
}

// === impl Scanner ===

impl Scanner {
    /// Takes the next chunk; appends what is certain by now.
    pub fn feed(&mut self, chunk: &Bytes, pieces: &mut VecDeque<Piece>) {
        let mut at = 0;
        if let Some((mut written, mut reading)) = self.begun.take() {
            let room = LONGEST_WRITTEN.saturating_sub(written.len());
            match reading.go_on(chunk, 0, room) {
                Read::More => {
                    written.extend_from_slice(chunk);
                    self.begun = Some((written, reading));
                    self.note_end(chunk);
                    return;
                }
                Read::Token { end } => {
                    written.extend_from_slice(chunk.get(..end).unwrap_or_default());
                    pieces.push_back(suspect(written.into(), reading));
                    at = end;
                }
                Read::Nothing => push_text(written.into(), pieces),
            }
        }
        self.scan(chunk, at, pieces);
        self.note_end(chunk);
    }

    /// Says that no more will come.
    pub fn finish(&mut self, pieces: &mut VecDeque<Piece>) {
        if let Some((written, _)) = self.begun.take() {
            push_text(written.into(), pieces);
        }
    }

    fn scan(&mut self, chunk: &Bytes, start: usize, pieces: &mut VecDeque<Piece>) {
        let mut openings = Openings::new(chunk, start);
        let mut text = start;
        while let Some(quote) = openings.next() {
            let escaped = match quote.checked_sub(1) {
                Some(before) => chunk.get(before) == Some(&b'\\'),
                None => self.after_backslash,
            };
            if quote < text || escaped {
                continue;
            }
            let mut reading = Reading::default();
            match reading.go_on(chunk, quote + 1, LONGEST_WRITTEN - 1) {
                Read::Nothing => {}
                Read::Token { end } => {
                    push_text(chunk.slice(text..quote), pieces);
                    pieces.push_back(suspect(chunk.slice(quote..end), reading));
                    text = end;
                }
                Read::More => {
                    push_text(chunk.slice(text..quote), pieces);
                    let written = chunk.get(quote..).unwrap_or_default().to_vec();
                    self.begun = Some((written, reading));
                    return;
                }
            }
        }
        push_text(chunk.slice(text..), pieces);
    }

    fn note_end(&mut self, chunk: &[u8]) {
        if let Some(last) = chunk.last() {
            self.after_backslash = *last == b'\\';
        }
    }
}

fn push_text(text: Bytes, pieces: &mut VecDeque<Piece>) {
    if !text.is_empty() {
        pieces.push_back(Piece::Text(text));
    }
}

fn suspect(written: Bytes, reading: Reading) -> Piece {
    // Reading took nothing but ASCII.
    let token = String::from_utf8(reading.token).unwrap_or_default();
    Piece::Suspect(Suspect { written, token })
}

/// The places in a chunk where a token's string may begin, in ascending order.
struct Openings<'c> {
    chunk: &'c [u8],
    next: [Option<usize>; 3],
    /// Where to look for a bare `"`, which the next chunk may make an opening.
    tail: usize,
}

impl<'c> Openings<'c> {
    fn new(chunk: &'c [u8], start: usize) -> Self {
        Self {
            chunk,
            next: OPENINGS.each_ref().map(|finder| find(finder, chunk, start)),
            tail: chunk.len().saturating_sub(OPENING_TAIL).max(start),
        }
    }

    fn next(&mut self) -> Option<usize> {
        let Some(first) = self.next.iter().flatten().min().copied() else {
            let rest = self.chunk.get(self.tail..)?;
            let quote = self.tail + memchr::memchr(b'"', rest)?;
            self.tail = quote + 1;
            return Some(quote);
        };
        for (next, finder) in self.next.iter_mut().zip(OPENINGS.iter()) {
            if *next == Some(first) {
                *next = find(finder, self.chunk, first + 1);
            }
        }
        Some(first)
    }
}

fn find(finder: &Finder<'_>, chunk: &[u8], from: usize) -> Option<usize> {
    let rest = chunk.get(from..)?;
    finder.find(rest).map(|at| from + at)
}

/// How far a string has been read that may be a token.
#[derive(Debug, Default)]
struct Reading {
    token: Vec<u8>,
    escape: Escape,
}

/// Where in an escape sequence reading stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// Behind `\`.
    Begun,
    /// Behind `\u` and this many digits.
    Code { digits: u8, value: u16 },
}

/// What reading on came to.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    /// It may be a token; the chunk is over.
    More,
    /// It looks like one; `end` is behind its closing quote.
    Token { end: usize },
    /// It is none.
    Nothing,
}

impl Reading {
    /// Reads from `start` on, at most `room` bytes.
    fn go_on(&mut self, chunk: &[u8], start: usize, room: usize) -> Read {
        let rest = chunk.get(start..).unwrap_or_default();
        for (offset, byte) in rest.iter().enumerate() {
            if offset >= room {
                return Read::Nothing;
            }
            let fits = match (self.escape, byte) {
                (Escape::None, b'"') if self.token.len() > VERSION => {
                    return Read::Token {
                        end: start + offset + 1,
                    };
                }
                (Escape::None, b'\\') => {
                    self.escape = Escape::Begun;
                    true
                }
                (Escape::None, byte) => self.takes(*byte),
                (Escape::Begun, b'/') => {
                    self.escape = Escape::None;
                    self.takes(b'/')
                }
                (Escape::Begun, b'u') => {
                    self.escape = Escape::Code {
                        digits: 0,
                        value: 0,
                    };
                    true
                }
                (Escape::Begun, _) => false,
                (Escape::Code { digits, value }, byte) => self.takes_digit(digits, value, *byte),
            };
            if !fits {
                return Read::Nothing;
            }
        }
        Read::More
    }

    fn takes_digit(&mut self, digits: u8, value: u16, digit: u8) -> bool {
        let Some(digit) = char::from(digit).to_digit(16) else {
            return false;
        };
        let value = value << 4 | u16::try_from(digit).unwrap_or(0);
        if digits < 3 {
            self.escape = Escape::Code {
                digits: digits + 1,
                value,
            };
            return true;
        }
        self.escape = Escape::None;
        u8::try_from(value).is_ok_and(|byte| self.takes(byte))
    }

    /// Whether a token may go on like this: `006` or `007`, then base64 (an App ID fits that too).
    fn takes(&mut self, byte: u8) -> bool {
        let fits = match self.token.len() {
            0 | 1 => byte == b'0',
            2 => matches!(byte, b'6' | b'7'),
            length if length >= LONGEST_TOKEN => false,
            _ => byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='),
        };
        self.token.push(byte);
        fits
    }
}

/// Characters that say which version a token is; more must follow.
const VERSION: usize = 3;

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn scanned(chunks: &[&[u8]]) -> Vec<Piece> {
        let mut scanner = Scanner::default();
        let mut pieces = VecDeque::new();
        for chunk in chunks {
            scanner.feed(&Bytes::copy_from_slice(chunk), &mut pieces);
        }
        scanner.finish(&mut pieces);
        pieces.into()
    }

    /// Adjacent texts joined: how a text was cut says nothing.
    fn joined(pieces: Vec<Piece>) -> Vec<Piece> {
        let mut joined: Vec<Piece> = Vec::new();
        for piece in pieces {
            match (joined.last_mut(), piece) {
                (Some(Piece::Text(before)), Piece::Text(text)) => {
                    *before = [before.clone(), text].concat().into();
                }
                (_, piece) => joined.push(piece),
            }
        }
        joined
    }

    fn tokens(body: &str) -> Vec<String> {
        let pieces = scanned(&[body.as_bytes()]);
        let suspects = pieces.into_iter().filter_map(|piece| match piece {
            Piece::Suspect(suspect) => Some(suspect.token),
            Piece::Text(_) => None,
        });
        suspects.collect()
    }

    /// The same over the whole buffer, read as one would explain it.
    fn oracle(body: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut text = Vec::new();
        let mut at = 0;
        while at < body.len() {
            let opens = body[at] == b'"' && (at == 0 || body[at - 1] != b'\\');
            let end = opens
                .then(|| body[at + 1..].iter().position(|byte| *byte == b'"'))
                .flatten();
            let suspect = end.and_then(|length| {
                let written = &body[at..at + length + 2];
                let token: String = serde_json::from_slice(written).ok()?;
                let base64 = |character: char| {
                    character.is_ascii_alphanumeric() || "+/=".contains(character)
                };
                let shaped = ["006", "007"].iter().any(|version| {
                    token.starts_with(version) && token.len() > 3 && token.chars().all(base64)
                });
                shaped.then(|| (written.to_vec(), token))
            });
            let Some((written, token)) = suspect else {
                text.push(body[at]);
                at += 1;
                continue;
            };
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text).into()));
            }
            at += written.len();
            pieces.push(Piece::Suspect(Suspect {
                written: written.into(),
                token,
            }));
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text.into()));
        }
        pieces
    }

    #[test]
    fn whole_strings_are_found_in_every_way_that_json_writes_them() {
        assert_eq!(
            tokens(r#"{"a":"007eJx/+=","b":["006ab"]}"#),
            ["007eJx/+=", "006ab"]
        );
        assert_eq!(tokens(r#""007a\/b\u002Fc\u002fd\u002b""#), ["007a/b/c/d+"]);
        assert_eq!(tokens(r#""\u0030\u0030\u0037\u0061""#), ["007a"]);
        assert_eq!(tokens("data: {\"t\":\"007a\"}\n\n"), ["007a"]);
        assert_eq!(tokens(r#"{"007a":1}"#), ["007a"]);
    }

    #[test]
    fn what_is_no_whole_string_is_left_alone() {
        for body in [
            r#""007""#,
            r#""x007a""#,
            r#"" 007a""#,
            r#""007a b""#,
            r#""005a""#,
            r#""{\"token\":\"007a\"}""#,
            r#""007a\n""#,
            r#""007a\u00e9""#,
            r#""007a"#,
            r"'007a'",
            r#"007a""#,
            "",
        ] {
            assert!(tokens(body).is_empty(), "{body}");
        }
    }

    #[test]
    fn quotes_that_match_no_other_hide_no_token() {
        assert_eq!(tokens("<p>5\" wide</p>{\"t\":\"007a\"}"), ["007a"]);
        assert_eq!(tokens("\"\\\\\"\"007a\""), ["007a"]);
    }

    #[test]
    fn a_string_longer_than_any_token_passes() {
        let fits = format!("\"007{}\"", "a".repeat(LONGEST_TOKEN - 3));
        let longer = format!("\"007{}\"", "a".repeat(LONGEST_TOKEN - 2));
        let escaped = format!("\"007{}\"", "\\u0061".repeat(LONGEST_WRITTEN / 6 + 1));
        assert_eq!(tokens(&fits).len(), 1);
        for body in [longer, escaped] {
            let pieces = scanned(&body.as_bytes().chunks(1000).collect::<Vec<_>>());
            assert_eq!(joined(pieces), [Piece::Text(body.into())]);
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
            ("\"\\u00", ""),
            ("x", "\"\\u00x"),
            ("\\", "\\"),
            ("\"00", "\"00"),
        ] {
            let mut pieces = VecDeque::new();
            scanner.feed(&Bytes::from_static(chunk.as_bytes()), &mut pieces);
            let out: Vec<u8> = pieces
                .iter()
                .flat_map(|piece| piece.written().to_vec())
                .collect();
            // `"00` behind a backslash is held by none: it begins no string.
            assert_eq!(String::from_utf8(out).unwrap(), passed, "{chunk}");
        }
    }

    #[test]
    fn a_chunk_without_tokens_passes_uncopied() {
        let chunk = Bytes::from(vec![b'x'; 1000]);
        let mut pieces = VecDeque::new();
        Scanner::default().feed(&chunk, &mut pieces);
        let [Piece::Text(text)] = pieces.make_contiguous() else {
            panic!("{pieces:?}");
        };
        assert_eq!(text.as_ptr(), chunk.as_ptr());
    }

    /// Bytes that are nearly always nearly a token.
    fn fragments() -> impl Strategy<Value = Vec<u8>> {
        let fragment = prop_oneof![
            Just("\"007".to_owned()),
            Just("\"006".to_owned()),
            Just("\"".to_owned()),
            Just("\\".to_owned()),
            Just("\\\"".to_owned()),
            Just("\\u0030".to_owned()),
            Just("\"\\u0030\\u0030\\u0037".to_owned()),
            Just("\\/".to_owned()),
            Just("\\u002F".to_owned()),
            "[0a+/=]{1,4}",
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
            prop_assert_eq!(joined(scanned(&chunks)), oracle(&body));
        }

        #[test]
        fn every_token_of_a_json_document_is_found(
            strings in prop::collection::vec("(00[67])?[a-zA-Z0-9+/=\"\\\\é ]{0,12}", 0..20),
            escape in 0_u8..4,
        ) {
            let document = serde_json::to_string(&strings).unwrap();
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
            let read: Vec<String> = serde_json::from_str(&document).unwrap();
            let is_token = |text: &String| {
                let rest = text.strip_prefix("007").or_else(|| text.strip_prefix("006"));
                rest.is_some_and(|rest| {
                    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
                    !rest.is_empty() && rest.bytes().all(base64)
                })
            };
            let expected: Vec<String> = read.into_iter().filter(is_token).collect();
            prop_assert_eq!(tokens(&document), expected);
        }
    }
}
