//! The look at a channel's stream.
//!
//! Keeps true: no caller is refused on an answer from before the request.
//! Must not know: verdicts.

use std::time::Duration;

use super::{AccountStanding, Answers, ChannelQuestion, Judge, Seen, SourceFindings};
use crate::sources::accounts::ConfiguredAccounts;
use crate::sources::streams::{StreamLookup, StreamState};
use crate::terms::role::Role;

impl Judge {
    /// The answers of the sources, asked one after the other. An account that is asked about with a login of its own
    /// counts as good: there is none here.
    pub(crate) async fn find(&self, question: Option<ChannelQuestion>) -> SourceFindings {
        let by_login = matches!(&*self.accounts, ConfiguredAccounts::ByCredentials(_));
        let account = match &self.caller {
            Some(_) if by_login => Some(AccountStanding::Good),
            Some(_) => Some(self.standing().await),
            None => None,
        };
        let mut streams = Vec::new();
        if let Some(question) = question {
            let seen = self.look(&question).await;
            streams.push((question, seen));
        }
        let mut known = SourceFindings::default();
        known.learn(Answers { account, streams });
        known
    }

    pub(super) async fn look(&self, question: &ChannelQuestion) -> Seen {
        let channel = &*question.channel;
        let looked = self.look_once(channel, None).await;
        let looked = if self.may_be_unfair(question, &looked) {
            self.look_once(channel, Some(self.since)).await
        } else {
            looked
        };
        let is_named_like_one = || {
            let pattern = self.channel_pattern.as_ref();
            pattern.is_some_and(|pattern| pattern.matches(channel))
        };
        let publisher = question.role == Role::Publisher;
        match looked.lookup {
            // Where the source may look for owners in the wrong place, a stream that isn't the caller's is no answer.
            Ok(Some(stream)) if publisher && self.doubts(&stream) => Seen::NoAnswer,
            Ok(Some(stream)) => Seen::Answer {
                exists: true,
                bans_caller: self.is_banned(&stream),
                open: stream.is_open(),
                publishes: self.may_publish(&stream) && (stream.is_open() || !self.is_for_socket()),
            },
            // A stream that doesn't exist bans no caller.
            Ok(None) => Seen::Answer {
                exists: is_named_like_one(),
                bans_caller: false,
                open: false,
                publishes: !is_named_like_one(),
            },
            Err(_) => Seen::NoAnswer,
        }
    }

    /// Whether an answer from before the request must not decide it: since then a ban may have been lifted, a co-host
    /// added, or the token's stream begun.
    fn may_be_unfair(&self, question: &ChannelQuestion, looked: &StreamLookup) -> bool {
        if !looked.may_predate(self.since) {
            return false;
        }
        let publisher = question.role == Role::Publisher;
        match &looked.lookup {
            Ok(Some(stream)) => {
                let missed = publisher && self.caller.is_some() && !self.may_publish(stream);
                missed || self.is_banned(stream)
            }
            Ok(None) => publisher,
            Err(_) => false,
        }
    }

    async fn look_once(&self, channel: &str, since: Option<Duration>) -> StreamLookup {
        let began = self.clock.elapsed();
        let looked = self.streams.look(channel, since, self.patience).await;
        let elapsed = self.clock.elapsed().saturating_sub(began);
        self.streams.metrics().lookup(looked.outcome, elapsed);
        looked
    }

    fn may_publish(&self, stream: &StreamState) -> bool {
        self.subject()
            .is_some_and(|subject| stream.may_publish(subject))
    }

    fn doubts(&self, stream: &StreamState) -> bool {
        let doubted = self.subject().and_then(|subject| stream.doubts(subject));
        stream.is_open() && !self.is_banned(stream) && doubted.is_some()
    }

    fn is_banned(&self, stream: &StreamState) -> bool {
        let mut caller = self.caller.iter();
        caller.any(|caller| stream.bans(&caller.claims.subject))
    }
}
