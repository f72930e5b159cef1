//! A revocation as it is written down: one JSON object a record.
//!
//! Keeps true: a record of this version or an older one is read, whatever members it has beside the known ones; a
//! record of a later version is kept as it is and written again, but is not applied, because this build can't know
//! what it refuses. What is not a record is said to be none.
//! Must not know: where records are stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Revocation, RevocationId, RevocationTarget};
use crate::terms::user::User;

/// The version that this build writes. A version only goes up when older builds must not apply the record.
const VERSION: u64 = 1;

/// The change that a record describes.
#[derive(Clone, Debug, PartialEq)]
pub enum RevocationRecord {
    /// A revocation is made.
    Made(Revocation),
    /// A revocation is over before its time.
    Lifted {
        /// The revocation's name.
        id: RevocationId,
        /// When it would have been over, in Unix seconds: the record means nothing after that.
        until: u64,
    },
    /// The record is of a later version.
    Later(Box<[u8]>),
}

/// The members of a record. Times are Unix seconds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct RevocationMembers {
    v: u64,
    #[serde(default)]
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    channel: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    holders: Vec<Box<str>>,
    #[serde(default)]
    created: u64,
    #[serde(default)]
    until: u64,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    reason: Box<str>,
    #[serde(default, skip_serializing_if = "is_false")]
    lifted: bool,
    /// Members that a later build of the same version has added.
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
fn is_false(value: &bool) -> bool {
    !*value
}

/// The version of a record, whatever else is in it; `None` where the bytes are no record.
pub(crate) fn record_version(bytes: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Versioned {
        v: u64,
    }
    let Versioned { v } = serde_json::from_slice(bytes).ok()?;
    Some(v)
}

impl RevocationRecord {
    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let members = match self {
            Self::Made(revocation) => RevocationMembers::of(revocation),
            Self::Lifted { id, until } => RevocationMembers {
                v: VERSION,
                id: id.to_string(),
                until: *until,
                lifted: true,
                ..RevocationMembers::default()
            },
            Self::Later(bytes) => return bytes.to_vec(),
        };
        // No member can fail to be written: the keys are strings and the numbers are integers.
        serde_json::to_vec(&members).unwrap_or_default()
    }

    /// The record's id, when it means nothing any more (Unix seconds), and whether it lifts a revocation; `None` of a
    /// later build's.
    pub(crate) fn place(&self) -> Option<(RevocationId, u64, bool)> {
        match self {
            Self::Made(revocation) => Some((revocation.id, revocation.until, false)),
            Self::Lifted { id, until } => Some((*id, *until, true)),
            Self::Later(_) => None,
        }
    }

    /// Reads a record; `None` where the bytes are none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if record_version(bytes)? > VERSION {
            return Some(Self::Later(bytes.into()));
        }
        let members: RevocationMembers = serde_json::from_slice(bytes).ok()?;
        let id = RevocationId::parse(&members.id)?;
        if members.lifted {
            let until = members.until;
            return Some(Self::Lifted { id, until });
        }
        let target = members.target()?;
        Some(Self::Made(Revocation {
            id,
            target,
            holders: members.holders,
            created: members.created,
            until: members.until,
            reason: members.reason,
            others: members.others,
        }))
    }
}

impl RevocationMembers {
    fn of(revocation: &Revocation) -> Self {
        let target = &revocation.target;
        let user = target.user();
        Self {
            v: VERSION,
            id: revocation.id.to_string(),
            subject: target.subject().map(Into::into),
            channel: target.channel().map(Into::into),
            uid: user.as_ref().and_then(User::uid),
            account: user.as_ref().and_then(User::account).map(Into::into),
            holders: revocation.holders.clone(),
            created: revocation.created,
            until: revocation.until,
            reason: revocation.reason.clone(),
            lifted: false,
            others: revocation.others.clone(),
        }
    }

