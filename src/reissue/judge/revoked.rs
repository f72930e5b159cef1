//! The operators' revocations, asked about a token in an answer.
//!
//! Must not know: the answers of the sources.

use super::Judge;
use crate::agora::reissue::VerifiedToken;
use crate::revocation::RevocationQuestion;
use crate::terms::role::Role;

impl Judge {
    /// Whether a token must be judged even if it is short already.
    pub(crate) fn guards(&self, token: &VerifiedToken) -> bool {
        token.role() == Role::Publisher
            || token.is_for_the_whole_app()
            || self.denies_all
            || self.is_revoked(token)
    }

    /// Whether an operator has revoked the caller, the token's channel or its user there.
    pub(super) fn is_revoked(&self, token: &VerifiedToken) -> bool {
        if self.revocations.is_empty() {
            return false;
        }
        let channel = token.channel().map(String::from_utf8_lossy);
        let user = token.named_user();
        let question = RevocationQuestion {
            subject: self.subject(),
            channel: channel.as_deref(),
            user: Some(user.borrowed()),
        };
        let now = self.clock.unix_seconds();
        self.revocations.find(question, now).is_some()
    }
}
