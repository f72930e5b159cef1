//! The operator's request to revoke, as the admin listener gets it: read and checked. Pure.
//!
//! Keeps true: what this returns is a target that a token request can have, and an end that lies ahead by at most
//! [`LONGEST`]; every refusal names the field and says what is accepted.
//! Must not know: who asks, what becomes of the revocation.

use std::time::{Duration, UNIX_EPOCH};

use super::request::{ACCOUNT, CHANNEL, text, user};
use super::request_fields::BodyFields;
use crate::agora::charset;
use crate::revocation::RevocationTarget;

/// The longest revocation. Longer ones belong into the account source.
const LONGEST: Duration = Duration::from_hours(365 * 24);

/// The longest subject, in bytes: several of them fit into one record of the state directory.
const SUBJECT_BYTES: usize = 1024;

/// The longest reason, in bytes.
const REASON_BYTES: usize = 1024;

/// Every field's first name.
const FIELDS: &str = "subject, channel, uid, account, for, until and reason";

/// A revocation that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationRequest {
    /// The tokens that the revocation refuses.
    pub target: RevocationTarget,
    /// When it is over, in Unix seconds.
    pub until: u64,
    /// The operator's note; empty for none.
    pub reason: String,
}

impl RevocationRequest {
    /// The request of a JSON object, at a time in Unix seconds. The error names the field that is wrong.
    pub(crate) fn from_json(body: &[u8], now: u64) -> Result<Self, String> {
        let fields = BodyFields::from_json(body)?;
        if let Some(unknown) = fields.names().find(|name| !is_field(name)) {
            return Err(format!("{unknown}: unknown; the fields are {FIELDS}"));
        }
        Ok(Self {
            target: target(&fields)?,
            until: until(&fields, now)?,
            reason: reason(&fields)?.to_owned(),
        })
    }
}

fn is_field(name: &str) -> bool {
    CHANNEL.contains(&name)
        || ACCOUNT.contains(&name)
        || matches!(name, "subject" | "uid" | "for" | "until" | "reason")
}

fn target(fields: &BodyFields) -> Result<RevocationTarget, String> {
    let subject = text(fields, &["subject"])?;
    match subject.map(str::len) {
        Some(0) => return Err("subject: must not be empty".to_owned()),
        Some(length) if length > SUBJECT_BYTES => {
            return Err(format!("subject: longer than {SUBJECT_BYTES} bytes"));
        }
        _ => {}
    }
    let channel = text(fields, &CHANNEL)?;
    if let Some(channel) = channel {
        charset::channel_name(channel).map_err(|error| format!("channel: {error}"))?;
    }
    let has_user = fields.get("uid").is_some() || text(fields, &ACCOUNT)?.is_some();
    // A caller that has no value for a name would revoke a whole channel, or a user in every channel.
    let widens = |name: &&str| match *name {
        "subject" => true,
        name if CHANNEL.contains(&name) => true,
        name => !has_user && (name == "uid" || ACCOUNT.contains(&name)),
    };
    if let Some(null) = fields.nulls().find(widens) {
        return Err(format!(
            "{null}: null names nothing; leave it out to revoke without it"
        ));
    }
    let user = has_user.then(|| user(fields)).transpose()?;
    let target = RevocationTarget::new(
        subject.map(Into::into),
        channel.map(Into::into),
        user.clone(),
    );
    target.ok_or_else(|| {
        let message = match (subject, user) {
            (Some(_), Some(_)) => {
                "subject: can't be combined with uid or account; revoke the subject, or channel and uid"
            }
            (None, Some(_)) => "channel: required with uid or account, which belong to one channel",
            (_, None) => "name what to revoke: subject, channel, both, or channel and uid",
        };
        message.to_owned()
    })
}

fn until(fields: &BodyFields, now: u64) -> Result<u64, String> {
    let ends = match (text(fields, &["for"])?, text(fields, &["until"])?) {
        (Some(_), Some(_)) => return Err("until: send either for or until, not both".to_owned()),
        (None, None) => {
            return Err(
                "for: required, how long the revocation lasts, such as \"2h\"; or until, its end"
                    .to_owned(),
            );
        }
        (Some(duration), None) => {
            let wrong =
                || "for: must be a duration such as \"90s\", \"2h\" or \"30days\"".to_owned();
            let duration = humantime::parse_duration(duration).map_err(|_| wrong())?;
            if duration < Duration::from_secs(1) {
                return Err("for: must be at least 1s".to_owned());
            }
            if duration > LONGEST {
                return Err("for: longer than a year (365days)".to_owned());
            }
            now.saturating_add(whole_seconds(duration))
        }
        (None, Some(time)) => {
            let wrong = || {
                "until: must be a time in UTC as RFC 3339 writes it, such as \"2026-12-31T23:59:59Z\"".to_owned()
            };
            let time = humantime::parse_rfc3339(time).map_err(|_| wrong())?;
            let ends = time.duration_since(UNIX_EPOCH).map_or(0, whole_seconds);
            if ends <= now {
                return Err("until: lies in the past".to_owned());
            }
            if ends - now > LONGEST.as_secs() {
                return Err("until: more than a year (365 days) ahead".to_owned());
            }
            ends
        }
    };
    Ok(ends)
}

