//! A target's readings: the paths that the components behind renewd may take it for.
//!
//! Express compares a path as it is written, `express.static` decodes it and resolves its dot segments, `URL`
//! resolves them before anything is decoded, and a proxy in between may do either. Several of them may decide one
//! after the other, each for some of the dot segments alone: a proxy resolves those that are written plainly, a
//! handler those that decoding brings out; a mount takes a `..` for a name, and the handler behind it resolves the
//! next. renewd can't know which of them decides, so a path that isn't plainly spelled is read in every combination
//! of the choices below.
//!
//! Keeps true: a plainly spelled path has one reading, found in one pass without an allocation; any other has at most
//! `MOST_READINGS`, each made in time in proportion to the path's length.
//! Must not know: what readings are compared with.

mod choices;

use std::ops::Range;

use self::choices::{Choice, DotSegments, Dots, NAMES, Separators, Slashes, Which, resolutions};

/// No path has more readings than this. Dot segments are kept, or resolved in some ways, each with empty segments
/// counting for them or not: in 7 ways where escaped separators separate (6 sets of separators), in 5 elsewhere (2
/// sets), and in 1 where escapes stay as written. The same goes for the path without what looks like an authority;
/// with it there are 3 ways more of each.
#[cfg(test)]
const MOST_READINGS: usize = 6 * (15 + 21) + 2 * (11 + 17) + 2 * (3 + 9);

/// The readings of one path, each without a trailing slash; compared in ASCII without regard to letter case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readings<'p> {
    /// Plainly spelled: the path itself.
    Plain(&'p [u8]),
    /// In lower case, each once: segments with a slash before each, none of them empty; `/` for none at all.
    Several(Vec<Box<[u8]>>),
}

impl<'p> Readings<'p> {
    /// `path` as it came, without query and fragment. A text that doesn't start with a slash is no path, and has
    /// itself as its only reading.
    pub fn of(path: &'p str) -> Self {
        let path = path.as_bytes();
        let [b'/' | b'\\', relative @ ..] = path else {
            return Self::Plain(path);
        };
        if is_plain(path) {
            return Self::Plain(match path {
                [shorter @ .., b'/'] if !shorter.is_empty() => shorter,
                _ => path,
            });
        }
        let lower = relative.to_ascii_lowercase();
        Self::Several(PathPieces::of(&lower).readings())
    }

    /// Whether the path has neither escapes nor backslashes, nor dot segments, nor empty segments.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Each of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let (plain, several) = match self {
            Self::Plain(path) => (Some(*path), [].as_slice()),
            Self::Several(readings) => (None, readings.as_slice()),
        };
        plain
            .into_iter()
            .chain(several.iter().map(|reading| &**reading))
    }
}

/// The key under which paths of the configuration are compared: lower-cased, percent-decoded once with `\` as `/`, dot
/// segments resolved (RFC 3986 section 5.2.4), slashes collapsed, the trailing one trimmed.
pub(crate) fn guard_key(path: &str) -> Vec<u8> {
    let Some(relative) = path.strip_prefix(['/', '\\']) else {
        return path.as_bytes().to_ascii_lowercase();
    };
    let lower = relative.as_bytes().to_ascii_lowercase();
    let choice = Choice {
        decoded: true,
        separators: Separators::ALL,
        dots: Dots::AFTERWARDS,
        slashes: Slashes::CollapsedLast,
        authorities: true,
    };
    PathPieces::of(&lower).read(choice, &mut Scratch::default())
}

/// In one pass, for every request asks.
fn is_plain(path: &[u8]) -> bool {
    const OTHER: u8 = u8::MAX;
    // How many dots the segment consists of so far; `OTHER` where it has anything else.
    let mut dots = OTHER;
    for byte in path {
        dots = match byte {
            b'%' | b'\\' => return false,
            b'/' if dots <= 2 => return false,
            b'/' => 0,
            b'.' => dots.saturating_add(1),
            _ => OTHER,
        };
    }
    !(1..=2).contains(&dots)
}

/// A path cut at everything that may separate.
struct PathPieces<'p> {
    pieces: Vec<PathPiece<'p>>,
    /// All pieces with their escapes decoded, in lower case.
    decoded: Vec<u8>,
}

struct PathPiece<'p> {
    /// The text as written, in lower case.
    raw: &'p [u8],
    /// In [`PathPieces::decoded`].
    decoded: Range<usize>,
    end: PieceEnd,
}

