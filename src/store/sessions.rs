//! The part of sessions that replicas share: the set of their records, the key of the logins' hashes, and who counts a
//! lapse.
//!
//! Keeps true: one round trip gives entries and takes those that have changed; no entry is replaced that the caller
//! hasn't seen; a set that the server has lost, in part or as a whole, or has as it was some time ago, gets a new
//! epoch, under which every replica gives what it has. All keys have one hash tag. The key of the logins' hashes is in
//! no message and no log line.
//! Must not know: what an entry says, beside its name and its end.

use redis::Value;

use super::link::Script;
use super::{NoStore, SetVersion, Store};

/// The most entries that one round trip gives or takes: some 20 KiB, which keep the server from other requests for
/// less than half a millisecond.
pub(crate) const MOST_ENTRIES: usize = 100;

/// How long a counted lapse is remembered, in seconds: all replicas find it within a sweep of their tables, and ask the
/// streams source for at most a minute.
const LAPSE_KEPT: u64 = 900;

/// An entry that is pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PushedEntry {
    /// The entry's name.
    pub name: [u8; 16],
    /// When what the entry says is over, in Unix seconds.
    pub until: u32,
    /// The version that the caller has seen of the entry; 0 for none.
    pub seen: u64,
    /// The entry's bytes.
    pub bytes: Vec<u8>,
}

/// The set's answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum EntriesAnswer {
    /// The replicas must agree on a key of the logins' hashes first.
    NoLoginKey,
    /// The changes since the caller's version.
    Changes(EntryChanges),
}

/// The changes that a round trip brought.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EntryChanges {
    /// How far the set is read now.
    pub version: SetVersion,
    /// Whether there are more.
    pub more: bool,
    /// The bytes of the entries that have changed, without those that were pushed in this round trip.
    pub entries: Vec<Vec<u8>>,
    /// The entries that are there in the place of pushed ones that were not taken.
    pub others: Vec<OtherEntry>,
}

/// An entry that the caller hasn't seen, in the place of one that it pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OtherEntry {
    /// The position of the pushed one.
    pub position: usize,
    /// The version of the entry that is there.
    pub version: u64,
    /// The bytes of the entry that is there.
    pub bytes: Vec<u8>,
}

impl Store {
    /// Gives entries to the set, at most [`MOST_ENTRIES`], and takes what has changed in it.
    pub(crate) async fn exchange_sessions(
        &self,
        read: &SetVersion,
        pushed: &[PushedEntry],
    ) -> Result<EntriesAnswer, NoStore> {
        let prefix = self.config.prefix.as_str();
        let answer = self.within_timeout(async |link| {
            let mut command = link.command(Script::Sessions, 5);
            for key in ["entries", "versions", "ends", "about", "login-key"] {
                command.arg(key_of(prefix, key));
            }
            command.arg(&read.epoch).arg(read.version);
            command.arg(MOST_ENTRIES).arg(&self.name);
            for entry in pushed {
                command
                    .arg(&entry.name[..])
                    .arg(entry.until)
                    .arg(entry.seen)
                    .arg(&entry.bytes[..]);
            }
            link.run(&command, Script::Sessions).await
        });
        match answer.await? {
            Value::Nil => Ok(EntriesAnswer::NoLoginKey),
            Value::Array(parts) => changes(parts).map(EntriesAnswer::Changes).ok_or(NoStore),
            _ => Err(NoStore),
        }
    }

    /// The key of the logins' hashes on which the replicas have agreed. `own` becomes it where there is none; `None`
    /// waits for another replica's.
    pub(crate) async fn login_key<const LENGTH: usize>(
        &self,
        own: Option<&[u8; LENGTH]>,
    ) -> Result<Option<[u8; LENGTH]>, NoStore> {
        let prefix = self.config.prefix.as_str();
        let answer = self.within_timeout(async |link| {
            let mut command = link.command(Script::LoginKey, 1);
            command.arg(key_of(prefix, "login-key"));
            command.arg(own.map_or(&[][..], |own| &own[..]));
            link.run(&command, Script::LoginKey).await
        });
        match answer.await? {
            Value::BulkString(bytes) => Ok(bytes.try_into().ok()),
            _ => Ok(None),
        }
    }

    /// For each of these lapses, whether this replica is the first to count it.
    pub(crate) async fn first_to_count(&self, lapses: &[[u8; 16]]) -> Result<Vec<bool>, NoStore> {
        let prefix = self.config.prefix.as_str();
        let mut first = Vec::with_capacity(lapses.len());
        for names in lapses.chunks(MOST_ENTRIES) {
            let answer = self.within_timeout(async |link| {
                let mut command = link.command(Script::Lapses, 1);
                command.arg(key_of(prefix, "lapses")).arg(LAPSE_KEPT);
                for name in names {
                    command.arg(&name[..]);
                }
                link.run(&command, Script::Lapses).await
            });
            let Value::Array(answers) = answer.await? else {
                return Err(NoStore);
            };
            first.extend(answers.into_iter().map(|answer| answer == Value::Int(1)));
        }
        (first.len() == lapses.len())
            .then_some(first)
            .ok_or(NoStore)
    }
}

fn key_of(prefix: &str, key: &str) -> String {
    format!("{prefix}{{shared}}:sessions:{key}")
}

/// The changes in the script's answer; `None` where it is malformed.
fn changes(parts: Vec<Value>) -> Option<EntryChanges> {
    let [epoch, version, more, entries, others] = <[Value; 5]>::try_from(parts).ok()?;
    let (Value::Array(entries), Value::Array(others)) = (entries, others) else {
        return None;
    };
    let mut remaining = others.into_iter();
    let mut others = Vec::new();
    while let (Some(position), Some(version), Some(found)) =
        (remaining.next(), remaining.next(), remaining.next())
    {
        others.push(OtherEntry {
            position: usize::try_from(number(&position)?).ok()?,
            version: number(&version)?,
            bytes: bytes(found)?,
        });
    }
    Some(EntryChanges {
        version: SetVersion {
            epoch: String::from_utf8(bytes(epoch)?).ok()?,
            version: number(&version)?,
        },
        more: more == Value::Int(1),
        entries: entries.into_iter().filter_map(bytes).collect(),
        others,
    })
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}
