//! What a token that is handed on is given on, and who said yes to it.
//!
//! Must not know: what is asked, or when.

use super::{AccountStanding, Judge, Seen, SourceFindings};
use crate::agora::reissue::VerifiedToken;
use crate::sessions::{Basis, Ground, Grounds};

impl Judge {
    /// What a session is opened on by a token that is handed on. Nothing rests on accounts for a login that they know
    /// nothing of, or another one instead of; nor is that the holder's latest. While accounts are silent, it is that only
    /// where the holder has none.
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

    /// The sources that said yes to the caller's having this token.
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
