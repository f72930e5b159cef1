//! One token's characters in a stream of bytes: read through the escapes of JSON, of JSON in JSON, of URLs and of
//! HTML.
//!
//! Keeps true: at most [`LONGEST_WRITTEN`] bytes belong to one run, and a longer one is cut; what can't begin a token
//! is given up after a few bytes; the result doesn't depend on where chunks end.
//! Must not know: where runs begin, what a token says.

use std::ops::Range;

use super::scan::{LONGEST_TOKEN, LONGEST_WRITTEN};

/// The characters of base64 that URLs write as `%2B`, `%2F` and `%3D`.
const ESCAPED_IN_URLS: [u8; 3] = *b"+/=";

/// The most URLs that a URL may be nested in: `%2B` is one, `%252B` two.
const DEEPEST: u8 = 4;

/// How far before its end a run that becomes too long is cut, in characters, if another token may begin there:
/// several times an ordinary token.
const OVERLAP: usize = 8192;

/// The most digits of a numeric character reference in HTML: leading zeros are allowed.
const MOST_DIGITS: u8 = 7;

/// Where a token's base64 begins, after its version.
const VERSION: usize = 3;

/// Where the base64 of a 006 token begins, after the version and an App ID.
const BEHIND_APP_ID: usize = VERSION + 32;

/// How a run is written, so that another token can be written the same way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spelling {
    /// Whether the run is all of a string: the quotes then belong to it.
    pub is_string: bool,
    /// How often each of [`ESCAPED_IN_URLS`] is percent-encoded; `None` where it doesn't occur.
    percent: [Option<u8>; 3],
    /// Whether its base64 lacks the padding `=`.
    is_unpadded: bool,
}

impl Spelling {
    /// Writes a token as this one was written. JSON, at any depth, and HTML need no escapes for it.
    pub(crate) fn write(self, token: &str) -> String {
        // Where one of these characters is encoded, the others would be too.
        let usual = self.percent.iter().flatten().max().copied().unwrap_or(0);
        let mut written = String::with_capacity(token.len() + 16);
        let quote = if self.is_string { "\"" } else { "" };
        written.push_str(quote);
        let token = if self.is_unpadded {
            token.trim_end_matches('=')
        } else {
            token
        };
        for character in token.chars() {
            let special = ESCAPED_IN_URLS
                .iter()
                .position(|special| char::from(*special) == character);
            let known = special.and_then(|at| self.percent.get(at).copied());
            match known.map_or(0, |depth| depth.unwrap_or(usual)) {
                0 => written.push(character),
                depth => {
                    written.push('%');
                    (1..depth).for_each(|_| written.push_str("25"));
                    written.push_str(match character {
                        '+' => "2B",
                        '/' => "2F",
                        _ => "3D",
                    });
                }
            }
        }
        written.push_str(quote);
        written
    }

    /// Where some of a run's characters stand in its spelling, and how they are spelled there; `token` is their text.
    pub(super) fn of_part(
        written: &[u8],
        characters: Range<usize>,
        token: &str,
    ) -> (Range<usize>, Self) {
        let mut reading = RunReading::of_known(written.first() == Some(&b'"'));
        let mut spelling = Self {
            is_unpadded: is_unpadded(token.as_bytes()),
            ..Self::default()
        };
        let (mut number, mut place) = (0, reading.read..reading.read);
        for (end, byte) in (1..).zip(written).skip(place.start) {
            match reading.step(*byte) {
                RunStep::Reads => {}
                RunStep::Takes(..) if number < characters.start => {
                    (number, place) = (number + 1, end..end);
                }
                RunStep::Takes(character, percent) if number < characters.end => {
                    spelling.note(character, percent);
                    (number, place.end) = (number + 1, end);
                }
                RunStep::Takes(..) | RunStep::Ends => break,
            }
        }
        (place, spelling)
    }

