//! The claims of a grant that replicas share: who holds a user in a channel, and how many channels a publisher holds.
//! One script, one round trip, on the server's clock.
//!
//! Keeps true: a claim is made as a whole or not at all; every claim ends with its token; keys are bounded in length,
//! and all have one hash tag.
//! Must not know: who decides while there is no answer, whether a stream is over.

use std::time::Duration;

use redis::{Cmd, Value};
use sha2::{Digest as _, Sha256};

use super::link::{Link, Script};
use super::{LONGEST_NAME, NoStore, Store, hexadecimal};
use crate::sessions::{Rules, SeatRequest, SessionIdentity, SessionUser};
use crate::terms::role::Role;

/// The store's answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClaimAnswer {
    /// Nobody else holds what is claimed, or it was taken from them; it is the subject's now.
    Made,
    /// Another subject holds the user.
    UserTaken,
    /// The publisher holds as many other channels as there may be: these, and perhaps more.
    TooManyChannels(Vec<Box<str>>),
}

/// A user of a channel, and the subject that may still hold it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeatHeld<'a> {
    pub channel: &'a str,
    pub user: &'a SessionUser,
    pub subject: &'a str,
}

impl Store {
    /// Makes the claims of a grant that lasts this long. `over` are channels of the subject whose streams are over.
    /// Asks nothing where no other replica's claim could matter.
    pub(crate) async fn claim(
        &self,
        claim: SeatRequest<'_>,
        rules: Rules,
        lasts: Duration,
        over: &[Box<str>],
    ) -> Result<ClaimAnswer, NoStore> {
        let binds = rules.bind_uid && *claim.user != SessionUser::Uid(0);
        let publishes = claim.role == Role::Publisher;
        let most = rules.max_streams_per_publisher;
        let most = if publishes { most } else { 0 };
        if !binds && most == 0 {
            return Ok(ClaimAnswer::Made);
        }
        let prefix = self.config.prefix.as_str();
        let asking = self.ask(async |link| {
            let keys = [
                user_key(prefix, claim.channel, claim.user),
                channels_key(prefix, claim.subject),
            ];
            let mut command = command(link, &keys, &name(claim.subject), lasts);
            command
                .arg(u8::from(publishes))
                .arg(u8::from(binds))
                .arg(most)
                .arg(claim.channel)
                .arg(over.iter().map(|channel| &**channel).collect::<Vec<_>>());
            link.run(&command, Script::Claims).await
        });
        match asking.await? {
            Value::Int(0) => Ok(ClaimAnswer::Made),
            Value::Int(1) => Ok(ClaimAnswer::UserTaken),
            Value::Array(named) => Ok(ClaimAnswer::TooManyChannels(others(named, claim.channel))),
            _ => Err(NoStore),
        }
    }

    /// For each user of a channel: whether a subject other than this one has claimed it.
    pub(crate) async fn claimed_by_others<'c>(
        &self,
        users: impl Iterator<Item = SeatHeld<'c>>,
    ) -> Result<Vec<bool>, NoStore> {
        let mut command = redis::cmd("MGET");
        let mut own = Vec::new();
        for held in users {
            command.arg(user_key(&self.config.prefix, held.channel, held.user));
            own.push(name(held.subject).into_bytes());
        }
        if own.is_empty() {
            return Ok(Vec::new());
        }
        let asking = self.within_timeout(async |link| link.send(&command).await);
        let Value::Array(holders) = asking.await? else {
            return Err(NoStore);
        };
        let is_another = |(holder, own): (Value, Vec<u8>)| matches!(holder, Value::BulkString(name) if name != own);
        Ok(holders.into_iter().zip(own).map(is_another).collect())
    }
}

