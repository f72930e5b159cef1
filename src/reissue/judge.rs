//! May the caller have this token? What must be true before a token is issued anew.
//!
//! Keeps true: a source that gives no answer is never a yes; one that gave none is not waited for again in the same answer.
//! Must not know: bytes, how a refusal looks.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::access::accounts::{Account, Accounts};
use crate::access::streams::{Looked, Lookup, Stream, Streams};
use crate::agora::reissue::Token;
use crate::clock::Clock;
use crate::role::Role;
use crate::telemetry::labels::Outcome;
use crate::telemetry::traffic_labels::LookupOutcome;

/// Channels remembered of one answer; beyond, all are asked for again.
const MOST_CHANNELS: usize = 1024;

/// Who asks, and whom to ask about them.
#[derive(Debug)]
pub struct Judge {
    /// `[accounts]`.
    pub accounts: Arc<Accounts>,
    /// `[streams]`.
    pub streams: Arc<Streams>,
    /// How long a source took.
    pub clock: Clock,
    /// The caller, where the request carries a verifying JWT.
    pub caller: Option<Caller>,
    /// Whether the rule wants one.
    pub require_auth: bool,
    /// How long each source may take.
    pub patience: Duration,
    /// When the request came, on the clock's monotonic scale: nobody is refused on an answer from before.
    pub since: Duration,
}

/// Whom a JWT names.
#[derive(Debug)]
pub struct Caller {
    /// Its subject.
    pub subject: Box<str>,
    /// The JWT itself, for a source that is asked with it.
    pub credentials: Box<str>,
}

/// The answer to "may they?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Granted {
        /// Whose session a publisher's token is; `None` where nobody knows.
        holder: Option<Box<str>>,
    },
    /// No.
    Refused(Outcome),
    /// A source gives no answer.
    Unanswered,
}

/// What the sources said, so far, in one answer.
#[derive(Debug, Default)]
pub struct Known {
    account: Option<Standing>,
    channels: HashMap<Box<str>, Seen>,
    /// The streams source gave no answer.
    failed: bool,
}

/// What the source says of the caller's account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Good,
    Denied(Outcome),
    NoAnswer,
}

/// What the source says of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Answer {
        bans_caller: bool,
        owner: Option<Box<str>>,
    },
    NoAnswer,
}

enum Answer {
    Account(Standing),
    Stream(Box<str>, Seen),
}

/// Questions under way.
pub type Asking = Pin<Box<dyn Future<Output = Answers>>>;

/// What came of questions.
pub struct Answers(Vec<Answer>);

// === impl Judge ===

impl Judge {
    /// The verdict; `None` where the sources must be asked first. What a caller is held to, in order: a name where the
    /// rule wants one, their account's standing, the stream's ban.
    pub fn verdict(&self, token: &Token, known: &Known) -> Option<Verdict> {
        let Some(Caller { subject, .. }) = &self.caller else {
            return self.of_a_stranger(token, known);
        };
        if self.accounts.lookups().is_some() {
            match known.account? {
                Standing::Good => {}
                Standing::Denied(outcome) => return Some(Verdict::Refused(outcome)),
                Standing::NoAnswer => return Some(Verdict::Unanswered),
            }
        }
        let holder = Some(subject.clone());
        let Some(channel) = self.question(token) else {
            return Some(Verdict::Granted { holder });
        };
        Some(match known.seen(&channel)? {
            Seen::NoAnswer => Verdict::Unanswered,
            Seen::Answer {
                bans_caller: true, ..
            } => Verdict::Refused(Outcome::ViewerBanned),
            Seen::Answer { .. } => Verdict::Granted { holder },
        })
    }

    /// Who asks, if that is known.
    pub fn subject(&self) -> Option<&str> {
        self.caller.as_ref().map(|caller| &*caller.subject)
    }

    fn of_a_stranger(&self, token: &Token, known: &Known) -> Option<Verdict> {
        if self.require_auth {
            return Some(Verdict::Refused(Outcome::Unauthenticated));
        }
        let holder = match self.question(token) {
            None => None,
            Some(channel) => match known.seen(&channel)? {
                Seen::Answer { owner, .. } => owner,
                // Nothing was to be decided by it.
                Seen::NoAnswer => None,
            },
        };
        Some(Verdict::Granted { holder })
    }

    /// The channel that must be known of: for bans, where somebody asks who has a name; for its owner, where a
    /// publisher's token is for nobody else.
    pub fn question(&self, token: &Token) -> Option<Box<str>> {
        let asked = self.caller.is_some() || token.role() == Role::Publisher;
        let channel = token.channel().filter(|_| asked)?;
        Some(String::from_utf8_lossy(channel).into())
    }

