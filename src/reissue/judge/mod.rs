//! Whether the caller may have a token that the backend minted.
//!
//! Keeps true: while a source gives no answer, a publisher's token is given only to callers that the rule trusts, and
//! no token to callers that a source has refused; a source that gave no answer isn't waited for again in the same
//! answer.
//! Must not know: bytes, how a refusal looks.

mod grounds;
mod join;
mod looking;
mod revoked;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::agora::reissue::VerifiedToken;
use crate::config::model::{ChannelPattern, PublisherForOthers, UnknownChannel};
use crate::logins::jwt::JwtClaims;
use crate::logins::remembered::Logins;
use crate::reissue::applying_rule::ReissueTerms;
use crate::revocation::Revocations;
use crate::sessions::{Ground, Sessions};
use crate::sources::accounts::{Account, ConfiguredAccounts};
use crate::sources::streams::ConfiguredStreams;
use crate::terms::clock::Clock;
use crate::terms::outcome::{LookupOutcome, Outcome};
use crate::terms::role::Role;

/// The most channels remembered of one answer; beyond, all are asked for again.
const MOST_CHANNELS: usize = 1024;

/// The caller, and the sources to ask about them.
#[derive(Debug)]
pub(crate) struct Judge {
    /// `[accounts]`.
    pub accounts: Arc<ConfiguredAccounts>,
    /// `[streams]`.
    pub streams: Arc<ConfiguredStreams>,
    /// Which logins the accounts source refused.
    pub logins: Arc<Logins>,
    /// Whether a refusal by accounts is remembered; none is while observing.
    pub remembers: bool,
    /// The clock that times the sources.
    pub clock: Clock,
    /// The caller, where the request carries a verifying JWT.
    pub caller: Option<NamedCaller>,
    /// The rules' demands on the caller, and the tokens that they leave to other callers.
    pub terms: ReissueTerms,
    /// Which channels are streams although the source doesn't know them.
    pub channel_pattern: Option<ChannelPattern>,
    /// Which callers were refused since their last token.
    pub sessions: Arc<Sessions>,
    /// The operators' revocations.
    pub revocations: Arc<Revocations>,
    /// Whether what other replicas have revoked has been unknown for too long to give any token.
    pub denies_all: bool,
    /// How long each source may take.
    pub patience: Duration,
    /// When the request came, on the clock's monotonic scale: no caller is refused on an answer from before.
    pub since: Duration,
}

/// The caller that a JWT names.
#[derive(Debug)]
pub(crate) struct NamedCaller {
    /// The JWT's claims.
    pub claims: JwtClaims,
    /// The JWT itself, for a source that is asked with it.
    pub credentials: Box<str>,
}

/// The verdict on one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenVerdict {
    /// Yes.
    Granted {
        /// The subject whose session a publisher's token opens; `None` where the caller has no name.
        holder: Option<Box<str>>,
        /// Whether only [`VerifiedToken::as_subscriber`] of it is granted.
        demoted: bool,
    },
    /// No.
    Refused(Outcome),
    /// A source gives no answer.
    Unanswered,
}

/// The answers of the sources so far, for one answer of the backend.
#[derive(Debug, Default)]
pub(crate) struct SourceFindings {
    account: Option<AccountStanding>,
    streams: HashMap<ChannelQuestion, Seen>,
    /// Whether the streams source gave no answer.
    failed: bool,
}

/// The standing of the caller's account, as the source says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AccountStanding {
    /// The account is in good standing, and this is its login.
    Good,
    /// The account isn't denied, but is unknown or signed in elsewhere.
    Elsewhere,
    Denied(Outcome),
    NoAnswer,
}

/// The question to ask about a channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ChannelQuestion {
    channel: Box<str>,
    /// The token's role: for a publisher's more must be certain.
    role: Role,
}

/// The state of a stream, as the source says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Answer {
        /// Whether the source knows a stream of that name, or the name is that of one.
        exists: bool,
        bans_caller: bool,
        /// Whether it is live.
        open: bool,
        /// Whether the caller may have a publisher's token: the stream is theirs, or there is no stream of that name.
        publishes: bool,
    },
    NoAnswer,
}

/// Questions under way.
pub(crate) type Asking = Pin<Box<dyn Future<Output = Answers>>>;

/// The results of questions.
pub(crate) struct Answers {
    account: Option<AccountStanding>,
    streams: Vec<(ChannelQuestion, Seen)>,
}

// === impl Judge ===

