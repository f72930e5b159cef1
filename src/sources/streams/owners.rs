//! Whether a source has ever named the owner of a stream: with a mistyped name, no publisher would be an owner.
//!
//! Keeps true: until an owner was seen under the present configuration, a stream without one refuses no publisher;
//! that one was seen is remembered over restarts.
//! Must not know: how an answer is read.

use super::StreamState;
use crate::sources::proven::Proof;
use crate::terms::clock::Clock;

/// Whether one source has named owners.
#[derive(Debug)]
pub(crate) struct Owners {
    /// The configuration key that names the owner, and the place where it looks, for the log.
    key: &'static str,
    place: String,
    named: Proof,
    clock: Clock,
}

impl Owners {
    /// Owners that `key` looks for at `place`; `named` is the proof that one was found.
    pub(crate) fn new(key: &'static str, place: String, named: Proof, clock: Clock) -> Self {
        Self {
            key,
            place,
            named,
            clock,
        }
    }

    /// Takes note of a stream, and marks it where its owner may have been looked for in the wrong place.
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

    /// Why publishers wait, where they do.
    pub(crate) fn doubt(&self) -> Option<String> {
        self.named.is_missed().then(|| self.says())
    }

    fn says(&self) -> String {
        format!(
            "no stream has ever had an owner at {}: {} may be wrong, so no publisher is refused for it and no new \
             publisher is let in",
            self.place, self.key
        )
    }
}
