//! The choices in reading a path: what separates segments, which dot segments are resolved and by which component, and
//! what empty segments and authorities mean to it.
//!
//! Keeps true: their number is bounded, whatever the path; plain dot segments and those that only decoding brings out
//! are resolved or kept apart.
//! Must not know: pieces of a path, beyond their numbers.

use super::PieceEnd;

/// So many dot segments from the start may be names of a route's parameters, while all behind them are resolved.
pub(super) const NAMES: usize = 3;

/// A way to read a path: one choice of each kind.
#[derive(Clone, Copy)]
pub(super) struct Choice {
    /// Escapes are decoded, once; otherwise they stay as written, and separate nothing.
    pub(super) decoded: bool,
    pub(super) separators: Separators,
    pub(super) dots: Dots,
    pub(super) slashes: Slashes,
    /// `//user@host` stays. Express hands a target that contains a no-break space (byte 0xA0, part of the UTF-8 of `à`;
    /// anywhere, the query included) to Node's `url.parse` (parseurl 1.3.3, `fastparse`), and that takes `//user@host`
    /// at the start, or right after a mount, for an authority and routes by what follows: `//a@b/refresh-token?à` is
    /// `/refresh-token`. Node 20 refuses such bytes outright; older parsers are looser.
    pub(super) authorities: bool,
}

/// The characters that separate segments besides `/`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Separators {
    /// `\`, as `URL` and `url.parse` have it.
    pub(super) backslash: bool,
    /// `%2f`, to what decodes before it splits.
    pub(super) escaped_slash: bool,
    /// `%5c`, to the same on Windows.
    pub(super) escaped_backslash: bool,
}

/// Which of `.` and `..` are resolved, by up to three components one after the other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Dots {
    /// Before escaped separators separate, as `URL` does.
    pub(super) before: Which,
    /// After that, as `express.static` does.
    pub(super) then: Which,
    /// By a component behind these.
    pub(super) last: Which,
}

/// Which dot segments one component resolves. To it, the others are names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// None: to Express's routes they are names like any other.
    Nothing,
    /// Those that are written plainly, between separators that are.
    Plain,
    /// Those that only decoding brings out.
    Revealed,
    /// Those from this piece on: all from the first on.
    From(usize),
}

impl Which {
    pub(super) const ALL: Self = Self::From(0);
}

impl Dots {
    pub(super) const KEPT: Self = Self::passes(Which::Nothing, Which::Nothing, Which::Nothing);
    pub(super) const BEFORE: Self = Self::passes(Which::ALL, Which::Nothing, Which::Nothing);
    pub(super) const AFTERWARDS: Self = Self::passes(Which::Nothing, Which::ALL, Which::Nothing);
    pub(super) const TWICE: Self = Self::passes(Which::ALL, Which::ALL, Which::Nothing);
    pub(super) const PLAIN: Self = Self::passes(Which::Plain, Which::Nothing, Which::Nothing);
    pub(super) const PLAIN_FIRST: Self = Self::passes(Which::Plain, Which::ALL, Which::Nothing);
    pub(super) const REVEALED: Self = Self::passes(Which::Nothing, Which::Revealed, Which::Nothing);
    pub(super) const REVEALED_FIRST: Self =
        Self::passes(Which::Nothing, Which::Revealed, Which::ALL);

    const fn passes(before: Which, then: Which, last: Which) -> Self {
        Self { before, then, last }
    }
}

/// The dot segments of a path, once everything is decoded.
pub(super) struct DotSegments {
    /// Some are written plainly.
    pub(super) plain: bool,
    /// Some only decoding brings out.
    pub(super) revealed: bool,
    /// Where those behind the first, the first two, and so on begin, up to [`NAMES`].
    pub(super) behind: Vec<usize>,
}

/// The effect of a `..` on an empty segment before it. No empty segment is left in a reading.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Slashes {
    /// Skips it: `/a//../b` is `/b`.
    CollapsedFirst,
    /// Removes it: `/a//../b` is `/a/b`.
    CollapsedLast,
}

impl Separators {
    pub(super) const ALL: Self = Self {
        backslash: true,
        escaped_slash: true,
        escaped_backslash: true,
    };

    pub(super) fn are_escaped(self) -> bool {
        self.escaped_slash || self.escaped_backslash
    }

    pub(super) fn include(self, end: PieceEnd) -> bool {
        match end {
            PieceEnd::Slash | PieceEnd::OfPath => true,
            PieceEnd::Backslash => self.backslash,
            PieceEnd::EscapedSlash => self.escaped_slash,
            PieceEnd::EscapedBackslash => self.escaped_backslash,
        }
    }
}

impl DotSegments {
    /// How they may be resolved, where there are any.
    pub(super) fn ways(
        &self,
        decoded: bool,
        separators: Separators,
        authorities: bool,
    ) -> Vec<Dots> {
        let escaped = separators.are_escaped();
        let mut ways = match (self.plain || self.revealed && decoded, escaped) {
            (false, _) => return Vec::new(),
            (true, false) => vec![Dots::BEFORE],
            (true, true) => vec![Dots::BEFORE, Dots::AFTERWARDS, Dots::TWICE],
        };
        if decoded && self.plain && self.revealed {
            ways.extend([
                Dots::PLAIN,
                Dots::PLAIN_FIRST,
                Dots::REVEALED,
                Dots::REVEALED_FIRST,
            ]);
        }
        if authorities {
            ways.extend(self.behind.iter().map(|piece| Dots {
                then: Which::From(*piece),
                ..Dots::KEPT
            }));
        }
        ways
    }
}

/// Dot segments kept, or resolved in these ways, with empty segments counting for them or not.
pub(super) fn resolutions(ways: Vec<Dots>, empty: bool) -> impl Iterator<Item = (Dots, Slashes)> {
    let orders: &[Slashes] = if empty {
        &[Slashes::CollapsedLast, Slashes::CollapsedFirst]
    } else {
        &[Slashes::CollapsedLast]
    };
    let resolved = ways
        .into_iter()
        .flat_map(|way| orders.iter().map(move |order| (way, *order)));
    std::iter::once((Dots::KEPT, Slashes::CollapsedLast)).chain(resolved)
}