impl Judge {
    /// The verdict; `None` where the sources must be asked first. The conditions in order: a revocation, a name where
    /// the rule wants one, the account's standing, the stream's ban, the stream's owner.
    pub(crate) fn verdict(
        &self,
        token: &VerifiedToken,
        known: &SourceFindings,
    ) -> Option<TokenVerdict> {
        if token.is_for_the_whole_app() {
            return Some(TokenVerdict::Refused(Outcome::PolicyDenied));
        }
        if self.is_revoked(token) {
            return Some(TokenVerdict::Refused(Outcome::Revoked));
        }
        if self.denies_all {
            return Some(TokenVerdict::Unanswered);
        }
        if self.caller.is_none() && self.terms.require_auth {
            return Some(TokenVerdict::Refused(Outcome::Unauthenticated));
        }
        let account = self.account(known)?;
        if let AccountStanding::Denied(outcome) = account {
            return Some(TokenVerdict::Refused(outcome));
        }
        let stream = match self.channel_to_look_up(token) {
            Some(question) => Some(known.seen(&question)?),
            None => None,
        };
        if let Some(Seen::Answer {
            bans_caller: true, ..
        }) = stream
        {
            return Some(TokenVerdict::Refused(Outcome::ViewerBanned));
        }
        let silent = account == AccountStanding::NoAnswer || stream == Some(Seen::NoAnswer);
        if let Some(verdict) = self.elsewhere(token, stream.as_ref(), silent) {
            return Some(verdict);
        }
        Some(match token.role() {
            Role::Subscriber => self.watching(token, silent, false),
            Role::Publisher => {
                let vouched = account != AccountStanding::Elsewhere;
                self.publishing(token, stream.as_ref(), silent, vouched)
            }
        })
    }

    /// The caller's subject, where the request carries a verifying JWT.
    pub(crate) fn subject(&self) -> Option<&str> {
        self.caller.as_ref().map(|caller| &*caller.claims.subject)
    }

    fn account(&self, known: &SourceFindings) -> Option<AccountStanding> {
        if self.caller.is_some() && self.accounts.lookups().is_some() {
            known.account
        } else {
            Some(AccountStanding::Good)
        }
    }

    /// A viewer's token is given to every caller, unless the rule wants a name. While a source is silent it is given
    /// too, except to callers that a source has refused.
    fn watching(&self, token: &VerifiedToken, silent: bool, demoted: bool) -> TokenVerdict {
        if silent && (self.terms.require_auth || self.stands_refused(token, &[Role::Subscriber])) {
            return TokenVerdict::Unanswered;
        }
        TokenVerdict::Granted {
            holder: self.subject().map(Into::into),
            demoted,
        }
    }

    /// Whether the token came over a socket.
    fn is_for_socket(&self) -> bool {
        self.terms.unknown_channel.is_some()
    }

    /// The verdict on a token of a socket for a channel that is no stream, such as a call: `unknown_channel` decides.
    /// While the source is silent, a channel without a stream's name is one of these.
    fn elsewhere(
        &self,
        token: &VerifiedToken,
        stream: Option<&Seen>,
        silent: bool,
    ) -> Option<TokenVerdict> {
        let unknown_channel = self.terms.unknown_channel?;
        let is_stream = match stream? {
            Seen::Answer { exists, .. } => *exists,
            Seen::NoAnswer => self.is_named_like_one(token),
        };
        match unknown_channel {
            _ if is_stream => None,
            UnknownChannel::Withhold => Some(TokenVerdict::Refused(Outcome::PolicyDenied)),
            UnknownChannel::Shorten
                if silent
                    && (self.terms.require_auth || self.stands_refused(token, &Role::ALL)) =>
            {
                Some(TokenVerdict::Unanswered)
            }
            UnknownChannel::Shorten => Some(TokenVerdict::Granted {
                holder: self.subject().map(Into::into),
                demoted: false,
            }),
        }
    }

    /// A publisher's token for a stream is given to its owner and co-hosts.
    fn publishing(
        &self,
        token: &VerifiedToken,
        stream: Option<&Seen>,
        silent: bool,
        vouched: bool,
    ) -> TokenVerdict {
        let others = |nothing: TokenVerdict| match self.terms.publisher_for_others {
            PublisherForOthers::Withhold => nothing,
            PublisherForOthers::Subscriber => self.watching(token, silent, true),
        };
        let theirs = match stream {
            Some(Seen::Answer { publishes, .. }) => *publishes,
            // The owner of a stream has a name.
            Some(Seen::NoAnswer) => self.caller.is_some() || !self.is_named_like_one(token),
            None => true,
        };
        if !theirs {
            return others(TokenVerdict::Refused(Outcome::NotOwner));
        }
        let trusted = self.terms.trust_publisher
            && self.caller.is_some()
            && vouched
            && !self.stands_refused(token, &Role::ALL);
        if silent && !trusted {
            return others(TokenVerdict::Unanswered);
        }
        TokenVerdict::Granted {
            holder: self.subject().map(Into::into),
            demoted: false,
        }
    }