/// The end of a piece.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PieceEnd {
    Slash,
    Backslash,
    EscapedSlash,
    EscapedBackslash,
    OfPath,
}

/// Pieces from one up to another: a segment, with what doesn't separate inside.
type ReadingSegment = Range<usize>;

/// Room that readings of one path share.
#[derive(Default)]
struct Scratch {
    segments: Vec<ReadingSegment>,
    settled: Vec<ReadingSegment>,
}

impl<'p> PathPieces<'p> {
    /// `relative` is in lower case, and lacks the leading slash.
    fn of(relative: &'p [u8]) -> Self {
        let mut pieces = Vec::new();
        let mut decoded = Vec::with_capacity(relative.len());
        let (mut piece, mut start, mut rest) = (relative, 0, relative);
        loop {
            let (end, beyond) = match rest {
                [] => (PieceEnd::OfPath, rest),
                [b'/', beyond @ ..] => (PieceEnd::Slash, beyond),
                [b'\\', beyond @ ..] => (PieceEnd::Backslash, beyond),
                [b'%', b'2', b'f', beyond @ ..] => (PieceEnd::EscapedSlash, beyond),
                [b'%', b'5', b'c', beyond @ ..] => (PieceEnd::EscapedBackslash, beyond),
                [first, tail @ ..] => {
                    let (byte, beyond) = match escaped(rest) {
                        Some(escaped) => escaped,
                        None => (*first, tail),
                    };
                    decoded.push(byte.to_ascii_lowercase());
                    rest = beyond;
                    continue;
                }
            };
            let length = piece.len() - rest.len();
            pieces.push(PathPiece {
                raw: piece.get(..length).unwrap_or_default(),
                decoded: start..decoded.len(),
                end,
            });
            if end == PieceEnd::OfPath {
                return Self { pieces, decoded };
            }
            (piece, start, rest) = (beyond, decoded.len(), beyond);
        }
    }

    /// Every reading, each once.
    fn readings(&self) -> Vec<Box<[u8]>> {
        let mut scratch = Scratch::default();
        let mut readings = Vec::new();
        for choice in self.choices() {
            readings.push(self.read(choice, &mut scratch).into_boxed_slice());
        }
        readings.sort_unstable();
        readings.dedup();
        readings
    }

    /// The choices that can make a difference to this path.
    fn choices(&self) -> Vec<Choice> {
        let has = |end| self.pieces.iter().any(|piece| piece.end == end);
        let either = |differs: bool| if differs { &[true, false][..] } else { &[true] };
        let mut texts = self.pieces.iter().map(|piece| self.text(piece, true));
        let empty = texts.any(<[u8]>::is_empty);
        let dots = self.dot_segments();
        let escapes = self.pieces.iter().any(|piece| piece.raw.contains(&b'%'))
            || has(PieceEnd::EscapedSlash)
            || has(PieceEnd::EscapedBackslash);
        let authority = empty && self.decoded.contains(&b'@');

        let mut choices = Vec::new();
        for authorities in either(authority) {
            for backslash in either(has(PieceEnd::Backslash)) {
                for escaped_slash in either(has(PieceEnd::EscapedSlash)) {
                    for escaped_backslash in either(has(PieceEnd::EscapedBackslash)) {
                        let separators = Separators {
                            backslash: *backslash,
                            escaped_slash: *escaped_slash && has(PieceEnd::EscapedSlash),
                            escaped_backslash: *escaped_backslash
                                && has(PieceEnd::EscapedBackslash),
                        };
                        for decoded in either(escapes && !separators.are_escaped()) {
                            let ways = dots.ways(*decoded, separators, *authorities);
                            choices.extend(resolutions(ways, empty).map(|(dots, slashes)| {
                                Choice {
                                    decoded: *decoded,
                                    separators,
                                    dots,
                                    slashes,
                                    authorities: *authorities,
                                }
                            }));
                        }
                    }
                }
            }
        }
        choices
    }

