//! The audit trail: one event for every decision and every answer with tokens in it, every reload and every publisher's token that lapsed.
//!
//! Keeps true: never a token, certificate or JWT (the types have no room for one); strings from outside are cut and
//! escaped; a request never waits for the trail, and what is lost is counted.
//! Must not know: why a decision fell as it did.

use std::fs::OpenOptions;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, UNIX_EPOCH};

use super::escape::bounded;
use super::labels::Endpoint;
use super::line::{Line, Shape};
use super::line_writer::{DropCounter, LineWriter};
use super::log::{AUDIT, rfc3339};
use crate::config::model::AuditSink;
use crate::terms::clock::Clock;
use crate::terms::context::RequestId;
use crate::terms::outcome::{LapseCause, Outcome, UnauthenticatedReason};
use crate::terms::role::Role;
use crate::terms::user::User;

/// Bytes kept of a string from outside: above every subject and channel that is served (RFC 7519 sets no limit).
const TEXT_LIMIT: usize = 256;

/// Events that may wait for the file.
const QUEUE_EVENTS: usize = 16_384;

/// One decision on a token request. What was not known when it fell is `None`.
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
    /// The same of its backup token.
    pub backup_expires: Option<u64>,
}

/// What the tokens in one answer of the backend's came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tokens<'a> {
    /// How many.
    pub count: u32,
    /// What became of all of them; `None` where that differs, as in the next three.
    pub outcome: Option<Outcome>,
    /// Their channel.
    pub channel: Option<&'a str>,
    /// For whom they are.
    pub user: Option<User<&'a str>>,
    /// What they let them do.
    pub role: Option<Role>,
    /// When the last of the new ones expires, in seconds since the Unix epoch.
    pub expires: Option<u64>,
    /// Each of them; empty where there is one.
    pub list: &'a str,
}

/// One attempt to load the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Reload<'a> {
    /// Whether it took effect.
    pub success: bool,
    /// What set it off: `start`, `file`, `signal`, `admin`.
    pub trigger: &'static str,
    /// What changed, or the first error; holds no secret.
    pub detail: &'a str,
}

/// One token that was not renewed although its stream goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LapseEvent<'a> {
    /// Who held it.
    pub subject: &'a str,
    /// For which channel.
    pub channel: &'a str,
    /// Who they were there.
    pub user: User<&'a str>,
    /// What it let them do.
    pub role: Role,
    /// Whether they asked for another.
    pub cause: LapseCause,
    /// When it expired, in seconds since the Unix epoch.
    pub expired: u64,
}

/// An open audit trail. A change of `log.audit` opens another.
#[derive(Debug)]
pub struct Audit {
    clock: Clock,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    Off,
    Stderr,
    File(LineWriter),
}

impl Audit {
    /// Opens the trail; fails where its file can't be opened for appending.
    pub fn open(sink: &AuditSink, clock: Clock, dropped: DropCounter) -> io::Result<Self> {
        let sink = match sink {
            AuditSink::Off => Sink::Off,
            AuditSink::Stderr => Sink::Stderr,
            AuditSink::File(path) => {
                let path = path.clone();
                let open = move || {
                    let mut options = OpenOptions::new();
                    // The group may read it: whom the operator lets see who streamed when.
                    options.append(true).create(true).mode(0o640);
                    Ok(Box::new(options.open(&path)?) as Box<dyn io::Write + Send>)
                };
                Sink::File(LineWriter::start(
                    "audit",
                    QUEUE_EVENTS,
                    Box::new(open),
                    dropped,
                )?)
            }
        };
        Ok(Self { clock, sink })
    }

    /// Records a decision.
    pub fn decision(&self, decision: &DecisionEvent<'_>) {
        let subject = decision.subject.map(cut);
        let channel = decision.channel.map(cut);
        let user = decision.user.as_ref();
        let (uid, account) = (
            user.and_then(User::uid),
            user.and_then(User::account).map(cut),
        );
        let role = decision.role.map(Role::as_str);
        let reason = decision.reason.map(UnauthenticatedReason::as_str);
        let expires = decision.expires.map(unix_seconds);
        let backup_expires = decision.backup_expires.map(unix_seconds);
        match &self.sink {
            Sink::Off => {}
            Sink::Stderr => tracing::info!(
                target: AUDIT,
                event = "decision",
                request_id = decision.request_id.as_str(),
                client = decision.client.map(tracing::field::display),
                endpoint = decision.endpoint.as_str(),
                outcome = decision.outcome.code(),
                reason,
                enforced = decision.enforced,
                subject,
                channel,
                uid,
                account,
                role,
                expires,
                backup_expires,
            ),
            Sink::File(writer) => {
                let mut line = self.line("decision");
                line.text("request_id", decision.request_id.as_str());
                if let Some(client) = decision.client {
                    line.text("client", &client.to_string());
                }
                line.text("endpoint", decision.endpoint.as_str());
                line.text("outcome", decision.outcome.code());
                if let Some(reason) = reason {
                    line.text("reason", reason);
                }
                line.bare("enforced", decision.enforced);
                for (key, value) in [("subject", subject), ("channel", channel)] {
                    if let Some(value) = value {
                        line.text(key, value);
                    }
                }
                if let Some(uid) = uid {
                    line.bare("uid", uid);
                }
                for (key, value) in [
                    ("account", account),
                    ("role", role),
                    ("expires", expires.as_deref()),
                    ("backup_expires", backup_expires.as_deref()),
                ] {
                    if let Some(value) = value {
                        line.text(key, value);
                    }
                }
                writer.write(line.finish());
            }
        }
    }

