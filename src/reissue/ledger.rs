//! The record of each token: the token is counted by rule and outcome, audited, and remembered as a session.
//!
//! Keeps true: every token of this project in a matching answer is counted once, and an answer is one audit event;
//! while observing, tokens are only counted.
//! Must not know: how it was decided.

use super::shared_claims::SharedClaims;
use super::tally::{TokenFate, TokenTally};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::agora::reissue::VerifiedToken;
use crate::logins::remembered::Login;
use crate::sessions::{Basis, Ground, Grounds, Handed, Listed, Rules, SeatRequest, Sessions};
use crate::telemetry::audit::Audit;
use crate::telemetry::escape::bounded;
use crate::telemetry::labels::Endpoint;
use crate::telemetry::metrics::{Metrics, ReissueMetrics};
use crate::telemetry::traffic_labels::ReissueOutcome;
use crate::terms::clock::{Clock, Entropy};
use crate::terms::context::RequestId;
use crate::terms::outcome::Outcome;
use crate::terms::role::Role;

/// The record of one answer's tokens.
#[derive(Debug)]
pub(crate) struct TokenLedger {
    /// The clock.
    pub clock: Clock,
    /// The source of randomness.
    pub entropy: Entropy,
    /// The metrics that all endpoints share.
    pub metrics: Arc<Metrics>,
    /// The rule's series.
    pub route: Arc<ReissueMetrics>,
    /// The sessions of live tokens.
    pub sessions: Arc<Sessions>,
    /// The rules for sessions.
    pub rules: Rules,
    /// The claims of publishers' sessions, where replicas share a store.
    pub claims: Option<SharedClaims>,
    /// `log.audit`.
    pub audit: Arc<Audit>,
    /// The request's.
    pub request_id: RequestId,
    /// The request's.
    pub client: Option<IpAddr>,
    /// The verifying JWT's subject.
    pub subject: Option<Box<str>>,
    /// The session of the verifying JWT, where it says one.
    pub login: Option<Login>,
    /// Subscribers' tokens that are to be remembered together.
    pub handing: Mutex<Handing>,
    /// Whether outcomes are only counted.
    pub observing: bool,
    /// The tokens that the next audit event will report: one event an answer.
    pub tally: Mutex<Option<TokenTally>>,
}

/// The bytes of a channel that are kept: more than any channel of Agora has.
const AUDITED: usize = 256;

/// How many channels of a list are kept before they are handed over: an answer may have no end.
const HANDED_AT_ONCE: usize = 1024;

/// A list that isn't handed over yet.
#[derive(Debug, Default)]
pub(crate) struct Handing {
    channels: Vec<Listed>,
    expires: u64,
    vouched: bool,
}

/// A token that is issued anew, or would be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reissued<'a> {
    /// The token that was found.
    pub token: &'a VerifiedToken,
    /// The subject whose session a publisher's token opens.
    pub holder: Option<&'a str>,
    /// The basis on which the session is opened.
    pub basis: Basis,
    /// The sources that said yes.
    pub yes: Grounds,
    /// When the new one ends, Unix seconds.
    pub expires: u64,
    /// When the old one was found, on the clock's monotonic scale.
    pub found: Duration,
}

impl TokenLedger {
    /// Counts a token that stays as it is.
    pub(crate) fn short(&self) {
        self.route.token(ReissueOutcome::Short);
    }

    /// Counts what may be a token of this project and can't be verified, or can't be replaced.
    pub(crate) fn unreadable(&self, why: &'static str) {
        self.route.token(ReissueOutcome::Error);
        let (route, request_id) = (self.route.route(), self.request_id.as_str());
        if self.route.complains_first() {
            tracing::warn!(
                route,
                request_id,
                why,
                "what looks like a token of this project passes as it is; the next ones are only counted, as \
                 renewd_reissue_total{{outcome=\"error\"}}"
            );
        } else {
            tracing::debug!(route, request_id, why, "passes as it is");
        }
    }