    fn read(&self, choice: Choice, scratch: &mut Scratch) -> Vec<u8> {
        let Scratch { segments, settled } = scratch;
        let first = |end| {
            matches!(
                end,
                PieceEnd::Slash | PieceEnd::Backslash | PieceEnd::OfPath
            )
        };
        let whole = 0..self.pieces.len();
        segments.clear();
        segments.extend(self.split(whole, |end| first(end) && choice.separators.include(end)));
        self.settle(segments, settled, choice, choice.dots.before);
        if choice.decoded && choice.separators.are_escaped() {
            segments.clear();
            for segment in settled.drain(..) {
                segments.extend(self.split(segment, |end| choice.separators.include(end)));
            }
            self.settle(segments, settled, choice, choice.dots.then);
        } else {
            self.settle_again(scratch, choice, choice.dots.then);
        }
        self.settle_again(scratch, choice, choice.dots.last);
        self.write(&scratch.settled, choice)
    }

    /// Another component's turn. What looks like an authority was dropped before.
    fn settle_again(&self, scratch: &mut Scratch, choice: Choice, resolves: Which) {
        if resolves == Which::Nothing {
            return;
        }
        let Scratch { segments, settled } = scratch;
        std::mem::swap(segments, settled);
        let choice = Choice {
            authorities: true,
            ..choice
        };
        self.settle(segments, settled, choice, resolves);
    }

    /// Cuts a segment after each piece that ends in a separator.
    fn split(
        &self,
        segment: ReadingSegment,
        separates: impl Fn(PieceEnd) -> bool,
    ) -> impl Iterator<Item = ReadingSegment> {
        let ReadingSegment { mut start, end } = segment;
        let pieces = self.pieces.get(start..end).unwrap_or_default();
        pieces
            .iter()
            .enumerate()
            .zip(start + 1..)
            .filter_map(move |((index, piece), next)| {
                let last = index + 1 == pieces.len();
                (last || separates(piece.end)).then(|| {
                    let segment = start..next;
                    start = next;
                    segment
                })
            })
    }

    /// Drops and resolves what this choice drops and resolves.
    fn settle(
        &self,
        segments: &[ReadingSegment],
        settled: &mut Vec<ReadingSegment>,
        choice: Choice,
        resolves: Which,
    ) {
        settled.clear();
        let mut after_empty = false;
        for segment in segments {
            let text = self.whole(segment, choice.decoded);
            let empty = text.is_some_and(<[u8]>::is_empty);
            let authority = after_empty && !choice.authorities && self.has_userinfo(segment);
            after_empty = empty;
            match text {
                _ if authority => {}
                _ if empty && choice.slashes == Slashes::CollapsedFirst => {}
                Some(b".") if self.is_resolved(segment, resolves) => {}
                Some(b"..") if self.is_resolved(segment, resolves) => {
                    settled.pop();
                }
                _ => settled.push(segment.clone()),
            }
        }
    }

    /// Whether a dot segment, which is of one piece, is one of these.
    fn is_resolved(&self, segment: &ReadingSegment, which: Which) -> bool {
        match which {
            Which::Nothing => false,
            Which::Plain => self.is_plain(segment.start),
            Which::Revealed => !self.is_plain(segment.start),
            Which::From(first) => segment.start >= first,
        }
    }