impl Store {
    /// Gives up a session's claim to its user, if its subject holds it.
    pub(crate) async fn release(&self, session: &SessionIdentity) -> Result<(), NoStore> {
        if session.user == SessionUser::Uid(0) {
            return Ok(());
        }
        let prefix = self.config.prefix.as_str();
        let asking = self.within_timeout(async |link| {
            let keys = [
                user_key(prefix, &session.channel, &session.user),
                channels_key(prefix, &session.subject),
            ];
            let subject = name(&session.subject);
            let command = command(link, &keys, &subject, Duration::ZERO);
            link.run(&command, Script::Claims).await
        });
        asking.await.map(|_answer| ())
    }
}

fn command(link: &Link, keys: &[String; 2], subject: &str, lasts: Duration) -> Cmd {
    let mut command = link.command(Script::Claims, keys.len());
    let milliseconds = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
    command.arg(keys).arg(subject).arg(milliseconds);
    command
}

/// A command that shows whether the script runs and may write: a publisher's claim, which always passes.
pub(super) fn probe(link: &Link, prefix: &str) -> Cmd {
    let keys = ["user", "channels"].map(|key| format!("{prefix}{{shared}}:claims:probe:{key}"));
    let mut command = command(link, &keys, "probe", Duration::from_secs(1));
    command.arg(1).arg(1).arg(1).arg("probe");
    command
}

/// The channels that the script names, without the claim's own.
fn others(named: Vec<Value>, own: &str) -> Vec<Box<str>> {
    let texts = named.into_iter().filter_map(|channel| match channel {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        // The first item says which refusal this is.
        _ => None,
    });
    texts
        .filter(|channel| channel != own)
        .map(String::into_boxed_str)
        .collect()
}

/// The key of a user's holder. A channel's name, and an account's, may hold any character.
fn user_key(prefix: &str, channel: &str, user: &SessionUser) -> String {
    match user {
        SessionUser::Uid(uid) if channel.len() <= LONGEST_NAME => {
            format!("{prefix}{{shared}}:claims:uid:{channel}:{uid}")
        }
        SessionUser::Uid(uid) => {
            let channel = hexadecimal(&Sha256::digest(channel));
            format!("{prefix}{{shared}}:claims:uid-sha256:{channel}:{uid}")
        }
        SessionUser::Account(account) => {
            let mut hash = Sha256::new_with_prefix(channel.len().to_le_bytes());
            hash.update(channel);
            hash.update(&**account);
            let hash = hexadecimal(&hash.finalize());
            format!("{prefix}{{shared}}:claims:account-sha256:{hash}")
        }
    }
}

/// The key of a publisher's channels.
fn channels_key(prefix: &str, subject: &str) -> String {
    format!("{prefix}{{shared}}:claims:channels:{}", name(subject))
}

/// A subject as a value: short ones as they are, behind a mark that no hash begins with.
fn name(subject: &str) -> String {
    if subject.len() <= LONGEST_NAME {
        format!("={subject}")
    } else {
        hexadecimal(&Sha256::digest(subject))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bounded_and_tell_every_user_from_every_other() {
        let account = |account: &str| SessionUser::Account(account.into());
        let key = |channel: &str, user: &SessionUser| user_key("renewd:", channel, user);
        assert_eq!(
            key("live:1", &SessionUser::Uid(7)),
            "renewd:{shared}:claims:uid:live:1:7"
        );
        let keys = [
            key("live:1", &SessionUser::Uid(7)),
            key("live", &SessionUser::Uid(7)),
            key(&"x".repeat(65), &SessionUser::Uid(7)),
            key(&"x".repeat(66), &SessionUser::Uid(7)),
            key("live", &account("x7")),
            key("livex", &account("7")),
            key("live", &account(&"y".repeat(255))),
            channels_key("renewd:", "ann"),
            channels_key("renewd:", &"a".repeat(65)),
            channels_key("renewd:", &"a".repeat(4096)),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(key.starts_with("renewd:{shared}:claims:") && key.len() < 120);
            assert!(!keys[..index].contains(key), "{key}");
        }
        assert_ne!(name(&name(&"a".repeat(65))), name(&"a".repeat(65)));
    }
}
