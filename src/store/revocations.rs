//! The revocations that replicas share: a set with a version, in which each replica sees the changes of the others.
//!
//! Keeps true: one round trip gives changes and takes them; a set that the server has lost, in part or as a whole, or
//! has as it was some time ago, gets a new epoch, under which every replica gives all it has. All keys have one hash
//! tag.
//! Must not know: what a record says, beside its id, its end and whether it was lifted.

use redis::{Cmd, Value};

use super::link::{Link, Script};
use super::{NoStore, Store};
use crate::revocation::RevocationRecord;

/// The most records that one round trip gives or takes: a few hundred kilobytes.
pub(crate) const MOST_AT_ONCE: usize = 200;

/// How far a replica has read the set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SetVersion {
    /// The set's name, which changes when the server has lost it; empty before the first answer.
    pub epoch: String,
    /// The number of the last change that was read.
    pub version: u64,
}

/// The changes that a round trip brought.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SetChanges {
    /// How far the set is read now.
    pub version: SetVersion,
    /// Whether there are more.
    pub more: bool,
    /// The records.
    pub records: Vec<RevocationRecord>,
}

impl Store {
    /// Gives records to the set, at most [`MOST_AT_ONCE`], and takes what has changed in it.
    pub(crate) async fn exchange_revocations(
        &self,
        read: &SetVersion,
        given: &[RevocationRecord],
    ) -> Result<SetChanges, NoStore> {
        let prefix = self.config.prefix.as_str();
        let answer = self.within_timeout(async |link| {
            let mut command = command(link, prefix, read, MOST_AT_ONCE, &self.name);
            for record in given {
                // A record of a later build stays where that build has put it.
                let Some((id, until, lifted)) = record.place() else {
                    continue;
                };
                command
                    .arg(id.to_string())
                    .arg(until)
                    .arg(u8::from(lifted))
                    .arg(record.encode());
            }
            link.run(&command, Script::Revocations).await
        });
        changes(answer.await?).ok_or(NoStore)
    }
}

fn command(link: &Link, prefix: &str, read: &SetVersion, most: usize, name: &str) -> Cmd {
    let mut command = link.command(Script::Revocations, 4);
    for key in ["records", "versions", "ends", "about"] {
        command.arg(format!("{prefix}{{shared}}:revocations:{key}"));
    }
    command.arg(&read.epoch).arg(read.version);
    command.arg(most).arg(name);
    command
}

/// A command that shows whether the script runs and may write. It reads nothing.
pub(super) fn probe(link: &Link, prefix: &str) -> Cmd {
    command(link, prefix, &SetVersion::default(), 0, "")
}

/// The changes in the script's answer; `None` where it is malformed.
fn changes(answer: Value) -> Option<SetChanges> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let [epoch, version, more, records] = <[Value; 4]>::try_from(parts).ok()?;
    let (Value::BulkString(epoch), Value::Int(version)) = (epoch, version) else {
        return None;
    };
    let Value::Array(records) = records else {
        return None;
    };
    let records = records.into_iter().filter_map(|record| match record {
        // What isn't a record was not written by a renewd.
        Value::BulkString(bytes) => RevocationRecord::decode(&bytes),
        _ => None,
    });
    Some(SetChanges {
        version: SetVersion {
            epoch: String::from_utf8(epoch).ok()?,
            version: u64::try_from(version).ok()?,
        },
        more: more == Value::Int(1),
        records: records.collect(),
    })
}
