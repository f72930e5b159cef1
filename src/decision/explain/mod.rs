//! The decision, step by step, for an operator who asks why a caller has no token: which row says what, by which
//! source, and how old that answer is.
//!
//! Keeps true: the rows, sources and caches are those of the decision itself; nothing is charged, minted or recorded;
//! what only a login could answer is said to be unchecked, never guessed.
//! Must not know: how the answer is shown.

mod limits;
mod question;

use std::time::Duration;

pub use self::question::ExplainQuestion;
use super::order::{self, Now, answers};
use super::request::TokenRequest;
use super::wire_format;
use crate::config::model::DecisionMode;
use crate::revocation::RevocationQuestion;
use crate::sessions::{Ground, Resting, SeatRequest};
use crate::snapshot::Snapshot;
use crate::sources::accounts::{Account, ConfiguredAccounts};
use crate::sources::lookup::NoAnswer;
use crate::sources::streams::StreamState;
use crate::terms::clock::{Clock, timer_now};
use crate::terms::explanation::{ExplainedRow, Explanation, RowVerdict};
use crate::terms::outcome::Outcome;
use crate::terms::role::Role;
use crate::terms::timestamp;
use crate::terms::user::User;

/// The rows so far; the first refusal is the answer.
struct Rows {
    steps: Vec<ExplainedRow>,
    outcome: Outcome,
}

impl Rows {
    fn add(&mut self, step: &'static str, source: &'static str, age: Option<Duration>, says: Says) {
        let (verdict, detail) = match says {
            Says::Passes(detail) => (RowVerdict::Passes, detail),
            Says::NotChecked(detail) => (RowVerdict::NotChecked, detail),
            Says::RidesThrough(detail) => (RowVerdict::RidesThrough, detail),
            Says::Refuses(outcome, detail) => {
                if self.outcome == Outcome::Ok {
                    self.outcome = outcome;
                }
                let verdict = match outcome {
                    Outcome::Unavailable => RowVerdict::NoAnswer,
                    _ => RowVerdict::Refuses,
                };
                (verdict, detail)
            }
        };
        let row = ExplainedRow::new(step, source, age, verdict, detail);
        self.steps.push(row);
    }
}

enum Says {
    Passes(String),
    Refuses(Outcome, String),
    RidesThrough(String),
    NotChecked(String),
}

/// Asks the rows in order.
pub(crate) async fn explain(
    snapshot: &Snapshot,
    clock: &Clock,
    question: &ExplainQuestion,
) -> Explanation {
    let now = Now {
        unix_millis: clock.unix_millis(),
        elapsed: clock.elapsed(),
        // The sources are asked one after the other here.
        due: timer_now() + 2 * snapshot.config.decision.timeout,
    };
    let mut rows = Rows {
        steps: Vec::new(),
        outcome: Outcome::Ok,
    };
    let request = &question.request;
    let (subject, channel) = (question.subject.as_str(), request.channel.as_str());
    let asked_role = order::asked_role(snapshot, request);
    let held = snapshot
        .sessions
        .held(channel, subject, asked_role, now.unix_seconds());
    let standing = |ground| {
        let (sessions, grounds) = (&snapshot.sessions, (ground, Resting::Anyone));
        sessions.stands(channel, subject, asked_role, grounds, now.unix_seconds())
    };
    let mode = mode(snapshot, subject, request, now);
    rows.add("mode", "configuration", None, mode);
    if !clock.is_plausible() {
        rows.add("clock", "the system", None, unset(now));
    }
    rows.add("holder", "sessions", None, holder(held));
    limits::add(snapshot, subject, channel, held, &mut rows).await;
    rows.add(
        "revocations",
        "revocations",
        None,
        revocations(snapshot, subject, request, now),
    );
    let refused = snapshot.logins.refuses_subject(subject, now.unix_seconds());
    let rests = standing(Ground::Account).filter(|_| !refused);
    account(snapshot, subject, rests, now, &mut rows).await;
    let rests = standing(Ground::Stream);
    let role = stream(snapshot, subject, request, rests, now, clock, &mut rows).await;
    sessions(snapshot, subject, request, role, now, &mut rows);
    authorize(snapshot, &mut rows);
    Explanation {
        status: Some(wire_format::status(rows.outcome).as_u16()),
        code: rows.outcome.as_str(),
        role: role.map(Role::as_str),
        steps: rows.steps,
    }
}

/// The row for a clock that can't be right: no login can be verified and no token dated.
fn unset(now: Now) -> Says {
    let detail = format!(
        "the system's clock reads {} s since 1970, which can't be",
        now.unix_seconds()
    );
    Says::Refuses(Outcome::Unavailable, detail)
}