    /// Whether a source has refused the caller since their last token for the channel in one of these roles.
    fn stands_refused(&self, token: &VerifiedToken, roles: &[Role]) -> bool {
        let Some(NamedCaller { claims, .. }) = &self.caller else {
            return false;
        };
        let now = self.clock.unix_seconds();
        if self.logins.refuses(claims, now) {
            return true;
        }
        let Some(channel) = token.channel().map(String::from_utf8_lossy) else {
            return false;
        };
        let (sessions, subject) = (&self.sessions, &claims.subject);
        roles.iter().any(|role| {
            [Ground::Stream, Ground::Hook]
                .into_iter()
                .any(|ground| sessions.is_refused(&channel, subject, *role, ground, now))
        })
    }

    /// Whether the channel's name is that of a stream by `streams.channel_pattern`.
    fn is_named_like_one(&self, token: &VerifiedToken) -> bool {
        let pattern = self.channel_pattern.as_ref();
        let channel = token.channel().map(String::from_utf8_lossy);
        channel.is_some_and(|channel| pattern.is_some_and(|pattern| pattern.matches(&channel)))
    }

    /// The question to ask about the token's channel: about bans, where the caller has a name, and about the owner,
    /// where the token publishes.
    pub(crate) fn channel_to_look_up(&self, token: &VerifiedToken) -> Option<ChannelQuestion> {
        let role = token.role();
        let asked = self.caller.is_some()
            || role == Role::Publisher
            || self.terms.unknown_channel == Some(UnknownChannel::Withhold);
        let channel = token.channel().filter(|_| asked)?;
        Some(ChannelQuestion {
            channel: String::from_utf8_lossy(channel).into(),
            role,
        })
    }

    /// Asks these questions all at once, and about the caller's account unless its standing is known.
    pub(crate) fn ask(
        self: &Arc<Self>,
        streams: Vec<ChannelQuestion>,
        known: &SourceFindings,
    ) -> Asking {
        let asks_account = known.account.is_none() && self.caller.is_some();
        let judge = Arc::clone(self);
        Box::pin(async move {
            let account = async {
                if asks_account {
                    Some(judge.standing().await)
                } else {
                    None
                }
            };
            let looks = streams.into_iter().map(|question| {
                let judge = &judge;
                Box::pin(async move {
                    let seen = judge.look(&question).await;
                    (question, seen)
                })
            });
            let (account, streams) = tokio::join!(account, join::all(looks.collect()));
            Answers { account, streams }
        })
    }

    /// The standing of the caller's account. One that is unknown or signed in elsewhere isn't denied: the token
    /// endpoints refuse it.
    async fn standing(&self) -> AccountStanding {
        let Some(caller) = &self.caller else {
            return AccountStanding::Good;
        };
        let claims = &caller.claims;
        let (subject, session) = (&claims.subject, claims.session.as_deref());
        let mut since = None;
        loop {
            let began = self.clock.elapsed();
            let looked = self
                .accounts
                .look(subject, &caller.credentials, since, self.patience);
            let Some(looked) = looked.await else {
                return AccountStanding::Good;
            };
            if let Some(metrics) = self.accounts.metrics() {
                let outcome = looked.as_ref().map(|answer| answer.outcome);
                let elapsed = self.clock.elapsed().saturating_sub(began);
                metrics.lookup(outcome.unwrap_or(LookupOutcome::Error), elapsed);
            }
            let Ok(answer) = looked else {
                return AccountStanding::NoAnswer;
            };
            let Account::Denied(denial) = &*answer.value else {
                let verdict = self.accounts.verdict(&answer.value, session);
                return verdict.map_or(AccountStanding::Elsewhere, |()| AccountStanding::Good);
            };
            if since.is_some() || answer.asked_at >= self.since {
                if self.remembers {
                    let whom = self.accounts.denies(denial.outcome);
                    let now = self.clock.unix_seconds();
                    self.logins.refuse(claims, whom, now);
                }
                return AccountStanding::Denied(denial.outcome);
            }
            since = Some(self.since);
        }
    }
}

// === impl SourceFindings ===

impl SourceFindings {
    /// Adds what the sources said.
    pub(crate) fn learn(&mut self, answers: Answers) {
        if self.streams.len() + answers.streams.len() > MOST_CHANNELS {
            self.streams.clear();
        }
        self.account = answers.account.or(self.account);
        self.failed |= answers
            .streams
            .iter()
            .any(|(_, seen)| *seen == Seen::NoAnswer);
        self.streams.extend(answers.streams);
    }

    /// Whether a question is still to be asked.
    pub(crate) fn lacks(&self, question: &ChannelQuestion) -> bool {
        self.seen(question).is_none()
    }

    fn seen(&self, question: &ChannelQuestion) -> Option<Seen> {
        match self.streams.get(question) {
            None if self.failed => Some(Seen::NoAnswer),
            seen => seen.copied(),
        }
    }
}
