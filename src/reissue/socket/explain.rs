//! What becomes of a token in a socket's message, for an operator who asks.
//!
//! Keeps true: the verdict is that of messages, on a token that never leaves; nothing is counted or recorded.
//! Must not know: how the answer is shown.

use std::time::Duration;

use super::super::judge::{Judge, NamedCaller, TokenVerdict};
use super::SocketTerms;
use crate::agora::reissue::{Recognised, VerifiedToken};
use crate::agora::{RtcGrant, TokenFormat, rtc_token};
use crate::config::model::{ReissueMode, SocketRule};
use crate::logins::jwt::JwtClaims;
use crate::snapshot::{Shared, Snapshot};
use crate::sources::accounts::{Account, ConfiguredAccounts};
use crate::terms::explanation::{ExplainedRow, Explanation, RowVerdict};
use crate::terms::outcome::Outcome;
use crate::terms::role::Role;
use crate::terms::user::User;

/// A token that a backend may send over a socket.
pub(crate) struct SocketQuestion<'q> {
    /// The login's; `None` for a socket without a login.
    pub subject: Option<&'q str>,
    pub channel: &'q str,
    pub user: &'q User,
    pub role: Role,
}

/// How long the token would be good for: a day, as the backend's are.
const BACKENDS_LIFETIME: u32 = 86_400;

/// Explains, with the first rule of `[[reissue.socket]]`.
pub(crate) async fn explain(
    shared: &Shared,
    snapshot: &Snapshot,
    question: SocketQuestion<'_>,
) -> Explanation {
    let mut steps = vec![rule(snapshot)];
    let role = Some(question.role.as_str());
    let told = |code, steps| Explanation {
        status: None,
        code,
        role,
        steps,
    };
    let Some(first) = snapshot.config.reissue.sockets.first() else {
        return told(Outcome::Ok.as_str(), steps);
    };
    let Some(token) = token(shared, snapshot, &question) else {
        let detail = "Agora has no such channel or user: no token for it can be valid".to_owned();
        let refuses = RowVerdict::Refuses;
        steps.push(ExplainedRow::new("token", "request", None, refuses, detail));
        return told(Outcome::InvalidRequest.as_str(), steps);
    };
    let judge = judge(shared, snapshot, first, &question);
    steps.push(login(&question));
    steps.extend(account(snapshot, shared, &question, judge.patience).await);
    steps.push(stream(snapshot, shared, &question, judge.patience).await);
    let known = judge.find(judge.channel_to_look_up(&token)).await;
    let verdict = judge.verdict(&token, &known);
    let (code, row) = verdict_row(&verdict.unwrap_or(TokenVerdict::Unanswered), first);
    steps.push(row);
    told(code.as_str(), steps)
}

fn rule(snapshot: &Snapshot) -> ExplainedRow {
    let reissue = &snapshot.config.reissue;
    let (verdict, detail) = match (reissue.sockets.first(), reissue.mode) {
        (None, _) => (
            RowVerdict::NotChecked,
            "no [[reissue.socket]]: tokens in messages pass as they are".to_owned(),
        ),
        (Some(rule), ReissueMode::Replace) if super::is_on(snapshot) => (
            RowVerdict::Passes,
            format!("{}, the first of the file{}", rule.route, bytes(rule)),
        ),
        (Some(rule), _) => (
            RowVerdict::Passes,
            format!(
                "{}: messages pass as they are, what follows is at most counted",
                rule.route
            ),
        ),
    };
    ExplainedRow::new("rule", "configuration", None, verdict, detail)
}

/// The part of what the backend sends to which the explanation doesn't apply.
fn bytes(rule: &SocketRule) -> &'static str {
    if rule.binary {
        ""
    } else {
        "; bytes, such as attachments, pass unread (binary = false)"
    }
}

fn token(
    shared: &Shared,
    snapshot: &Snapshot,
    question: &SocketQuestion<'_>,
) -> Option<VerifiedToken> {
    let grant = RtcGrant {
        channel: question.channel,
        user: question.user.borrowed(),
        role: question.role,
        lifetime: BACKENDS_LIFETIME,
        issued_at: u32::try_from(shared.clock.unix_seconds()).ok()?,
        salt: 1,
    };
    let text = rtc_token(TokenFormat::V007, &snapshot.signer, &grant).ok()?;
    match snapshot.project.recognise(&text).0 {
        Recognised::Ours(token) => Some(token),
        _ => None,
    }
}

fn judge(
    shared: &Shared,
    snapshot: &Snapshot,
    rule: &SocketRule,
    question: &SocketQuestion<'_>,
) -> Judge {
    let terms = SocketTerms::of_rule(&snapshot.config, rule, 0).terms;
    let caller = question.subject.map(|subject| NamedCaller {
        claims: JwtClaims {
            subject: subject.into(),
            session: None,
            expires_at: None,
            all: "{}".into(),
        },
        credentials: "".into(),
    });
    let now = shared.clock.elapsed();
    super::super::judge_of(shared, snapshot, terms, caller, now, false)
}