fn mode(snapshot: &Snapshot, subject: &str, request: &TokenRequest, now: Now) -> Says {
    let decision = &snapshot.config.decision;
    if order::is_enforced(snapshot, Some(subject)) {
        return Says::Passes("enforce".to_owned());
    }
    let drains = order::is_to_drain(snapshot, subject, request, now);
    let mode = match decision.mode {
        DecisionMode::Enforce => format!("enforce_percent = {}", decision.enforce_percent),
        mode => mode.as_str().to_owned(),
    };
    let answers = match decision.mode {
        _ if drains => {
            "yet renewd still decides the renewal of this publisher's token, which was given here \
             (decision.drain_holders): a yes is answered here, anything else by the backend"
        }
        DecisionMode::Off => "the backend answers, whatever follows",
        DecisionMode::Observe => "the backend answers, what follows is counted",
        DecisionMode::Enforce => "this subject belongs to the backend",
    };
    Says::Passes(format!("{mode}: {answers}"))
}

fn holder(held: Option<Role>) -> Says {
    match held {
        Some(role) => Says::Passes(format!("holds an unexpired {} token", role.as_str())),
        None => Says::Passes("holds no token for this channel and role".to_owned()),
    }
}

fn revocations(snapshot: &Snapshot, subject: &str, request: &TokenRequest, now: Now) -> Says {
    let question = RevocationQuestion {
        subject: Some(subject),
        channel: Some(&request.channel),
        user: Some(request.user.borrowed()),
    };
    match snapshot.revocations.find(question, now.unix_seconds()) {
        None => Says::Passes("nothing of this is revoked".to_owned()),
        Some(revocation) => {
            let until = timestamp::from_seconds(revocation.until);
            let detail = format!("revocation {} is in force until {until}", revocation.id);
            Says::Refuses(Outcome::Revoked, detail)
        }
    }
}

async fn account(
    snapshot: &Snapshot,
    subject: &str,
    standing: Option<Role>,
    now: Now,
    rows: &mut Rows,
) {
    let source = snapshot.config.accounts.source.name();
    let not_checked = match &*snapshot.accounts {
        ConfiguredAccounts::None => Some("accounts.source = \"none\": a valid login is enough"),
        ConfiguredAccounts::ByCredentials(_) => Some("asked with the caller's own login"),
        ConfiguredAccounts::BySubject { .. } => None,
    };
    if let Some(detail) = not_checked {
        rows.add("account", source, None, Says::NotChecked(detail.to_owned()));
        return;
    }
    let patience = now.patience();
    let Some(looked) = snapshot.accounts.look(subject, "", None, patience).await else {
        return;
    };
    let (age, says) = match looked {
        Err(no_answer) => {
            let stale = snapshot.config.accounts.stale_if_error;
            let why = snapshot.accounts.lookups().and_then(|of| of.error());
            (None, unanswered(no_answer, why, stale, standing, now))
        }
        Ok(answer) => {
            let age = now.elapsed.saturating_sub(answer.asked_at);
            let says = match &*answer.value {
                Account::Unknown => Says::Refuses(
                    Outcome::Unauthenticated,
                    "there is no such account".to_owned(),
                ),
                Account::Denied(denial) => {
                    let reason = denial.reason.as_deref();
                    let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
                    Says::Refuses(denial.outcome, format!("{}{reason}", denial.message))
                }
                Account::Good { session: None } if snapshot.accounts.checks_session() => {
                    Says::Refuses(
                        Outcome::SessionReplaced,
                        "signed out: the account has no session".to_owned(),
                    )
                }
                Account::Good { .. } if snapshot.accounts.checks_session() => Says::Passes(
                    "in good standing; the login's session must be the account's".to_owned(),
                ),
                Account::Good { .. } => Says::Passes("in good standing".to_owned()),
            };
            (Some(age), says)
        }
    };
    rows.add("account", source, age, says);
}

/// The row for a source that gives no answer. `why` is the source's own reason; it holds no secret.
fn unanswered(
    no_answer: NoAnswer,
    why: Option<String>,
    stale: Duration,
    standing: Option<Role>,
    now: Now,
) -> Says {
    let why = why.map_or_else(String::new, |why| format!(" ({why})"));
    let failing = now.elapsed.saturating_sub(no_answer.since).as_secs();
    let failing = humantime::format_duration(Duration::from_secs(failing));
    if standing.is_some() && answers::rides_through(no_answer, stale, now) {
        Says::RidesThrough(format!(
            "no answer for {failing}{why}: a holder renews for {} in all, unless the login was refused or is of an \
             older session",
            humantime::format_duration(stale)
        ))
    } else {
        Says::Refuses(
            Outcome::Unavailable,
            format!("no answer for {failing}{why}"),
        )
    }
}

