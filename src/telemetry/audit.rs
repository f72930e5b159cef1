//! The audit trail: one event for every decision, every answer with tokens in it, every reload and every publisher's
//! token that lapsed.
//!
//! Keeps true: never a token, certificate or JWT (the types have no room for one); strings from outside are cut and
//! escaped; a request never waits for the trail, and what is lost is counted.
//! Must not know: why a decision came out as it did.

use std::fs::OpenOptions;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use tracing::Dispatch;

use super::escape::bounded;
use super::labels::Endpoint;
use super::line_writer::{DropCounter, LineWriter};
use super::log::{self, AUDIT};
use crate::config::model::AuditSink;
use crate::terms::clock::Clock;
use crate::terms::context::RequestId;
use crate::terms::labels::labels;
use crate::terms::outcome::{LapseCause, Outcome, UnauthenticatedReason};
use crate::terms::role::Role;
use crate::terms::timestamp;
use crate::terms::user::User;

/// Bytes kept of a string from outside: above every subject and channel that is served (RFC 7519 sets no limit).
const TEXT_LIMIT: usize = 256;

/// Events that may wait for the file.
const QUEUE_EVENTS: usize = 16_384;

/// One decision on a token request. What was not known at that moment is `None`.
#[derive(Clone, Copy, Debug)]
pub struct DecisionEvent<'a> {
    /// The `x-request-id`.
    pub request_id: &'a RequestId,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// The outcome; enforced or only observed.
    pub outcome: Outcome,
    /// Why the login was refused, where it was.
    pub reason: Option<UnauthenticatedReason>,
    /// `false` where the decision was shadowed: the backend answered.
    pub enforced: bool,
    /// The verified JWT's subject.
    pub subject: Option<&'a str>,
    /// The channel asked for.
    pub channel: Option<&'a str>,
    /// The uid or account asked for.
    pub user: Option<User<&'a str>>,
    /// The role decided on.
    pub role: Option<Role>,
    /// The token's expiry in seconds since the Unix epoch, where one was minted.
    pub expires: Option<u64>,
    /// The expiry of its backup token.
    pub backup_expires: Option<u64>,
}

/// The fates of the tokens in one answer of the backend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tokens<'a> {
    /// How many.
    pub count: u32,
    /// The outcome of all of them. This and the next three are `None` where the tokens differ.
    pub outcome: Option<Outcome>,
    /// Their channel.
    pub channel: Option<&'a str>,
    /// Their user.
    pub user: Option<User<&'a str>>,
    /// Their role.
    pub role: Option<Role>,
    /// When the last of the new ones expires, in seconds since the Unix epoch.
    pub expires: Option<u64>,
    /// A list of all of them; empty where there is one.
    pub list: &'a str,
}

labels! {
    /// How the revocations changed: `event` and `outcome` of their audit events.
    pub(crate) enum RevocationChange {
        /// An operator revoked something.
        Made => "made",
        /// An operator lifted a revocation before its end.
        Lifted => "lifted",
    }
}

/// One change of the revocations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RevocationEvent<'a> {
    /// The kind of change.
    pub change: RevocationChange,
    /// The revocation's id.
    pub id: &'a str,
    /// The subject that it names.
    pub subject: Option<&'a str>,
    /// The channel that it names.
    pub channel: Option<&'a str>,
    /// The user that it names in the channel.
    pub user: Option<User<&'a str>>,
    /// When it is over, in seconds since the Unix epoch.
    pub until: u64,
    /// The operator's note; empty for none.
    pub reason: &'a str,
    /// Whether the change survives a restart.
    pub durable: bool,
}

/// One attempt to load the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Reload<'a> {
    /// Whether it took effect.
    pub success: bool,
    /// The cause: `file`, `signal` or `admin`.
    pub trigger: &'static str,
    /// The changes, or the first error; holds no secret.
    pub detail: &'a str,
}

/// One token that was not renewed although its stream goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LapseEvent<'a> {
    /// The subject of the login that held it.
    pub subject: &'a str,
    /// The session's channel.
    pub channel: &'a str,
    /// The user that the token is for.
    pub user: User<&'a str>,
    /// The token's role.
    pub role: Role,
    /// Whether the holder asked for another.
    pub cause: LapseCause,
    /// When it expired, in seconds since the Unix epoch.
    pub expired: u64,
}

/// An open audit trail. A change of `log.audit` opens another.
#[derive(Debug)]
pub struct Audit(Sink);

#[derive(Debug)]
enum Sink {
    Off,
    /// In the daemon's log.
    Stderr,
    /// In a log of its own, whose lines the writer takes.
    File(Dispatch, LineWriter),
}