/// A duration in whole seconds; part of a second counts as one, so that nothing ends too early.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn reason(fields: &BodyFields) -> Result<&str, String> {
    let reason = text(fields, &["reason"])?.unwrap_or_default();
    if reason.len() > REASON_BYTES {
        return Err(format!("reason: longer than {REASON_BYTES} bytes"));
    }
    Ok(reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::user::User;

    /// 2027-01-15T08:00:00Z.
    const NOW: u64 = 1_800_000_000;

    fn read(body: &str) -> Result<RevocationRequest, String> {
        RevocationRequest::from_json(body.as_bytes(), NOW)
    }

    fn target(names: &str) -> RevocationTarget {
        let body = format!(r#"{{{names},"for":"1h"}}"#);
        read(&body).unwrap().target
    }

    #[test]
    fn every_target_is_read() {
        let in_channel = |user| RevocationTarget::UserInChannel {
            channel: "live_a".into(),
            user,
        };
        assert_eq!(
            target(r#""subject":"ann""#),
            RevocationTarget::Subject("ann".into())
        );
        assert_eq!(
            target(r#""channel":"live_a""#),
            RevocationTarget::Channel("live_a".into())
        );
        assert_eq!(
            target(r#""channelName":"live_a","subject":"ann""#),
            RevocationTarget::SubjectInChannel {
                subject: "ann".into(),
                channel: "live_a".into()
            }
        );
        for uid in [r#""uid":7"#, r#""uid":"7","account":null"#] {
            let names = format!(r#""channel":"live_a",{uid}"#);
            assert_eq!(target(&names), in_channel(User::Uid(7)));
        }
        assert_eq!(
            target(r#""channel":"live_a","account":"a-7""#),
            in_channel(User::Account("a-7".into()))
        );
    }

    #[test]
    fn an_end_is_given_as_a_duration_or_as_a_time() {
        let until = |ends: &str| {
            read(&format!(r#"{{"subject":"ann",{ends}}}"#))
                .unwrap()
                .until
        };
        assert_eq!(until(r#""for":"1s""#), NOW + 1);
        assert_eq!(until(r#""for":"1500ms""#), NOW + 2);
        assert_eq!(until(r#""for":"1h 30m""#), NOW + 5400);
        assert_eq!(until(r#""for":"365days""#), NOW + 31_536_000);
        assert_eq!(until(r#""until":"2027-01-15T08:00:01Z""#), NOW + 1);
        assert_eq!(until(r#""until":"2027-01-15T08:00:00.001Z""#), NOW + 1);
        assert_eq!(until(r#""until":"2028-01-15T08:00:00Z""#), NOW + 31_536_000);
    }

    #[test]
    fn what_is_wrong_is_refused_by_name() {
        let (head, cases) = include_str!("bad_revocations.txt")
            .split_once("\n\n")
            .unwrap();
        assert!(head.lines().all(|line| line.starts_with("# ")));
        let cases: Vec<&str> = cases.trim_end().split("\n\n").collect();
        assert_eq!(cases.len(), 30);
        for case in cases {
            let (body, said) = case.split_once("\n  ").unwrap();
            let body = if body == "(nothing)" { "" } else { body };
            let refused = read(body).unwrap_err();
            assert!(refused.starts_with(said), "{body}: {refused}");
        }
    }

    #[test]
    fn long_texts_are_refused_by_name() {
        let long = "x".repeat(1025);
        let subject = format!(r#"{{"subject":"{long}","for":"1h"}}"#);
        let reason = format!(r#"{{"subject":"a","for":"1h","reason":"{long}"}}"#);
        for (body, said) in [
            (subject, "subject: longer than 1024 bytes"),
            (reason, "reason: longer than 1024 bytes"),
        ] {
            assert_eq!(read(&body).unwrap_err(), said);
        }
    }
}
