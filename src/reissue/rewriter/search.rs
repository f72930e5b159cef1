//! The tokens in one run of base64 characters: each ends by its own structure, and the text around it stays.
//!
//! Keeps true: a token that more base64 follows stays, and counts as one that can't be replaced; every place where a
//! token may begin is tried, until [`MOST_ALIKE`] were found that can't be replaced; each try costs one of the turn's,
//! and time in proportion to what is tried, not to the run.
//! Must not know: who may have a token.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::{FoundToken, QueuedItem, Rewriter};
use crate::agora::parse::is_data;
use crate::agora::reissue::Recognised;
use crate::reissue::run::{Spelling, beginning};
use crate::reissue::scan::{ScannedPiece, Scanner, Suspect};

/// The most strings in one run that look like a token of this project and are none: a hostile body may consist of
/// them, and each may cost the inflating of 64 KiB.
const MOST_ALIKE: u8 = 32;

/// A run, or the rest of one.
pub(super) struct Search {
    suspect: Suspect,
    /// The first character at which a token is still to be looked for.
    from: usize,
    /// Whether the suspect is as it was found, with its own spelling: nothing before it was cut off.
    is_whole: bool,
    alike: u8,
}

impl Search {
    /// A search of a whole run.
    pub(super) fn new(suspect: Suspect) -> Self {
        Self::after(0, suspect)
    }

    fn after(alike: u8, suspect: Suspect) -> Self {
        Self {
            suspect,
            from: 0,
            is_whole: true,
            alike,
        }
    }

    /// As it came.
    pub(super) fn written(&self) -> &Bytes {
        &self.suspect.written
    }

    /// Cuts the run after these characters: the text before them, their bytes and spelling, and the rest to be
    /// searched.
    fn cut(self, part: Range<usize>) -> (Bytes, (Bytes, Spelling), Option<Self>) {
        let Suspect {
            written,
            token,
            spelling,
        } = self.suspect;
        if self.is_whole && part == (0..token.len()) {
            return (Bytes::new(), (written, spelling), None);
        }
        let says = token.get(part.clone()).unwrap_or_default();
        let (place, spelling) = Spelling::of_part(&written, part.clone(), says);
        let rest = Self {
            suspect: Suspect {
                written: written.slice(place.end..),
                token: token.get(part.end..).unwrap_or_default().to_owned(),
                spelling,
            },
            from: 0,
            is_whole: false,
            alike: self.alike,
        };
        let before = written.slice(..place.start);
        (before, (written.slice(place), spelling), Some(rest))
    }
}

/// Whether more base64 follows the first `length` characters.
fn is_followed(text: &str, length: usize) -> bool {
    text.as_bytes().get(length).copied().is_some_and(is_data)
}

impl Rewriter {
    /// Replaces a search in the queue by its first token and a search of the rest. Returns the search where its next
    /// step must wait for another turn.
    pub(super) fn search(&mut self, mut search: Search, turn: &mut usize) -> Result<(), Search> {
        while let Some(at) = beginning(search.suspect.token.as_bytes(), search.from) {
            if *turn == 0 {
                return Err(search);
            }
            *turn -= 1;
            let text = search.suspect.token.get(at..).unwrap_or_default();
            match self.parts.project.recognise(text) {
                (Recognised::Foreign, _) => {}
                (Recognised::Alike, _) => {
                    self.stays(
                        &mut search,
                        "it has this project's App ID, and no configured certificate signed it, or it isn't whole",
                    );
                }
                (_, length) if is_followed(text, length) => {
                    self.stays(
                        &mut search,
                        "a character of base64 follows it, so that its end is not certain",
                    );
                }
                (token, length) => {
                    self.put(search, at..at + length, token);
                    return Ok(());
                }
            }
            if search.alike >= MOST_ALIKE {
                break;
            }
            search.from = at + 1;
        }
        self.items
            .push_front(QueuedItem::Text(search.suspect.written));
        Ok(())
    }

    /// Counts a text that looks like a token of this project and can't be replaced.
    fn stays(&self, search: &mut Search, why: &'static str) {
        self.parts.ledger.unreadable(why);
        search.alike += 1;
    }

    /// Replaces these characters by the token that they spell, and keeps the text around it.
    fn put(&mut self, search: Search, part: Range<usize>, token: Recognised) {
        let alike = search.alike;
        let (before, written, rest) = search.cut(part);
        if let Some(rest) = rest {
            self.items.push_front(QueuedItem::Search(rest));
        }
        let item = self.item(written, token, alike);
        self.items.push_front(item);
        if !before.is_empty() {
            self.items.push_front(QueuedItem::Text(before));
        }
    }

    fn item(
        &self,
        (written, spelling): (Bytes, Spelling),
        token: Recognised,
        alike: u8,
    ) -> QueuedItem {
        let at = self.parts.ledger.clock.elapsed();
        match token {
            Recognised::Ours(token) => QueuedItem::Token(FoundToken {
                written,
                spelling,
                token,
                at,
            }),
            Recognised::Nameless(token) => {
                let found = FoundToken {
                    written,
                    spelling,
                    token,
                    at,
                };
                QueuedItem::Nameless(found, alike)
            }
            Recognised::Alike | Recognised::Foreign => QueuedItem::Text(written),
        }
    }

    /// Reads a run before its turn, if all of it is a token.
    pub(super) fn look_ahead(&mut self, at: usize, turn: &mut usize) {
        let Some(QueuedItem::Search(search)) = self.items.get(at) else {
            return;
        };
        if *turn == 0 || !search.is_whole || search.from > 0 {
            return;
        }
        *turn -= 1;
        let suspect = &search.suspect;
        let (token, length) = self.parts.project.recognise(&suspect.token);
        // Other runs are left to their own turn.
        if length == suspect.token.len() && token != Recognised::Alike {
            let written = (suspect.written.clone(), suspect.spelling);
            let read = self.item(written, token, search.alike);
            if let Some(item) = self.items.get_mut(at) {
                *item = read;
            }
        }
    }

    /// Searches inside a text that has a token's structure and isn't one as a whole.
    pub(super) fn look_inside(&mut self, written: Bytes, spelling: Spelling, alike: u8) {
        if alike >= MOST_ALIKE {
            self.items.push_front(QueuedItem::Text(written));
            return;
        }
        let beginning = 1 + usize::from(spelling.is_string);
        let (mut scanner, mut pieces) = (Scanner::default(), VecDeque::new());
        scanner.feed(&written.slice(beginning..), &mut pieces);
        scanner.finish(&mut pieces);
        pieces.push_front(ScannedPiece::Text(written.slice(..beginning)));
        for piece in pieces.into_iter().rev() {
            self.items.push_front(match piece {
                ScannedPiece::Text(text) => QueuedItem::Text(text),
                ScannedPiece::Suspect(suspect) => {
                    QueuedItem::Search(Search::after(alike + 1, suspect))
                }
            });
        }
    }
}