    fn note(&mut self, character: u8, percent: u8) {
        let mut specials = ESCAPED_IN_URLS.iter().zip(&mut self.percent);
        if let Some((_, depth)) = specials.find(|(special, _)| **special == character) {
            *depth = Some(percent);
        }
    }
}

/// Whether a token's base64 lacks the padding `=`.
fn is_unpadded(token: &[u8]) -> bool {
    let base64 = match token.get(2) {
        Some(b'6') => BEHIND_APP_ID,
        _ => VERSION,
    };
    !token.len().saturating_sub(base64).is_multiple_of(4)
}

/// The first place at or behind `from` in a run's text at which a token may begin.
pub(super) fn beginning(token: &[u8], from: usize) -> Option<usize> {
    let rest = token.get(from..)?;
    let mut zeros = memchr::memchr_iter(b'0', rest);
    let begins = |at: &usize| match rest.get(*at..) {
        Some([b'0', b'0', b'7', stream @ ..]) => stream.get(..3).is_some_and(begins_a_stream),
        Some([b'0', b'0', b'6', app_id @ ..]) => {
            let app_id = app_id.get(..BEHIND_APP_ID - VERSION);
            app_id.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        }
        _ => false,
    };
    zeros.find(begins).map(|at| from + at)
}

/// A run as far as it has been read.
#[derive(Debug)]
pub(super) struct RunReading {
    /// The run's text.
    pub(super) token: Vec<u8>,
    pub(super) spelling: Spelling,
    /// Whether it began with a quote.
    quoted: bool,
    escape: Escape,
    /// The bytes read, and how many of them belong to the run.
    read: usize,
    accepted: usize,
    /// How many characters at the end are one byte each, counted where the run becomes too long.
    plain: usize,
    /// How many characters and bytes stand before the first place at which another token may begin, where the run
    /// becomes too long.
    before_next: Option<(usize, usize)>,
}

/// The position within an escape sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    None,
    /// After one `\` or more.
    Backslash,
    /// After `\u` and this many digits.
    Code {
        digits: u8,
        value: u16,
    },
    /// After `%`, this many `25` and perhaps a digit.
    Percent {
        depth: u8,
        high: Option<u8>,
    },
    /// After `&`.
    Ampersand,
    /// After `&#` or `&#x`, and this many digits.
    Number {
        radix: u8,
        digits: u8,
        value: u16,
    },
}

/// The result of reading on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// The run may go on in the next chunk.
    More,
    /// A run that looks like a token, from `start` to `end`, counted from the reading's first byte.
    Run { start: usize, end: usize },
    /// There is no run. Another may begin at `resume`.
    Nothing { resume: usize },
}

impl RunReading {
    /// A reading that begins; `quoted`: the first byte is the quote before the run.
    pub(super) fn new(quoted: bool) -> Self {
        Self {
            token: Vec::new(),
            spelling: Spelling::default(),
            quoted,
            escape: Escape::None,
            read: 0,
            accepted: 0,
            plain: 0,
            before_next: None,
        }
    }

    /// A reading of what is known to be a run, with its version.
    fn of_known(quoted: bool) -> Self {
        Self {
            token: vec![b'0'; VERSION],
            read: usize::from(quoted),
            ..Self::new(quoted)
        }
    }

    /// Reads on.
    pub(super) fn go_on(&mut self, chunk: &[u8]) -> Read {
        for byte in chunk {
            if self.read >= LONGEST_WRITTEN {
                return self.cut();
            }
            self.read += 1;
            if self.quoted && self.read == 1 {
                continue;
            }
            let step = self.step(*byte);
            match step {
                RunStep::Reads => {}
                RunStep::Takes(character, percent) if self.takes(character) => {
                    self.spelling.note(character, percent);
                    let bytes = self.read - self.accepted;
                    self.accepted = self.read;
                    if self.is_long() {
                        self.look_for_next(bytes);
                    }
                }
                RunStep::Takes(..) if self.token.len() >= LONGEST_TOKEN => return self.cut(),
                RunStep::Takes(..) => return Read::Nothing { resume: 1 },
                RunStep::Ends => {
                    self.spelling.is_string =
                        self.quoted && *byte == b'"' && self.escape == Escape::None;
                    if self.spelling.is_string {
                        self.accepted = self.read;
                    }
                    return self.finish();
                }
            }
        }
        Read::More
    }

