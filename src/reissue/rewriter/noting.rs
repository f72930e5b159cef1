//! The record of a token once there is a verdict, and the verdicts of an observed answer.
//!
//! Keeps true: an observed answer waits for no source; the number of questions asked for it at once is bounded.
//! Must not know: bytes, how tokens are found.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::{MOST_OBSERVED, Rewriter};
use crate::agora::reissue::VerifiedToken;
use crate::reissue::judge::{Judge, SourceFindings, TokenVerdict};
use crate::reissue::ledger::{Reissued, TokenLedger};
use crate::sessions::{Basis, Grounds};

impl Rewriter {
    /// Counts a token as soon as the sources have answered; the answer doesn't wait.
    pub(super) fn observe(&self, noting: Noting) {
        let (judge, ledger) = (&self.parts.judge, &self.parts.ledger);
        let busy = Arc::strong_count(&self.observed) > MOST_OBSERVED;
        if busy {
            let granted = TokenVerdict::Granted {
                holder: None,
                demoted: false,
            };
            let grounds = grounds(judge, &noting.token, &self.known);
            noting.note(ledger, &granted, Some(grounds));
            return;
        }
        let question = judge.channel_to_look_up(&noting.token);
        let (judge, ledger) = (Arc::clone(judge), Arc::clone(ledger));
        let under_way = Arc::clone(&self.observed);
        tokio::task::spawn_local(async move {
            let mut known = SourceFindings::default();
            let asking = judge.ask(question.into_iter().collect(), &known);
            known.learn(asking.await);
            let verdict = judge.verdict(&noting.token, &known);
            let verdict = verdict.unwrap_or(TokenVerdict::Unanswered);
            let grounds = grounds(&judge, &noting.token, &known);
            noting.note(&ledger, &verdict, Some(grounds));
            drop(under_way);
        });
    }
}

/// The basis of the session that a handed-on token opens, and the sources that said yes.
pub(super) fn grounds(
    judge: &Judge,
    token: &VerifiedToken,
    known: &SourceFindings,
) -> (Basis, Grounds) {
    (judge.basis(known), judge.yes(token, known))
}

/// A token that is to be recorded once there is a verdict.
pub(super) struct Noting {
    pub(super) token: VerifiedToken,
    /// Whether the token may stay as it is where all of it is granted.
    pub(super) is_short: bool,
    /// When the new token ends, in Unix seconds.
    pub(super) expires: u64,
    /// When the token was found, on the clock's monotonic scale.
    pub(super) found: Duration,
}

impl Noting {
    /// The token to issue anew, if any.
    pub(super) fn granted(&self, verdict: &TokenVerdict) -> Option<Cow<'_, VerifiedToken>> {
        match verdict {
            TokenVerdict::Granted { demoted: true, .. } => {
                Some(Cow::Owned(self.token.as_subscriber()))
            }
            TokenVerdict::Granted { .. } if !self.is_short => Some(Cow::Borrowed(&self.token)),
            TokenVerdict::Granted { .. } | TokenVerdict::Refused(_) | TokenVerdict::Unanswered => {
                None
            }
        }
    }

    pub(super) fn stays(&self, verdict: &TokenVerdict) -> bool {
        self.is_short && matches!(verdict, TokenVerdict::Granted { demoted: false, .. })
    }

    /// Records the verdict. `made_on` is `None` where the new token could not be made.
    pub(super) fn note(
        &self,
        ledger: &TokenLedger,
        verdict: &TokenVerdict,
        made_on: Option<(Basis, Grounds)>,
    ) {
        match verdict {
            TokenVerdict::Granted { .. } if self.stays(verdict) => ledger.short(),
            TokenVerdict::Granted { holder, .. } if made_on.is_some() => {
                if let (Some(token), Some((basis, yes))) = (self.granted(verdict), made_on) {
                    ledger.replaced(Reissued {
                        token: &token,
                        holder: holder.as_deref(),
                        basis,
                        yes,
                        expires: self.expires,
                        found: self.found,
                    });
                }
            }
            TokenVerdict::Refused(outcome) => ledger.withheld(&self.token, self.found, *outcome),
            TokenVerdict::Granted { .. } | TokenVerdict::Unanswered => {
                ledger.failed(&self.token, self.found);
            }
        }
    }
}