/// Rows 7 to 9; the role that was decided on.
async fn stream(
    snapshot: &Snapshot,
    subject: &str,
    request: &TokenRequest,
    standing: Option<Role>,
    now: Now,
    clock: &Clock,
    rows: &mut Rows,
) -> Option<Role> {
    let source = snapshot.config.streams.source.name();
    let looked = answers::look_stream(snapshot, subject, request, now).await;
    let age = looked
        .asked_at
        .map(|asked_at| clock.elapsed().saturating_sub(asked_at));
    let stream = match looked.lookup {
        Ok(Some(stream)) => stream,
        Ok(None) => {
            let detail = "no live stream has this channel".to_owned();
            let says = Says::Refuses(Outcome::StreamNotLive, detail);
            rows.add("stream", source, age, says);
            return request.role;
        }
        Err(no_answer) => {
            let stale = snapshot.config.streams.stale_if_error;
            let streams = &snapshot.streams;
            let why = streams.error().or_else(|| streams.doubt());
            let says = unanswered(no_answer, why, stale, standing, now);
            rows.add("stream", source, None, says);
            return standing.or(request.role);
        }
    };
    rows.add("stream", source, age, on_air(&stream));
    let (role, verdict) = answers::stream_role(snapshot, subject, request, &stream);
    let banned = if stream.bans(subject) {
        Says::Refuses(
            Outcome::ViewerBanned,
            "is banned from this stream".to_owned(),
        )
    } else {
        Says::Passes("isn't banned from this stream".to_owned())
    };
    rows.add("viewer", source, age, banned);
    let relation = if stream.owner.as_deref() == Some(subject) {
        "owns the stream"
    } else if stream.may_publish(subject) {
        "is a co-host of the stream"
    } else {
        "neither owns nor co-hosts the stream"
    };
    let may = verdict.is_ok() || role == Role::Subscriber || stream.may_publish(subject);
    let publishing = if may {
        Says::Passes(format!("{relation}: {}", role.as_str()))
    } else {
        Says::Refuses(Outcome::NotOwner, relation.to_owned())
    };
    rows.add("role", source, age, publishing);
    Some(role)
}

fn on_air(stream: &StreamState) -> Says {
    if stream.is_open() {
        return Says::Passes("live".to_owned());
    }
    let why = if stream.banned { "banned" } else { "not live" };
    Says::Refuses(Outcome::StreamNotLive, format!("the stream is {why}"))
}

/// Row 10, and what renewd's own tables say about row 11.
fn sessions(
    snapshot: &Snapshot,
    subject: &str,
    request: &TokenRequest,
    role: Option<Role>,
    now: Now,
    rows: &mut Rows,
) {
    let claim = SeatRequest {
        channel: &request.channel,
        subject,
        user: &request.user,
        role: role.unwrap_or(Role::Subscriber),
    };
    let rules = snapshot.session_rules();
    let says = match snapshot.sessions.check(claim, rules, now.unix_seconds()) {
        Ok(_) if request.user == User::Uid(0) => {
            Says::Passes("no limit of the policy is reached; no uid was named".to_owned())
        }
        Ok(_) => Says::Passes("the uid is free or theirs; no limit is reached".to_owned()),
        Err(refused) => {
            let refusal = order::DecisionRefusal::of_session(refused);
            Says::Refuses(refusal.outcome, refusal.message.into_owned())
        }
    };
    rows.add("uid and policy", "sessions", None, says);
}

fn authorize(snapshot: &Snapshot, rows: &mut Rows) {
    let says = if snapshot.config.authorize.is_some() {
        "asked with the login's claims, as the last step"
    } else {
        "no [authorize] hook"
    };
    rows.add("authorize", "hook", None, Says::NotChecked(says.to_owned()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_a_token_request_with_a_subject() {
        let question =
            ExplainQuestion::from_query("subject=ann&channel=live_a%2Bb&role=host&uid=7");
        let expected = ExplainQuestion {
            socket: false,
            subject: "ann".into(),
            request: TokenRequest {
                channel: "live_a+b".into(),
                user: User::Uid(7),
                role: Some(Role::Publisher),
            },
        };
        assert_eq!(question, Ok(expected));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, named) in [
            ("channel=a", "subject: required"),
            ("subject=a", "channel: required"),
            ("subject=a&channel=*", "channel: must not contain *"),
            ("subject=a&channel=", "channel: must not be empty; give"),
            ("socket=true&channel=", "channel: must not be empty; give"),
            ("subject=a&chanel=c", "chanel: unknown"),
            ("subject=a&channel=c&role=boss", "role: must be"),
        ] {
            let refused = ExplainQuestion::from_query(query).unwrap_err();
            assert!(refused.starts_with(named), "{query}: {refused}");
        }
    }
}