    /// Ends the reading: no more bytes will come.
    pub(super) fn finish(&mut self) -> Read {
        // Fewer characters don't show whether this may be a token.
        if self.token.len() <= VERSION + 2 {
            return Read::Nothing { resume: 1 };
        }
        self.spelling.is_unpadded = is_unpadded(&self.token);
        Read::Run {
            start: usize::from(self.quoted && !self.spelling.is_string),
            end: self.accepted,
        }
    }

    fn is_long(&self) -> bool {
        self.token.len() > LONGEST_TOKEN - OVERLAP || self.read > LONGEST_WRITTEN - OVERLAP
    }

    /// Remembers where another token may begin, if the bytes of the last character complete the first such place.
    fn look_for_next(&mut self, bytes: usize) {
        self.plain = if bytes == 1 { self.plain + 1 } else { 0 };
        let begins = self.token.ends_with(b"007") || self.token.ends_with(b"006");
        if begins && self.plain >= VERSION && self.before_next.is_none() {
            self.before_next = Some((self.token.len() - VERSION, self.accepted - VERSION));
        }
    }

    /// Ends a run that becomes too long for a token: one may begin it, and another may go beyond its end.
    fn cut(&mut self) -> Read {
        self.token.truncate(LONGEST_TOKEN);
        let zeros = self.token.iter().rev().take(2);
        // The end may be half of a beginning.
        let zeros = zeros.take_while(|character| **character == b'0').count();
        let zeros = zeros.min(self.plain);
        let nearly_all = (self.token.len() - zeros, self.accepted - zeros);
        let (characters, bytes) = self.before_next.unwrap_or(nearly_all);
        self.token.truncate(characters);
        self.accepted = bytes;
        match self.finish() {
            Read::Nothing { .. } => Read::Nothing { resume: self.read },
            run => run,
        }
    }

    fn step(&mut self, byte: u8) -> RunStep {
        let behind_version = self.token.len() >= VERSION;
        // Only an encoder that escapes all of a string escapes digits, and then the first one too.
        let escapes_all =
            self.quoted && (self.token.is_empty() || self.read > self.token.len() + 2);
        match (self.escape, byte) {
            (Escape::None, b'\\') if behind_version || escapes_all => self.reads(Escape::Backslash),
            (Escape::None, b'%') if behind_version => self.reads(Escape::Percent {
                depth: 1,
                high: None,
            }),
            (Escape::None, b'&') if behind_version => self.reads(Escape::Ampersand),
            (Escape::None, byte) => self.takes_or_ends(byte, 0),
            (Escape::Backslash, b'\\') if behind_version => RunStep::Reads,
            (Escape::Backslash, b'/') => self.takes_or_ends(b'/', 0),
            (Escape::Backslash, b'u') => self.reads(Escape::Code {
                digits: 0,
                value: 0,
            }),
            (Escape::Code { digits, value }, _) => self.step_in_code(byte, digits, value),
            (Escape::Percent { depth, high }, _) => self.step_in_percent(byte, depth, high),
            (Escape::Ampersand, b'#') => self.reads(Escape::Number {
                radix: 10,
                digits: 0,
                value: 0,
            }),
            (Escape::Backslash | Escape::Ampersand, _) => RunStep::Ends,
            (
                Escape::Number {
                    radix,
                    digits,
                    value,
                },
                _,
            ) => self.step_in_number(byte, radix, digits, value),
        }
    }

    /// After `\u` and this many digits.
    fn step_in_code(&mut self, byte: u8, digits: u8, value: u16) -> RunStep {
        let Some(digit) = digit(byte, 16) else {
            return RunStep::Ends;
        };
        let value = value << 4 | u16::from(digit);
        if digits < 3 {
            let digits = digits + 1;
            return self.reads(Escape::Code { digits, value });
        }
        self.takes_code(value)
    }

