//! An ejection as it is written down: one JSON object a record.
//!
//! Keeps true: a record of this version or an older one is read, whatever members it has beside the known ones; a
//! record of a later version is kept as it is and written again, but is not acted on. The last record of an ejection
//! counts.
//! Must not know: where records are stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Ejection, EjectionId, EjectionStage, EjectionTally};
use crate::revocation::{RevocationId, record_version};
use crate::terms::role::Role;

/// The version that this build writes. A version only goes up when older builds must not act on the record.
const VERSION: u64 = 1;

/// The content of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum EjectionRecord {
    /// An ejection, at the stage that it has reached.
    Ejection(Ejection),
    /// The numbers of a revocation beside the ejections that have records of their own.
    Tally {
        /// Whose ejections are counted.
        revocation: RevocationId,
        /// When the revocation is over, in Unix seconds: the record means nothing after that.
        until: u64,
        /// The numbers; none of them is pending.
        tally: EjectionTally,
        /// Members that a newer build has written and this one doesn't know.
        others: BTreeMap<String, Value>,
    },
    /// The record is of a later version.
    Later(Box<[u8]>),
}

/// The members of a record. Times are Unix seconds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct EjectionMembers {
    v: u64,
    #[serde(default)]
    revocation: String,
    /// `None` in a tally.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    number: Option<u32>,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    app: Box<str>,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    channel: Box<str>,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    subject: Box<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    role: Box<str>,
    #[serde(default)]
    until: u64,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    stage: Box<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rule: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    done: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_possible: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dropped: Option<u64>,
    /// Members that a later build of the same version has added.
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

impl EjectionRecord {
    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let members = match self {
            Self::Ejection(ejection) => EjectionMembers::of(ejection),
            Self::Tally {
                revocation,
                until,
                tally,
                others,
            } => EjectionMembers {
                v: VERSION,
                revocation: revocation.to_string(),
                until: *until,
                done: Some(tally.done),
                failed: Some(tally.failed),
                not_possible: Some(tally.not_possible),
                dropped: Some(tally.dropped),
                error: tally.error.clone(),
                others: others.clone(),
                ..EjectionMembers::default()
            },
            Self::Later(bytes) => return bytes.to_vec(),
        };
        // No member can fail to be written: the keys are strings and the numbers are integers.
        serde_json::to_vec(&members).unwrap_or_default()
    }

    /// Reads a record; `None` where the bytes are none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if record_version(bytes)? > VERSION {
            return Some(Self::Later(bytes.into()));
        }
        let members: EjectionMembers = serde_json::from_slice(bytes).ok()?;
        let revocation = RevocationId::parse(&members.revocation)?;
        if let Some(number) = members.number {
            let id = EjectionId { revocation, number };
            return members.ejection(id).map(Self::Ejection);
        }
        Some(Self::Tally {
            revocation,
            until: members.until,
            tally: EjectionTally {
                pending: 0,
                done: members.done?,
                failed: members.failed.unwrap_or_default(),
                not_possible: members.not_possible.unwrap_or_default(),
                dropped: members.dropped.unwrap_or_default(),
                error: members.error,
            },
            others: members.others,
        })
    }
}

impl EjectionMembers {
    fn of(ejection: &Ejection) -> Self {
        let (stage, rule, error) = match &ejection.stage {
            EjectionStage::Waiting => ("waiting", None, None),
            EjectionStage::Made { rule } => ("made", Some(*rule), None),
            EjectionStage::Failed { error } => ("failed", None, Some(error.clone())),
            EjectionStage::Dropped => ("dropped", None, None),
            EjectionStage::Lifting { rule } => ("lifting", Some(*rule), None),
            EjectionStage::Over => ("over", None, None),
        };
        Self {
            v: VERSION,
            revocation: ejection.id.revocation.to_string(),
            number: Some(ejection.id.number),
            app: ejection.app_id.clone(),
            channel: ejection.channel.clone(),
            subject: ejection.subject.clone(),
            uid: Some(ejection.uid),
            role: ejection.role.as_str().into(),
            until: ejection.until,
            stage: stage.into(),
            rule,
            error,
            others: ejection.others.clone(),
            ..Self::default()
        }
    }