    fn target(&self) -> Option<RevocationTarget> {
        let user = match (self.uid, self.account.clone()) {
            (Some(uid), None) => Some(User::Uid(uid)),
            (None, Some(account)) => Some(User::Account(account)),
            (None, None) => None,
            (Some(_), Some(_)) => return None,
        };
        RevocationTarget::new(self.subject.clone(), self.channel.clone(), user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01a3185c500100000000000000000007";

    fn made(target: RevocationTarget) -> Revocation {
        Revocation {
            id: RevocationId::parse(ID).unwrap(),
            target,
            holders: Vec::new(),
            created: 1_800_000_000,
            until: 1_800_003_600,
            reason: "spam".into(),
            others: BTreeMap::new(),
        }
    }

    #[test]
    fn every_kind_of_record_is_read_back() {
        let in_channel = |user| RevocationTarget::UserInChannel {
            channel: "live_a".into(),
            user,
        };
        let targets = [
            RevocationTarget::Subject("ann".into()),
            RevocationTarget::Channel("live_a".into()),
            RevocationTarget::SubjectInChannel {
                subject: "ann \"é\u{1}".into(),
                channel: "live_a".into(),
            },
            in_channel(User::Uid(7)),
            in_channel(User::Account("a-7".into())),
        ];
        for target in targets {
            let mut revocation = made(target);
            revocation.holders = vec!["bob".into()];
            let record = RevocationRecord::Made(revocation);
            assert_eq!(RevocationRecord::decode(&record.encode()), Some(record));
        }
        let id = RevocationId::parse(ID).unwrap();
        let lifted = RevocationRecord::Lifted { id, until: 9 };
        assert_eq!(RevocationRecord::decode(&lifted.encode()), Some(lifted));
    }

    #[test]
    fn the_form_is_the_one_that_every_build_reads() {
        let record = RevocationRecord::Made(made(RevocationTarget::Subject("ann".into())));
        let written = String::from_utf8(record.encode()).unwrap();
        let expected = format!(
            r#"{{"v":1,"id":"{ID}","subject":"ann","created":1800000000,"until":1800003600,"reason":"spam"}}"#
        );
        assert_eq!(written, expected);
    }

    #[test]
    fn members_of_a_newer_build_are_kept() {
        let written = format!(
            r#"{{"v":1,"id":"{ID}","channel":"live_a","created":1,"until":2,"colour":{{"x":[1]}}}}"#
        );
        let record = RevocationRecord::decode(written.as_bytes()).unwrap();
        let RevocationRecord::Made(revocation) = &record else {
            panic!("{record:?}");
        };
        assert_eq!(
            revocation.target,
            RevocationTarget::Channel("live_a".into())
        );
        assert_eq!(String::from_utf8(record.encode()).unwrap(), written);
    }

    #[test]
    fn a_record_of_a_later_version_is_kept_byte_for_byte_and_not_applied() {
        let written = br#"{"device":"x", "v":2,"subject":"ann"}"#;
        let record = RevocationRecord::decode(written).unwrap();
        assert_eq!(record, RevocationRecord::Later(written.as_slice().into()));
        assert_eq!(record.encode(), written);
    }

    #[test]
    fn what_is_no_record_is_said_to_be_none() {
        let id = format!(r#""id":"{ID}""#);
        for written in [
            String::new(),
            "{}".to_owned(),
            "[1]".to_owned(),
            format!("{{{id}}}"),
            format!(r#"{{"v":1,{id}}}"#),
            format!(r#"{{"v":1,{id},"subject":7}}"#),
            format!(r#"{{"v":1,{id},"uid":7,"until":9}}"#),
            format!(r#"{{"v":1,{id},"channel":"a","uid":7,"account":"b","until":9}}"#),
            r#"{"v":1,"id":"7","subject":"ann"}"#.to_owned(),
        ] {
            assert_eq!(
                RevocationRecord::decode(written.as_bytes()),
                None,
                "{written}"
            );
        }
    }
}
