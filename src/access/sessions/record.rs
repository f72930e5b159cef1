//! A session as bytes, to be written down, and back. Pure.
//!
//! Keeps true: what was written is read as it was; any other bytes are refused, not guessed at.

use super::{Identity, Kept, User};
use crate::role::Role;

/// What is written down of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A session is as it says.
    Session(Kept),
    /// A session was taken away before it expired.
    Forgotten(Identity),
}

const SESSION: u8 = 1;
const FORGOTTEN: u8 = 2;
const UID: u8 = 0;
const ACCOUNT: u8 = 1;
const REFUSED: u8 = 1;
const ENDED: u8 = 2;
const DENIED: u8 = 4;

impl Record {
    /// Its bytes: numbers little-endian, texts after their lengths. `None` for a text above 65 535 bytes.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(128);
        let identity = match self {
            Self::Session(kept) => {
                bytes.push(SESSION);
                bytes.push(u8::try_from(kept.role.index()).ok()?);
                let refused = if kept.refused { REFUSED } else { 0 };
                let ended = if kept.ended { ENDED } else { 0 };
                let denied = if kept.denied { DENIED } else { 0 };
                bytes.push(refused | ended | denied);
                for time in [kept.first_issued, kept.expires[0], kept.expires[1]] {
                    bytes.extend_from_slice(&time.to_le_bytes());
                }
                bytes.extend_from_slice(&kept.refreshes.to_le_bytes());
                &kept.identity
            }
            Self::Forgotten(identity) => {
                bytes.push(FORGOTTEN);
                identity
            }
        };
        text(&identity.channel, &mut bytes)?;
        text(&identity.subject, &mut bytes)?;
        match &identity.user {
            User::Uid(uid) => {
                bytes.push(UID);
                bytes.extend_from_slice(&uid.to_le_bytes());
            }
            User::Account(account) => {
                bytes.push(ACCOUNT);
                text(account, &mut bytes)?;
            }
        }
        Some(bytes)
    }

    /// The record that these bytes are.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        let record = match rest.byte()? {
            SESSION => {
                let role = *Role::ALL.get(usize::from(rest.byte()?))?;
                let marks = rest.byte()?;
                if marks & !(REFUSED | ENDED | DENIED) != 0 {
                    return None;
                }
                let first_issued = rest.number()?;
                let expires = [rest.number()?, rest.number()?];
                let refreshes = u16::from_le_bytes(rest.take()?);
                Self::Session(Kept {
                    role,
                    first_issued,
                    expires,
                    refreshes,
                    refused: marks & REFUSED != 0,
                    ended: marks & ENDED != 0,
                    denied: marks & DENIED != 0,
                    identity: rest.identity()?,
                })
            }
            FORGOTTEN => Self::Forgotten(rest.identity()?),
            _ => return None,
        };
        rest.0.is_empty().then_some(record)
    }
}

fn text(text: &str, into: &mut Vec<u8>) -> Option<()> {
    let length = u16::try_from(text.len()).ok()?;
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(text.as_bytes());
    Some(())
}

/// What is not read yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take().map(|[byte]| byte)
    }

    fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::from(u16::from_le_bytes(self.take()?));
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    fn identity(&mut self) -> Option<Identity> {
        let (channel, subject) = (self.text()?, self.text()?);
        let user = match self.byte()? {
            UID => User::Uid(self.number()?),
            ACCOUNT => User::Account(self.text()?.into_boxed_str()),
            _ => return None,
        };
        Some(Identity {
            channel,
            subject,
            user,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identities() -> impl Strategy<Value = Identity> {
        let users = prop_oneof![
            any::<u32>().prop_map(User::Uid),
            ".{1,40}".prop_map(|account| User::Account(account.into())),
        ];
        (".{0,64}", ".{0,300}", users).prop_map(|(channel, subject, user)| Identity {
            channel,
            subject,
            user,
        })
    }

    fn records() -> impl Strategy<Value = Record> {
        let numbers = any::<(bool, [bool; 3], u32, [u32; 2], u16)>();
        prop_oneof![
            identities().prop_map(Record::Forgotten),
            (identities(), numbers).prop_map(|(identity, numbers)| {
                let (publisher, marks, first_issued, expires, refreshes) = numbers;
                let [refused, ended, denied] = marks;
                Record::Session(Kept {
                    identity,
                    role: if publisher {
                        Role::Publisher
                    } else {
                        Role::Subscriber
                    },
                    first_issued,
                    expires,
                    refreshes,
                    refused,
                    ended,
                    denied,
                })
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_it_was_and_nothing_shorter_or_longer_is(record in records()) {
            let bytes = record.encode().unwrap();
            prop_assert_eq!(Record::decode(&bytes), Some(record));
            for length in 0..bytes.len() {
                prop_assert_eq!(Record::decode(&bytes[..length]), None);
            }
            prop_assert_eq!(Record::decode(&[&bytes[..], &[0]].concat()), None);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(record) = Record::decode(&bytes) {
                prop_assert_eq!(record.encode(), Some(bytes));
            }
        }
    }

    #[test]
    fn a_text_too_long_to_be_written_down_is_not() {
        let identity = |length: usize| Identity {
            channel: "show".to_owned(),
            subject: "x".repeat(length),
            user: User::Uid(7),
        };
        assert!(Record::Forgotten(identity(65_535)).encode().is_some());
        assert_eq!(Record::Forgotten(identity(65_536)).encode(), None);
    }
}