    /// Whether a piece is a dot segment before anything is decoded.
    fn is_plain(&self, index: usize) -> bool {
        let ends_plainly = |piece: &PathPiece<'_>| {
            !matches!(
                piece.end,
                PieceEnd::EscapedSlash | PieceEnd::EscapedBackslash
            )
        };
        let before = index
            .checked_sub(1)
            .and_then(|index| self.pieces.get(index));
        let piece = self.pieces.get(index);
        piece.is_some_and(|piece| is_dots(piece.raw) && ends_plainly(piece))
            && before.is_none_or(ends_plainly)
    }

    fn dot_segments(&self) -> DotSegments {
        let mut found = DotSegments {
            plain: false,
            revealed: false,
            behind: Vec::new(),
        };
        let mut begun = 0;
        for (index, piece) in self.pieces.iter().enumerate() {
            if !is_dots(self.text(piece, true)) {
                continue;
            }
            let plain = self.is_plain(index);
            found.plain |= plain;
            found.revealed |= !plain;
            if (1..=NAMES).contains(&begun) {
                found.behind.push(index);
            }
            begun += 1;
        }
        found
    }

    fn write(&self, segments: &[ReadingSegment], choice: Choice) -> Vec<u8> {
        let mut reading = Vec::with_capacity(self.decoded.len() + segments.len() + 1);
        for segment in segments {
            if self.whole(segment, choice.decoded) == Some(b"") {
                continue;
            }
            let pieces = self.pieces.get(segment.clone()).unwrap_or_default();
            for (index, piece) in pieces.iter().enumerate() {
                let separator: &[u8] = match pieces.get(index.wrapping_sub(1)).map(|it| it.end) {
                    None => b"/",
                    Some(PieceEnd::EscapedSlash) => b"%2f",
                    Some(PieceEnd::EscapedBackslash) => b"%5c",
                    Some(_) => b"\\",
                };
                reading.extend_from_slice(separator);
                reading.extend_from_slice(self.text(piece, choice.decoded));
            }
        }
        if reading.is_empty() {
            reading.push(b'/');
        }
        reading
    }

    /// The text of a segment of one piece; longer ones are neither empty nor dots.
    fn whole(&self, segment: &ReadingSegment, decoded: bool) -> Option<&[u8]> {
        match self.pieces.get(segment.clone()) {
            Some([piece]) => Some(self.text(piece, decoded)),
            _ => None,
        }
    }

    fn has_userinfo(&self, segment: &ReadingSegment) -> bool {
        let pieces = self.pieces.get(segment.clone()).unwrap_or_default();
        let mut texts = pieces.iter().map(|piece| self.text(piece, true));
        texts.any(|text| text.contains(&b'@'))
    }

    fn text(&self, piece: &PathPiece<'p>, decoded: bool) -> &[u8] {
        if decoded {
            let range = piece.decoded.clone();
            self.decoded.get(range).unwrap_or_default()
        } else {
            piece.raw
        }
    }
}

fn is_dots(text: &[u8]) -> bool {
    matches!(text, b"." | b"..")
}

