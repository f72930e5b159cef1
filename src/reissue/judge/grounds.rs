//! The basis of the session that a handed-on token opens, and the sources that said yes to the token.
//!
//! Must not know: what is asked, or when.

use super::{AccountStanding, Judge, Seen, SourceFindings};
use crate::agora::reissue::VerifiedToken;
use crate::sessions::{Basis, Ground, Grounds};

impl Judge {
    /// The basis of the session that a handed-on token opens. The session doesn't rest on accounts, and isn't the
    /// holder's latest, where accounts don't know the caller or have another login of theirs; while accounts are
    /// silent, it is the latest only where the holder has none.
    pub(crate) fn basis(&self, known: &SourceFindings) -> Basis {
        let asked = self.accounts.lookups().is_some();
        let (vouched, caller) = match (&self.caller, known.account) {
            (None, _) | (Some(_), Some(AccountStanding::Elsewhere)) => (!asked, None),
            (Some(caller), _) => (true, Some(caller)),
        };
        Basis::HandedOn {
            login: caller.and_then(|caller| self.logins.session(&caller.claims)),
            vouched: !asked || known.account == Some(AccountStanding::Good),
            lacks: if vouched {
                Grounds::NONE
            } else {
                Grounds::of(Ground::Account)
            },
        }
    }

    /// The sources that said yes to this token for the caller.
    pub(crate) fn yes(&self, token: &VerifiedToken, known: &SourceFindings) -> Grounds {
        let account = match self.account(known) {
            Some(AccountStanding::Good) => Grounds::of(Ground::Account),
            _ => Grounds::NONE,
        };
        let seen = self
            .channel_to_look_up(token)
            .and_then(|question| known.seen(&question));
        match seen {
            Some(Seen::Answer { open: true, .. }) => account.and(Grounds::of(Ground::Stream)),
            _ => account,
        }
    }
}
