//! Whether a source has ever said whose a stream is: a name mistyped would else make every publisher a stranger.
//!
//! Keeps true: until an owner was seen under the present configuration, a stream without one is nobody's by no fault of its
//! own, and refuses no publisher; what was seen is remembered over restarts.
//! Must not know: how an answer is read.

use super::StreamState;
use crate::sources::proven::Proof;
use crate::terms::clock::Clock;

/// What is known of one source's owners.
#[derive(Debug)]
pub(crate) struct Owners {
    /// The key that names the owner, and where it looks, for the log.
    key: &'static str,
    place: String,
    named: Proof,
    clock: Clock,
}

impl Owners {
    /// Owners that `key` looks for at `place`; `named` is what an answer shows that has one.
    pub(crate) fn new(key: &'static str, place: String, named: Proof, clock: Clock) -> Self {
        Self {
            key,
            place,
            named,
            clock,
        }
    }

    /// A stream was read: marks one whose owner may only be looked for in the wrong place.
    pub(crate) fn see(&self, stream: &mut StreamState) {
        if stream.owner.is_some() {
            self.named.give();
        } else if !self.named.holds() {
            let (since, first) = self.named.missed(self.clock.elapsed());
            stream.owner_unknown_since = Some(since);
            if first {
                tracing::error!(source = "streams", field = self.place, "{}", self.says());
            }
        }
    }

    /// What keeps publishers waiting, where something does.
    pub(crate) fn doubt(&self) -> Option<String> {
        self.named.is_missed().then(|| self.says())
    }

    fn says(&self) -> String {
        format!(
            "no stream has ever had an owner at {}: {} may be another than the backend's, so no publisher is refused for it \
             and none new is let in",
            self.place, self.key
        )
    }
}
