//! The claims of publishers' tokens that are handed on, in the store that replicas share.
//!
//! Keeps true: no answer waits for the store, whose answer decides nothing of it: a publisher takes a user from whoever
//! has it, and `policy.max_streams_per_publisher` withholds no token that the backend gives. Whoever asked another
//! replica in the moment until the claim is made is in the place of somebody who asked before.
//! Must not know: how claims are kept, which tokens are given.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::sessions::{Rules, SeatRequest, Sessions};
use crate::store::{ClaimAnswer, Store};

/// Makes claims.
#[derive(Clone, Debug)]
pub(crate) struct SharedClaims {
    /// Where claims are kept.
    pub store: Arc<Store>,
    /// The control plane, where answers are awaited.
    pub control: Handle,
    /// The sessions of the tokens.
    pub sessions: Arc<Sessions>,
}

impl SharedClaims {
    /// Makes the claims of a token that was recorded here and lasts this long. A stream beyond the limit counts no
    /// more: it must not cost the publisher those that were claimed before.
    pub(crate) fn make(&self, claim: SeatRequest<'_>, rules: Rules, lasts: Duration) {
        let (store, sessions) = (Arc::clone(&self.store), Arc::clone(&self.sessions));
        let (channel, subject) = (claim.channel.to_owned(), claim.subject.to_owned());
        let (user, role) = (claim.user.clone(), claim.role);
        self.control.spawn(async move {
            let claim = SeatRequest {
                channel: &channel,
                subject: &subject,
                user: &user,
                role,
            };
            let made = store.claim(claim, rules, lasts, &[]).await;
            if let Ok(ClaimAnswer::TooManyChannels(_)) = made {
                sessions.ended(&subject, &channel);
            }
        });
    }
}
