//! Sessions and logins as the bytes in which they are written down, and back. Pure.
//!
//! Keeps true: the previous version of renewd reads all records of this one and takes from them what it knows, as
//! this version reads those of the next one: kinds, marks and trailing bytes that it doesn't know are no damage.
//! Known records are read as they were written, or refused.
//! Must not know: the journal's file, the table.

use std::num::NonZeroU64;

use super::{Grounds, SessionIdentity, SessionUser, StoredSession};
use crate::logins::remembered::{Login, RefusedLogin};
use crate::terms::role::Role;

/// One record of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionRecord {
    /// The state of a session.
    Session(StoredSession),
    /// A session was taken away before it expired.
    Forgotten(SessionIdentity),
    /// A login or a subject was refused, or is refused no longer.
    Refused(RefusedLogin),
    /// A record that a later version knows.
    Unknown,
}

/// Writes records, and reads them again in the order they were written in.
#[derive(Debug)]
pub struct Records {
    /// The name of the key in use, which tells its hashes from those of another key:
    /// [`crate::logins::remembered::Logins::key_name`].
    key: u32,
    /// The addition to the next record, if that is the record that the addition was written for.
    addition: Option<Addition>,
}

/// The fields that a session's own record has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Addition {
    /// CRC-32 of the session's record.
    of: u32,
    lacks: Grounds,
    login: Option<Login>,
    /// `None` where a former version wrote it.
    settled: Option<u32>,
}

const SESSION: u8 = 1;
const FORGOTTEN: u8 = 2;
const UID: u8 = 0;
const ACCOUNT: u8 = 1;
/// The first mark that no build knows yet.
const UNKNOWN_MARKS: u8 = 8;
const REFUSED: u8 = 1;
const ENDED: u8 = 2;
/// A source has said no since the last grant; the addition says which one.
const DENIED: u8 = 4;

/// The fields that were added after the first version are written in records that the first version takes for the
/// striking out of a session that doesn't exist: one without channel and subject, of an account that begins with this
/// character. A letter for the kind and hexadecimal digits follow it.
const RIDER: char = '\0';
const ADDITION: char = 'g';
const REFUSAL: char = 'r';

impl Records {
    /// Records with hashes of the key of this name; those of another key mean nothing.
    pub fn new(key: u32) -> Self {
        Self {
            key,
            addition: None,
        }
    }

    /// A record's bytes, in as many pieces as are to be written after one another: numbers are little-endian, texts
    /// come after their lengths. There are no pieces for a text above 65 535 bytes, and for an unknown record.
    pub fn encode(&self, record: &SessionRecord) -> Vec<Vec<u8>> {
        self.encode_over(record, &LaterFields::default())
    }

    /// The same, with what a later version has written of the same session.
    pub(super) fn encode_over(&self, record: &SessionRecord, later: &LaterFields) -> Vec<Vec<u8>> {
        let pieces = match record {
            SessionRecord::Session(kept) => session(kept, later).map(|bytes| {
                let plain =
                    !kept.is_denied() && kept.login.is_none() && kept.settled == kept.first_issued;
                let addition = (!plain).then(|| self.addition(kept, &bytes));
                addition.into_iter().flatten().chain([bytes]).collect()
            }),
            SessionRecord::Forgotten(identity) => forgotten(identity).map(|bytes| vec![bytes]),
            SessionRecord::Refused(RefusedLogin { login, until, at }) => {
                let Login(login) = login;
                let digits = format!("{:08x}{login:016x}{until:08x}{at:08x}", self.key);
                rider(REFUSAL, &digits).map(|bytes| vec![bytes])
            }
            SessionRecord::Unknown => None,
        };
        pieces.unwrap_or_default()
    }

    fn addition(&self, kept: &StoredSession, session: &[u8]) -> Option<Vec<u8>> {
        let of = crc32fast::hash(session);
        let login = kept.login.map_or(0, |Login(login)| login.get());
        let lacks = kept.lacks.bits();
        let settled = kept.settled;
        rider(
            ADDITION,
            &format!(
                "{of:08x}{:08x}{login:016x}{lacks:02x}{settled:08x}",
                self.key
            ),
        )
    }