/// The byte that an escape at the start stands for, and what follows; broken ones stay literal.
fn escaped(text: &[u8]) -> Option<(u8, &[u8])> {
    let [b'%', high, low, beyond @ ..] = text else {
        return None;
    };
    let digit = |digit: u8| {
        char::from(digit)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    Some((digit(*high)? * 16 + digit(*low)?, beyond))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(path: &str) -> Vec<String> {
        let text = |reading: &[u8]| String::from_utf8_lossy(reading).into_owned();
        Readings::of(path).iter().map(text).collect()
    }

    #[test]
    fn a_plainly_spelled_path_is_its_only_reading() {
        for (path, reading) in [
            ("/", "/"),
            ("/a", "/a"),
            ("/A/b/", "/A/b"),
            ("/a.b/.well-known/...", "/a.b/.well-known/..."),
            ("/a;b@c:d/~", "/a;b@c:d/~"),
            ("*", "*"),
            ("", ""),
        ] {
            let found = Readings::of(path);
            assert_eq!(found, Readings::Plain(reading.as_bytes()), "{path}");
        }
    }

    #[test]
    fn dot_segments_are_resolved_and_kept() {
        assert_eq!(readings("/internal/.."), ["/", "/internal/.."]);
        assert_eq!(readings("/a/./b"), ["/a/./b", "/a/b"]);
        assert_eq!(readings("/a/x/../../y"), ["/a/x/../../y", "/a/x/y", "/y"]);
        assert_eq!(readings("/a/%2e%2e/z"), ["/a/%2e%2e/z", "/a/../z", "/z"]);
    }

    #[test]
    fn other_separators_separate_or_do_not() {
        assert_eq!(
            readings("/admin/..%2fusers"),
            ["/admin/..%2fusers", "/admin/../users", "/users"]
        );
        assert_eq!(readings("/a\\b"), ["/a/b", "/a\\b"]);
        assert_eq!(readings("/a%5Cb"), ["/a%5cb", "/a/b"]);
        // On Linux a backslash is a character of a name: `express.static` finds `/secret` here.
        let mixed = readings("/files/a%5c..%2f..%2fsecret");
        for reading in ["/secret", "/files/secret", "/files/a%5c..%2f..%2fsecret"] {
            assert!(mixed.contains(&reading.to_owned()), "{mixed:?}");
        }
    }

    #[test]
    fn dots_are_resolved_before_escapes_separate_and_after() {
        let found = readings("/a%2fb/../c");
        assert_eq!(found, ["/a%2fb/../c", "/a/b/../c", "/a/c", "/c"]);
    }

    #[test]
    fn plain_dots_and_those_that_decoding_brings_out_are_resolved_apart_and_in_either_order() {
        let plain_kept = "/../a/private/f";
        for path in ["/../a/b/..%2fprivate/f", "/../a/b/%2e%2e/private/f"] {
            assert!(
                readings(path).contains(&plain_kept.to_owned()),
                "{path}: {:?}",
                readings(path)
            );
        }
        // Each of the two is kept and resolved, and both are resolved with one or the other first.
        let found = readings("/a/x/%2e%2e/../b");
        for reading in ["/a/x/../../b", "/a/x/b", "/a/../b", "/b"] {
            assert!(found.contains(&reading.to_owned()), "{reading}: {found:?}");
        }
        let found = readings("/a%2fb/../x/..%2fc");
        for reading in ["/c", "/a/c", "/x/../c", "/a/b/../c"] {
            assert!(found.contains(&reading.to_owned()), "{reading}: {found:?}");
        }
    }

    #[test]
    fn the_first_dot_segments_may_be_names_while_those_behind_are_resolved() {
        for (path, reading) in [
            ("/../a/b/../private/f", "/../a/private/f"),
            ("/../a/./b/..%2fprivate/f", "/../a/private/f"),
            ("/%2e%2e/a//b/../private", "/../a/private"),
            ("/../../../a/./private", "/../../../a/private"),
        ] {
            let found = readings(path);
            assert!(found.contains(&reading.to_owned()), "{path}: {found:?}");
        }
    }

    #[test]
    fn empty_segments_count_for_dots_or_do_not() {
        assert_eq!(readings("/a//b/"), ["/a/b"]);
        assert_eq!(readings("/a//../b"), ["/a/../b", "/a/b", "/b"]);
    }

    #[test]
    fn escapes_are_kept_and_decoded_once() {
        assert_eq!(readings("/%61/%2561"), ["/%61/%2561", "/a/%61"]);
        assert_eq!(readings("/%4A%"), ["/%4a%", "/j%"]);
    }

    #[test]
    fn what_looks_like_an_authority_is_kept_and_dropped() {
        assert_eq!(readings("//user@host/x"), ["/user@host/x", "/x"]);
        assert_eq!(readings("/a/user@host//x"), ["/a/user@host/x"]);
    }

    #[test]
    fn guard_keys_are_normal_forms() {
        for (path, key) in [
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b"),
            ("/", "/"),
            ("//", "/"),
            ("", ""),
            ("*", "*"),
            ("\\a\\..\\b", "/b"),
            ("/a//b", "/a/b"),
            ("/A/%2E%2e/b", "/b"),
            ("/a/.hidden", "/a/.hidden"),
            ("/a/...", "/a/..."),
            ("/%41%", "/a%"),
        ] {
            assert_eq!(guard_key(path), key.as_bytes(), "{path}");
        }
    }

    #[test]
    fn a_hostile_path_has_no_more_readings_than_any_other() {
        let parts = ["/../", "%2f", "\\", "%5c..", "//u@h", "/%2e%2e", "a", "/./"];
        for seed in 0..parts.len() {
            let path: String = (0..2000)
                .map(|at: usize| parts[(at * at + seed * at + at / 7) % parts.len()])
                .collect();
            let path = format!("/{path}");
            let found = Readings::of(&path);
            assert!(found.iter().count() <= MOST_READINGS);
            let bytes: usize = found.iter().map(<[u8]>::len).sum();
            assert!(bytes <= MOST_READINGS * path.len(), "{bytes}");
        }
    }

    proptest::proptest! {
        #[test]
        fn readings_are_few_and_have_no_empty_segments(path in "/([a-bA-B/.%@\\\\]|%2f|%2e|%5C|\\.\\./){0,40}") {
            let found = Readings::of(&path);
            let number = found.iter().count();
            assert!((1..=MOST_READINGS).contains(&number), "{number}");
            for reading in found.iter() {
                assert_eq!(reading.first(), Some(&b'/'));
                assert!(reading == b"/" || !reading.ends_with(b"/"));
                assert!(!reading.windows(2).any(|pair| pair == b"//"));
            }
            // The path as the configuration's keys are made is one of them.
            let key = guard_key(&path);
            assert!(found.iter().any(|reading| reading.eq_ignore_ascii_case(&key)));
        }
    }
}
