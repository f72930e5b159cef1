//! Who holds a user of a channel now.
//!
//! Must not know: what is done to a holder.

use super::{Session, SessionUser, Sessions, seconds};

/// Holders that are named at most.
const MOST_NAMED: usize = 16;

impl Sessions {
    /// The subject to whom this user of the channel is bound by a live token.
    pub(crate) fn bound_holder(
        &self,
        channel: &str,
        user: &SessionUser,
        now: u64,
    ) -> Option<String> {
        let (now, key) = (seconds(now), self.user(channel, user)?);
        let bound = self.bound.lock(key);
        let holder = bound.of(key).next().copied()?;
        let shard = self.table.lock(holder);
        let mut held = shard.of(holder).filter(|held| held.channel.is(channel));
        let holds = |session: &Session| session.user == *user && session.is_live(now);
        let found = held.find(|held| held.sessions.iter().any(holds))?;
        Some(found.subject.text())
    }

    /// The subjects that hold a live token for this user of the channel, bound to it or not. Looks at every session,
    /// one shard at a time.
    pub(crate) fn holders(&self, channel: &str, user: &SessionUser, now: u64) -> Vec<String> {
        let now = seconds(now);
        let holds = |session: &Session| session.user == *user && session.is_live(now);
        let mut holders = Vec::new();
        for shard in self.table.iter() {
            for held in shard.values().filter(|held| held.channel.is(channel)) {
                if held.sessions.iter().any(holds) && holders.len() < MOST_NAMED {
                    holders.push(held.subject.text());
                }
            }
        }
        holders
    }
}