    /// Asks about these channels, all at once, and about the caller's account unless it is known.
    pub fn ask(self: &Arc<Self>, channels: Vec<Box<str>>, known: &Known) -> Asking {
        let mut questions: Vec<Pin<Box<dyn Future<Output = Answer>>>> = Vec::new();
        if known.account.is_none() && self.caller.is_some() {
            let judge = Arc::clone(self);
            questions.push(Box::pin(
                async move { Answer::Account(judge.standing().await) },
            ));
        }
        for channel in channels {
            let judge = Arc::clone(self);
            questions.push(Box::pin(async move {
                let seen = judge.look(&channel).await;
                Answer::Stream(channel, seen)
            }));
        }
        Box::pin(async move { Answers(all(questions).await) })
    }

    /// What the accounts source denies; an account that is unknown, or signed in elsewhere, is the token endpoints' affair.
    async fn standing(&self) -> Standing {
        let Some(caller) = &self.caller else {
            return Standing::Good;
        };
        let mut since = None;
        loop {
            let began = self.clock.elapsed();
            let looked =
                self.accounts
                    .look(&caller.subject, &caller.credentials, since, self.patience);
            let Some(looked) = looked.await else {
                return Standing::Good;
            };
            if let Some(metrics) = self.accounts.metrics() {
                let outcome = looked.as_ref().map(|answer| answer.outcome);
                let elapsed = self.clock.elapsed().saturating_sub(began);
                metrics.lookup(outcome.unwrap_or(LookupOutcome::Error), elapsed);
            }
            let Ok(answer) = looked else {
                return Standing::NoAnswer;
            };
            let Account::Denied(denial) = &*answer.value else {
                return Standing::Good;
            };
            if since.is_some() || answer.asked_at >= self.since {
                return Standing::Denied(denial.outcome);
            }
            since = Some(self.since);
        }
    }

    async fn look(&self, channel: &str) -> Seen {
        let looked = self.look_once(channel, None).await;
        let looked = match &looked.lookup {
            Lookup::Found(stream) if self.is_banned(stream) && looked.may_predate(self.since) => {
                self.look_once(channel, Some(self.since)).await
            }
            _ => looked,
        };
        match looked.lookup {
            Lookup::Found(stream) => Seen::Answer {
                bans_caller: self.is_banned(&stream),
                owner: stream.owner.clone(),
            },
            // Nobody is banned from a stream that isn't there.
            Lookup::NotFound => Seen::Answer {
                bans_caller: false,
                owner: None,
            },
            Lookup::NoAnswer { .. } => Seen::NoAnswer,
        }
    }

    async fn look_once(&self, channel: &str, since: Option<Duration>) -> Looked {
        let began = self.clock.elapsed();
        let looked = self.streams.look(channel, since, self.patience).await;
        let elapsed = self.clock.elapsed().saturating_sub(began);
        self.streams.metrics().lookup(looked.outcome, elapsed);
        looked
    }

    fn is_banned(&self, stream: &Stream) -> bool {
        let mut caller = self.caller.iter();
        caller.any(|caller| stream.bans(&caller.subject))
    }
}

/// Polls them all until the last is done.
async fn all<T>(mut futures: Vec<Pin<Box<dyn Future<Output = T>>>>) -> Vec<T> {
    let mut results: Vec<T> = Vec::with_capacity(futures.len());
    poll_fn(|context| {
        futures.retain_mut(|future| match future.as_mut().poll(context) {
            Poll::Ready(result) => {
                results.push(result);
                false
            }
            Poll::Pending => true,
        });
        if futures.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    results
}

// === impl Known ===

impl Known {
    /// More is known.
    pub fn learn(&mut self, Answers(answers): Answers) {
        if self.channels.len() + answers.len() > MOST_CHANNELS {
            self.channels.clear();
        }
        for answer in answers {
            match answer {
                Answer::Account(standing) => self.account = Some(standing),
                Answer::Stream(channel, seen) => {
                    self.failed |= seen == Seen::NoAnswer;
                    self.channels.insert(channel, seen);
                }
            }
        }
    }

    /// Whether a channel is still to be asked about.
    pub fn lacks(&self, channel: &str) -> bool {
        self.seen(channel).is_none()
    }

    fn seen(&self, channel: &str) -> Option<Seen> {
        match self.channels.get(channel) {
            None if self.failed => Some(Seen::NoAnswer),
            seen => seen.cloned(),
        }
    }
}