fn login(question: &SocketQuestion<'_>) -> ExplainedRow {
    let detail = match question.subject {
        Some(subject) => format!("a login of {subject}, taken to be valid"),
        None => "none".to_owned(),
    };
    ExplainedRow::new("login", "request", None, RowVerdict::Passes, detail)
}

async fn account(
    snapshot: &Snapshot,
    shared: &Shared,
    question: &SocketQuestion<'_>,
    patience: Duration,
) -> Option<ExplainedRow> {
    let subject = question.subject?;
    let source = snapshot.config.accounts.source.name();
    let row = |age, verdict, detail: &str| {
        ExplainedRow::new("account", source, age, verdict, detail.to_owned())
    };
    if !matches!(&*snapshot.accounts, ConfiguredAccounts::BySubject { .. }) {
        let detail = "asked with the caller's own login, or not at all";
        return Some(row(None, RowVerdict::NotChecked, detail));
    }
    let looked = snapshot.accounts.look(subject, "", None, patience).await?;
    Some(match looked {
        Err(_) => row(None, RowVerdict::NoAnswer, "no answer"),
        Ok(answer) => {
            let age = shared.clock.elapsed().saturating_sub(answer.asked_at);
            match &*answer.value {
                Account::Denied(denial) => row(Some(age), RowVerdict::Refuses, &denial.message),
                Account::Unknown => row(Some(age), RowVerdict::Passes, "there is no such account"),
                Account::Good { .. } => row(Some(age), RowVerdict::Passes, "in good standing"),
            }
        }
    })
}

async fn stream(
    snapshot: &Snapshot,
    shared: &Shared,
    question: &SocketQuestion<'_>,
    patience: Duration,
) -> ExplainedRow {
    let channel = question.channel;
    let looked = snapshot.streams.look(channel, None, patience).await;
    let elapsed = shared.clock.elapsed();
    let age = looked
        .asked_at
        .map(|asked_at| elapsed.saturating_sub(asked_at));
    let pattern = snapshot.config.streams.channel_pattern.as_ref();
    let is_named_like_one = pattern.is_some_and(|pattern| pattern.matches(channel));
    let named = if is_named_like_one {
        "its name is a stream's (streams.channel_pattern)"
    } else {
        "its name isn't a stream's (streams.channel_pattern)"
    };
    let (verdict, detail) = match &looked.lookup {
        Err(_) => (RowVerdict::NoAnswer, format!("no answer; {named}")),
        Ok(None) => (
            RowVerdict::Passes,
            format!("no stream has this channel; {named}"),
        ),
        Ok(Some(stream)) => {
            let subject = question.subject.unwrap_or_default();
            let whose = if !subject.is_empty() && stream.may_publish(subject) {
                "theirs, or they are a co-host"
            } else {
                "somebody else's"
            };
            let live = if stream.is_open() { "live" } else { "not live" };
            let bans = !subject.is_empty() && stream.bans(subject);
            let banned = if bans {
                ", and they are banned from it"
            } else {
                ""
            };
            let verdict = if bans {
                RowVerdict::Refuses
            } else {
                RowVerdict::Passes
            };
            (verdict, format!("a stream, {live}, {whose}{banned}"))
        }
    };
    let source = snapshot.config.streams.source.name();
    ExplainedRow::new("stream", source, age, verdict, detail)
}

fn verdict_row(verdict: &TokenVerdict, rule: &SocketRule) -> (Outcome, ExplainedRow) {
    let withheld = if rule.binary {
        "in JSON null takes its place, elsewhere, as in bytes, an empty string"
    } else {
        "in JSON null takes its place, elsewhere an empty string"
    };
    let (outcome, verdict, detail) = match verdict {
        TokenVerdict::Granted { demoted: false, .. } => (
            Outcome::Ok,
            RowVerdict::Passes,
            "the token's lifetime is cut to token.lifetime".to_owned(),
        ),
        TokenVerdict::Granted { demoted: true, .. } => (
            Outcome::Ok,
            RowVerdict::Passes,
            "a token to watch with takes its place (publisher_for_others)".to_owned(),
        ),
        TokenVerdict::Refused(outcome) => (
            *outcome,
            RowVerdict::Refuses,
            format!("{withheld} ({})", outcome.as_str()),
        ),
        TokenVerdict::Unanswered => (
            Outcome::Unavailable,
            RowVerdict::NoAnswer,
            format!("{withheld}, while a source gives no answer"),
        ),
    };
    (
        outcome,
        ExplainedRow::new("verdict", "reissue", None, verdict, detail),
    )
}
