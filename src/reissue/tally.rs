//! The fates of one answer's tokens, for its one audit event: separate events for a list of fifty streams, requested by
//! every user every few seconds, would otherwise fill the trail.
//!
//! Keeps true: a tally is bounded, however many tokens an answer has.
//! Must not know: where it is written.

use std::fmt::Write as _;
use std::time::Duration;

use crate::telemetry::audit;
use crate::terms::outcome::Outcome;
use crate::terms::role::Role;
use crate::terms::user::User;

/// The most bytes of the list: a hundred tokens or so. The event says how many there were.
const LIST: usize = 8 * 1024;

/// How long tokens of an answer that doesn't end, such as an event stream, may wait for their event.
const PATIENCE: Duration = Duration::from_secs(10);

/// The fate of one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenFate {
    /// The channel, if the token opens one.
    pub channel: Option<Box<str>>,
    /// The user that it is for.
    pub user: User,
    /// The role that it gives.
    pub role: Role,
    /// Whether it was given, or why not.
    pub outcome: Outcome,
    /// When the new one ends, Unix seconds.
    pub expires: Option<u64>,
}

/// The tokens of an answer so far.
#[derive(Debug)]
pub(crate) struct TokenTally {
    count: u32,
    /// The values that all tokens have in common; `None` where they differ.
    channel: Option<Box<str>>,
    user: Option<User>,
    role: Option<Role>,
    outcome: Option<Outcome>,
    /// The latest end.
    expires: Option<u64>,
    list: String,
    /// When the first was found, on the clock's monotonic scale.
    began: Duration,
}

impl TokenTally {
    /// A tally of the first token.
    pub(crate) fn new(first: TokenFate, now: Duration) -> Self {
        let mut list = String::new();
        add(&mut list, &first);
        Self {
            count: 1,
            channel: first.channel,
            user: Some(first.user),
            role: Some(first.role),
            outcome: Some(first.outcome),
            expires: first.expires,
            list,
            began: now,
        }
    }

    /// Whether the first token has waited long enough for its event.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        now.saturating_sub(self.began) >= PATIENCE
    }

    /// Adds a token.
    pub(crate) fn add(&mut self, entry: &TokenFate) {
        self.channel
            .take_if(|channel| Some(&**channel) != entry.channel.as_deref());
        self.user.take_if(|user| *user != entry.user);
        self.role.take_if(|role| *role != entry.role);
        self.outcome.take_if(|outcome| *outcome != entry.outcome);
        self.expires = self.expires.max(entry.expires);
        self.count = self.count.saturating_add(1);
        add(&mut self.list, entry);
    }

    /// The event for the audit trail.
    pub(crate) fn told(&self) -> audit::Tokens<'_> {
        audit::Tokens {
            count: self.count,
            outcome: self.outcome,
            channel: self.channel.as_deref(),
            user: self.user.as_ref().map(User::borrowed),
            role: self.role,
            expires: self.expires,
            list: if self.count == 1 { "" } else { &self.list },
        }
    }
}

/// Adds `channel user role outcome` to the list, after `; ` where it isn't the first.
fn add(list: &mut String, entry: &TokenFate) {
    const MORE: &str = "; …";
    if list.ends_with(MORE) {
        return;
    }
    let before = list.len();
    if before > 0 {
        list.push_str("; ");
    }
    let channel = entry.channel.as_deref().unwrap_or("-");
    let _ = match &entry.user {
        User::Uid(uid) => write!(list, "{channel} {uid}"),
        User::Account(account) => write!(list, "{channel} {account}"),
    };
    let _ = write!(list, " {} {}", entry.role.as_str(), entry.outcome.as_str());
    if list.len() > LIST {
        list.truncate(before);
        list.push_str(MORE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(channel: &str, uid: u32, outcome: Outcome, expires: Option<u64>) -> TokenFate {
        TokenFate {
            channel: Some(channel.into()),
            user: User::Uid(uid),
            role: Role::Subscriber,
            outcome,
            expires,
        }
    }

    #[test]
    fn what_all_have_in_common_is_said_once_and_the_rest_in_a_list() {
        let mut tally = TokenTally::new(entry("a", 7, Outcome::Ok, Some(5)), Duration::ZERO);
        assert_eq!(tally.told().list, "");
        assert_eq!(tally.told().channel, Some("a"));
        tally.add(&entry("b", 7, Outcome::ViewerBanned, None));
        tally.add(&entry("a", 7, Outcome::Ok, Some(9)));
        let told = tally.told();
        assert_eq!((told.count, told.expires), (3, Some(9)));
        assert_eq!((told.channel, told.outcome), (None, None));
        assert_eq!(told.user, Some(User::Uid(7)));
        assert_eq!(told.role, Some(Role::Subscriber));
        assert_eq!(
            told.list,
            "a 7 subscriber ok; b 7 subscriber viewer_banned; a 7 subscriber ok"
        );
    }

    #[test]
    fn a_long_list_is_cut_and_still_counted() {
        let mut tally = TokenTally::new(entry("a", 7, Outcome::Ok, None), Duration::ZERO);
        for uid in 0..10_000 {
            tally.add(&entry("a", uid, Outcome::Ok, None));
        }
        let told = tally.told();
        assert_eq!(told.count, 10_001);
        assert!(told.list.len() <= LIST + 8 && told.list.ends_with("; …"));
    }
}