    fn ejection(self, id: EjectionId) -> Option<Ejection> {
        let stage = match (&*self.stage, self.rule) {
            ("waiting", _) => EjectionStage::Waiting,
            ("made", Some(rule)) => EjectionStage::Made { rule },
            ("failed", _) => EjectionStage::Failed {
                error: self.error.unwrap_or_default(),
            },
            ("dropped", _) => EjectionStage::Dropped,
            ("lifting", Some(rule)) => EjectionStage::Lifting { rule },
            ("over", _) => EjectionStage::Over,
            _ => return None,
        };
        let mut roles = Role::ALL.into_iter();
        Some(Ejection {
            id,
            app_id: self.app,
            channel: self.channel,
            subject: self.subject,
            // A rule for uid 0, or without a uid, would close the channel to everybody.
            uid: self.uid.filter(|uid| *uid != 0)?,
            role: roles.find(|role| *role.as_str() == *self.role)?,
            until: self.until,
            stage,
            others: self.others,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01a3185c500100000000000000000007";

    fn ejection(stage: EjectionStage) -> Ejection {
        Ejection {
            id: EjectionId {
                revocation: RevocationId::parse(ID).unwrap(),
                number: 3,
            },
            app_id: "970ca35de60c44645bbae8a215061b33".into(),
            channel: "live_\"é".into(),
            subject: "ann".into(),
            uid: 7,
            role: Role::Publisher,
            until: 1_800_003_600,
            stage,
            others: BTreeMap::new(),
        }
    }

    #[test]
    fn every_kind_of_record_is_read_back() {
        let stages = [
            EjectionStage::Waiting,
            EjectionStage::Made { rule: 1953 },
            EjectionStage::Failed {
                error: "Agora answered 400".into(),
            },
            EjectionStage::Dropped,
            EjectionStage::Lifting { rule: u64::MAX },
            EjectionStage::Over,
        ];
        let ejections = stages.map(|stage| EjectionRecord::Ejection(ejection(stage)));
        let tally = EjectionRecord::Tally {
            revocation: RevocationId::parse(ID).unwrap(),
            until: 9,
            tally: EjectionTally {
                pending: 0,
                done: 1,
                failed: 2,
                not_possible: 3,
                dropped: 4,
                error: Some("why".into()),
            },
            others: BTreeMap::new(),
        };
        for record in ejections.into_iter().chain([tally]) {
            assert_eq!(EjectionRecord::decode(&record.encode()), Some(record));
        }
    }

    #[test]
    fn members_of_a_newer_build_and_records_of_a_later_version_are_kept() {
        let written = format!(
            r#"{{"v":1,"revocation":"{ID}","number":0,"app":"a","channel":"c","subject":"s","uid":7,"role":"subscriber","until":9,"stage":"made","rule":5,"colour":[1]}}"#
        );
        let record = EjectionRecord::decode(written.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(record.encode()).unwrap(), written);
        let later = br#"{"device":"x", "v":2}"#;
        let record = EjectionRecord::decode(later).unwrap();
        assert_eq!(record, EjectionRecord::Later(later.as_slice().into()));
        assert_eq!(record.encode(), later);
    }

    #[test]
    fn what_is_no_record_is_said_to_be_none() {
        let of = |rest: &str| format!(r#"{{"v":1,"revocation":"{ID}"{rest}}}"#);
        let whole =
            r#","number":0,"app":"a","channel":"c","subject":"s","role":"subscriber","until":9"#;
        for written in [
            String::new(),
            "{}".to_owned(),
            of(""),
            of(&format!(r#"{whole},"uid":0,"stage":"waiting""#)),
            of(&format!(r#"{whole},"stage":"waiting""#)),
            of(&format!(r#"{whole},"uid":7,"stage":"made""#)),
            of(&format!(r#"{whole},"uid":7,"stage":"later""#)),
            of(&format!(r#"{whole},"uid":"7","stage":"waiting""#)),
        ] {
            let read = EjectionRecord::decode(written.as_bytes());
            assert_eq!(read, None, "{written}");
        }
    }
}