    /// Whether the bytes read last are an addition to the next record.
    pub(super) fn has_addition(&self) -> bool {
        self.addition.is_some()
    }

    /// The record that these bytes are; `None` where they are damaged.
    pub fn decode(&mut self, bytes: &[u8]) -> Option<SessionRecord> {
        let addition = self.addition.take();
        let mut rest = Rest(bytes);
        match rest.byte()? {
            SESSION => {
                let role = *Role::ALL.get(usize::from(rest.byte()?))?;
                let marks = rest.byte()?;
                let first_issued = rest.number()?;
                let expires = [rest.number()?, rest.number()?];
                let refreshes = u16::from_le_bytes(rest.take()?);
                let identity = rest.identity()?;
                let addition = addition.filter(|addition| addition.of == crc32fast::hash(bytes));
                let lacks = match addition {
                    Some(addition) => addition.lacks,
                    // The first version wrote one mark for all sources.
                    None if marks & DENIED != 0 => Grounds::ALL,
                    None => Grounds::NONE,
                };
                Some(SessionRecord::Session(StoredSession {
                    role,
                    first_issued,
                    expires,
                    refreshes,
                    refused: marks & REFUSED != 0,
                    ended: marks & ENDED != 0,
                    lacks,
                    login: addition.and_then(|addition| addition.login),
                    settled: addition
                        .and_then(|addition| addition.settled)
                        .unwrap_or(first_issued),
                    account_refused: false,
                    identity,
                }))
            }
            FORGOTTEN => {
                let identity = rest.identity()?;
                let is_rider = identity.channel.is_empty() && identity.subject.is_empty();
                match &identity.user {
                    SessionUser::Account(text) if is_rider && text.starts_with(RIDER) => {
                        self.added(text)
                    }
                    _ => Some(SessionRecord::Forgotten(identity)),
                }
            }
            _ => Some(SessionRecord::Unknown),
        }
    }

    /// Reads the account of a record that was added after the first version.
    fn added(&mut self, text: &str) -> Option<SessionRecord> {
        let mut characters = text.chars();
        let (_rider, kind) = (characters.next()?, characters.next()?);
        let mut digits = Digits(characters.as_str());
        match kind {
            ADDITION => {
                let of = digits.number(8)?;
                let same_key = digits.number(8)? == u64::from(self.key);
                let login = NonZeroU64::new(digits.number(16)?).map(Login);
                let lacks = u8::try_from(digits.number(2)?).ok()?;
                let settled = digits.number(8);
                self.addition = Some(Addition {
                    of: u32::try_from(of).ok()?,
                    lacks: Grounds::from_bits(lacks),
                    login: login.filter(|_| same_key),
                    settled: settled.and_then(|settled| u32::try_from(settled).ok()),
                });
                Some(SessionRecord::Unknown)
            }
            REFUSAL => {
                let same_key = digits.number(8)? == u64::from(self.key);
                let login = Login(NonZeroU64::new(digits.number(16)?)?);
                let until = u32::try_from(digits.number(8)?).ok()?;
                let at = u32::try_from(digits.number(8).unwrap_or(0)).ok()?;
                Some(if same_key {
                    SessionRecord::Refused(RefusedLogin { login, until, at })
                } else {
                    SessionRecord::Unknown
                })
            }
            _ => Some(SessionRecord::Unknown),
        }
    }
}

/// The fields of a session's record that only a later version knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LaterFields {
    pub(super) marks: u8,
    pub(super) trailing: Vec<u8>,
    /// Records of their own, each for the session behind it.
    pub(super) riders: Vec<Vec<u8>>,
}

impl LaterFields {
    /// Those of the bytes of a session's record; none of any other's.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let (marks, trailing) = Self::found(Rest(bytes)).unwrap_or_default();
        Self {
            marks: marks & !(UNKNOWN_MARKS - 1),
            trailing,
            riders: Vec::new(),
        }
    }

    fn found(mut rest: Rest<'_>) -> Option<(u8, Vec<u8>)> {
        let [SESSION, _role, marks] = rest.take()? else {
            return None;
        };
        // The times and the number of refreshes.
        rest.take::<14>()?;
        rest.identity()?;
        Some((marks, rest.0.to_vec()))
    }
}