    /// Records the tokens of an answer, as one decision.
    pub(crate) fn tokens(
        &self,
        request_id: &RequestId,
        client: Option<IpAddr>,
        subject: Option<&str>,
        tokens: &Tokens<'_>,
    ) {
        let (subject, channel) = (subject.map(cut), tokens.channel.map(cut));
        let user = tokens.user.as_ref();
        let (uid, account) = (
            user.and_then(User::uid),
            user.and_then(User::account).map(cut),
        );
        let endpoint = Endpoint::Reissue.as_str();
        let outcome = tokens.outcome.map_or("mixed", Outcome::code);
        let role = tokens.role.map(Role::as_str);
        let expires = tokens.expires.map(unix_seconds);
        let list = Some(tokens.list).filter(|list| !list.is_empty());
        match &self.sink {
            Sink::Off => {}
            Sink::Stderr => tracing::info!(
                target: AUDIT,
                event = "decision",
                request_id = request_id.as_str(),
                client = client.map(tracing::field::display),
                endpoint,
                outcome,
                enforced = true,
                subject,
                channel,
                uid,
                account,
                role,
                expires,
                tokens = tokens.count,
                list,
            ),
            Sink::File(writer) => {
                let mut line = self.line("decision");
                line.text("request_id", request_id.as_str());
                if let Some(client) = client {
                    line.text("client", &client.to_string());
                }
                line.text("endpoint", endpoint);
                line.text("outcome", outcome);
                line.bare("enforced", true);
                for (key, value) in [("subject", subject), ("channel", channel)] {
                    if let Some(value) = value {
                        line.text(key, value);
                    }
                }
                if let Some(uid) = uid {
                    line.bare("uid", uid);
                }
                for (key, value) in [
                    ("account", account),
                    ("role", role),
                    ("expires", expires.as_deref()),
                ] {
                    if let Some(value) = value {
                        line.text(key, value);
                    }
                }
                line.bare("tokens", tokens.count);
                if let Some(list) = list {
                    line.text("list", list);
                }
                writer.write(line.finish());
            }
        }
    }

    /// Records a lapse.
    pub(crate) fn lapse(&self, lapse: &LapseEvent<'_>) {
        let (subject, channel) = (cut(lapse.subject), cut(lapse.channel));
        let (uid, account) = (lapse.user.uid(), lapse.user.account().map(cut));
        let (role, cause) = (lapse.role.as_str(), lapse.cause.as_str());
        let expired = unix_seconds(lapse.expired);
        match &self.sink {
            Sink::Off => {}
            Sink::Stderr => tracing::info!(
                target: AUDIT,
                event = "lapse",
                cause,
                subject,
                channel,
                uid,
                account,
                role,
                expired,
            ),
            Sink::File(writer) => {
                let mut line = self.line("lapse");
                for (key, value) in [("cause", cause), ("subject", subject), ("channel", channel)] {
                    line.text(key, value);
                }
                if let Some(uid) = uid {
                    line.bare("uid", uid);
                }
                if let Some(account) = account {
                    line.text("account", account);
                }
                line.text("role", role);
                line.text("expired", &expired);
                writer.write(line.finish());
            }
        }
    }

    /// Records a reload.
    pub fn reload(&self, reload: &Reload<'_>) {
        let outcome = if reload.success { "ok" } else { "invalid" };
        match &self.sink {
            Sink::Off => {}
            Sink::Stderr => tracing::info!(
                target: AUDIT,
                event = "reload",
                outcome,
                trigger = reload.trigger,
                detail = reload.detail,
            ),
            Sink::File(writer) => {
                let mut line = self.line("reload");
                line.text("outcome", outcome);
                line.text("trigger", reload.trigger);
                line.text("detail", reload.detail);
                writer.write(line.finish());
            }
        }
    }

    /// Opens the file anew (SIGUSR1, log rotation).
    pub fn reopen(&self) {
        if let Sink::File(writer) = &self.sink
            && !writer.reopen()
        {
            tracing::error!(
                "the audit file was not reopened: its queue is full; send SIGUSR1 again"
            );
        }
    }

    /// Waits until every event so far is written, at most `deadline`. Blocks: for stopping only.
    pub fn flush(&self, deadline: Duration) -> bool {
        match &self.sink {
            Sink::File(writer) => writer.flush(deadline),
            Sink::Off | Sink::Stderr => true,
        }
    }

    fn line(&self, event: &str) -> Line {
        let mut line = Line::new(Shape::Json);
        line.text("time", &rfc3339(&self.clock));
        line.text("event", event);
        line
    }
}

fn cut(text: &str) -> &str {
    bounded(text, TEXT_LIMIT).0
}

fn unix_seconds(seconds: u64) -> String {
    // 9999-12-31, the last day that RFC 3339 can write.
    let time = UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799));
    humantime::format_rfc3339_seconds(time).to_string()
}