impl Audit {
    /// Opens the trail; fails where its file can't be opened for appending.
    pub fn open(sink: &AuditSink, clock: Clock, dropped: DropCounter) -> io::Result<Self> {
        Ok(Self(match sink {
            AuditSink::Off => Sink::Off,
            AuditSink::Stderr => Sink::Stderr,
            AuditSink::File(path) => {
                let path = path.clone();
                let open = Box::new(move || {
                    let mut options = OpenOptions::new();
                    // The operator puts those who may see who streamed when into the file's group.
                    options.append(true).create(true).mode(0o640);
                    Ok(Box::new(options.open(&path)?) as Box<dyn io::Write + Send>)
                });
                let writer = LineWriter::start("audit", QUEUE_EVENTS, open, dropped)?;
                Sink::File(log::audit_to_file(clock, writer.clone()), writer)
            }
        }))
    }

    /// Records a decision.
    pub fn decision(&self, decision: &DecisionEvent<'_>) {
        let (uid, account) = uid_and_account(decision.user);
        self.record(|| {
            tracing::info!(
                target: AUDIT,
                event = "decision",
                request_id = decision.request_id.as_str(),
                client = decision.client.map(tracing::field::display),
                endpoint = decision.endpoint.as_str(),
                outcome = decision.outcome.as_str(),
                reason = decision.reason.map(UnauthenticatedReason::as_str),
                enforced = decision.enforced,
                subject = decision.subject.map(cut),
                channel = decision.channel.map(cut),
                uid,
                account,
                role = decision.role.map(Role::as_str),
                expires = decision.expires.map(timestamp::from_seconds),
                backup_expires = decision.backup_expires.map(timestamp::from_seconds),
            );
        });
    }

    /// Records the tokens of an answer, as one decision.
    pub(crate) fn tokens(
        &self,
        request_id: &RequestId,
        client: Option<IpAddr>,
        subject: Option<&str>,
        tokens: &Tokens<'_>,
    ) {
        let (uid, account) = uid_and_account(tokens.user);
        self.record(|| {
            tracing::info!(
                target: AUDIT,
                event = "decision",
                request_id = request_id.as_str(),
                client = client.map(tracing::field::display),
                endpoint = Endpoint::Reissue.as_str(),
                outcome = tokens.outcome.map_or("mixed", Outcome::as_str),
                enforced = true,
                subject = subject.map(cut),
                channel = tokens.channel.map(cut),
                uid,
                account,
                role = tokens.role.map(Role::as_str),
                expires = tokens.expires.map(timestamp::from_seconds),
                tokens = tokens.count,
                list = Some(tokens.list).filter(|list| !list.is_empty()),
            );
        });
    }

    /// Records a lapse.
    pub(crate) fn lapse(&self, lapse: &LapseEvent<'_>) {
        let (uid, account) = uid_and_account(Some(lapse.user));
        self.record(|| {
            tracing::info!(
                target: AUDIT,
                event = "lapse",
                cause = lapse.cause.as_str(),
                subject = cut(lapse.subject),
                channel = cut(lapse.channel),
                uid,
                account,
                role = lapse.role.as_str(),
                expired = timestamp::from_seconds(lapse.expired),
            );
        });
    }

    /// Records a change of the revocations.
    pub(crate) fn revocation(&self, change: &RevocationEvent<'_>) {
        let (uid, account) = uid_and_account(change.user);
        self.record(|| {
            tracing::info!(
                target: AUDIT,
                event = "revocation",
                outcome = change.change.as_str(),
                id = change.id,
                subject = change.subject.map(cut),
                channel = change.channel.map(cut),
                uid,
                account,
                until = timestamp::from_seconds(change.until),
                reason = Some(cut(change.reason)).filter(|reason| !reason.is_empty()),
                durable = change.durable,
            );
        });
    }

    /// Records a reload.
    pub fn reload(&self, reload: &Reload<'_>) {
        self.record(|| {
            tracing::info!(
                target: AUDIT,
                event = "reload",
                outcome = if reload.success { "ok" } else { "invalid" },
                trigger = reload.trigger,
                detail = reload.detail,
            );
        });
    }

    /// Emits an event where the trail goes.
    fn record(&self, emit: impl FnOnce()) {
        match &self.0 {
            Sink::Off => {}
            Sink::Stderr => emit(),
            Sink::File(log, _) => tracing::dispatcher::with_default(log, emit),
        }
    }

    /// Opens the file anew (SIGUSR1, log rotation).
    pub fn reopen(&self) {
        if let Sink::File(_, writer) = &self.0
            && !writer.reopen()
        {
            tracing::error!(
                "the audit file was not reopened because its queue is full; send SIGUSR1 again"
            );
        }
    }

    /// Waits until every event so far is written, at most `deadline`. Blocks: for stopping only.
    pub fn flush(&self, deadline: Duration) -> bool {
        match &self.0 {
            Sink::File(_, writer) => writer.flush(deadline),
            Sink::Off | Sink::Stderr => true,
        }
    }
}

fn uid_and_account(user: Option<User<&str>>) -> (Option<u32>, Option<&str>) {
    match user {
        Some(User::Uid(uid)) => (Some(uid), None),
        Some(User::Account(account)) => (None, Some(cut(account))),
        None => (None, None),
    }
}

fn cut(text: &str) -> &str {
    bounded(text, TEXT_LIMIT).0
}
