//! The decision on one token that was found: the token stays, is issued anew, or is withheld.
//!
//! Keeps true: no token leaves that its verdict or its own end forbids; no token is dated by a clock that can't be
//! right.
//! Must not know: how tokens are found, which sources are asked.

use bytes::Bytes;

use super::noting::{Noting, grounds};
use super::{Decided, FoundToken, LOOKED_AHEAD, Parts, Rewriter, SHORTEST};
use crate::agora::reissue::{Fate, VerifiedToken};
use crate::reissue::run::Spelling;
use crate::terms::clock::is_plausible;

impl Rewriter {
    /// The decision on a token; [`Decided::Open`] where the sources must be asked first.
    pub(super) fn decide(&self, found: &FoundToken<VerifiedToken>) -> Decided {
        let (parts, ledger, token) = (&self.parts, &self.parts.ledger, &found.token);
        let now = ledger.clock.unix_seconds();
        if !is_plausible(now) {
            // Neither can the old token's end be compared, nor a new one dated.
            let decided = self.withheld(found);
            if !matches!(decided, Decided::Behind) {
                ledger.failed(token, found.at);
            }
            return decided;
        }
        let fate = token.fate(now, parts.lifetime);
        if fate == Fate::Stays && (token.has_ended(now) || !parts.judge.guards(token)) {
            ledger.short();
            return Decided::Stays;
        }
        let noting = Noting {
            token: token.clone(),
            is_short: fate == Fate::Stays,
            expires: match fate {
                Fate::Stays => token.expires_at(),
                Fate::Shortened { expires } => self.jittered(now, expires),
            },
            found: found.at,
        };
        let verdict = match parts.judge.verdict(token, &self.known) {
            Some(verdict) => verdict,
            None if self.observing() => {
                self.observe(noting);
                return Decided::Stays;
            }
            None => return Decided::Open,
        };
        let fresh = match noting.granted(&verdict) {
            Some(token) => self.issue(&token, found.spelling, now, noting.expires),
            None => None,
        };
        let decided = match fresh {
            Some(fresh) => Decided::Becomes(fresh),
            None if noting.stays(&verdict) => Decided::Stays,
            None => self.withheld(found),
        };
        if !matches!(decided, Decided::Behind) {
            let given = !matches!(decided, Decided::Withheld(_));
            let grounds = grounds(&parts.judge, &noting.token, &self.known);
            noting.note(ledger, &verdict, given.then_some(grounds));
        }
        decided
    }

    /// The replacement of a token that is withheld.
    fn withheld(&self, found: &FoundToken<VerifiedToken>) -> Decided {
        const EMPTY: Bytes = Bytes::from_static(b"\"\"");
        const NULL: Bytes = Bytes::from_static(b"null");
        if !found.spelling.is_string {
            return Decided::Withheld(Bytes::new());
        }
        if self.observing() || !self.parts.nulls {
            return Decided::Withheld(EMPTY);
        }
        match self.is_key() {
            Some(false) => Decided::Withheld(NULL),
            Some(true) => Decided::Withheld(EMPTY),
            None => Decided::Behind,
        }
    }

    /// Whether the string before the queue is the name of a member, or may be; `None` until enough bytes have come.
    fn is_key(&self) -> Option<bool> {
        let following = self.items.iter().flat_map(|item| item.written().iter());
        let mut looked = 0;
        for byte in following.take(LOOKED_AHEAD) {
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Some(*byte == b':');
            }
            looked += 1;
        }
        match (looked == LOOKED_AHEAD, self.ended) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }

    /// The end of a new token, moved forward by jitter where the lifetime causes it, so that users who join at once
    /// don't renew at once.
    fn jittered(&self, now: u64, expires: u64) -> u64 {
        let Parts {
            lifetime, jitter, ..
        } = self.parts;
        if jitter == 0 || expires < now + u64::from(lifetime) {
            return expires;
        }
        let chance = self.parts.ledger.entropy.u64().unwrap_or(0);
        let shortened = expires - chance % (u64::from(jitter) + 1);
        shortened.max(now + SHORTEST.min(u64::from(lifetime)))
    }

    /// The new token, written as the old one was; `None` where it can't be made.
    fn issue(
        &self,
        token: &VerifiedToken,
        spelling: Spelling,
        now: u64,
        expires: u64,
    ) -> Option<Bytes> {
        let salt = self.parts.ledger.entropy.salt().ok()?;
        let token = self
            .parts
            .project
            .reissue(token, now, expires, salt)
            .ok()??;
        Some(Bytes::from(spelling.write(&token)))
    }
}