    /// Records a token that is issued anew.
    pub(crate) fn replaced(&self, reissued: Reissued<'_>) {
        self.route.token(ReissueOutcome::Replaced);
        if self.observing {
            return;
        }
        let Reissued {
            token,
            holder,
            basis,
            yes,
            expires,
            found,
        } = reissued;
        let role = token.role();
        self.metrics
            .token_issued(Endpoint::Reissue, role, token.format(), token.is_wildcard());
        self.decided(token, found, Outcome::Ok, Some(expires));
        if role == Role::Publisher
            && let (Some(subject), Some(channel)) = (holder, token.channel())
        {
            let claim = SeatRequest {
                channel: &String::from_utf8_lossy(channel),
                subject,
                user: &token.named_user(),
                role,
            };
            // Where a limit refuses the session, the token is given all the same: the limits are for callers of the
            // token endpoints.
            let now = self.clock.unix_seconds();
            let granted = self.sessions.grant(claim, basis, self.rules, now, expires);
            if let (Ok(()), Some(claims)) = (granted, &self.claims) {
                let lasts = Duration::from_secs(expires.saturating_sub(now));
                claims.make(claim, self.rules, lasts);
            }
        }
        if role == Role::Subscriber
            && let (Some(_), Some(channel)) = (&self.subject, token.channel())
        {
            let channel = String::from_utf8_lossy(channel);
            let entry = self.sessions.entry(&channel, yes.contains(Ground::Stream));
            let mut handing = self.handing.lock();
            handing.channels.push(entry);
            handing.expires = handing.expires.max(expires);
            handing.vouched = yes.contains(Ground::Account);
            let is_full = handing.channels.len() >= HANDED_AT_ONCE;
            drop(handing);
            if is_full {
                self.hand();
            }
        }
    }

    /// Remembers the subject that the list up to here was given to; call this before the last of it leaves.
    pub(crate) fn hand(&self) {
        let handing = std::mem::take(&mut *self.handing.lock());
        let (Some(subject), false) = (&self.subject, handing.channels.is_empty()) else {
            return;
        };
        let handed = Handed {
            subject,
            login: self.login,
            vouched: handing.vouched,
            channels: &handing.channels,
            expires: handing.expires,
        };
        self.sessions.hand(handed, self.clock.unix_seconds());
    }

    /// Records a token that is withheld.
    pub(crate) fn withheld(&self, token: &VerifiedToken, found: Duration, outcome: Outcome) {
        self.route.token(ReissueOutcome::Withheld);
        self.decided(token, found, outcome, None);
        // The streams source has refused the subject: this holds for later requests too.
        if outcome == Outcome::ViewerBanned
            && !self.observing
            && let (Some(subject), Some(channel)) = (&self.subject, token.channel())
        {
            let channel = String::from_utf8_lossy(channel);
            let now = self.clock.unix_seconds();
            self.sessions
                .denied(&channel, subject, Ground::Stream, None, now);
        }
    }

    /// Records a token that is withheld because a source gave no answer.
    pub(crate) fn failed(&self, token: &VerifiedToken, found: Duration) {
        self.route.token(ReissueOutcome::Error);
        self.decided(token, found, Outcome::Unavailable, None);
    }

    fn decided(
        &self,
        token: &VerifiedToken,
        found: Duration,
        outcome: Outcome,
        expires: Option<u64>,
    ) {
        if self.observing {
            return;
        }
        let (role, user) = (token.role(), token.named_user());
        let held = self.clock.elapsed().saturating_sub(found);
        self.metrics
            .token_request(Endpoint::Reissue, Some(role), outcome, held);
        let channel = token.channel().map(String::from_utf8_lossy);
        let entry = TokenFate {
            channel: channel.map(|channel| bounded(&channel, AUDITED).0.into()),
            user,
            role,
            outcome,
            expires,
        };
        let now = self.clock.elapsed();
        let mut tally = self.tally.lock();
        match &mut *tally {
            Some(tally) if !tally.is_due(now) => tally.add(&entry),
            due => {
                if let Some(due) = due {
                    self.write(due);
                }
                *due = Some(TokenTally::new(entry, now));
            }
        }
    }

    fn write(&self, tally: &TokenTally) {
        let subject = self.subject.as_deref();
        let tokens = tally.told();
        self.audit
            .tokens(&self.request_id, self.client, subject, &tokens);
    }
}

impl Drop for TokenLedger {
    /// The answer has ended, or was broken off.
    fn drop(&mut self) {
        self.hand();
        let tally = self.tally.get_mut();
        if let Some(tally) = tally.take() {
            self.write(&tally);
        }
    }
}