    /// After `%`.
    fn step_in_percent(&mut self, byte: u8, depth: u8, high: Option<u8>) -> RunStep {
        match (high, digit(byte, 16)) {
            (None, Some(high)) => self.reads(Escape::Percent {
                depth,
                high: Some(high),
            }),
            (Some(2), Some(5)) if depth < DEEPEST => self.reads(Escape::Percent {
                depth: depth + 1,
                high: None,
            }),
            (Some(high), Some(low)) => self.takes_or_ends(high << 4 | low, depth),
            (_, None) => RunStep::Ends,
        }
    }

    /// After `&#` or `&#x`, and this many digits.
    fn step_in_number(&mut self, byte: u8, radix: u8, digits: u8, value: u16) -> RunStep {
        match (byte, digit(byte, radix)) {
            (b'x' | b'X', _) if radix == 10 && digits == 0 => self.reads(Escape::Number {
                radix: 16,
                digits: 0,
                value,
            }),
            (b';', _) if digits > 0 => self.takes_code(value),
            (_, Some(digit)) if digits < MOST_DIGITS => self.reads(Escape::Number {
                radix,
                digits: digits + 1,
                value: value
                    .saturating_mul(radix.into())
                    .saturating_add(digit.into()),
            }),
            _ => RunStep::Ends,
        }
    }

    fn takes_code(&mut self, value: u16) -> RunStep {
        match u8::try_from(value) {
            Ok(character) => self.takes_or_ends(character, 0),
            Err(_) => RunStep::Ends,
        }
    }

    fn reads(&mut self, escape: Escape) -> RunStep {
        self.escape = escape;
        RunStep::Reads
    }

    fn takes_or_ends(&mut self, character: u8, percent: u8) -> RunStep {
        if !character.is_ascii_alphanumeric() && !ESCAPED_IN_URLS.contains(&character) {
            return RunStep::Ends;
        }
        self.escape = Escape::None;
        RunStep::Takes(character, percent)
    }

    /// Whether a token may go on like this: `006`, an App ID and base64, or `007` and the base64 of a zlib stream.
    fn takes(&mut self, character: u8) -> bool {
        let at = self.token.len();
        self.token.push(character);
        match (at, self.token.get(2)) {
            (0 | 1, _) => character == b'0',
            (2, _) => matches!(character, b'6' | b'7'),
            (at, _) if at >= LONGEST_TOKEN => false,
            (at, Some(b'6')) if at < BEHIND_APP_ID => character.is_ascii_hexdigit(),
            (5, Some(b'7')) => self.token.get(3..).is_some_and(begins_a_stream),
            _ => true,
        }
    }
}

fn digit(byte: u8, radix: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(radix.into())?;
    u8::try_from(digit).ok()
}

/// The effect of a byte on a run.
enum RunStep {
    /// The byte is part of an escape sequence.
    Reads,
    /// The byte ends the spelling of a character, which is percent-encoded this many times.
    Takes(u8, u8),
    /// The byte isn't the run's, or shows that the escape sequence before it isn't.
    Ends,
}

/// Whether three characters of base64 begin a zlib stream (RFC 1950) as a token has one: deflate, no dictionary.
fn begins_a_stream(base64: &[u8]) -> bool {
    let value = |character: &u8| match character {
        b'A'..=b'Z' => Some(u32::from(character - b'A')),
        b'a'..=b'z' => Some(u32::from(character - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(character - b'0') + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let bits = base64
        .iter()
        .try_fold(0, |bits, character| Some(bits << 6 | value(character)?));
    bits.is_some_and(|bits| {
        let header = bits >> 2;
        let (method, dictionary) = (header >> 8 & 0x0f, header & 0x20);
        method == 8 && dictionary == 0 && header % 31 == 0
    })
}