fn session(kept: &StoredSession, later: &LaterFields) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(128);
    bytes.push(SESSION);
    bytes.push(u8::try_from(kept.role.index()).ok()?);
    let refused = if kept.refused { REFUSED } else { 0 };
    let ended = if kept.ended { ENDED } else { 0 };
    let denied = if kept.is_denied() { DENIED } else { 0 };
    bytes.push(refused | ended | denied | later.marks);
    for time in [kept.first_issued, kept.expires[0], kept.expires[1]] {
        bytes.extend_from_slice(&time.to_le_bytes());
    }
    bytes.extend_from_slice(&kept.refreshes.to_le_bytes());
    identity(&kept.identity, &mut bytes)?;
    bytes.extend_from_slice(&later.trailing);
    Some(bytes)
}

fn forgotten(of: &SessionIdentity) -> Option<Vec<u8>> {
    let mut bytes = vec![FORGOTTEN];
    identity(of, &mut bytes)?;
    Some(bytes)
}

fn rider(kind: char, digits: &str) -> Option<Vec<u8>> {
    forgotten(&SessionIdentity {
        channel: String::new(),
        subject: String::new(),
        user: SessionUser::Account(format!("{RIDER}{kind}{digits}").into()),
    })
}

pub(super) fn identity(identity: &SessionIdentity, bytes: &mut Vec<u8>) -> Option<()> {
    text(&identity.channel, bytes)?;
    text(&identity.subject, bytes)?;
    match &identity.user {
        SessionUser::Uid(uid) => {
            bytes.push(UID);
            bytes.extend_from_slice(&uid.to_le_bytes());
        }
        SessionUser::Account(account) => {
            bytes.push(ACCOUNT);
            text(account, bytes)?;
        }
    }
    Some(())
}

fn text(text: &str, into: &mut Vec<u8>) -> Option<()> {
    let length = u16::try_from(text.len()).ok()?;
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(text.as_bytes());
    Some(())
}

/// Bytes that are not read yet.
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

    fn identity(&mut self) -> Option<SessionIdentity> {
        let (channel, subject) = (self.text()?, self.text()?);
        let user = match self.byte()? {
            UID => SessionUser::Uid(self.number()?),
            ACCOUNT => SessionUser::Account(self.text()?.into_boxed_str()),
            _ => return None,
        };
        Some(SessionIdentity {
            channel,
            subject,
            user,
        })
    }
}

/// Hexadecimal digits that are not read yet.
struct Digits<'a>(&'a str);

impl Digits<'_> {
    fn number(&mut self, digits: usize) -> Option<u64> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        u64::from_str_radix(number, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identities() -> impl Strategy<Value = SessionIdentity> {
        let users = prop_oneof![
            any::<u32>().prop_map(SessionUser::Uid),
            ".{1,40}".prop_map(|account| SessionUser::Account(account.into())),
        ];
        (".{0,64}", ".{1,300}", users).prop_map(|(channel, subject, user)| SessionIdentity {
            channel,
            subject,
            user,
        })
    }

    fn logins() -> impl Strategy<Value = Login> {
        (1..=u64::MAX).prop_map(|hash| Login(NonZeroU64::new(hash).unwrap()))
    }

    fn records() -> impl Strategy<Value = SessionRecord> {
        let numbers = any::<(bool, [bool; 2], u32, [u32; 2], u16)>();
        let resting = (0..8_u8, prop::option::of(logins()), any::<u32>());
        prop_oneof![
            identities().prop_map(SessionRecord::Forgotten),
            (logins(), any::<u32>(), any::<u32>()).prop_map(|(login, until, at)| {
                SessionRecord::Refused(RefusedLogin { login, until, at })
            }),
            (identities(), numbers, resting).prop_map(
                |(identity, numbers, (lacks, login, settled))| {
                    let (publisher, [refused, ended], first_issued, expires, refreshes) = numbers;
                    SessionRecord::Session(StoredSession {
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
                        lacks: Grounds::from_bits(lacks),
                        login,
                        settled,
                        account_refused: false,
                    })
                }
            ),
        ]
    }

    const KEY: u32 = 0x1234_5678;

    fn decoded(pieces: &[Vec<u8>], key: u32) -> Vec<Option<SessionRecord>> {
        let mut records = Records::new(key);
        pieces.iter().map(|bytes| records.decode(bytes)).collect()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_it_was_and_nothing_shorter_is(record in records()) {
            let pieces = Records::new(KEY).encode(&record);
            let read = decoded(&pieces, KEY);
            prop_assert_eq!(read.last(), Some(&Some(record.clone())));
            let last = pieces.last().unwrap();
            // A record with fewer digits may be one that a later version wrote.
            for length in 0..last.len() {
                let read = Records::new(KEY).decode(&last[..length]);
                prop_assert!(matches!(read, None | Some(SessionRecord::Unknown)), "{:?}", read);
            }
        }

        #[test]
        fn what_a_later_binary_adds_is_passed_over(record in records(), more in prop::collection::vec(any::<u8>(), 1..20), kind in 3..=255_u8) {
            let pieces = Records::new(KEY).encode(&record);
            let mut longer = pieces.clone();
            longer.last_mut().unwrap().extend(&more);
            let read = decoded(&longer, KEY).pop().flatten();
            // An addition belongs to the very bytes that it was written for.
            let plain = decoded(&longer[longer.len() - 1..], KEY).pop().flatten();
            prop_assert!(read.is_some());
            prop_assert_eq!(read, plain);
            let unknown = [&[kind][..], &more].concat();
            prop_assert_eq!(Records::new(KEY).decode(&unknown), Some(SessionRecord::Unknown));
            if let SessionRecord::Session(kept) = record {
                let mut marked = pieces.last().unwrap().clone();
                marked[2] |= 0xf8;
                let Some(SessionRecord::Session(read)) = Records::new(KEY).decode(&marked) else {
                    panic!("no session");
                };
                prop_assert_eq!(read.identity, kept.identity);
            }
        }

        #[test]
        fn hashes_of_another_key_are_none(record in records()) {
            let pieces = Records::new(KEY).encode(&record);
            let read = decoded(&pieces, KEY + 1).pop().flatten();
            let expected = match record {
                SessionRecord::Session(kept) => SessionRecord::Session(StoredSession { login: None, ..kept }),
                SessionRecord::Refused(_) => SessionRecord::Unknown,
                other => other,
            };
            prop_assert_eq!(read, Some(expected));
        }

        #[test]
        fn any_bytes_are_read_or_refused(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..3)) {
            decoded(&pieces, KEY);
        }
    }

    #[test]
    fn an_addition_is_for_the_record_behind_it_alone() {
        let kept = |subject: &str, login| StoredSession {
            identity: SessionIdentity {
                channel: "show".to_owned(),
                subject: subject.to_owned(),
                user: SessionUser::Uid(7),
            },
            role: Role::Publisher,
            first_issued: 100,
            expires: [200, 0],
            refreshes: 0,
            refused: false,
            ended: false,
            lacks: Grounds::NONE,
            login,
            settled: 100,
            account_refused: false,
        };
        let login = NonZeroU64::new(77).map(Login);
        let records = Records::new(KEY);
        let of_ann = records.encode(&SessionRecord::Session(kept("ann", login)));
        let of_bob = records.encode(&SessionRecord::Session(kept("bob", None)));
        assert_eq!((of_ann.len(), of_bob.len()), (2, 1));
        // The record that the addition was written for is lost to damage, or stands elsewhere.
        let read = decoded(
            &[of_ann[0].clone(), of_bob[0].clone(), of_ann[1].clone()],
            KEY,
        );
        let expected = [
            SessionRecord::Unknown,
            SessionRecord::Session(kept("bob", None)),
            SessionRecord::Session(kept("ann", None)),
        ];
        assert_eq!(read, expected.map(Some));
    }

    #[test]
    fn a_text_too_long_to_be_written_down_is_not() {
        let identity = |length: usize| SessionIdentity {
            channel: "show".to_owned(),
            subject: "x".repeat(length),
            user: SessionUser::Uid(7),
        };
        let written =
            |length| Records::new(KEY).encode(&SessionRecord::Forgotten(identity(length)));
        assert_eq!(written(65_535).len(), 1);
        assert!(written(65_536).is_empty());
    }
}
